"""The sources of any media file, with a finished run: window by window, joined without seams, however long it is.

Windows overlap; `separate_join.py` says how they become one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfusion.data.inputs import WaveformInput
from mmfusion.data.media import Tally, open_wav, stream_sound
from mmfusion.data.raw import Raw
from mmfusion.heads.class_masks import ClassMaskHead
from mmfusion.heads.separation import MaskConfig, SeparationConfig
from mmfusion.predict import Predictor
from mmfusion.separate_join import Joined
from mmfusion.separate_record import Record, class_names, source_names
from mmfusion.training.run import Run
from mmfusion.types import Clip, InputError, Separated, did_you_mean


@dataclass(frozen=True)
class Windows:
    """How a file is cut: the length of a window, and by how much each reaches into the next; in seconds."""

    window_s: float
    overlap_s: float

    @classmethod
    def of(cls, run: Run, window_s: float | None = None, overlap_s: float | None = None) -> Windows:
        """Those of the training's mixtures, a quarter overlapping, where nothing else is asked for. InputError."""
        data = run.config.data
        if window_s is None:
            window_s = data.max_duration_s if data.mixture is None else data.mixture.duration_s
        overlap_s = window_s / 4 if overlap_s is None else overlap_s
        if not (math.isfinite(window_s) and 0 < overlap_s <= window_s / 2):
            raise InputError(f"--window {window_s:g} s, --overlap {overlap_s:g} s: need 0 < overlap <= window / 2")
        return cls(window_s, overlap_s)

    def samples(self, sample_rate_hz: int) -> tuple[int, int]:
        """Both in samples. InputError when that leaves nothing of the overlap."""
        size, overlap = (round(length_s * sample_rate_hz) for length_s in (self.window_s, self.overlap_s))
        if overlap < 1:
            given = f"--window {self.window_s:g} s, --overlap {self.overlap_s:g} s"
            raise InputError(f"{given}: the overlap is shorter than a sample at {sample_rate_hz} Hz")
        return max(size, 2 * overlap), overlap


@dataclass(frozen=True)
class KnownClasses:
    """Which classes are known to be in the files; and whether something else may be. For heads with a mask a class.

    InputError when one class is to be alone, and when two would be written to one file.
    """

    classes: tuple[str, ...]
    rest: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) == 1 and not self.rest:
            raise InputError(f"--classes: {self.classes[0]!r} alone would be given the whole file; add --rest")
        self.names()

    def names(self) -> list[str]:
        """The files that are written."""
        return class_names([*self.classes, "rest"] if self.rest else self.classes)

    def places(self, run: Run, head: str) -> list[int]:
        """Where the classes stand among the run's. InputError for one that is not there, and a head without them."""
        config, known = run.config.model.heads[head], run.labels()
        if not (isinstance(config, MaskConfig) and config.by_class):
            raise InputError(f"{run.folder}: --classes: the head {head} has no mask a class (by_class)")
        for name in self.classes:
            if name not in known:
                hint = did_you_mean(name, known)
                raise InputError(f"{run.folder}: --classes: {name!r} is no class of the run{hint}")
        return [known.index(name) for name in self.classes]


