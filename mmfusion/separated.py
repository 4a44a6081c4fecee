"""What came out for the sources of mixtures, as rows of predictions, and the figures that are made from such rows.

A separation head's part of a row is a list with one object a source, in the mixture's order (`source_figures`): signals
are too large to keep, so they are scored as they come out. The row's `truth` has `sources`, {"label", "clip"} each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmfusion.heads.separation import SeparationConfig
from mmfusion.metrics.ideal_masks import ideal_estimates
from mmfusion.metrics.separated import separation_summary, source_figures
from mmfusion.training.run import RunConfig
from mmfusion.training.setup import Material
from mmfusion.types import Batch, Clip, Decision, Separated

Row = dict[str, Any]


def source_rows(config: RunConfig, outputs: Mapping[str, Decision], batch: Batch) -> list[Row]:
    """One row a clip: the figures of every separation head among the outputs; {} without sources to compare with."""
    rows: list[Row] = [{} for _ in batch.ids]
    targets = batch.targets
    for name, head in config.model.heads.items():
        output = outputs.get(name)
        if not isinstance(head, SeparationConfig) or not isinstance(output, Separated) or targets.sources is None:
            continue
        mixture = batch.inputs[head.input]
        ideal = _arrays(ideal_estimates(targets.sources, mixture, "ratio"))
        every = zip(_arrays(targets.sources), _arrays(output.sources), _arrays(mixture.zeroed()), ideal, strict=True)
        for row, length, signals in zip(rows, mixture.lengths.tolist(), every, strict=True):
            # What a silent estimate is given depends on the length, so padding must not be scored.
            row[name] = source_figures(*(signal[..., :length] for signal in signals))
    return rows


def source_truth(clip: Clip, material: Material) -> Row:
    """{"sources": ...} of a mixture, {} of any other clip."""
    if material.stored is not None:
        # A source of which no clip is known is drawn by itself.
        return {"sources": [{"label": source.label, "clip": source.clip or source.media} for source in clip.sources]}
    if material.mixtures is None:
        return {}
    parts = material.mixtures.recipe_of(clip).parts
    return {"sources": [{"label": part.label, "clip": part.clip.id} for part in parts]}


def score_sources(rows: Sequence[Row], config: RunConfig) -> dict[str, Any]:
    """`separation_summary` of every separation head by its name; heads that said nothing are left out."""
    scores: dict[str, Any] = {}
    for name, head in config.model.heads.items():
        if isinstance(head, SeparationConfig) and rows and name in rows[0]:
            labels = [[source["label"] for source in row["truth"]["sources"]] for row in rows]
            scores[name] = separation_summary([row[name] for row in rows], labels)
    return scores


def _arrays(signals: Tensor) -> np.ndarray:
    return signals.float().cpu().numpy()
