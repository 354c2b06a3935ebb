"""Formulas on a product of axes: a term that lacks some of them is worked out once, on those it has; the whole, once.

A formula of a `Late` is remembered, not worked out. `write` then works out its terms on their own axes and puts them
together slab by slab, straight into the result, so that no temporary array leaves the cache.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from moesim.numerics.elementwise import part, slabs

_CELLS = 2**17  # of a slab: 1 MiB an array


class Late(NDArrayOperatorsMixin):
    """function(*args) of arrays that broadcast, not yet worked out; `Late(np.asarray, x)` makes a formula's input late.

    Functions of NumPy that are not elementwise get the array that it stands for.
    """

    __slots__ = ("args", "function", "shape", "value")
    __array_priority__ = 1000

    def __init__(self, function: Callable[..., Any], *args: Any):
        self.function, self.args, self.value = function, args, None
        self.shape = np.broadcast_shapes(*(a.shape if isinstance(a, Late) else np.shape(a) for a in args))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        return Late(ufunc, *args) if method == "__call__" and not kwargs else NotImplemented

    def __array_function__(self, func: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        if func is np.where and len(args) == 3:
            return Late(np.where, *args)
        return func(*(a.__array__() if isinstance(a, Late) else a for a in args), **kwargs)

    def __pow__(self, power: Any) -> Late:
        return Late(operator.pow, self, power)  # as of arrays, which square instead

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The array, worked out at the first call and kept."""
        if self.value is None:
            first = tuple(slice(0, 1) for _ in self.shape)
            out = np.empty(self.shape, np.asarray(self._at(first, {})).dtype)
            self.write(out)
            self.value = out
        return np.array(self.value, dtype, copy=copy)

    def write(self, out: np.ndarray) -> None:
        """Fill an array, to whose shape this broadcasts."""
        self._settle(set())
        for slab in slabs(out.shape, _CELLS):
            self._put(out[(*slab, ...)], slab)

    def _settle(self, seen: set[int]) -> None:
        """Work out every term of fewer cells."""
        for arg in self.args:
            if isinstance(arg, Late) and id(arg) not in seen:
                seen.add(id(arg))
                arg._settle(seen) if arg.shape == self.shape else arg.__array__()

    def _put(self, out: np.ndarray, slab: tuple[slice, ...]) -> None:
        known: dict[int, Any] = {}
        if self.value is None and isinstance(self.function, np.ufunc):
            self.function(*(_at(arg, slab, known) for arg in self.args), out=out)
        else:
            out[...] = _at(self, slab, known)

    def _at(self, slab: tuple[slice, ...], known: dict[int, Any]) -> Any:
        if self.value is not None:
            return part(self.value, slab)
        if id(self) not in known:
            known[id(self)] = self.function(*(_at(arg, slab, known) for arg in self.args))
        return known[id(self)]


def _at(value: Any, slab: tuple[slice, ...], known: dict[int, Any]) -> Any:
    return value._at(slab, known) if isinstance(value, Late) else part(value, slab)