def separate_files(run: Run, paths: Sequence[str | Path], out: str | Path, windows: Windows, head: str | None = None,
                   known: KnownClasses | None = None) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Writes `out/<name>/source<k>.wav` (32-bit float, mono, at the model's sample rate) of each file; a dict a file.

    With classes asked for: `out/<name>/<class>.wav` of each, and `rest.wav` where that is.

    `path`, `sources` (the files written), `duration_s`, `warnings` (what could not be decoded while the rest could);
    the same is in `out/<name>/separated.json`. Or `path` and `error` with one reason. `head` is needed where the run
    has several for separation. InputError when it has none, and when two files would go into one folder.
    """
    names = [Path(path).stem for path in paths]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{path}: the sources of two files would go into the folder {Path(out) / name}")
    separator = FileSeparator(run, head, known)
    windows.samples(separator.sample_rate_hz)
    for path in paths:
        try:
            yield separator.separate(Path(path), Path(out) / Path(path).stem, windows)
        except InputError as error:
            yield {"path": str(path), "error": " ".join(str(error).split())}
        except Exception as error:  # one odd file must not cost the others their sources
            told = " ".join(f"{type(error).__name__}: {error}".split())
            yield {"path": str(path), "error": f"{path}: cannot be separated: {told}"}


class FileSeparator:
    """A run's model with one of its separation heads: the only one, or the one called `head`.

    InputError when the run has none of that name, or several and none was named, or cannot be used; and when
    classes are asked for that the run has no masks for.
    """

    def __init__(self, run: Run, head: str | None = None, known: KnownClasses | None = None) -> None:
        heads = {name: each for name, each in run.config.model.heads.items() if isinstance(each, SeparationConfig)}
        if not heads:
            raise InputError(f"{run.folder}: has no separation head")
        if head is None and len(heads) > 1:
            raise InputError(f"{run.folder}: has the separation heads {', '.join(heads)}: say which one with --head")
        self.name = head or next(iter(heads))
        if self.name not in heads:
            raise InputError(f"{run.folder}: head: {head!r} is no separation head (there: {', '.join(heads)})")
        self.input = heads[self.name].input
        way = run.config.data.inputs[self.input]
        assert isinstance(way, WaveformInput)  # a run is not made otherwise
        self.sample_rate_hz = way.sample_rate_hz
        self.known = known
        self.classes = known.places(run, self.name) if known else []
        self.predictor = Predictor(run)

    def separate(self, path: Path, folder: Path, windows: Windows) -> dict[str, Any]:
        """See `separate_files`. InputError when there is no sound in the file; nothing is left behind then."""
        record, tally, flaws = Record(folder, path), Tally(), dict[str, None]()
        sounds = stream_sound(path, self.sample_rate_hz, tally)
        try:
            names, num_samples = self._write(record, self.blocks(path, sounds, windows, flaws))
        except BaseException:
            record.abandon()
            raise
        broken = [f"{tally.num_broken} packets could not be decoded: {tally.reason}"] if tally.num_broken else []
        facts: dict[str, Any] = {"duration_s": num_samples / self.sample_rate_hz}
        facts |= {"warnings": [*broken, *flaws]} if broken or flaws else {}
        record.finish(names, {"run": str(self.predictor.run.folder), "head": self.name, **facts})
        return {"path": str(path), "sources": [str(folder / name) for name in names], **facts}

    def _write(self, record: Record, blocks: Iterator[np.ndarray]) -> tuple[list[str], int]:
        """Writes the sources as they come; the names of their files, and how many samples they have."""
        names, num_samples = list[str](), 0
        with ExitStack() as stack:
            writers: list[Any] = []
            for block in blocks:
                if not writers:
                    names = self.known.names() if self.known else source_names(len(block))
                    record.claim(names)
                    opened = (open_wav(record.folder / name, self.sample_rate_hz) for name in names)
                    writers = [stack.enter_context(each) for each in opened]
                for write, sound in zip(writers, block, strict=True):
                    write(sound)
                num_samples += block.shape[1]
        return names, num_samples

    def blocks(self, path: Path, sounds: Iterable[np.ndarray], windows: Windows, flaws: dict[str, None]
               ) -> Iterator[np.ndarray]:  # fmt: skip
        """The sources of a sound that comes in pieces, (S, M) float32 at a time; `path` is where other inputs are.

        Why something of these could not be read is added to `flaws`, once.
        """
        size, overlap = windows.samples(self.sample_rate_hz)
        joined = Joined(overlap, ordered=self.known is not None)
        for number, sound in enumerate(cut(sounds, size, size - overlap)):
            start_s = number * (size - overlap) / self.sample_rate_hz
            inputs, reasons = self._inputs(path, sound, start_s)
            flaws.update(dict.fromkeys(reasons))
            block = joined.add(self._sources(inputs))
            if block.shape[1]:
                yield block
        if joined.held is not None:
            yield joined.held

    def _inputs(self, path: Path, sound: np.ndarray, start_s: float) -> tuple[dict[str, Raw], list[str]]:
        """A mixture (N,) that begins at `start_s` of the file, the file's other inputs there, and what is amiss."""
        mixture = {self.input: Raw(sound, np.ones(len(sound), bool), float(self.sample_rate_hz))}
        others = [name for name in self.predictor.config.data.inputs if name != self.input]
        if not others:
            return mixture, []
        end_s = start_s + len(sound) / self.sample_rate_hz
        clip = Clip(str(path), self.predictor.media_of(path, {}), "", "", start_s, end_s)
        found, reasons = self.predictor.read(clip, only=others)
        return mixture | found, reasons

    def _sources(self, inputs: Mapping[str, Raw]) -> np.ndarray:
        """(S, N) of the mixture among the inputs."""
        batch, model = self.predictor.batch(inputs), self.predictor.model
        with torch.inference_mode():
            fused = model.fusion(model.encode(batch))
            if self.known is None:
                said = model.decide(fused, batch)[self.name]
            else:
                (stream,), head = fused.values(), model.heads[self.name]
                assert isinstance(head, ClassMaskHead)
                said = head.sounds_of(stream, batch.inputs[self.input], self.classes, self.known.rest)
        assert isinstance(said, Separated)
        return said.sources[0].cpu().numpy()


def cut(pieces: Iterable[np.ndarray], size: int, hop: int) -> Iterator[np.ndarray]:
    """Windows of `size` samples every `hop` of a sound (N,) that comes in pieces.

    The last window may be shorter, but is longer than the overlap `size - hop` unless it is the only one.
    """
    held, num_given = np.zeros(0, np.float32), 0
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) >= size:
            yield held[:size]
            held, num_given = held[hop:], num_given + 1
    if len(held) > size - hop or (len(held) and not num_given):
        yield held


def as_text(found: dict[str, Any]) -> str:
    """What became of a file, for a person to read; warnings are told apart."""
    if "error" in found:
        return f"{found['path']}: error: {found['error'].removeprefix(found['path'] + ': ')}"
    lines = [f"{found['path']}: {found['duration_s']:.1f} s"]
    return "\n".join([*lines, *(f"  {source}" for source in found["sources"])])
