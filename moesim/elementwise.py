"""Search in every cell at once: scan a grid for a bracket, then refine with SciPy's elementwise root finder.

A function here is f(x, context): `context` maps names to numbers or arrays whose shapes broadcast to the cells, and f
works alike on a block of the cells and on a flat selection of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Context = Mapping[str, Any]
CELLS_IN_CACHE = 2**17
CELLS_IN_SCAN = 2**19


def shape_of(context: Context) -> tuple[int, ...]:
    """The broadcast shape of all arrays of the context."""
    return np.broadcast_shapes(*(np.shape(value) for value in context.values()))


def blocks(shape: tuple[int, ...], cells: int = CELLS_IN_CACHE) -> Iterator[tuple[slice, ...]]:
    """Slices that cover `shape` in blocks of about `cells`; the longest axes are cut first."""
    sizes = list(shape)
    while np.prod(sizes, dtype=float) > cells and max(sizes) > 1:
        axis = int(np.argmax(sizes))
        sizes[axis] = max(1, int(sizes[axis] * cells / np.prod(sizes, dtype=float)))
    for corner in np.ndindex(*(-(-n // size) for n, size in zip(shape, sizes, strict=True))):
        yield tuple(slice(i * size, (i + 1) * size) for i, size in zip(corner, sizes, strict=True))


def part(value: Any, block: tuple[slice, ...]) -> Any:
    """The block of an array that broadcasts to the cells (its axes of length 1 are kept whole)."""
    if np.ndim(value) == 0:
        return value
    own = block[len(block) - value.ndim :]
    return value[tuple(cut if n > 1 else slice(None) for cut, n in zip(own, value.shape, strict=True))]


def parts(context: Context, block: tuple[slice, ...]) -> dict[str, Any]:
    """The block of every array of the context."""
    return {name: part(value, block) for name, value in context.items()}


def _along_grid(f: Callable[..., Any], context: Context, grid: np.ndarray, reduce: Callable[..., Any]) -> Any:
    """reduce(f over the grid as last axis) for every cell, block by block."""
    shape = shape_of(context)
    out = None
    for block in blocks(shape, max(1, CELLS_IN_SCAN // len(grid))):
        cell = {name: value[..., None] if np.ndim(value) else value for name, value in parts(context, block).items()}
        with np.errstate(all="ignore"):
            values = np.asarray(f(grid, cell))
        result = reduce(np.where(np.isnan(values), np.inf, values))
        out = np.empty(shape, dtype=result.dtype) if out is None else out
        out[block] = result
    return out


def lowest(f: Callable[..., Any], context: Context, grid: np.ndarray) -> np.ndarray:
    """Index of the grid point with the lowest f, for every cell (NaN counts as inf)."""
    return _along_grid(f, context, grid, lambda values: values.argmin(axis=-1))


def crossing(f: Callable[..., Any], context: Context, grid: np.ndarray) -> np.ndarray:
    """Where f first turns from negative to positive along the ascending grid; inf where it stays negative, -inf else.

    Solved to rounding by `scipy.optimize.elementwise.find_root`, for every cell.
    """

    def first_turn(values):
        turns = (values[..., :-1] < 0) & (values[..., 1:] >= 0)
        none = np.where(values[..., -1] < 0, len(grid), -1)
        return np.where(turns.any(axis=-1), turns.argmax(axis=-1), none)

    index = _along_grid(f, context, grid, first_turn)
    inside = (index >= 0) & (index < len(grid))
    low = np.clip(index, 0, len(grid) - 2)
    x, _ = root(f, context, grid[low], grid[low + 1])
    return np.where(inside, x, np.where(index < 0, -np.inf, np.inf))


def root(f: Callable[..., Any], context: Context, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A root of f between low and high and whether it was found, for every cell; f(low), f(high) differ in sign."""
    from scipy.optimize import elementwise

    names = [name for name, value in context.items() if np.ndim(value)]
    fixed = {name: value for name, value in context.items() if not np.ndim(value)}
    args = tuple(np.broadcast_to(context[name], np.shape(low)) for name in names)
    with np.errstate(all="ignore"):
        found = elementwise.find_root(
            lambda x, *cells: np.asarray(f(x, {**fixed, **dict(zip(names, cells, strict=True))})),
            (low, high),
            args=args,
            tolerances={"xatol": 1e-12, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0},
        )
    return np.asarray(found.x), np.asarray(found.success)


def minimum(
    f: Callable[..., Any], context: Context, low: np.ndarray, middle: np.ndarray, high: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of f bracketed by low < middle < high and whether it was found, in the cells `where`; NaN elsewhere.

    By `scipy.optimize.elementwise.find_minimum`, to the rounding of f.
    """
    from scipy.optimize import elementwise

    x, found = np.full(np.shape(where), np.nan), np.zeros(np.shape(where), bool)
    if where.any():
        names = [name for name, value in context.items() if np.ndim(value)]
        fixed = {name: value for name, value in context.items() if not np.ndim(value)}
        args = tuple(np.broadcast_to(context[name], where.shape)[where] for name in names)
        with np.errstate(all="ignore"):
            result = elementwise.find_minimum(
                lambda x, *cells: np.asarray(f(x, {**fixed, **dict(zip(names, cells, strict=True))})),
                (low[where], middle[where], high[where]),
                args=args,
            )
        x[where], found[where] = result.x, result.success
    return x, found
