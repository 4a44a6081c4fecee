"""How hard each clip is for a label head: its loss (clip_losses.py), and the gradient that it would give.

The gradient is that of the head's own training loss on the clip alone, with respect to all weights of the head. For a
linear head of a single label its norm is |p - y| sqrt(|h|^2 + 1): p what is said, y the truth, h the pooled features.
What a wrong label costs shows in the loss; a large gradient says in addition that the clip pulls the head far. Of a
clip that is read in windows it is the mean over them, each with the truth of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmfusion.data.windows import WindowReader
from mmfusion.evaluate import in_float32, load_model
from mmfusion.report.examples import Guess
from mmfusion.report.worst_window import WorstWindow
from mmfusion.training.run import Run
from mmfusion.training.setup import Material, batches_of, open_material
from mmfusion.types import Clip, Stream, Targets


@dataclass(frozen=True)
class Judged:
    """One clip of which some truth is known. `score` in [0, 1] is how sure the model is, right or wrong.

    `true` are the known classes, `said` the decisions; `guesses` are the most probable classes and all true ones. Of a
    clip that was read in windows, `window` is the worst one.
    """

    clip: str
    loss: float
    gradient: float | None
    true: tuple[str, ...]
    said: tuple[str, ...]
    guesses: tuple[Guess, ...]
    score: float
    window: WorstWindow | None = None


def hardest(clips: Sequence[Judged], number: int) -> tuple[list[Judged], list[Judged]]:
    """The `number` clips of highest loss, and those of largest gradient where there are any, each from the top."""
    pulling = [clip for clip in clips if clip.gradient is not None]
    by_loss = sorted(clips, key=lambda clip: -clip.loss)
    return by_loss[:number], sorted(pulling, key=lambda clip: -(clip.gradient or 0.0))[:number]


def gradient_norms(run: Run, split: str, head: str, quiet: bool = True) -> dict[str, float]:
    """{clip: norm} over the readable clips of a split, in float32 with the run's weights; 0 where nothing is known.

    In windows where the run has them. InputError when the run has no weights or its data cannot be read.
    """
    accelerator = in_float32()
    material = open_material(run, accelerator, quiet=quiet)
    model = load_model(run, material).to(accelerator.device)
    chosen = model.heads[head]
    weights = [weight.requires_grad_() for weight in chosen.parameters()]
    clips, owners, reader = _pieces(run, material, split, quiet)
    batches = batches_of(len(clips), run.config.training.batch_size)
    norms: dict[str, list[float]] = {}
    bar = tqdm(total=len(clips), desc="gradients", unit="clip", leave=False, disable=quiet)
    with bar:
        for batch in material.loader(clips, batches, run.config, training=False, reader=reader):
            batch = batch.to(accelerator.device)
            with torch.no_grad():
                fused = model.fusion(model.encode(batch))
            for row, clip in enumerate(batch.ids):
                own = {name: _row(stream, row) for name, stream in fused.items()}
                norms.setdefault(owners[clip], []).append(_norm(chosen, own, _truth(batch.targets, row), weights))
            bar.update(len(batch.ids))
    return {clip: fmean(own) for clip, own in norms.items()}


def _pieces(run: Run, material: Material, split: str, quiet: bool
            ) -> tuple[tuple[Clip, ...], dict[str, str], WindowReader | None]:  # fmt: skip
    """The clips of a split, or their windows with the truth of the clip; whose window each is, and what reads them."""
    if run.config.windows is None:
        clips = material.clips(split)
        return clips, {clip.id: clip.id for clip in clips}, None
    clips, reader = material.in_windows(split, run.config.data, run.config.windows, quiet)
    owned = [(window, clip) for clip in clips for window in reader.windows[clip.id]]
    windows = tuple(replace(window, labels=clip.labels, relevances=clip.relevances) for window, clip in owned)
    return windows, {window.id: clip.id for window, clip in owned}, reader


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
