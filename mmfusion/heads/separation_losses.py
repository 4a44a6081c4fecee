"""Losses of separated signals: which estimate is compared with which source, and how. Everything is in float32.

Signals are (B, S, N); `known` (B, S) bool is False where there is no source or it is silent. All figures are in dB.

    SI-SDR     10 log10(|a s|^2 / |a s - e|^2), a = <e, s> / |s|^2          Le Roux et al. 2019
    SNR        10 log10(|s|^2 / |s - e|^2)
    threshold  10^(-max_db / 10) times the signal's power is added to the noise's: no source gives more than max_db, and
               those that are good already leave the gradient to the others  Wisdom et al. 2021, equation 2
    silence    10 log10((|e|^2 + 10^(-max_db / 10) |x|^2) / |x|^2) of an estimate e whose source is silent, beside the
               mixture x: 0 as loud as the mixture, -max_db silent           Wisdom et al. 2021, equation 3

(Wisdom et al. 2021: "What's all the fuss about free universal sound separation data?", ICASSP.) The estimates are dealt
out to the sources so that the sum of the costs is lowest (Hungarian method: S^3 steps, so 100 sources work). Costs come
from inner products, all pairs at once; in float32 these tell nothing apart above about 63 dB, so the pairs that were
chosen are computed again from the signals themselves.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize, one_hot, pad

from mmfusion.config import configclass
from mmfusion.types import InputError

Consistency = Literal["none", "equal", "energy"]
Measure = Literal["si_sdr", "snr"]

MAX_MIXIT_OUTPUTS, MAX_MIXIT_MIXTURES = 10, 3
_TINY = 1e-12
_NOISE_FLOOR = 1e-9  # of the source's power: about what a difference of two float32 signals still resolves
_SILENCE_DB = 60.0  # as far as a silent source's estimate is pushed down where `max_db` sets no limit


@configclass
class SeparationLossConfig:
    """What a separation head is trained by."""

    objective: Literal["permutation", "mixit"] = "permutation"
    """permutation: every output is one source; mixit: the outputs are added up to the sources that are given, which may
    be mixtures themselves (Wisdom et al. 2020), so that no separated signal is ever needed."""
    measure: Measure = "si_sdr"
    """Of sources that are heard, with permutation; mixit always takes the SNR, because mixtures have a level."""
    max_db: Annotated[float, Field(gt=0)] | None = 30.0
    """More than this counts as this; null sets no limit to sources that are heard."""
    silent_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of an output whose source is silent, beside 1 for the others."""


