"""The exceptions of moesim: bad input, and a result that could not be written."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Bad input: the message names the thing, the bad value, what is accepted and the remedy."""


class NotWritten(OSError):
    """A result that could not be written: the disk is full, or the place is gone."""


def nearest(name: Any, names: Iterable[Any]) -> str:
    """`; did you mean NAME?` for the name that looks most like this one, or nothing."""
    near = get_close_matches(str(name), list(map(str, names)), n=1)
    return f"; did you mean {near[0]}?" if near else ""
