"""What happens when: classes that are active in seconds become events, and these are compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.describe import Row, mean_chances
from mmfusion.metrics.events import Event, event_metrics, events_of, segment_metrics
from mmfusion.types import THRESHOLD


@configclass
class EventsConfig:
    """How active seconds become events, and how exact these have to be."""

    median_s: Annotated[float, Field(ge=0)] = 0.0
    """a median filter of this length over the decisions, of at least 3 s to do anything; 0 leaves them as they are"""
    min_gap_s: Annotated[float, Field(ge=0)] = 0.0
    """shorter gaps between two events of a class are closed, after the filter"""
    min_length_s: Annotated[float, Field(ge=0)] = 0.0
    """shorter events are dropped, after that"""
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
    timed = [row for row in rows if "activity" in row and "events" in row["truth"]]
    references = [
        Event(row["id"], start_s, end_s, label) for row in timed for label, start_s, end_s in row["truth"]["events"]
    ]
    if not references:
        return {}
    estimates, lengths_s = [], {}
    for row in timed:
        num_seconds = len(mean_chances(labels, row["activity"]))
        estimates += events_in(row["activity"], labels, levels, config, row["id"])
        lengths_s[row["id"]] = max([float(num_seconds), *(end_s for *_, end_s in row["truth"]["events"])])
    # A class of which nothing is said scores 0: an epoch that says nothing yet can be compared with one that does.
    segments = segment_metrics(references, estimates, 1.0, lengths_s, labels, zero_score=True)
    events = event_metrics(references, estimates, config.collar_s, labels=labels, zero_score=True)
    return {"activity": {"num_clips": len(timed), "segment_based": segments, "event_based": events}}
