"""Published tables, each with its provenance (README.md, BALANCE.md, HARDWARE.md)."""

import csv
from importlib import resources


def shipped(name: str) -> list[dict[str, str]]:
    """Rows of a table in `moesim/data`."""
    text = resources.files("moesim.data").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
