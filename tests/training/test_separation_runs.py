"""Runs that separate mixtures: trained, evaluated, beside rows without a model, and on files of any length."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from tiny_mixtures import MASK, MIXIT, STFT, mixture_config, mixture_tree

from mmfusion.data.media import read_sound, write_clip, write_sound
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.model import FusionModel
from mmfusion.report.compare import compare
from mmfusion.report.comparison import Baseline
from mmfusion.report.separation_baselines import estimates_of
from mmfusion.separate import FileSeparator, Windows, as_text, separate_files
from mmfusion.separate_record import NAME
from mmfusion.training.log import read_log
from mmfusion.training.loop import train
from mmfusion.training.run import Run
from mmfusion.types import Batch, InputError, Separated, Stream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import RATE, damaged, write_sounds

ROOT = Path(__file__).resolve().parents[2]

TASNET = {"kind": "conv_tasnet", "filters": 12, "num_taps": 32, "width": 8, "hidden": 12, "layers": 2, "stacks": 1}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds")).path


@pytest.fixture(scope="module")
def trained(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Tagging and separation on one encoder."""
    run = train(mixture_config(sounds, tmp_path_factory.mktemp("runs")), quiet=True)
    evaluate(run, quiet=True)
    return run


def test_figures_of_a_run(trained: Run) -> None:
    found = trained.read_json("metrics.test.json")
    figures = found["separation"]
    assert (figures["num_mixtures"], figures["num_sources"], figures["num_silent"]) == (6, 12, 0)
    assert figures["ideal_si_sdri"] > 5 > abs(figures["si_sdri"]) and 0 < found["labels"]["map"] <= 1
    rows = read_rows(trained.folder / "predictions.test.jsonl")
    for row in rows:
        sources, told = row["truth"]["sources"], row["separation"]
        assert len(sources) == len(told) == 2
        assert sorted(source["label"] for source in sources) == row["truth"]["labels"]
        assert all(source["clip"].startswith("test-") for source in sources)
        assert all(one["si_sdr"] is not None and not one["silent"] for one in told)
    mean = np.mean([np.mean([one["si_sdri"] for one in row["separation"]]) for row in rows])
    assert figures["si_sdri"] == pytest.approx(mean, abs=1e-6)


def test_the_training_log_says_whether_outputs_collapse(trained: Run) -> None:
    log = read_log(trained.folder / "metrics.csv")
    told = {(row["split"], row["figure"]) for row in log}
    for split in ("train", "validation"):
        assert {(split, f"separation.{name}") for name in ("loss", "collapse", "likeness")} <= told
    assert ("validation", "separation.si_sdri") in told and ("validation", "labels.map") in told
    assert all(0 <= row["value"] <= 1 for row in log if row["figure"] == "separation.collapse")
    assert not any("per_label" in row["figure"] for row in log)


def noise(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, num).astype(np.float32)


def sum_of(found: dict[str, Any]) -> np.ndarray:
    sounds = [read_sound(path, RATE) for path in found["sources"]]
    return np.sum([sound.data for sound in sounds if sound is not None], axis=0)


