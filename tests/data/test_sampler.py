from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mmfusion.data.sampler import EpochSampler, balanced_order, class_pools
from mmfusion.types import Clip, InputError

sizes = st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3)


@given(*sizes)
@settings(max_examples=60, deadline=None)
def test_ranks_share_an_epoch_without_overlap(num_clips: int, batch_size: int, world: int, epoch: int) -> None:
    if num_clips < world:
        with pytest.raises(InputError):
            EpochSampler(num_clips, batch_size, 0, world=world)
        return
    ranks = [list(EpochSampler(num_clips, batch_size, 3, epoch=epoch, rank=rank, world=world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= len(batch) <= batch_size for batches in ranks for batch in batches)
    for together in zip(*ranks, strict=True):
        lengths = [len(batch) for batch in together]
        assert max(lengths) - min(lengths) <= 1
    seen = [clip for batches in ranks for batch in batches for clip in batch]
    assert len(seen) == len(set(seen))
    left_out = num_clips - len(seen)
    assert left_out < world
    assert left_out == 0 or num_clips % (batch_size * world) == left_out


@given(*sizes, st.integers(0, 70))
@settings(max_examples=60, deadline=None)
def test_a_resumed_epoch_is_the_tail_of_the_whole(
    num_clips: int, batch_size: int, world: int, epoch: int, start: int
) -> None:
    num_clips = max(num_clips, world)
    whole = EpochSampler(num_clips, batch_size, 7, epoch=epoch, rank=world - 1, world=world)
    resumed = EpochSampler(num_clips, batch_size, 7, epoch=epoch, start_batch=start, rank=world - 1, world=world)
    assert list(resumed) == list(whole)[start:]
    assert len(resumed) == len(list(resumed))
    moved = EpochSampler(num_clips, batch_size, 7, rank=world - 1, world=world)
    moved.set_epoch(epoch, start)
    assert list(moved) == list(resumed)


def test_one_process_sees_every_clip_and_orders_differ() -> None:
    orders = {
        (seed, epoch): [clip for batch in EpochSampler(50, 8, seed, epoch=epoch) for clip in batch]
        for seed in range(3)
        for epoch in range(3)
    }
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 9


def test_the_order_does_not_change_between_versions() -> None:
    assert list(EpochSampler(10, 6, 1, epoch=2)) == [[8, 9, 3, 0, 7, 6], [2, 4, 1, 5]]


def test_a_loader_with_processes_keeps_the_order() -> None:
    sampler = EpochSampler(23, 4, 5, epoch=1, start_batch=2)
    loader = DataLoader(list(range(23)), batch_sampler=sampler, num_workers=2, collate_fn=list)  # type: ignore[arg-type]
    assert list(loader) == list(sampler)
    assert len(loader) == len(sampler)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 80), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_balanced_classes_have_equal_turns(sizes: list[int], num_clips: int, epoch: int) -> None:
    edges = np.cumsum([0, *sizes])
    pools = [np.arange(first, last) for first, last in itertools.pairwise(edges)]
    order = balanced_order(pools, num_clips, 3, epoch)
    assert len(order) == num_clips
    counts = [np.isin(order, pool).sum() for pool in pools]
    assert max(counts) - min(counts) <= 1
    for pool in pools:  # nothing is shown again before all of its class has been shown
        shown = np.bincount(order[np.isin(order, pool)], minlength=edges[-1])[pool]
        assert shown.max() - shown.min() <= 1
    assert np.array_equal(order, balanced_order(pools, num_clips, 3, epoch))


def test_the_classes_of_clips() -> None:
    def clip(name: str, **known) -> Clip:
        return Clip(name, {"audio": "x.wav"}, "train", name, **known)

    clips = [
        clip("a", labels=("bell",)), clip("b", labels=("bell", "siren")), clip("c", relevances={"siren": 0.9}),
        clip("d", relevances={"bell": 0.2}), clip("e", labels=()),
    ]  # fmt: skip
    found = sorted(pool.tolist() for pool in class_pools(clips))
    assert found == [[0, 1], [1, 2], [3, 4]]


def test_ranks_share_a_balanced_epoch() -> None:
    pools = [np.arange(9), np.array([9])]
    ranks = [list(EpochSampler(10, 3, 1, rank=rank, world=2, pools=pools)) for rank in range(2)]
    turns = [turn for batches in ranks for batch in batches for turn in batch]
    assert sorted(turn.place for turn in turns) == sorted(balanced_order(pools, 10, 1, 0).tolist())
    assert sorted(turn.number for turn in turns if turn.place == 9) == [0, 1, 2, 3, 4]
    assert {turn.number for turn in turns if turn.place != 9} == {0}
