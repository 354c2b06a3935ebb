"""Approach II: the best size of each budget read off its own runs by a polynomial, beside what a law says.

Hoffmann et al. 2022, section 3.2. A parabola in log size is biased where the runs reach far to one side of the minimum
(arXiv:2603.22339); `degree=3` follows the slant, and `status` says where the runs do not bracket the minimum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.judge import compute_of
from moesim.fitting.runs import load_runs
from moesim.variables import SIZES, stamp

if TYPE_CHECKING:
    import xarray as xr

INSIDE, SMALLEST, LARGEST, NONE, FEW = "inside", "at the smallest size", "at the largest size", "no minimum", "too few"


def isoflop(runs: Any, *, degree: int = 2, within: float = 0.15) -> xr.Dataset:
    """The minimum of loss over size at each budget, and its exponents over budgets.

    `runs`: a Dataset from `load_runs`, or anything it takes, with loss, a size, and compute or tokens. Runs whose
    compute differs by less than the share `within` are one budget. `degree`: 2 (parabola) or 3, of loss in log size.

    Along `budget`: `compute` (FLOP, the geometric mean), `runs`, `status` (inside, at the smallest size, at the largest
    size, no minimum, too few), and for those inside `optimal_NAME` of the size, of tokens and of loss; NaN for others.
    `exponent_params` and `exponent_tokens` are slopes of the logs over the budgets inside, with their standard error as
    an attribute; NaN for fewer than two budgets. Raises InputError without a size, or for another degree.
    """
    import xarray as xr

    if degree not in (2, 3):
        raise InputError(f"isoflop: degree={degree!r}; it takes 2 or 3")
    table = runs if isinstance(runs, xr.Dataset) and "run" in runs.dims and "row" in runs.coords else load_runs(runs)
    size = next((name for name in ("active_params", *SIZES) if name in table), None)
    if size is None:
        raise InputError(f"isoflop: no size; map a column to one of {', '.join(SIZES)}, or derive it from compute")
    compute, loss = compute_of(table, "isoflop"), np.asarray(table["loss"], dtype=float)
    log_size = np.log(np.asarray(table[size], dtype=float))
    log_tokens = (
        np.log(np.asarray(table["tokens"], dtype=float)) if "tokens" in table else np.log(compute / 6) - log_size
    )
    rows = [
        _minimum(log_size[at], log_tokens[at], loss[at], np.log(compute[at]).mean(), degree)
        for at in _budgets(np.log(compute), np.log1p(within))
    ]
    budget, n, status, best_size, best_tokens, best_loss = map(np.array, zip(*rows, strict=True))
    found = {"compute": np.exp(budget), "runs": n, "status": status, "optimal_loss": best_loss}
    found |= {f"optimal_{size}": np.exp(best_size), "optimal_tokens": np.exp(best_tokens)}
    data = xr.Dataset({name: ("budget", values) for name, values in found.items()})
    slopes = {"exponent_params": _slope(budget, best_size), "exponent_tokens": _slope(budget, best_tokens)}
    data = data.assign({name: ((), value, {"standard_error": error}) for name, (value, error) in slopes.items()})
    return stamp(data.assign_attrs(runs_name=table.attrs.get("runs", "given"), degree=degree))


def _budgets(log_compute: np.ndarray, gap: float) -> list[np.ndarray]:
    """Indices of the runs of each budget, cheapest first: cut where the next run costs more by the gap."""
    order = np.argsort(log_compute, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(log_compute[order]) > gap) + 1)


def _minimum(size: np.ndarray, tokens: np.ndarray, loss: np.ndarray, budget: float, degree: int) -> tuple:
    """(log compute, runs, status, log size, log tokens, loss) of one budget; logs of the optimum NaN unless inside."""
    n, lost = len(size), (np.nan, np.nan, np.nan)
    if len(np.unique(size.round(9))) < degree + 1:
        return budget, n, FEW, *lost
    middle = size.mean()
    curve = np.polynomial.Polynomial.fit(size - middle, loss, degree).convert()
    roots = curve.deriv().roots()
    roots = roots[np.isreal(roots)].real
    dips = roots[curve.deriv(2)(roots) > 0]
    if not len(dips):
        return budget, n, NONE, *lost
    best = float(dips[np.argmin(np.abs(dips))]) + middle
    if not size.min() < best < size.max():
        return budget, n, SMALLEST if best <= size.min() else LARGEST, *lost
    order = np.argsort(size, kind="stable")
    return budget, n, INSIDE, best, float(np.interp(best, size[order], tokens[order])), float(curve(best - middle))


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(slope, its standard error) of a straight line; NaN where there are too few points."""
    known = np.isfinite(y)
    x, y = x[known] - x[known].mean() if known.any() else x[known], y[known]
    if len(y) < 2:
        return np.nan, np.nan
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt(rest @ rest / (len(y) - 2) / (x @ x))) if len(y) > 2 else np.nan
