"""A fit as one Dataset: `fit.nc`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.design import advice
from moesim.fitting.files import contents as file_contents
from moesim.fitting.isoflop import beside
from moesim.fitting.judge import SCORES, in_sample, out_of_sample
from moesim.fitting.model import contents_of
from moesim.fitting.predict import covered
from moesim.fitting.solve import STATUSES
from moesim.fitting.uncertainty import influence
from moesim.output.provenance import signed
from moesim.planning.formula import carried
from moesim.planning.model import Model

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

_PARTS = ("in sample", "held out")


def record(fit: Fit) -> xr.Dataset:
    """Everything of a fit.

    `estimate(coefficient)`, `role(coefficient)` (free, fixed, tied), `standard_error(coefficient)` (of the coefficient
    itself, from the covariance), `interval(coefficient, bound)` and `level`, `draws(draw, coefficient)` with
    `draw_status(draw)` and `draw_objective(draw)`, `identified(coefficient)`, `trades_off_with(coefficient)`,
    `correlation(coefficient, other)`, `profile_value`, `profile_objective(coefficient, point)` and
    `profile_interval(coefficient, bound)`, `start_objective(start)` and `start_status(start)`, the runs with
    `predicted(run)`, `residual(run)` (log observed - log predicted), `held_out(run)` and `influence(run, coefficient)`
    (fitting.uncertainty), the scores by `part`, and
    along `budget` (FLOP) the allocation: `optimal_NAME(budget)` with `optimal_NAME_interval(budget, bound)`, likewise
    `best_NAME` over sparsity, `optimal_extrapolated`, and `exponent_params(bound)`, `exponent_tokens(bound)`.
    """
    import xarray as xr

    pieces = (_coefficients, _intervals, _draws, _profiles, _starts, _predictions, _scores, _scalars, _allocation)
    data: dict[str, Any] = {}
    for piece in pieces:
        data |= piece(fit)
    sizes = {dim: np.shape(values)[i] for dims, values, *_ in _dimmed(data) for i, dim in enumerate(dims)}
    data |= _columns(fit, {*data, *sizes})
    counted = {dim: np.arange(sizes[dim]) for dim in ("draw", "start", "point") if dim in sizes}
    coords = {
        **counted,
        "run": np.arange(fit.runs.sizes["run"]),
        "coefficient": list(fit.task.parameters.names),
        "bound": ["low", "high"],
        "part": list(_PARTS),
        "row": ("run", np.asarray(fit.runs["row"])),
    }
    attrs = _attributes(fit) | _formula(fit)
    config = {name.removeprefix("fit_"): json.loads(text) for name, text in _described(fit).items()}
    return signed(xr.Dataset(data, coords=coords, attrs=attrs), "fit", {**config, "runs": attrs["runs"]})


def _formula(fit: Fit) -> dict[str, str]:
    """The fitted law as pages compute it; nothing for a law that plans do not take."""
    try:
        return carried(Model(fit), Model(fit.law, fit.repetition))
    except InputError:
        return {}


def _dimmed(data: Mapping[str, Any]) -> list[tuple]:
    """The variables that have dims, as (dims, values)."""
    pairs = (value[:2] for value in data.values() if isinstance(value, tuple))
    return [((dims,) if isinstance(dims, str) else dims, values) for dims, values in pairs]


def _spread_over(fit: Fit, values: Mapping[str, Any], empty: Any) -> np.ndarray:
    """Values of free coefficients for all of them: tied ones get their owner's, fixed ones `empty`."""
    names, owner = fit.task.parameters.names, fit.task.parameters.owner
    return np.array([values.get(owner(name), empty) for name in names])


def _coefficients(fit: Fit) -> dict[str, Any]:
    parameters, found = fit.task.parameters, fit.identification
    roles = ["tied" if n in parameters.tied else "fixed" if n in parameters.fixed else "free" for n in parameters.names]
    slope = np.abs(parameters.slopes(fit.optimum.x[None])[0]) if parameters.free else np.zeros(0)
    error = dict(zip(parameters.free, slope * fit.local.error, strict=True))
    verdict = dict(zip(found.names, found.verdict, strict=True))
    partner = dict(zip(found.names, found.partner, strict=True))
    names, index = parameters.names, {name: j for j, name in enumerate(parameters.free)}
    at = [index.get(parameters.owner(name)) for name in names]
    table = [[np.nan if i is None or j is None else found.correlation[i, j] for j in at] for i in at]
    return {
        "estimate": ("coefficient", [fit.estimate[name] for name in names]),
        "role": ("coefficient", roles),
        "standard_error": ("coefficient", _spread_over(fit, error, 0.0)),
        "identified": ("coefficient", _spread_over(fit, verdict, "fixed")),
        "trades_off_with": ("coefficient", _spread_over(fit, partner, "")),
        "correlation": (("coefficient", "other"), np.array(table, dtype=float).reshape(len(names), -1)),
        "other": ("other", list(names)),
    }


def _ends(fit: Fit, method: str | None = None) -> np.ndarray:
    pairs = {name: list(pair) for name, pair in fit.interval(method=method).items()}
    fixed = [[fit.estimate[name]] * 2 for name in fit.task.parameters.names]
    owner = fit.task.parameters.owner
    return np.array([pairs.get(owner(n), f) for n, f in zip(fit.task.parameters.names, fixed, strict=True)])


def _intervals(fit: Fit) -> dict[str, Any]:
    return {"interval": (("coefficient", "bound"), _ends(fit)), "level": fit.level}


