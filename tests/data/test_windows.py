"""Windows of long clips: they cover what they should, hold what the file holds there, and become one answer."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmfusion.config import validate
from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import write_picture, write_sound
from mmfusion.data.reading import read_raw
from mmfusion.data.windows import WindowReader, WindowsConfig, aggregate, spans
from mmfusion.types import Clip, InputError, Source

CHANCES = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(0, 1))


@settings(deadline=None)
@given(st.floats(0.01, 500), st.floats(0.5, 60), st.floats(0.1, 1))
def test_windows_cover_the_file(length_s: float, window_s: float, share: float) -> None:
    hop_s = share * window_s
    found = list(spans(length_s, window_s, hop_s))
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(length_s)
    for number, (start_s, end_s) in enumerate(found):
        assert start_s == pytest.approx(number * hop_s)
        assert 0 < end_s - start_s <= 1.1 * window_s + 1e-6
    assert all(after[0] <= before[1] + 1e-6 for before, after in pairwise(found))
    # No window says what the one before it could have said: each but the first reaches further by a tenth of a window.
    assert all(after[1] - before[1] >= min(hop_s, 0.1 * window_s) - 1e-6 for before, after in pairwise(found))


@settings(deadline=None)
@given(st.floats(0.01, 500), st.floats(0.5, 60))
def test_windows_without_overlap_cover_the_file_once(length_s: float, window_s: float) -> None:
    found = list(spans(length_s, window_s))
    assert all(before[1] == pytest.approx(after[0]) for before, after in pairwise(found))
    assert len(found) == 1 or min(end - start for start, end in found) >= 0.1 * window_s - 1e-6


def test_what_has_no_length_is_cut_without_end() -> None:
    assert list(islice(spans(None, 2.0), 3)) == [(0, 2), (2, 4), (4, 6)]
    assert list(islice(spans(None, 2.0, 0.5), 3)) == [(0, 2), (0.5, 2.5), (1, 3)]
    for window_s, hop_s in ((0.0, None), (2.0, 0.0), (2.0, 2.5)):
        with pytest.raises(InputError, match="hop <= length"):
            next(spans(3.0, window_s, hop_s))
    with pytest.raises(InputError, match="leaves gaps"):
        validate(WindowsConfig, {"length_s": 1.0, "hop_s": 1.5}, "windows")


def test_one_answer_of_three_windows() -> None:
    chances = np.array([[0.2, 0.9, 0.0], [0.4, 0.1, 0.0], [0.3, 0.5, 0.0]])
    np.testing.assert_allclose(aggregate(chances, "mean"), [0.3, 0.5, 0.0])
    np.testing.assert_allclose(aggregate(chances, "max"), [0.4, 0.9, 0.0])
    np.testing.assert_allclose(aggregate(chances, "han2016"), [0.6, 1.0, 0.0])


@given(CHANCES)
def test_the_normalised_sum_ranks_as_the_mean_does(chances: np.ndarray) -> None:
    found = aggregate(chances, "han2016")
    mean = aggregate(chances, "mean")
    # Not whether the mean is above 0: half of the smallest number is 0.
    assert found.max() == (1 if chances.any() else 0) and found.min() >= 0
    np.testing.assert_allclose(found * mean.max(), mean, atol=1e-12)
    for how in ("mean", "max", "han2016"):
        np.testing.assert_allclose(aggregate(chances[::-1], how), aggregate(chances, how), atol=1e-12)


def test_a_still_picture_is_in_every_window_and_makes_none(tmp_path: Path) -> None:
    write_sound(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 6 * 8000), 8000)
    write_picture(tmp_path / "still.png", np.full((16, 16, 3), 200, np.uint8))
    clips = [
        Clip("both", {"audio": "long.wav", "video": "still.png"}, "test", "a"),
        Clip("still", {"video": "still.png"}, "test", "b"),
    ]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    manifest = read_manifest(tmp_path / "manifest.jsonl")
    inputs = {"audio": {"kind": "waveform", "sample_rate_hz": 8000}, "video": {"kind": "frames", "size_px": 16}}
    tree = {"manifest": str(manifest.path), "cache": str(tmp_path / "cache"), "cache_workers": 0, "inputs": inputs}
    data = validate(DataConfig, tree, "test")
    build_cache(manifest, data, progress=False)
    reader = WindowReader(ClipCache(manifest, data), manifest.clips, WindowsConfig(length_s=2.0))
    assert {name: len(own) for name, own in reader.windows.items()} == {"both": 3, "still": 1}
    for own in reader.windows.values():
        assert all(reader.load(window)["video"].data.min() > 150 for window in own)


def test_a_window_holds_what_the_file_holds_there(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8000 * 5 + 4000)
    write_sound(tmp_path / "long.wav", sound, 8000)
    write_sound(tmp_path / "short.wav", sound[:4000], 8000)
    source = Source("bell", 0.0, 1.0)
    clips = [
        Clip("long", {"audio": "long.wav"}, "test", "a", labels=("bell",), sources=(source,)),
        Clip("late start", {"audio": "long.wav"}, "test", "b", start_s=1.0, end_s=4.0),
        Clip("short", {"audio": "short.wav"}, "test", "c"),
    ]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    manifest = read_manifest(tmp_path / "manifest.jsonl")
    tree = {"manifest": str(manifest.path), "cache": str(tmp_path / "cache"), "cache_workers": 0,
            "max_duration_s": 60.0, "inputs": {"audio": {"kind": "waveform", "sample_rate_hz": 8000}}}  # fmt: skip
    data = validate(DataConfig, tree, "test")
    build_cache(manifest, data, progress=False)
    reader = WindowReader(ClipCache(manifest, data), manifest.clips, WindowsConfig(length_s=2.0, hop_s=1.5))
    assert {name: len(own) for name, own in reader.windows.items()} == {"long": 4, "late start": 2, "short": 1}
    for clip in manifest.clips:
        for window in reader.windows[clip.id]:
            assert window.labels is None and not window.sources and window.end_s is not None
            found = reader.load(window)["audio"]
            raw = read_raw(tmp_path / clip.media["audio"], data.inputs["audio"],
                           clip.start_s + window.start_s, clip.start_s + window.end_s)  # fmt: skip
            assert raw is not None
            np.testing.assert_array_equal(found.data, raw.data)
            assert found.mask.all() and found.rate == raw.rate
