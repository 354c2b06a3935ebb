"""A law inside a repetition: one loss, and the one solver of the size that the unique tokens can teach.

A `path` (log_size, cell) -> quantities says what grows with the size: planning's is an architecture, fitting's scales
the parameters of a run. It gives the law's inputs and `flops_per_token`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.forms import Form
from moesim.laws.repetition import Repetition
from moesim.numerics.derivative import Jet, slope_of, value_of
from moesim.numerics.elementwise import crossing, secant, shape_of, turn

Cell = Mapping[str, Any]
Path = Callable[[Any, Cell], Mapping[str, Any]]
_TYPICAL_EXPONENT = 0.3
_COARSE = 4  # points of the grid in one step, where the first of several optima is looked for
_DENSE = {"sparsity": 0.0, "density": 1.0, "activation_ratio": 1.0}


def dense(cell: Cell) -> dict[str, Any]:
    """The cell of a model without sparsity: as many experts as are active, as many parameters as are active."""
    out = {name: _DENSE.get(name, value) for name, value in cell.items()}
    if "experts" in cell:
        out["experts"] = cell.get("active_experts", 1.0)
    if "active_params" in cell and "total_params" in cell:
        share = cell["active_params"] / cell["total_params"]
        out |= {name: cell[name] * share for name in ("total_params", "nonembedding_params") if name in cell}
    return out


@dataclass(frozen=True)
class Wrapped:
    """A law's form and the repetition around it, as one loss of quantities and coefficients."""

    form: Form
    repetition: Repetition

    def loss(
        self, quantities: Cell, taught_params: Any, law: Mapping[str, Any], repetition: Mapping[str, Any] | None
    ) -> Any:
        """Loss in nat/token; `law` and `repetition` are coefficients, `taught_params` are of the counted kind."""
        effective, penalty = self.repetition.apply(quantities, taught_params, repetition)
        loss = self.form.function(**{name: effective[name] for name in self.form.inputs}, **law)
        if isinstance(penalty, float) and penalty == 0.0:
            return loss  # a sum costs a pass
        return loss + (penalty(loss) if callable(penalty) else penalty)

    def taught_params(
        self, path: Path, cell: Cell, law: Mapping[str, Any], log_size: np.ndarray, **how: Any
    ) -> tuple[Any, Any]:
        """What the unique tokens can teach, by the repetition's anchor: parameters of the counted kind, and log size.

        Infinite where U is unlimited or more parameters always help; the log size is NaN if the anchor is a number.
        Values of cell and law may be Jets; `how`: see `taught`.
        """
        if not isinstance(self.repetition.taught, str):
            return self.repetition.taught * cell["unique_tokens"], np.nan
        if self.repetition.taught == "dense":
            cell = dense(cell)
        size = self.taught(path, cell, law, log_size, **how)
        infinite = np.isinf(size)
        params = self.repetition.counted(path(np.where(infinite, 0.0, size), cell))
        return np.where(infinite, np.inf, params), size

    def taught(
        self,
        path: Path,
        cell: Cell,
        law: Mapping[str, Any],
        log_size: np.ndarray,
        near: Any = None,
        several: bool = False,
    ) -> Any:
        """Log size of the compute-optimal model for one pass over the cell's unique tokens.

        There N dL/dN = D dL/dD at D = U. Sought from `near`, and where that fails on the grid `log_size`, whose ends
        stand for a size beyond it; inf where U is unlimited or more parameters always help. Where there may be
        `several` (embeddings can make them) it is the first along the grid that is a minimum. Values of cell and law
        may be Jets, whose derivatives then go through the optimum.
        """
        context = {**cell, **{f"law.{name}": value for name, value in law.items()}}
        plain = {name: value_of(value) for name, value in context.items()}
        found = self._solved(path, plain, log_size, near, several)
        if not any(isinstance(value, Jet) for value in context.values()):
            return found
        return self._with_derivatives(path, context, found)

    def _solved(self, path: Path, context: Cell, log_size: np.ndarray, near: Any, several: bool) -> np.ndarray:
        unlimited = np.isinf(context["unique_tokens"])
        context = {**context, "unique_tokens": np.where(unlimited, 1.0, context["unique_tokens"])}

        def gain(x, cell):
            by_size, by_tokens = self._gains(path, x, cell)
            return np.log(by_size / by_tokens)

        def slope(x, cell):
            by_size, by_tokens = self._gains(path, x, cell)
            return by_size - by_tokens

        middle = np.log(context["unique_tokens"] / 20.0) if near is None else near
        start = np.broadcast_to(middle, shape_of(context))
        found, done = secant(gain, context, start, -_TYPICAL_EXPONENT)
        if several:
            first, coarse = turn(slope, context, log_size[::_COARSE]), log_size[::_COARSE]
            low = np.clip(first, 0, len(coarse) - 2)
            done &= (first == low) & (found >= coarse[low]) & (found <= coarse[low + 1])
        if not (done | unlimited).all():
            found = np.where(done, found, np.maximum(crossing(slope, context, log_size), log_size[0]))
        return np.where(unlimited, np.inf, found)

    def _gains(self, path: Path, x: Any, cell: Cell) -> tuple[Any, Any]:
        """dL / d log size at fixed tokens, and at fixed size by the tokens that the same compute would add instead."""
        at = path(Jet(x, {"x": 1.0}, level=3), cell)
        flops, unique = at["flops_per_token"], cell["unique_tokens"]
        tokens = Jet(unique, {"D": unique * flops.first["x"] / flops.value}, level=3)
        inputs = {**at, "tokens": tokens, "unique_tokens": unique, "compute": flops.value * unique}
        coefficients = {name: cell[f"law.{name}"] for name in self.form.coefficients}
        loss = self.form.function(**{name: inputs[name] for name in self.form.inputs}, **coefficients)
        return slope_of(loss, "x"), slope_of(loss, "D")

    def _with_derivatives(self, path: Path, context: Cell, found: np.ndarray) -> Jet:
        """The root with its derivatives: one more Newton step, taken with values that carry derivatives."""
        finite = np.isfinite(found)
        x = np.where(finite, found, 0.0)
        plain = {name: value_of(value) for name, value in context.items()}
        by_size, by_tokens = self._gains(path, Jet(x, {"x": 1.0}, level=2), plain)
        slope = slope_of(by_size, "x") - slope_of(by_tokens, "x")
        by_size, by_tokens = self._gains(path, x, context)
        gain = by_size - by_tokens
        good = finite & np.isfinite(slope) & (slope != 0.0)
        slope = np.where(good, slope, 1.0)
        moving = gain.first if isinstance(gain, Jet) else {}
        return Jet(found, {key: np.where(good, -part / slope, 0.0) for key, part in moving.items()})
