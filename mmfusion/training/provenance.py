"""Where a run's numbers come from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmfusion.data.inputs import FramesInput
from mmfusion.language.vectors import read_vectors
from mmfusion.training.checkpoint import Progress
from mmfusion.training.optimise import num_parameters
from mmfusion.training.run import Run, RunConfig
from mmfusion.training.setup import Material, training_captions
from mmfusion.types import InputError

PACKAGES = ("mmfusion", "torch", "torchvision", "torchaudio", "av", "decord", "transformers", "accelerate", "numpy",
            "scikit-learn", "pycocoevalcap")  # fmt: skip


def provenance(run: Run, material: Material, model: nn.Module, progress: Progress) -> dict[str, Any]:
    """Code, packages, data, hardware and cost of a finished training, as plain values."""
    data, manifest = run.config.data, material.manifest
    splits = {name: manifest.fingerprint(manifest.split(name)) for name in manifest.splits}
    backends = {way.backend for way in data.inputs.values() if isinstance(way, FramesInput)}
    parameters = list(model.parameters())
    return {
        "commit": commit(),
        "packages": versions(),
        "python": platform.python_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "manifest": manifest.file_hash(),
        "splits": splits,
        "vocabulary": material.vocabulary.hash if material.vocabulary else None,
        "vectors": coverage(run, material),
        "built_from": built_from(sources_of(run.config)),
        "seed": run.config.seed,
        "hardware": hardware(),
        "media_backend": sorted(backends) or None,
        "num_parameters": num_parameters(parameters),
        "num_trained_parameters": num_parameters(p for p in parameters if p.requires_grad),
        "num_updates": progress.update,
        "best_epoch": progress.best_epoch,
        "training_s": round(progress.seconds, 3),
        "data_wait_share": round(progress.data_seconds / max(progress.seconds, 1e-9), 4),
    }


def sources_of(config: RunConfig) -> list[Path]:
    """The run folders whose weights a run of this configuration begins with or holds, a language model's included."""
    training, language = config.training, config.model.language
    own = language.model if language is not None and getattr(language, "source", "run") == "run" else None
    return [Path(folder) for folder in (*training.parts_from.values(), training.start_from, own) if folder]


def built_from(folders: Iterable[Path]) -> dict[str, str]:
    """Run folder -> sha256 of its weights; those that are not there any more are left out."""
    return {str(folder): Run(folder, None).weights_hash()  # type: ignore[arg-type]
            for folder in folders if (folder / "weights.safetensors").exists()}  # fmt: skip


def check_sources(run: Run, folders: Iterable[Path]) -> None:
    """InputError when one of these runs has other weights now than when `run` was built from it."""
    before = run.read_json("provenance.json").get("built_from", {})
    for folder, now in built_from(folders).items():
        if before.get(folder, now) != now:
            raise InputError(f"{run.folder}: was built from {folder}, which has other weights now; delete {run.folder}")


def coverage(run: Run, material: Material) -> str | None:
    """How many words, and running words of the training captions, have a vector; None without a file of vectors."""
    chosen, vocabulary = run.config.model.vectors, material.vocabulary
    if chosen is None or vocabulary is None:
        return None
    counts = Counter(
        number for caption in training_captions(run, material.manifest) for number in vocabulary.encode(caption)[1:-1]
    )
    return read_vectors(chosen.path, vocabulary).coverage([counts[number] for number in range(len(vocabulary))])


def commit() -> str | None:
    """The git commit of the code, with "+changes" when files differ from it; None outside a checkout.

    Texts (docs/, *.md) change no number, and a published table must not make the next one look changed.
    """
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        texts = (":(top,exclude)docs", ":(top,exclude,glob)**/*.md")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *texts)
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Versions of the packages that numbers can depend on; those not installed are left out."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores and GPU."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
