"""How sure a fit is at the estimate: the covariance of the coefficients, and what the runs do not determine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moesim.fitting.objective import smoothed_curvature
from moesim.fitting.task import Task

_FAINT = 1e-10  # share of the largest eigenvalue below which a direction is not determined at all


@dataclass(frozen=True)
class Spread:
    """Local uncertainty at x: covariance (p, p) of x, and whether the runs determine an entry at all (p,)."""

    covariance: np.ndarray
    determined: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard error of each entry of x; inf where nothing determines it."""
        variance = np.diag(self.covariance)
        return np.where(self.determined, np.sqrt(np.maximum(variance, 0.0)), np.inf)

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the entries of x."""
        error = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        error = np.where(error > 0, error, 1.0)
        return self.covariance / error / error[:, None]


class _Local(NamedTuple):
    """The objective near x: each run's gradient (runs, p) and leverage, the inverse of A, the ridge of the priors."""

    gradient: np.ndarray
    leverage: np.ndarray
    inverse: np.ndarray
    determined: np.ndarray
    ridge: np.ndarray


def _local(task: Task, x: np.ndarray) -> _Local:
    effects, residual = task.effects(x), task.residuals(x[None])[0]
    psi, curvature = task.objective.rho(residual)[1], smoothed_curvature(task.objective, residual)
    penalty = task.problem.penalty
    ridge = np.zeros(len(x)) if penalty is None else penalty(x[None])[2][0]
    mass = task.weight * curvature
    inverse, determined = inverted((effects * mass[:, None]).T @ effects + np.diag(ridge))
    leverage = np.clip(mass * np.einsum("ij,jk,ik->i", effects, inverse, effects), 0.0, 0.99)
    return _Local(effects * (task.weight * psi)[:, None], leverage, inverse, determined, ridge)


def spread(task: Task, x: np.ndarray) -> Spread:
    """The sandwich covariance A^-1 B A^-1, which holds for every objective; groups of runs count as one.

    A is how fast the gradient of the objective responds to x, B how much the gradient scatters between groups. An entry
    at the edge of its box counts as any other: that the estimate stands there does not make it certain.
    """
    at = _local(task, x)
    pulls = at.gradient / _own_share(at.leverage)[:, None]
    summed = np.zeros((int(task.group.max()) + 1, len(x)))
    np.add.at(summed, task.group, pulls)
    middle = summed.T @ summed + np.diag(at.ridge) * task.prior_scale
    return Spread(at.inverse @ middle @ at.inverse, at.determined)


def influence(task: Task, x: np.ndarray) -> np.ndarray:
    """By how many standard errors each run pulls each entry of x: (runs, p), in the task's own order.

    The estimate less that without the run, to one Newton step with the run's own leverage taken out (Belsley, Kuh and
    Welsch 1980, DFBETAS).
    """
    at, error = _local(task, x), spread(task, x).error
    return -(at.gradient / (1.0 - at.leverage)[:, None]) @ at.inverse / np.where(error > 0, error, np.inf)


def _own_share(leverage: np.ndarray) -> np.ndarray:
    """By how much a residual is smaller than the error behind it, since the fit follows each run by its leverage.

    Dividing by it is the correction HC2 of MacKinnon and White (1985), right on average for equal scatter.
    """
    return np.sqrt(1.0 - leverage)


def inverted(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(inverse over the directions that are determined, which entries those fix)."""
    diagonal = np.diag(matrix)
    live = diagonal > 0
    scale = np.where(live, 1.0 / np.sqrt(np.where(live, diagonal, 1.0)), 0.0)
    values, vectors = np.linalg.eigh(np.nan_to_num(matrix) * scale * scale[:, None])
    faint = values <= _FAINT * max(values.max(initial=0.0), 1e-300)
    inverse = (vectors * np.where(faint, 0.0, 1.0 / np.where(faint, 1.0, values))) @ vectors.T
    loose = live & (np.abs(vectors[:, faint]).max(axis=1, initial=0.0) > 1e-3)
    return inverse * scale * scale[:, None], live & ~loose
