"""Numbers and texts as a page carries them: JSON that no HTML can end, and fewer of them where they are too many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.plots import spread

if TYPE_CHECKING:
    import xarray as xr

MOST = 250_000  # values of all results on a page: some 2.5 MB
_DIGITS = 9  # of an embedded number


def as_json(value: Any) -> str:
    """Plain data and NumPy arrays as JSON, safe within <script>: NaN as null, infinities as 1e999 (which reads as one).

    TypeError for anything else.
    """
    text = _text(value)
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(name))}:{_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return "null" if np.isnan(value) else repr(value) if np.isfinite(value) else f"{'-' * (value < 0)}1e999"
    return json.dumps(value)


def rounded(values: Any) -> np.ndarray:
    """Numbers with as many digits as a page shows."""
    values = np.asarray(values, float)
    with np.errstate(all="ignore"):
        scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(values))))
        return np.where(np.isfinite(values * scale), np.round(values * scale) / scale, values)


def thinned(dataset: xr.Dataset, most: int = MOST) -> tuple[xr.Dataset, str]:
    """The Dataset with at most so many values, and what was left out: its longest dim loses every other place, again
    and again, first and last kept."""
    kept = dataset
    while _values(kept) > most:
        dim, n = max(kept.sizes.items(), key=lambda item: item[1])
        if n < 3:
            return _without_largest(kept, most)
        index = [int(i) for i in spread(np.arange(n), (n + 1) // 2)]
        kept = kept.isel({dim: index})
    told = [f"{n} of {dataset.sizes[dim]} {dim}" for dim, n in kept.sizes.items() if n < dataset.sizes[dim]]
    return kept, f"too many values for a page: shown are {', '.join(told)}" if told else ""


def _values(dataset: xr.Dataset) -> int:
    return sum(array.size for array in dataset.variables.values())


def _without_largest(dataset: xr.Dataset, most: int) -> tuple[xr.Dataset, str]:
    """Without the largest variables, where no dim is left to thin."""
    gone = []
    while _values(dataset) > most:
        name = str(max(dataset.data_vars, key=lambda name: dataset[name].size))
        gone.append(name)
        dataset = dataset.drop_vars(name)
    return dataset, f"too many values for a page: without {', '.join(gone)}"
