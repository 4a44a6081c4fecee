"""The pictures of a clip: a still, muted background and the visible events on top of it.

Everything is drawn at twice the size and averaged down, which smooths the edges.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from mmfusion.data.scenes.pen import OVERSAMPLING, Pen
from mmfusion.data.scenes.pictures import DRAW
from mmfusion.data.scenes.plan import Event, ScenePlan, SyntheticConfig


def draw_frames(plan: ScenePlan, config: SyntheticConfig) -> np.ndarray:
    """uint8 (T, H, W, 3); frame k shows the scene at k / frame_rate seconds."""
    rng = np.random.default_rng((*plan.seed, 1))
    canvas_px = config.size_px * OVERSAMPLING
    background = draw_background(canvas_px, rng)
    seen = [event for event in plan.events if event.seen]
    count = round(config.duration_s * config.frame_rate)
    frames = np.empty((count, config.size_px, config.size_px, 3), np.uint8)
    for k in range(count):
        canvas = background.copy()
        _draw_events(canvas, seen, k / config.frame_rate)
        frames[k] = np.asarray(canvas.reduce(OVERSAMPLING))
    return frames


def _draw_events(canvas: Image.Image, events: list[Event], t: float) -> None:
    draw = ImageDraw.Draw(canvas)
    for event in events:
        if event.start_s <= t < event.end_s:
            pen = Pen(draw, canvas.width, (event.x, event.y, event.width), facing=event.direction)
            DRAW[event.label](pen, event, t)


def draw_background(size_px: int, rng: np.random.Generator) -> Image.Image:
    """A muted gradient between two tints with soft blotches and a fine grain."""
    tints = [colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.16), rng.uniform(0.62, 0.9)) for _ in range(2)]
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size_px, dtype=np.float32)
    along = 0.5 + 0.7 * (np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None])
    picture = along[..., None] * np.asarray(tints[0], np.float32) + (1 - along[..., None]) * np.asarray(tints[1])
    cells = int(rng.integers(3, 9))
    blotches = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8)).resize((size_px, size_px), 3)
    picture = picture + rng.uniform(0.02, 0.08) * (np.asarray(blotches, np.float32) / 255 - 0.5)[..., None]
    picture = picture + rng.uniform(0, 0.03) * rng.standard_normal((size_px, size_px, 1), dtype=np.float32)
    return Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8))
