"""F1 by intersection and PSDS: psds_eval's published counts, rates and scores, and properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.metrics.events import Event
from mmfusion.metrics.intersection import Criteria, OperatingPoint, intersection_metrics, operating_point, psds
from mmfusion.metrics.scoring_sound import read_events, read_lengths
from mmfusion.types import InputError


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    path = shared_data / "golden" / "events" / "psds_eval"
    if not path.exists():
        pytest.skip(f"needs psds_eval's event lists ({path})")
    return path


def confusion(point: OperatingPoint) -> list[list[int]]:
    """psds_eval's matrix: found on the diagonal, cross-triggers beside it, false positives last."""
    table = point.cross_triggers + np.diag(point.num_found)
    return np.column_stack([table, point.num_false]).tolist()


def cross_rates(point: OperatingPoint) -> np.ndarray:
    return point.cross_triggers * 3600 / point.reference_s


PAPER = {
    "test_1": ([[1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]], 0.9142857142857143),
    "test_2": ([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], 0.29047619047619044),
    "test_3": ([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]], 0.6238095238095237),
    "test_4": ([[2, 0, 0, 0, 0], [0, 0, 1, 0, 3], [0, 0, 1, 0, 0], [1, 1, 0, 0, 2]], 0.5),
    "Y23R6_ppquxs_247.000_257000": ([[1, 1, 1], [0, 4, 0]], 0.6089285714285714),
}


@pytest.mark.parametrize("name", PAPER)
def test_examples_as_published(folder: Path, name: str) -> None:
    lengths_s = read_lengths(folder / "test.metadata")
    point = operating_point(*(read_events(folder / f"{name}{kind}") for kind in (".gt", ".det")), Criteria(), lengths_s)
    counts, score = PAPER[name]
    assert confusion(point) == counts
    assert psds([point], max_efpr=100.0) == pytest.approx(score, abs=1e-15)
    if name == "test_1":
        assert point.found_share.tolist() == [1, 1, 1]
        assert point.false_rate() == pytest.approx([12.857143, 12.857143, 0.0])
        assert cross_rates(point)[0].tolist() == [0, 0, 720]
    if name == "test_4":
        assert point.found_share.tolist() == [1, 0, 1, 0]
        assert point.false_rate() == pytest.approx([0, 38.57142857, 0, 25.71428571])
        assert cross_rates(point)[3] == pytest.approx([87.804878, 300, 0, 0])


def test_several_operating_points_as_published(folder: Path) -> None:
    lengths_s, truth = read_lengths(folder / "test.metadata"), read_events(folder / "test_1.gt")
    names = ("c1", "c2", "c3", "z4")

    def point(name: str, criteria: Criteria) -> OperatingPoint:
        return operating_point(truth, read_events(folder / name), criteria, lengths_s, names)

    plain, strict = Criteria(), Criteria(1.0, 1.0, 1.0)
    both = [point("test_1.det", plain), point("test_4.det", plain)]
    assert psds(both) == pytest.approx(0.9142857142857143, abs=1e-15)
    assert psds([point("test_1.det", strict), point("test_1a.det", strict)]) == 0.0


BASELINE = [
    [269, 5, 54, 37, 45, 14, 3, 8, 89, 0, 302],
    [9, 59, 17, 43, 10, 22, 20, 41, 120, 83, 416],
    [63, 4, 129, 8, 79, 11, 12, 13, 74, 1, 585],
    [41, 45, 19, 164, 73, 24, 136, 119, 493, 12, 1100],
    [120, 29, 105, 56, 278, 30, 96, 93, 825, 58, 1480],
    [13, 31, 13, 9, 7, 41, 35, 48, 203, 27, 386],
    [7, 35, 14, 63, 24, 51, 87, 135, 403, 46, 840],
    [18, 46, 16, 63, 51, 26, 103, 127, 187, 46, 662],
    [128, 86, 82, 87, 154, 62, 97, 185, 966, 120, 1340],
    [2, 58, 20, 7, 22, 43, 27, 32, 89, 67, 390],
]


def test_dcase_baseline_as_published(folder: Path) -> None:
    truth, said = (read_events(folder / f"baseline_validation_{kind}.csv") for kind in ("gt", "AA_0.005"))
    assert (len(truth), len(said)) == (4236, 8942)
    point = operating_point(truth, said, Criteria(), read_lengths(folder / "baseline_validation_metadata.csv"))
    assert confusion(point) == BASELINE
    shares = [0.64047619, 0.61458333, 0.37829912, 0.28924162, 0.4877193,
              0.63076923, 0.92553191, 0.53586498, 0.55074116, 0.72826087]  # fmt: skip
    rates = [93.08219178, 128.21917808, 180.30821918, 339.04109589, 456.16438356,
             118.97260274, 258.90410959, 204.04109589, 413.01369863, 120.20547945]  # fmt: skip
    assert point.found_share == pytest.approx(shares, abs=1e-8) and point.false_rate() == pytest.approx(rates, abs=1e-8)
    crossed = [39.38051054, 0, 129.72560491, 436.70832511, 44.80052566,
               157.60190396, 92.77035472, 118.69875286, 164.68109049, 382.88155531]  # fmt: skip
    assert cross_rates(point)[1] == pytest.approx(crossed, abs=1e-8)
    assert psds([point], max_efpr=100.0) == pytest.approx(0.0044306914546640595, abs=1e-15)


