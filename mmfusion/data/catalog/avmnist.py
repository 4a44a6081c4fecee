"""AV-MNIST from its parts: spoken digits (FSDD) in noise (ESC-50), paired by label with degraded MNIST images.

Both parts are too easy as they are, so each is degraded by one fixed recipe (docs/data.md). Given the digit, sound
and image are independent by construction. One manifest a test speaker; its splits share no speaker, image or noise.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.avmnist_render import (
    SoundRenderer,
    SoundTask,
    Speech,
    image_file,
    render_images,
    render_sounds,
    sound_file,
)
from mmfusion.data.catalog.prepared import Prepared, media_path, read_arrays, seeded, write_set
from mmfusion.types import Clip, InputError

# Fixed before anything was trained, so that nobody tunes them on test scores.
IMAGES = {"train": (0, 6000), "val": (6000, 7500), "test": (7500, 10000)}
NOISE_FOLDS = {"train": (1, 2, 3), "val": (4,), "test": (5,)}
# Counts up when the same settings no longer give the same files.
RECIPE = 2


@configclass
class AvmnistConfig:
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the pairs and the noise."""
    snr_db: float = 3.0
    """Power of the active speech over the power of the noise."""
    num_components: Annotated[int, Field(ge=1, le=784)] = 5
    """Principal components that are left of an image."""
    passes: Annotated[int, Field(ge=1)] = 3
    """Passes over the training sounds, each with other images and other noise: 3 use all 6000 training images."""
    min_noise_db: float = -50.0
    """Crops of noise below this power (dB re full scale) are near silent and are drawn again."""
    noise: str | None = None
    """Folder of ESC-50; by default `esc50_16k` beside the parts."""
    speakers: tuple[str, ...] = ()
    """Test speakers to make a manifest for; all of them by default."""
    sounds_per_speaker: Annotated[int, Field(ge=10)] | None = None
    """Use only so many sounds of each speaker, the first takes of every digit (for a quick try)."""


@dataclass(frozen=True)
class Parts:
    """The spoken digits (`wave` int16, sound i from offset[i] to offset[i + 1]) and the images, with their labels."""

    wave: np.ndarray
    offset: np.ndarray
    digit: np.ndarray
    speaker: np.ndarray
    take: np.ndarray
    sample_rate_hz: int
    image: np.ndarray
    image_digit: np.ndarray

    def name(self, sound: int) -> str:
        return f"{self.speaker[sound]}-{self.digit[sound]}-{self.take[sound]:02d}"

    def take_name(self, pair: Pair) -> str:
        """The name of a sound as it is rendered for one pass."""
        return self.name(pair.sound) + (f"-{pair.turn}" if pair.turn else "")

    def sounds(self, speaker: str, limit: int | None) -> list[int]:
        """Indices of a speaker's sounds, first takes first, digits in turn."""
        mine = np.flatnonzero(self.speaker == speaker)
        return mine[np.lexsort((self.digit[mine], self.take[mine]))][:limit].tolist()


@dataclass(frozen=True, order=True)
class Pair:
    """One clip: a sound with an image of the same digit, in the pass `turn` over the split's sounds."""

    split: str
    turn: int
    sound: int
    image: int


def prepare(root: Path, out: Path, config: AvmnistConfig, workers: int = 1) -> Prepared:
    """Writes `out/test-<speaker>/manifest.jsonl` for every test speaker, and the sounds and images in `out/media-*`.

    `root` holds fsdd_8k.npz and mnist_t10k.npz. A sound is rendered once for each split that it takes part in; what
    an interrupted call has rendered is kept. Raises InputError naming what is missing.
    """
    parts = read_parts(root)
    noise, uncertain = read_noise_list(Path(config.noise) if config.noise else root.absolute().parent / "esc50_16k")
    pairs = plan(parts, config)
    media = out / f"media-{fingerprint(parts, noise, config)}"
    everything = [pair for some in pairs.values() for pair in some]
    render_images(
        parts.image, IMAGES["train"], sorted({pair.image for pair in everything}), config.num_components, media
    )
    tasks = sorted({SoundTask(pair.split, parts.take_name(pair), pair.sound) for pair in everything})
    speech = Speech(parts.wave, parts.offset, parts.sample_rate_hz)
    render_sounds(SoundRenderer(speech, noise, media, config.seed, config.snr_db, config.min_noise_db), tasks, workers)
    folders = {test: out / f"test-{test}" for test in pairs}
    manifests = {
        folder / "manifest.jsonl": [_clip(parts, media, folder, pair) for pair in pairs[test]]
        for test, folder in folders.items()
    }
    return write_set(manifests, {"noise clips left out because their fold is uncertain": uncertain})


