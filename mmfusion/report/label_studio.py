"""Clips as tasks of Label Studio, the model's decisions filled in as predictions, and the interface that they fit.

The format is that of labelstud.io/guide/predictions: `data` names the media by URL, `predictions` holds model_version,
score in [0, 1] and result; from_name, to_name and type of a result must be those of the labeling configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from mmfusion.report.hardest import Judged

Kind = Literal["audio", "image"]
CHOICES = "labels"
NO_CLASS = "(none of the classes)"


def labeling_config(kind: Kind, labels: Sequence[str], single: bool) -> str:
    """The labeling interface as XML: the sound or the pictures, what it was labelled as, and a choice of classes."""
    view = Element("View")
    SubElement(view, kind.capitalize(), name=kind, value=f"${kind}")
    SubElement(view, "Header", value="Labelled so far:")
    SubElement(view, "Text", name="truth", value="$truth")
    choices = SubElement(view, "Choices", name=CHOICES, toName=kind, choice="single" if single else "multiple",
                         showInline="true")  # fmt: skip
    for label in labels:
        SubElement(choices, "Choice", value=label)
    indent(view)
    return tostring(view, encoding="unicode") + "\n"


def as_task(number: int, kind: Kind, url: str, clip: Judged, model_version: str) -> dict[str, Any]:
    """One task of an import file; `number` is different for every task, and a clip of which nothing is said has no
    result."""
    data: dict[str, Any] = {kind: url, "clip": clip.clip, "truth": ", ".join(clip.true) or NO_CLASS, "loss": clip.loss}
    if clip.gradient is not None:
        data["gradient_norm"] = clip.gradient
    if clip.window is not None:
        data |= {"worst_start_s": clip.window.start_s, "worst_end_s": clip.window.end_s}
    chosen = {
        "id": f"result{number}",
        "from_name": CHOICES,
        "to_name": kind,
        "type": "choices",
        "value": {"choices": list(clip.said)},
    }
    prediction = {"model_version": model_version, "score": clip.score, "result": [chosen] if clip.said else []}
    return {"data": data, "predictions": [prediction]}
