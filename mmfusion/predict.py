"""Labels and a caption for any media file, with a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmfusion.data.collate import Example, collate
from mmfusion.data.inputs import FeaturesInput
from mmfusion.data.media import probe
from mmfusion.data.raw import Raw
from mmfusion.data.reading import MediaReader, read_raw
from mmfusion.evaluate import describe
from mmfusion.heads.labels import LabelsConfig
from mmfusion.model import FusionModel, build_model
from mmfusion.training.checkpoint import fit_weights, load_weights
from mmfusion.training.run import Run
from mmfusion.types import Facts, InputError


def predict_files(run: Run, paths: Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """One dict a file, in order.

    `path`, `has_audio`, `has_video`, `labels` {class: probability}, `caption`, `media` (what was found in the file),
    `warnings` (a part of the file that could not be read while another could); or `path` and `error` with one reason.
    Raises InputError when the run itself cannot be used.
    """
    predictor = Predictor(run)
    for path in paths:
        try:
            yield predictor.predict(Path(path))
        except InputError as error:
            yield {"path": str(path), "error": " ".join(str(error).split())}
        except Exception as error:  # one odd file must not cost the others their predictions
            yield {"path": str(path), "error": f"{path}: cannot be predicted: {type(error).__name__}: {error}"}


class Predictor:
    """A run's model, ready for files that no manifest knows."""

    def __init__(self, run: Run) -> None:
        config = run.config
        for name, way in config.data.inputs.items():
            if isinstance(way, FeaturesInput):
                raise InputError(f"{run.folder}: reads precomputed features ({name}), which a media file does not hold")
        if not run.weights.exists():
            raise InputError(f"{run.weights}: no such file; train the run first")
        self.config, self.vocabulary = config, run.vocabulary()
        self.facts = Facts(run.labels(), self.vocabulary.words if self.vocabulary else ())
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: FusionModel = build_model(config.model, self.facts)
        fit_weights(self.model, load_weights(run.weights), run.weights)
        self.model.eval().to(self.device)

    def predict(self, path: Path) -> dict[str, Any]:
        """See `predict_files`. Raises InputError with one reason when nothing in the file can be used."""
        info = probe(path)
        inputs, warnings = self._read(path)
        layouts = MediaReader(self.config.data.inputs, self.config.data.max_duration_s).layouts
        batch = collate([Example(str(path), inputs, layouts)]).to(self.device)
        with torch.inference_mode():
            fused = self.model.fusion(self.model.encode(batch))
            outputs = self.model.decide(fused, batch.targets)
            row = describe(self.model, fused, outputs, batch, self.facts.labels, self.vocabulary, self.config.search)[0]
        found: dict[str, Any] = {"path": str(path), "has_audio": info.has_audio, "has_video": info.has_video}
        for name, head in self.config.model.heads.items():
            found["labels" if isinstance(head, LabelsConfig) else "caption"] = row[name]
        if "activity" in row:
            found["activity"] = row["activity"]
        found["media"] = {key: value for key, value in asdict(info).items() if key != "path"}
        return found | ({"warnings": warnings} if warnings else {})

    def _read(self, path: Path) -> tuple[dict[str, Raw], list[str]]:
        """The inputs that the file has, and why others that it should have could not be read."""
        found: dict[str, Raw] = {}
        warnings: list[str] = []
        for name, way in self.config.data.inputs.items():
            try:
                raw = read_raw(path, way, 0.0, self.config.data.max_duration_s)
            except InputError as error:
                warnings.append(f"{name}: {error}")
                continue
            if raw is not None:
                found[name] = raw
                warnings += [f"{name}: read in part: {raw.flaw}"] if raw.flaw else []
        if not found:
            reads = " or ".join(self.config.data.inputs)
            reason = warnings[0].partition(": ")[2] if warnings else f"{path}: holds no {reads} to predict from"
            raise InputError(reason)
        return found, warnings


def as_text(found: dict[str, Any], top: int) -> str:
    """A prediction for a person to read: the file, its most probable labels, the caption, and what went wrong."""
    if "error" in found:
        return f"{found['path']}: error: {found['error'].removeprefix(found['path'] + ': ')}"
    lines = [str(found["path"])]
    best = sorted(found.get("labels", {}).items(), key=lambda item: -item[1])[:top]
    lines += ["  labels   " + "  ".join(f"{name} {chance:.2f}" for name, chance in best)] if best else []
    lines += [f"  caption  {found['caption']}"] if "caption" in found else []
    return "\n".join([*lines, *(f"  warning  {warning}" for warning in found.get("warnings", []))])
