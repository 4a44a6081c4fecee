"""The separation head that a configuration asks for."""

from __future__ import annotations

from mmfusion.heads.class_masks import ClassMaskHead
from mmfusion.heads.separation import ConvTasNetHead, MaskConfig, MaskHead, SeparationConfig


def build_separation(config: SeparationConfig, width: int, num_sources: int, num_classes: int = 0
                     ) -> MaskHead | ConvTasNetHead:  # fmt: skip
    """The head for a stream of `width` features a step, mixtures of `num_sources`, and data of `num_classes`.

    InputError as heads raise it.
    """
    if isinstance(config, MaskConfig):
        if config.by_class:
            return ClassMaskHead(config, width, num_sources, num_classes)
        return MaskHead(config, width, num_sources)
    return ConvTasNetHead(config, width, num_sources)
