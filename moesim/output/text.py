"""Numbers, aligned tables and short descriptions, as a person reads them on a console and in a notebook."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from textwrap import fill, shorten
from typing import Any, TypeVar

import numpy as np

_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_LONG, _WIDTH = 100, 110  # characters of a text that is cut, and of a line

Rows = Sequence[Sequence[str]]
Page = Sequence["str | Rows | Mapping[str, Any]"]
_Class = TypeVar("_Class", bound=type)


def count(value: float) -> str:
    """A count in three digits with K, M, B or T: 1.23B; 'unlimited' for inf, '-' for NaN."""
    if not np.isfinite(value):
        return "unlimited" if value > 0 else "-"
    if abs(value) >= 0.9995e15:
        return plain(value)
    scale, letter = next(((s, p) for s, p in _PREFIXES if abs(value) >= 0.9995 * s), (1.0, ""))
    return f"{value / scale:.3g}{letter}"


def full(value: float) -> str:
    """A count in full up to twelve digits, in five digits beyond; '-' for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) < 1e12 and float(value).is_integer() else f"{value:.4e}"


def number(value: Any) -> str:
    """Five significant digits, plain where they fit."""
    value = float(value)
    apart = np.isfinite(value) and value != 0 and not 1e-3 <= abs(value) < 1e7
    return f"{value:.4e}" if apart else f"{value:.5g}"


def plain(value: Any) -> str:
    """A coordinate in four digits, 1e+20 as 1e20; names as they are."""
    return value if isinstance(value, str) else re.sub(r"e\+?(-?)0*", r"e\1", f"{float(value):.4g}")


def epochs(value: float) -> str:
    """Epochs in three digits; '<1' where not all unique tokens are seen once, '-' where they are unlimited."""
    return "-" if np.isnan(value) or value == 0 else "<1" if value < 0.995 else f"{value:.3g}"


def coordinate(name: str, value: Any) -> str:
    """The value of a coordinate in the style of its kind: parameters and tokens as counts, all else plain."""
    if isinstance(value, str) or not name.endswith(("params", "tokens")):
        return plain(value)
    return count(value)


def aligned(rows: Rows, indent: int = 0) -> str:
    """Rows of cells in columns: the first to the left, a last one of words too, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    words = any(row[last].replace(" ", "").isalpha() for row in rows[1:])
    sides = [str.ljust if i == 0 or (i == last and words) else str.rjust for i in range(len(widths))]
    lines = (
        "  ".join(pad(*cell) for pad, cell in zip(sides, zip(row, widths, strict=True), strict=True)) for row in rows
    )
    return "\n".join(" " * indent + line.rstrip() for line in lines)


def text_of(page: Page) -> str:
    """A page for a console: texts, tables of cells, and mappings as `name = value, ...`."""
    return "\n".join(_as_text(part) for part in page if part)


def _as_text(part: str | Rows | Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        told = ", ".join(f"{name} = {brief(value)}" for name, value in part.items())
        return fill(told, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return aligned(part, 2)


def html_of(page: Page) -> str:
    """A page for a notebook: texts as paragraphs, tables and mappings as tables."""
    return "".join(f"<p>{escape(part)}</p>" if isinstance(part, str) else _html_table(part) for part in page if part)


def _html_table(part: Rows | Mapping[str, Any]) -> str:
    rows = [(name, brief(value)) for name, value in part.items()] if isinstance(part, Mapping) else part
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def shown(cls: _Class) -> _Class:
    """Class decorator: `repr` and notebooks show the object's `_page()`: texts, tables of cells, mappings."""
    methods = {"__repr__": lambda self: text_of(self._page()), "_repr_html_": lambda self: html_of(self._page())}
    for name, method in methods.items():
        setattr(cls, name, method)
    return cls


def brief(value: Any) -> str:
    """Any value on one short line: numbers in five digits, an array as its median and ends, a long text cut."""
    if isinstance(value, str | bool | None):
        return shorten(str(value), _LONG, placeholder=" ...")
    if isinstance(value, int):
        return str(value)
    values = np.asarray(value, dtype=float)
    if values.ndim == 0:
        return number(value)
    low, middle, high = map(number, np.quantile(values, [0, 0.5, 1]))
    return f"{middle} ({low} to {high}, {values.size} values)"