def _draws(fit: Fit) -> dict[str, Any]:
    if fit.draws is None:
        return {}
    return {
        "draws": (("draw", "coefficient"), fit.task.parameters.table(fit.draws.x)),
        "draw_status": ("draw", np.array(STATUSES)[fit.draws.status]),
        "draw_objective": ("draw", fit.draws.objective),
    }


def _profiles(fit: Fit) -> dict[str, Any]:
    found, parameters = fit.profiles, fit.task.parameters
    if found is None:
        return {}
    with np.errstate(over="ignore"):
        pairs = zip(parameters.transforms, found.points, strict=True)
        value = np.array([move.forward(points) for move, points in pairs])
    words = np.array([*STATUSES, ""])  # "" where there is no point
    return {
        "profile_value": (("free_coefficient", "point"), value),
        "profile_x": (("free_coefficient", "point"), found.points),
        "profile_objective": (("free_coefficient", "point"), found.objective),
        "profile_status": (("free_coefficient", "point"), words[found.status]),
        "profile_ends": (("free_coefficient", "bound"), found.interval),
        "profile_lowest": found.lowest,
        "profile_scale": ("free_coefficient", found.scale),
        "profile_freedom": found.freedom,
        "profile_shape": ("free_coefficient", list(found.shape)),
        "profile_interval": (("coefficient", "bound"), _ends(fit, "profile")),
    }


def _starts(fit: Fit) -> dict[str, Any]:
    ends = fit.optimum.ends
    return {
        "start_objective": ("start", ends.objective),
        "start_status": ("start", np.array(STATUSES)[ends.status]),
        "start_share": fit.share,
    }


def _columns(fit: Fit, taken: set[str]) -> dict[str, Any]:
    """The columns of the runs; one that bears a name of the fit's own is renamed."""
    columns = {str(name): ("run", _storable(values.values)) for name, values in fit.runs.data_vars.items()}
    return {f"{name}_column" if name in taken else name: column for name, column in columns.items()}


def _predictions(fit: Fit) -> dict[str, Any]:
    predicted = fit.predict(fit.runs)
    values = predicted[fit.task.target.predicts].values
    found: dict[str, Any] = {"predicted": ("run", values)}
    found["residual"] = ("run", np.log(fit.observed) - np.log(values))
    found["held_out"] = ("run", fit.outside)
    found["influence"] = (
        ("run", "coefficient"),
        _influence(fit),
        {"long_name": "pull of a run", "units": "standard error"},
    )
    if "prediction" in predicted:
        found |= {f"predicted_{n}": (("run", "bound"), predicted[n].values) for n in ("confidence", "prediction")}
    return found


def _influence(fit: Fit) -> np.ndarray:
    """By how many standard errors each run pulls each coefficient; NaN for held-out runs and fixed coefficients."""
    parameters, pulls = fit.task.parameters, influence(fit.task, fit.optimum.x)
    within = np.empty_like(pulls)
    within[fit.task.order] = pulls
    table = np.full((len(fit.outside), len(parameters.names)), np.nan)
    for j, name in enumerate(parameters.names):
        if (owner := parameters.owner(name)) in parameters.free:
            table[~fit.outside, j] = within[:, parameters.free.index(owner)]
    return table


def _storable(values: np.ndarray) -> np.ndarray:
    return values.astype(object) if values.dtype.kind == "U" else values


def _scores(fit: Fit) -> dict[str, Any]:
    inside, outside = in_sample(fit), out_of_sample(fit)
    table = {name: ("part", [inside[name], outside.get(name, np.nan)], {"long_name": SCORES[name]}) for name in SCORES}
    pairs = [covered(fit, part, fit.level) for part in (~fit.outside, fit.outside) if part.any()]
    shares = [hits / n for hits, n in pairs] + [np.nan] * (2 - len(pairs))
    table["coverage"] = ("part", shares, {"long_name": "share of the runs in their prediction intervals"})
    counts = [int((~fit.outside).sum()), int(fit.outside.sum())]
    return {
        **table,
        "runs_used": ("part", counts),
        **{n: inside[n] for n in ("aic", "aicc", "bic") if np.isfinite(inside.get(n, np.inf))},
    }


def _allocation(fit: Fit) -> dict[str, Any]:
    return {**fit.allocated, **beside(fit)}


def _scalars(fit: Fit) -> dict[str, Any]:
    return {
        "objective": fit.objective,
        "status": fit.status,
        "free_coefficients": len(fit.task.parameters.free),
        "free_coefficient": ("free_coefficient", list(fit.task.parameters.free)),
        "estimate_x": ("free_coefficient", fit.optimum.x),
        "prior_scale": fit.task.prior_scale,
    }


def _attributes(fit: Fit) -> dict[str, Any]:
    task, settings = fit.task, fit.settings
    found = {
        "law": task.target.title,
        "form": task.target.form.name,
        "form_source": task.target.form.source,
        "repetition": task.target.repetition.name,
        "excess": task.target.repetition.excess,
        "taught": task.target.repetition.taught,
        "runs": fit.runs.attrs.get("runs", "given"),
        "runs_source": fit.runs.attrs.get("source", ""),
        "objective_name": task.objective.name,
        "seed": settings.get("seed", 0),
        "warnings": "\n".join(fit.warnings),
        "next_runs": "\n".join(advice(fit)),
    }
    return {key: value for key, value in found.items() if value != ""} | _described(fit)


def _described(fit: Fit) -> dict[str, str]:
    """What `load_fit` needs beside the numbers, as attributes: law, repetition and settings, in JSON."""
    law, repetition = contents_of(fit.task.target)
    contents = {"fit_law": law, "fit_repetition": repetition, "fit_settings": fit.settings}
    contents |= {f"{group}_file": content for group, content in file_contents(fit).items()}
    return {name: json.dumps(content, default=_plain) for name, content in contents.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
