"""What pictures are drawn with: elements as trees, so that no text can become markup, and axes with round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

Child = str | Element


def element(tag: str, *children: Child, **attributes: str | float) -> Element:
    """An element. In attributes' names `_` is written `-`, and one at the end is dropped: `class_`, `data_value`."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return made


class Box(NamedTuple):
    """Where a plot's axes enclose it, in pixels from the picture's upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


def grid(box: Box, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> list[Element]:
    """A line through the box for each tick, given by its pixel, and its text below or to the left."""
    made = []
    for x, text in x_ticks:
        made.append(element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=box.top, y2=box.bottom, class_="grid"))
        made.append(element("text", text, x=f"{x:.1f}", y=box.bottom + 16, text_anchor="middle", class_="tick"))
    for y, text in y_ticks:
        made.append(element("line", x1=box.left, x2=box.right, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        made.append(element("text", text, x=box.left - 6, y=f"{y + 4:.1f}", text_anchor="end", class_="tick"))
    return made


def ticks(values: Sequence[float]) -> list[float]:
    """Four to seven round numbers that enclose the values, a step of 1, 2 or 5 times a power of ten apart."""
    low, high = min(values), max(values)
    room = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(room / 4))
    step = next(power * each for each in (1, 2, 5, 10) if room / (power * each) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """Three digits, and k, M or G for thousands, millions, billions."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
