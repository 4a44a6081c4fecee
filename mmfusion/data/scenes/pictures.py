"""How each event looks: one function a class, which draws the event as it is at clip time `t`.

Motion follows `event.beats(t)`, as the sounds do: at whole numbers the ball touches the ground, the clock ticks ...
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np

from mmfusion.data.scenes.pen import Colour, Pen
from mmfusion.data.scenes.plan import Event

INK = (28, 26, 32)
WOOD = (125, 75, 35)
GLASS = (205, 230, 245)
_HUES = {"red": 0.0, "orange": 0.075, "yellow": 0.155, "green": 0.36, "blue": 0.6, "purple": 0.77, "pink": 0.9}


def paint(event: Event, light: float = 1.0) -> Colour:
    """The event's colour in its own shade; `light` below 1 darkens it."""
    assert event.colour is not None
    hue = (_HUES[event.colour] + 0.04 * (event.shade - 0.5)) % 1
    saturation = (0.55 if event.colour == "pink" else 0.95) - 0.2 * event.shade
    rgb = colorsys.hsv_to_rgb(hue, saturation, (0.72 + 0.26 * event.shade) * light)
    return tuple(int(255 * value) for value in rgb)


def _between(event: Event, dark: Colour, bright: Colour) -> Colour:
    """Between two colours by the event's shade, for things whose colour has no name in the captions."""
    return tuple(int(d + event.shade * (b - d)) for d, b in zip(dark, bright, strict=True))


