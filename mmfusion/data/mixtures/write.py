"""A mixture as files.

    <split>/mix-test-00003.wav      the mixture, 16-bit
    <split>/mix-test-00003/         its sources, 16-bit, as long as the mixture: their integers sum to the mixture's
    <split>/mix-test-00003.csv      one row a source (`table.py`)
    <split>/mix-test-00003.jams     the same for JAMS (Humphrey et al. 2014), in the namespace of Scaper
    <split>/mix-test-00003.mp4      where it was asked for: the sound with the picture of one source

The table is written last: a mixture that has one is complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.data.media import write_sound
from mmfusion.data.mixtures.recipes import Recipe, fingerprint
from mmfusion.data.mixtures.sound import FULL_SCALE, Stored
from mmfusion.data.mixtures.table import Mixture, crop_start_s, read_table, to_table
from mmfusion.data.parts import as_file_name, write_whole
from mmfusion.types import Clip, InputError, Source


def name_of(recipe: Recipe, ending: str) -> str:
    """The path of one of a mixture's files, from the folder of the set."""
    return f"{recipe.split}/{recipe.id}{ending}"


def source_names(recipe: Recipe) -> list[str]:
    """The paths of the files of its sources; sorted, they are in the order of the parts."""
    labels = [as_file_name(part.label) for part in recipe.parts]
    return [name_of(recipe, f"/{place:02d}-{label}.wav") for place, label in enumerate(labels)]


def write_mixture(out: Path, mixture: Mixture, stored: Stored) -> None:
    """Writes sounds, JAMS file and table under `out`; each file appears whole or not at all."""
    recipe, names = mixture.recipe, source_names(mixture.recipe)
    for name, source in zip(names, stored.sources, strict=True):
        write_sound(out / name, as_float(source), recipe.sample_rate_hz)
    write_sound(out / name_of(recipe, ".wav"), as_float(stored.mixture), recipe.sample_rate_hz)
    write_whole(out / name_of(recipe, ".jams"), (json.dumps(to_jams(mixture, stored.scale), indent=1) + "\n").encode())
    table = to_table(mixture, stored.scale, names, [samples_hash(source) for source in stored.sources])
    write_whole(out / name_of(recipe, ".csv"), table.encode())


def written(out: Path, mixture: Mixture) -> Mixture | None:
    """The mixture as it lies in `out` with all its files, which say what its film shows; None when it does not.

    InputError when another mixture lies in its place.
    """
    table = out / name_of(mixture.recipe, ".csv")
    if not table.exists():
        return None
    found, _ = read_table(table)
    if found.manifest != mixture.manifest or fingerprint([found.recipe]) != fingerprint([mixture.recipe]):
        raise InputError(f"{table}: is another mixture than this set's; choose another folder")
    return replace(mixture, shown=found.shown, flaws=found.flaws)


def as_float(samples: np.ndarray) -> np.ndarray:
    """16-bit integers as the float32 samples that a reader makes of them, exactly."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def samples_hash(samples: np.ndarray) -> str:
    """16 hex digits of the stored samples of one source."""
    return hashlib.blake2b(samples.astype("<i2").tobytes(), digest_size=8).hexdigest()


def describe_mixture(mixture: Mixture) -> Clip:
    """Its line in the manifest of its set.

    The group is that of the first source's clip: groups that were in one split only still are.
    """
    recipe, rate = mixture.recipe, mixture.recipe.sample_rate_hz
    sources = tuple(
        Source(part.label, part.onset_sample / rate, part.end_sample / rate, seen=place == mixture.shown, media=name,
               clip=part.clip.id)
        for place, (part, name) in enumerate(zip(recipe.parts, source_names(recipe), strict=True))
    )  # fmt: skip
    media = {"audio": name_of(recipe, ".wav")}
    if mixture.shown is not None:
        media["video"] = name_of(recipe, ".mp4")
    return Clip(recipe.id, media, recipe.split, recipe.parts[0].clip.group, end_s=recipe.duration_s,
                labels=recipe.labels, sources=sources)  # fmt: skip


def to_jams(mixture: Mixture, scale: float) -> dict[str, Any]:
    """The mixture as a JAMS object, its sources as sound events of Scaper's (Salamon et al. 2017).

    `snr` is our `snr_db`, relative to the first source and not to a background. Paths start at the folder of the set.
    """
    recipe, rate = mixture.recipe, mixture.recipe.sample_rate_hz
    events = []
    for part in recipe.parts:
        onset_s, length_s = part.onset_sample / rate, part.num_samples / rate
        value = {
            "label": part.label, "source_file": part.clip.media["audio"], "source_time": crop_start_s(part, rate),
            "event_time": onset_s, "event_duration": length_s, "snr": part.snr_db, "gain_db": part.gain_db,
            "role": "foreground", "pitch_shift": None, "time_stretch": None,
        }  # fmt: skip
        events.append({"time": onset_s, "duration": length_s, "value": value, "confidence": 1.0})
    paths = {"soundscape_audio_path": name_of(recipe, ".wav"), "isolated_events_audio_path": source_names(recipe)}
    facts = {"id": recipe.id, "split": recipe.split, "seed": recipe.seed, "number": recipe.number, "scale": scale,
             "sample_rate_hz": rate, "level_db": recipe.level_db,
             "manifest": mixture.manifest.as_posix()}  # fmt: skip
    annotation = {
        "namespace": "scaper", "data": events, "time": 0.0, "duration": recipe.duration_s,
        "annotation_metadata": {"annotation_tools": "mmfusion", "data_source": "program"},
        "sandbox": {"scaper": paths},
    }  # fmt: skip
    return {
        "annotations": [annotation],
        "file_metadata": {"title": recipe.id, "duration": recipe.duration_s, "jams_version": "0.3.4"},
        "sandbox": {"mmfusion": facts},
    }
