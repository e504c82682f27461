"""The course of a training as a picture: its log, drawn against the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, tostring

from retriever.svg import Box, element, grid, short, ticks

LOSS = {"loss": "loss"}
PANELS = {**LOSS, "eval_loss": "loss on held-out texts", "eval_nDCG@10": "nDCG@10 on dev"}
"""What is drawn of the log's entries, one above the other, by their names there."""
WIDTH, HEIGHT = 560, 200
"""Of a panel."""
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 28, 28
FEW = 60
"""So many points are drawn as points too."""
STYLE = """
svg { background: #fff; font: 12px sans-serif; fill: #222 }
.grid { stroke: #ddd }
.tick { font-size: 11px; fill: #666 }
polyline { fill: none; stroke: #2563a8; stroke-width: 1.5 }
circle { fill: #2563a8 }
"""
Points = list[tuple[float, float]]


def curve(entries: Sequence[Mapping[str, Any]], across: str = "step", panels: Mapping[str, str] = PANELS) -> str:
    """An SVG file: a panel for each of `panels` that the entries have, against their `across`. What is no number, as
    the loss of a training that diverged, is left out.
    """
    found = {label: _points(entries, across, name) for name, label in panels.items()}
    drawn = {label: points for label, points in found.items() if points}
    x_ticks = ticks([x for points in drawn.values() for x, _ in points] or [0.0])
    parts = [
        part
        for number, (label, points) in enumerate(drawn.items())
        for part in _panel(points, label, x_ticks, number * HEIGHT)
    ]
    height = HEIGHT * len(drawn) + BOTTOM
    title = element("text", across, x=(LEFT + WIDTH - RIGHT) / 2, y=height - 8, text_anchor="middle")
    told = "; ".join(f"{label}: {points[0][1]:.4g} to {points[-1][1]:.4g}" for label, points in drawn.items())
    picture = element(
        "svg",
        element("style", STYLE),
        *parts,
        title,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=f"the course of a training by {across}: {told}",
    )
    return tostring(picture, encoding="unicode") + "\n"


def _points(entries: Sequence[Mapping[str, Any]], across: str, name: str) -> Points:
    pairs = [(float(entry[across]), float(entry[name])) for entry in entries if name in entry]
    return [pair for pair in pairs if all(map(math.isfinite, pair))]


def _panel(points: Points, label: str, x_ticks: Sequence[float], top: float) -> list[Element]:
    box = Box(LEFT, top + TOP, WIDTH - RIGHT, top + HEIGHT - BOTTOM)
    y_ticks = ticks([y for _, y in points])

    def right(x: float) -> float:
        return box.left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (box.right - box.left)

    def down(y: float) -> float:
        return box.bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (box.bottom - box.top)

    return [
        element("text", label, x=LEFT, y=top + TOP - 10),
        *grid(box, [(right(x), short(x)) for x in x_ticks], [(down(y), short(y)) for y in y_ticks]),
        element("polyline", points=" ".join(f"{right(x):.1f},{down(y):.1f}" for x, y in points)),
        *(
            element("circle", element("title", f"{x:g}: {y:.4g}"), cx=f"{right(x):.1f}", cy=f"{down(y):.1f}", r=3)
            for x, y in (points if len(points) <= FEW else [])
        ),
    ]
