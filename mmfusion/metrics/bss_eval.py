"""SDR, SIR and SAR of BSS Eval version 3 for single-channel sources (Vincent, Gribonval, Fevotte 2006, section III.B).

Conventions. References (S, N) and estimates in samples of one clock; figures in dB, energies summed in float64. An
estimate is split into what delayed copies (0 to taps - 1 samples) of its own source explain, what those of all sources
explain beyond that, and the rest:

    estimate = target + interference + artifact        target = P_own estimate, target + interference = P_all estimate
    SDR = |target|^2 / |interference + artifact|^2     SIR = |target|^2 / |interference|^2
    SAR = |target + interference|^2 / |artifact|^2     each as 10 log10

P are least-squares projections: correlations by FFT, then the block-Toeplitz system of taps x S unknowns is solved. Any
filter of up to `taps` samples on a source is forgiven, so that SDR is at least the SI-SDR. The values are those of
mir_eval.separation.bss_eval_sources, but limited to +-200 dB: beyond that they are rounding.

With one source there is no interference and SIR is infinite. A silent estimate is given what white noise would get in
expectation (energy in proportion to dimensions): it knows nothing, and a low, finite number says so. References must
not be silent, and are at most `MAX_SOURCES`: the system takes (taps x S)^2 numbers.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.fft import irfft, rfft
from scipy.fft import next_fast_len
from scipy.linalg import toeplitz

TAPS = 512
MAX_SOURCES = 10
LIMIT_DB = 200.0


def decibels(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    """10 log10 of a ratio of energies, limited to +-`LIMIT_DB`; nothing over nothing is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(10 * np.log10(np.divide(above, below, dtype=np.float64)), -LIMIT_DB, LIMIT_DB)


class BssEval:
    """The projections onto the delayed copies of references (S, N), made once for any number of estimates."""

    def __init__(self, references: np.ndarray, taps: int = TAPS) -> None:
        self.sources = np.asarray(references, dtype=np.float64)
        self.taps = taps
        self.num_fft = next_fast_len(self.sources.shape[1] + taps - 1, real=True)
        self.spectra = rfft(self.sources, self.num_fft)

    @cached_property
    def _products(self) -> np.ndarray:
        """Inner products of all delayed copies (S taps, S taps)."""
        size, num = self.taps, len(self.sources)
        gram = np.empty((num * size, num * size))
        for i in range(num):
            for j in range(i, num):
                lags = irfft(self.spectra[i] * self.spectra[j].conj(), self.num_fft)
                block = toeplitz(np.concatenate([lags[:1], lags[:-size:-1]]), lags[:size])
                gram[i * size : (i + 1) * size, j * size : (j + 1) * size] = block
                gram[j * size : (j + 1) * size, i * size : (i + 1) * size] = block.T
        return gram

    def _project(self, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inner products with the copies (E, S, taps), and the filters of P_own and of P_all of the same shape."""
        num, size = len(self.sources), self.taps
        spectra = rfft(estimates, self.num_fft)
        lags = irfft(self.spectra[None] * spectra[:, None].conj(), self.num_fft)
        seen = np.concatenate([lags[..., :1], lags[..., :-size:-1]], axis=-1)
        joint = _solve(self._products, seen.reshape(len(seen), -1).T).T.reshape(seen.shape)
        own = np.empty_like(seen)
        for j in range(num):
            block = slice(j * size, (j + 1) * size)
            own[:, j] = _solve(self._products[block, block], seen[:, j].T).T
        return seen, own, joint

    def pairs(self, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SDR and SIR (S, E) of every reference with every estimate (E, N), to choose a permutation by.

        Energies come from inner products, which is quick and good to about 150 dB.
        """
        values = np.asarray(estimates, dtype=np.float64)
        seen, own, joint = self._project(values)
        total = (values**2).sum(axis=1)
        target = np.maximum((seen * own).sum(axis=-1).T, 0.0)
        explained = (seen * joint).sum(axis=(1, 2))
        sdr = decibels(target, np.maximum(total - target, 0.0))
        # An estimate that no source explains at all has nothing of this one.
        sir = np.nan_to_num(decibels(target, np.maximum(explained - target, 0.0)), nan=-LIMIT_DB)
        noise = self._of_noise()
        sdr[:, total == 0], sir[:, total == 0] = noise[0], min(noise[1], LIMIT_DB)
        return sdr, sir

    def figures(self, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """SDR, SIR and SAR (S,) of estimates (S, N), each of the reference in its place."""
        values = np.asarray(estimates, dtype=np.float64)
        _, own, joint = self._project(values)
        length = values.shape[1] + self.taps - 1
        results = np.empty((3, len(values)))
        for j, estimate in enumerate(values):
            if not estimate.any():
                results[:, j] = self._of_noise()
                continue
            target = irfft(rfft(own[j, j], self.num_fft) * self.spectra[j], self.num_fft)[:length]
            explained = irfft((rfft(joint[j], self.num_fft) * self.spectra).sum(axis=0), self.num_fft)[:length]
            padded = np.pad(estimate, (0, length - len(estimate)))
            energies = [(part**2).sum() for part in (target, explained - target, explained, padded - explained)]
            results[:, j] = (
                decibels(energies[0], ((padded - target) ** 2).sum()),
                decibels(energies[0], energies[1]) if len(values) > 1 else np.inf,
                decibels(energies[2], energies[3]),
            )
        return results[0], results[1], results[2]

    def _of_noise(self) -> tuple[float, float, float]:
        """SDR, SIR, SAR of white noise in expectation, each part's energy being its number of dimensions."""
        num, length = self.sources.shape
        own, explained = float(self.taps), float(num * self.taps)
        return (
            float(decibels(own, max(length - own, 1.0))),
            float(decibels(own, explained - own)) if num > 1 else np.inf,
            float(decibels(explained, max(length - explained, 1.0))),
        )


def _solve(matrix: np.ndarray, products: np.ndarray) -> np.ndarray:
    """The filters; those of least energy where sources (or their delayed copies) depend on one another."""
    try:
        return np.linalg.solve(matrix, products)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, products, rcond=None)[0]
