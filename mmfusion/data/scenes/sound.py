"""How each event sounds, one function a class, and the sound of a clip.

Each function gives the samples of one event from its start to its end at the level it happens to have; `make_sound`
brings them to the level of the plan. Blows fall on whole numbers of `event.beats`, where the picture shows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mmfusion.data.scenes.plan import Event, ScenePlan, SyntheticConfig

_NOISE_DB = (-58.0, -44.0)
_FADE_S = 0.03
_LOUDEST_PEAK = 0.6


def make_sound(plan: ScenePlan, config: SyntheticConfig) -> np.ndarray:
    """float32 (N,) in [-1, 1]: the heard events at their levels on a quiet, coloured noise."""
    rate = config.sample_rate_hz
    rng = np.random.default_rng((*plan.seed, 2))
    num_samples = round(config.duration_s * rate)
    slope = rng.uniform(0, 1)
    noise = _shaped_noise(rng, num_samples, rate, lambda f: 1 / np.maximum(f, 40.0) ** slope)
    sound = noise * 10 ** (rng.uniform(*_NOISE_DB) / 20)
    for event in plan.events:
        if event.heard:
            start = round(event.start_s * rate)
            samples = sound_event(event, rate)
            sound[start : start + len(samples)] += samples[: num_samples - start]
    return (sound / max(1.0, np.abs(sound).max() / 0.98)).astype(np.float32)


def sound_event(event: Event, rate: int) -> np.ndarray:
    """float32 (N,): one event from start to end at `level_db` (of its louder parts), faded at both ends."""
    rng = np.random.default_rng(event.seed)
    time_s = np.arange(round((event.end_s - event.start_s) * rate), dtype=np.float32) / rate
    samples = SOUND[event.label](event, time_s, rate, rng).astype(np.float32)
    samples *= np.minimum(1.0, np.minimum(time_s, time_s[::-1]) / _FADE_S + 0.02)
    frame = rate // 20
    loudness = np.sqrt((samples[: len(samples) // frame * frame].reshape(-1, frame) ** 2).mean(1))
    gain = 10 ** (event.level_db / 20) / max(float(np.quantile(loudness, 0.8)), 1e-6)
    return samples * min(gain, _LOUDEST_PEAK / max(float(np.abs(samples).max()), 1e-6))


def _shaped_noise(rng: np.random.Generator, num_samples: int, rate: int, gain: Callable) -> np.ndarray:
    """Noise of RMS 1 whose spectrum is `gain` of the frequency in Hz."""
    # The transform is slow for lengths with large prime factors.
    padded = -(-num_samples // 2048) * 2048
    spectrum = np.fft.rfft(rng.standard_normal(padded, dtype=np.float32))
    noise = np.fft.irfft(spectrum * gain(np.fft.rfftfreq(padded, 1 / rate)), padded)[:num_samples]
    return (noise / max(float(np.sqrt((noise**2).mean())), 1e-9)).astype(np.float32)


def _band_noise(rng: np.random.Generator, num_samples: int, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Noise of RMS 1 between two frequencies, with soft edges."""
    return _shaped_noise(
        rng, num_samples, rate, lambda f: 1 / np.sqrt(1 + (low_hz / np.maximum(f, 1)) ** 6 + (f / high_hz) ** 6)
    )


def _blows(event: Event, time_s: np.ndarray, rate: int, blow: np.ndarray, every: int = 1) -> np.ndarray:
    """The sound of one blow repeated at every whole beat, or at every second, third ... of them."""
    sound = np.zeros(len(time_s), np.float32)
    period = event.period_s * rate
    for beat in range(0, math.ceil(len(sound) / period), every):
        start = round(beat * period)
        part = blow[: len(sound) - start]
        sound[start : start + len(part)] += part
    return sound


def _clock_of(length_s: float, rate: int) -> np.ndarray:
    return np.arange(round(length_s * rate), dtype=np.float32) / rate


def _sines(time_s: np.ndarray, *partials: tuple[float, float, float]) -> np.ndarray:
    """The sum of decaying sines (frequency in Hz, amplitude, decay time in seconds)."""
    return sum(a * np.exp(-time_s / decay) * np.sin(2 * np.pi * f * time_s) for f, a, decay in partials)  # type: ignore[return-value]


def _glide(frequency_hz: np.ndarray, rate: int) -> np.ndarray:
    """The phase in radians of a tone that follows a frequency curve."""
    return 2 * np.pi * np.cumsum(frequency_hz) / rate


