"""Segment- and event-based figures: sed_eval's published values, by hand, and what must not change them."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from mmfusion.metrics.events import Event, event_metrics, events_of, segment_metrics
from mmfusion.metrics.matching import largest_matching
from mmfusion.metrics.scoring_sound import read_events
from mmfusion.types import InputError

EIGHT_DIGITS = 5e-8  # nose's assert_almost_equals, by which sed_eval checks its own values, rounds to seven


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    path = shared_data / "golden" / "events" / "sed_eval" / "sound_event"
    if not path.exists():
        pytest.skip(f"needs sed_eval's event lists ({path})")
    return path


def pairs(folder: Path, *names: str) -> tuple[list[Event], list[Event]]:
    """References and estimates of lists that each are one recording."""
    lists: tuple[list[Event], list[Event]] = ([], [])
    for name in names:
        for side, ending in enumerate((".txt", "_detected.txt")):
            lists[side].extend(event._replace(file=name) for event in read_events(folder / f"{name}{ending}"))
    return lists


def cars(*spans: tuple[float, float]) -> list[Event]:
    return [Event("b099.wav", onset, offset, "car") for onset, offset in spans]


def test_street_as_published(folder: Path) -> None:
    truth, said = (read_events(folder / f"street_fold1_{kind}.txt") for kind in ("reference", "detected"))
    assert (len(truth), len(said)) == (142, 218)
    result = segment_metrics(truth, said)
    assert result["accuracy"] == pytest.approx(0.84244791666, abs=EIGHT_DIGITS)
    assert result["error_rate"] == pytest.approx(1.0616698292220115, abs=EIGHT_DIGITS)
    longer = segment_metrics(truth, said, lengths_s=dict.fromkeys({event.file for event in truth}, 1200.0))
    assert longer["accuracy"] == pytest.approx(0.9719907407407408, abs=EIGHT_DIGITS)
    assert longer["error_rate"] == pytest.approx(1.0616698292220115, abs=EIGHT_DIGITS)
    json.dumps(result, allow_nan=False)


def test_binary_lists_as_published(folder: Path) -> None:
    lists = pairs(folder, "binary1", "binary2")
    result = segment_metrics(*lists)
    assert result["accuracy"] == pytest.approx(0.666666666, abs=EIGHT_DIGITS)
    assert (result["balanced_accuracy"], result["sensitivity"], result["specificity"]) == (0.75, 1.0, 0.5)
    assert result["error_rate"] == 1.0
    assert result["f1_micro"] == pytest.approx(0.66666666, abs=EIGHT_DIGITS)
    result = event_metrics(*lists)
    assert result["error_rate"] == pytest.approx(1.0, abs=EIGHT_DIGITS)
    assert result["f1_micro"] == pytest.approx(2 / 3, abs=EIGHT_DIGITS)
    truth, said = (read_events(folder / f"binary5{ending}.txt") for ending in ("", "_detected"))
    result = event_metrics(truth, said)
    assert (result["error_rate"], result["f1_micro"]) == (1.5, 0.0)


def test_audioset_list_as_published(folder: Path) -> None:
    result = segment_metrics(*(read_events(folder / f"audioset1{ending}.txt") for ending in ("", "_detected")))
    for figure in ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1_micro"):
        assert result[figure] == 1.0
    assert result["error_rate"] == 0.0


def test_matching_is_the_best_one_whatever_the_order(folder: Path) -> None:
    truth = read_events(folder / "mini_reference.txt")
    for name in ("mini_detected_a.txt", "mini_detected_b.txt"):
        for order in permutations(truth):
            result = event_metrics(order, read_events(folder / name), collar_s=0.25, offset=False)
            assert (result["f1_micro"], result["error_rate"]) == (1.0, 0.0)  # 0.5 by taking the first that fits


def test_direct_use_as_published() -> None:
    truth = cars((0.0, 2.5), (2.8, 4.5), (6.0, 10.0))
    result = segment_metrics(truth, cars((1.0, 3.5), (7.0, 8.0)))
    assert result["accuracy"] == pytest.approx(0.5, abs=EIGHT_DIGITS)
    assert result["error_rate"] == pytest.approx(0.555555555555, abs=EIGHT_DIGITS)
    result = event_metrics(truth, cars((0.2, 3.5), (6.0, 8.0)))
    assert result["f1_micro"] == pytest.approx(0.8, abs=EIGHT_DIGITS)
    assert result["error_rate"] == pytest.approx(0.3333333333333, abs=EIGHT_DIGITS)


def test_class_that_is_never_estimated_as_published() -> None:
    truth = [Event("f1.wav", 0.3, 0.8, "A"), Event("f2.wav", 0.1, 0.8, "B")]
    said = [Event("f1.wav", 0.2, 0.9, "A")]
    result = event_metrics(truth, said, offset_share=0.2)
    assert result["f1_macro"] == 1.0 and result["never_estimated"] == ["B"]
    assert result["per_class"]["B"]["f1"] is None and result["per_class"]["B"]["error_rate"] == 1.0
    assert event_metrics(truth, said, offset_share=0.2, zero_score=True)["f1_macro"] == 0.5


def test_substitutions_are_those_that_sed_eval_finds() -> None:
    """Its version 0.2.1 gives this case an error rate of 1; with the estimates the other way round it is a half."""
    truth = [Event("a", 2.5, 3.0, "dog"), Event("a", 1.5, 3.5, "cat")]
    said = [Event("a", 2.0, 2.5, "dog"), Event("a", 3.0, 3.5, "dog")]
    assert event_metrics(truth, said, collar_s=0.6)["error_rate"] == 1.0
    assert event_metrics(truth, said[::-1], collar_s=0.6)["error_rate"] == 0.5


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 0.9))
def test_matching_is_as_large_as_scipys(seed: int, num_rows: int, num_columns: int, share: float) -> None:
    fits = np.random.default_rng(seed).random((num_rows, num_columns)) < share
    pairs = largest_matching(fits)
    assert all(fits[pair] for pair in pairs.items()) and len(set(pairs.values())) == len(pairs)
    assert len(pairs) == (maximum_bipartite_matching(csr_matrix(fits)) >= 0).sum()


def test_kinds_of_errors_by_hand() -> None:
    truth = [Event("a", 0, 1, "dog"), Event("a", 3, 4, "cat"), Event("a", 6, 7, "cat")]
    said = [Event("a", 0.1, 1, "cat"), Event("a", 3, 4, "cat"), Event("a", 8, 9, "dog"), Event("b", 0, 1, "dog")]
    result = event_metrics(truth, said)
    # One right, one with the wrong label, one missed, two from nowhere.
    assert result["substitution_rate"] == result["deletion_rate"] == pytest.approx(1 / 3)
    assert result["insertion_rate"] == pytest.approx(2 / 3) and result["error_rate"] == pytest.approx(4 / 3)
    assert result["f1_micro"] == pytest.approx(2 / 7)
    assert result["per_class"]["cat"]["f1"] == 0.5 and result["per_class"]["dog"]["f1"] == 0.0
    segments = segment_metrics(truth, said)
    assert segments["error_rate"] == pytest.approx((1 + 1 + 2) / 3)
    assert segments["substitution_rate"] == pytest.approx(1 / 3)


def events(num: int = 6):
    """Lists of events of two files and three classes on a grid of tenths of a second."""
    one = st.builds(
        lambda file, onset, length, label: Event(file, onset / 10, (onset + length) / 10, label),
        st.sampled_from(["a", "b"]), st.integers(0, 60), st.integers(1, 30), st.sampled_from("xyz"),
    )  # fmt: skip
    return st.lists(one, max_size=num)


def by_brute_force(truth: list[Event], said: list[Event], collar_s: float, share: float) -> tuple[int, int]:
    """The most right pairs, and the most substitutions beside them, of all ways to pair up."""

    def fits(a: Event, b: Event) -> bool:
        wide = max(collar_s, share * (a.offset_s - a.onset_s))
        near = abs(a.onset_s - b.onset_s) <= collar_s and abs(a.offset_s - b.offset_s) <= wide
        return near and a.file == b.file

    best = (0, 0)
    padded = [*said, *([None] * len(truth))]
    for order in set(permutations(range(len(padded)), len(truth))) if truth else ():
        found = [(a, padded[place]) for a, place in zip(truth, order, strict=True)]
        good = [(a, b) for a, b in found if b is not None and fits(a, b)]
        best = max(best, (sum(a.label == b.label for a, b in good), sum(a.label != b.label for a, b in good)))
    return best


@settings(max_examples=40, deadline=None)
@given(events(3), events(3))
def test_pairs_are_the_best_of_all(truth: list[Event], said: list[Event]) -> None:
    if not truth:
        return
    result = event_metrics(truth, said, collar_s=0.55, offset_share=0.3)
    right, substituted = by_brute_force(truth, said, 0.55, 0.3)
    assert result["recall_micro"] == pytest.approx(right / len(truth))
    assert result["substitution_rate"] <= substituted / len(truth) + 1e-12
    wrong = len(truth) + len(said) - 2 * right - result["substitution_rate"] * len(truth)
    assert result["error_rate"] == pytest.approx(wrong / len(truth))


@settings(max_examples=40, deadline=None)
@given(events(), events(), st.randoms(use_true_random=False))
def test_order_and_shared_shifts_change_nothing(truth: list[Event], said: list[Event], random) -> None:
    if not truth and not said:
        return
    shuffled = random.sample(truth, len(truth)), random.sample(said, len(said))
    later = [
        [event._replace(onset_s=event.onset_s + 4, offset_s=event.offset_s + 4) for event in part]
        for part in (truth, said)
    ]
    wide = {"collar_s": 0.25, "offset_share": 0.33}  # never exactly a difference of two times
    before = event_metrics(truth, said, **wide)
    after = event_metrics(*shuffled, **wide)
    assert after["per_class"] == before["per_class"]
    assert after["f1_micro"] == before["f1_micro"] and after["f1_macro"] == before["f1_macro"]
    assert event_metrics(*later, **wide) == before
    plain, moved = segment_metrics(truth, said), segment_metrics(*later)
    assert segment_metrics(*shuffled) == plain
    for figure in ("f1_micro", "f1_macro", "error_rate", "substitution_rate", "sensitivity"):
        assert moved[figure] == plain[figure]
    assert (moved["specificity"] or 0) >= (plain["specificity"] or 0)  # four silent seconds more a file


@settings(max_examples=40, deadline=None)
@given(events(), st.data())
def test_inside_the_collar_all_is_right(truth: list[Event], data) -> None:
    if not truth:
        return
    moves = data.draw(st.lists(st.floats(-0.19, 0.19), min_size=2 * len(truth), max_size=2 * len(truth)))
    said = []
    for event, start, end in zip(truth, moves[::2], moves[1::2], strict=True):
        onset = max(0.0, event.onset_s + start)
        said.append(event._replace(onset_s=onset, offset_s=max(onset, event.offset_s + end)))
    result = event_metrics(truth, said)
    assert (result["f1_micro"], result["f1_macro"], result["error_rate"]) == (1.0, 1.0, 0.0)
    same = segment_metrics(truth, truth, resolution_s=0.1)
    assert (same["f1_micro"], same["error_rate"], same["accuracy"]) == (1.0, 0.0, 1.0)
    none = event_metrics(truth, [])
    assert none["f1_micro"] is None and none["error_rate"] == none["deletion_rate"] == 1.0


def test_events_of_probabilities() -> None:
    steps = "0110111011110001"
    probabilities = np.array([[0.9 if step == "1" else 0.2, 0.4] for step in steps])
    plain = events_of(probabilities, rate=2.0, names=("dog", "cat"), file="a.wav")
    assert [(event.onset_s, event.offset_s) for event in plain] == [(0.5, 1.5), (2.0, 3.5), (4.0, 6.0), (7.5, 8.0)]
    assert {(event.file, event.label) for event in plain} == {("a.wav", "dog")}
    joined = events_of(probabilities, 2.0, ("dog", "cat"), min_gap_s=1.0, min_length_s=1.0)
    assert [(event.onset_s, event.offset_s) for event in joined] == [(0.5, 6.0)]
    smooth = events_of(probabilities, 2.0, ("dog", "cat"), median_s=1.5)
    assert [(event.onset_s, event.offset_s) for event in smooth] == [(0.5, 6.0), (7.5, 8.0)]
    tuned = events_of(probabilities, 2.0, ("dog", "cat"), thresholds=[0.95, 0.4])
    assert tuned == [Event("", 0.0, 8.0, "cat")]
    assert events_of(np.zeros((0, 2)), 2.0, ("dog", "cat"), median_s=3.0) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 25.0]))
def test_events_give_back_the_activity(seed: int, rate: float) -> None:
    active = np.random.default_rng(seed).random((30, 3)) < 0.4
    found = events_of(active.astype(float), rate, list("xyz"))
    roll = np.zeros_like(active)
    for event in found:
        roll[round(event.onset_s * rate) : round(event.offset_s * rate), "xyz".index(event.label)] = True
    assert (roll == active).all()
    if found:
        truth = segment_metrics(found, found, resolution_s=1 / rate, labels=list("xyz"), lengths_s={"": 30 / rate})
        assert truth["num_reference"] == pytest.approx(active.sum(), abs=3 * len(found) * (rate == 25.0))


def test_unusable_input_is_told() -> None:
    good = [Event("a", 0, 1, "dog")]
    with pytest.raises(InputError, match="nothing to score"):
        event_metrics([], [])
    for onset, offset in ((2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(InputError, match="0 <= onset <= offset"):
            segment_metrics(good, [Event("a", onset, offset, "dog")])
    with pytest.raises(InputError, match="none of the 1 labels"):
        segment_metrics(good, [Event("a", 0, 1, "cat")], labels=["dog"])
    with pytest.raises(InputError, match="file a has events but no length"):
        segment_metrics(good, good, lengths_s={"b": 3.0})
    with pytest.raises(InputError, match="collar"):
        event_metrics(good, good, onset=False, offset=False)
    with pytest.raises(InputError, match="segment length"):
        segment_metrics(good, good, resolution_s=0)
    with pytest.raises(InputError, match="diverged"):
        events_of([[float("nan")]], 1.0, ["dog"])
    with pytest.raises(InputError, match="for each of 2 classes"):
        events_of([[0.5]], 1.0, ["dog", "cat"])
    with pytest.raises(InputError, match="rate"):
        events_of([[0.5]], 0.0, ["dog"])
