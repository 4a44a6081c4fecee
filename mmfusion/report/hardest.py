"""How hard each clip is for a label head: its loss, and the gradient that it would give.

The loss is that of the probabilities that were predicted, without label smoothing and class weights: cross-entropy
(single), binary cross-entropy averaged over the known classes (multi), squared error averaged over them (relevance).

The gradient is that of the head's own training loss on the clip alone, with respect to all weights of the head. For a
linear head of a single label its norm is |p - y| sqrt(|h|^2 + 1): p what is said, y the truth, h the pooled features.
What a wrong label costs shows in the loss; a large gradient says in addition that the clip pulls the head far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmfusion.evaluate import in_float32, load_model
from mmfusion.report.examples import Guess
from mmfusion.training.run import Run
from mmfusion.training.setup import batches_of, open_material
from mmfusion.types import THRESHOLD, Stream, Targets

SMALLEST, SMALLEST_REST = 1e-30, 1e-9
"""probability of what is true, and of what is not false, below which a loss does not grow: predictions have 9 digits"""


@dataclass(frozen=True)
class Judged:
    """One clip of which some truth is known. `score` in [0, 1] is how sure the model is, right or wrong.

    `true` are the known classes, `said` the decisions; `guesses` are the most probable classes and all true ones.
    """

    clip: str
    loss: float
    gradient: float | None
    true: tuple[str, ...]
    said: tuple[str, ...]
    guesses: tuple[Guess, ...]
    score: float


def hardest(clips: Sequence[Judged], number: int) -> tuple[list[Judged], list[Judged]]:
    """The `number` clips of highest loss, and those of largest gradient where there are any, each from the top."""
    pulling = [clip for clip in clips if clip.gradient is not None]
    by_loss = sorted(clips, key=lambda clip: -clip.loss)
    return by_loss[:number], sorted(pulling, key=lambda clip: -(clip.gradient or 0.0))[:number]


def clip_losses(reference: np.ndarray, chances: np.ndarray, known: np.ndarray, target: str) -> np.ndarray:
    """(N,) losses of `chances` (N, C) against `reference` (N, C) in [0, 1]; NaN for a clip of which nothing is known.

    With target single, a clip counts when all its classes are known.
    """
    positive = reference >= THRESHOLD
    found = np.full(len(reference), np.nan)
    if target == "single":
        clips = known.all(axis=1)
        found[clips] = -np.log(np.maximum(np.where(positive, chances, 0).max(axis=1), SMALLEST))[clips]
        return found
    if target == "relevance":
        cells = (chances - reference) ** 2
    else:
        right = np.where(positive, np.maximum(chances, SMALLEST), np.maximum(1 - chances, SMALLEST_REST))
        cells = -np.log(right)
    clips = known.any(axis=1)
    found[clips] = (np.where(known, cells, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))[clips]
    return found


def gradient_norms(run: Run, split: str, head: str, quiet: bool = True) -> dict[str, float]:
    """{clip: norm} over the readable clips of a split, in float32 with the run's weights; 0 where nothing is known.

    InputError when the run has no weights or its data cannot be read.
    """
    accelerator = in_float32()
    material = open_material(run, accelerator, quiet=quiet)
    model = load_model(run, material).to(accelerator.device)
    chosen = model.heads[head]
    weights = [weight.requires_grad_() for weight in chosen.parameters()]
    clips = material.clips(split)
    batches = batches_of(len(clips), run.config.training.batch_size)
    norms: dict[str, float] = {}
    bar = tqdm(total=len(clips), desc="gradients", unit="clip", leave=False, disable=quiet)
    with bar:
        for batch in material.loader(clips, batches, run.config, training=False):
            batch = batch.to(accelerator.device)
            with torch.no_grad():
                fused = model.fusion(model.encode(batch))
            for row, clip in enumerate(batch.ids):
                own = {name: _row(stream, row) for name, stream in fused.items()}
                norms[clip] = _norm(chosen, own, _truth(batch.targets, row), weights)
            bar.update(len(batch.ids))
    return norms


def _norm(head: nn.Module, streams: dict[str, Stream], targets: Targets, weights: Sequence[Tensor]) -> float:
    with torch.enable_grad():
        loss = head.loss(head(streams, targets), targets)  # type: ignore[operator]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return float(sum(gradient.double().square().sum() for gradient in gradients if gradient is not None) ** 0.5)


def _row(stream: Stream, row: int) -> Stream:
    return Stream(stream.data[row : row + 1], stream.mask[row : row + 1], stream.rate)


def _truth(targets: Targets, row: int) -> Targets:
    """What is known of one clip as a whole; what happens when in it is left aside."""
    labels, known = (None if part is None else part[row : row + 1] for part in (targets.labels, targets.label_mask))
    return Targets(labels=labels, label_mask=known)