def _ball(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = _clock_of(0.3, rate)
    phase = _glide(event.pitch_ratio * (240 + 260 * np.exp(-t / 0.04)), rate)
    blow = np.exp(-t / 0.08) * (np.sin(phase) + 0.4 * np.sin(2 * phase))
    return _blows(event, time_s, rate, blow)


def _bell(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    f = 700 * event.pitch_ratio
    t = _clock_of(1.2, rate)
    ratios = ((0.5, 0.5, 0.7), (1, 1, 0.5), (1.19, 0.6, 0.4), (2, 0.8, 0.35), (2.74, 0.6, 0.25), (3.76, 0.5, 0.15))
    return _blows(event, time_s, rate, _sines(t, *((f * r, a, d) for r, a, d in ratios)))


def _bird(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = _clock_of(0.11, rate)
    chirp = np.sin(np.pi * t / 0.11) * np.sin(_glide(event.pitch_ratio * (2900 + 1900 * t / 0.11), rate))
    pause = np.zeros(round(0.04 * rate), np.float32)
    return _blows(event, time_s, rate, np.concatenate([chirp, pause, 0.8 * chirp]))


def _car(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    progress = time_s / time_s[-1]
    # The pitch falls as the car goes by, in the middle of its way.
    phase = _glide(
        event.pitch_ratio * (0.8 + 0.5 * event.speed) * 90 * (1 - 0.14 * np.tanh(9 * (progress - 0.5))), rate
    )
    engine = sum(np.sin(k * phase) / k**0.7 for k in range(1, 11))
    tyres = _band_noise(rng, len(time_s), rate, 250, 1100)
    return (0.25 + np.sin(np.pi * progress) ** 2) * (engine + 0.5 * tyres)


def _clock(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = _clock_of(0.05, rate)
    f = event.pitch_ratio
    tick = _sines(t, (2300 * f, 1, 0.006), (4100 * f, 0.9, 0.004), (5300 * f, 0.6, 0.003))
    return _blows(event, time_s, rate, tick)


def _drum(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = _clock_of(0.3, rate)
    skin = np.exp(-t / 0.09) * np.sin(_glide(event.pitch_ratio * (75 + 110 * np.exp(-t / 0.02)), rate))
    snare = np.exp(-t / 0.06) * _band_noise(rng, len(t), rate, 900, 6000)
    return _blows(event, time_s, rate, skin + 0.35 * snare)


def _fire(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    # Crackles come at random, more of them when the event is fast; each is a click of a few milliseconds.
    clicks = (rng.random(len(time_s)) < (18 + 20 * event.speed) / rate) * rng.pareto(2.5, len(time_s)).clip(0.15, 3)
    t = _clock_of(0.012, rate)
    crackle = np.exp(-t / 0.002) * rng.standard_normal(len(t))
    roar = _band_noise(rng, len(time_s), rate, 60, 320 * event.pitch_ratio)
    return np.convolve(clicks, crackle)[: len(time_s)] + 0.12 * roar


def _helicopter(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    chop = (0.5 + 0.5 * np.cos(2 * np.pi * time_s / event.period_s)) ** 3
    body = _band_noise(rng, len(time_s), rate, 70, 900 * event.pitch_ratio)
    turbine = np.sin(2 * np.pi * 1500 * event.pitch_ratio * time_s)
    return (0.1 + chop) * body + 0.12 * turbine


def _rain(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    hiss = _band_noise(rng, len(time_s), rate, 2200 * event.pitch_ratio, 7500)
    drops = 1 + 0.4 * (rng.random(len(time_s) // 64 + 1).repeat(64)[: len(time_s)] < 0.1)
    return hiss * drops


def _siren(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    wail = 0.5 - 0.5 * np.cos(2 * np.pi * time_s / event.period_s)
    phase = _glide(event.pitch_ratio * (650 + 800 * wail), rate)
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)


def _train(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = _clock_of(0.2, rate)
    puff = np.exp(-t / 0.05) * _band_noise(rng, len(t), rate, 300, 2000)
    chuffs = _blows(event, time_s, rate, puff) + 0.8 * _blows(event, time_s, rate, puff, every=4)
    # Half a second of whistle, a chord, as the train comes.
    whistle = sum(np.sin(2 * np.pi * f * event.pitch_ratio * time_s) for f in (440, 554, 660)) * (time_s < 0.6)
    return chuffs + 0.35 * whistle


def _waves(event: Event, time_s: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * time_s / event.period_s)) ** 1.5
    return (0.08 + swell) * _band_noise(rng, len(time_s), rate, 120, 1300 * event.pitch_ratio)


SOUND: dict[str, Callable[[Event, np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "ball": _ball,
    "bell": _bell,
    "bird": _bird,
    "car": _car,
    "clock": _clock,
    "drum": _drum,
    "fire": _fire,
    "helicopter": _helicopter,
    "rain": _rain,
    "siren": _siren,
    "train": _train,
    "waves": _waves,
}
