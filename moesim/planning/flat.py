"""How flat a loss is around its optimum: the sizes within a tolerance of it, and what a fitted parabola would say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.numerics.elementwise import root, secant, select, shape_of
from moesim.planning.model import Model
from moesim.planning.size import Found

Cell = Mapping[str, Any]
_TRIAL = 0.5  # in log size: a first step away from the optimum
_OUTWARD = np.r_[0.05 * 1.3 ** np.arange(24), np.inf]  # in log size: further and further away, and to the end
_POINTS = 9  # on which a parabola is fitted: about as many sizes as published isoFLOP curves have


def tolerated(model: Model, cell: Cell, found: Found, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The log sizes below and above the best whose loss is `tolerance` (nat/token) higher; the end of the grid if none.

    Solved in the square root of the rise, which is nearly straight.
    """
    return _edge(model, cell, found, tolerance, -1.0), _edge(model, cell, found, tolerance, 1.0)


def _edge(model: Model, cell: Cell, found: Found, tolerance: float, side: float) -> np.ndarray:
    def rise(x, cell):
        return np.sqrt(np.maximum(model.loss(x, cell) - cell["best"], 0.0) / tolerance) - 1.0

    def away(x, cell):
        return side * rise(x, cell)

    context = {**cell, "best": found.loss}
    steps = 1.0 + rise(found.log_size + side * _TRIAL, context)
    width = _TRIAL / np.clip(steps, 0.05, 20.0)
    x, done = secant(away, context, found.log_size + side * width, 1.0 / width, steps=12, within=1e-4)
    grid = model.architecture.log_size
    ok = done & (side * (x - found.log_size) > 0) & (x >= grid[0]) & (x <= grid[-1])
    if (lost := ~ok & np.isfinite(found.loss)).any():
        x[lost] = _by_bracket(model, select(context, lost), found.log_size[lost], side, tolerance)
    return np.where(np.isfinite(found.loss), x, np.nan)


def _by_bracket(model: Model, cell: Cell, best: np.ndarray, side: float, tolerance: float) -> np.ndarray:
    """The first crossing outward at ever longer steps, then by root; the end of the grid if there is none."""
    end = model.architecture.log_size[-1 if side > 0 else 0]
    x = best[:, None] + np.minimum(side * (end - best)[:, None], _OUTWARD) * side
    wide = {name: value[:, None] if np.ndim(value) else value for name, value in cell.items()}
    above = model.loss(x, wide) - wide["best"] > tolerance
    first, crosses, rows = above.argmax(axis=1), above.any(axis=1), np.arange(len(x))
    inner, outer = np.where(first > 0, x[rows, np.maximum(first - 1, 0)], best), x[rows, first]
    out = np.full(len(x), end)
    if crosses.any():
        ends = np.stack([inner, outer][:: int(side)])[:, crosses]
        out[crosses], _ = root(lambda x, c: model.loss(x, c) - c["best"] - tolerance, select(cell, crosses), *ends)
    return out


def parabola(model: Model, cell: Cell, found: Found, window: float) -> np.ndarray:
    """The log size at the vertex of a parabola fitted to the loss from 1/window to window times the best size."""
    u = np.linspace(-1.0, 1.0, _POINTS)
    linear, square = u / np.sum(u**2), u**2 - np.mean(u**2)
    square = square / np.sum(square**2)
    wide = {name: value[..., None] if np.ndim(value) else value for name, value in cell.items()}
    half = np.log(window)
    losses = np.broadcast_to(
        model.loss(found.log_size[..., None] + half * u, wide), (*np.broadcast_shapes(shape_of(cell)), _POINTS)
    )
    slope, bend = losses @ linear, losses @ square
    return found.log_size - np.where(bend > 0, half * slope / (2.0 * bend), np.nan)
