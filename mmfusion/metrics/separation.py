"""How well estimated sources match the true ones: SI-SDR, its improvement, SNR, and SDR / SIR / SAR (`bss_eval`).

Conventions. References and estimates (S, N) and the mixture (N,) are samples of one clock, converted to float64 first:
from float32 inner products SI-SDR saturates near 63 dB. Figures are in dB and limited to +-200 dB, beyond which they
are rounding.

    SI-SDR   |a s|^2 / |a s - e|^2 with a = <e, s> / |s|^2 (Le Roux et al. 2019, "SDR - half-baked or well done?",
             equation 5). Signals are taken as they are; with `zero_mean` each signal's mean is subtracted first, as
             Conv-TasNet (Luo and Mesgarani 2019) and its followers do. It makes no difference for sound without offset.
    SI-SDRi  SI-SDR of the estimate - SI-SDR of the mixture, for the same reference. None where the mixture is that
             source alone, so that there is nothing to improve.
    SNR      |s|^2 / |s - e|^2, which the estimate's level is part of
    SDR, SIR, SAR  as in `bss_eval`

One permutation, the one with the highest sum of the metric that is named, holds for all figures (Hungarian method).

A silent reference (below `silent_db` relative to the mixture) has none of these figures. Such sources come last: the
other references choose their estimates first, and what is left over is scored by its level relative to the mixture,
which should be low (`silent_level_db`). A silent estimate (all zeros) has no SI-SDR either, and the 0 dB that a small
constant in the division gives looks respectable. It gets -10 log10(N) dB, what white noise of N samples gets in
expectation, and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmfusion.metrics.bss_eval import LIMIT_DB, MAX_SOURCES, TAPS, BssEval, decibels
from mmfusion.metrics.defined import finite, mean_defined
from mmfusion.types import InputError

PermuteBy = Literal["si_sdr", "sdr", "sir", "none"]
FIGURES = ("si_sdr", "si_sdri", "snr", "sdr", "sir", "sar")
SILENT_DB = -60.0


def si_sdr(references: Any, estimates: Any, zero_mean: bool = False) -> np.ndarray:
    """SI-SDR in dB (...) of estimates (..., N) of references (..., N); NaN where the reference is silent."""
    truth, said = (_centred(signals, zero_mean) for signals in (references, estimates))
    energy = (truth**2).sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        target = truth * ((truth * said).sum(axis=-1, keepdims=True) / energy)
    figures = decibels((target**2).sum(axis=-1), ((target - said) ** 2).sum(axis=-1))
    silent = ~said.any(axis=-1) & (energy[..., 0] > 0)
    return np.where(silent, of_silence(truth.shape[-1]), figures)


def si_sdr_pairs(references: Any, estimates: Any, zero_mean: bool = False) -> np.ndarray:
    """SI-SDR in dB (S, E) of every reference (S, N) with every estimate (E, N), to choose a permutation by.

    From inner products in float64, which is quick and good to about 150 dB.
    """
    truth, said = (_centred(signals, zero_mean) for signals in (references, estimates))
    true_energy, energy = (truth**2).sum(axis=1), (said**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = (truth @ said.T) ** 2 / (true_energy[:, None] * energy[None])
    figures = decibels(explained, np.maximum(1.0 - explained, 0.0))
    figures[:, energy == 0] = of_silence(truth.shape[1])
    return figures


def snr(references: Any, estimates: Any) -> np.ndarray:
    """SNR in dB (...) of estimates (..., N) of references (..., N); NaN where both are silent."""
    truth, said = np.asarray(references, dtype=np.float64), np.asarray(estimates, dtype=np.float64)
    return decibels((truth**2).sum(axis=-1), ((truth - said) ** 2).sum(axis=-1))


def of_silence(num_samples: int) -> float:
    """The SI-SDR in dB that a silent estimate is given: that of white noise, on average over noises."""
    return float(-10 * np.log10(num_samples))


def best_permutation(pairs: np.ndarray) -> np.ndarray:
    """The estimate (S,) of each reference that makes the sum of `pairs` (S, E) highest, E >= S, by assignment.

    Raises ValueError when there are fewer estimates than references or a figure is not finite.
    """
    figures = np.asarray(pairs, dtype=np.float64)
    if figures.shape[0] > figures.shape[1] or not np.isfinite(figures).all():
        raise ValueError(f"a permutation needs finite figures of at least as many estimates, got {figures.shape}")
    return linear_sum_assignment(figures, maximize=True)[1]


def separation_metrics(
    references: Any,
    estimates: Any,
    mixture: Any = None,
    names: Sequence[str] | None = None,
    permute_by: PermuteBy = "si_sdr",
    zero_mean: bool = False,
    taps: int | None = TAPS,
    silent_db: float = SILENT_DB,
) -> dict[str, Any]:
    """All figures of one mixture, ready for JSON: references and estimates (S, N), mixture (N,) or their sum if None.

    `names` are those of the references (else "0", "1", ...); `permute_by` "none" keeps the given order; `taps` is the
    length of the filters of SDR, SIR and SAR in samples; None leaves these out, and so do more than 10 loud sources.
    Returns the means over the references that are not silent of si_sdr, si_sdri, snr, sdr, sir, sar (None where none is
    defined); permuted_by, permutation (the estimate of each reference), zero_mean, bss_eval (the taps, or why there are
    none), num_sources, num_samples, num_silent_references, num_silent_estimates (of references that are not silent),
    silent_level_db (mean level of the estimates of silent references), and per_source {name: {estimate, the six
    figures, level_db of the estimate, silent_reference, silent_estimate}}. Raises InputError when shapes do not fit, a
    sample is not finite, or the permutation is by a figure that is left out.
    """
    truth, said, mixed = _checked(references, estimates, mixture)
    power = (mixed**2).sum()
    loud = (_centred(truth, zero_mean) ** 2).sum(axis=1) > power * 10 ** (silent_db / 10)
    bss, note = _filters(truth[loud], taps)
    order = _order(truth, said, loud, permute_by, zero_mean, bss)
    table = _table(truth, said[order], mixed, loud, zero_mean, bss)
    heard = (_centred(said[order], zero_mean) ** 2).sum(axis=1) > 0
    per_source = _rows(names, order, table, decibels((said[order] ** 2).sum(axis=1), power), loud, heard)
    rows, quiet = per_source.values(), [row for row in per_source.values() if row["silent_reference"]]
    return {
        **{figure: mean_defined(row[figure] for row in rows) for figure in FIGURES},
        "permuted_by": permute_by,
        "permutation": order.tolist(),
        "zero_mean": zero_mean,
        "bss_eval": note,
        "num_sources": len(truth),
        "num_samples": truth.shape[1],
        "num_silent_references": len(quiet),
        "num_silent_estimates": sum(row["silent_estimate"] and not row["silent_reference"] for row in rows),
        "silent_level_db": mean_defined(row["level_db"] for row in quiet),
        "per_source": per_source,
    }


def _filters(truth: np.ndarray, taps: int | None) -> tuple[BssEval | None, str]:
    """What gives SDR, SIR and SAR of the loud references, if anything does, and what to say of it."""
    if taps is None or not len(truth):
        return None, "left out"
    if len(truth) > MAX_SOURCES:
        return None, f"left out: more than {MAX_SOURCES} sources"
    return BssEval(truth, taps), f"{taps} taps"


def _rows(
    names: Sequence[str] | None,
    order: np.ndarray,
    table: np.ndarray,
    levels_db: np.ndarray,
    loud: np.ndarray,
    heard: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """The figures of each reference by its name."""
    labels = [str(number) for number in range(len(order))] if names is None else list(names)
    if len(labels) != len(order) or len(set(labels)) != len(labels):
        raise InputError(f"separation: {len(labels)} names do not fit {len(order)} references one to one")
    return {
        name: {
            "estimate": int(order[place]),
            **{figure: finite(value) for figure, value in zip(FIGURES, table[:, place], strict=True)},
            "level_db": finite(levels_db[place]),
            "silent_reference": not loud[place],
            "silent_estimate": not heard[place],
        }
        for place, name in enumerate(labels)
    }


def _order(
    truth: np.ndarray, said: np.ndarray, loud: np.ndarray, permute_by: PermuteBy, zero_mean: bool, bss: BssEval | None
) -> np.ndarray:
    """The estimate (S,) of each reference: the loud ones choose first, the silent ones take the rest as it comes."""
    if permute_by == "none" or not loud.any():
        return np.arange(len(truth))
    if permute_by == "si_sdr":
        pairs = si_sdr_pairs(truth[loud], said, zero_mean)
    elif bss is None:
        raise InputError(f"separation: a permutation by {permute_by} needs SDR, SIR and SAR, which are left out here")
    else:
        pairs = bss.pairs(said)[("sdr", "sir").index(permute_by)]
    order = np.empty(len(truth), dtype=np.int64)
    order[loud] = best_permutation(pairs)
    order[~loud] = np.setdiff1d(np.arange(len(truth)), order[loud])
    return order


def _table(
    truth: np.ndarray, matched: np.ndarray, mixed: np.ndarray, loud: np.ndarray, zero_mean: bool, bss: BssEval | None
) -> np.ndarray:
    """The figures (6, S) in the order of `FIGURES`, NaN where there are none."""
    table = np.full((len(FIGURES), len(truth)), np.nan)
    before = si_sdr(truth[loud], mixed, zero_mean)
    table[0, loud] = si_sdr(truth[loud], matched[loud], zero_mean)
    table[1, loud] = np.where(before < LIMIT_DB, table[0, loud] - before, np.nan)
    table[2, loud] = snr(truth[loud], matched[loud])
    if bss is not None:
        table[3:, loud] = bss.figures(matched[loud])
    return table


def _centred(signals: Any, zero_mean: bool) -> np.ndarray:
    """As float64, with the mean over the last axis taken away if asked; what is left of a constant is exactly 0."""
    values = np.asarray(signals, dtype=np.float64)
    if not zero_mean:
        return values
    rest = values - values.mean(axis=-1, keepdims=True)
    constant = (rest**2).sum(axis=-1) <= 1e-28 * (values**2).sum(axis=-1)
    return np.where(constant[..., None], 0.0, rest)


def _checked(references: Any, estimates: Any, mixture: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, said = np.asarray(references, dtype=np.float64), np.asarray(estimates, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != said.shape or not truth.size:
        raise InputError(f"separation: references {truth.shape} and estimates {said.shape} must be the same (S, N)")
    mixed = truth.sum(axis=0) if mixture is None else np.asarray(mixture, dtype=np.float64)
    if mixed.shape != truth.shape[1:]:
        raise InputError(f"separation: the mixture {mixed.shape} must have the {truth.shape[1]} samples of its sources")
    for name, signals in (("references", truth), ("estimates", said), ("mixture", mixed)):
        if not np.isfinite(signals).all():
            raise InputError(f"separation: a sample of the {name} is not a finite number")
    return truth, said, mixed
