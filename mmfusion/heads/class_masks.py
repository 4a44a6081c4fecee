"""Masks by class: every class of the data has a mask of its own, and a mixture's classes are found by the masks.

Two sounds come out in no order, so a head with one mask a source has to find out, in training, which output is to
follow which. Here "dog" is always the mask of dogs. At every point (t, f) of the spectrum X the masks M_c of all
classes sum to 1. Two things are learnt from mixtures whose classes c_1 ... c_S are known: how they share the mixture,
by the sounds of the masks M_{c_s} / sum_k M_{c_k} (in dB), and that they have it to themselves, by

    missed = - sum_{t,f} |X|^2 log(sum_k M_{c_k}) / sum_{t,f} |X|^2

Which classes a mixture has is not told: those are chosen, one after the other, whose masks cover it best,

    c_k = argmax_c  sum_{t,f} |X(t,f)|^2 max(M_c(t,f), M_{c_1}(t,f), ..., M_{c_{k-1}}(t,f))

(the greedy way to choose for such a sum, within 1 - 1/e of the best choice: Nemhauser, Wolsey, Fisher 1978), and share
the mixture as above. A source whose class was taken for another one comes out by that one's mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmfusion.heads.separation import MaskConfig, MaskHead, known_of, steps_at
from mmfusion.heads.separation_losses import inner_products, signal_to_noise, watched
from mmfusion.spectrum import to_spectra
from mmfusion.types import InputError, Separated, Stream, Targets

_TINY = 1e-6
_LEAST = 1e-3  # a share so small counts as none: its logarithm would drown the rest


@dataclass(frozen=True)
class SeparatedByClass(Separated):
    """`logits` (B, C, T, bins) of all classes' masks on the mixture's `spectra`; `chosen` classes (B, S) int64."""

    logits: Tensor
    spectra: Stream
    chosen: Tensor


class ClassMaskHead(MaskHead):
    """A `MaskHead` with one mask a class of the data, of which `num_outputs` come out, in the order of the classes.

    InputError when there are fewer classes than outputs. No gradient comes through the signals that come out: the loss
    is that of the sources' own classes.
    """

    def __init__(self, config: MaskConfig, width: int, num_sources: int, num_classes: int) -> None:
        num = config.num_outputs or num_sources
        if num_classes < num:
            raise InputError(
                f"by_class: {num} signals come out, each of a class of its own, and the clips' labels name "
                f"{num_classes} classes; with by_class false (and mask sigmoid) no labels are needed"
            )
        super().__init__(config, width, num_sources, num_classes)
        self.class_weight = config.class_weight

    def forward(self, stream: Stream, mixture: Stream) -> SeparatedByClass:
        spectra = to_spectra(mixture, self.stft)
        logits = self._logits(steps_at(stream, spectra.rate, spectra.mask.shape[1]))
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            chosen = covering(logits.softmax(1), spectra.zeroed().abs().square(), self.num_outputs)
            said = self._finished(self._sounds(_among(logits, chosen), spectra, mixture.mask.shape[1]), mixture)
        return SeparatedByClass(said.sources, said.mask, logits, spectra, chosen)

    def sounds_of(self, stream: Stream, mixture: Stream, classes: Sequence[int], rest: bool = False) -> Separated:
        """The sounds of classes that are known to be heard (no one twice), in this order: nothing is chosen.

        They share all of the mixture; with `rest` the sound of class c is M_c X, and what the masks of other classes
        claim comes after them as one more signal.
        """
        spectra = to_spectra(mixture, self.stft)
        logits = self._logits(steps_at(stream, spectra.rate, spectra.mask.shape[1]))
        masks = (logits if rest else logits[:, list(classes)]).softmax(1)
        if rest:
            masks = masks[:, list(classes)]
            masks = torch.cat([masks, 1 - masks.sum(1, keepdim=True)], dim=1)
        return self._finished(self._sounds(masks, spectra, mixture.mask.shape[1]), mixture)

    def told_loss(self, output: Separated, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean negative dB of the sources that are heard, by their classes' masks, + class_weight * missed.

        Sources of one class in one mixture are one sound. A mixture with a source of unknown class says nothing. Of the
        head's `loss` it takes `measure` and `max_db`. Figures: `missed`; `found`, the share of the sources whose class
        was chosen; `likeness` and `collapse` of what comes out. Zero where nothing is known.
        """
        assert isinstance(output, SeparatedByClass)
        sources, classes = targets.sources, targets.source_classes
        if sources is None or classes is None:
            return 0.0 * output.logits.sum(), {}
        heard = known_of(sources, targets)
        heard = heard & ~(heard & (classes < 0)).any(1, keepdim=True)
        classes = classes.clamp(min=0)
        with torch.autocast(sources.device.type, enabled=False):
            same = (classes[:, :, None] == classes[:, None]) & heard[:, None]
            wanted = same.float() @ sources.float()
            missed = _missed(output, classes, heard)
            estimates = self._sounds(_among(output.logits, classes, heard), output.spectra, sources.shape[2])
            estimates = estimates.masked_fill(~output.mask[:, None], 0)
            decibels = signal_to_noise(estimates, wanted, self.objective.measure, self.objective.max_db)
            num = heard.sum().clamp(min=1)
            with torch.no_grad():
                products = inner_products(output.sources.float(), sources.float())
                figures = watched(output.sources.float(), products, heard)
                figures["missed"] = missed.detach()
                figures["found"] = ((output.chosen[:, None] == classes[..., None]).any(-1) & heard).sum() / num
        return self.class_weight * missed - torch.where(heard, decibels, 0.0).sum() / num, figures


