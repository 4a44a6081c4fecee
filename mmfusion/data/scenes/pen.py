"""The pen that the pictures of the synthetic set are drawn with."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import ImageDraw

# Everything is drawn at this many times the size and averaged down, which smooths the edges.
OVERSAMPLING = 2

Colour = tuple[int, ...]
Points = Iterable[tuple[float, float]]
Place = tuple[float, float, float]


class Pen:
    """Draws shapes around a centre in units of half the event's width: x points to where it faces, y down.

    A place is (x, y, width) in fractions of the picture; `facing` is 1 for right and -1 for left.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, canvas_px: int, place: Place, *, facing: int = 1):
        self._draw = draw
        self._canvas_px = canvas_px
        self._place = place
        x, y, width = place
        self._x, self._y = x * canvas_px, y * canvas_px
        self._unit, self._facing = 0.5 * width * canvas_px, facing

    def at(self, x: float) -> Pen:
        """The same pen with its centre at the fraction `x` of the picture's width."""
        return Pen(self._draw, self._canvas_px, (x, *self._place[1:]), facing=self._facing)

    def disc(
        self, x: float, y: float, r: float, fill: Colour, *, ry: float | None = None, outline: Colour | None = None
    ) -> None:
        """A disc of radius `r`, or an ellipse with vertical radius `ry`."""
        (px, py), prx, pry = self._px(x, y), r * self._unit, (r if ry is None else ry) * self._unit
        self._draw.ellipse((px - prx, py - pry, px + prx, py + pry), fill, outline, OVERSAMPLING)

    def dome(self, x: float, y: float, r: float, fill: Colour) -> None:
        """The upper half of a disc."""
        (px, py), radius = self._px(x, y), r * self._unit
        self._draw.pieslice((px - radius, py - radius, px + radius, py + radius), 180, 360, fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, *, outline: Colour | None = None) -> None:
        """A rectangle between two corners, y0 above y1."""
        (ax, ay), (bx, by) = self._px(x0, y0), self._px(x1, y1)
        self._draw.rectangle((min(ax, bx), ay, max(ax, bx), by), fill, outline, OVERSAMPLING)

    def polygon(self, points: Points, fill: Colour, outline: Colour | None = None) -> None:
        """The inside of a closed line."""
        self._draw.polygon([self._px(x, y) for x, y in points], fill, outline, OVERSAMPLING)

    def line(self, points: Points, fill: Colour, width: float) -> None:
        """A line through points."""
        pixels = [self._px(x, y) for x, y in points]
        self._draw.line(pixels, fill, max(1, round(width * self._unit)), joint="curve")

    def _px(self, x: float, y: float) -> tuple[float, float]:
        return self._x + self._facing * x * self._unit, self._y + y * self._unit
