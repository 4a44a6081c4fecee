"""The sounds and pictures of some clips of a run as files of their own, beside what a page shows of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from mmfusion.data.inputs import FeaturesInput, InputConfig, WaveformInput
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.data.media import write_sound
from mmfusion.data.mixtures.clips import Mixtures
from mmfusion.data.mixtures.gather import SOUND
from mmfusion.data.reading import MediaReader
from mmfusion.evaluate import in_float32
from mmfusion.report.footage import Footage, footage_of, read_footage, save_picture
from mmfusion.report.hardest import Judged
from mmfusion.report.worst_window import WorstWindow
from mmfusion.training.run import Run, RunConfig
from mmfusion.training.setup import open_material
from mmfusion.types import Clip, InputError


@dataclass(frozen=True)
class Media:
    """What is shown of a clip; `picture` is the file of its frames where it has no sound, None otherwise.

    `whole` is the file of the clip's whole sound where the page plays a window of it.
    """

    footage: Footage
    picture: str | None = None
    whole: str | None = None

    def file_of(self, kind: Literal["audio", "image"]) -> str | None:
        """The clip's file of this kind, relative to the page; of sound and picture a clip has one."""
        return (self.whole or self.footage.sound) if kind == "audio" else self.picture

    @property
    def files(self) -> list[str]:
        """All files of the clip, relative to the page."""
        return [file for file in (self.footage.sound, self.picture, self.whole) if file]


def write_media(run: Run, clips: Sequence[Judged], out: Path) -> dict[str, Media]:
    """{clip: media}, the files of which go to `out`/sounds, whole and pictures; problems are told, not raised.

    Of a clip that was read in windows the worst one is shown. A mixture that is made on the fly is made once more.
    """
    try:
        show = _shown_by(run)
    except InputError as error:
        return {clip.clip: Media(Footage(duration_s=0.0, problem=str(error))) for clip in clips}
    found = {}
    for clip in clips:
        file = file_name(clip.clip)
        try:
            media = show(clip, out / "sounds" / f"{file}.wav")
        except InputError as error:
            found[clip.clip] = Media(Footage(duration_s=0.0, problem=str(error)))
            continue
        if media.footage.sound:
            media = replace(media, footage=replace(media.footage, sound=f"sounds/{file}.wav"))
        elif media.footage.strip:
            picture = save_picture(media.footage.strip, out / "pictures" / file)
            media = replace(media, picture=f"pictures/{picture.name}")
        found[clip.clip] = media
    return found


def _shown_by(run: Run) -> Callable[[Judged, Path], Media]:
    """What makes the media of a clip and writes its sound to a path. InputError when the data cannot be opened."""
    if run.config.data.mixture is None:
        manifest = read_manifest(run.config.data.manifest)
        return partial(_show_clip, run.config, manifest, {clip.id: clip for clip in manifest.clips})
    material = open_material(run, in_float32(), quiet=True)
    assert material.mixtures is not None
    return partial(_show_mixture, run.config, material.mixtures, {clip.id: clip for clip in material.manifest.clips})


def _show_clip(config: RunConfig, manifest: Manifest, there: Mapping[str, Clip], judged: Judged, path: Path) -> Media:
    if judged.clip not in there:
        raise InputError(f"{manifest.path} has no clip {judged.clip}")
    clip, window = there[judged.clip], judged.window
    inputs = inputs_to_show(config.data.inputs, clip)
    if window is None or config.windows is None:
        heard_s = config.data.max_duration_s if config.windows is None else config.windows.max_duration_s
        return Media(read_footage(clip, manifest, inputs, heard_s, path))
    part = _part(clip, window)
    footage = replace(read_footage(part, manifest, inputs, window.end_s - window.start_s, path), start_s=window.start_s)
    if footage.sound is None or window.num == 1:
        return Media(footage)
    sounds = {name: way for name, way in inputs.items() if isinstance(way, WaveformInput)}
    read = MediaReader(sounds, config.windows.max_duration_s, manifest.locate).load(clip)
    sound = next(iter(read.values()))
    write_sound(path.parents[1] / "whole" / path.name, np.where(sound.mask, sound.data, 0), round(sound.rate))
    return Media(footage, whole=f"whole/{path.name}")


def _part(clip: Clip, window: WorstWindow) -> Clip:
    """The clip as if it were the window alone."""
    moved = tuple(
        replace(source, start_s=source.start_s - window.start_s, end_s=source.end_s - window.start_s)
        for source in clip.sources
    )
    return replace(clip, start_s=clip.start_s + window.start_s, end_s=clip.start_s + window.end_s, sources=moved)


def _show_mixture(config: RunConfig, mixtures: Mixtures, there: Mapping[str, Clip], judged: Judged, path: Path
                  ) -> Media:  # fmt: skip
    if judged.clip not in there:
        raise InputError(f"{mixtures.path}: data.mixture makes no {judged.clip}")
    clip = there[judged.clip]
    _, inputs = mixtures.render(mixtures.recipe_of(clip))
    seen = {name: raw for name, raw in inputs.items() if raw.mask.any()}
    # Mixtures may lie beyond full scale, which a wav would clip.
    seen[SOUND] = inputs[SOUND].with_data(inputs[SOUND].data / max(1.0, float(np.abs(inputs[SOUND].data).max())))
    return Media(footage_of(clip, seen, config.data.inputs, float("inf"), path))


def inputs_to_show(inputs: Mapping[str, InputConfig], clip: Clip) -> dict[str, InputConfig]:
    """The run's inputs; where it reads nothing but features, the sound of the clip's other files."""
    if not all(isinstance(way, FeaturesInput) for way in inputs.values()):
        return dict(inputs)
    return {name: WaveformInput(source=name) for name, file in clip.media.items() if not file.endswith(".npz")}


def file_name(clip: str) -> str:
    """A name for files that is the clip's own where that is plain, and different for different clips in any case."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", clip)[:80]
    return plain if plain == clip else f"{plain}-{blake2b(clip.encode(), digest_size=4).hexdigest()}"
