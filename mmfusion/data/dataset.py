"""Clips as examples: what was decoded, changed at random in training, and the truth that goes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from torch.utils.data import Dataset

from mmfusion.data.augment import augment, drop_modalities, generator
from mmfusion.data.blend import Pools, mixup, unite
from mmfusion.data.clips import ClipCache
from mmfusion.data.collate import Example, collate
from mmfusion.data.inputs import DataConfig, FeaturesInput
from mmfusion.data.raw import Raw
from mmfusion.data.reading import ClipReader
from mmfusion.data.retiming import Retiming, duration
from mmfusion.data.sampler import Turn
from mmfusion.data.scaling import Scaling, gather_scaling, scale
from mmfusion.seconds import touched
from mmfusion.types import Clip, Facts, InputError

__all__ = ["ClipDataset", "DatasetOver", "Example", "collate", "gather_facts"]


class ClipDataset(Dataset[Example]):
    """Examples of the given clips, for `collate`.

    `reader` gives the raw inputs (a `ClipCache`, or a `MediaReader` that reads the files themselves);
    `encode_caption` turns a caption into <bos> ... <eos> as numbers, None when no head says words. `scaling` is that of
    the standardized inputs; without it, it is gathered from the training split of the cache's manifest.

    In training, inputs are augmented, modalities hidden and captions drawn, all by (seed, epoch, clip id, turn) alone:
    any number of loader processes gives the same examples, and a clip that comes again in an epoch (a `Turn` as index)
    comes changed in another way. With `balanced`, clips that are mixed in are drawn class by class. A loader that keeps
    its processes from epoch to epoch (`persistent_workers`) would not see `set_epoch`.

    Raises InputError when a standardized input has no scaling, and, for a clip, when it names an unknown class.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        reader: ClipReader,
        facts: Facts,
        encode_caption: Callable[[str], list[int]] | None,
        config: DataConfig,
        *,
        training: bool,
        seed: int = 0,
        epoch: int = 0,
        balanced: bool = False,
        scaling: Mapping[str, Scaling] | None = None,
    ) -> None:
        self.clips, self.reader, self.facts, self.config = tuple(clips), reader, facts, config
        self.training, self.seed, self.epoch = training, seed, epoch
        if scaling is None:
            scaling = gather_scaling(reader, config) if isinstance(reader, ClipCache) else {}
        self.scaling = dict(scaling)
        self._features = {name: way for name, way in reader.inputs.items() if isinstance(way, FeaturesInput)}
        for name, way in self._features.items():
            if way.standardize and name not in self.scaling:
                raise InputError(
                    f"data.inputs.{name}.standardize: the statistics of the training split are not at hand"
                )
        self._encode = encode_caption
        self._layouts = dict(reader.layouts)
        self._timed = any(clip.sources for clip in self.clips)
        self._pools = Pools(self.clips, balanced) if training and config.augment.blend.is_on else None
        self._columns = {label: column for column, label in enumerate(facts.labels)}

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """What is random in training is drawn anew for each epoch."""
        self.epoch = epoch

    def __getitem__(self, index: int | Turn) -> Example:
        index, turn = index if isinstance(index, Turn) else Turn(index, 0)
        again = f" again {turn}" if turn else ""
        clip = self.clips[index]
        example = self.example(clip, self.reader.load(clip), again)
        if self._pools is None:
            return example
        rng = generator(self.seed, self.epoch, clip.id, f"blend{again}")
        plan = self._pools.draw(self.config.augment.blend, index, rng)
        alone = example
        for number, (place, level_db) in enumerate(plan.united):
            example = unite(example, self._other(place, f"united {number} {clip.id}{again}"), level_db, alone)
        if plan.mixed is not None:
            place, weight = plan.mixed
            other = self._other(place, f"mixed {clip.id}{again}")
            example = mixup(example, other, weight, equal_power=self.config.augment.blend.equal_power)
        return example

    def _other(self, place: int, use: str) -> Example:
        clip = self.clips[place]
        return self.example(clip, self.reader.load(clip), use)

    def example(self, clip: Clip, inputs: dict[str, Raw], use: str = "") -> Example:
        """What is shown of a clip whose inputs were read, by itself.

        `use` sets what is drawn for it apart from other uses of the clip in the same epoch.
        """
        for name, way in self._features.items():
            if name in inputs:
                inputs[name] = scale(inputs[name], way, self.scaling.get(name))
        moved = Retiming()
        if self.training and self.config.augment.is_on:
            rng = generator(self.seed, self.epoch, clip.id, f"augment{use}")
            inputs, moved = augment(inputs, self.config.augment, rng)
        duration_s = duration(inputs)
        if self.training and self.config.modality_dropout:
            rng = generator(self.seed, self.epoch, clip.id, f"dropout{use}")
            inputs = drop_modalities(inputs, self.config.modality_dropout, rng)
        labels, label_mask = self._labels(clip)
        return Example(
            clip_id=clip.id,
            inputs=inputs,
            layouts=self._layouts,
            labels=labels,
            label_mask=label_mask,
            activity=self._activity(clip, duration_s, moved),
            words=self._words(clip, use),
        )

    def _labels(self, clip: Clip) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Labels name all classes that occur; relevances say how much, and alone they know only what they name."""
        if not self._columns:
            return None, None
        values = np.zeros(len(self._columns), dtype=np.float32)
        known = np.full(len(self._columns), clip.labels is not None)
        for label in clip.labels or ():
            values[self._column(clip, label)] = 1.0
        for label, relevance in (clip.relevances or {}).items():
            column = self._column(clip, label)
            values[column], known[column] = relevance, True
        return values, known

    def classes_of(self, clip: Clip, labels: Iterable[str]) -> np.ndarray:
        """The place of each label among the known ones, int64; -1 for an empty label, and where no labels are known.

        InputError for a label of `clip` that is not among them.
        """
        known = [self._column(clip, label) if label and self._columns else -1 for label in labels]
        return np.array(known, dtype=np.int64)

    def _column(self, clip: Clip, label: str) -> int:
        if label not in self._columns:
            raise InputError(f"clip {clip.id!r}: labels: {label!r} is none of the {len(self._columns)} known classes")
        return self._columns[label]

    def _activity(self, clip: Clip, duration_s: float, moved: Retiming) -> np.ndarray | None:
        """(S, C): 1 where a class is heard or seen at any moment of second s of the clip, NaN where nobody knows.

        Known for clips with sources, and, all zeros, for those that are labelled to hold nothing; None when no clip of
        the data set has sources.
        """
        if not self._columns or not self._timed:
            return None
        num_seconds = max(1, math.ceil(duration_s - 1e-6))
        if not clip.sources:
            fill = 0.0 if clip.labels == () else np.nan
            return np.full((num_seconds, len(self._columns)), fill, dtype=np.float32)
        activity = np.zeros((num_seconds, len(self._columns)), dtype=np.float32)
        for source in clip.sources:
            for start_s, end_s in moved.spans(source.start_s, source.end_s):
                seconds = touched(start_s, min(end_s, duration_s), slack=1e-6)
                activity[seconds, self._column(clip, source.label)] = 1.0
        return activity

    def _words(self, clip: Clip, use: str) -> list[list[int]] | None:
        """All captions; in training `captions_per_clip` of them at most, drawn without repeats."""
        if self._encode is None:
            return None
        captions, limit = clip.captions, self.config.captions_per_clip
        if self.training and len(captions) > limit:
            drawn = generator(self.seed, self.epoch, clip.id, f"captions{use}").permutation(len(captions))[:limit]
            captions = [captions[number] for number in drawn]
        return [self._encode(caption) for caption in captions]


class DatasetOver(Dataset[Example]):
    """As many examples as `plain` has, by epochs as it has them; what is done to each is a subclass's."""

    def __init__(self, plain: ClipDataset) -> None:
        self.plain = plain

    def __len__(self) -> int:
        return len(self.plain)

    def set_epoch(self, epoch: int) -> None:
        """As that of `plain`."""
        self.plain.set_epoch(epoch)


def gather_facts(cache: ClipCache, labels: Sequence[str], words: Sequence[str] = (), num_sources: int = 0) -> Facts:
    """What the data tells the model: names and the number of sources as given, and the widths of the feature inputs.

    InputError when no clip of the manifest has a feature input, whose width nobody knows then.
    """
    widths: dict[str, int] = {}
    for name, way in cache.inputs.items():
        if isinstance(way, FeaturesInput):
            if not cache.places(cache.manifest.clips, name):
                raise InputError(f"{cache.manifest.path}: media.{way.source or name}: no clip has these features")
            widths[name] = cache.layouts[name].shape[0]
    return Facts(labels=tuple(labels), words=tuple(words), widths=widths, num_sources=num_sources)
