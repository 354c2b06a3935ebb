"""One axis as a user writes it: a number, a list, `{linspace: [first, last, n]}` or `{geomspace: [first, last, n]}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.errors import InputError

_RANGES = {"linspace": np.linspace, "geomspace": np.geomspace}
_ACCEPTED = "a number, a list of numbers, {linspace: [first, last, n]} or {geomspace: [first, last, n]}"


def axis(name: str, value: Any) -> Any:
    """A number as float, anything else as 1-D float array of distinct values.

    Raises InputError for text, booleans, empty or nested lists, repeated values and impossible ranges.
    """
    if isinstance(value, Mapping):
        return _range(name, dict(value))
    values = np.asarray(value, dtype=object)
    bad = [v for v in values.flat if isinstance(v, bool | np.bool_ | str | bytes) or not np.isscalar(v)]
    if bad or values.ndim > 1 or not values.size:
        raise InputError(f"{name}: {bad[0] if bad else value!r} is not an axis; it takes {_ACCEPTED}")
    try:
        numbers = values.astype(float)
    except (TypeError, ValueError):
        raise InputError(f"{name}: {value!r} is not an axis; it takes {_ACCEPTED}") from None
    if numbers.ndim == 0:
        return float(numbers)
    distinct, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{name}: the value {distinct[counts > 1][0]:g} stands twice; an axis takes distinct values")
    return numbers


def _range(name: str, value: dict) -> np.ndarray:
    kind, arguments = next(iter(value.items()), (None, None))
    if kind not in _RANGES or len(value) > 1:
        raise InputError(f"{name}: {value!r} is not an axis; it takes {_ACCEPTED}")
    given = list(arguments) if isinstance(arguments, list | tuple) else []
    ends = axis(f"{name}.{kind}", given[:2]) if len(given) == 3 else []
    if len(ends) != 2:
        raise InputError(f"{name}: {kind}: {arguments!r}; it takes [first, last, n] with two different ends")
    first, last, n = *ends, given[2]
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 2:
        raise InputError(f"{name}: {kind}: n={n!r}; it takes a whole number of points, 2 or more")
    if not np.isfinite(ends).all() or (kind == "geomspace" and min(ends) <= 0):
        raise InputError(f"{name}: {kind} from {first:g} to {last:g}; the ends must be finite, of geomspace above 0")
    return _RANGES[kind](first, last, n)
