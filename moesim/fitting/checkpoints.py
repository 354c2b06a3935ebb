"""Rows that are checkpoints of one run share its luck: how much they are worth together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

_MOST = 0.999  # of an autocorrelation


def weighed(first: Fit) -> xr.Dataset:
    """The runs of a fit with the weight of each row scaled by what its group is worth.

    Along tokens the residuals of a group are taken as an autoregression of order 1, whose correlation r between
    neighbours is that of all groups together; n rows of it tell a mean as well as n/(1 + 2 sum_k (1 - k/n) r^k)
    independent ones. `autocorrelation` and `effective_runs` are attributes. InputError without `group` and tokens.
    """
    runs = first.runs
    if "group" not in runs or "tokens" not in runs:
        raise InputError("fit.checkpoints: it needs tokens, and the run of each row: load_runs(..., group=COLUMN)")
    group = np.unique(runs["group"], return_inverse=True)[1]
    size = np.bincount(group)
    r = autocorrelation(_residual(first), group, runs["tokens"].values)
    worth = np.array([effective(int(n), r) for n in size])
    own = runs["weight"].values if "weight" in runs else np.ones(len(group))
    found = runs.assign(weight=("run", own * (worth / size)[group]))
    return found.assign_attrs(autocorrelation=r, effective_runs=float(worth.sum()))


def _residual(first: Fit) -> np.ndarray:
    """Log of observed over predicted, in the order of the table: (run,)."""
    return np.log(first.observed / first.predict(first.runs)[first.task.target.predicts].values)


def autocorrelation(residual: np.ndarray, group: np.ndarray, tokens: np.ndarray) -> float:
    """Correlation of neighbours along tokens within groups; 0 to 0.999."""
    order = np.lexsort((tokens, group))
    residual, group = residual[order], group[order]
    same = group[1:] == group[:-1]
    before, after = residual[:-1][same], residual[1:][same]
    size = np.sqrt(np.sum(before**2) * np.sum(after**2))
    return float(np.clip(np.sum(before * after) / size, 0.0, _MOST)) if size > 0 else 0.0


def effective(n: int, r: float) -> float:
    """How many independent rows tell as much of a mean as n rows with that autocorrelation."""
    k = np.arange(1, n)
    return float(n / (1.0 + 2.0 * np.sum((1.0 - k / n) * r**k)))
