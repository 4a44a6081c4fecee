"""What happens when: classes that are active in seconds become events, and these are compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from tqdm import tqdm

from mmfusion.config import configclass
from mmfusion.describe import Row, mean_chances
from mmfusion.metrics.events import Event, event_metrics, events_of, segment_metrics
from mmfusion.metrics.intersection import Criteria, operating_point, psds
from mmfusion.types import THRESHOLD

NUM_THRESHOLDS = 50


@configclass
class EventsConfig:
    """How active seconds become events, and how exact these have to be."""

    median_s: Annotated[float, Field(ge=0)] = 0.0
    """a median filter of this length over the decisions; they are by the second, so below 1.5 s nothing changes"""
    min_gap_s: Annotated[float, Field(ge=0)] = 0.0
    """shorter gaps between two events of a class are closed, after the filter; gaps are whole seconds"""
    min_length_s: Annotated[float, Field(ge=0)] = 0.0
    """shorter events are dropped, after that; they last whole seconds"""
    collar_s: Annotated[float, Field(gt=0)] = 1.0
    """how far an event's onset may be off in event-based figures, and its end, or by half of its length"""


def events_in(activity: Mapping[str, Any], labels: Sequence[str], levels: Sequence[float] | None,
              config: EventsConfig, file: str = "") -> list[Event]:  # fmt: skip
    """The events of {class: [probability of second 0, 1, ...]}; `levels` are the classes' thresholds, None for 0.5."""
    return events_of(mean_chances(labels, activity), 1.0, labels, levels or THRESHOLD, file, config.median_s,
                     config.min_gap_s, config.min_length_s)  # fmt: skip


def score_events(rows: Sequence[Row], labels: Sequence[str], levels: Sequence[float] | None, config: EventsConfig
                 ) -> dict[str, Any]:  # fmt: skip
    """{"activity": {"segment_based", "event_based"}} over the clips of which it is known what happens when.

    Segments are seconds; what is compared are events as `events_in` finds them. {} without anything to compare.
    """
    timed, references, lengths_s = _told(rows)
    if not references:
        return {}
    estimates = [event for row in timed for event in events_in(row["activity"], labels, levels, config, row["id"])]
    # A class of which nothing is said scores 0: an epoch that says nothing yet can be compared with one that does.
    segments = segment_metrics(references, estimates, 1.0, lengths_s, labels, zero_score=True)
    events = event_metrics(references, estimates, config.collar_s, labels=labels, zero_score=True)
    return {"activity": {"num_clips": len(timed), "segment_based": segments, "event_based": events}}


def score_all_thresholds(rows: Sequence[Row], labels: Sequence[str], config: EventsConfig) -> dict[str, Any]:
    """{"psds", ...}: the score of `metrics.intersection.psds` with its defaults, from thresholds 0.01, 0.03, ... 0.99.

    It does not depend on which threshold is the best one. With what it was computed by; {} without anything to compare.
    """
    timed, references, lengths_s = _told(rows)
    if not references:
        return {}
    points, criteria = [], Criteria()
    thresholds = np.linspace(0.01, 0.99, NUM_THRESHOLDS)
    for level in tqdm(thresholds, desc="psds", unit="threshold", leave=False, delay=2):
        levels = [float(level)] * len(labels)
        said = [event for row in timed for event in events_in(row["activity"], labels, levels, config, row["id"])]
        points.append(operating_point(references, said, criteria, lengths_s, labels))
    return {"psds": psds(points), **asdict(criteria), "num_thresholds": NUM_THRESHOLDS}


def _told(rows: Sequence[Row]) -> tuple[list[Row], list[Event], dict[str, float]]:
    """The rows of which it is known what happens when, the true events, and {clip: seconds}."""
    timed = [row for row in rows if "activity" in row and "events" in row["truth"]]
    events = [Event(row["id"], start, end, label) for row in timed for label, start, end in row["truth"]["events"]]
    lengths_s = {}
    for row in timed:
        num_seconds = max((len(said) for said in row["activity"].values()), default=0)
        lengths_s[row["id"]] = max([float(num_seconds), *(end_s for *_, end_s in row["truth"]["events"])])
    return timed, events, lengths_s
