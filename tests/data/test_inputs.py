from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmfusion.config import to_tree, validate
from mmfusion.data.inputs import DataConfig, FeaturesInput, FramesInput, WaveformInput
from mmfusion.data.media import write_clip
from mmfusion.data.reading import read_raw
from mmfusion.types import InputError

TREE = {"manifest": "m.jsonl", "inputs": {"audio": {"kind": "waveform"}}}


def read(**changes: object) -> DataConfig:
    return validate(DataConfig, {**TREE, **changes}, "c.yaml")


def test_the_kind_decides_the_class() -> None:
    kinds = {"a": {"kind": "waveform"}, "b": {"kind": "frames", "rate": 2}, "c": {"kind": "features", "source": "x"}}
    inputs = read(inputs=kinds).inputs
    assert [type(inputs[name]) for name in "abc"] == [WaveformInput, FramesInput, FeaturesInput]
    assert to_tree(inputs["b"])["rate"] == 2.0
    assert inputs["c"].source == "x"


def test_a_configuration_survives_being_written() -> None:
    config = read(augment={"gain_db": [-6, 6.0], "flip": 0.5}, modality_dropout={"audio": 0.25})
    assert validate(DataConfig, to_tree(config), "again") == config


def test_augmentation_is_off_by_default() -> None:
    assert not read().augment.is_on
    changes = ({"crop": 0.1}, {"flip": 0.5}, {"shift_s": 0.1}, {"gain_db": [0, 1]}, {"noise_snr_db": [10, 20]})
    assert all(read(augment=change).augment.is_on for change in changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"inputs": {"audio": {"kind": "waveform", "sample_rate": 8000}}}, "sample_rate_hz"),
        ({"inputs": {"audio": {"kind": "sound"}}}, "inputs.audio"),
        ({"inputs": {"v": {"kind": "frames", "rate": 0}}}, "inputs.v.rate"),
        ({"inputs": {"v": {"kind": "frames", "size_px": "64"}}}, "inputs.v.size_px"),
        ({"inputs": {}}, "inputs"),
        ({"modality_dropout": {"video": 0.5}}, "video"),
        ({"modality_dropout": {"audio": 1.5}}, "modality_dropout.audio"),
        ({"augment": {"gain": [0, 1]}}, "gain_db"),
        ({"max_duration_s": 0}, "max_duration_s"),
    ],
)
def test_what_is_wrong_is_named(changes: dict, named: str) -> None:
    with pytest.raises(InputError) as caught:
        read(**changes)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_true_frame_rate_replaces_a_wrong_clock(tmp_path):
    """40 frames that were recorded at 10 a second, whatever the file says: step k of rate 2 is frame 5 k."""
    frames = np.repeat(np.arange(40, dtype=np.uint8) * 6, 32 * 32 * 3).reshape(40, 32, 32, 3)
    for rate in (1, 100, 1000):
        write_clip(tmp_path / "wrong.mp4", frames, rate, None, 16000)
        raw = read_raw(tmp_path / "wrong.mp4", FramesInput(rate=2.0, size_px=32, true_frame_rate=10.0), 1.0, 3.0)
        np.testing.assert_allclose(raw.data.mean(axis=(1, 2, 3)) / 6, [10, 15, 20, 25], atol=0.7)
        end = read_raw(tmp_path / "wrong.mp4", FramesInput(rate=10.0, size_px=32, true_frame_rate=10.0), 3.5, 9.0)
        np.testing.assert_allclose(end.data.mean(axis=(1, 2, 3)) / 6, [35, 36, 37, 38, 39], atol=0.7)


def test_frames_without_a_clock_are_counted(shared_data: Path):
    """Every frame of these films has the time stamp 0."""
    film = shared_data / "drone" / "Video_V" / "V_BIRD_002.mp4"
    raw = read_raw(film, FramesInput(rate=10.0, size_px=32, true_frame_rate=10.0), 0.0, 20.0)
    assert len(raw.data) == 104 and raw.flaw is None
    assert len({step.tobytes() for step in raw.data}) > 90
