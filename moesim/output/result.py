"""What a verb hands back: a Dataset, and what a person reads beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from moesim.variables import Variable

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Stream:
    """A variable larger than memory: `fill(slab)` gives the values of a slab (a tuple of slices along `dims`)."""

    dims: Sequence[str]
    shape: tuple[int, ...]
    fill: Callable[[tuple[slice, ...]], np.ndarray]
    variable: Variable


@dataclass(frozen=True)
class Result:
    """A verb's product: `dataset` goes to `file`, figures and texts beside it, table and warnings to the console.

    `streams` are variables of the same file that are computed while they are written; `beside` are files of their own.
    """

    dataset: xr.Dataset
    table: str = ""
    file: str = "result.nc"
    figures: Mapping[str, Figure] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    streams: Mapping[str, Stream] = field(default_factory=dict)
    beside: Mapping[str, xr.Dataset] = field(default_factory=dict)