def test_f_scores_as_published(folder: Path) -> None:
    """With the lengths of other files, as psds_eval's own test has it: false positives count in one file only."""
    truth, said = (read_events(folder / f"baseline_validation_{kind}.csv") for kind in ("gt", "AA_0.005"))
    result = intersection_metrics(truth, said, lengths_s=read_lengths(folder / "test.metadata"))
    published = [0.7752161383285303, 0.7421383647798742, 0.548936170212766, 0.44747612551159616, 0.6548881036513545,
                 0.7663551401869159, 0.9405405405405406, 0.6978021978021978, 0.7102941176470589,
                 0.8427672955974843]  # fmt: skip
    assert [row["f1"] for row in result["per_class"].values()] == pytest.approx(published, abs=1e-15)
    assert result["f1_macro"] == pytest.approx(0.712641, abs=5e-7)
    json.dumps(result, allow_nan=False)


def spans(num: int = 8):
    one = st.builds(
        lambda file, onset, length, label: Event(file, onset / 4, (onset + length) / 4, label),
        st.sampled_from(["a", "b"]), st.integers(0, 60), st.integers(1, 30), st.sampled_from("xyz"),
    )  # fmt: skip
    return st.lists(one, max_size=num)


@settings(max_examples=60, deadline=None)
@given(spans(), spans(), st.randoms(use_true_random=False))
def test_properties(truth: list[Event], said: list[Event], random) -> None:
    if not truth or not said:
        return
    lengths_s = {"a": 30.0, "b": 30.0}
    names = list("xyz")
    point = operating_point(truth, said, Criteria(), lengths_s, names)
    shuffled = operating_point(
        random.sample(truth, len(truth)), random.sample(said, len(said)), Criteria(), lengths_s, names
    )
    assert confusion(shuffled) == confusion(point)
    assert (point.num_found <= point.num_reference).all() and point.num_false.sum() <= len(said)
    loose = operating_point(truth, said, Criteria(dtc=0.25, gtc=0.25), lengths_s, names)
    assert (loose.num_found >= point.num_found).all() and (loose.num_false <= point.num_false).all()
    perfect = operating_point(truth, truth, Criteria(), lengths_s, names)
    assert (perfect.num_found == perfect.num_reference).all() and not perfect.num_false.any()
    assert psds([perfect]) == 1.0
    score, worse = psds([point]), psds([point], alpha_ct=1.0, alpha_st=1.0)
    assert score is not None and worse is not None and 0 <= worse <= score + 1e-12 <= 1 + 1e-9
    more = psds([point, loose])
    assert more is not None and more >= score - 1e-12


def test_classes_without_a_side_by_hand() -> None:
    truth = [Event("a", 0, 4, "dog"), Event("a", 6, 8, "cat")]
    said = [Event("a", 0, 1, "dog"), Event("a", 1.5, 3, "dog"), Event("a", 6, 8, "rain")]
    result = intersection_metrics(truth, said)
    # Two detections cover 2.5 of 4 seconds together; nothing finds the cat; rain is a false positive.
    assert result["per_class"]["dog"]["f1"] == 1.0 and result["per_class"]["cat"]["f1"] == 0.0
    assert result["per_class"]["rain"] == {"num_reference": 0, "num_found": 0, "num_false": 1, "f1": None}
    assert result["f1_macro"] == 0.5 and result["f1_micro"] == pytest.approx(2 / 4)
    lengths_s = {"a": 3600.0}
    point = operating_point(truth, said, Criteria(), lengths_s)
    # The classes are cat, dog and rain, which is no class of the reference; it triggers on the cat, 2 s an hour.
    assert point.false_rate().tolist() == [0, 0, 1]
    assert point.false_rate(0.5).tolist() == [0, 0, 1 + 0.5 * (3600 / 2 + 0) / 2]
    assert psds([point]) == pytest.approx(0.5)
    assert psds([point], alpha_st=1.0) == pytest.approx(0.0)


def test_unusable_input_is_told() -> None:
    point = operating_point([Event("a", 0, 1, "dog")], [])
    with pytest.raises(InputError, match="lengths of the files"):
        psds([point])
    with pytest.raises(InputError, match="all of the same classes"):
        psds([])
    with pytest.raises(InputError, match="nothing to score"):
        operating_point([], [])
    nothing = operating_point([], [Event("a", 0, 1, "dog")], lengths_s={"a": 5.0})
    assert psds([nothing]) is None
