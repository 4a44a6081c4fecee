"""The separation head that a configuration asks for."""

from __future__ import annotations

from mmfusion.heads.separation import ConvTasNetHead, MaskConfig, MaskHead, SeparationConfig


def build_separation(config: SeparationConfig, width: int, num_sources: int) -> MaskHead | ConvTasNetHead:
    """The head for a stream of `width` features a step and mixtures of `num_sources`; InputError as heads raise it."""
    if isinstance(config, MaskConfig):
        return MaskHead(config, width, num_sources)
    return ConvTasNetHead(config, width, num_sources)
