"""Figures of results, as `moesim VERB` draws them: a function for each, from a Dataset to a matplotlib Figure.

>>> moesim.plot.isoflop(moesim.sweep("abnar2025", compute=[1e20, 1e21], sparsity=[0, 0.9])).savefig("isoflop.png")
>>> moesim.plot.comparison(moesim.open_result("outputs/sweep/DATE/TIME/collected.nc"))

The Dataset may come from Python, from `open_result`, or be collected from many runs. `draw` gives every figure that a
Dataset has the dims for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from moesim.balance.figures import balance, family, loss, sampling, serves, study, time, trace
from moesim.counting.figures import expert_update, flops_by_layer, flops_by_sequence, ratio_by_batch, ratio_by_depth
from moesim.errors import InputError
from moesim.fitting.figures import allocation, predictions, profiles, trade_offs
from moesim.fitting.figures import isoflop as fitted_isoflop
from moesim.planning.figures import coefficient, comparison, isoflop, perplexity, sparsity
from moesim.sites.figures import crossing, sites_loss, timeline, waterfall

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = [
    "allocation",
    "balance",
    "coefficient",
    "comparison",
    "crossing",
    "draw",
    "expert_update",
    "family",
    "fitted_isoflop",
    "flops_by_layer",
    "flops_by_sequence",
    "isoflop",
    "loss",
    "perplexity",
    "predictions",
    "profiles",
    "ratio_by_batch",
    "ratio_by_depth",
    "sampling",
    "serves",
    "sites_loss",
    "sparsity",
    "study",
    "time",
    "timeline",
    "trace",
    "trade_offs",
    "waterfall",
]

_DRAWN = {"sweep": "planning", "optimum": "planning", "flops": "counting", "balance": "balance", "fit": "fitting"}
_DRAWN |= {"sites": "sites"}


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the dims for, by name. InputError if moesim did not make it."""
    verb = dataset.attrs.get("verb", "")
    if verb not in _DRAWN:
        raise InputError(f"draw: a Dataset of verb {verb!r}; it takes one of {', '.join(_DRAWN)}")
    return import_module(f"moesim.{_DRAWN[verb]}.figures").draw(dataset)


def __dir__() -> list[str]:
    return __all__
