"""A fit to a file and back: `fit.nc`, which `moesim fit` writes and `Fit.save` too, holds all that a Fit is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import Draws
from moesim.fitting.fit import posed
from moesim.fitting.model import target_from
from moesim.fitting.profile import Profile
from moesim.fitting.result import Fit
from moesim.fitting.solve import STATUSES, Solution
from moesim.fitting.task import Optimum
from moesim.fitting.uncertainty import spread
from moesim.output.store import open_result

if TYPE_CHECKING:
    import xarray as xr

_WORDS = ("", *STATUSES)  # of profile points, "" where there is none
_MADE = ("predicted", "residual", "held_out")  # of the fit, not of the runs


def load_fit(path: str | Path) -> Fit:
    """The Fit that `fitted.save(path)` or `moesim fit` wrote; path of a fit.nc, or of the directory with one.

    A law or repetition of one's own must be registered (imported) first. Raises InputError for a file that is no fit.
    """
    return fit_of(open_result(path), str(path))


def fit_of(data: xr.Dataset, owner: str = "the Dataset") -> Fit:
    """The Fit that a Dataset (`Fit.to_dataset`) records; InputError if it records none."""
    if "fit_settings" not in data.attrs:
        raise InputError(f"{owner} is no fit of this version; give what moesim fit wrote, or Fit.to_dataset()")
    law, repetition, settings = (json.loads(data.attrs[f"fit_{part}"]) for part in ("law", "repetition", "settings"))
    target = target_from(data.attrs["law"], law, data.attrs["repetition"], repetition)
    runs, outside = _runs(data), data["held_out"].values.astype(bool)
    task = posed(target, runs, outside, settings).with_prior_scale(float(data["prior_scale"]))
    x = data["estimate_x"].values
    return Fit(
        task,
        _optimum(data, x),
        spread(task, x),
        runs,
        outside,
        float(data["level"]),
        _draws(data, task.parameters),
        _profile(data, task.parameters),
        settings,
    )


def _runs(data: xr.Dataset) -> xr.Dataset:
    mine = [name for name, values in data.data_vars.items() if values.dims == ("run",) and name not in _MADE]
    attrs = {"runs": data.attrs["runs"], "source": data.attrs.get("runs_source", "")}
    return data[mine].reset_coords(drop=True).assign_coords(row=data["row"]).assign_attrs(attrs)


def _status(words: xr.DataArray) -> np.ndarray:
    return np.array([STATUSES.index(word) for word in words.values], dtype=int)


def _optimum(data: xr.Dataset, x: np.ndarray) -> Optimum:
    status, n = _status(data["start_status"]), data.sizes["start"]
    ends = Solution(
        np.full((n, len(x)), np.nan), data["start_objective"].values, status, np.full(n, np.nan), np.zeros(n)
    )
    return Optimum(x, float(data["objective"]), STATUSES.index(data["status"].item()), np.nan, ends)


def _draws(data: xr.Dataset, parameters: Any) -> Draws | None:
    if "draws" not in data:
        return None
    table = {name: data["draws"].sel(coefficient=name).values for name in parameters.free}
    return Draws(parameters.many_x_of(table), data["draw_objective"].values, _status(data["draw_status"]))


def _profile(data: xr.Dataset, parameters: Any) -> Profile | None:
    if "profile_freedom" not in data:
        return None
    points = data.sizes["point"]
    return Profile(
        data["profile_x"].values,
        data["profile_objective"].values,
        np.array([_WORDS.index(word) for word in data["profile_status"].values.ravel()]).reshape(-1, points) - 1,
        data["profile_ends"].values,
        float(data["profile_lowest"]),
        data["profile_scale"].values,
        float(data["profile_freedom"]),
        tuple(map(str, data["profile_shape"].values)),
    )
