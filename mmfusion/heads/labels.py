"""Event labels: a stream of steps -> one decision a clip, and a decision a step when asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mmfusion.config import configclass
from mmfusion.seconds import second_shares
from mmfusion.types import InputError, Output, Stream, Targets

Pooling = Literal["mean", "max", "attention", "statistics"]


@configclass
class LabelsConfig:
    """Settings of a `LabelHead`."""

    kind: Literal["labels"] = "labels"
    target: Literal["multi", "single", "relevance"] = "multi"
    """multi: any number of classes a clip, a sigmoid each; single: exactly one class a clip, a softmax over all;
    relevance: how much of each class there is, a number in [0, 1] each, learnt by squared error."""
    pooling: Pooling = "mean"
    """How the real steps of a clip become one vector; statistics: mean and deviation, twice the features."""
    hidden: Annotated[int, Field(gt=0)] | None = None
    """Units of a ReLU layer before the classes; None for a linear classifier."""
    per_class: bool = False
    """Every class has hidden units of its own (multi-head) instead of sharing one layer; needs `hidden`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the classifier, and of its hidden layer, in training."""
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Weight of each class in the loss, in the order of the classes; None for equal weights."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly: over yes and no (multi), over the classes (single)."""
    thresholds: Literal["fixed", "tuned"] = "fixed"
    """Probability from which a class is decided to be there (multi): 0.5, or tuned for each class on validation."""
    per_second: bool = False
    """Also classify every step (`Output.steps`), and learn from what happens in which second where that is known."""
    activity_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the per-second loss beside the clip's."""
    loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this head in the model's loss; applied by the model, not by `loss`."""

    @property
    def scored_as(self) -> Literal["multi", "single"]:
        """What `label_metrics` takes it for: relevances are labels from 0.5 on, and are ranked besides."""
        return "single" if self.target == "single" else "multi"

    @model_validator(mode="after")
    def _settings_fit(self) -> Any:
        if self.per_class and self.hidden is None:
            raise ValueError("per_class needs hidden, the units of each class")
        if self.target == "relevance" and self.label_smoothing:
            raise ValueError("label_smoothing is for labels, and a relevance is a number that was measured")
        if self.per_second and self.pooling == "statistics":
            raise ValueError("per_second classifies steps, which have no deviation: not with pooling statistics")
        if self.target == "single" and self.thresholds == "tuned":
            raise ValueError("thresholds: of target single the likeliest class is taken, there is nothing to tune")
        return self


