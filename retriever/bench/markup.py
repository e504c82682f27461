"""HTML and SVG as trees of elements, so that no text of a query or a document can become markup; tables that sort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

from retriever.svg import Child, element


def markup(elements: Sequence[Element]) -> str:
    """The elements as HTML, with text and attributes escaped."""
    return "\n".join(tostring(each, encoding="unicode", method="html") for each in elements)


@dataclass(frozen=True)
class Heading:
    """A column. number: it sorts as numbers, and the first click brings the largest up, or with `low` the smallest."""

    text: str
    number: bool = False
    low: bool = False


@dataclass(frozen=True)
class Cell:
    """What stands in a table. value: what it sorts by, where that is not the text; a cell without sorts last.
    mark: a class; name: whether it names its row.
    """

    content: Child
    value: float | None = None
    mark: str = ""
    name: bool = False


def table(caption: str, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], **attributes: str) -> Element:
    """A table that page.js makes sortable, in a box that scrolls where the window is narrower."""
    head = element("tr", *map(_heading, headings))
    body = [element("tr", *map(_cell, row, headings)) for row in rows]
    made = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        **{"class": "sortable", **attributes},
    )
    return element("div", made, class_="scroll", role="region", tabindex=0, aria_label=caption)


def _heading(heading: Heading) -> Element:
    first = "descending" if heading.number and not heading.low else "ascending"
    return element("th", heading.text, scope="col", data_first=first, **({"class": "number"} if heading.number else {}))


def _cell(cell: Cell, heading: Heading) -> Element:
    attributes: dict[str, str | float] = {}
    if kind := " ".join(filter(None, ("number" if heading.number else "", cell.mark))):
        attributes["class"] = kind
    if cell.value is not None:
        attributes["data-value"] = cell.value
    if cell.name:
        return element("th", cell.content, scope="row", **attributes)
    return element("td", cell.content, **attributes)
