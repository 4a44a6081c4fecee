"""Waveform -> log-mel spectrogram, always in float32, with masks, and SpecAugment on top.

Frame j stands for [j * hop, (j + 1) * hop) seconds. Its Hann window is centred two fifths of a hop before the middle of
that interval: intervals are half open, so what happens exactly at j * hop belongs to frame j, and a window on the very
middle would see it as strongly in frame j - 1.
"""

from __future__ import annotations

import warnings
from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.types import InputError, Stream

LEAN = 0.4  # of a hop
PITCHES = 10  # steps from the lowest to the plain pitch, and from that to the highest
KNOTS = 4  # where a random filter's gains are drawn
SCALE = 4.0  # puts the logarithm of ordinary sounds near 1


@configclass
class SpecAugmentConfig:
    """Random changes, in training only: bands and stretches of time that are blanked (Park et al. 2019, "SpecAugment",
    section 2), the pitch, and a filter."""

    num_band_masks: Annotated[int, Field(ge=0)] = 0
    """Blocks of mel bands that are blanked in each clip."""
    band_width: Annotated[int, Field(ge=0)] = 8
    """Largest width of such a block, in bands."""
    num_time_masks: Annotated[int, Field(ge=0)] = 0
    """Stretches of time that are blanked in each clip."""
    time_width_s: Annotated[float, Field(ge=0)] = 0.2
    """Longest such stretch, in seconds."""
    pitch: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest share by which all frequencies of a clip are raised or lowered (Jaitly & Hinton 2013, "Vocal tract length
    perturbation", with one factor for all frequencies)."""
    filter_db: Annotated[float, Field(ge=0)] = 0.0
    """Each clip is heard through a random filter: gains of at most so many dB up or down at four bands, evenly spaced
    from the lowest to the highest, and straight lines between them (Nam et al. 2022, "FilterAugment", linear type)."""


@configclass
class LogMelConfig:
    """How sound is turned into a picture."""

    num_mels: Annotated[int, Field(gt=0)] = 64
    """Mel bands."""
    window_s: Annotated[float, Field(gt=0)] = 0.025
    """Length of the Hann window."""
    hop_s: Annotated[float, Field(gt=0)] = 0.0125
    """Time from one frame to the next."""
    min_hz: Annotated[float, Field(ge=0)] = 50.0
    """Lower edge of the lowest band."""
    max_hz: Annotated[float, Field(gt=0)] | None = None
    """Upper edge of the highest band; half the sample rate when not given."""
    floor: Annotated[float, Field(gt=0)] = 1e-7
    """Power (1 = a full-scale square) below which everything counts as silence."""
    normalize: Literal["none", "clip"] = "none"
    """clip: every clip gets mean 0 and deviation 1 over its own real frames, so that its level does not matter."""
    augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    """Random changes in training."""


class LogMel(nn.Module):
    """Waveform stream (B, N) -> log-mel stream (B, T, num_mels) float32 at 1 / hop_s frames a second.

    value = log(1 + power / floor) / 4, so silence, padding and blanked parts are all 0. T = ceil(N / hop). A frame is
    real when at least half of its own hop is; the first frame already when any of it is. Any sample rate will do.
    """

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        if not 0 < config.hop_s <= config.window_s:
            raise InputError(f"logmel.hop_s: must be above 0 and at most window_s, got {config.hop_s}")
        if config.num_mels < 1 or config.floor <= 0:
            raise InputError("logmel: num_mels and floor must be positive")
        self.config = config
        self._tables: dict[tuple[float, torch.device], tuple[Tensor, Tensor]] = {}
        self._pitches: dict[tuple[float, torch.device], Tensor] = {}

    def forward(self, raw: Stream) -> Stream:
        with torch.autocast(raw.data.device.type, enabled=False):
            frames, mask = frame_sound(raw, self.config.hop_s, round(self.config.window_s * raw.rate))
            window, bank = self.tables(raw.rate, raw.data.device)
            spectrum = torch.fft.rfft(frames * window, n=2 * (bank.shape[0] - 1))
            power = spectrum.real.square() + spectrum.imag.square()
            if self.training and self.config.augment.pitch:
                bank = self._transposed(raw.rate, raw.data.device)[torch.randint(2 * PITCHES + 1, (len(power),))]
            mels = power @ bank
            if self.training and self.config.augment.filter_db:
                mels = mels * random_filters(len(mels), mels.shape[2], self.config.augment.filter_db, mels.device)
            stream = Stream(torch.log1p(mels / self.config.floor) / SCALE, mask, 1 / self.config.hop_s)
            if self.config.normalize == "clip":
                stream = normalize_clips(stream)
            if self.training:
                stream = spec_augment(stream, self.config.augment)
            return stream.with_data(stream.zeroed())

    def tables(self, rate: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """The window (summing to 1) and the mel filter bank (frequencies, mels) for this sample rate."""
        if (rate, device) not in self._tables:
            window = torch.hann_window(round(self.config.window_s * rate))
            self._tables[rate, device] = ((window / window.sum()).to(device), self._bank(rate).to(device))
        return self._tables[rate, device]

    def _bank(self, rate: float, factor: float = 1.0) -> Tensor:
        """(frequencies, mels): the filter bank for sounds that are played `factor` times as fast as they are."""
        from torchaudio.functional import melscale_fbanks

        num_freqs = _power_of_two(round(self.config.window_s * rate)) // 2 + 1
        top = min(self.config.max_hz or rate / 2, rate / 2)
        if top <= self.config.min_hz:
            raise InputError(f"logmel.max_hz: {top:g} is not above min_hz {self.config.min_hz:g} at {rate:g} Hz")
        with warnings.catch_warnings():
            if factor != 1:  # a sound that is played slower has nothing to say in the highest bands
                warnings.simplefilter("ignore", UserWarning)
            return melscale_fbanks(num_freqs, self.config.min_hz, top, self.config.num_mels, round(rate * factor),
                                   mel_scale="slaney")  # fmt: skip

    def _transposed(self, rate: float, device: torch.device) -> Tensor:
        """(2 PITCHES + 1, frequencies, mels): the bank for every pitch, from the lowest to the highest."""
        if (rate, device) not in self._pitches:
            shares = [self.config.augment.pitch * step / PITCHES for step in range(-PITCHES, PITCHES + 1)]
            self._pitches[rate, device] = torch.stack([self._bank(rate, 1 + share) for share in shares]).to(device)
        return self._pitches[rate, device]


def frame_sound(raw: Stream, hop_s: float, size: int) -> tuple[Tensor, Tensor]:
    """Overlapping pieces of sound: (B, T, size) float32, masked samples zero, and which of them are real (B, T).

    The hop need not be a whole number of samples.
    """
    if raw.data.ndim != 2:
        raise ValueError(f"a waveform must be (batch, samples), got {tuple(raw.data.shape)}")
    hop = hop_s * raw.rate
    num_frames = max(1, int(torch.tensor(raw.data.shape[1] / hop - 1e-6).ceil()))
    # Halves go up, as in LogMelProducts: rounding to even is not to be had in whole numbers.
    edges = (torch.arange(num_frames + 1, device=raw.data.device, dtype=torch.float64) * hop + 0.5).floor().long()
    centres = ((torch.arange(num_frames, device=raw.data.device, dtype=torch.float64) + 0.5 - LEAN) * hop).round()
    starts = centres.long() - size // 2
    before = max(0, -int(starts[0]))
    after = max(0, int(starts[-1]) + size - raw.data.shape[1])
    sound = nn.functional.pad(raw.zeroed().float(), (before, after))
    mask = _frame_mask(raw.mask, edges, hop)
    if hop == round(hop):  # a view of the sound instead of a copy several times its size
        return sound[:, int(starts[0]) + before :].unfold(1, size, round(hop))[:, :num_frames], mask
    at = (starts + before).unsqueeze(1) + torch.arange(size, device=raw.data.device)
    return sound[:, at], mask


def _frame_mask(mask: Tensor, edges: Tensor, hop: float) -> Tensor:
    counted = nn.functional.pad(mask.cumsum(1, dtype=torch.int32), (1, 0))
    at = edges.clamp(max=mask.shape[1])
    count = counted[:, at[1:]] - counted[:, at[:-1]]
    real = count >= hop / 2
    real[:, 0] |= count[:, 0] > 0
    return real


def normalize_clips(stream: Stream) -> Stream:
    """The stream with mean 0 and deviation 1 over the real cells of each clip; what is not real has no meaning then."""
    weight = stream.mask.unsqueeze(-1)
    num = (weight.sum((1, 2), keepdim=True) * stream.data.shape[-1]).clamp(min=1)
    mean = (stream.data * weight).sum((1, 2), keepdim=True) / num
    variance = ((stream.data - mean).square() * weight).sum((1, 2), keepdim=True) / num
    return stream.with_data((stream.data - mean) / (variance + 1e-4).sqrt())


def spec_augment(stream: Stream, config: SpecAugmentConfig) -> Stream:
    """The stream with random blocks of bands and stretches of each clip's real time set to 0."""
    data = stream.data
    bands = data.shape[2]
    whole = torch.full((data.shape[0],), bands, device=data.device)
    for _ in range(config.num_band_masks):
        data = data.masked_fill(_random_block(whole, bands, config.band_width).unsqueeze(1), 0.0)
    for _ in range(config.num_time_masks):
        widest = round(config.time_width_s * stream.rate)
        data = data.masked_fill(_random_block(stream.lengths, data.shape[1], widest).unsqueeze(2), 0.0)
    return stream.with_data(data)


def random_filters(num: int, bands: int, most_db: float, device: torch.device) -> Tensor:
    """(num, 1, bands): factors on the power of each band, for as many clips; `SpecAugmentConfig.filter_db` says how."""
    knots = (2 * torch.rand(num, 1, KNOTS, device=device) - 1) * most_db
    return 10 ** (nn.functional.interpolate(knots, size=bands, mode="linear", align_corners=True) / 10)


def _random_block(lengths: Tensor, size: int, widest: int) -> Tensor:
    """(B, size) bool: one block of random width 0..widest at a random place inside each row's first `lengths`.

    At most half of them, as the bound p of Park et al. 2019 sees to: a block never hides a whole short clip.
    """
    draw = torch.rand(2, len(lengths), device=lengths.device)
    width = torch.minimum((draw[0] * (widest + 1)).long(), lengths // 2)
    start = (draw[1] * (lengths - width + 1)).long()
    place = torch.arange(size, device=lengths.device)
    return (place >= start.unsqueeze(1)) & (place < (start + width).unsqueeze(1))


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()


def frames_per_step(hop_s: float, rate: float, name: str) -> int:
    """How many frames make one step; InputError when it is not a whole number."""
    num = 1 / (hop_s * rate) if rate > 0 else 0.0
    if num < 1 - 1e-6 or abs(num - round(num)) > 1e-6:
        frames = 1 / hop_s
        valid = [f"{frames / n:g}" for n in range(1, int(frames) + 1) if frames / n == round(frames / n)]
        raise InputError(f"{name}: {rate:g} steps a second do not divide {frames:g} frames; {', '.join(valid)} do")
    return round(num)
