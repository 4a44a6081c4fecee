"""Separated windows joined to one piece: which output goes on as which, and one window faded into the next.

A window names its sources in any order. In the overlap of two windows the sources of the new one are dealt out to those
of the one before by what the signals have in common there (least squares, and their correlation), which says nothing
where the overlap is silent. So each output is also known by what it has sounded like so far: the mean log-spectrum of
the frames in which it was heard. That decides between what is silent in the overlap, and nothing else.

Fading: the window before alone in the first quarter of the overlap, where the new one has not seen enough yet, the new
one alone in the last quarter, a raised cosine between them. The two weights sum to one, so that sources which sum to
the mixture in every window sum to it in the whole.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

_FRAME = 512
# First bins of bands of rising width; bin 0 is what does not swing.
_EDGES = np.unique(np.geomspace(1, _FRAME // 2, 30, endpoint=False).astype(int))
_ACTIVE = 10**-3.0  # of the power of the loudest frame so far: what is below is a pause
_BESIDE = 10**-1.5  # of the loudest output in the same frame: what is below may be what leaks from that one
_SILENT = 10**-2.0  # of the power of the loudest frame so far: with less in it, an overlap says little
_LIKE_DB = 6.0  # spectra that differ by so much are as likely the same source as one that was not heard before
_CORRELATION, _SPECTRUM, _ORDER = 0.3, 0.1, 1e-6  # weights beside least squares; the last breaks ties
_KEPT, _FADING = 0.5, 0.9


class Joined:
    """Windows of sources (S, N) as one long piece: `add` gives what is final, `held` is what waits for the next one.

    `ordered`: all windows name their sources in the same order, so that none are dealt out.
    """

    def __init__(self, overlap: int, ordered: bool = False) -> None:
        self.overlap, self.ordered = overlap, ordered
        self.held: np.ndarray | None = None
        self._heard = Heard()
        edge = overlap // 4
        rise = np.sin(np.pi / 2 * (np.arange(overlap - 2 * edge) + 0.5) / (overlap - 2 * edge)) ** 2
        self._weight = np.concatenate([np.zeros(edge), rise, np.ones(edge)]).astype(np.float32)

    def add(self, window: np.ndarray) -> np.ndarray:
        """(S, M): all up to the last `overlap` samples of the window, which is longer than that unless it is alone."""
        before = self.held
        if not self.ordered:
            if before is not None:
                window = window[self._heard.order(before, window)]
            self._heard.add(window)
        if before is not None:
            faded = before + self._weight * (window[:, : self.overlap] - before)
            window = np.concatenate([faded, window[:, self.overlap :]], axis=1)
        final = max(0, window.shape[1] - self.overlap)
        self.held = window[:, final:]
        return window[:, :final]


class Heard:
    """What each of S outputs has sounded like so far; later windows count more than earlier ones."""

    def __init__(self) -> None:
        self._loudest = 0.0  # power of a frame; fades, so that one bang does not make all that follows a pause
        self._sums: np.ndarray | None = None
        self._counts = np.zeros(0)

    def add(self, window: np.ndarray) -> None:
        """Listens to the sources (S, N) of a window, in the outputs' order."""
        powers, levels_db = _frames(window)
        self._loudest = max(float(powers.max(initial=0.0)), _FADING * self._loudest)
        if self._sums is None:
            self._sums, self._counts = np.zeros((len(window), len(_EDGES))), np.zeros(len(window))
        active = _active(powers, self._loudest)
        new = active.any(axis=1)
        self._counts[new] = _KEPT * self._counts[new] + active.sum(axis=1)[new]
        self._sums[new] = _KEPT * self._sums[new] + (levels_db * active[..., None]).sum(axis=1)[new]

    def order(self, before: np.ndarray, window: np.ndarray) -> np.ndarray:
        """(S,) for each output, whose end is `before` (S, M), which source of `window` (S, N) it goes on as.

        The two begin together.
        """
        powers, levels_db = _frames(window)
        loudest = max(float(powers.max(initial=0.0)), _FADING * self._loudest)
        after = window[:, : before.shape[1]].astype(np.float64)
        before = before[:, : after.shape[1]].astype(np.float64)
        common, silence = before @ after.T, _SILENT * loudest * after.shape[1] + 1e-30
        # |a - b|^2 summed over the pairs differs between pairings by -2 <a, b> alone.
        energies, others = (np.square(each).sum(axis=1) for each in (before, after))
        score = common / (energies.sum() + silence)
        score += _CORRELATION * common / (np.sqrt(np.outer(energies, others)) + silence)
        score += _SPECTRUM * self._likeness(powers, levels_db, loudest)
        score += _ORDER * np.eye(len(score))
        return linear_sum_assignment(score, maximize=True)[1]

    def _likeness(self, powers: np.ndarray, levels_db: np.ndarray, loudest: float) -> np.ndarray:
        """(S, S) in [0, 1]: outputs so far by sources of a window; of the louder ones of these more is known."""
        active = _active(powers, loudest)
        energies, counts = (powers * active).sum(axis=1), active.sum(axis=1)
        if self._sums is None or not counts.any():
            return np.zeros((len(powers), len(powers)))
        own = _centred(self._sums, self._counts)
        other = _centred((levels_db * active[..., None]).sum(axis=1), counts)
        likeness = 1 / (1 + np.square(own[:, None] - other[None]).mean(axis=-1) / _LIKE_DB**2)
        likeness[self._counts == 0] = 0.5
        return likeness * np.sqrt(energies / energies.max())


def _frames(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power (S, K) and levels of bands in dB (S, K, bands) of each frame of sources (S, N)."""
    missing = -window.shape[1] % _FRAME
    frames = np.pad(window, ((0, 0), (0, missing))).reshape(len(window), -1, _FRAME)
    spectra = np.square(np.abs(np.fft.rfft(frames * np.hanning(_FRAME).astype(np.float32), axis=-1)))
    bands = np.add.reduceat(spectra, _EDGES, axis=-1) / np.diff(_EDGES, append=_FRAME // 2 + 1)
    floor = 1e-4 * bands.mean(axis=-1, keepdims=True) + 1e-30
    return np.square(frames, dtype=np.float64).mean(axis=-1), 10 * np.log10(bands + floor)


def _active(powers: np.ndarray, loudest: float) -> np.ndarray:
    """(S, K) bool: whether an output is heard in a frame, and is no mere shadow of another."""
    return (powers > _ACTIVE * loudest) & (powers >= _BESIDE * powers.max(axis=0, initial=0.0))


def _centred(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean levels (S, bands), each source's about its own mean: how loud it is does not count."""
    means = sums / np.maximum(counts, 1)[:, None]
    return means - means.mean(axis=1, keepdims=True)
