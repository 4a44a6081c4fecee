"""Streams check themselves; batches move whole."""

from __future__ import annotations

import pytest
import torch

from mmfusion.types import Batch, Output, Stream, Targets


def test_streams_that_do_not_fit_are_refused() -> None:
    data, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    for wrong in ((torch.zeros(3), mask, 1.0), (data, mask.float(), 1.0), (data, mask[:, :2], 1.0), (data, mask, 0.0)):
        with pytest.raises(ValueError):
            Stream(*wrong)
    with pytest.raises(AttributeError):
        Stream(data, mask, 1.0).rate = 2.0  # type: ignore[misc]


def test_lengths_presence_and_zeros() -> None:
    mask = torch.tensor([[True, False, True, False], [False] * 4, [True] * 4])
    stream = Stream(torch.full((3, 4, 2), float("nan")), mask, 2.0)
    assert stream.lengths.tolist() == [3, 0, 4]
    assert stream.present.tolist() == [True, False, True]
    assert stream.zeroed()[1].eq(0).all() and stream.zeroed()[0, 1].eq(0).all()


def test_batches_move_whole() -> None:
    stream = Stream(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), 1.0)
    batch = Batch(("a",), {"audio": stream}, Targets(labels=torch.ones(1, 3)))
    moved = batch.to("meta")
    assert moved.inputs["audio"].data.is_meta and moved.targets.labels.is_meta and moved.targets.words is None
    assert moved.ids == ("a",) and moved.inputs["audio"].rate == 1.0


def test_log_probabilities_of_both_families() -> None:
    logits = torch.tensor([[80.0, -80.0]])
    assert Output(logits, "categorical").log_probs().exp().sum().item() == pytest.approx(1)
    assert Output(logits, "bernoulli").log_probs().isfinite().all()
