"""What a fit minimises: the sum over runs of weight x rho(residual), with the residual of the loss or of its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.variables import POSITIVE, check

Rho = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Objective:
    """A penalty of residuals; residual = predicted - observed, of log loss if `log`, else of loss in nat/token.

    `rho(z)` gives (rho, psi = rho', curvature = psi', weight = psi/z) elementwise. `squared` tells whether the minimum
    is a maximum of a normal likelihood, which AIC and BIC need.
    """

    name: str
    rho: Rho
    log: bool
    squared: bool = False

    def observed(self, loss: np.ndarray) -> np.ndarray:
        """The observed loss on the scale of the residual."""
        return np.log(loss) if self.log else np.asarray(loss, dtype=float)

    def residual(self, predicted: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, Any]:
        """(residual, its derivative in the predicted loss); `observed` is on the scale of the residual."""
        if self.log:
            return np.log(predicted) - observed, 1.0 / predicted
        return predicted - observed, 1.0

    def sum(self, predicted: np.ndarray, loss: np.ndarray, weight: Any = 1.0) -> Any:
        """The objective of predictions against losses, summed over the last axis."""
        residual, _ = self.residual(predicted, self.observed(loss))
        return np.sum(weight * self.rho(residual)[0], axis=-1)


def _huber(z, delta):
    size = np.abs(z)
    psi = np.minimum(np.maximum(z, -delta), delta)
    value = psi * -0.5
    value += z
    value *= psi
    inside = (size <= delta).astype(z.dtype)
    np.maximum(size, delta, out=size)
    return value, psi, inside, np.divide(delta, size, out=size)


def _squared(z):
    one = np.ones_like(z)
    return 0.5 * z * z, z, one, one


def _asymmetric(z, delta, above):
    """Huber, times `above` where the observed loss lies above the prediction."""
    side = np.where(z < 0.0, above, 1.0)
    return tuple(side * part for part in _huber(z, delta))


# name: function of (delta, above) that makes the objective; partial, as a fit can be pickled and a closure cannot.
OBJECTIVES: Mapping[str, Callable[[float, float], Objective]] = {
    "huber_log": lambda delta, above: Objective("huber_log", partial(_huber, delta=delta), log=True),
    "squared_log": lambda delta, above: Objective("squared_log", _squared, log=True, squared=True),
    "squared": lambda delta, above: Objective("squared", _squared, log=False, squared=True),
    "huber": lambda delta, above: Objective("huber", partial(_huber, delta=delta), log=False),
    "asymmetric_huber_log": lambda delta, above: Objective(
        "asymmetric_huber_log", partial(_asymmetric, delta=delta, above=above), log=True
    ),
}


def objective_of(name: str | Objective, delta: float = 1e-3, above: float = 0.3) -> Objective:
    """The objective of a name.

    `huber_log` (Hoffmann et al. 2022: Huber of log loss), `squared_log`, `squared` and `huber` (of loss in nat/token)
    and `asymmetric_huber_log`, in which a run whose loss lies above the law counts `above` times as much as one below:
    training can go wrong in more ways than it can go too well. `delta` is where Huber turns linear, on the residual's
    scale. Raises InputError for an unknown name or a value that is not above 0.
    """
    if isinstance(name, Objective):
        return name
    if name not in OBJECTIVES:
        raise InputError(f"fit.objective={name!r}; it takes {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name](check("fit", "delta", delta, POSITIVE), check("fit", "above", above, POSITIVE))


def smoothed_curvature(objective: Objective, residual: np.ndarray) -> np.ndarray:
    """psi' of each residual, averaged over a kernel as wide as the density of the residuals can be resolved.

    Huber with a delta far below the scatter is nearly the absolute value: few runs lie where psi' is not 0, and
    their count alone would be a noisy estimate of how fast the sum of psi responds. Shape of `residual`, last axis
    runs.
    """
    spread = np.minimum(np.std(residual, axis=-1), _iqr(residual) / 1.349)[..., None]
    width = np.maximum(0.9 * spread * residual.shape[-1] ** -0.2, 1e-12)
    nodes, shares = _normal_nodes()
    psi = objective.rho(residual[..., None] + width[..., None] * nodes)[1]
    return psi @ (shares * nodes) / width


@lru_cache(maxsize=1)
def _normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the normal distribution and the share of each."""
    nodes, shares = np.polynomial.hermite_e.hermegauss(64)
    return nodes, shares / shares.sum()


def _iqr(values: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values, [0.25, 0.75], axis=-1)
    return high - low
