"""Law and the registry of loss formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moesim.errors import InputError
from moesim.forms import Coefficient, Form, outside
from moesim.registry import Registry
from moesim.variables import POSITIVE_OR_INF, VARIABLES, check

__all__ = ["FORMS", "Coefficient", "Form", "Law", "law"]


_LIMITS = {"tokens": POSITIVE_OR_INF}  # a law has a limit there that a run cannot reach

FORMS: Registry[Form] = Registry("law")


def law(source: str, /, *, reports: Mapping[str, Callable[..., Any]] | None = None, **coefficients: Coefficient):
    """Register a loss law: decorate a function of variables (positional) and coefficients (keyword-only).

    `source` cites paper and equation. `reports` names further quantities of the same arguments that sweeps write
    beside the loss. The function itself is returned unchanged.
    """

    def register(function):
        form = Form.of(function, source, coefficients, reports=reports or {})
        unknown = [name for name in form.inputs if name not in VARIABLES]
        if unknown:
            raise TypeError(f"{form.name}: input {unknown[0]!r} is not in the table of variables")
        FORMS.add(form)
        return function

    return register


@dataclass(frozen=True)
class Law:
    """A form with a set of coefficient values and what is known about them.

    Call it with its inputs by name (`law.inputs`); numbers, arrays that broadcast, or DataArrays give the loss in
    nat/token. Coefficients may be DataArrays, e.g. with a `draw` dim. `data_range` maps a variable to the (lowest,
    highest) value in the runs behind the coefficients; planning flags what lies outside.
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

    def __call__(self, *unnamed: Any, **inputs: Any) -> Any:
        """Loss in nat/token; InputError for an unnamed, unknown, missing, non-numeric or out-of-domain input.

        `tokens` may be inf: the loss with unlimited data.
        """
        if unnamed:
            example = ", ".join(f"{name}=NUMBER" for name in self.inputs)
            raise InputError(f"{self.name}: {_short(unnamed[0])} has no name; give its inputs by name: ({example})")
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

    def _evaluate(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        takes = f"it takes {', '.join(self.inputs)}"
        for name in inputs:
            if name not in self.inputs:
                raise InputError(f"{self.name}: unknown input {name!r}; {takes}")
        for name in self.inputs:
            if name not in inputs:
                raise InputError(f"{self.name}: no value for input {name!r}; {takes}")
        domains = {**{name: VARIABLES[name].domain for name in self.inputs}, **_LIMITS}
        values = {name: check(self.name, name, inputs[name], domains[name]) for name in self.inputs}
        return function(**values, **self.coefficients)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else repr(value)
