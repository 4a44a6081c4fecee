"""A click and a flash at 3.0 s land on the same fused step, in every container, for every configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmfusion.config import load
from mmfusion.data.collate import pad
from mmfusion.data.raw import Raw
from mmfusion.data.reading import layout, read_raw
from mmfusion.fusion.align import align
from mmfusion.model import build_model
from mmfusion.training.run import RunConfig
from mmfusion.types import Facts, Stream

EVENT_S, DURATION_S = 3.0, 5.0
CONFIGS = ["synthetic/early", "synthetic/deep", "synthetic/late", "avmnist", "drone"]
FUSED = {"avmnist": "{depth: early, rate: 2}", "drone": "{depth: deep}"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Container -> (file with click and flash, the same file without)."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
    from media_making import clicks, flashes, write_media

    folder = tmp_path_factory.mktemp("clock")
    found = {}
    for suffix in (".mp4", ".mkv", ".webm"):
        # Pictures begin 80 ms late and sound 40 ms late: each stream has an offset of its own.
        paths = []
        for name, event_s in (("event", EVENT_S), ("nothing", 99.0)):
            pictures = flashes(event_s, 0.08, 25, DURATION_S)
            heard = event_s if event_s < DURATION_S else None
            sound = clicks(heard or EVENT_S, 0.04, 48000, DURATION_S) * (heard is not None)
            noise = np.random.default_rng(0).normal(scale=0.003, size=sound.shape).astype(np.float32)
            paths.append(write_media(folder / f"{name}{suffix}", pictures, sound + noise, 0.04))
        found[suffix] = (paths[0], paths[1])
    return found


def test_the_files_differ_only_by_the_event(files: dict[str, tuple[Path, Path]]) -> None:
    assert all(event.stat().st_size != nothing.stat().st_size for event, nothing in files.values())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_same_fused_step(files: dict[str, tuple[Path, Path]], root: Path, name: str, suffix: str) -> None:
    overrides = [f"model.fusion={FUSED[name]}"] if name in FUSED else []
    if name == "drone":  # that set's files have a wrong clock, these have a right one
        overrides.append("data.inputs.video.true_frame_rate=null")
    config = load(RunConfig, root / f"configs/{name}.yaml", [*overrides, "name=clock"])
    torch.manual_seed(0)
    model = build_model(config.model, Facts(("a", "b"), ("<pad>", "<bos>", "<eos>", "<unk>", "a")))
    _warm(model, config)
    moved = {}
    for stream in model.encoders:
        steps = [_steps(model, config, stream, path) for path in files[suffix]]
        change = (steps[0].data - steps[1].data).norm(dim=2, keepdim=True)
        moved[stream] = steps[0].with_data(change)
    rate = getattr(config.model.fusion, "rate", None)
    fused = align(moved, rate)
    expected = int(EVENT_S * fused["audio"].rate + 1e-6)
    assert {stream: int(found.data[0, :, 0].argmax()) for stream, found in fused.items()} == {
        "audio": expected, "video": expected,
    }  # fmt: skip


def _steps(model: torch.nn.Module, config: RunConfig, stream: str, path: Path) -> Stream:
    way = config.data.inputs[model.inputs[stream]]  # type: ignore[index,operator]
    raw = read_raw(path, way, 0.0, DURATION_S)
    assert raw is not None
    with torch.no_grad():
        return model.steps_of(stream).eval()(pad([raw], layout(way), raw.rate))  # type: ignore[operator]


def _warm(model: torch.nn.Module, config: RunConfig) -> None:
    """Lets batch norms see ordinary data: at their initial statistics they pass next to nothing on."""
    noise = np.random.default_rng(1)
    for stream in model.encoders:  # type: ignore[union-attr]
        way = config.data.inputs[model.inputs[stream]]  # type: ignore[index,operator]
        shape = layout(way)
        num = int(2 * (shape.rate or 1))
        data = noise.normal(scale=0.1, size=(num, *shape.shape)).astype(np.float32)
        if shape.dtype == "uint8":
            data = noise.integers(0, 256, size=(num, *shape.shape), dtype=np.uint8)
        raw = Raw(data, np.ones(num, dtype=bool), float(shape.rate or 1))
        steps = model.steps_of(stream).train()  # type: ignore[operator]
        with torch.no_grad():
            for _ in range(20):
                steps(pad([raw] * 4, shape, raw.rate))
