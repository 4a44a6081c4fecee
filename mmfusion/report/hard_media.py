"""The sounds and pictures of some clips of a run as files of their own, beside what a page shows of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from mmfusion.data.inputs import FeaturesInput, InputConfig, WaveformInput
from mmfusion.data.manifest import read_manifest
from mmfusion.report.footage import Footage, read_footage, save_picture
from mmfusion.training.run import Run
from mmfusion.types import Clip, InputError


@dataclass(frozen=True)
class Media:
    """What is shown of a clip; `picture` is the file of its frames where it has no sound, None otherwise."""

    footage: Footage
    picture: str | None = None

    def file_of(self, kind: Literal["audio", "image"]) -> str | None:
        """The clip's file of this kind, relative to the page; of sound and picture a clip has one."""
        return self.footage.sound if kind == "audio" else self.picture


def write_media(run: Run, clips: Sequence[str], out: Path) -> dict[str, Media]:
    """{clip: media} with the files written to `out`/sounds (wav) and `out`/pictures; problems are told, not raised."""
    config = run.config.data
    try:
        manifest = read_manifest(config.manifest)
    except InputError as error:
        return {clip: Media(Footage(duration_s=0.0, problem=str(error))) for clip in clips}
    there = {clip.id: clip for clip in manifest.clips}
    found = {}
    for name in clips:
        if name not in there:
            found[name] = Media(Footage(duration_s=0.0, problem=f"{manifest.path} has no clip {name}"))
            continue
        file = file_name(name)
        inputs = inputs_to_show(config.inputs, there[name])
        footage = read_footage(there[name], manifest, inputs, config.max_duration_s, out / "sounds" / f"{file}.wav")
        if footage.sound:
            found[name] = Media(replace(footage, sound=f"sounds/{file}.wav"))
        elif footage.strip:
            picture = save_picture(footage.strip, out / "pictures" / file)
            found[name] = Media(footage, f"pictures/{picture.name}")
        else:
            found[name] = Media(footage)
    return found


def inputs_to_show(inputs: Mapping[str, InputConfig], clip: Clip) -> dict[str, InputConfig]:
    """The run's inputs; where it reads nothing but features, the sound of the clip's other files."""
    if not all(isinstance(way, FeaturesInput) for way in inputs.values()):
        return dict(inputs)
    return {name: WaveformInput(source=name) for name, file in clip.media.items() if not file.endswith(".npz")}


def file_name(clip: str) -> str:
    """A name for files that is the clip's own where that is plain, and different for different clips in any case."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", clip)[:80]
    return plain if plain == clip else f"{plain}-{blake2b(clip.encode(), digest_size=4).hexdigest()}"
