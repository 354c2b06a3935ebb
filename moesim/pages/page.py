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


def page(*results: Any, to: str | Path | None = None) -> Path:
    """One HTML page of results (files of moesim, or Datasets) that works offline; where it was written.

    `to`: the file; else the name of the one result with .html, or page.html beside the first of several. Raises
    InputError for a file that moesim did not write and where there is nothing to show.
    """
    from moesim.output.store import open_result, write_text

    if not results:
        raise InputError("page: give a result: moesim page outputs/sweep/DATE/TIME/result.nc")
    paths = [Path(os.fspath(one)) for one in results if isinstance(one, str | os.PathLike)]
    if to is None and not paths:
        raise InputError("page: Datasets have no file beside which to write; give to='page.html'")
    opened = [(str(one), open_result(one)) if isinstance(one, str | os.PathLike) else ("", one) for one in results]
    target = Path(to) if to is not None else _beside(paths, len(results))
    write_text(target, html(opened))
    return target


def _beside(paths: Sequence[Path], results: int) -> Path:
    first = paths[0]
    if first.is_dir():
        return first / "page.html"
    return first.with_suffix(".html") if results == 1 else first.parent / "page.html"


def html(results: Sequence[tuple[str, xr.Dataset]]) -> str:
    """The page of named Datasets."""
    most = values.MOST // len(results)
    parts = [_part(name, dataset, views.sections(dataset, most)) for name, dataset in results]
    kinds = {section["kind"] for part in parts for section in part["sections"]}
    title = parts[0]["title"] if len(parts) == 1 else f"{len(parts)} results of moesim"
    code = [_read(f"{name}.js") for name in (*_ALWAYS, *sorted(kinds - _IN_CORE))] + ["moesim.start();"]
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


def _part(name: str, dataset: xr.Dataset, found: Sequence[views.Section]) -> dict[str, Any]:
    sections = [{"kind": one.kind, "title": one.title, "content": one.content} for one in found]
    said = {"title": views.title(dataset), "file": name, "sizes": views.sizes(dataset)}
    return {**said, "command": views.command(dataset), "sections": sections}


def _read(name: str) -> str:
    return (_JS / name).read_text("utf-8")


def _allowed(text: str) -> str:
    """What allows this very text in a Content-Security-Policy, and nothing that a file might smuggle in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
