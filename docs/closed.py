"""After the build: every link and anchor of the pages leads somewhere, and none asks the network for anything."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
_REMOTE = re.compile(r"(https?:)?//", re.IGNORECASE)
_FETCHED = re.compile(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """The anchors of a page, where its links go, and what it loads from elsewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links, self.loads = set[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [value for value in (given.get(_LOADS.get(tag, "")),) if value and _REMOTE.match(value)]


@cache
def page(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def faults(root: Path) -> list[str]:
    """What is wrong with the pages under `root`, a line each."""
    found = [f"{path.relative_to(root)}: {fault}" for path in sorted(root.rglob("*.html")) for fault in of_page(path)]
    styles = (path for path in sorted(root.rglob("*.css")) if _FETCHED.search(path.read_text("utf-8")))
    return found + [f"{path.relative_to(root)}: fetches from the network" for path in styles]


def of_page(path: Path) -> list[str]:
    dead = [f"the link {link} leads nowhere" for link in page(path).links if not leads(path, link)]
    return dead + [f"loads {url} from the network" for url in page(path).loads]


def leads(path: Path, link: str) -> bool:
    """Whether a link of a page leads somewhere; those to other hosts are not asked."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    known = target.is_file() and (
        target.suffix != ".html" or not parts.fragment or unquote(parts.fragment) in page(target).anchors
    )
    return known


def check(app: Any, exception: Exception | None) -> None:
    from sphinx.errors import SphinxError

    if exception is None and app.builder.format == "html" and (wrong := faults(Path(app.outdir).resolve())):
        raise SphinxError("\n".join(wrong))


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