class LabelHead(nn.Module):
    """Pools the real steps of a clip and classifies the result: logits (B, C).

    `width` is the stream's number of features a step. A clip without a real step is classified from zeros. Raises
    InputError when `class_weights` does not have one entry a class.
    """

    weights: Tensor

    def __init__(self, config: LabelsConfig, width: int, num_classes: int) -> None:
        super().__init__()
        given = config.class_weights
        if given is not None and len(given) != num_classes:
            raise InputError(f"class_weights has {len(given)} entries, the data has {num_classes} classes")
        self.config = config
        self.loss_weight = config.loss_weight
        self.pool = TimePooling(config.pooling, width)
        self.classify = _classifier(config, self.pool.width, num_classes)
        weights = torch.ones(num_classes) if given is None else torch.tensor(given, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, stream: Stream, targets: Targets | None = None) -> Output:
        """Logits (B, C); with `per_second` also `steps`, logits (B, T, C) by the same classifier on the stream's clock.

        The targets are not looked at.
        """
        logits = self.classify(self.pool(stream))
        steps = stream.with_data(self.classify(stream.zeroed().float())) if self.config.per_second else None
        return Output(logits, "categorical" if self.config.target == "single" else "bernoulli", steps)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Scalar, float32: the mean over what is known, weighted by class; zero where nothing is known.

        multi: binary cross-entropy over the cells (clip, class) that `label_mask` calls known. relevance: over the same
        cells, the squared difference between sigmoid and relevance. single: cross-entropy over the clips whose label is
        known, against the distribution that the entries make when they are divided by their sum (one class, or the
        classes of mixed clips). With `per_second`, and where `targets.activity` is given, the same over the cells
        (clip, second, class); NaN there means unknown.
        """
        total = 0.0 * output.logits.float().sum()
        if targets.labels is not None:
            known = torch.ones_like(targets.labels, dtype=torch.bool)
            known = known if targets.label_mask is None else targets.label_mask
            total = total + self._loss(output, output.logits.float(), targets.labels.float(), known)
        if output.steps is not None and targets.activity is not None:
            logits, happened, known = _by_second(output.steps, targets)
            total = total + self.config.activity_weight * self._loss(output, logits, happened, known)
        return total

    def _loss(self, output: Output, logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        smoothing, weights = self.config.label_smoothing, self.weights.to(logits)
        labels = labels.masked_fill(~known, 0)
        if output.family == "bernoulli":
            labels = labels * (1 - smoothing) + smoothing / 2
            if self.config.target == "relevance":
                losses = (logits.sigmoid() - labels).square()
            else:
                losses = binary_cross_entropy_with_logits(logits, labels, reduction="none")
            return (losses * (known * weights)).sum() / (known * weights).sum().clamp(min=1e-8)
        # A clip with none of the classes has no single label: its shares are all 0, and it adds nothing.
        total = labels.sum(dim=-1, keepdim=True)
        shares = labels / total.clamp(min=1e-8)
        spread = shares * (1 - smoothing) + (total > 0) * (smoothing / labels.shape[-1])
        return -(logits.log_softmax(dim=-1) * spread * weights).sum() / (shares * weights).sum().clamp(min=1e-8)


class TimePooling(nn.Module):
    """Stream (B, T, F) -> (B, width), over the real steps only; zeros for a clip that has none. width is F, or 2 F.

    mean: the average. max: the largest value of each feature. attention: sum_t a_t h_t with
    a = softmax_t(w . tanh(V h_t)), attention pooling of Ilse, Tomczak, Welling (ICML 2018), eq. 7 and 8. statistics:
    mean and standard deviation side by side, as in x-vectors (Snyder et al., ICASSP 2018).
    """

    def __init__(self, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.width = 2 * width if pooling == "statistics" else width
        self.score = None
        if pooling == "attention":
            self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))

    def forward(self, stream: Stream) -> Tensor:
        data, mask = stream.zeroed().float(), stream.mask[..., None]
        if self.pooling == "max":
            highest = data.masked_fill(~mask, float("-inf")).amax(dim=1)
            return highest.masked_fill(~stream.present[:, None], 0)
        if self.score is None:
            num = mask.sum(dim=1).clamp(min=1)
            mean = data.sum(dim=1) / num
            if self.pooling == "mean":
                return mean
            variance = ((data - mean[:, None]).square() * mask).sum(dim=1) / num
            # The root of zero has no gradient.
            deviation = (variance + 1e-5).sqrt() * stream.present[:, None]
            return torch.cat([mean, deviation], dim=1)
        # The lowest finite number, not -inf: a clip with nothing real then gets even weights on zeros, and no NaN.
        scores = self.score(data).float()
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (weights * data).sum(dim=1)


def _classifier(config: LabelsConfig, width: int, num_classes: int) -> nn.Module:
    dropout = nn.Dropout(config.dropout)
    if config.hidden is None:
        return nn.Sequential(dropout, nn.Linear(width, num_classes))
    if config.per_class:
        layers = (ClassLinear(num_classes, width, config.hidden), ClassLinear(num_classes, config.hidden, 1))
        return nn.Sequential(dropout, _ForEachClass(), layers[0], nn.ReLU(), nn.Dropout(config.dropout), layers[1],
                             nn.Flatten(-2))  # fmt: skip
    hidden = nn.Linear(width, config.hidden)
    return nn.Sequential(dropout, hidden, nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.hidden, num_classes))


class _ForEachClass(nn.Module):
    """(..., F) -> (..., 1, F): the same vector for every class."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors.unsqueeze(-2)


class ClassLinear(nn.Module):
    """A linear layer of its own for each class, all in one product: (..., C or 1, F) -> (..., C, outputs)."""

    def __init__(self, num_classes: int, width: int, outputs: int) -> None:
        super().__init__()
        bound = width**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(num_classes, width, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes, outputs).uniform_(-bound, bound))

    def forward(self, vectors: Tensor) -> Tensor:
        if vectors.shape[-2] == 1:  # one vector for all classes: one plain matrix product
            flat = vectors.squeeze(-2) @ self.weight.permute(1, 0, 2).flatten(1)
            return flat.unflatten(-1, self.bias.shape) + self.bias
        return torch.einsum("...cf,cfo->...co", vectors, self.weight) + self.bias


def _by_second(steps: Stream, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Step logits averaged over each second (B, S, C), the activity there, and which cells are known.

    Step k covers [k / rate, (k + 1) / rate) seconds; a step that reaches into two seconds counts in both by its
    share. A second without a real step is unknown.
    """
    assert targets.activity is not None
    happened = targets.activity.float()
    num_steps, num_seconds = steps.data.shape[1], happened.shape[1]
    begin = torch.arange(num_steps, device=steps.data.device, dtype=torch.float64) / steps.rate
    share = second_shares(begin, steps.rate, 0, num_seconds).float() * steps.mask[:, None, :]
    total = share.sum(dim=-1, keepdim=True)
    logits = share @ steps.zeroed().float() / total.clamp(min=1e-6)
    return logits, happened, (total > 0) & ~happened.isnan()
