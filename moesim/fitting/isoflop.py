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
from moesim.numerics.axes import axis
from moesim.variables import SIZES, stamp

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

INSIDE, SMALLEST, LARGEST, NONE, FEW = "inside", "at the smallest size", "at the largest size", "no minimum", "too few"
MIXED = "not one budget"
DEGREES = {2: "parabola", 3: "cubic"}


def isoflop(runs: Any, *, degree: int = 2, within: float = 0.15, budgets: Any = None) -> xr.Dataset:
    """The minimum of loss over size at each budget, and its exponents over budgets.

    `runs`: a Dataset from `load_runs`, or anything it takes, with loss, a size, and compute or tokens. Runs whose
    compute differs by less than the share `within` from the next are one budget, unless in all they differ by more than
    twice that (`not one budget`); with `budgets` (FLOP) each takes the runs within that share of it. `degree`: 2
    (parabola) or 3, of loss in log size.

    Along `budget`: `compute` (FLOP, the geometric mean), `runs`, `status` (inside, at the smallest size, at the largest
    size, no minimum, too few, not one budget), and for those inside `optimal_NAME` of the size, of tokens and of loss;
    NaN for others. `exponent_params` and `exponent_tokens` are slopes of the logs over the budgets inside, with their
    standard error as an attribute; NaN for fewer than two budgets. Raises InputError without a size, or for another
    degree.
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
        _minimum(log_size[at], log_tokens[at], loss[at], np.log(compute[at]), degree, 2.0 * np.log1p(within))
        for at in _budgets(np.log(compute), np.log1p(within), budgets)
    ]
    budget, n, status, best_size, best_tokens, best_loss = map(np.array, zip(*rows, strict=True))
    found = {"compute": np.exp(budget), "runs": n, "status": status, "optimal_loss": best_loss}
    found |= {f"optimal_{size}": np.exp(best_size), "optimal_tokens": np.exp(best_tokens)}
    data = xr.Dataset({name: ("budget", values) for name, values in found.items()})
    slopes = {"exponent_params": _slope(budget, best_size), "exponent_tokens": _slope(budget, best_tokens)}
    data = data.assign({name: ((), value, {"standard_error": error}) for name, (value, error) in slopes.items()})
    return stamp(data.assign_attrs(runs_name=table.attrs.get("runs", "given"), degree=degree))


def _budgets(log_compute: np.ndarray, gap: float, budgets: Any) -> list[np.ndarray]:
    """Indices of the runs of each budget, cheapest first: cut where the next run costs more by the gap."""
    if budgets is not None:
        wanted = np.log(np.sort(np.atleast_1d(axis("budgets", budgets))))
        near = [np.flatnonzero(np.abs(log_compute - log) <= gap) for log in wanted]
        if not any(map(len, near)):
            raise InputError(
                f"isoflop: no runs near budgets={budgets!r}; theirs go from {np.exp(log_compute.min()):.3g}"
            )
        return [at for at in near if len(at)]
    order = np.argsort(log_compute, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(log_compute[order]) > gap) + 1)


def _minimum(
    size: np.ndarray, tokens: np.ndarray, loss: np.ndarray, compute: np.ndarray, degree: int, widest: float
) -> tuple:
    """(log compute, runs, status, log size, log tokens, loss) of one budget; logs of the optimum NaN unless inside."""
    n, budget, lost = len(size), compute.mean(), (np.nan, np.nan, np.nan)
    if np.ptp(compute) > widest:
        return budget, n, MIXED, *lost
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


def beside(fit: Fit) -> dict[str, Any]:
    """The exponents of the runs' own minima, by parabola and cubic, to stand beside those of a law in size and tokens.

    Variables over `degree`; empty where other things vary between the runs, or fewer than two budgets have a minimum.
    """
    takes = {*fit.task.target.inputs}
    if fit.task.target.predicts != "loss" or "tokens" not in takes or not takes <= {"tokens", *SIZES}:
        return {}
    runs = fit.runs.isel(run=np.flatnonzero(~fit.outside))
    try:
        tables = [isoflop(runs, degree=degree) for degree in DEGREES]
    except InputError:  # a table without compute, of which the law tells enough
        return {}
    inside = [int((table["status"] == INSIDE).sum()) for table in tables]
    if min(inside) < 2:
        return {}
    found: dict[str, Any] = {"degree": ("degree", list(DEGREES)), "isoflop_budgets": ("degree", inside)}
    for name in ("exponent_params", "exponent_tokens"):
        found[f"isoflop_{name}"] = ("degree", [float(table[name]) for table in tables])
        found[f"isoflop_{name}_error"] = ("degree", [table[name].attrs["standard_error"] for table in tables])
    return found
