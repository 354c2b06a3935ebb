"""Coefficient and Form: a published formula with its declared coefficients, for laws, repetition and architectures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Self

from moesim.errors import InputError
from moesim.variables import POSITIVE, Domain, check


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of a form, declared once.

    `unit`, `domain` (accepted values) and `typical` (a range where fits start; tests and docs use it too).
    """

    unit: str = "1"
    typical: tuple[float, float] = (0.1, 10.0)
    domain: Domain = POSITIVE


@dataclass(frozen=True)
class Form:
    """A published formula: a plain function with its declared coefficients, its source and what it predicts."""

    name: str
    function: Callable[..., Any]
    source: str
    coefficients: Mapping[str, Coefficient]
    inputs: tuple[str, ...]
    reports: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    predicts: str = "loss"

    @classmethod
    def of(
        cls, function: Callable[..., Any], source: str, coefficients: Mapping[str, Coefficient], **extra: Any
    ) -> Self:
        """The Form of a function whose positional arguments are inputs and whose keyword-only ones are coefficients."""
        kinds = {name: p.kind for name, p in inspect.signature(function).parameters.items()}
        declared = [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
        if set(declared) != set(coefficients):
            raise TypeError(f"{function.__name__}: declared coefficients {list(coefficients)} != arguments {declared}")
        inputs = tuple(name for name, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY)
        return cls(function.__name__, function, source, {c: coefficients[c] for c in declared}, inputs, **extra)

    def check_coefficients(self, owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values in declared order; InputError for an unknown, missing, non-numeric or out-of-domain one."""
        takes = f"it takes {', '.join(self.coefficients)}"
        for name in values:
            if name not in self.coefficients:
                raise InputError(f"{owner}: unknown coefficient {name!r}; {takes}")
        missing = [name for name in self.coefficients if values.get(name) is None]
        if missing:
            raise InputError(f"{owner}: no value for coefficient {missing[0]!r}; {takes}; give {missing[0]}=NUMBER")
        return {c: check(owner, c, values[c], spec.domain) for c, spec in self.coefficients.items()}


def each_outside(data_range: Mapping[str, tuple[float, float]], quantities: Mapping[str, Any]) -> list[Any]:
    """For each of the quantities that the range names, whether it lies outside."""
    return [
        (quantities[name] < low * (1 - 1e-9)) | (quantities[name] > high * (1 + 1e-9))
        for name, (low, high) in data_range.items()
        if name in quantities
    ]


def outside(data_range: Mapping[str, tuple[float, float]], quantities: Mapping[str, Any]) -> Any:
    """Whether any of the quantities lies outside its range (None if the range names none of them)."""
    flags = each_outside(data_range, quantities)
    return reduce(or_, flags) if flags else None