def separation_loss(config: SeparationLossConfig, estimates: Tensor, sources: Tensor, known: Tensor
                    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """The loss of estimates (B, S, N) of sources (B, R, N), R <= S, and figures to watch; all float32 scalars.

    Figures: `likeness`, the mean absolute correlation between two outputs; `collapse` (see there) where clips have two
    sources that are heard; with permutation, where sources are silent, `heard` (dB by the measure) and `silence` apart.
    InputError when there are fewer outputs than sources.
    """
    if sources.shape[1] > estimates.shape[1]:
        raise InputError(f"num_outputs: {estimates.shape[1]} outputs cannot be {sources.shape[1]} sources")
    with torch.autocast(estimates.device.type, enabled=False):
        estimates, sources = estimates.float(), sources.float()
        with torch.no_grad():
            products = inner_products(estimates, sources)
            figures = watched(estimates, products, known)
        if config.objective == "mixit":
            return mixit_loss(estimates, sources, known, config.max_db).mean(), figures
        missing = estimates.shape[1] - sources.shape[1]
        known = pad(known, (0, missing))
        order = match(config, products.padded(missing), known, sources.sum(1).square().sum(-1))
        chosen = estimates.gather(1, order[..., None].expand_as(estimates))
        loss, told = _matched_loss(config, chosen, pad(sources, (0, 0, 0, missing)), known)
    return loss, figures | told


def _matched_loss(config: SeparationLossConfig, chosen: Tensor, sources: Tensor, known: Tensor
                  ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    losses = -signal_to_noise(chosen, sources, config.measure, config.max_db)
    if known.all():
        return losses.mean(), {}
    quiet = silence(_power(chosen), _power(sources.sum(1))[:, None], config.max_db)
    figures = {"silence": quiet[~known].detach().mean()}
    figures |= {"heard": -losses[known].detach().mean()} if known.any() else {}
    weights = torch.where(known, 1.0, config.silent_weight)
    total = (torch.where(known, losses, quiet) * weights).sum()
    return total / weights.sum().clamp(min=_TINY), figures


def signal_to_noise(estimates: Tensor, sources: Tensor, measure: Measure = "si_sdr", max_db: float | None = None
                    ) -> Tensor:  # fmt: skip
    """(...) dB from estimates and sources (..., N), pair by pair. A silent estimate has an SI-SDR of -40 dB."""
    power = _power(sources)
    if measure == "snr":
        return _decibels(power, _power(sources - estimates), power, max_db)
    scale = (estimates * sources).sum(-1) / (power + _TINY)
    return _decibels(scale.square() * power, _power(torch.addcmul(estimates, scale[..., None], sources, value=-1)),
                     power, max_db)  # fmt: skip


def silence(power: Tensor, mixture_power: Tensor, max_db: float | None = None) -> Tensor:
    """dB by which estimates of this power stand out of silence, beside mixtures of that power; shapes that fit."""
    tau = 10 ** (-(_SILENCE_DB if max_db is None else max_db) / 10)
    mixture_power = mixture_power + _TINY
    return 10 * torch.log10((power + tau * mixture_power) / mixture_power)


class Products(NamedTuple):
    """Inner products of estimates and sources: `inner` (B, S, R), `energy` (B, S, 1), `power` (B, 1, R)."""

    inner: Tensor
    energy: Tensor
    power: Tensor

    def padded(self, num: int) -> Products:
        """With `num` more sources, which are silent."""
        return Products(pad(self.inner, (0, num)), self.energy, pad(self.power, (0, num)))


def inner_products(estimates: Tensor, sources: Tensor) -> Products:
    """From signals (B, S, N) and (B, R, N)."""
    return Products(estimates @ sources.transpose(1, 2), _power(estimates)[..., None], _power(sources)[:, None])


def pairwise(products: Products, measure: Measure = "si_sdr", max_db: float | None = None) -> Tensor:
    """(B, S, R) dB of every estimate beside every source; good for choosing, not for reporting (see above)."""
    inner, energy, power = products
    if measure == "snr":
        return _decibels(power, (power - 2 * inner + energy).clamp(min=0), power, max_db)
    target = inner.square() / (power + _TINY)
    return _decibels(target, (energy - target).clamp(min=0), power, max_db)


@torch.no_grad()
def match(config: SeparationLossConfig, products: Products, known: Tensor, mixture_power: Tensor) -> Tensor:
    """(B, S) int64: for each source the estimate that it is compared with, by the lowest sum of costs.

    There are as many estimates as sources; `mixture_power` is (B,).
    """
    heard = -pairwise(products, config.measure, config.max_db)
    quiet = silence(products.energy, mixture_power[:, None, None], config.max_db) * config.silent_weight
    return assign(torch.where(known[:, None], heard, quiet))


def assign(costs: Tensor) -> Tensor:
    """(B, S, S) costs of giving estimate i to source j -> (B, S) int64: each source's estimate, the sum the lowest."""
    # Costs of a model that diverged are no numbers; the loss then says so, not the search.
    found = [linear_sum_assignment(one.T)[1] for one in costs.detach().nan_to_num(1e9, 1e9, -1e9).cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(costs.device)


def mixit_loss(estimates: Tensor, mixtures: Tensor, known: Tensor, max_db: float | None = None) -> Tensor:
    """(B,) mixture invariant training (Wisdom et al. 2020, equation 2): the mean negative SNR of mixtures (B, R, N).

    Every estimate (B, S, N) is added to the one mixture that it serves best (`added_up`, InputError as there). A
    mixture that is silent counts by its sum's `silence`.
    """
    power = _power(mixtures)
    noise = _power(mixtures - added_up(estimates, mixtures, known, "snr", max_db))
    heard = -_decibels(power, noise, power, max_db)
    return torch.where(known, heard, silence(noise, power.sum(-1, keepdim=True), max_db)).mean(-1)


def check_mixit(outputs: int, mixtures: int) -> None:
    """InputError when there are too many outputs or mixtures to try every way to add them up."""
    if outputs > MAX_MIXIT_OUTPUTS or mixtures > MAX_MIXIT_MIXTURES:
        most = f"{MAX_MIXIT_OUTPUTS} outputs and {MAX_MIXIT_MIXTURES} mixtures"
        raise InputError(f"objective: mixit tries every way to add outputs up and takes at most {most}, "
                         f"there are {outputs} and {mixtures}")  # fmt: skip


def added_up(estimates: Tensor, mixtures: Tensor, known: Tensor, measure: Measure, max_db: float | None = None
             ) -> Tensor:  # fmt: skip
    """(B, R, N): estimates (B, S, N) added up to mixtures (B, R, N), each to one, so that the mean cost is the lowest.

    The cost is the negative measure, of a silent mixture its sum's `silence`. All R^S ways are tried: at most
    MAX_MIXIT_OUTPUTS and MAX_MIXIT_MIXTURES, else InputError.
    """
    num, outputs = mixtures.shape[1], estimates.shape[1]
    check_mixit(outputs, num)
    ways = torch.tensor(list(product(range(num), repeat=outputs)), device=estimates.device)
    ways = one_hot(ways, num).transpose(1, 2).to(estimates.dtype)
    with torch.no_grad():
        power, sums = _power(mixtures)[:, None], ways.flatten(0, 1)
        energy = torch.einsum("ws,bst,wt->bw", sums, estimates @ estimates.transpose(1, 2), sums)
        energy = energy.unflatten(1, (-1, num))
        inner = torch.einsum("ws,bsr->bwr", sums, estimates @ mixtures.transpose(1, 2)).unflatten(1, (-1, num))
        inner = inner.diagonal(dim1=2, dim2=3)
        noise = (power - 2 * inner + energy).clamp(min=0)
        if measure == "snr":
            heard = -_decibels(power, noise, power, max_db)
        else:
            target = inner.square() / (power + _TINY)
            heard = -_decibels(target, (energy - target).clamp(min=0), power, max_db)
        quiet = silence(noise, power.sum(-1, keepdim=True), max_db)
        best = torch.where(known[:, None], heard, quiet).mean(-1).argmin(1)
    return ways[best] @ estimates


def consistent(estimates: Tensor, mixture: Tensor, how: Consistency) -> Tensor:
    """Estimates (B, S, N) changed so that they sum to the mixture (B, N) (Wisdom et al. 2019, section 3.1).

    What is missing is given to all alike (equal), or to each by its share of the power (energy).
    """
    if how == "none":
        return estimates
    missing = mixture[:, None] - estimates.sum(1, keepdim=True)
    if how == "equal":
        return estimates + missing / estimates.shape[1]
    power = _power(estimates)[..., None] + _TINY
    return estimates + missing * (power / power.sum(1, keepdim=True))


def collapse(figures: Tensor, known: Tensor) -> Tensor:
    """(B,) how far the outputs follow one source alone: 1 all of them do, 0 every source is followed by some output.

    `figures` (B, S, R) are dB of output i beside source j; `known` (B, R) has two or more sources a clip, and there are
    two outputs or more. An output follows the source that it is nearest to.
    """
    nearest = figures.masked_fill(~known[:, None], float("-inf")).argmax(-1)
    followed = one_hot(nearest, known.shape[1]).amax(1).sum(-1)
    possible = known.sum(1).clamp(max=figures.shape[1])
    return 1 - (followed - 1) / (possible - 1)


def watched(estimates: Tensor, products: Products, known: Tensor) -> dict[str, Tensor]:
    """`likeness`, and `collapse` where a clip has two sources that are heard."""
    num = estimates.shape[1]
    if num < 2:
        return {}
    unit = normalize(estimates, dim=-1)
    alike = (unit @ unit.transpose(1, 2)).abs().triu(1).sum((1, 2)) / (num * (num - 1) / 2)
    several = known.sum(1) > 1
    found = collapse(pairwise(products)[several], known[several])
    return {"likeness": alike.mean()} | ({"collapse": found.mean()} if len(found) else {})


def _power(signals: Tensor) -> Tensor:
    return signals.square().sum(-1)


def _decibels(signal: Tensor, noise: Tensor, power: Tensor, max_db: float | None) -> Tensor:
    """10 log10(signal / noise) with a threshold, and with floors beside the power of the source.

    The signal's floor lies below the noise's: an estimate that is silent must not look respectable.
    """
    tau = 0.0 if max_db is None else 10 ** (-max_db / 10)
    floor = _NOISE_FLOOR * power + _TINY
    return 10 * torch.log10((signal + 1e-4 * floor) / (noise + tau * signal + floor))
