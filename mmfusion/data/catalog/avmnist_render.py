"""The files of AV-MNIST: sounds of one second with noise, and images on a few principal components."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmfusion.data.catalog.degrade import Projection, mix, power_db
from mmfusion.data.catalog.prepared import seeded
from mmfusion.data.media import read_sound, write_picture, write_sound
from mmfusion.data.processes import in_processes
from mmfusion.types import InputError

DURATION_S = 1.0
# A near-silent crop is drawn again from the same noise clip, and after some draws from another one.
DRAWS_A_CLIP = 10
MAX_DRAWS = 100
# Fewer sounds than this are made sooner than other processes have started.
POOL_FROM = 500


@dataclass(frozen=True, order=True)
class SoundTask:
    """Sound number `sound`, called `name`, with the noise of `split`."""

    split: str
    name: str
    sound: int


@dataclass(frozen=True)
class Speech:
    """All spoken digits: `wave` int16, sound i from offset[i] to offset[i + 1]."""

    wave: np.ndarray
    offset: np.ndarray
    sample_rate_hz: int

    @property
    def num_samples(self) -> int:
        """Samples of a rendered sound."""
        return round(DURATION_S * self.sample_rate_hz)

    def __getitem__(self, sound: int) -> np.ndarray:
        """(N,) float64: the first second, zeros after the end of a shorter sound."""
        spoken = self.wave[self.offset[sound] : self.offset[sound + 1]][: self.num_samples] / 32768.0
        return np.pad(spoken, (0, self.num_samples - len(spoken)))


def sound_file(media: Path, split: str, name: str) -> Path:
    return media / "sound" / split / f"{name}.wav"


def image_file(media: Path, number: int) -> Path:
    return media / "image" / f"{number:05d}.png"


@dataclass
class SoundRenderer:
    """Writes one spoken digit in noise; the noise depends on the seed, the split and the sound's name alone."""

    speech: Speech
    noise: dict[str, list[Path]]
    media: Path
    seed: int
    snr_db: float
    min_noise_db: float
    read: dict[Path, np.ndarray] = field(default_factory=dict)

    def __call__(self, task: SoundTask) -> None:
        file = sound_file(self.media, task.split, task.name)
        if file.exists():
            return
        rate_hz = self.speech.sample_rate_hz
        mixture = mix(self.speech[task.sound], self.crop(task), self.snr_db, rate_hz)
        write_sound(file, mixture, rate_hz)

    def first_noise(self, task: SoundTask) -> int:
        """Which noise clip of its split the task reads first."""
        return int(self._draw(task).integers(len(self.noise[task.split])))

    def crop(self, task: SoundTask) -> np.ndarray:
        """(N,) float: a second of a noise clip of the split's folds; a near-silent crop is drawn again."""
        size = self.speech.num_samples
        draw = self._draw(task)
        clips = self.noise[task.split]
        clip = np.empty(0)
        for attempt in range(MAX_DRAWS):
            if attempt % DRAWS_A_CLIP == 0:
                clip = self._noise(clips[draw.integers(len(clips))])
            start = int(draw.integers(len(clip) - size + 1))
            crop = clip[start : start + size]
            if power_db(crop) >= self.min_noise_db:
                return crop
        raise InputError(
            f"avmnist: min_noise_db: {MAX_DRAWS} crops of {task.split} noise are all below {self.min_noise_db} dB"
        )

    def _draw(self, task: SoundTask) -> np.random.Generator:
        return seeded(self.seed, "noise", task.split, task.name)

    def _noise(self, path: Path) -> np.ndarray:
        """A noise clip at the speech's sample rate; each is decoded once and kept as float16 (rounding: -66 dB)."""
        if path not in self.read:
            sound = read_sound(path, self.speech.sample_rate_hz)
            if sound is None or len(sound.data) < self.speech.num_samples:
                raise InputError(f"{path}: holds less than {DURATION_S} s of sound")
            self.read[path] = sound.data.astype(np.float16)
        return self.read[path].astype(np.float64)


def render_sounds(renderer: SoundRenderer, tasks: Sequence[SoundTask], workers: int) -> None:
    """Renders every task whose file is not there yet; the files are the same for any number of `workers` processes."""
    # In the order of the noise, so that (nearly) every noise clip is decoded by one process only.
    tasks = sorted(tasks, key=lambda task: (task.split, renderer.first_noise(task), task.name))
    for split in {task.split for task in tasks}:
        (renderer.media / "sound" / split).mkdir(parents=True, exist_ok=True)
    progress = partial(tqdm, total=len(tasks), desc="sounds", unit="file")
    if workers == 1 or len(tasks) < POOL_FROM:
        for task in progress(tasks):
            renderer(task)
        return
    with closing(in_processes(_render, tasks, workers, 25, _start, (renderer,))) as results:
        for _ in progress(results):
            pass


def render_images(
    images: np.ndarray, training: tuple[int, int], wanted: Sequence[int], num_components: int, media: Path
) -> None:
    """Writes those of the wanted images (n, 28, 28) that are not there yet, on the components of the training ones."""
    (media / "image").mkdir(parents=True, exist_ok=True)
    missing = [number for number in wanted if not image_file(media, number).exists()]
    if not missing:
        return
    degraded = Projection.fit(images[slice(*training)], num_components)(images[missing])
    for number, picture in zip(tqdm(missing, desc="images", unit="file"), degraded, strict=True):
        write_picture(image_file(media, number), picture)


_renderer: SoundRenderer | None = None


def _start(renderer: SoundRenderer) -> None:
    """In a worker: keep what every task needs."""
    global _renderer  # noqa: PLW0603
    _renderer = renderer


def _render(task: SoundTask) -> None:
    assert _renderer is not None
    _renderer(task)
