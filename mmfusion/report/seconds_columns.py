"""Columns of a table with figures of single seconds: `activity.*`, which are of no head by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmfusion.heads.labels import LabelsConfig
from mmfusion.types import InputError

if TYPE_CHECKING:
    from mmfusion.report.comparison import FigureConfig, Job

ACTIVITY = "activity"


def hears_seconds(job: Job) -> bool:
    """Whether a model of this job classifies single seconds."""
    heads = job.config.model.heads.values()
    return job.by_models and any(isinstance(head, LabelsConfig) and head.per_second for head in heads)


def check_seconds(figure: FigureConfig, jobs: Sequence[Job], where: str) -> None:
    """InputError, which begins with `where`, for a column that no row can fill, and for one that is to be resampled."""
    if not any(hears_seconds(job) for job in jobs):
        raise InputError(f"{where}: {ACTIVITY} is that of a label head with per_second: true, which no row trains")
    if figure.significance:
        raise InputError(f"{where}: figures of single seconds cannot be resampled; set significance to false")