def covering(masks: Tensor, weights: Tensor, num: int) -> Tensor:
    """(B, num) int64, rising: the classes that are chosen for masks (B, C, T, bins) and weights (B, T, bins).

    num <= C. Products are in float32, also under autocast: in half precision they tell classes apart that are alike.
    """
    chosen: list[Tensor] = []
    covered = torch.zeros_like(weights)
    with torch.autocast(masks.device.type, enabled=False):
        for _ in range(num):
            gained = torch.einsum("bctf,btf->bc", torch.maximum(masks, covered[:, None]), weights)
            for one in chosen:
                gained = gained.scatter(1, one[:, None], -1.0)
            chosen.append(gained.argmax(1))
            covered = torch.maximum(covered, _of_classes(masks, chosen[-1][:, None])[:, 0])
    return torch.stack(chosen, dim=1).sort(dim=1).values


def _among(logits: Tensor, classes: Tensor, known: Tensor | None = None) -> Tensor:
    """(B, S, T, bins): how the classes (B, S) share a mixture; a class counts once, and unknown ones not at all."""
    own = _of_classes(logits, classes)
    # Sources that do not count have no meaning here, but a finite gradient.
    return (own - _together(own, classes, known)).clamp(max=0).exp()


def _missed(output: SeparatedByClass, classes: Tensor, known: Tensor) -> Tensor:
    """The mean of `missed` (see above) over the mixtures whose classes are known, a scalar; 0 without any."""
    power = output.spectra.zeroed().abs().square()
    together = _together(_of_classes(output.logits, classes), classes, known)[:, 0]
    share = (together - output.logits.logsumexp(1)).exp()
    lost = -(power * torch.log(share + _LEAST)).sum((1, 2)) / power.sum((1, 2)).clamp(min=_TINY)
    some = known.any(1)
    return torch.where(some, lost, 0.0).sum() / some.sum().clamp(min=1)


def _together(own: Tensor, classes: Tensor, known: Tensor | None) -> Tensor:
    """(B, 1, T, bins): log sum exp over the logits (B, S, T, bins) of the classes (B, S), each class once.

    Where none is known all count: the result has no meaning then, but a gradient that is finite.
    """
    counts = torch.ones_like(classes, dtype=torch.bool) if known is None else known | ~known.any(1, keepdim=True)
    again = torch.tril(classes[:, :, None] == classes[:, None], diagonal=-1)
    once = counts & ~(again & counts[:, None]).any(2)
    return own.masked_fill(~once[..., None, None], float("-inf")).logsumexp(1, keepdim=True)


def _of_classes(maps: Tensor, classes: Tensor) -> Tensor:
    """Maps (B, C, T, bins) of the classes (B, S) -> (B, S, T, bins)."""
    return maps.gather(1, classes[:, :, None, None].expand(-1, -1, *maps.shape[2:]))