def _turned(points, angle: float, y: float) -> list[tuple[float, float]]:
    """Points turned about (0, 0), which then hangs at height `y`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(px * cos - py * sin, y + px * sin + py * cos) for px, py in points]


def _ball(pen: Pen, event: Event, t: float) -> None:
    height = abs(math.sin(math.pi * event.beats(t)))
    y = 0.52 - 1.05 * height
    pen.line([(-0.8, 0.97), (0.8, 0.97)], INK, 0.08)
    pen.disc(0, 0.93, 0.4 - 0.15 * height, (60, 58, 62), ry=0.05)
    pen.disc(0, y, 0.42, paint(event), outline=INK)
    pen.disc(0.14, y - 0.16, 0.12, (250, 250, 250))


def _bell(pen: Pen, event: Event, t: float) -> None:
    angle = 0.65 * math.cos(math.pi * event.beats(t))
    half = [(0.14, 0.1), (0.32, 0.4), (0.38, 0.9), (0.62, 1.3)]
    outline = [*half, *((-x, y) for x, y in reversed(half))]
    ((x, y),) = _turned([(0, 1.45)], 1.1 * angle, -0.85)
    pen.line([(-0.7, -0.9), (0.7, -0.9)], INK, 0.12)
    pen.disc(x, y, 0.14, INK)
    pen.polygon(_turned(outline, angle, -0.85), paint(event), outline=INK)
    pen.line(_turned([(-0.42, 1.05), (0.42, 1.05)], angle, -0.85), paint(event, 0.6), 0.08)


def _bird(pen: Pen, event: Event, t: float) -> None:
    beats = event.beats(t)
    x, y = 0.4 * event.progress(t) - 0.2, 0.3 - 0.42 * abs(math.sin(math.pi * beats))
    gape = 0.2 if beats % 1 < 0.5 else 0.04
    for leg in (-0.12, 0.12):
        pen.line([(x + leg, y + 0.3), (x + leg, y + 0.64)], (240, 130, 20), 0.12)
    pen.polygon([(x - 0.35, y), (x - 0.95, y - 0.32), (x - 0.85, y + 0.1)], paint(event, 0.7))
    pen.disc(x, y, 0.5, paint(event), ry=0.36, outline=INK)
    pen.disc(x + 0.08, y + 0.12, 0.34, (250, 248, 240), ry=0.22)
    pen.disc(x + 0.4, y - 0.38, 0.28, paint(event), outline=INK)
    for side in (-1, 1):
        pen.polygon(
            [(x + 0.6, y - 0.38 + 0.12 * side), (x + 0.6, y - 0.38), (x + 1, y - 0.36 + side * gape)], (240, 150, 30)
        )
    pen.disc(x + 0.46, y - 0.44, 0.08, INK)


def _car(pen: Pen, event: Event, t: float) -> None:
    pen = pen.at(0.5 + event.direction * (1.2 * event.progress(t) - 0.6))
    roof = [
        (-0.98, 0.4),
        (-0.98, 0),
        (-0.6, -0.08),
        (-0.35, -0.5),
        (0.25, -0.5),
        (0.55, -0.05),
        (0.98, 0.08),
        (0.98, 0.4),
    ]
    pen.polygon(roof, paint(event), outline=INK)
    pen.polygon([(-0.45, -0.06), (-0.28, -0.4), (-0.06, -0.4), (-0.06, -0.06)], GLASS)
    pen.polygon([(0.04, -0.06), (0.04, -0.4), (0.21, -0.4), (0.4, -0.06)], GLASS)
    pen.disc(0.9, 0.16, 0.09, (255, 250, 170))
    for x in (-0.55, 0.55):
        pen.disc(x, 0.42, 0.24, INK)
        pen.disc(x, 0.42, 0.1, (190, 190, 190))


def _clock(pen: Pen, event: Event, t: float) -> None:
    start = event.seed % 12
    pen.disc(0, 0, 0.92, (70, 50, 40), outline=INK)
    pen.disc(0, 0, 0.76, _between(event, (222, 218, 205), (255, 255, 250)))
    for hour in range(12):
        pen.line([_on_dial(hour, 0.6), _on_dial(hour, 0.72)], INK, 0.06)
    pen.line([(0, 0), _on_dial(start + 3.3, 0.4)], INK, 0.12)
    pen.line([(0, 0), _on_dial(start + math.floor(event.beats(t)), 0.66)], (200, 25, 25), 0.1)
    pen.disc(0, 0, 0.09, INK)


def _on_dial(hour: float, radius: float) -> tuple[float, float]:
    return radius * math.sin(hour * math.pi / 6), -radius * math.cos(hour * math.pi / 6)


def _drum(pen: Pen, event: Event, t: float) -> None:
    beats = event.beats(t)
    pen.box(-0.78, 0.1, 0.78, 0.75, paint(event))
    pen.disc(0, 0.75, 0.78, paint(event), ry=0.22)
    zigzag = [(-0.78 + 0.26 * i, 0.28 if i % 2 == 0 else 0.85) for i in range(7)]
    pen.line(zigzag, (245, 235, 215), 0.06)
    pen.disc(0, 0.1, 0.78, (245, 240, 225), ry=0.26, outline=INK)
    # The two sticks hit in turn, one at even beats and one at odd beats.
    for side, up in ((-1, abs(math.sin(0.5 * math.pi * beats))), (1, abs(math.cos(0.5 * math.pi * beats)))):
        tip = (side * 0.25, 0.06 - 0.7 * up)
        pen.line([(side * 0.95, -0.45 - 0.45 * up), tip], WOOD, 0.11)
        pen.disc(*tip, 0.12, WOOD)


def _fire(pen: Pen, event: Event, t: float) -> None:
    pen.line([(-0.8, 0.92), (0.8, 0.68)], WOOD, 0.2)
    pen.line([(-0.8, 0.68), (0.8, 0.92)], (85, 48, 22), 0.2)
    # Flames have no beat: their shape is drawn anew twelve times a second.
    rng = np.random.default_rng((event.seed, int(12 * t + 1e-6)))
    red, bright = int(40 * event.shade), int(30 * event.shade)
    for width, height, colour in (
        (0.72, 1.0, (225, 45 + red, 15)),
        (0.5, 0.7, (250, 130 + bright, 20)),
        (0.28, 0.4, (255, 230, 90)),
    ):
        points = [(-width, 0.68)]
        for i, tongue in enumerate((0.55, 0.8, 1.0, 0.8, 0.55)):
            x = width * (0.4 * i - 0.8)
            points.append((x + rng.uniform(-0.08, 0.08), 0.68 - 1.6 * height * tongue * rng.uniform(0.7, 1.0)))
            points.append((x + 0.2 * width, 0.68 - 0.7 * height * tongue))
        pen.polygon([*points[:-1], (width, 0.68)], colour)


def _helicopter(pen: Pen, event: Event, t: float) -> None:
    y = 0.15 + 0.14 * math.sin(4 * math.pi * event.progress(t))
    # One beat is the pass of a blade, faster than the pictures: the blade is seen at a changing angle.
    blade = math.cos(math.pi * event.beats(t))
    pen.box(-0.98, y - 0.12, -0.1, y + 0.04, paint(event, 0.7))
    pen.polygon([(-1.0, y - 0.4), (-0.72, y - 0.08), (-0.98, y + 0.04)], paint(event, 0.7), outline=INK)
    pen.disc(0.22, y, 0.54, paint(event), ry=0.4, outline=INK)
    pen.disc(0.44, y - 0.06, 0.29, GLASS, ry=0.25)
    for x in (0.0, 0.42):
        pen.line([(x, y + 0.34), (x, y + 0.6)], INK, 0.07)
    pen.line([(-0.3, y + 0.62), (0.8, y + 0.62)], INK, 0.12)
    pen.line([(0.22, y - 0.38), (0.22, y - 0.62)], INK, 0.1)
    pen.disc(0.22, y - 0.62, 0.3 + 0.7 * abs(blade), INK, ry=0.1)


def _rain(pen: Pen, event: Event, t: float) -> None:
    drops = np.random.default_rng(event.seed).random((18, 2))
    fall = (drops[:, 1] + 0.9 * event.beats(t)) % 1
    for x, y in zip(1.7 * drops[:, 0] - 0.85, 1.25 * fall - 0.45, strict=True):
        pen.line([(x, y), (x + 0.1, y + 0.36)], (30, 80, 215), 0.11)
    cloud = _between(event, (72, 76, 90), (105, 110, 126))
    for x, y, r in ((-0.52, -0.52, 0.36), (0.0, -0.62, 0.38), (0.5, -0.55, 0.38)):
        pen.disc(x, y, r, cloud)
    pen.box(-0.6, -0.5, 0.6, -0.2, cloud)


def _siren(pen: Pen, event: Event, t: float) -> None:
    angle = 2 * math.pi * event.beats(t)
    red, blue = ((205, 25, 20), (255, 80, 40)), ((25, 50, 210), (70, 120, 255))
    lamp = _between(event, *(red if event.direction > 0 else blue))
    for side in (-1, 1):
        reach = max(side * math.cos(angle), 0.0)
        tip = side * (0.4 + 0.6 * reach)
        pen.polygon([(side * 0.2, -0.05), (tip, -0.5 * reach - 0.05), (tip, 0.5 * reach - 0.05)], (255, 245, 150))
    pen.box(-0.5, -0.05, 0.5, 0.35, lamp)
    pen.dome(0, 0, 0.5, lamp)
    pen.disc(0.32 * math.cos(angle), -0.05, 0.1 + 0.1 * abs(math.sin(angle)), (255, 255, 235))
    pen.box(-0.8, 0.32, 0.8, 0.78, (55, 58, 68), outline=INK)


def _train(pen: Pen, event: Event, t: float) -> None:
    beats = event.beats(t)
    pen.line([(-9, 0.8), (9, 0.8)], (75, 68, 64), 0.08)
    pen = pen.at(0.5 + event.direction * (0.9 * event.progress(t) - 0.3))
    for left in (-3.5, -2.2):
        pen.box(left, -0.2, left + 1.1, 0.55, paint(event, 0.65), outline=INK)
        for x in (0.25, 0.85):
            pen.disc(left + x, 0.6, 0.18, INK)
    # A puff of smoke leaves the chimney at every fourth beat, rises and spreads.
    for puff in range(3):
        age = beats / 4 % 1 + puff
        pen.disc(0.62 - 0.38 * age, -0.72 - 0.2 * age, 0.14 + 0.1 * age, (225, 225, 230))
    pen.box(-0.95, -0.7, -0.2, 0.5, paint(event, 0.85), outline=INK)
    pen.box(-0.78, -0.5, -0.36, -0.1, GLASS)
    pen.box(-0.2, -0.2, 0.85, 0.5, paint(event), outline=INK)
    pen.box(0.5, -0.65, 0.74, -0.2, INK)
    for x in (-0.6, 0.0, 0.6):
        pen.disc(x, 0.55, 0.24, INK)
        spoke = 0.5 * math.pi * beats
        pen.disc(x + 0.13 * math.cos(spoke), 0.55 + 0.13 * math.sin(spoke), 0.07, (220, 60, 50))


def _waves(pen: Pen, event: Event, t: float) -> None:
    swell = 0.5 - 0.5 * math.cos(2 * math.pi * event.beats(t))
    x = np.linspace(-1, 1, 25)
    water = _between(event, (15, 85, 150), (40, 130, 190))
    for row, (level, colour) in enumerate(((0.1, tuple(c + 40 for c in water)), (0.45, water))):
        y = level - 0.45 * swell + 0.16 * np.sin(5.5 * x + 2 * row - 2 * math.pi * event.beats(t))
        crest = list(zip(x.tolist(), y.tolist(), strict=True))
        pen.polygon([*crest, (1, 0.95), (-1, 0.95)], colour)
        pen.line(crest, (245, 250, 255), 0.1)


DRAW: dict[str, Callable[[Pen, Event, float], None]] = {
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
