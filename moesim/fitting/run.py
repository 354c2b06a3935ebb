"""The driver of `moesim fit`: a resolved config to a fit, its Dataset, coefficient files, figures and table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from moesim.fitting import figures, tables
from moesim.fitting.fit import Fit, fit
from moesim.fitting.judge import compare
from moesim.fitting.model import Target, target_from
from moesim.fitting.record import files
from moesim.fitting.runs import RunsWarning, runs_from
from moesim.output.result import Result


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/fit.yaml` asks for: one fit, or with `compare` several laws on the same runs and hold-out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RunsWarning)
        runs = runs_from(config["choices"]["runs"], config["runs"])
    notes = tuple(str(w.message) for w in caught if issubclass(w.category, RunsWarning))
    for other in caught:
        if not issubclass(other.category, RunsWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if config.get("compare"):
        return _compared(config, runs, notes)
    fitted = fit(_target(config), runs, **config["fit"])
    dataset = fitted.to_dataset()
    drawn = figures.draw(fitted) if config["figures"] else {}
    return Result(dataset, tables.table(dataset), "fit.nc", drawn, files(fitted), (*notes, *fitted.warnings))


def _target(config: Mapping[str, Any]) -> Target:
    names = config["choices"]
    return target_from(names["law"], config["law"], names["repetition"], config["repetition"])


def _compared(config: Mapping[str, Any], runs: Any, notes: tuple[str, ...]) -> Result:
    fits: dict[str, Fit] = {}
    for name, changes in config["compare"].items():
        changes = {**(changes or {})}
        law = changes.pop("law", None)
        repetition = changes.pop("repetition", None)
        settings = {**config["fit"], **changes}
        target = _with(config, law, repetition)
        fits[name] = fit(target, runs, **settings)
    dataset = compare(fits)
    lines = tuple(f"{name}: {line}" for name, one in fits.items() for line in one.warnings)
    drawn = figures.draw_comparison(fits) if config["figures"] else {}
    texts = {f"{name}_{file}": text for name, one in fits.items() for file, text in files(one).items()}
    return Result(dataset, tables.comparison(dataset), "comparison.nc", drawn, texts, (*notes, *lines))


def _with(config: Mapping[str, Any], law: str | None, repetition: str | None) -> Target:
    """The config's target with another law or repetition, by name."""
    from moesim import config as conf

    names = dict(config["choices"])
    parts = {"law": config["law"], "repetition": config["repetition"]}
    for group, name in (("law", law), ("repetition", repetition)):
        if name is not None:
            names[group], parts[group] = name, conf.read(group, name)
    return target_from(names["law"], parts["law"], names["repetition"], parts["repetition"])
