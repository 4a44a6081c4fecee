"""Late fusion: each modality has its own recurrent network and its own head; their decisions are mixed.

The equations are in mix.py. A modality that a clip does not have loses its weight for that clip. With `normalize` the
others share what it leaves, and the clip is decided as if the modality were not part of the model; else they keep their
own weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.fusion.mix import Rule, clip_weights, mix, mix_steps
from mmfusion.fusion.weights import (
    FixedWeights,
    LearnedWeights,
    TunedWeights,
    WeightsConfig,
    equal_weights,
    search_weights,
)
from mmfusion.types import Head, InputError, Output, Stepper, Stream, Targets


@configclass
class MixConfig:
    """How the members' decisions become one."""

    rule: Rule = "linear"
    """linear: weighted mean of probabilities; loglinear: weighted product."""
    weights: WeightsConfig = FixedWeights()
    """Where the weights come from."""
    normalize: bool = True
    """Weights sum to one over the modalities that a clip has; false (loglinear only): product of posteriors."""
    train: Literal["parts", "joint"] = "parts"
    """parts: each member by its own loss, on the clips that have its modality; joint: the loss of the mixture."""

    def __post_init__(self) -> None:
        if self.rule == "linear" and not self.normalize:
            raise ValueError("normalize: false is a product of posteriors, which only rule: loglinear can form")


@configclass
class LateConfig:
    """Join decisions."""

    depth: Literal["late"] = "late"
    mix: MixConfig = MixConfig()
    """How the decisions are joined."""


