"""Figures of a set of separated mixtures, from what is known of each source; and how they would move with other clips.

A mixture's figure is the mean over its sources that are heard; silent ones have no SI-SDR and are scored apart, by the
level of what came out for them. All in dB, but for the shares.

    si_sdri          mean over mixtures of the SI-SDR's improvement over the mixture itself; si_sdri_median likewise
    si_sdr           mean over mixtures of the SI-SDR
    share_below_0    share of the mixtures whose improvement is below 0 dB
    share_of_ideal   si_sdri / ideal_si_sdri, the same mean of the improvement that the ideal ratio mask gives
                     (`ideal_masks`), whose estimates are dealt out to the sources by the same rule: its own share is 1

The mean of SI-SDRi has a heavy tail: look at the median and at the share below 0 beside it. The unit of the bootstrap
is the source clip (`source_clips`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mmfusion.metrics.defined import finite, mean_defined, ratio
from mmfusion.metrics.separation import separation_metrics
from mmfusion.metrics.significance import Statistic
from mmfusion.metrics.source_clips import by_source_clip

SEPARATION_STATISTICS = ("si_sdri", "si_sdri_median", "si_sdr", "share_below_0", "share_of_ideal")
SCORER = (
    "SI-SDR without mean subtraction, outputs dealt out to the sources (of mixit: added up) by SI-SDR; ideal ratio "
    "mask of magnitudes, STFT 512/128 Hann, dealt out likewise"
)

Sources = Sequence[Mapping[str, Any]]


def source_figures(references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, ideal: np.ndarray
                   ) -> list[dict[str, Any]]:  # fmt: skip
    """One dict for each of the references (R, N): `si_sdr`, `si_sdri`, `ideal_si_sdri` (None where the source is
    silent), `level_db` of its estimate beside the mixture, `silent`, `silent_estimate`.

    The estimates (S, N), S >= R, are dealt out by SI-SDR, and so are the ideal ratio mask's, `ideal` (R, N).
    """
    missing = np.zeros((len(estimates) - len(references), references.shape[1]))
    found = separation_metrics(np.concatenate([references, missing]), estimates, mixture, taps=None)
    best = separation_metrics(references, ideal, mixture, taps=None)
    figures = []
    for place in range(len(references)):
        own, bound = found["per_source"][str(place)], best["per_source"][str(place)]
        figures.append({
            "si_sdr": _rounded(own["si_sdr"]), "si_sdri": _rounded(own["si_sdri"]),
            "ideal_si_sdri": _rounded(bound["si_sdri"]), "level_db": _rounded(own["level_db"]),
            "silent": bool(own["silent_reference"]), "silent_estimate": bool(own["silent_estimate"]),
        })  # fmt: skip
    return figures


def separation_summary(mixtures: Sequence[Sources], labels: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The figures of the file's head, ready for JSON, from `source_figures` of each mixture and its sources' labels.

    Also ideal_si_sdri, num_mixtures, num_sources, num_silent (references), num_silent_estimates (of sources that are
    heard), silent_level_db (mean level of what came out for silent sources), scorer, and per_label {label:
    {num_sources, si_sdri}}.

    Where whole recordings were mixed (labels ""), nothing is known of single sources. Then there are no such figures,
    but those of the recordings: recordings_si_sdri, recordings_si_sdr, num_mixtures, num_recordings,
    num_silent_estimates, scorer.
    """
    every = [(source, name) for own, names in zip(mixtures, labels, strict=True)
             for source, name in zip(own, names, strict=True)]  # fmt: skip
    heard = [(source, name) for source, name in every if not source["silent"]]
    summary = {name: _as_they_are(name, mixtures) for name in SEPARATION_STATISTICS}
    if not any(name for _, name in every):
        return {
            **{f"recordings_{name}": summary[name] for name in ("si_sdri", "si_sdr")},
            "num_mixtures": len(mixtures),
            "num_recordings": len(every),
            "num_silent_estimates": sum(source["silent_estimate"] for source, _ in heard),
            "scorer": SCORER,
        }
    return summary | {
        "ideal_si_sdri": _as_they_are("ideal_si_sdri", mixtures),
        "num_mixtures": len(mixtures),
        "num_sources": len(every),
        "num_silent": len(every) - len(heard),
        "num_silent_estimates": sum(source["silent_estimate"] for source, _ in heard),
        "silent_level_db": mean_defined(source["level_db"] for source, _ in every if source["silent"]),
        "scorer": SCORER,
        "per_label": {
            label: {
                "num_sources": sum(name == label for _, name in heard),
                "si_sdri": mean_defined(source["si_sdri"] for source, name in heard if name == label),
            }
            for label in sorted({name for _, name in every})
        },
    }


def separation_statistic(name: str, mixtures: Sequence[Sources], clips: Sequence[Sequence[str]]) -> Statistic:
    """One of SEPARATION_STATISTICS as a Statistic of the source clips; `clips` names those of each mixture."""
    if name not in SEPARATION_STATISTICS:
        raise ValueError(f"{name} is not one of {', '.join(SEPARATION_STATISTICS)}")
    bounds = (0.0, 1.0) if name == "share_below_0" else ()
    return by_source_clip(Statistic(len(mixtures), partial(_figure, name, mixtures)), clips, *bounds)


def _as_they_are(name: str, mixtures: Sequence[Sources]) -> float | None:
    """A figure of the mixtures, each counted once; None where it is not defined."""
    return finite(_figure(name, mixtures, np.ones((1, len(mixtures))))[0])


def _figure(name: str, mixtures: Sequence[Sources], weights: np.ndarray) -> np.ndarray:
    """(D,) a figure of the mixtures, which weigh `weights` (D, M); NaN where nothing is left."""
    key = name if name in ("si_sdr", "ideal_si_sdri") else "si_sdri"
    values = _per_mixture(mixtures, key)
    known = ~np.isnan(values)
    values, weights = values[known], weights[:, known]
    total = weights.sum(axis=1)
    if name == "si_sdri_median":
        return _weighted_median(values, weights)
    if name == "share_below_0":
        return ratio(weights @ (values < 0), total)
    if name == "share_of_ideal":
        return ratio(weights @ values, weights @ _per_mixture(mixtures, "ideal_si_sdri")[known])
    return ratio(weights @ values, total)


def _per_mixture(mixtures: Sequence[Sources], key: str) -> np.ndarray:
    """(M,) the mean over the heard sources of each mixture; NaN where there are none."""
    means = [mean_defined(source[key] for source in own) for own in mixtures]
    return np.array([np.nan if mean is None else mean for mean in means])


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D,) medians of values (M,) with weights (D, M) from 0 up: half of the weight lies on either side.

    For whole numbers that is the median of values that occur so often. NaN where there is no weight.
    """
    order = np.argsort(values)
    running = np.cumsum(weights[:, order], axis=1)
    total = running[:, -1:] if running.shape[1] else np.zeros((len(weights), 1))
    found = np.full(len(weights), np.nan)
    some = total[:, 0] > 0
    # Two values where half of the weight is reached exactly between them, else one and the same.
    low = (running[some] < total[some] / 2).sum(axis=1)
    high = (running[some] <= total[some] / 2).sum(axis=1)
    found[some] = (values[order][low] + values[order][high]) / 2
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
