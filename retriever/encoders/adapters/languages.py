"""Which stack a pair of a query and a document is scored with, by their languages.

As Litschko et al. (COLING 2022) compare them: `dlang`, the document's language, their default; `qlang`, the query's;
`both`, two masks added; `split`, each text's own bottleneck. The ranking adapter stands behind the language's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retriever.errors import InputError

CHOICES = ("dlang", "qlang", "both", "split")


@dataclass(frozen=True)
class AdapterSet:
    """languages: an adapter for each language, by its code. ranking: the adapter that goes with all; none: no ranking
    adapter. choice: one of CHOICES.

    A language without an adapter is read by the base (and the ranking adapter) alone; a split needs both languages'
    adapters, and is `dlang` without one of them.
    """

    languages: Mapping[str, str]
    ranking: str | None = None
    choice: str = "dlang"

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise InputError(f"choice is one of {', '.join(CHOICES)}, not {self.choice!r}")

    def stack(self, query: str, document: str) -> str | None:
        """The stack, in its text form, for a query and a document in these languages; none: the base alone."""
        known = [self.languages.get(query), self.languages.get(document)]
        if self.choice == "split" and all(known) and query != document:
            parts: list[str | None] = [" | ".join(name for name in known if name)]
        elif self.choice == "both":
            parts = list(dict.fromkeys(known))  # a language that both have is added once
        else:
            parts = [known[0] if self.choice == "qlang" else known[1]]
        return " + ".join(part for part in (*parts, self.ranking) if part) or None
