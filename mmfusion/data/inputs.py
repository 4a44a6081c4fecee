"""What to read of each clip, and how a data set is used: the configuration of the data part.

`DataConfig.inputs` maps the name of an input stream to the way in which it is read; a further stream is one more block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mmfusion.config import configclass
from mmfusion.data.augment import AugmentConfig
from mmfusion.data.mixtures.recipes import MixtureConfig

Probability = Annotated[float, Field(ge=0, le=1)]


@configclass
class WaveformInput:
    """Sound: mono float32 samples in [-1, 1]."""

    kind: Literal["waveform"] = "waveform"
    source: str | None = None
    """key of the manifest's `media` to read; null reads the key that is the input's own name"""
    sample_rate_hz: int = Field(default=16000, ge=1000)


@configclass
class FramesInput:
    """Pictures: square uint8 RGB frames at a fixed rate. A still picture is one frame."""

    kind: Literal["frames"] = "frames"
    source: str | None = None
    """key of the manifest's `media` to read; null reads the key that is the input's own name"""
    rate: float = Field(default=4.0, gt=0)
    """frames a second; step k is the frame on display at k/rate seconds"""
    size_px: int = Field(default=64, ge=8)
    """height and width of the frames"""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """how a picture that is not square becomes square"""
    backend: Literal["pyav", "decord"] = "pyav"
    true_frame_rate: float | None = Field(default=None, gt=0)
    """frames a second of the recording, for files whose time stamps are wrong; null believes the files"""


@configclass
class FeaturesInput:
    """Features that were computed before: one vector of F numbers a step, from an .npz file."""

    kind: Literal["features"] = "features"
    source: str | None = None
    """key of the manifest's `media` to read; null reads the key that is the input's own name"""
    rate: float | None = Field(default=None, gt=0)
    """steps a second, whatever the files say, for sets whose clips have each their own; null believes the files"""
    standardize: bool = False
    """subtract the mean and divide by the standard deviation, each feature by its own, over the training split"""
    clip_value: float | None = Field(default=None, gt=0)
    """largest magnitude, after standardizing; what is beyond is set to it"""


InputConfig = Annotated[WaveformInput | FramesInput | FeaturesInput, Field(discriminator="kind")]


@configclass
class DataConfig:
    """A manifest, what is read of its clips, and how they are shown to a model."""

    manifest: str
    """path of the manifest.jsonl"""
    cache: str = "cache"
    """folder of decoded media, shared by all runs and data sets"""
    inputs: dict[str, InputConfig] = Field(min_length=1)
    """input stream name -> what is read"""
    max_duration_s: float = Field(default=10.0, gt=0)
    """only this much from the start of each clip is read"""
    captions_per_clip: int = Field(default=5, ge=1)
    """captions of one clip in a training batch, drawn anew each epoch; a validation loss counts all of them"""
    train_split: str = "train"
    validation_split: str = "val"
    test_split: str = "test"
    legacy_split: bool = False
    """accept a traditional split whose groups (speakers, source videos) overlap; every table then says so"""
    mixture: MixtureConfig | None = None
    """mix clips on the fly, in every split, and show the mixtures in their place; null shows the clips"""
    stored_sources: int = Field(default=0, ge=0, le=100)
    """how many sources each clip is the sum of, whose sounds lie in files (`sources[].media`), as in the sets that
    tools/mix.py writes; 0 for clips that are no such mixtures"""
    augment: AugmentConfig = AugmentConfig()
    modality_dropout: dict[str, Probability] = Field(default_factory=dict)
    """input -> probability of hiding it from a clip in training; one input that the clip has is always left"""
    workers: int = Field(default=0, ge=0)
    """processes that prepare batches; 0 prepares them in the training process"""
    cache_workers: int = Field(default=2, ge=0)
    """processes that decode media; 0 decodes in the calling process"""
    in_memory: bool = False
    """keep decoded media in memory, for sets that fit"""
    retry_failed: bool = False
    """read again the files that could not be read before and have not changed since"""

    @model_validator(mode="after")
    def _names_exist(self) -> Any:
        for name in self.modality_dropout:
            if name not in self.inputs:
                raise ValueError(f"modality_dropout names {name!r}, which is none of the inputs {sorted(self.inputs)}")
        return self

    @model_validator(mode="after")
    def _sound_alone(self) -> Any:
        wanted = {"augment.speed": self.augment.speed is not None, "augment.blend": self.augment.blend.is_on}
        for name, way in self.inputs.items():
            for setting, is_on in wanted.items() if not isinstance(way, WaveformInput) else ():
                if is_on:
                    raise ValueError(f"{setting} changes sound only, and inputs.{name} is no waveform")
        return self

    @model_validator(mode="after")
    def _mixtures_are_heard(self) -> Any:
        if not self.num_sources:
            return self
        if self.mixture is not None and self.stored_sources:
            raise ValueError("stored_sources are those of mixtures in files, and mixture makes others on the fly")
        setting = "stored_sources" if self.mixture is None else "mixture"
        waveforms = [name for name, way in self.inputs.items() if isinstance(way, WaveformInput)]
        if waveforms != ["audio"]:
            raise ValueError(f"{setting} needs 'audio' as the only waveform of the inputs, not {waveforms or 'none'}")
        if "audio" in self.modality_dropout:
            raise ValueError("modality_dropout hides 'audio', and a mixture is nothing but sound")
        # What changes the sound alone would part it from its sources; crops and flips are for pictures.
        if replace(self.augment, crop=0.0, flip=0.0).is_on or self.augment.blend.is_on:
            raise ValueError(f"augment changes the sound, which is no longer the sum of its sources then ({setting})")
        return self

    @property
    def num_sources(self) -> int:
        """How many sources every clip is the sum of; 0 when clips are shown as they are."""
        return self.stored_sources if self.mixture is None else self.mixture.num_sources
