"""The page of a fit: its runs with their names, its coefficients, which runs pull them, and their profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.text import coordinate, number
from moesim.pages.views import Section
from moesim.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

_NAMED = ("total_params", "active_params", "nonembedding_params", "sparsity", "experts", "tokens", "unique_tokens")
_TOLD = 40  # letters of a run's own columns


def view(dataset: xr.Dataset) -> list[Section]:
    """The sections of a fit; none for a table of several."""
    if not {"estimate", "predicted", "residual"} <= set(dataset.data_vars):
        return []
    found = [_coefficients(dataset), _runs(dataset)]
    found += [_pulls(dataset)] if "influence" in dataset else []
    found += [_profiles(dataset)] if "profile_value" in dataset else []
    advised = str(dataset.attrs.get("next_runs", "")).splitlines()
    return [*found, *([Section("text", "What to run next", {"paragraphs": advised})] if advised else [])]


def _coefficients(dataset: xr.Dataset) -> Section:
    """A row for each coefficient: value, interval, what the runs tell about it."""
    share = f"{float(dataset['level']):.0%} interval" if "level" in dataset else "interval"
    rows = [["coefficient", "estimate", share, "standard error", "role", "the runs tell", "trades off with"]]
    for name in dataset.coefficient.values:
        at = dataset.sel(coefficient=name)
        ends = " to ".join(number(end) for end in at["interval"].values)
        told = [str(at[text].item()) for text in ("role", "identified", "trades_off_with")]
        rows.append([str(name), number(at["estimate"]), ends, number(at["standard_error"]), *told])
    return Section("table", "Coefficients", {"rows": rows})


def _names(dataset: xr.Dataset) -> list[str]:
    """A name for each run: its row, and what it is."""
    there = [name for name in _NAMED if name in dataset and dataset[name].dims == ("run",)]
    kinds = [name for name in dataset.data_vars if dataset[name].dims == ("run",) and dataset[name].dtype.kind in "OU"]
    rows = dataset["row"].values if "row" in dataset.coords else dataset["run"].values
    names = []
    for i, row in enumerate(rows):
        own = [str(dataset[name].values[i])[:_TOLD] for name in kinds]
        told = [f"{VARIABLES[name].symbol} {coordinate(name, dataset[name].values[i])}" for name in there]
        names.append(f"row {row}: {', '.join([*own, *told])}")
    return names


def _groups(dataset: xr.Dataset, x: Any, y: Any) -> list[dict[str, Any]]:
    """The runs as points: those that were fitted, and hollow those that were held out."""
    names, held = np.array(_names(dataset), dtype=object), dataset["held_out"].values.astype(bool)
    groups = (("fitted", ~held, 0), ("held out", held, 1))
    return [
        {
            "name": name,
            "x": x[some],
            "y": y[some],
            "labels": list(names[some]),
            "colour": colour,
            "hollow": colour == 1,
            "size": 3,
        }
        for name, some, colour in groups
        if some.any()
    ]


def _runs(dataset: xr.Dataset) -> Section:
    """Observed against predicted, and what is left."""
    predicted = dataset["predicted"].values
    observed = predicted * np.exp(dataset["residual"].values)
    ends = [float(np.nanmin(predicted)), float(np.nanmax(predicted))]
    loss = {"label": "predicted", "how": "plain"}
    fitted = {
        "title": "Observed against predicted",
        "file": "predicted",
        "x": loss,
        "y": {"label": "observed", "how": "plain"},
        "points": _groups(dataset, predicted, observed),
        "lines": [{"name": "the law", "x": ends, "y": ends, "colour": 6, "thin": True, "quiet": True}],
    }
    left = {
        "title": "What the law leaves",
        "file": "residuals",
        "x": loss,
        "y": {"label": "observed/predicted - 1 (%)", "how": "plain"},
        "points": _groups(dataset, predicted, 100.0 * np.expm1(dataset["residual"].values)),
        "rules": [{"y": 0.0, "text": ""}],
    }
    return Section("plot", "Runs", {"panels": [fitted, left], "note": "A run is named where the pointer is on it."})


def _pulls(dataset: xr.Dataset) -> Section:
    """For each coefficient that the runs move: by how many standard errors each run pulls it."""
    free = [name for name in dataset.coefficient.values if dataset["influence"].sel(coefficient=name).notnull().any()]
    place = np.arange(dataset.sizes["run"], dtype=float)
    note = (
        "By how many standard errors each run pulls a coefficient: the estimate less that without it, to first order."
    )
    frames = [
        {
            "text": str(name),
            "spec": {
                "title": f"Pull on {name}",
                "file": f"pull_{name}",
                "x": {"label": "run", "how": "plain"},
                "y": {"label": "standard errors", "how": "plain"},
                "points": _groups(dataset, place, dataset["influence"].sel(coefficient=name).values),
                "rules": [{"y": 0.0, "text": ""}],
            },
        }
        for name in free
    ]
    return Section("plot", "Which runs pull a coefficient", {"frames": frames, "choose": "coefficient", "note": note})


def _profiles(dataset: xr.Dataset) -> Section:
    """How the objective rises as each coefficient is held away from its estimate."""
    panels = []
    for name in dataset.free_coefficient.values:
        at = dataset.sel(free_coefficient=name)
        value, objective = at["profile_value"].values, at["profile_objective"].values
        order = np.argsort(value)
        rise = (objective - float(dataset["profile_lowest"]))[order]
        panels.append(
            {
                "title": str(name),
                "file": f"profile_{name}",
                "height": 240,
                "x": {
                    "label": str(name),
                    "how": "plain",
                    "log": bool((value > 0).all() and value.max() > 50 * value.min()),
                },
                "y": {"label": "rise of the objective", "how": "plain"},
                "lines": [{"name": "profile", "x": value[order], "y": rise, "colour": 0, "marks": True}],
                "rules": [{"x": float(dataset["estimate"].sel(coefficient=name)), "text": "estimate"}],
            }
        )
    return Section("plot", "Profiles", {"panels": panels})
