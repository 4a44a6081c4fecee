"""Labels and a caption for any media file, with a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mmfusion.data.dataset import ClipDataset, collate
from mmfusion.data.inputs import FeaturesInput
from mmfusion.data.media import probe
from mmfusion.data.reading import MediaReader
from mmfusion.evaluate import describe
from mmfusion.heads.labels import LabelsConfig
from mmfusion.model import FusionModel, build_model
from mmfusion.training.checkpoint import fit_weights, load_weights
from mmfusion.training.run import Run
from mmfusion.types import Clip, Facts, InputError


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
        self.device = Accelerator().device
        self.model: FusionModel = build_model(config.model, self.facts)
        fit_weights(self.model, load_weights(run.weights), run.weights)
        self.model.eval().to(self.device)

    def predict(self, path: Path) -> dict[str, Any]:
        """See `predict_files`. Raises InputError with one reason when nothing in the file can be used."""
        info = probe(path)
        inputs, warnings = self._usable_inputs(path, info.has_audio, info.has_video)
        reader = MediaReader(inputs, self.config.data.max_duration_s)
        clip = Clip(id=str(path), media={way.source or name: str(path) for name, way in inputs.items()}, split="",
                    group="")  # fmt: skip
        dataset = ClipDataset([clip], reader, self.facts, None, self.config.data, training=False)
        batch = collate([dataset[0]]).to(self.device)
        with torch.inference_mode():
            fused = self.model.fusion(self.model.encode(batch))
            outputs = self.model.decide(fused, batch.targets)
            row = describe(self.model, fused, outputs, batch, self.facts.labels, self.vocabulary, self.config.search)[0]
        found: dict[str, Any] = {"path": str(path), "has_audio": info.has_audio, "has_video": info.has_video}
        for name, head in self.config.model.heads.items():
            found["labels" if isinstance(head, LabelsConfig) else "caption"] = row[name]
        if "activity" in row:
            found["activity"] = row["activity"]
        found["media"] = asdict(info)
        return found | ({"warnings": warnings} if warnings else {})
