"""From size and data to a task: a law of accuracy behind a law of loss, both with their draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.predict import given, losses

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit


def chained(fit: Fit, via: Fit, runs: Any, level: float, seed: int) -> xr.Dataset:
    """What `fit`, a fit of a law of loss, predicts at the losses that the fit `via` predicts; as `Fit.predict`.

    Draw i of the one goes with draw i of the other, so that errors of both are in `confidence`, and the scatter of
    both in `prediction`.
    """
    import xarray as xr

    if fit.task.target.form.inputs != ("loss",) or via.task.target.predicts != "loss":
        raise InputError("predict: via takes the fit of a law that predicts loss, for the fit of a law of loss alone")
    inputs, template = given(via.task, runs)
    at, rng = via.task.target.at(inputs), np.random.default_rng(seed)
    n = min(len(via.usable_x()), len(fit.usable_x()))
    x, y = via.usable_x()[:n], fit.usable_x()[:n]
    loss = losses(via.task, at, x)
    noisy = _scattered(via, loss, rng)
    values = _behind(fit, losses(via.task, at, via.optimum.x[None]), fit.optimum.x[None])[0]
    further = _scattered(fit, _behind(fit, noisy, y), rng)
    found = {fit.task.target.predicts: (template.dims, values.reshape(template.shape))}
    for name, lines in (("confidence", _behind(fit, loss, y)), ("prediction", further)):
        ends = np.quantile(lines, [0.5 - level / 2, 0.5 + level / 2], axis=0).T
        found[name] = ((*template.dims, "bound"), ends.reshape(*template.shape, 2))
    return xr.Dataset(found, coords={**template.coords, "bound": ["low", "high"]})


def _behind(fit: Fit, loss: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The law of loss at losses (points, runs) and points x (points, p): (points, runs)."""
    values = fit.task.target.law_values(fit.task.parameters.values(x, derive=False))
    return fit.task.target.form.function(loss=loss, **values)


def _scattered(fit: Fit, lines: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines with the errors of single runs of a fit on them."""
    noise = rng.choice(fit.task.centred(fit.optimum.x), lines.shape)
    return lines * np.exp(-noise) if fit.task.objective.log else lines - noise
