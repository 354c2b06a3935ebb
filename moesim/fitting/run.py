"""The driver of `moesim fit`: a resolved config to a fit, its Dataset, coefficient files, figures and table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moesim.config import read
from moesim.fitting import figures, tables
from moesim.fitting.files import files
from moesim.fitting.fit import fit
from moesim.fitting.model import Target, target_from
from moesim.fitting.repeated import compare, rolling
from moesim.fitting.result import Fit
from moesim.fitting.runs import RunsWarning, runs_from
from moesim.output.result import Result

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# Mappings whose keys are the user's own.
OPEN = (
    "compare",
    "fit.fixed",
    "fit.tied",
    "fit.prior",
    "fit.bounds",
    "fit.start",
    "fit.holdout",
    "runs.where",
    "runs.columns",
)
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ()


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/fit.yaml` asks for: one fit, or with `compare` several in one table."""
    if config.get("compare"):
        return _compared(config)
    runs, notes = _runs(config, {})
    fitted = fit(_target(config, {}), runs, **config["fit"])
    dataset, ahead = fitted.to_dataset(), None
    if config.get("rolling"):
        ahead = rolling(fitted, config["rolling"])
        dataset = dataset.assign({f"rolling_{name}": values for name, values in ahead.data_vars.items()})
    drawn = figures.draw(fitted) if config["figures"] else {}
    said = (*notes, *fitted.warnings)
    table = tables.table(dataset.assign_attrs(warnings=""))  # they are said once, above it
    table += "" if ahead is None else f"\n{tables.rolling(ahead)}"
    texts = files(fitted, draws="fit.nc")
    return Result(dataset, table=table, file="fit.nc", figures=drawn, texts=texts, warnings=said)


def keys(_: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them."""
    return {"repetition": dict.fromkeys(("excess", "taught"))}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    settings = config.get("fit") or {}
    objective, compared = settings.get("objective"), bool(config.get("compare"))
    out = {}
    if not compared and objective != "asymmetric_huber_log":
        out["fit.above"] = f"on fit.objective={objective}"
    if compared and config.get("rolling"):
        out["rolling"] = "beside compare"
    if not compared and config.get("folds"):
        out["folds"] = "without compare"
    if not compared and "huber" not in str(objective):
        out["fit.delta"] = f"on fit.objective={objective}"
    return out


def compared(dataset: xr.Dataset) -> tuple[str, dict[str, Figure]]:
    """The answer of a multirun: one table and one figure of its fits, from its collected Dataset."""
    return tables.collected(dataset), {"comparison": figures.compared(dataset)} if "interval" in dataset else {}


def _compared(config: Mapping[str, Any]) -> Result:
    """Each entry of `compare` changes the law, the repetition, `where` of the runs, or keys of `fit`."""
    fits: dict[str, Fit] = {}
    lines: list[str] = []
    for name, given in config["compare"].items():
        changes = dict(given or {})
        runs, notes = _runs(config, changes)
        target = _target(config, changes)
        settings = {key: value for key, value in changes.items() if key not in _PARTS}
        fits[name] = fit(target, runs, **{**config["fit"], **settings})
        lines += [f"{name}: {line}" for line in (*notes, *fits[name].warnings)]
    dataset = compare(fits, config.get("folds") or 0, config["fit"]["seed"])
    drawn = figures.draw_comparison(fits) if config["figures"] else {}
    texts = {f"{name}_{file}": text for name, one in fits.items() for file, text in files(one).items()}
    table = tables.comparison(dataset)
    return Result(dataset, table=table, file="comparison.nc", figures=drawn, texts=texts, warnings=tuple(lines))


_PARTS = ("law", "repetition", "where")


def _runs(config: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The runs, and what is to be said about them."""
    content = dict(config["runs"])
    content["where"] = {**(content.get("where") or {}), **changes.get("where", {})}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RunsWarning)
        runs = runs_from(config["choices"]["runs"], content)
    return runs, tuple(str(one.message) for one in caught if issubclass(one.category, RunsWarning))


def _target(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Target:
    """The config's law and repetition, or those named by the changes."""
    names = {group: changes.get(group, config["choices"][group]) for group in ("law", "repetition")}
    parts = {group: read(group, names[group]) if group in changes else config[group] for group in names}
    return target_from(names["law"], parts["law"], names["repetition"], parts["repetition"])