class LateFusion(nn.Module):
    """Passes every stream of states on to its own head; the mixing is done by `Mix`."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = dict(widths)

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        return {name: streams[name] for name in self.widths}


@dataclass(frozen=True)
class MixedOutput(Output):
    """A mixture together with what it was made from: `parts` by modality, and `present` (B, M) bool in that order."""

    parts: Mapping[str, Output] = field(default_factory=dict)
    present: Tensor | None = None


class Mix(nn.Module):
    """One head over several streams, made of one member head a stream; a `Stepper` where the members are (`speaks`).

    `members` and the streams that `forward` gets have the same names. A single member is simply called. The members'
    outputs must have the same shape and family; per-step outputs are brought to one grid and mixed step by step.
    A member with `reads_all` (a mixture of its own, or one that needs no stream) is given all streams and is always
    present.
    `config` None: equal weights, linear. Raises InputError when fixed weights do not name the members.
    """

    reads_all = True

    def __init__(self, members: Mapping[str, nn.Module], config: MixConfig | None = None) -> None:
        super().__init__()
        config = config or MixConfig()
        self.members = nn.ModuleDict(members)
        self.names = tuple(members)
        self.rule: Rule = config.rule
        self.normalize = config.normalize
        self.train_jointly = config.train == "joint"
        self.tuned_step = config.weights.step if isinstance(config.weights, TunedWeights) else None
        self.learned = isinstance(config.weights, LearnedWeights) and len(members) > 1
        initial = _initial_weights(config, self.names)
        if self.learned:
            self.log_weights = nn.Parameter(initial.log())
        else:
            self.register_buffer("weights", initial)

    @property
    def speaks(self) -> bool:
        """True when the members say words one at a time, so that `start` and `step` may be called."""
        return all(hasattr(member, "start") and hasattr(member, "step") for member in self.members.values())

    @property
    def tunable(self) -> bool:
        """True when the weights are to be chosen on validation after training."""
        return self.tuned_step is not None and len(self.names) > 1

    @property
    def mixing_weights(self) -> Tensor:
        """(M,) float32 weights of the members for a clip that has every modality, in the order of `names`."""
        if not self.learned:
            return cast(Tensor, self.weights)
        return torch.softmax(self.log_weights, 0) if self.normalize else self.log_weights.exp()

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, float] | Tensor) -> None:
        """Takes weights by name, or (M,) in the order of `names`; with `normalize` they are scaled to sum to one."""
        values = _as_vector(weights, self.names) if isinstance(weights, Mapping) else weights.detach().float()
        if tuple(values.shape) != (len(self.names),) or bool((values < 0).any()) or not float(values.sum()) > 0:
            raise ValueError(f"weights must be {len(self.names)} numbers >= 0, not all 0, got {values.tolist()}")
        values = values / values.sum() if self.normalize else values
        if self.learned:
            self.log_weights.copy_(values.clamp_min(torch.finfo(values.dtype).tiny).log())
        else:
            cast(Tensor, self.weights).copy_(values)

    def forward(self, streams: Mapping[str, Stream], targets: Targets) -> Output:
        """The mixture as a MixedOutput; with one member exactly what that member returns.

        Trained by parts, the mixture is cut off from the members' gradients: they learn from their own losses.
        """
        parts = {name: self.members[name](self._given(name, streams), targets) for name in self.names}
        if len(parts) == 1:
            return parts[self.names[0]]
        heard = parts if self.train_jointly else {name: _detached(part) for name, part in parts.items()}
        mixed = self._mixed(heard, self._present(streams), targets, self.mixing_weights)
        return replace(mixed, parts=parts)

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Scalar: the mixture's loss (joint), or the sum of the members' losses (parts).

        Trained by parts, a member is not asked about clips without its modality, and learned weights add the loss of
        the mixture of the members as they stand.
        """
        if not isinstance(output, MixedOutput) or len(self.names) == 1:
            return self._loss_of(self.names[0], output, targets)
        if self.train_jointly:
            return self._mixture_loss(output, targets)
        assert output.present is not None
        losses = []
        for name, present in zip(self.names, output.present.unbind(-1), strict=True):
            part = output.parts[name]
            if self._has_word_rows(part):
                part = replace(part, logits=part.logits[_by_word(present, targets)])
            losses.append(self._loss_of(name, part, _known_to(targets, present)))
        if self.learned:
            losses.append(self._mixture_loss(output, targets))
        return torch.stack(losses).sum()

    def remix(self, output: MixedOutput, targets: Targets, weights: Tensor) -> MixedOutput:
        """The same members' outputs mixed with other weights (M,)."""
        assert output.present is not None
        return self._mixed(output.parts, output.present, targets, weights.to(output.logits.device))

    def tune(self, batches: Iterable[tuple[Output, Targets]]) -> Tensor:
        """Chooses the weights with the lowest mean loss on validation, stores and returns them (M,).

        `batches` holds outputs of `forward` with their targets; it is read once a round of `search_weights`, so it
        may be a list or anything that computes them anew in the same order (two normalised members: one round). The
        figure is the members' own loss of the mixture, a mean over clips (labels) or over words (captions). InputError
        when there are none.
        """

        @torch.no_grad()
        def losses(candidates: Tensor) -> Tensor:
            total, num_rows = torch.zeros(len(candidates), dtype=torch.float64), 0
            for output, targets in batches:
                assert isinstance(output, MixedOutput)
                mixed = (self.remix(output, targets, weights) for weights in candidates)
                found = torch.stack([self._mixture_loss(each, targets).double() for each in mixed])
                total += len(output.logits) * found.cpu()
                num_rows += len(output.logits)
            if not num_rows:
                raise InputError("weights: nothing in the validation split says what they are to be tuned by")
            return total / num_rows

        if self.tuned_step is None:
            raise ValueError("only weights of kind tuned are chosen on validation")
        self.set_weights(search_weights(losses, len(self.names), self.tuned_step, self.normalize))
        return self.mixing_weights.clone()

    def start(self, given: Mapping[str, Stream]) -> dict[str, Any]:
        """State before the first word: `present` (B, M) bool and the `members`' own states."""
        states = {name: self._stepper(name).start(self._given(name, given)) for name in self.names}
        return {"present": self._present(given), "members": states}

    def step(self, words: Tensor, state: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """words (B,) -> log p of the next word (B, V) float32, and the new state. All members hear the same words."""
        spoken = {name: self._stepper(name).step(words, state["members"][name]) for name in self.names}
        after = {"present": state["present"], "members": {name: member for name, (_, member) in spoken.items()}}
        log_probs = [spoken[name][0] for name in self.names]
        if len(log_probs) == 1:
            return log_probs[0], after
        shares = clip_weights(self.mixing_weights, state["present"], self.normalize)
        return mix(log_probs, shares, "categorical", self.rule), after

    def _given(self, name: str, streams: Mapping[str, Stream]) -> Any:
        return streams if self._reads_all(name) else streams[name]

    def _present(self, streams: Mapping[str, Stream]) -> Tensor:
        """(B, M) bool: which clip has which modality."""
        every = next(iter(streams.values())).present
        columns = [every | True if self._reads_all(name) else streams[name].present for name in self.names]
        return torch.stack(columns, dim=-1)

    def _reads_all(self, name: str) -> bool:
        return getattr(self.members[name], "reads_all", False)

    def _mixture_loss(self, output: Output, targets: Targets) -> Tensor:
        """By the first member's own loss, of the mixture as one distribution."""
        return self._loss_of(self.names[0], Output(output.logits, output.family, output.steps), targets)

    def _loss_of(self, name: str, output: Output, targets: Targets) -> Tensor:
        return cast(Head, self.members[name]).loss(output, targets)

    def _stepper(self, name: str) -> Stepper:
        return cast(Stepper, self.members[name])

    def _has_word_rows(self, output: Output) -> bool:
        """True when the logits have a row a real word (R, V) rather than one a clip."""
        return self.speaks and output.logits.ndim == 2

    def _mixed(self, parts: Mapping[str, Output], present: Tensor, targets: Targets, weights: Tensor) -> MixedOutput:
        first = parts[self.names[0]]
        rows = _by_word(present, targets) if self._has_word_rows(first) else present
        shares = clip_weights(weights, rows, self.normalize)
        logits = mix([parts[name].logits for name in self.names], shares, first.family, self.rule)
        return MixedOutput(logits, first.family, self._mixed_steps(parts, weights), parts, present)

    def _mixed_steps(self, parts: Mapping[str, Output], weights: Tensor) -> Stream | None:
        streams = {name: steps for name in self.names if (steps := parts[name].steps) is not None}
        if len(streams) < len(parts):
            return None
        return mix_steps(streams, weights, parts[self.names[0]].family, self.rule, self.normalize)


def _initial_weights(config: MixConfig, names: tuple[str, ...]) -> Tensor:
    values = config.weights.values if isinstance(config.weights, FixedWeights) else None
    if values is None:
        return equal_weights(len(names), config.normalize)
    if set(values) != set(names):
        raise InputError(f"weights.values must name {', '.join(names)}; it names {', '.join(values) or 'nothing'}")
    weights = _as_vector(values, names)
    if not float(weights.sum()) > 0:
        raise InputError("weights.values: at least one weight must be above 0")
    return weights / weights.sum() if config.normalize else weights


def _as_vector(weights: Mapping[str, float], names: tuple[str, ...]) -> Tensor:
    return torch.tensor([float(weights[name]) for name in names])


def _by_word(present: Tensor, targets: Targets) -> Tensor:
    """(B, ...) -> (R, ...): each clip's row once for every real word of its captions, in the order of word logits."""
    if targets.word_mask is None:
        return present[:0]
    return present[targets.word_mask[..., 1:].nonzero()[:, 0]]


def _detached(part: Output) -> Output:
    steps = None if part.steps is None else part.steps.with_data(part.steps.data.detach())
    return replace(part, logits=part.logits.detach(), steps=steps)


def _known_to(targets: Targets, present: Tensor) -> Targets:
    """The targets with everything unknown for clips whose modality is absent. present: (B,) bool."""
    label_mask, word_mask = targets.label_mask, targets.word_mask
    if targets.labels is not None:
        known = present[:, None].expand(targets.labels.shape)
        label_mask = known if label_mask is None else label_mask & known
    if targets.words is not None:
        heard = present[:, None, None].expand(targets.words.shape)
        word_mask = heard & (targets.words != 0) if word_mask is None else word_mask & heard
    return replace(targets, label_mask=label_mask, word_mask=word_mask)