def test_a_long_file_is_separated_into_sources_that_sum_to_it(trained: Run, tmp_path: Path) -> None:
    mixture = 0.2 * np.random.default_rng(0).standard_normal(round(5.3 * RATE))
    for name in ("long.wav", "other.flac.wav"):
        write_sound(tmp_path / name, mixture[: len(mixture) // (1 if name == "long.wav" else 9)], RATE)
    paths = [tmp_path / "long.wav", tmp_path / "nothing.wav", tmp_path / "other.flac.wav"]
    found = list(separate_files(trained, paths, tmp_path / "out", Windows.of(trained)))
    assert [Path(path).relative_to(tmp_path).as_posix() for path in found[0]["sources"]] == [
        "out/long/source1.wav", "out/long/source2.wav",
    ]  # fmt: skip
    assert found[0]["duration_s"] == 5.3 and "source2.wav" in as_text(found[0])
    for one in (found[0], found[2]):
        whole = read_sound(one["path"], RATE)
        assert whole is not None
        np.testing.assert_allclose(sum_of(one), whole.data, atol=1e-4)
    assert "nothing.wav" in found[1]["error"] and as_text(found[1]).endswith("nothing.wav: error: no such file")
    assert not (tmp_path / "out" / "nothing").exists()


def test_one_odd_file_does_not_cost_the_others_their_sources(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_sound(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-0.1, 0.1, RATE), RATE)
    separate = FileSeparator.separate

    def broken(self: FileSeparator, path: Path, folder: Path, windows: Windows) -> dict[str, Any]:
        if path.stem == "a":
            raise RuntimeError("odd")
        return separate(self, path, folder, windows)

    monkeypatch.setattr(FileSeparator, "separate", broken)
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    first, second = separate_files(trained, paths, tmp_path / "out", Windows.of(trained))
    assert first["error"] == f"{tmp_path}/a.wav: cannot be separated: RuntimeError: odd"
    assert len(second["sources"]) == 2


def test_what_cannot_be_separated_is_said(trained: Run, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="need 0 < overlap <= window / 2"):
        Windows.of(trained, 2.0, 1.5)
    with pytest.raises(InputError, match=r"b/x\.wav: the sources of two files would go into the folder"):
        list(separate_files(trained, ["b/x.wav", "c/x.mp3"], tmp_path, Windows(1.0, 0.2)))
    tagger = Run.create(mixture_config(sounds, tmp_path, name="tagger", model__heads__separation=None,
                                  training__select=None))  # fmt: skip
    with pytest.raises(InputError, match="tagger/seed0: has no separation head"):
        list(separate_files(tagger, ["x.wav"], tmp_path, Windows(1.0, 0.2)))


def test_pictures_condition_a_conv_tasnet_in_training_and_on_files(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "films", pictures=True).path
    config = mixture_config(
        manifest,
        tmp_path,
        data__inputs={
            "audio": {"kind": "waveform", "sample_rate_hz": RATE},
            "video": {"kind": "frames", "rate": 4, "size_px": 16},
        },
        model__encoders={
            "audio": {"kind": "stft", "spectra": {"stft": STFT}},
            "video": {"kind": "frame_cnn", "width": 8, "channels": [4, 4]},
        },
        model__fusion={"depth": "deep", "join": {"kind": "concat"}, "rate": 4},
        model__heads={"separation": {**TASNET, "conditioned": True}},
    )
    run = train(config, quiet=True)
    assert evaluate(run, quiet=True)["separation"]["num_mixtures"] == 6
    film = next(path for path in sorted(manifest.parent.glob("test-*.mp4")))
    blind = tmp_path / "blind.mp4"
    shutil.copy(film, blind)
    damaged(blind, slice(None), "video")
    for path in (film, blind):
        (found,) = separate_files(run, [path], tmp_path / "out", Windows.of(run))
        whole = read_sound(path, RATE)
        assert whole is not None
        np.testing.assert_allclose(sum_of(found), whole.data, atol=1e-4)
        told = json.loads((tmp_path / "out" / path.stem / NAME).read_text())
        assert found.get("warnings") == told.get("warnings")
        assert told["head"] == "separation" and told["path"] == str(path)
    assert [name.split(":")[0] for name in found["warnings"]] == ["video"]
    assert "no picture can be decoded" in found["warnings"][0]


def test_one_of_several_heads_is_named(sounds: Path, tmp_path: Path) -> None:
    heads = {"mask": MASK, "tasnet": {**TASNET, "num_outputs": 3}, "labels": {"kind": "labels"}}
    run = train(
        mixture_config(sounds, tmp_path, model__heads=heads, training__select=None, training__epochs=0), quiet=True
    )
    with pytest.raises(InputError, match=r"has the separation heads mask, tasnet: say which one with --head"):
        FileSeparator(run)
    with pytest.raises(InputError, match=r"head: 'labels' is no separation head \(there: mask, tasnet\)"):
        FileSeparator(run, "labels")
    write_sound(tmp_path / "x.wav", noise(2000), RATE)
    for head, num in (("tasnet", 3), ("mask", 2)):
        (found,) = separate_files(run, [tmp_path / "x.wav"], tmp_path / "out", Windows.of(run), head)
        names = [f"source{number + 1}.wav" for number in range(num)]
        assert [Path(path).name for path in found["sources"]] == names
        # What the other head wrote before is gone when it is not written again.
        assert sorted(path.name for path in (tmp_path / "out" / "x").iterdir()) == [NAME, *names]
        # Nothing is a file, one sample is one, and so are a hundred.
        for length in (0, 1, 100):
            path = tmp_path / f"{head}{length}.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes((3000 * noise(length)).astype("<i2").tobytes())
            (found,) = separate_files(run, [path], tmp_path / "out", Windows.of(run), head)
            if length:
                whole = read_sound(path, RATE)
                assert whole is not None and len(sum_of(found)) == length
                np.testing.assert_allclose(sum_of(found), whole.data, atol=1e-4)
            else:
                assert f"{head}0.wav: no sound can be decoded" in found["error"]
                assert not (tmp_path / "out" / path.stem).exists()


def test_sources_of_another_file_are_not_overwritten(trained: Run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_sound(tmp_path / folder / "x.wav", noise(2000, seed=ord(folder)), RATE)
    windows = Windows.of(trained)
    for _ in range(2):  # the same file twice is nothing new
        (found,) = separate_files(trained, [tmp_path / "a" / "x.wav"], tmp_path / "out", windows)
        assert "error" not in found
    before = [Path(path).read_bytes() for path in found["sources"]]
    (other,) = separate_files(trained, [tmp_path / "b" / "x.wav"], tmp_path / "out", windows)
    assert re.search(r"out/x: holds the sources of .*a/x\.wav; choose another folder", other["error"])
    assert [Path(path).read_bytes() for path in found["sources"]] == before


PEAK = """
import resource, sys
from mmfusion.separate import Windows, separate_files
from mmfusion.training.run import Run
run = Run.open(sys.argv[1])
for path in sys.argv[3:]:
    (found,) = separate_files(run, [path], sys.argv[2], Windows.of(run))
    assert "error" not in found, found
    print(found["duration_s"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in other units elsewhere")
def test_ten_minutes_take_no_more_memory_than_one(trained: Run, tmp_path: Path) -> None:
    """Held whole, the longer file would take 19 MB, and its two sources twice as much."""
    minute = 0.1 * noise(60 * RATE)
    paths = [tmp_path / f"{length_min}.wav" for length_min in (1, 10)]
    for path in paths:
        write_sound(path, np.tile(minute, int(path.stem)), RATE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", PEAK, str(trained.folder), str(tmp_path / "out"), *map(str, paths)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lengths_s, peaks_mb = zip(*(map(float, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert lengths_s == (60.0, 600.0)
    assert peaks_mb[1] - peaks_mb[0] < 8, peaks_mb


def test_the_tool_separates_any_media_file(trained: Run, tmp_path: Path) -> None:
    sound = 0.2 * noise(3 * RATE)
    music, film, torn = tmp_path / "music.mp3", tmp_path / "film.mp4", tmp_path / "torn.mp4"
    with av.open(str(music), "w") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_clip(film, np.zeros((30, 16, 16, 3), np.uint8), 10, sound, RATE)
    write_clip(torn, None, 10, sound, RATE)
    damaged(torn, slice(6, 9), "audio")
    words = ["tools/separate.py", str(trained.folder), *map(str, (music, film, torn)), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, *words, "--json"], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in found] == [str(path) for path in (music, film, torn)]
    for row in found:
        whole = read_sound(row["path"], RATE)
        assert whole is not None and len(row["sources"]) == 2
        np.testing.assert_allclose(sum_of(row), whole.data, atol=1e-4)
    assert ["warnings" in row for row in found] == [False, False, True]
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warning == f"warning: {torn}: {found[2]['warnings'][0]}" and "could not be decoded" in warning
    assert json.loads((tmp_path / "out" / "torn" / NAME).read_text())["warnings"] == found[2]["warnings"]


def test_outputs_of_mixit_are_added_up_to_the_sources_that_they_are_scored_by(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(mixture_config(sounds, tmp_path, model__heads={"separation": MIXIT}), quiet=True)
    assert evaluate(run, quiet=True)["separation"]["num_sources"] == 12

    def perfect(sources: torch.Tensor, mixture: Stream) -> torch.Tensor:
        """Each source as the sum of two outputs that are nothing like it."""
        noise = torch.randn(sources.shape, generator=torch.Generator().manual_seed(0)) * sources.std()
        return torch.cat([sources / 2 + noise, sources / 2 - noise], dim=1).flip(1)

    def nothing(sources: torch.Tensor, mixture: Stream) -> torch.Tensor:
        return (mixture.data / 4)[:, None].repeat(1, 4, 1)

    def scored(separator: Any) -> dict[str, Any]:
        def decide(self: FusionModel, fused: Any, batch: Batch) -> dict[str, Separated]:
            assert batch.targets.sources is not None
            mixture = batch.inputs["audio"]
            return {"separation": Separated(separator(batch.targets.sources, mixture), mixture.mask)}

        monkeypatch.setattr(FusionModel, "decide", decide)
        return evaluate(run, quiet=True)["separation"]

    assert scored(perfect)["si_sdri"] > 60 and scored(perfect)["share_below_0"] == 0
    assert scored(nothing)["si_sdri"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model__heads__separation__input": "video"}, r"model\.heads\.separation\.input: 'video' is no sound"),
        ({"model__heads__separation__stft": {}}, r"separation\.stft\.sample_rate_hz is 16000, and 'audio' is at"),
        ({"model__encoders__audio__spectra": {}}, r"encoders\.audio\.spectra\.stft\.sample_rate_hz is 16000"),
        ({"model__heads__separation__by_bin": True}, r"model\.heads\.separation\.by_bin: 16 features"),
        ({"model__heads__separation__num_outputs": 1}, r"model\.heads\.separation\.num_outputs: 1 is fewer than the 2"),
        ({"data__mixture": None, "training__select": None}, r"separation: separation is learnt from mixtures"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(sounds: Path, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(mixture_config(sounds, tmp_path, **settings), quiet=True)


def test_late_fusion_is_refused(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "films", pictures=True).path
    inputs = {"audio": {"kind": "waveform", "sample_rate_hz": RATE}, "video": {"kind": "frames", "size_px": 16}}
    encoders = {"audio": {"kind": "stft", "spectra": {"stft": STFT}}, "video": {"kind": "frame_cnn", "width": 8}}
    config = mixture_config(manifest, tmp_path, data__inputs=inputs, model__encoders=encoders,
                       model__fusion={"depth": "late"})  # fmt: skip
    with pytest.raises(InputError, match=r"model\.heads\.separation: separated signals are not mixed"):
        train(config, quiet=True)


def test_rows_without_a_model_and_rows_without_the_head(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"training__select": None, "data__mixture__num_test": 40}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(mixture_tree(sounds, tmp_path, **settings)))
    figures = [{"name": f"separation.{name}", "title": name, "scale": 1, "significance": name != "si_sdr"}
               for name in ("si_sdri", "si_sdri_median", "share_below_0", "share_of_ideal", "si_sdr")]  # fmt: skip
    comparison = {
        "name": "tiny", "title": "Tiny", "config": "run.yaml", "reference": ["nothing"], "num_resamples": 100,
        "workers": 1, "figures": [*figures, {"name": "labels.map", "title": "mAP"}],
        "rows": {
            "nothing": {"baseline": "mixture"}, "ratio": {"baseline": "ideal_ratio"},
            "tag": {"set": {"model.heads.separation": None}},
        },
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(comparison, sort_keys=False))
    with pytest.raises(InputError, match=r"row nothing says sources only and has no labels\.map"):
        compare("tiny.yaml")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**comparison, "figures": figures}, sort_keys=False))
    text = compare("tiny.yaml")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert lines["tag"].count(" - |") == len(figures) and "p " in lines["ratio"]
    scores = {row: json.loads((tmp_path / f"runs/tiny-{row}/seed0/metrics.test.json").read_text())["separation"]
              for row in ("nothing", "ratio")}  # fmt: skip
    assert scores["nothing"]["si_sdri"] == pytest.approx(0, abs=1e-3) and scores["ratio"]["share_of_ideal"] == 1.0
    assert scores["ratio"]["si_sdri"] > 5
    assert compare("tiny.yaml") == text  # nothing is made twice


def test_what_says_sources_without_a_model() -> None:
    time = torch.arange(RATE) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (200.0, 1500.0)])[None]
    mixture = Stream(tones.sum(1), torch.ones(1, RATE, dtype=torch.bool), float(RATE))
    for kind in ("band_split", "ideal_ratio", "ideal_binary"):
        found = estimates_of(Baseline(kind), tones, mixture)  # type: ignore[arg-type]
        torch.testing.assert_close(found, tones, atol=0.3, rtol=0)
    assert torch.equal(estimates_of(Baseline("mixture"), tones, mixture)[0, 1], mixture.data[0])
    above = estimates_of(Baseline("band_split", split_hz=100.0), tones, mixture)
    assert above[0, 0].abs().max() < 0.3 < found[0, 0].abs().max()
    with pytest.raises(InputError, match="a band_split row makes two sources, and these mixtures have 3"):
        estimates_of(Baseline("band_split"), tones[:, [0, 1, 1]], mixture)
