"""Derivatives of a formula from the formula itself, by forward-mode automatic differentiation over NumPy ufuncs.

A `Jet` carries one partial derivative for each named direction that really occurs: a formula of many coefficients,
each in one term only, costs little more than its value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from moesim.errors import InputError

_LN2, _LN10 = np.log(2.0), np.log(10.0)

# For each ufunc: its partial derivatives, one function (out, *arguments) -> array for each argument.
PARTIALS: dict[np.ufunc, tuple] = {
    np.negative: (lambda out, x: -1.0,),
    np.positive: (lambda out, x: 1.0,),
    np.absolute: (lambda out, x: np.sign(value_of(x)),),
    np.add: (lambda out, x, y: 1.0, lambda out, x, y: 1.0),
    np.subtract: (lambda out, x, y: 1.0, lambda out, x, y: -1.0),
    np.multiply: (lambda out, x, y: y, lambda out, x, y: x),
    np.divide: (lambda out, x, y: 1.0 / y, lambda out, x, y: -out / y),
    np.power: (lambda out, x, y: _power_slope(out, x, y), lambda out, x, y: out * np.log(_positive(x))),
    np.square: (lambda out, x: 2.0 * x,),
    np.sqrt: (lambda out, x: 0.5 / out,),
    np.reciprocal: (lambda out, x: -out * out,),
    np.cbrt: (lambda out, x: out / (3.0 * x),),
    np.exp: (lambda out, x: out,),
    np.exp2: (lambda out, x: _LN2 * out,),
    np.expm1: (lambda out, x: out + 1.0,),
    np.log: (lambda out, x: 1.0 / x,),
    np.log1p: (lambda out, x: 1.0 / (1.0 + x),),
    np.log2: (lambda out, x: 1.0 / (_LN2 * x),),
    np.log10: (lambda out, x: 1.0 / (_LN10 * x),),
    np.tanh: (lambda out, x: 1.0 - out * out,),
    np.sin: (lambda out, x: np.cos(x),),
    np.cos: (lambda out, x: -np.sin(x),),
    np.arctan: (lambda out, x: 1.0 / (1.0 + x * x),),
    np.logaddexp: (lambda out, x, y: np.exp(x - out), lambda out, x, y: np.exp(y - out)),
    np.minimum: (lambda out, x, y: _less(x, y), lambda out, x, y: 1.0 - _less(x, y)),
    np.maximum: (lambda out, x, y: _less(y, x), lambda out, x, y: 1.0 - _less(y, x)),
}
_PREDICATES = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
_PREDICATES |= {np.isfinite, np.isinf, np.isnan, np.sign}


def value_of(x: Any) -> Any:
    """The plain number or array under any nesting of Jets."""
    return value_of(x.value) if isinstance(x, Jet) else x


def slope_of(x: Any, direction: Any) -> Any:
    """The partial derivative of x in a direction, of x's shape; 0 if it has none."""
    partial = x.first.get(direction, 0.0) if isinstance(x, Jet) else 0.0
    return partial if isinstance(partial, Jet) else np.broadcast_arrays(partial, value_of(x))[0]


def _positive(x: Any) -> Any:
    return np.where(value_of(x) > 0, x, 1.0)  # so that 0**y has derivative 0 in y, not NaN


def _power_slope(out: Any, x: Any, y: Any) -> Any:
    """y x^(y-1); 0 where x = 0 and the slope is infinite, so that a constant 0^y has derivative 0, not inf x 0."""
    zero = value_of(x) == 0
    if not np.any(zero):
        return out * y / x
    return np.where(zero, 1.0 * (value_of(y) == 1), out * y / np.where(zero, 1.0, x))


def _less(x: Any, y: Any) -> Any:
    return np.asarray(value_of(x) < value_of(y), dtype=float)


class Jet(NDArrayOperatorsMixin):
    """A value with its partial derivatives `first`, a mapping of direction to array; a direction not named has none.

    Each partial broadcasts against the value. Jets may hold Jets of a lower `level` (value and partials alike), which
    gives mixed second derivatives: operands of a lower level are constants to the higher one.
    """

    __slots__ = ("first", "level", "value")
    __array_priority__ = 1000

    def __init__(self, value: Any, first: dict[Any, Any], level: int = 0):
        self.value, self.first, self.level = value, first, level

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            return NotImplemented
        if ufunc in _PREDICATES:
            return ufunc(*map(value_of, args))
        if ufunc not in PARTIALS:
            known = ", ".join(sorted(u.__name__ for u in PARTIALS))
            raise InputError(f"no derivative is known for numpy.{ufunc.__name__}; a fitted formula takes {known}")
        level = max(a.level for a in args if isinstance(a, Jet))
        moving = [isinstance(a, Jet) and a.level == level for a in args]
        plain = [a.value if moves else a for a, moves in zip(args, moving, strict=True)]
        out = _power(*plain) if ufunc is np.power else ufunc(*plain)
        first: dict[Any, Any] = {}
        for partial, arg, moves in zip(PARTIALS[ufunc], args, moving, strict=True):
            if moves:
                _add_scaled(first, arg.first, partial(out, *plain))
        return Jet(out, first, level)

    def __array_function__(self, func: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        if func is not np.where or kwargs:
            return NotImplemented
        condition, x, y = value_of(args[0]), args[1], args[2]
        if np.all(condition):
            return x
        if not np.any(condition):
            return y
        level = max(a.level for a in (x, y) if isinstance(a, Jet))
        pairs: Any = ((a.value, a.first) if isinstance(a, Jet) and a.level == level else (a, {}) for a in (x, y))
        (vx, fx), (vy, fy) = pairs
        first = {k: np.where(condition, fx.get(k, 0.0), fy.get(k, 0.0)) for k in {**fx, **fy}}
        return Jet(np.where(condition, vx, vy), first, level)


def _add_scaled(total: dict[Any, Any], partials: dict[Any, Any], slope: Any) -> None:
    unit = isinstance(slope, float) and slope == 1.0  # additions pass partials on without a pass over the array
    for key, partial in partials.items():
        term = partial if unit else slope * partial
        total[key] = total[key] + term if key in total else term


def _power(x: Any, y: Any) -> Any:
    """x**y; for a fixed positive x as exp(y log x), whose logarithm is of the small array and exp is a fast loop."""
    if isinstance(x, Jet) or not isinstance(y, np.ndarray) or np.any(x <= 0.0):
        return x**y
    return np.exp(y * np.log(x))
