"""A picture of all classes: four frames and the spectrogram of one event of each.

python -m mmfusion.data.scenes.sheet docs/images/synthetic.png
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmfusion.data.scenes.draw import draw_frames
from mmfusion.data.scenes.plan import COLOURS, LABELS, Event, ScenePlan, SyntheticConfig
from mmfusion.data.scenes.sound import make_sound

_FRAMES_S = (0.45, 1.15, 1.85, 2.55)
_GAP_PX = 4
_TITLE_PX = 14
_COLUMNS = 2


def example_scene(label: str, number: int) -> ScenePlan:
    """One seen and heard event of a class, alone in a clip, in the middle of all parameters."""
    event = Event(
        label=label,
        start_s=0.2,
        end_s=3.0,
        seen=True,
        heard=True,
        colour=COLOURS.get(label, (None,))[0],
        shade=0.5,
        size=0.5,
        pitch=0.5,
        speed=0.5,
        level_db=-14.0,
        x=0.5,
        y=0.5,
        width=0.8,
        direction=1,
        seed=number,
    )
    return ScenePlan(label, "train", (2, 2, 2, 2), (event,), (0, 0, number))


def contact_sheet(config: SyntheticConfig) -> Image.Image:
    """The sheet, classes in alphabetical order, row by row."""
    config = replace(config, duration_s=3.2)
    cells = [_cell(example_scene(label, number), config) for number, label in enumerate(LABELS)]
    width, height = cells[0].size
    rows = -(-len(cells) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (width + 3 * _GAP_PX), rows * (height + 2 * _GAP_PX)), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % _COLUMNS * (width + 3 * _GAP_PX), i // _COLUMNS * (height + 2 * _GAP_PX)))
    return sheet


def _cell(plan: ScenePlan, config: SyntheticConfig) -> Image.Image:
    frames = draw_frames(plan, config)
    side = config.size_px
    cell = Image.new("RGB", (6 * side + 4 * _GAP_PX, side + _TITLE_PX), "white")
    ImageDraw.Draw(cell).text((0, 0), plan.events[0].label, fill="black")
    for k, time_s in enumerate(_FRAMES_S):
        cell.paste(Image.fromarray(frames[round(time_s * config.frame_rate)]), (k * (side + _GAP_PX), _TITLE_PX))
    picture = _spectrogram(make_sound(plan, config), config.sample_rate_hz)
    cell.paste(picture.resize((2 * side, side), Image.Resampling.BILINEAR), (4 * (side + _GAP_PX), _TITLE_PX))
    return cell


def _spectrogram(sound: np.ndarray, sample_rate_hz: int) -> Image.Image:
    """Level in dB over time (right) and frequency (up, finer for low tones), 70 dB from black to white."""
    size = sample_rate_hz // 32
    hop = size // 4
    starts = np.arange(0, len(sound) - size, hop)
    frames = sound[starts[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.geomspace(3, power.shape[1] - 1, 65)
    rows = np.stack([power[:, int(a) : max(int(b), int(a) + 1)].mean(1) for a, b in pairwise(edges)])
    level = 10 * np.log10(rows[::-1] + 1e-9)
    return Image.fromarray((255 * ((level - level.max()) / 70 + 1).clip(0, 1)).astype(np.uint8)).convert("RGB")


def main() -> None:
    """Writes the sheet as a PNG of few colours, which keeps it small."""
    parser = argparse.ArgumentParser(description="a picture of all classes of the synthetic set")
    parser.add_argument("out", type=Path, help="PNG file to write")
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(SyntheticConfig())
    sheet.quantize(200, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
