"""The space of a sweep: axes aligned to common dims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.axes import axis
from moesim.variables import VARIABLES, check

if TYPE_CHECKING:
    from moesim.planning.model import Model

# Dims in Datasets: coefficients first, then these, then any other, the size axis last.
_AXES = ("compute", "sparsity", "experts", "unique_tokens", "tokens")
_ORDER = ("compute", "tokens", "sparsity", "experts", "unique_tokens")
SIZES = ("active_params", "total_params")
_EITHER = (("compute", "tokens"), ("sparsity", "experts"), SIZES)


@dataclass(frozen=True)
class Space:
    """Axes aligned to common dims: what a model is evaluated on.

    `sizes` maps each dim to its length, `coords` each dim that has one to its values, `context` each varying name to
    an array with one axis per dim (of length 1 where it does not vary) or a number.
    """

    sizes: Mapping[str, int]
    coords: Mapping[str, Any]
    context: Mapping[str, Any]

    @classmethod
    def of(cls, model: Model, axes: Mapping[str, Any]) -> Space:
        """The space spanned by `axes` (name -> number, 1-D array, range or DataArray) and the model's own arrays.

        A name is a variable that planning can vary or a field of the architecture. Raises InputError for anything
        else, and for values outside the variable's domain or dims of different lengths.
        """
        fields = model.architecture.fields
        accepted = (*_AXES, *SIZES, *fields)
        for one, other in _EITHER:
            if one in axes and other in axes:
                raise InputError(f"axes {one} and {other}: each gives the other; give one of them")
        arrays = dict(model.varying())
        for name, value in axes.items():
            if name not in accepted:
                raise InputError(f"axis {name!r}: no such axis; there are {', '.join(accepted)}{_how(name, model)}")
            domain = VARIABLES[name].domain if name not in fields else model.architecture.form.coefficients[name].domain
            values = value if hasattr(value, "dims") else axis(name, value)
            arrays[f"architecture.{name}" if name in fields else name] = check("axis", name, values, domain)
        return cls._aligned({name: _labelled(name, value) for name, value in arrays.items()}, model)

    @classmethod
    def _aligned(cls, arrays: Mapping[str, Any], model: Model) -> Space:
        sizes, coords = {}, {}
        for name, array in arrays.items():
            _merge(name, array, sizes, coords)
        dims = sorted(sizes, key=_rank)
        coords.update({_dim(name): ((), array.item()) for name, array in arrays.items() if not array.dims})
        context = {name: _expanded(array, dims) for name, array in arrays.items()}
        if "experts" in context:
            active = model.architecture.describe(0.0, 0.0, model.fields(context))["active_experts"]
            sparsity = 1.0 - active / context.pop("experts")
            context["sparsity"] = check("axis experts", "sparsity", sparsity, VARIABLES["sparsity"].domain)
        defaults = {"sparsity": 0.0, "unique_tokens": np.inf}
        return cls({dim: sizes[dim] for dim in dims}, coords, {**defaults, **context})

    def variable(self, array: Any, without: tuple[str, ...] = ()) -> tuple[list[str], np.ndarray]:
        """Dims and values of an aligned array, without the dims along which it does not vary and those named."""
        array = np.asarray(array)
        if array.ndim == 0:
            return [], array
        kept = {
            d: n for (d, n), own in zip(self.sizes.items(), array.shape, strict=True) if own == n and d not in without
        }
        return list(kept), array.reshape(list(kept.values()))


def _how(name: str, model: Model) -> str:
    """Where a coefficient is made an axis: not here, but on the law or the repetition."""
    of_law = name.rpartition(".")[2] in model.law.coefficients
    if not of_law and name.rpartition(".")[2] not in model.repetition.coefficients:
        return ""
    load = "load_law" if of_law else "load_repetition"
    own = name.rpartition(".")[2]
    return f"; a coefficient is given by {load}(NAME, {own}=xarray.DataArray([...], dims={own!r}))"


def _rank(dim: str) -> tuple[int, ...]:
    known = (*_ORDER, None, *SIZES)
    return (known.index(dim) if dim in known else known.index(None) if dim in VARIABLES else -1,)


def _labelled(name: str, value: Any) -> Any:
    """A DataArray: of no dims for a number, along its own name (without prefix) for a 1-D array, labelled by itself."""
    import xarray as xr

    if hasattr(value, "dims"):
        unlabelled = value.dims == (_dim(name),) and _dim(name) not in value.coords
        return value.assign_coords({_dim(name): value.values}) if unlabelled else value
    if np.ndim(value) == 0:
        return xr.DataArray(value)
    if np.ndim(value) > 1:
        raise InputError(f"{name}: an array of {np.ndim(value)} dims needs names for them; give a DataArray")
    return xr.DataArray(value, dims=[_dim(name)], coords={_dim(name): value})


def _dim(name: str) -> str:
    return name.rpartition(".")[2]


def _merge(name: str, array: Any, sizes: dict[str, int], coords: dict[str, Any]) -> None:
    """Add the array's dims and coordinates to those so far; InputError if they differ or a dim is empty."""
    for dim, length in array.sizes.items():
        if not length or sizes.setdefault(str(dim), length) != length:
            other = "; it is empty" if not length else f" here and {sizes[str(dim)]} elsewhere"
            raise InputError(f"axis {name}: dim {dim!r} has length {length}{other}")
    for key, coord in array.coords.items():
        if not coords.setdefault(str(key), coord.variable).equals(coord.variable):
            raise InputError(f"axis {name}: dim {key!r} has other labels here than elsewhere; make them agree")
    if array.dims and "." not in name and name not in array.dims:  # values along another dim, say of runs
        coords.setdefault(name, array.variable)


def _expanded(array: Any, dims: list[str]) -> Any:
    """The values with one axis for each of `dims`, of length 1 where the array has no such dim."""
    if not array.dims:
        return float(array)
    own = [dim for dim in dims if dim in array.dims]
    return array.transpose(*own).values.reshape([array.sizes.get(dim, 1) for dim in dims])
