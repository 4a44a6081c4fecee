"""Sound as overlapping spectra, and spectra as sound: what encoders read and mask heads change. Always in float32.

Frame j of T = ceil(N / hop) stands for the samples [j hop, (j + 1) hop); its periodic Hann window w is centred on their
middle. Going back is the least-squares inverse (Griffin & Lim 1984, equation 6):

    y[n] = sum_j w[n - o_j] ifft(Y_j)[n - o_j] / sum_j w[n - o_j]^2

which gives the sound back exactly when the spectra are its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from mmfusion.config import configclass
from mmfusion.types import InputError, Stream

_WHOLE = 1e-6
_FAINT = 1e-8


@configclass
class StftConfig:
    """Which spectra; windows of 512 samples every 128 by default."""

    sample_rate_hz: Annotated[int, Field(ge=1000)] = 16000
    """Sample rate of the sound."""
    window_s: Annotated[float, Field(gt=0)] = 0.032
    """Length of the Hann window; a whole number of hops, at least two."""
    hop_s: Annotated[float, Field(gt=0)] = 0.008
    """Time from one spectrum to the next; a whole number of samples."""

    def __post_init__(self) -> None:
        overlap, hop = self.window_s / self.hop_s, self.hop_s * self.sample_rate_hz
        if overlap < 2 - _WHOLE or abs(overlap - round(overlap)) > _WHOLE:
            raise ValueError(f"window_s must be 2, 3, ... times hop_s, and is {overlap:g} times")
        if round(hop) < 1 or abs(hop - round(hop)) > _WHOLE * hop:
            raise ValueError(f"hop_s must be a whole number of samples, and is {hop:g} at {self.sample_rate_hz} Hz")

    @property
    def hop(self) -> int:
        """Samples from one spectrum to the next."""
        return round(self.hop_s * self.sample_rate_hz)

    @property
    def size(self) -> int:
        """Samples of a window."""
        return round(self.window_s / self.hop_s) * self.hop

    @property
    def num_bins(self) -> int:
        """Frequencies of a spectrum, from 0 to half the sample rate."""
        return self.size // 2 + 1

    @property
    def rate(self) -> float:
        """Spectra a second."""
        return self.sample_rate_hz / self.hop

    @property
    def reach(self) -> int:
        """Hops to either side of its own that a window reaches into."""
        return -(-(self.size - self.hop) // (2 * self.hop))


def to_spectra(raw: Stream, config: StftConfig) -> Stream:
    """Waveform (B, N) -> complex spectra (B, T, bins); a frame is real when any sample of its hop is.

    InputError when the sound comes at another sample rate.
    """
    if raw.data.ndim != 2:
        raise ValueError(f"a waveform must be (batch, samples), got {tuple(raw.data.shape)}")
    if raw.rate != config.sample_rate_hz:
        raise InputError(f"stft.sample_rate_hz: is {config.sample_rate_hz}, and the sound comes at {raw.rate:g} Hz")
    num = -(-raw.mask.shape[1] // config.hop)
    before, after = _edges(config, num, raw.mask.shape[1])
    with torch.autocast(raw.data.device.type, enabled=False):
        frames = pad(raw.zeroed().float(), (before, after)).unfold(1, config.size, config.hop)
        spectra = torch.fft.rfft(frames * _window(config.size, raw.data.device))
    mask = pad(raw.mask, (0, num * config.hop - raw.mask.shape[1])).unflatten(1, (num, config.hop)).any(2)
    return Stream(spectra, mask, config.rate)


def to_sound(spectra: Tensor, config: StftConfig, num_samples: int, real: Tensor | None = None) -> Tensor:
    """Complex spectra (..., T, bins) -> float32 waveforms (..., num_samples); T = ceil(num_samples / hop).

    Frames that are not `real` (bool, fits (..., T)) have no part in it, and where no other reaches there is silence.
    """
    num = spectra.shape[-2]
    window = _window(config.size, spectra.device)
    with torch.autocast(spectra.device.type, enabled=False):
        frames, weights = torch.fft.irfft(spectra, n=config.size) * window, (window * window).expand(num, -1)
        if real is not None and not real.all():
            frames, weights = frames * real[..., None], weights * real[..., None]
        total, weight = _added(frames, config.hop), _added(weights, config.hop)
        before = _edges(config, num, num_samples)[0]
        # Where a window is nearly 0 and no other reaches, nothing can be told.
        weight = weight[..., before : before + num_samples]
        return total[..., before : before + num_samples] / weight.masked_fill(weight < _FAINT, 1)


def _edges(config: StftConfig, num: int, num_samples: int) -> tuple[int, int]:
    """Zeros before and after the sound, so that `num` windows lie around the middles of their hops."""
    before = (config.size - config.hop) // 2
    return before, (num - 1) * config.hop + config.size - before - num_samples


def _added(frames: Tensor, hop: int) -> Tensor:
    """Frames (..., T, size), each `hop` samples behind the one before, added up: (..., (T - 1) hop + size)."""
    pieces = frames.unflatten(-1, (-1, hop))
    num = pieces.shape[-2]
    total = sum(pad(pieces[..., place, :], (0, 0, place, num - 1 - place)) for place in range(num))
    assert isinstance(total, Tensor)
    return total.flatten(-2)


@lru_cache(maxsize=16)
def _window(size: int, device: torch.device) -> Tensor:
    # A cached tensor born in inference mode could never be used in training afterwards.
    with torch.inference_mode(False), torch.no_grad():
        return torch.hann_window(size, device=device)
