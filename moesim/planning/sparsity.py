"""The sparsity with the lowest loss, at its best size, in every cell.

Searched in t = -log(1 - sparsity), in which experts / active_experts is exp(t): the best size is solved at every point
of a grid in t; the two deepest dips between its points are solved as roots of dL/dt, or by value where the loss kinks.
What is found is never above the loss at any point of the grid, its two ends included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.numerics.derivative import Jet, slope_of
from moesim.numerics.elementwise import minimum, secant, select, shape_of
from moesim.planning.model import Model
from moesim.planning.size import FAILED, INFEASIBLE, INSIDE, LOWER, NEAR, UPPER, Found, best_size, fixed, lowest

Cell = Mapping[str, Any]
_SPARSITIES = 17
_EQUAL = 1e-13  # relative: losses that differ by less are equal
_BESIDE = 1e-3  # in t: how far beside a solution the loss must not be lower
_APART = 0.25  # in log size: two sizes this far apart are in two dips


def best_sparsity(model: Model, cell: Cell, bounds: tuple[float, float]) -> tuple[dict[str, Any], Found]:
    """Every cell with its best sparsity and taught parameters, flat, and the best size there.

    The status is that of the sparsity: at a bound if the loss is lowest there; of equal losses the lowest sparsity.
    """
    first, last = (-np.log1p(-bound) for bound in bounds)
    grid = np.linspace(first, last, _SPARSITIES)
    flat = select(cell, np.ones(shape_of(cell), bool))
    ladder = _ladder(model, cell, grid)
    losses = np.where(np.isnan(ladder["loss"]), np.inf, ladder["loss"])
    rows = np.arange(len(losses))
    index = np.argmax(losses <= losses.min(axis=1, keepdims=True) * (1 + _EQUAL), axis=1)
    t, loss, solved = grid[index], losses[rows, index], np.zeros(len(rows), bool)
    if not fixed(cell):
        for start in _intervals(grid, losses, ladder["slope"]):
            _between(model, flat, grid, ladder, start, t, loss, solved)
    for middle in _dips(losses, index):
        if (open_ := (middle >= 0) & ~solved & np.isfinite(loss)).any():
            _by_value(model, flat, grid, middle, open_, t, loss)
    full = model.with_taught_params({**flat, "sparsity": -np.expm1(-t)})
    found = best_size(model, full)
    infeasible, lost = found.status == INFEASIBLE, ~np.isfinite(loss)
    status = np.select([infeasible, lost, t == grid[0], t == grid[-1]], [INFEASIBLE, FAILED, LOWER, UPPER], INSIDE)
    return full, Found(found.log_size, found.loss, status)


def _ladder(model: Model, cell: Cell, grid: np.ndarray) -> dict[str, np.ndarray]:
    """Loss, best log size, dL/dt and log size of the taught at every point of the grid in t: (cell, grid)."""
    t = grid.reshape(-1, *[1] * len(shape_of(cell)))  # as the first axis: see `blocks`
    full = model.with_taught_params({**cell, "sparsity": -np.expm1(-t)})
    found = lowest(model.thinned, full, within=1e-6)
    out = {"loss": found.loss, "size": found.log_size, "taught": full.get("taught_log_size", np.nan)}
    if not fixed(cell):
        out["slope"] = _fall(model, t, full, found.log_size)
    return {n: np.broadcast_to(v, found.loss.shape).reshape(len(grid), -1).T for n, v in out.items()}


def _fall(model: Model, t: np.ndarray, full: Cell, log_size: np.ndarray) -> np.ndarray:
    """dL/dt of the best size's loss; the best size itself adds nothing, as dL/dsize = 0 there."""
    moved = {**full, "sparsity": -np.expm1(-Jet(t, {"t": 1.0}))}
    moved = model.with_taught_params(moved, full.get("taught_log_size"))
    return slope_of(model.loss(log_size, moved), "t")


def _intervals(grid: np.ndarray, losses: np.ndarray, slopes: np.ndarray) -> list[np.ndarray]:
    """For every cell the first points of the two intervals whose dip could be lowest (-1: none), by their tangents."""
    step, falls, rises = grid[1] - grid[0], slopes[:, :-1], slopes[:, 1:]
    turn = (falls < 0) & (rises > 0)
    if not turn.any():
        return []
    along = (losses[:, 1:] - losses[:, :-1] - rises * step) / np.where(turn, falls - rises, 1.0)
    reach = np.where(turn, losses[:, :-1] + falls * along, np.inf)
    out = []
    for _ in range(2):
        first = reach.argmin(axis=1)
        good = np.take_along_axis(reach, first[:, None], axis=1)[:, 0] <= losses.min(axis=1)
        out.append(np.where(good, first, -1))
        np.put_along_axis(reach, first[:, None], np.inf, axis=1)
    return out


