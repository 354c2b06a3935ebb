"""A fit as coefficient files that `law=` and `repetition=` take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moesim.fitting.result import Fit


def files(fit: Fit, draws: str = "") -> dict[str, str]:
    """law.yaml, and repetition.yaml if there is one: the fit as coefficient files, name -> content.

    `draws`: the name of the fit.nc beside them, from which they take the spread of the coefficients.
    """
    more = {"draws": draws} if draws and fit.draws is not None else {}
    return {f"{group}.yaml": _yaml({**content, **more}) for group, content in contents(fit).items()}


def contents(fit: Fit) -> dict[str, dict[str, Any]]:
    """The content of each coefficient file, by group."""
    found = {"law": _law_file(fit)}
    if fit.task.target.repetition.form.name != "none":
        found["repetition"] = _repetition_file(fit)
    return found


def _law_file(fit: Fit) -> dict[str, Any]:
    law = fit.law
    return {
        "name": law.name,
        "form": law.form.name,
        "source": law.source,
        "marking": law.marking,
        "coefficients": {name: float(value) for name, value in law.coefficients.items()},
        "definitions": dict(law.definitions),
        "data_range": {name: [low, high] for name, (low, high) in law.data_range.items()},
        "caveats": [_summary(fit), *fit.warnings],
    }


def _repetition_file(fit: Fit) -> dict[str, Any]:
    target = fit.task.target
    values = target.repetition_values(fit.estimate)
    return {
        "form": target.repetition.form.name,
        "excess": target.repetition.excess,
        "taught": target.repetition.taught,
        "source": f"fit of {target.title} to runs {fit.runs.attrs.get('runs', 'given')}",
        "marking": "fitted",
        "coefficients": {name: float(value) for name, value in values.items()},
        "caveats": [_summary(fit), "It belongs to the law fitted with it.", *fit.warnings],
    }


def _summary(fit: Fit) -> str:
    return (
        f"Objective {fit.objective:.10g} ({fit.task.objective.name}) on {int((~fit.outside).sum())} runs; status:"
        f" {fit.status}; seed {fit.settings.get('seed', 0)}."
    )


def _yaml(content: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create({key: value for key, value in content.items() if value not in ({}, "")}))
