"""Random changes to a clip in training: crop, flip, time shift, roll, speed, gain, noise, and hidden modalities.

What is drawn depends on (seed, epoch, clip id, turn) only, the turn being how often the clip came before in the epoch,
so the result is the same with any number of loader processes.
All frames of a clip are cropped and flipped alike; all inputs of a clip are shifted by the same time, so that they stay
in step. SpecAugment acts on the log-mel and lives in the audio encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.blend import BlendConfig
from mmfusion.data.raw import Raw
from mmfusion.data.retiming import Retiming, change_speed, cut, duration, roll, shift, slowest_rate


@configclass
class AugmentConfig:
    """Random changes in training; all are off by default."""

    crop: float = Field(default=0.0, ge=0, lt=1)
    """largest part of the frames' height and width that is cut away at a random place before resizing back"""
    flip: float = Field(default=0.0, ge=0, le=1)
    """probability of mirroring the frames left to right"""
    shift_s: float = Field(default=0.0, ge=0)
    """largest time by which a clip starts later or earlier, all inputs alike; what moves out is lost"""
    gain_db: tuple[float, float] | None = None
    """lowest and highest gain of the sound, in dB"""
    noise_snr_db: tuple[float, float] | None = None
    """lowest and highest signal-to-noise ratio of white noise added to the sound, in dB"""
    speed: tuple[Annotated[float, Field(ge=0.25, le=4)], Annotated[float, Field(ge=0.25, le=4)]] | None = None
    """slowest and fastest speed at which the sound is played, pitch and all; only where sound is all there is"""
    roll: bool = False
    """turn the clip round by a random time: what moves out at the end comes in at the start"""
    stretch_s: float | None = Field(default=None, gt=0)
    """length of the stretch, at a random place, that is shown of each clip; null shows all of it"""
    blend: BlendConfig = BlendConfig()
    """clips mixed with others"""

    @property
    def is_on(self) -> bool:
        """Whether anything is changed in a clip by itself; `blend` is another matter."""
        return self != AugmentConfig(blend=self.blend)


def generator(seed: int, epoch: int, clip_id: str, purpose: str) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments: the same in every process and on every machine."""
    digest = hashlib.blake2b(f"{seed}\0{epoch}\0{purpose}\0{clip_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def augment(
    inputs: Mapping[str, Raw], config: AugmentConfig, rng: np.random.Generator
) -> tuple[dict[str, Raw], Retiming]:
    """The changed inputs of one clip, and what became of its clock.

    A raw input is frames when its data is (T, 3, H, W), a waveform when it is (N,), features when it is (T, F).
    """
    changed, moved = _change_clock(inputs, config, rng)
    for name in sorted(changed):
        raw = changed[name]
        if raw.data.ndim == 4:
            changed[name] = raw.with_data(_change_frames(raw.data, config, rng))
        elif raw.data.ndim == 1:
            changed[name] = raw.with_data(_change_sound(raw.data, raw.mask, config, rng))
    return changed, moved


def _change_clock(inputs: Mapping[str, Raw], config: AugmentConfig, rng: np.random.Generator
                  ) -> tuple[dict[str, Raw], Retiming]:  # fmt: skip
    """Times are whole steps of the slowest input, so that all inputs move alike."""
    changed, moved = dict(inputs), Retiming()
    if config.speed is not None:
        speed = round(rng.uniform(*config.speed), 2)
        changed = {name: change_speed(raw, speed) for name, raw in changed.items()}
        moved = replace(moved, speed=speed)
    rate = slowest_rate(changed)
    if rate is None:
        return changed, moved
    if config.roll:
        length_s = duration(changed)
        moved = replace(moved, roll_s=float(rng.integers(round(length_s * rate))) / rate, duration_s=length_s)
        changed = {name: roll(raw, moved.roll_s, length_s) for name, raw in changed.items()}
    if config.stretch_s is not None:
        spare = max(0, int((duration(changed) - config.stretch_s) * rate + 1e-9))
        start_s = float(rng.integers(spare + 1)) / rate
        changed = {name: cut(raw, start_s, config.stretch_s) for name, raw in changed.items()}
        moved = replace(moved, shift_s=-start_s)
    if config.shift_s:
        most = int(config.shift_s * rate + 1e-9)
        shift_s = float(rng.integers(-most, most + 1)) / rate
        changed = {name: shift(raw, shift_s) for name, raw in changed.items()}
        moved = replace(moved, shift_s=moved.shift_s + shift_s)
    return changed, moved


def _change_frames(frames: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    if config.crop:
        scale, top, left = 1 - rng.uniform(0, config.crop), rng.uniform(), rng.uniform()
        frames = crop_frames(frames, scale, top, left)
    if config.flip and rng.uniform() < config.flip:
        frames = frames[..., ::-1]
    return frames


def crop_frames(frames: np.ndarray, scale: float, top: float, left: float) -> np.ndarray:
    """Frames (T, 3, H, W) uint8 cut to `scale` of their height and width, and resized back (bilinear, antialiased).

    `top` and `left` in [0, 1] place the cut: 0 at the upper or left border, 1 at the lower or right one.
    """
    import torch

    height, width = frames.shape[2:]
    cut_height, cut_width = max(1, round(height * scale)), max(1, round(width * scale))
    if (cut_height, cut_width) == (height, width):
        return frames
    y, x = round(top * (height - cut_height)), round(left * (width - cut_width))
    cut = torch.from_numpy(frames[:, :, y : y + cut_height, x : x + cut_width].astype(np.float32))
    resized = torch.nn.functional.interpolate(cut, (height, width), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).numpy()


def _change_sound(sound: np.ndarray, mask: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    if config.gain_db is not None:
        sound = sound * np.float32(10 ** (rng.uniform(*config.gain_db) / 20))
    if config.noise_snr_db is not None:
        sound = add_noise(sound, mask, rng.uniform(*config.noise_snr_db), rng)
    return sound


def add_noise(sound: np.ndarray, mask: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Sound (N,) plus white Gaussian noise at `snr_db` below the power of what is real; silence stays silent."""
    power = float(np.mean(np.square(sound[mask], dtype=np.float64))) if mask.any() else 0.0
    noise = rng.standard_normal(len(sound), dtype=np.float32)
    noise *= np.float32(np.sqrt(power * 10 ** (-snr_db / 10)))
    return sound + np.where(mask, noise, np.float32(0))


def drop_modalities(
    inputs: Mapping[str, Raw], probabilities: Mapping[str, float], rng: np.random.Generator
) -> dict[str, Raw]:
    """The inputs of one clip without those that are hidden; when all would be hidden, one at random is kept."""
    names = sorted(inputs)
    kept = [name for name in names if not rng.uniform() < probabilities.get(name, 0.0)]
    if not kept and names:
        kept = [names[rng.integers(len(names))]]
    return {name: inputs[name] for name in kept}
