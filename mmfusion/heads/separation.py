"""Separation heads: a mixture -> the signals that it is the sum of, by masks on its spectra or by a Conv-TasNet."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.heads.separation_losses import (
    Consistency,
    SeparationLossConfig,
    added_up,
    check_mixit,
    consistent,
    separation_loss,
)
from mmfusion.spectrum import StftConfig, to_sound, to_spectra
from mmfusion.types import InputError, Separated, Stream, Targets

MaskKind = Literal["sigmoid", "softmax", "relu", "complex"]


@configclass
class MaskConfig:
    """Settings of a `MaskHead`."""

    kind: Literal["mask"] = "mask"
    input: str = "audio"
    """Which input of the data is the mixture."""
    num_outputs: Annotated[int, Field(ge=1)] | None = None
    """Signals that come out; as many as the mixtures have sources when not given."""
    mask: MaskKind = "sigmoid"
    """What every point of a spectrum is multiplied by: sigmoid in [0, 1]; softmax: the same, and the sources' masks sum
    to 1; relu from 0 up; complex: any complex number, so that the phase changes too."""
    hidden: Annotated[int, Field(gt=0)] | None = None
    """Units of a ReLU layer before the masks; None for a linear layer."""
    by_class: bool = False
    """A mask for every class of the data, learnt from the sources' labels; out come the classes that cover a mixture
    best (heads/class_masks.py). Needs `mask: softmax`; of `loss` it takes `measure` and `max_db`."""
    class_weight: Annotated[float, Field(ge=0)] = 3.0
    """With `by_class`: dB that count as much as losing a nat of the mixture to classes that are not in it."""
    by_bin: bool = False
    """One small layer that all frequencies share, for a stream whose features are so many numbers for each frequency
    (the unet's); otherwise every feature reaches every frequency."""
    stft: StftConfig = field(default_factory=StftConfig)
    """The spectra that are masked."""
    consistency: Consistency = "equal"
    """How the signals are made to sum to the mixture: what is missing goes to all alike (equal) or by their power
    (energy); none leaves them as they are."""
    loss: SeparationLossConfig = field(default_factory=SeparationLossConfig)
    """What it is trained by."""
    loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this head in the model's loss; applied by the model."""

    @model_validator(mode="after")
    def _by_class_fits(self) -> Any:
        if self.by_class and self.mask != "softmax":
            raise ValueError(
                f"by_class shares every point out among the classes: it needs mask softmax, not {self.mask}"
            )
        if self.by_class and self.loss.objective == "mixit":
            raise ValueError("by_class learns from the classes of single sources, and mixit knows of none")
        return self


@configclass
class ConvTasNetConfig:
    """Settings of a `ConvTasNetHead`; the published network's are given in brackets."""

    kind: Literal["conv_tasnet"] = "conv_tasnet"
    input: str = "audio"
    """Which input of the data is the mixture."""
    num_outputs: Annotated[int, Field(ge=1)] | None = None
    """Signals that come out; as many as the mixtures have sources when not given."""
    conditioned: bool = False
    """Let the model's stream modulate what the network sees; false leaves the stream out."""
    filters: Annotated[int, Field(gt=0)] = 256
    """Filters of the learnt transform (512)."""
    num_taps: Annotated[int, Field(ge=2)] = 32
    """Samples of a filter, moved on by half of them (16)."""
    width: Annotated[int, Field(gt=0)] = 128
    """Channels between the blocks (128)."""
    hidden: Annotated[int, Field(gt=0)] = 256
    """Channels inside a block (512)."""
    layers: Annotated[int, Field(gt=0)] = 8
    """Blocks of a stack, with dilations 1, 2, 4, ... (8)."""
    stacks: Annotated[int, Field(gt=0)] = 3
    """Stacks (3)."""
    mask: Literal["sigmoid", "relu"] = "relu"
    """Range of the masks on the filters."""
    consistency: Consistency = "equal"
    """How the signals are made to sum to the mixture, as of the mask head."""
    loss: SeparationLossConfig = field(default_factory=SeparationLossConfig)
    """What it is trained by."""
    loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this head in the model's loss; applied by the model."""


SeparationConfig = MaskConfig | ConvTasNetConfig


class _Separation(nn.Module):
    """What all heads share: how many signals come out, that they sum to the mixture, and their loss."""

    def __init__(self, config: SeparationConfig, num_sources: int) -> None:
        super().__init__()
        self.num_outputs = config.num_outputs or num_sources
        if self.num_outputs < num_sources:
            raise InputError(f"num_outputs: {self.num_outputs} is fewer than the {num_sources} sources of a mixture")
        if config.loss.objective == "mixit":
            check_mixit(self.num_outputs, num_sources)
        self.reads, self.objective = config.input, config.loss
        self.consistency: Consistency = config.consistency

    def told_loss(self, output: Separated, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of the clips of a batch, and figures; see `separation_loss`. Zero without sources."""
        if targets.sources is None:
            return 0.0 * output.sources.float().sum(), {}
        return separation_loss(self.objective, output.sources, targets.sources, known_of(targets.sources, targets))

    def as_sources(self, output: Separated, targets: Targets) -> Separated:
        """What is compared with the sources of a batch to score it: the output as it is, but for mixit.

        Outputs that learnt to add up to the sources are parts of them. Where there are more of them than sources they
        are added up, in float64, each to one source, so that the mean SI-SDR is the highest (`added_up`).
        """
        sources = targets.sources
        if sources is None or self.objective.objective != "mixit" or self.num_outputs <= sources.shape[1]:
            return output
        sums = added_up(output.sources.double(), sources.double(), known_of(sources, targets), "si_sdr")
        return Separated(sums.float(), output.mask)

    def _finished(self, estimates: Tensor, mixture: Stream) -> Separated:
        """Raw estimates (B, S, N) made to sum to the mixture, float32, zero where there is no sound."""
        with torch.autocast(estimates.device.type, enabled=False):
            heard = estimates.float().masked_fill(~mixture.mask[:, None], 0)
            return Separated(consistent(heard, mixture.zeroed().float(), self.consistency), mixture.mask)


def known_of(sources: Tensor, targets: Targets) -> Tensor:
    """(B, S) which of the sources are there and heard; all where nothing is said."""
    if targets.source_mask is None:
        return torch.ones(sources.shape[:2], dtype=torch.bool, device=sources.device)
    return targets.source_mask


class MaskHead(_Separation):
    """Masks on the mixture's complex spectra: e_s = inverse STFT (M_s X), M (B, T, S, bins) from the stream's features.

    The stream may have any rate: a spectrum is masked by the step in which its middle lies. STFT, masks and the way
    back are float32, also under autocast. `width` is the stream's number of features a step; there are as many masks as
    signals come out, or `num_masks`. InputError when `by_bin` does not fit it.
    """

    def __init__(self, config: MaskConfig, width: int, num_sources: int, num_masks: int | None = None) -> None:
        super().__init__(config, num_sources)
        self.stft, self.mask, self.by_bin = config.stft, config.mask, config.by_bin
        bins = config.stft.num_bins
        if config.by_bin and width % bins:
            raise InputError(f"by_bin: {width} features are not so many for each of {bins} frequencies")
        parts = 2 if config.mask == "complex" else 1
        self.shape = (num_masks or self.num_outputs, parts)
        width, out = (width // bins, 1) if config.by_bin else (width, bins)
        layers: list[nn.Module] = []
        if config.hidden is not None:
            layers, width = [nn.Linear(width, config.hidden), nn.ReLU()], config.hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.shape[0] * parts * out))

    def forward(self, stream: Stream, mixture: Stream) -> Separated:
        spectra = to_spectra(mixture, self.stft)
        masks = self._masks(steps_at(stream, spectra.rate, spectra.mask.shape[1]))
        return self._finished(self._sounds(masks, spectra, mixture.mask.shape[1]), mixture)

    def _sounds(self, masks: Tensor, spectra: Stream, num_samples: int) -> Tensor:
        """Masks (B, S, T, bins) on the spectra -> (B, S, num_samples)."""
        with torch.autocast(masks.device.type, enabled=False):
            return to_sound(masks * spectra.data[:, None], self.stft, num_samples, spectra.mask[:, None])

    def _logits(self, steps: Tensor) -> Tensor:
        """Features (B, T, F) -> (B, S, T, bins) in float32, complex where the masks are."""
        if self.by_bin:
            said = self.layers(steps.unflatten(-1, (-1, self.stft.num_bins)).transpose(2, 3)).float()
            said = said.unflatten(-1, self.shape).permute(0, 3, 4, 1, 2)
        else:
            said = self.layers(steps).float().unflatten(-1, (*self.shape, -1)).permute(0, 2, 3, 1, 4)
        if self.mask == "complex":
            return torch.complex(said[:, :, 0], said[:, :, 1])
        return said[:, :, 0]

    def _masks(self, steps: Tensor) -> Tensor:
        """Features (B, T, F) -> masks (B, S, T, bins) in float32, complex where they are."""
        said = self._logits(steps)
        if self.mask == "complex":
            return said
        if self.mask == "softmax":
            return said.softmax(1)
        return said.relu() if self.mask == "relu" else said.sigmoid()


class ConvTasNetHead(_Separation):
    """Conv-TasNet (Luo & Mesgarani 2019) on the mixture itself, torchaudio's; modulated by the stream when asked to.

    Its global norms look at a whole clip, so clips of different lengths are separated one length at a time and padding
    changes nothing. Conditioning is feature-wise modulation (Perez et al. 2018) of what the mask network sees,
    y (1 + G h) + B h with the stream's step h at the filter's middle; G and B begin at 0. The transform and its inverse
    are float32, also under autocast.
    """

    def __init__(self, config: ConvTasNetConfig, width: int, num_sources: int) -> None:
        super().__init__(config, num_sources)
        from torchaudio.models import ConvTasNet

        self.network = ConvTasNet(
            self.num_outputs, config.num_taps, config.filters, 3, config.width, config.hidden, config.layers,
            config.stacks, config.mask,
        )  # fmt: skip
        self.modulate = None
        if config.conditioned:
            self.modulate = nn.Linear(width, 2 * config.filters)
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, stream: Stream, mixture: Stream) -> Separated:
        sound = mixture.zeroed().float()
        lengths = mixture.lengths.tolist()
        estimates = sound.new_zeros(len(sound), self.num_outputs, sound.shape[1])
        for length in sorted(set(lengths) - {0}):
            rows = torch.tensor([row for row, own in enumerate(lengths) if own == length], device=sound.device)
            own = Stream(stream.data[rows], stream.mask[rows], stream.rate)
            found = self._separated(sound[rows, :length], own, mixture.rate)
            estimates = estimates.index_copy(0, rows, nn.functional.pad(found, (0, sound.shape[1] - length)))
        return self._finished(estimates, mixture)

    def _separated(self, sound: Tensor, stream: Stream, rate: float) -> Tensor:
        """(B, N) of one length -> (B, S, N)."""
        network, num_samples = self.network, sound.shape[1]
        padded, _ = network._align_num_frames_with_strides(sound[:, None])
        with torch.autocast(sound.device.type, enabled=False):
            seen = network.encoder(padded)
        modulated = seen
        if self.modulate is not None:
            steps = steps_at(stream, rate / network.enc_stride, seen.shape[2])
            gain, bias = self.modulate(steps).transpose(1, 2).chunk(2, dim=1)
            modulated = seen * (1 + gain) + bias
        masks = network.mask_generator(modulated)
        with torch.autocast(sound.device.type, enabled=False):
            masked = (masks.float() * seen[:, None]).flatten(0, 1)
            return network.decoder(masked).unflatten(0, (len(sound), -1))[:, :, 0, :num_samples]


def steps_at(stream: Stream, rate: float, num: int) -> Tensor:
    """(B, num, F): the stream's step in which the middle of each of `num` frames at `rate` lies; zero past its end."""
    data = stream.zeroed()
    if stream.rate == rate and data.shape[1] == num:
        return data
    middles = (torch.arange(num, dtype=torch.float64) + 0.5) * (stream.rate / rate)
    at = middles.long().to(data.device)
    past = (at >= data.shape[1])[:, None]
    return data[:, at.clamp(max=data.shape[1] - 1)].masked_fill(past, 0)
