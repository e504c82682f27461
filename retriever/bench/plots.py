"""Scatter plots of systems as inline SVG: effectiveness upwards, a cost to the right on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from xml.etree.ElementTree import Element

from retriever.svg import Box, element, grid, short, ticks

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 16, 48
RADIUS, LABEL = 4, 9
"""Of a point, and half the square that its number takes."""


@dataclass(frozen=True)
class Point:
    """A system. number: what stands beside its point; x: above 0."""

    number: int
    name: str
    x: float
    y: float


def scatter(points: Sequence[Point], across: str, up: str) -> Element:
    """The plot; the axes are named `across` (logarithmic) and `up`. A point's title, shown under the mouse, has all."""
    x_ticks, y_ticks = log_ticks([point.x for point in points]), ticks([point.y for point in points])
    x_low, x_high = math.log10(x_ticks[0]), math.log10(x_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - x_low) / (x_high - x_low)
        high = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM)

    places = [place(point.x, point.y) for point in points]
    return element(
        "svg",
        *grid(
            Box(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
            [(place(x, y_ticks[0])[0], short(x)) for x in x_ticks],
            [(place(1, y)[1], short(y)) for y in y_ticks],
        ),
        element("text", across, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 10, text_anchor="middle"),
        element("text", up, x=0, y=0, text_anchor="middle", transform=f"translate(14 {HEIGHT / 2 - 16}) rotate(-90)"),
        *(_point(*each, across, up) for each in zip(points, places, labels(places), strict=True)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{up} against {across}: " + "; ".join(_told(point, across, up) for point in points),
    )


def _point(point: Point, at: tuple[float, float], label: tuple[float, float], across: str, up: str) -> Element:
    (x, y), (label_x, label_y) = at, label
    return element(
        "g",
        element("title", _told(point, across, up)),
        element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=RADIUS),
        element("text", str(point.number), x=f"{label_x:.1f}", y=f"{label_y + 4:.1f}", text_anchor="middle"),
        class_="point",
    )


def _told(point: Point, across: str, up: str) -> str:
    return f"{point.number} {point.name}: {up} {point.y:.4f}, {across} {short(point.x)}"


def labels(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where each point's number stands: the first spot around it that covers no point and no number placed before."""
    taken = [(x, y, RADIUS) for x, y in places]
    found = []
    for x, y in places:
        spots = [(x + across, y + up) for across, up in sorted(_AROUND, key=lambda step: math.hypot(*step))]
        free = (spot for spot in spots if _inside(*spot) and not any(_cover(spot, other) for other in taken))
        best = next(free, spots[0])
        taken.append((*best, LABEL))
        found.append(best)
    return found


_AROUND = [(x, y) for x, y in product((14, -14, 0, 30, -30, 46, -46), (0, -14, 14, -28, 28)) if (x, y) != (0, 0)]


def _cover(spot: tuple[float, float], other: tuple[float, float, float]) -> bool:
    x, y, half = other
    return abs(spot[0] - x) < LABEL + half and abs(spot[1] - y) < LABEL + half - 2


def _inside(x: float, y: float) -> bool:
    return LEFT + LABEL <= x <= WIDTH - LABEL and LABEL <= y <= HEIGHT - BOTTOM - LABEL


def log_ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten that enclose the values, or 1, 2, 5 times them where that is less than three decades."""
    low, high = min(values), max(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first >= 3:
        return [10.0**power for power in range(first, last + 1)]
    fine = [each * 10.0**power for power in range(first, last + 1) for each in (1, 2, 5)]
    start = max((tick for tick in fine if tick <= low), default=fine[0])
    end = next((tick for tick in fine if tick >= high and tick > start), fine[-1])
    return [tick for tick in fine if start <= tick <= end]