def _dips(losses: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    """For every cell the inner grid points with the lowest loss and with the second lowest dip (-1: none)."""
    inner = np.zeros(losses.shape, bool)
    inner[:, 1:-1] = (losses[:, 1:-1] < losses[:, :-2]) & (losses[:, 1:-1] <= losses[:, 2:])
    best = np.where((index > 0) & (index < losses.shape[1] - 1), index, -1)
    np.put_along_axis(inner, index[:, None], False, axis=1)
    values = np.where(inner, losses, np.inf)
    second = values.argmin(axis=1)
    near = values.min(axis=1) <= losses.min(axis=1) + NEAR
    return [best, np.where(near, second, -1)]


def _between(
    model: Model,
    flat: Cell,
    grid: np.ndarray,
    ladder: Mapping[str, np.ndarray],
    start: np.ndarray,
    t: np.ndarray,
    loss: np.ndarray,
    solved: np.ndarray,
) -> None:
    """Solve dL/dt = 0 in the interval after grid point `start`, where there is one; keep what is lower.

    `solved`: the loss just beside is not lower, as it may be where the best size sits on a kink.
    """
    there = start >= 0
    if not there.any():
        return
    rows, first = np.flatnonzero(there), start[there]
    ends = {name: (values[rows, first], values[rows, first + 1]) for name, values in ladder.items()}
    low, step = grid[first], grid[1] - grid[0]
    guess = low + step * ends["slope"][0] / (ends["slope"][0] - ends["slope"][1])
    bend = (ends["slope"][1] - ends["slope"][0]) / step
    context = {**select(flat, there), **{f"{n}_{i}": ends[n][i] for n in ("size", "taught") for i in (0, 1)}}
    context["low"] = low

    def slope(x, cell):
        full, log_size, _ = _near(model, x, cell, step)
        return _fall(model, x, full, log_size)

    found, done = secant(slope, context, guess, bend, steps=10)
    found = np.where(done & (found > low) & (found < low + step), found, guess)
    below, its, above = (_near(model, found + by, context, step)[2] for by in (-_BESIDE, 0.0, _BESIDE))
    lower = its < loss[there]
    t[rows[lower]], loss[rows[lower]] = found[lower], its[lower]
    solved[rows] = np.where(lower, its <= np.minimum(below, above) * (1 + 1e-15), solved[rows])


def _near(model: Model, t: np.ndarray, cell: Cell, step: float) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The cells at t, their best log size and its loss, sought between those at the ends of the interval."""
    own = {n: v for n, v in cell.items() if n != "low" and not n.endswith(("_0", "_1"))}
    share = np.clip((t - cell["low"]) / step, 0.0, 1.0)
    taught, size = (cell[f"{n}_0"] * (1 - share) + cell[f"{n}_1"] * share for n in ("taught", "size"))
    full = model.with_taught_params({**own, "sparsity": -np.expm1(-t)}, taught)
    bend = np.full(np.shape(t), 0.1)
    log_size, done = secant(model.slope, full, size, bend, steps=8)
    loss = np.array(np.broadcast_to(model.loss(log_size, full), np.shape(t)))
    strayed = ~done | (np.abs(log_size - size) > _APART) | np.isnan(loss)
    if strayed.any():
        log_size[strayed], loss[strayed], _ = best_size(model, select(full, strayed))
    return full, log_size, loss


def _by_value(
    model: Model, flat: Cell, grid: np.ndarray, middle: np.ndarray, where: np.ndarray, t: np.ndarray, loss: np.ndarray
) -> None:
    """Minimise the best size's loss itself between the neighbours of a grid point; keep what is lower."""

    def envelope(x, cell):
        found = best_size(model, model.with_taught_params({**cell, "sparsity": -np.expm1(-x)}))
        return np.where(np.isnan(found.loss), np.inf, found.loss)

    low, high = (grid[np.clip(middle + by, 0, len(grid) - 1)] for by in (-1, 1))
    near, _ = minimum(envelope, flat, low, grid[middle], high, where)
    there = np.flatnonzero(where & np.isfinite(near))
    if not len(there):
        return
    its = envelope(near[there], select(flat, np.isin(np.arange(len(t)), there)))
    lower = its < loss[there]
    t[there[lower]], loss[there[lower]] = near[there[lower]], its[lower]
