"""Files or Datasets to one HTML file that works from a disk: no request, no code but moesim's own, texts as texts."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import __version__
from moesim.errors import InputError
from moesim.pages import values, views

if TYPE_CHECKING:
    import xarray as xr

_JS = Path(__file__).parent / "js"
_LARGEST = 6_000_000  # bytes of a page
_ALWAYS = ("core", "plot")
_IN_CORE = {"text", "table", "about", "plot"}  # kinds of sections that have no file of their own
_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; style-src {style}; \
script-src {scripts}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="moesim {version}">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<noscript>This page draws itself with JavaScript, all of it in this file; switch it on to see results.</noscript>
<main id="page"></main>
<script type="application/json" id="data">{data}</script>
{code}
</body>
</html>
"""


def page(*results: Any, to: str | Path | None = None, live: bool = True) -> Path:
    """One HTML page of results (files of moesim, or Datasets) that works offline; where it was written.

    `to`: the file; else the name of the one result with .html, or page.html beside the first of several. `live`:
    with sliders that compute the laws of sweeps, fits and plans in the page. Raises InputError for a file that moesim
    did not write, where there is nothing to show, and by name for a law that a page cannot compute.
    """
    from moesim.output.store import open_result, write_text

    if not results:
        raise InputError("page: give a result: moesim page outputs/sweep/DATE/TIME/result.nc")
    paths = [Path(os.fspath(one)) for one in results if isinstance(one, str | os.PathLike)]
    if to is None and not paths:
        raise InputError("page: Datasets have no file beside which to write; give to='page.html'")
    opened = [
        (str(one), open_result(os.fspath(one))) if isinstance(one, str | os.PathLike) else ("", one) for one in results
    ]
    target = Path(to) if to is not None else _beside(paths, len(results))
    write_text(target, html(opened, live))
    return target


def _beside(paths: Sequence[Path], results: int) -> Path:
    first = paths[0]
    if first.is_dir():
        return first / "page.html"
    return first.with_suffix(".html") if results == 1 else first.parent / "page.html"


def html(results: Sequence[tuple[str, xr.Dataset]], live: bool = True) -> str:
    """The page of named Datasets."""
    most = values.MOST // len(results)
    found = [views.sections(dataset, most, live) for _, dataset in results]
    laws = [section.code for sections in found for section in sections if section.code]
    parts = [_part(name, dataset, its, laws) for (name, dataset), its in zip(results, found, strict=True)]
    kinds = {section.kind for sections in found for section in sections}
    title = parts[0]["title"] if len(parts) == 1 else f"{len(parts)} results of moesim"
    names = [*_ALWAYS, *(["solve"] if laws else []), *sorted(kinds - _IN_CORE)]
    code = [*map(_read, (f"{name}.js" for name in names)), *map(_law, laws), "moesim.start();"]
    css = _read("style.css")
    text = _SHELL.format(
        style=_allowed(css),
        scripts=" ".join(map(_allowed, code)),
        version=__version__,
        title=escape(title),
        css=css,
        data=values.as_json({"title": title, "version": __version__, "results": parts}),
        code="\n".join(f"<script>{text}</script>" for text in code),
    )
    if len(text.encode()) > _LARGEST:
        raise InputError(f"page: {len(text.encode()) / 1e6:.1f} MB, and a page has at most 6; give fewer results")
    return text


def _law(code: str) -> str:
    return f"moesim.laws.push({code});"


def _part(name: str, dataset: xr.Dataset, found: Sequence[views.Section], laws: Sequence[str]) -> dict[str, Any]:
    sections = [{name: getattr(one, name) for name in ("kind", "title", "content")} for one in found]
    for section, one in zip(sections, found, strict=True):
        section["law"] = laws.index(one.code) if one.code else None
    said = {"title": views.title(dataset), "file": name, "sizes": views.sizes(dataset)}
    return {**said, "command": views.command(dataset), "sections": sections}


def _read(name: str) -> str:
    return (_JS / name).read_text("utf-8")


def _allowed(text: str) -> str:
    """What allows this very text in a Content-Security-Policy, and nothing that a file might smuggle in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
