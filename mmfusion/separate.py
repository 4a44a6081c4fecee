"""The sources of any media file, with a finished run: window by window, joined without seams, however long it is.

Windows overlap. In the overlap the sources of a window are those of the window before that they are nearest to (the
sum of squared differences is lowest over all pairings), and one is faded into the other: the window before alone in the
first quarter, where the new one has not seen enough yet, the new one alone in the last quarter, a raised cosine between
them. The two weights sum to one, so that sources which sum to the mixture in every window sum to it in the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from mmfusion.data.inputs import WaveformInput
from mmfusion.data.media import Tally, open_wav, stream_sound
from mmfusion.data.raw import Raw
from mmfusion.heads.separation import SeparationConfig
from mmfusion.predict import Predictor
from mmfusion.training.run import Run
from mmfusion.types import Clip, InputError, Separated


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
        if not 0 < overlap_s <= window_s / 2:
            raise InputError(f"--window {window_s:g} s, --overlap {overlap_s:g} s: need 0 < overlap <= window / 2")
        return cls(window_s, overlap_s)


def separate_files(run: Run, paths: Sequence[str | Path], out: str | Path, windows: Windows
                   ) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Writes `out/<name>/source<k>.wav` (32-bit float, mono, at the model's sample rate) of each file; a dict a file.

    `path`, `sources` (the files written), `duration_s`, `warnings` (what could not be decoded while the rest could); or
    `path` and `error` with one reason. InputError when the run has no separation head, and when two files would go into
    one folder.
    """
    names = [Path(path).stem for path in paths]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{path}: the sources of two files would go into the folder {Path(out) / name}")
    separator = FileSeparator(run)
    for path in paths:
        try:
            yield separator.separate(Path(path), Path(out) / Path(path).stem, windows)
        except InputError as error:
            yield {"path": str(path), "error": " ".join(str(error).split())}


class FileSeparator:
    """A run's model with its separation head. InputError when the run has none, or cannot be used."""

    def __init__(self, run: Run) -> None:
        heads = {name: head for name, head in run.config.model.heads.items() if isinstance(head, SeparationConfig)}
        if not heads:
            raise InputError(f"{run.folder}: has no separation head")
        self.name, head = next(iter(heads.items()))
        way = run.config.data.inputs[head.input]
        assert isinstance(way, WaveformInput)  # a run is not made otherwise
        self.input, self.sample_rate_hz = head.input, way.sample_rate_hz
        self.predictor = Predictor(run)

    def separate(self, path: Path, folder: Path, windows: Windows) -> dict[str, Any]:
        """See `separate_files`. InputError when there is no sound in the file; nothing is left behind then."""
        tally, num_samples = Tally(), 0
        sounds = stream_sound(path, self.sample_rate_hz, tally)
        files: list[Path] = []
        with ExitStack() as stack:
            writers: list[Any] = []
            for block in self.blocks(path, sounds, windows):
                if not writers:
                    files = [folder / f"source{number + 1}.wav" for number in range(len(block))]
                    writers = [stack.enter_context(open_wav(file, self.sample_rate_hz)) for file in files]
                for write, sound in zip(writers, block, strict=True):
                    write(sound)
                num_samples += block.shape[1]
        warnings = [f"{tally.num_broken} packets could not be decoded: {tally.reason}"] if tally.num_broken else []
        found = {"path": str(path), "sources": list(map(str, files)), "duration_s": num_samples / self.sample_rate_hz}
        return found | ({"warnings": warnings} if warnings else {})

    def blocks(self, path: Path, sounds: Iterable[np.ndarray], windows: Windows) -> Iterator[np.ndarray]:
        """The sources of a sound that comes in pieces, (S, M) float32 at a time; `path` is where other inputs are."""
        size, overlap = (round(length * self.sample_rate_hz) for length in (windows.window_s, windows.overlap_s))
        joined = Joined(overlap)
        for number, sound in enumerate(cut(sounds, size, size - overlap)):
            start_s = number * (size - overlap) / self.sample_rate_hz
            block = joined.add(self.window(path, sound, start_s))
            if block.shape[1]:
                yield block
        if joined.held is not None:
            yield joined.held

    def window(self, path: Path, sound: np.ndarray, start_s: float) -> np.ndarray:
        """(S, N) from the mixture (N,) that begins at `start_s` of the file, and from the file's other inputs there."""
        inputs = {self.input: Raw(sound, np.ones(len(sound), bool), float(self.sample_rate_hz))}
        others = [name for name in self.predictor.config.data.inputs if name != self.input]
        if others:
            end_s = start_s + len(sound) / self.sample_rate_hz
            clip = Clip(str(path), self.predictor.media_of(path, {}), "", "", start_s, end_s)
            inputs |= self.predictor.read(clip, only=others)[0]
        batch = self.predictor.batch(inputs)
        model = self.predictor.model
        with torch.inference_mode():
            said = model.decide(model.fusion(model.encode(batch)), batch)[self.name]
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


class Joined:
    """Windows of sources (S, N) as one long piece: `add` gives what is final, `held` is what waits for the next one."""

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self.held: np.ndarray | None = None
        edge = overlap // 4
        rise = np.sin(np.pi / 2 * (np.arange(overlap - 2 * edge) + 0.5) / (overlap - 2 * edge)) ** 2
        self._weight = np.concatenate([np.zeros(edge), rise, np.ones(edge)]).astype(np.float32)

    def add(self, window: np.ndarray) -> np.ndarray:
        """(S, M): all up to the last `overlap` samples of the window, which is longer than that unless it is alone."""
        if self.held is not None:
            before, after = self.held, window[:, : self.overlap]
            window = window[nearest(before, after)]
            faded = before + self._weight * (window[:, : self.overlap] - before)
            window = np.concatenate([faded, window[:, self.overlap :]], axis=1)
        final = max(0, window.shape[1] - self.overlap)
        self.held = window[:, final:]
        return window[:, :final]


def nearest(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(S,) for each source (S, N) of the window before, which one of the window after it goes on as."""
    # |a - b|^2 summed over the pairs differs between pairings by -2 <a, b> alone.
    return linear_sum_assignment(before.astype(np.float64) @ after.T.astype(np.float64), maximize=True)[1]


def as_text(found: dict[str, Any]) -> str:
    """What became of a file, for a person to read."""
    if "error" in found:
        return f"{found['path']}: error: {found['error'].removeprefix(found['path'] + ': ')}"
    lines = [f"{found['path']}: {found['duration_s']:.1f} s"]
    lines += [f"  {source}" for source in found["sources"]]
    return "\n".join([*lines, *(f"  warning  {warning}" for warning in found.get("warnings", []))])
