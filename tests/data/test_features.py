"""Feature files are read back as they were written, or refused with the file and the array at fault."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data.features import read_features, write_features
from mmfusion.types import InputError


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.floats(0.01, 1000), st.booleans(), st.integers(0, 99))
def test_what_is_written_is_read(tmp_path_factory, num_steps, width, rate, masked, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("features") / "a.npz"
    data = rng.standard_normal((num_steps, width)).astype(np.float32)
    mask = rng.random(num_steps) > 0.4 if masked else None
    if mask is not None:
        data[~mask] = np.nan
    write_features(path, data, rate, mask)
    found, real, found_rate = read_features(path)
    assert found_rate == rate and found.dtype == np.float32 and real.dtype == bool
    assert np.array_equal(real, np.ones(num_steps, bool) if mask is None else mask)
    assert np.array_equal(found, np.where(real[:, None], data, 0))


def test_other_number_types_become_float32(tmp_path):
    write_features(tmp_path / "a.npz", np.arange(6).reshape(3, 2), 2)
    assert read_features(tmp_path / "a.npz")[0].tolist() == [[0, 1], [2, 3], [4, 5]]


DATA = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arrays", "field"),
    [
        ({"rate": 1.0}, "data: array is missing"),
        ({"data": DATA}, "rate: array is missing"),
        ({"data": DATA, "rate": 1.0, "masks": np.ones(3, bool)}, "masks: unknown array"),
        ({"data": DATA[0], "rate": 1.0}, "data: must be numbers"),
        ({"data": DATA[:0], "rate": 1.0}, "data: must be numbers"),
        ({"data": DATA.astype(str), "rate": 1.0}, "data: must be numbers"),
        ({"data": DATA, "rate": 0.0}, "rate: must be one positive number"),
        ({"data": DATA, "rate": np.nan}, "rate: must be one positive number"),
        ({"data": DATA, "rate": np.ones(3)}, "rate: must be one positive number"),
        ({"data": DATA, "rate": 1.0, "mask": np.ones(2, bool)}, "mask: must be bool"),
        ({"data": DATA, "rate": 1.0, "mask": np.ones(3)}, "mask: must be bool"),
        ({"data": DATA + np.array([[0], [np.inf], [0]]), "rate": 1.0}, "data: step 1 holds a value that is not finite"),
    ],
)
def test_a_wrong_array_is_named(tmp_path, arrays, field):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=rf"a\.npz: {field}"):
        read_features(tmp_path / "a.npz")


def test_files_that_hold_no_features(tmp_path):
    (tmp_path / "text.npz").write_text("no zip file")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"data": [1]}))
    np.savez(tmp_path / "object.npz", data=np.array([{"a": 1}], object), rate=1.0)
    np.save(tmp_path / "array.npy", DATA)
    write_features(tmp_path / "cut.npz", np.zeros((500, 20)), 1.0)
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    for name in ("text.npz", "empty.npz", "pickle.npz", "object.npz", "array.npy", "cut.npz", "missing.npz", "."):
        with pytest.raises(InputError) as caught:
            read_features(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_writing_what_cannot_be_read_is_refused(tmp_path):
    for data, rate, mask in ((DATA[0], 1.0, None), (DATA, -1.0, None), (DATA, 1.0, np.ones(2, bool))):
        with pytest.raises(InputError):
            write_features(tmp_path / "a.npz", data, rate, mask)
    with pytest.raises(InputError, match=r"must end in \.npz"):
        write_features(tmp_path / "a.npy", DATA, 1.0)
    assert list(tmp_path.iterdir()) == []
