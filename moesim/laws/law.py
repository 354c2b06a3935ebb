"""Law and the registry of loss formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.forms import Coefficient, Form, outside
from moesim.output.text import Page, brief, shown
from moesim.registry import Registry
from moesim.variables import POSITIVE_OR_INF, VARIABLES, check

__all__ = ["FORMS", "Coefficient", "Form", "Law", "law"]


_LIMITS = {"tokens": POSITIVE_OR_INF}  # a law has a limit there that a run cannot reach

FORMS: Registry[Form] = Registry("law")


def law(
    source: str,
    /,
    *,
    reports: Mapping[str, Callable[..., Any]] | None = None,
    predicts: str = "loss",
    **coefficients: Coefficient,
):
    """Register a law: decorate a function of variables (positional) and coefficients (keyword-only).

    `source` cites paper and equation. `reports` names further quantities of the same arguments that sweeps write
    beside the loss. `predicts`: the variable that it gives, which a fit takes from the runs. The function itself is
    returned unchanged.
    """

    def register(function):
        form = Form.of(function, source, coefficients, reports=reports or {}, predicts=predicts)
        unknown = [name for name in (*form.inputs, predicts) if name not in VARIABLES]
        if unknown:
            raise TypeError(f"{form.name}: {unknown[0]!r} is not in the table of variables")
        FORMS.add(form)
        return function

    return register


@shown
@dataclass(frozen=True)
class Law:
    """A form with a set of coefficient values and what is known about them.

    Call it with its inputs by name (`law.inputs`); numbers, arrays that broadcast, or DataArrays give what
    `form.predicts`: the loss in nat/token, for most. Coefficients may be DataArrays, e.g. with a `draw` dim.
    `data_range` maps a variable to the (lowest, highest) value in the runs behind the coefficients; planning flags what
    lies outside, and everything if it is empty.
    """

    name: str
    form: Form
    coefficients: Mapping[str, Any]
    source: str = ""
    marking: str = ""
    definitions: Mapping[str, str] = field(default_factory=dict)
    data_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "coefficients", self.form.check_coefficients(self.name, self.coefficients))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the variables that the law takes."""
        return self.form.inputs

    @property
    def dense(self) -> bool:
        """Whether the runs behind the law were all of dense models."""
        return self.data_range.get("sparsity") == (0.0, 0.0)

    def __call__(self, *unnamed: Any, **inputs: Any) -> Any:
        """What the form predicts (loss in nat/token).

        InputError for an unnamed, unknown, missing, non-numeric or out-of-domain input.

        `tokens` may be inf: the loss with unlimited data.
        """
        if unnamed:
            named = ", ".join(f"{name}=..." for name in self.inputs)
            raise InputError(f"{self.name}: the value {unnamed[0]!r} has no name; write law({named})")
        return self._evaluate(self.form.function, inputs)

    def report(self, name: str, **inputs: Any) -> Any:
        """A further quantity that the law reports (`law.form.reports`), from the same inputs."""
        if name not in self.form.reports:
            raise InputError(f"{self.name}: no report {name!r}; it has {', '.join(self.form.reports) or 'none'}")
        return self._evaluate(self.form.reports[name], inputs)

    def with_coefficients(self, **values: Any) -> Law:
        """The same law with some coefficients replaced."""
        return replace(self, coefficients={**self.coefficients, **values})

    def outside(self, quantities: Mapping[str, Any]) -> Any:
        """Whether any of the quantities lies outside the law's data range (None if the range names none of them)."""
        return outside(self.data_range, quantities)

    def _page(self) -> Page:
        gives = self.form.predicts
        takes = f"Law {self.name}: {self.form.name}({', '.join(self.inputs)}), {gives} in {VARIABLES[gives].unit}"
        return [takes, self.coefficients, brief(self.source)]

    def _evaluate(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        takes = f"it takes {', '.join(self.inputs)}"
        for name in inputs:
            if name not in self.inputs:
                raise InputError(f"{self.name}: unknown input {name!r}; {takes}")
        for name in self.inputs:
            if name not in inputs:
                raise InputError(f"{self.name}: no value for input {name!r}; {takes}")
        self._check_dims(inputs)
        values = {
            name: check(self.name, name, inputs[name], _LIMITS.get(name, VARIABLES[name].domain))
            for name in self.inputs
        }
        try:
            return function(**values, **self.coefficients)
        except ValueError as error:  # of numpy or xarray, unless it is the law's own
            shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in inputs.items() if np.ndim(value))
            if isinstance(error, InputError) or not shapes:
                raise
            raise InputError(f"{self.name}: the shapes {shapes} do not broadcast; give arrays that do") from error

    def _check_dims(self, inputs: Mapping[str, Any]) -> None:
        """An array without names for its dims must not be paired with coefficients that have some."""
        dims = {str(dim) for value in self.coefficients.values() for dim in getattr(value, "dims", ())}
        bare = [name for name, value in inputs.items() if np.ndim(value) and not getattr(value, "dims", ())]
        if dims and bare:
            raise InputError(
                f"{self.name}: {bare[0]} is an array without dims, and the coefficients have the dim"
                f" {', '.join(sorted(dims))}; give a DataArray with dims, or use the law at one value of each"
                " coefficient (fitted.law)"
            )
