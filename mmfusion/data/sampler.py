"""Which clips come when: the order of an epoch, cut into batches, shared among processes, and taken up again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mmfusion.types import THRESHOLD, Clip, InputError

Sampling = Literal["shuffled", "balanced"]


class Turn(NamedTuple):
    """A clip in an epoch in which clips come again: its place, and how often it came before."""

    place: int
    number: int


Batches = Sequence[list[int]] | Sequence[list[int | Turn]]
"""the clips of batches, by their places or turns"""


class EpochSampler(Sampler[list[int | Turn]]):
    """The batches of one training epoch for one of `world` processes: a `batch_sampler` for torch's DataLoader.

    The order is a permutation that (seed, epoch) alone decides, or, with `pools` (from `class_pools`), one in which the
    classes take turns; a clip may then come several times, and the batches hold `Turn`s. All processes together take
    `batch_size * world` clips of it at a time and get a batch each. Of the last clips, fewer than that, every process
    gets an equal share (sizes differ by at most one), so that all processes make equally many steps; when there are
    fewer of them than processes, they are left out of this epoch.

    The sampler keeps no state: whoever takes its batches counts them, so batches that a loader has fetched ahead do not
    matter. To resume after `n` batches, make one with `start_batch=n`.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        *,
        epoch: int = 0,
        start_batch: int = 0,
        rank: int = 0,
        world: int = 1,
        pools: Sequence[np.ndarray] | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world or start_batch < 0:
            raise ValueError(f"no such batches: batch_size {batch_size}, rank {rank} of {world}, start {start_batch}")
        if num_clips < world:
            raise InputError(f"{num_clips} clips are too few to train with {world} processes")
        self.num_clips, self.batch_size, self.seed = num_clips, batch_size, seed
        self.epoch, self.start_batch = epoch, start_batch
        self.rank, self.world, self.pools = rank, world, pools

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Moves to another epoch, and in it past the first `start_batch` batches."""
        self.epoch, self.start_batch = epoch, start_batch

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch, for each process the same."""
        whole, left = divmod(self.num_clips, self.batch_size * self.world)
        return whole + (left >= self.world)

    def __len__(self) -> int:
        """Batches from `start_batch` on."""
        return max(0, self.num_batches - self.start_batch)

    def __iter__(self) -> Iterator[list[int | Turn]]:
        order: Sequence[int | Turn]
        if self.pools is None:
            order = epoch_order(self.num_clips, self.seed, self.epoch).tolist()
        else:
            order = turns_of(balanced_order(self.pools, self.num_clips, self.seed, self.epoch))
        step = self.batch_size * self.world
        for batch in range(self.start_batch, self.num_batches):
            together = order[batch * step : (batch + 1) * step]
            own = np.array_split(np.arange(len(together)), self.world)[self.rank]
            yield [together[place] for place in own]


def epoch_order(num_clips: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation (num_clips,) of an epoch, by seed and epoch alone. No clip comes twice."""
    return _generator(seed, epoch).permutation(num_clips)


def balanced_order(pools: Sequence[np.ndarray], num_clips: int, seed: int, epoch: int) -> np.ndarray:
    """Clips (num_clips,) of an epoch in which every class has as many turns as any other (give or take one).

    In its turns a class shows all of its clips before it shows one again; clips of rare classes come several times, and
    some of frequent classes not at all in this epoch.
    """
    rng = _generator(seed, epoch)
    rounds = -(-num_clips // len(pools))
    drawn = np.stack([
        np.concatenate([rng.permutation(pool) for _ in range(-(-rounds // len(pool)))])[:rounds] for pool in pools
    ])  # fmt: skip
    turns = np.stack([rng.permutation(len(pools)) for _ in range(rounds)])
    return np.take_along_axis(drawn.T, turns, axis=1).flatten()[:num_clips]


def turns_of(order: np.ndarray) -> list[Turn]:
    """The clips of an epoch's order, each with how often it came before."""
    seen: Counter[int] = Counter()
    turns = []
    for place in order.tolist():
        turns.append(Turn(place, seen[place]))
        seen[place] += 1
    return turns


def class_pools(clips: Sequence[Clip]) -> list[np.ndarray]:
    """For each class the places of its clips, by name. Clips without any are a class too."""
    pools: dict[str | None, list[int]] = {}
    for place, clip in enumerate(clips):
        for name in classes_of(clip) or [None]:
            pools.setdefault(name, []).append(place)
    return [np.array(pools[name]) for name in sorted(pools, key=str)]


def classes_of(clip: Clip) -> tuple[str, ...]:
    """The classes that are in a clip, each once: its labels, and what has a relevance of at least 0.5."""
    rated = [name for name, value in (clip.relevances or {}).items() if value >= THRESHOLD]
    return tuple(dict.fromkeys([*(clip.labels or ()), *rated]))


def _generator(seed: int, epoch: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}\0{epoch}".encode(), digest_size=16, person=b"order").digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
