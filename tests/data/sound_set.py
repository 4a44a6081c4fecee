"""Small sets of sounds of one class each, in memory and as files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from mmfusion.data.manifest import Manifest, read_manifest, write_manifest
from mmfusion.data.media import write_clip, write_sound
from mmfusion.data.mixtures.pool import Sound, listen
from mmfusion.data.mixtures.recipes import MixtureConfig, Part, Pool, make_pool
from mmfusion.types import Clip

RATE = 8000


def samples(number: int, length_s: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with a tone, at a level of its own, silent in its middle third."""
    time_s = np.arange(round(length_s * RATE)) / RATE
    sound = 0.3 * np.sin(2 * np.pi * (200 + 37 * number) * time_s) + 0.05 * rng.standard_normal(len(time_s))
    sound[len(sound) // 3 : 2 * len(sound) // 3] = 0
    return (sound * 10 ** rng.uniform(-1.5, 0)).astype(np.float32)


class Sounds:
    """A pool whose samples are at hand: `load` is what `mix` asks for."""

    def __init__(self, config: MixtureConfig, lengths_s: dict[str, list[float]], split: str = "train", seed: int = 0
                 ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.data: dict[str, np.ndarray] = {}
        sounds: list[Sound] = []
        for number, (label, lengths) in enumerate(sorted(lengths_s.items())):
            for place, length_s in enumerate(lengths):
                clip = Clip(f"{label}-{place}", {"audio": f"{label}-{place}.wav"}, split, label, labels=(label,))
                self.data[clip.id] = samples(number, length_s, rng)
                sounds.append(listen(clip, self.data[clip.id], RATE, config.activity_floor_db))
        self.pool: Pool
        self.pool, self.quiet = make_pool(split, sounds, config, sorted(lengths_s), RATE, "test")

    def load(self, part: Part) -> np.ndarray:
        return self.data[part.clip.id]


def write_sounds(folder: Path, num_classes: int = 5, pictures: bool = False) -> Manifest:
    """wav files (with `pictures`: mp4, whose grey is 40 + 10 x class + 4 x second) of 0.6 to 2.2 s in three splits."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for split, num in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(num * num_classes):
            label = number % num_classes
            length_s = float(rng.choice([0.6, 1.4, 2.2]))
            sound = samples(label, length_s, rng)
            name = f"{split}-{number}.{'mp4' if pictures else 'wav'}"
            media = {"audio": name}
            if pictures:
                grey = [40 + 10 * label + 4 * (step // 10) for step in range(round(10 * length_s))]
                frames = np.repeat(np.array(grey, np.uint8), 16 * 24 * 3).reshape(-1, 16, 24, 3)
                write_clip(folder / name, frames, 10, sound, RATE)
                media["video"] = name
            else:
                write_sound(folder / name, sound, RATE)
            clips.append(Clip(f"{split}-{number}", media, split, f"{split} {number}", labels=(f"class {label}",)))
    write_manifest(folder / "manifest.jsonl", clips)
    return read_manifest(folder / "manifest.jsonl")


def damaged(path: Path, packets: slice, kind: str) -> None:
    """Overwrites some packets of a file's stream."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        found = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.size]
    for place, size in found[packets]:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(bytes(content))
