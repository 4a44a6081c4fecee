"""A tagger of sound as an ONNX file: waveform in, class probabilities out, the log-mel spectrogram included.

The graph is torch's own exporter's (torch.export, onnxscript), with two things in other words: the log-mel as matrix
products (`encoders/logmel_products.py`), and an input that is real from its first to its last sample, for which masks
have nothing to say. Batch and number of samples stay open.

    input   waveform       (batch, samples) float32, mono in [-1, 1], at `sample_rate_hz`
    output  probabilities  (batch, classes) float32, in the order of `labels`

What else there is to know stands in the file's metadata, every value as JSON: `labels`, `sample_rate_hz`,
`min_samples`, `target` (multi, single or relevance), `thresholds` {class: probability} or null, `windows` {length_s,
hop_s, aggregate, ...} in which the run cuts long clips or null, `max_duration_s` of the training's clips, `commit` and
`run`.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmfusion.config import to_tree
from mmfusion.data.inputs import WaveformInput
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.data.raw import Raw
from mmfusion.data.reading import window
from mmfusion.data.windows import part_of, spans
from mmfusion.encoders.logmel import LogMel
from mmfusion.encoders.logmel_products import LogMelProducts
from mmfusion.heads.labels import LabelsConfig
from mmfusion.model import FusionModel
from mmfusion.predictor import Predictor
from mmfusion.training.provenance import commit
from mmfusion.training.run import Run
from mmfusion.types import Batch, Clip, InputError, Stream

LARGEST_DIFFERENCE = 1e-4
"""of a probability, between the file and the run"""
MOST_WINDOWS = 5
"""of a clip, by which a file is checked"""
_NEEDS = "this needs the packages onnx, onnxscript and onnxruntime: pip install -e '.[export]'"


@dataclass(frozen=True)
class Exported:
    """Where the file lies, its size in bytes, and its metadata as plain values."""

    path: Path
    num_bytes: int
    metadata: Mapping[str, Any]


class Tagger(nn.Module):
    """waveform (B, N) float32 -> probabilities (B, C) float32, of a model whose one input is sound; for tracing.

    The model is changed: its log-mel becomes a product of matrices.
    """

    def __init__(self, model: FusionModel, input_name: str, rate: float, head: str) -> None:
        super().__init__()
        self.model, self.input_name, self.rate, self.head = model, input_name, rate, head
        self.min_samples = 1
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, LogMel):
                    products = LogMelProducts(child, rate)
                    setattr(module, name, products)
                    self.min_samples = max(self.min_samples, products.min_samples)

    def forward(self, waveform: Tensor) -> Tensor:
        stream = Stream(waveform, torch.ones_like(waveform, dtype=torch.bool), self.rate)
        output = self.model(Batch((), {self.input_name: stream}))[self.head]
        logits = output.logits.float()
        return logits.softmax(-1) if output.family == "categorical" else logits.sigmoid()


def export_onnx(run: Run, path: str | Path) -> Exported:
    """Writes the run's tagger to `path`, whole or not at all.

    InputError for a run that is not one of labels from sound alone, for one whose parts the exporter cannot trace, and
    when onnx is not installed.
    """
    name, sample_rate_hz = _sound(run)
    predictor = Predictor(run, {})
    head = predictor.label_head
    if head is None:
        raise InputError(f"{run.folder}: has no label head, and only a tagger can be exported")
    tagger = Tagger(predictor.model.cpu(), name, float(sample_rate_hz), head).eval()
    windows, config = run.config.windows, run.config.model.heads[head]
    assert isinstance(config, LabelsConfig)
    metadata = {
        "labels": list(run.labels()),
        "sample_rate_hz": sample_rate_hz,
        "min_samples": tagger.min_samples,
        "target": config.target,
        "thresholds": predictor.thresholds.get(head),
        "windows": to_tree(windows) if windows else None,
        "max_duration_s": run.config.data.max_duration_s,
        "commit": commit(),
        "run": f"{run.config.name}/seed{run.config.seed}",
    }
    example = torch.zeros(2, max(2 * tagger.min_samples, sample_rate_hz))
    program = _traced(tagger, example, run)
    program.model.metadata_props.update({key: json.dumps(value) for key, value in metadata.items()})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        program.save(part, external_data=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Exported(path, path.stat().st_size, metadata)


def check_export(run: Run, path: str | Path, num_clips: int) -> tuple[float, int]:
    """(largest difference of a probability, number of clips) between the file and the run itself.

    The clips lie evenly over the run's test split. Each is heard whole, or, where the run has windows, in up to
    `MOST_WINDOWS` of them that lie evenly over it; by both sides as the file has it: what is masked is silence, and
    what is shorter than `min_samples` is filled up with silence. InputError when none of the clips holds sound, and
    when the two differ by more than `LARGEST_DIFFERENCE`.
    """
    name, _ = _sound(run)
    predictor, tagger = Predictor(run), OnnxTagger(path)
    manifest = read_manifest(run.config.data.manifest)
    clips = manifest.split(run.config.data.test_split)
    found: dict[str, float] = {}
    for clip in (clips[index] for index in _evenly(len(clips), num_clips)):
        for raw in _pieces(clip, manifest, predictor, name):
            raw = _as_heard(raw, tagger.min_samples)
            chances = predictor.hear({name: raw})
            assert chances is not None
            difference = float(np.abs(tagger(raw.data[None])[0] - np.array(list(chances.values()))).max())
            found[clip.id] = max(found.get(clip.id, 0.0), difference)
    if not found:
        raise InputError(
            f"{manifest.path}: none of {min(num_clips, len(clips))} test clips holds sound to check {path} by"
        )
    largest = max(found.values())
    if largest > LARGEST_DIFFERENCE:
        raise InputError(f"{path}: differs from {run.folder} by {largest:.1e} on {len(found)} clips")
    return largest, len(found)


def _pieces(clip: Clip, manifest: Manifest, predictor: Predictor, name: str) -> Iterator[Raw]:
    """The sound of a clip as the run is evaluated on it: some windows of it, or all; nothing where there is none."""
    windows = predictor.config.windows
    start_s, end_s = window(clip, windows.max_duration_s if windows else predictor.config.data.max_duration_s)
    inputs, _ = predictor.read(replace(manifest.located(clip), start_s=start_s, end_s=end_s))
    if name not in inputs:
        return
    whole = inputs[name]
    if windows is None:
        yield whole
        return
    cuts = list(spans(len(whole.mask) / whole.rate, windows.length_s, windows.hop_s))
    for number in _evenly(len(cuts), MOST_WINDOWS):
        piece = part_of(whole, *cuts[number])
        if piece.mask.any():
            yield piece.trimmed()


def _as_heard(raw: Raw, min_samples: int) -> Raw:
    """A sound as the graph knows it: real from the first to the last of at least `min_samples`."""
    sound = np.where(raw.mask, raw.data, 0).astype(np.float32)
    sound = np.pad(sound, (0, max(0, min_samples - len(sound))))
    return Raw(sound, np.ones(len(sound), dtype=bool), raw.rate)


def _evenly(num: int, most: int) -> list[int]:
    """At most `most` of `num` places, from the first to the last."""
    return np.unique(np.linspace(0, num - 1, min(most, num)).round().astype(int)).tolist()


class OnnxTagger:
    """An exported file, run by onnxruntime on the CPU; `metadata` holds plain values. InputError when it cannot be."""

    def __init__(self, path: str | Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(f"{path}: {_NEEDS}") from error
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            properties = self.session.get_modelmeta().custom_metadata_map
            self.metadata = {key: json.loads(value) for key, value in properties.items()}
            self.min_samples: int = self.metadata["min_samples"]
        except Exception as error:  # onnxruntime has an error of its own for each way in which a file can be wrong
            raise InputError(f"{path}: is not a tagger that tools/export.py made") from error

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """waveform (B, N) float32 -> probabilities (B, C) float32."""
        return np.asarray(self.session.run(["probabilities"], {"waveform": waveform})[0])


def _sound(run: Run) -> tuple[str, int]:
    """Name and sample rate of the one input, which is sound; InputError when there is anything else."""
    inputs = run.config.data.inputs
    read = {encoder.input or name for name, encoder in run.config.model.encoders.items()}
    for name in sorted(read):
        if not isinstance(inputs[name], WaveformInput):
            what = f"{run.folder}: reads {name} ({inputs[name].kind})"
            raise InputError(f"{what}; only a tagger that reads nothing but the samples of a sound can be exported")
    if len(read) != 1:
        raise InputError(f"{run.folder}: reads {', '.join(sorted(read))}; only a tagger of one sound can be exported")
    (name,) = read
    way = inputs[name]
    assert isinstance(way, WaveformInput)
    return name, way.sample_rate_hz


def _traced(tagger: Tagger, example: Tensor, run: Run) -> Any:
    """torch's exporter, without its talk. InputError names what it cannot do."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{run.folder}: {_NEEDS}") from error
    shapes = {"waveform": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            # Traced here, an LSTM stays one operator; torch.onnx.export by itself would make a loop of it.
            traced = torch.export.export(tagger, (example,), dynamic_shapes=shapes)
            return torch.onnx.export(
                traced, input_names=["waveform"], output_names=["probabilities"], verbose=False, external_data=False
            )
    except Exception as error:  # an exporter can fail in any way at any layer
        kinds = ", ".join(encoder.kind for encoder in run.config.model.encoders.values())
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{run.folder}: torch cannot export this model ({kinds}): {reason}") from error
