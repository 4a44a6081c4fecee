"""Sources that no model separated: what a table of separators has to beat, and what masks could reach at best.

mixture        the mixture itself for every source: an improvement of 0 dB
band_split     two bands of the mixture, parted at a frequency, whatever it holds
ideal_ratio, ideal_binary    masks from the true sources (metrics/ideal_masks.py)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmfusion.evaluate import truth
from mmfusion.heads.separation import SeparationConfig
from mmfusion.metrics.ideal_masks import ideal_estimates, split_at
from mmfusion.report.comparison import Baseline
from mmfusion.separated import Row, source_rows, source_truth
from mmfusion.training.run import RunConfig
from mmfusion.training.setup import Material, batches_of
from mmfusion.types import Clip, InputError, Separated, Stream

SPLIT_HZ = 500.0


def separate_clips(baseline: Baseline, material: Material, clips: Sequence[Clip], config: RunConfig) -> list[Row]:
    """What the baseline makes of the mixtures, as rows of predictions, for every separation head.

    InputError when the clips are no mixtures, and for a band_split of other than two sources.
    """
    heads = {name: head for name, head in config.model.heads.items() if isinstance(head, SeparationConfig)}
    rows: list[Row] = []
    batches = batches_of(len(clips), config.training.batch_size)
    for batch in material.loader(clips, batches, config, training=False):
        sources = batch.targets.sources
        if sources is None:
            setting = "set data.mixture or data.stored_sources"
            raise InputError(f"{material.manifest.path}: a {baseline.kind} row separates mixtures: {setting}")
        said = {name: _said(baseline, sources, batch.inputs[head.input]) for name, head in heads.items()}
        rows += [{"id": clip, **row} for clip, row in zip(batch.ids, source_rows(config, said, batch), strict=True)]
    return [row | {"truth": truth(clip) | source_truth(clip, material)} for row, clip in zip(rows, clips, strict=True)]


def _said(baseline: Baseline, sources: Tensor, mixture: Stream) -> Separated:
    return Separated(estimates_of(baseline, sources, mixture), mixture.mask)


def estimates_of(baseline: Baseline, sources: Tensor, mixture: Stream) -> Tensor:
    """(B, S, N) what the baseline says of the sources (B, S, N) of mixtures (B, N)."""
    if baseline.kind == "mixture":
        return mixture.zeroed()[:, None].expand_as(sources)
    if baseline.kind == "band_split":
        if sources.shape[1] != 2:
            raise InputError(f"a band_split row makes two sources, and these mixtures have {sources.shape[1]}")
        return split_at(mixture, SPLIT_HZ if baseline.split_hz is None else baseline.split_hz)
    return ideal_estimates(sources, mixture, "ratio" if baseline.kind == "ideal_ratio" else "binary")
