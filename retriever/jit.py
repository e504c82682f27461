"""Machine code from Python, by numba."""

from __future__ import annotations

from typing import Any

import numba


def compiled(function: Any) -> Any:
    """Compiled at its first use and kept on disk; only in memory where no folder can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(nogil=True)(function)
