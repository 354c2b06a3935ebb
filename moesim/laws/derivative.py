"""Derivatives of a formula from the formula itself, by forward-mode dual numbers over NumPy ufuncs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

_LN2, _LN10 = np.log(2.0), np.log(10.0)

# For each ufunc: its partial derivatives, one function (out, *arguments) -> array for each argument.
_PARTIALS: dict[np.ufunc, tuple] = {
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
    np.exp: (lambda out, x: out,),
    np.expm1: (lambda out, x: out + 1.0,),
    np.log: (lambda out, x: 1.0 / x,),
    np.log1p: (lambda out, x: 1.0 / (1.0 + x),),
    np.log2: (lambda out, x: 1.0 / (_LN2 * x),),
    np.log10: (lambda out, x: 1.0 / (_LN10 * x),),
    np.tanh: (lambda out, x: 1.0 - out * out,),
    np.minimum: (lambda out, x, y: _less(x, y), lambda out, x, y: 1.0 - _less(x, y)),
    np.maximum: (lambda out, x, y: _less(y, x), lambda out, x, y: 1.0 - _less(y, x)),
}
_PREDICATES = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
_PREDICATES |= {np.isfinite, np.isinf, np.isnan, np.sign}


def value_of(x: Any) -> Any:
    """The plain number or array under any nesting of Duals."""
    return value_of(x.value) if isinstance(x, Dual) else x


def _positive(x: Any) -> Any:
    return np.where(value_of(x) > 0, x, 1.0)  # so that 0**y has derivative 0 in y, not NaN


def _power_slope(out: Any, x: Any, y: Any) -> Any:
    """y x^(y-1); 0 where x = 0 and the slope is infinite, so that a constant 0^y has derivative 0, not inf x 0."""
    zero = value_of(x) == 0
    return np.where(zero, 1.0 * (value_of(y) == 1), out * y / np.where(zero, 1.0, x))


def _less(x: Any, y: Any) -> Any:
    return np.asarray(value_of(x) < value_of(y), dtype=float)


class Dual(NDArrayOperatorsMixin):
    """A value with its tangents along `k` directions.

    `value` is a number or array; `tangent` broadcasts against it, with a leading axis of k for k directions at once
    (then it needs as many trailing axes as any array it meets). NumPy ufuncs and
    `np.where` carry the tangents along, so any formula of theirs is differentiated as it stands. Values may
    themselves be Duals, which gives second derivatives.
    """

    __array_priority__ = 1000

    def __init__(self, value: Any, tangent: Any):
        self.value, self.tangent = value, tangent

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            return NotImplemented
        if ufunc in _PREDICATES:
            return ufunc(*map(value_of, args))
        if ufunc not in _PARTIALS:
            raise TypeError(f"no derivative is known for numpy.{ufunc.__name__}")
        plain = [a.value if isinstance(a, Dual) else a for a in args]
        out = ufunc(*plain)
        terms = [
            partial(out, *plain) * arg.tangent
            for partial, arg in zip(_PARTIALS[ufunc], args, strict=True)
            if isinstance(arg, Dual)
        ]
        return Dual(out, sum(terms[1:], start=terms[0]))

    def __array_function__(self, func: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        if func is not np.where or kwargs:
            return NotImplemented
        condition, x, y = args
        parts = [(a.value, a.tangent) if isinstance(a, Dual) else (a, 0.0) for a in (x, y)]
        condition = value_of(condition)
        return Dual(
            np.where(condition, parts[0][0], parts[1][0]),
            np.where(condition, parts[0][1], parts[1][1]),
        )
