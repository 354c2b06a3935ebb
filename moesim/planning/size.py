"""The size with the lowest loss in every cell: bracketed on a grid, solved as a root of the exact slope.

Nothing that was seen on the way is lower than what is found: neither a point of the grid or its ends, nor another dip,
nor a kink of the loss (where tokens pass the unique ones, or counted parameters what the data can teach).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from moesim.numerics.elementwise import dips, minimum, root, secant, select, shape_of
from moesim.planning.model import Model
from moesim.planning.space import SIZES

Cell = Mapping[str, Any]

STATUS = np.array(["inside", "at lower bound", "at upper bound", "failed", "infeasible", "two dips", "flat"])
INSIDE, LOWER, UPPER, FAILED, INFEASIBLE, TWO, FLAT = range(7)
NEAR = 0.05  # nat/token: another dip no deeper than this below or above is solved too, and said
LEVEL = 1e-4  # nat/token: where a size STEP away is no more than this above the best, the loss is flat
STEP = np.log(1.3)  # in log active parameters
_APART = 0.1  # in log active parameters: nearer dips are one
_EQUAL = 1e-14  # relative: losses that differ by less are equal
_BESIDE = 1e-6  # in log size: where the slopes beside a kink are taken
_FURTHER = 1e-3  # in log size: where the losses beside a kink are taken
_TRIAL = 1e-4  # in log size: a step that tells the bend of the loss
_SAME = 1e-4  # in log size: nearer sizes are the same optimum
_PLATEAU = 1e-10  # in loss / log size^2: less is rounding
_FINE = 25  # points within a bracket whose loss is not smooth


class Found(NamedTuple):
    """Log size, loss and status (an index of STATUS) of the best size in every cell."""

    log_size: np.ndarray
    loss: np.ndarray
    status: np.ndarray


def fixed(cell: Cell) -> str | None:
    """The size that the cell gives, if any."""
    return next((name for name in SIZES if name in cell), None)


def best_size(model: Model, cell: Cell) -> Found:
    """The best size of every cell, which must hold its taught parameters; or the size that the cell gives."""
    found = lowest(model, cell)
    if not fixed(cell) and "compute" in cell:
        found.status[_flat(model, cell, found)] = FLAT
    return found


def lowest(model: Model, cell: Cell, within: float = 1e-10) -> Found:
    """`best_size`, without saying where it is flat; the log size to about `within`."""
    if given := fixed(cell):
        return _given_size(model, cell, given)
    if "compute" not in cell:
        return _of_tokens(model, cell)
    scan = dips(model.loss, cell, model.architecture.log_size, NEAR)
    found = _dip(model, cell, scan.best, scan.low, scan.middle, scan.high, within)
    for rival in np.moveaxis(scan.rivals, -1, 0):
        if (there := rival >= 0).any():
            _settle(model, found, there, _rival(model, select(cell, there), rival[there], within))
    for kink in model.kinks(cell):
        _add_kink(model, cell, found, np.broadcast_to(kink, found.loss.shape))
    return found


def _given_size(model: Model, cell: Cell, given: str) -> Found:
    wanted = {name: value for name, value in cell.items() if name.startswith((given, "sparsity", "architecture."))}
    log_size = model.architecture.size_of(given, wanted, model.fields)
    feasible = np.isfinite(log_size)
    log_size = np.where(feasible, log_size, np.nan)
    loss = np.broadcast_to(model.loss(log_size, cell), shape_of(cell))
    return Found(log_size, loss, np.where(feasible, INSIDE, INFEASIBLE))


def _of_tokens(model: Model, cell: Cell) -> Found:
    """The size whose own compute-optimum takes the cell's tokens; infeasible where no optimum takes just as many.

    A root of dL / d log size at constant compute; of several, the first that is an optimum indeed.
    """

    def with_compute(x, cell):
        flops = model.described(x, cell)["flops_per_token"]
        return {**{n: v for n, v in cell.items() if n != "tokens"}, "compute": cell["tokens"] * flops}

    def slope(x, cell):
        return model.slope(x, with_compute(x, cell))

    shape, grid = shape_of(cell), model.architecture.log_size
    found = Found(np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, INFEASIBLE))
    wide = {name: value[..., None] if np.ndim(value) else value for name, value in cell.items()}
    slopes = np.broadcast_to(slope(grid, wide), (*shape, len(grid)))
    turns = (slopes[..., :-1] < 0) & (slopes[..., 1:] >= 0)
    while (there := turns.any(axis=-1) & (found.status == INFEASIBLE)).any():
        first = turns[there].argmax(axis=-1)
        turns[np.nonzero(there) + (first,)] = False
        some = select(cell, there)
        x, _ = root(slope, some, grid[first], grid[first + 1])
        own = best_size(model, with_compute(x, some))
        good = np.abs(own.log_size - x) < _SAME
        for values, its in zip(found, (x, own.loss, own.status), strict=True):
            values[there] = np.where(good, its, values[there])
    return found


def _dip(model: Model, cell: Cell, index: np.ndarray, below: Any, here: Any, above: Any, within: float) -> Found:
    """The minimum next to a point of the grid whose loss is `here`, between neighbours with the losses beside it."""
    grid, last = model.architecture.log_size, len(model.architecture.log_size) - 1
    step, middle = grid[1] - grid[0], grid[index]
    inner = (index > 0) & (index < last)
    bend = (below + above - 2.0 * here) / step**2
    bend = np.where(np.abs(bend) < _PLATEAU, 0.0, bend)
    vertex = np.where(inner & (bend > 0), (below - above) / (2.0 * step * bend), 0.0)
    log_size, done = secant(model.slope, cell, middle + vertex, np.where(bend > 0, bend, 1.0), 8, within)
    loss = model.loss(log_size, cell)
    good = done & inner & (np.abs(log_size - middle) <= step) & (loss <= here * (1 + _EQUAL))
    status = np.select([index == 0, index == last], [LOWER, UPPER], INSIDE)
    found = Found(np.where(good, log_size, middle), np.where(good, loss, here), status)
    if not (good | ~np.isfinite(here)).all():
        there = ~good & np.isfinite(here)
        around = grid[np.maximum(index[there] - 1, 0)], grid[np.minimum(index[there] + 1, last)]
        _replace(found, there, _carefully(model, select(cell, there), *around))
    found.status[~np.isfinite(found.loss)] = FAILED
    return found


def _rival(model: Model, cell: Cell, index: np.ndarray, within: float) -> Found:
    below, here, above = (model.loss(model.architecture.log_size[index + by], cell) for by in (-1, 0, 1))
    return _dip(model, cell, index, below, here, above, within)


def _settle(model: Model, found: Found, there: np.ndarray, other: Found) -> None:
    """Take the lower of two dips; say so where they are apart and the other is nearly as deep."""
    tied = _apart(model, other.log_size - found.log_size[there]) & (np.abs(other.loss - found.loss[there]) < NEAR)
    tied &= np.isin(found.status[there], (INSIDE, TWO)) & (other.status == INSIDE)
    lower = other.loss < found.loss[there]
    for mine, theirs in zip(found, other, strict=True):
        mine[there] = np.where(lower, theirs, mine[there])
    found.status[there] = np.where(tied, TWO, found.status[there])


def _apart(model: Model, distance: np.ndarray) -> np.ndarray:
    return np.abs(distance) > _APART / model.architecture.power


def _replace(found: Found, there: np.ndarray, other: tuple[np.ndarray, np.ndarray]) -> None:
    """Put in sizes and losses where they are lower; at an end of the grid that makes it an inner optimum."""
    log_size, loss = other
    lower = loss < found.loss[there] * (1 - _EQUAL)
    found.log_size[there] = np.where(lower, log_size, found.log_size[there])
    found.loss[there] = np.where(lower, loss, found.loss[there])
    found.status[there] = np.where(lower & (found.status[there] != TWO), INSIDE, found.status[there])


def _add_kink(model: Model, cell: Cell, found: Found, kink: np.ndarray) -> None:
    """Search around a kink where it is lower than what was found, or hides a second dip beside it; say if it is one."""
    grid = model.architecture.log_size
    inside = (kink > grid[0]) & (kink < grid[-1])
    if not inside.any():
        return
    at = np.where(inside, kink, found.log_size)
    loss = model.loss(at, cell)
    lower = inside & (loss < found.loss * (1 - _EQUAL))
    away = _apart(model, kink - found.log_size) & inside & (np.abs(loss - found.loss) < NEAR)
    beside = inside & ~lower & (np.abs(kink - found.log_size) < 2.0 * (grid[1] - grid[0]))
    if beside.any():  # rising before it and falling after it
        there, x = select(cell, beside), at[beside]
        beside[beside] = (model.slope(x - _BESIDE, there) > 0) & (model.slope(x + _BESIDE, there) < 0)
    if away.any():  # rising on both sides, where the loss beside the other dip has been seen to
        there, x, its = select(cell, away), at[away], np.broadcast_to(loss, at.shape)[away]
        rises = (model.loss(x + by, there) > its * (1 + _EQUAL) for by in (-_FURTHER, _FURTHER))
        away[away] = np.logical_and(*rises)
    if (there := lower | beside).any():
        place = np.clip(np.searchsorted(grid, kink[there]), 2, len(grid) - 2)
        _replace(found, there, _carefully(model, select(cell, there), grid[place - 2], grid[place + 1]))
    found.status[away & (found.status == INSIDE)] = TWO


def _flat(model: Model, cell: Cell, found: Found) -> np.ndarray:
    """Whether a size STEP below or above is as good as the best, to LEVEL; of those inside."""
    here = model.described(found.log_size, cell)["active_params"]
    grows = np.log(model.described(found.log_size + _FURTHER, cell)["active_params"] / here) / _FURTHER
    rises = (model.loss(found.log_size + by * STEP / grows, cell) - found.loss for by in (-1.0, 1.0))
    return (np.minimum(*rises) < LEVEL) & (found.status == INSIDE)


def _carefully(model: Model, cell: Cell, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest loss between low and high, flat, where it may have kinks and two dips: on a fine grid, then solved."""
    kinks = [np.broadcast_to(kink, low.shape) for kink in model.kinks(cell)]
    own = [np.where((kink > low) & (kink < high), kink, low) for kink in kinks]
    x = np.sort(np.concatenate([np.linspace(low, high, _FINE, axis=-1), *(k[:, None] for k in own)], axis=-1), axis=-1)
    wide = {name: value[:, None] if np.ndim(value) else value for name, value in cell.items()}
    values = np.broadcast_to(model.loss(x, wide), x.shape)
    values = np.where(np.isnan(values), np.inf, values)
    best = values.argmin(axis=-1)
    log_size, loss = _lowest_near(model, cell, x, values, best)
    inner = np.zeros(values.shape, bool)
    inner[:, 1:-1] = (values[:, 1:-1] < values[:, :-2]) & (values[:, 1:-1] <= values[:, 2:])
    np.put_along_axis(inner, best[:, None], False, axis=-1)
    two = np.asarray(inner.any(axis=-1))
    if two.any():
        second = np.where(inner[two], values[two], np.inf).argmin(axis=-1)
        other, its = _lowest_near(model, select(cell, two), x[two], values[two], second)
        lower = its < loss[two]
        log_size[two], loss[two] = np.where(lower, other, log_size[two]), np.where(lower, its, loss[two])
    return log_size, loss


def _lowest_near(model: Model, cell: Cell, x: np.ndarray, values: np.ndarray, index: np.ndarray):
    """The minimum between the neighbours of a point of x, by value and then by slope; at least as low as the point."""
    rows, last = np.arange(len(x)), x.shape[-1] - 1
    low, middle, high = (x[rows, np.clip(index + by, 0, last)] for by in (-1, 0, 1))
    log_size, loss = middle.copy(), values[rows, index]
    within = (low < middle) & (middle < high) & np.isfinite(loss)
    near, _ = minimum(model.loss, cell, low, middle, high, within)
    near = np.where(np.isnan(near), middle, near)
    bend = (model.slope(near + _TRIAL, cell) - model.slope(near - _TRIAL, cell)) / (2.0 * _TRIAL)
    exact, done = secant(model.slope, cell, near, bend, steps=12)
    for candidate in (near, np.where(done & (low <= exact) & (exact <= high), exact, near)):
        its = np.broadcast_to(model.loss(candidate, cell), loss.shape)
        lower = its <= loss * (1 + 1e-15)
        log_size, loss = np.where(lower, candidate, log_size), np.where(lower, its, loss)
    return log_size, loss