def plan(parts: Parts, config: AvmnistConfig) -> dict[str, list[Pair]]:
    """Test speaker -> all pairs of its three splits. Raises InputError for a speaker that is not there."""
    speakers = sorted(set(parts.speaker.tolist()))
    unknown = sorted(set(config.speakers) - set(speakers))
    if unknown:
        raise InputError(f"avmnist: speakers: there is no speaker {unknown[0]!r} (there are {', '.join(speakers)})")
    pairs: dict[str, list[Pair]] = {}
    for test in config.speakers or speakers:
        pairs[test] = []
        for split, members in roles(speakers, test).items():
            pool = [sound for member in members for sound in parts.sounds(member, config.sounds_per_speaker)]
            pairs[test] += draw_pairs(parts, pool, split, test, config)
    return pairs


def roles(speakers: Sequence[str], test: str) -> dict[str, list[str]]:
    """Split -> speakers: one to test, the next in sorted order to validate, the others to train."""
    ordered = sorted(speakers)
    val = ordered[(ordered.index(test) + 1) % len(ordered)]
    return {"train": [s for s in ordered if s not in (test, val)], "val": [val], "test": [test]}


def draw_pairs(parts: Parts, pool: Sequence[int], split: str, test: str, config: AvmnistConfig) -> list[Pair]:
    """Every sound of the pool with images of its digit; within a pass no image is used twice."""
    low, high = IMAGES[split]
    pairs: list[Pair] = []
    for digit in range(10):
        sounds = [sound for sound in pool if parts.digit[sound] == digit]
        images = low + np.flatnonzero(parts.image_digit[low:high] == digit)
        if len(images) < len(sounds):
            raise InputError(f"avmnist: {len(sounds)} {split} sounds of digit {digit}, but only {len(images)} images")
        drawn = seeded(config.seed, "pairs", test, split, digit).permutation(images).tolist()
        for turn in range(config.passes if split == "train" else 1):
            start = turn * len(sounds)
            own = [drawn[(start + number) % len(drawn)] for number in range(len(sounds))]
            pairs += [Pair(split, turn, sound, image) for sound, image in zip(sounds, own, strict=True)]
    return sorted(pairs)


def read_parts(root: Path) -> Parts:
    """Both .npz files of the parts, checked to fit together. Raises InputError."""
    speech = read_arrays(root / "fsdd_8k.npz", ("wave", "offset", "label", "speaker", "index", "sample_rate"))
    pictures = read_arrays(root / "mnist_t10k.npz", ("image", "label"))
    num_sounds = len(speech["label"])
    if len(speech["offset"]) != num_sounds + 1 or speech["offset"][-1] > len(speech["wave"]):
        raise InputError(f"{root / 'fsdd_8k.npz'}: offset: does not fit the {num_sounds} labels and the wave")
    if pictures["image"].shape != (IMAGES["test"][1], 28, 28) or len(pictures["label"]) != IMAGES["test"][1]:
        raise InputError(f"{root / 'mnist_t10k.npz'}: image: must be (10000, 28, 28), got {pictures['image'].shape}")
    return Parts(
        speech["wave"],
        speech["offset"],
        speech["label"],
        speech["speaker"],
        speech["index"],
        int(speech["sample_rate"]),
        pictures["image"],
        pictures["label"],
    )


def read_noise_list(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Split -> ESC-50 clips of its folds, and the names of clips whose fold is not certain, which nobody gets."""
    table = root / "meta" / "esc50.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(
            f"{table}: no such file (avmnist takes its noise from ESC-50; setting: noise=FOLDER)"
        ) from error
    if not rows or not {"filename", "fold"} <= set(rows[0]):
        raise InputError(f"{table}: needs the columns filename and fold")
    uncertain = [row["filename"] for row in rows if row.get("id_certain") == "False"]
    noise = {
        split: [
            root / "audio" / row["filename"]
            for row in rows
            if row["fold"] in map(str, folds) and row.get("id_certain") != "False"
        ]
        for split, folds in NOISE_FOLDS.items()
    }
    return noise, uncertain


def fingerprint(parts: Parts, noise: dict[str, list[Path]], config: AvmnistConfig) -> str:
    """Names everything that the rendered files depend on, so that files of other settings are never taken for them."""
    settings = [RECIPE, config.seed, config.snr_db, config.num_components, config.min_noise_db]
    names = {split: [file.name for file in files] for split, files in noise.items()}
    found = hashlib.sha256(json.dumps([settings, names]).encode())
    for array in (parts.wave, parts.offset, parts.image):
        found.update(array.tobytes())
    return found.hexdigest()[:12]


def _clip(parts: Parts, media: Path, folder: Path, pair: Pair) -> Clip:
    files = {"audio": sound_file(media, pair.split, parts.take_name(pair)), "video": image_file(media, pair.image)}
    return Clip(
        id=f"{parts.take_name(pair)}-{pair.image:05d}",
        media={key: media_path(file, folder) for key, file in files.items()},
        split=pair.split,
        group=str(parts.speaker[pair.sound]),
        labels=(str(parts.digit[pair.sound]),),
    )
