"""A fit's coefficients by Markov chain, with priors from the ranges that the coefficients declare."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import Draws
from moesim.fitting.predict import points
from moesim.fitting.profile import scales
from moesim.fitting.runs import RunsWarning
from moesim.fitting.solve import CONVERGED, values

if TYPE_CHECKING:
    from moesim.fitting.result import Fit

_WALKERS = 6  # for each coefficient
_LONG = 50  # autocorrelation times from which a chain counts as long enough
_STEPS = 500  # between two looks at that


def posterior(fit: Fit, draws: int, seed: int, most: int) -> Fit:
    """See `Fit.posterior`."""
    emcee = _emcee()
    p = len(fit.optimum.x)
    if not p:
        raise InputError("posterior: all coefficients are fixed; there is nothing to draw")
    start = points(replace(fit, draws=None), np.random.default_rng(seed))[: max(_WALKERS * p, 24)]
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]  # for long thin valleys
    sampler = emcee.EnsembleSampler(len(start), p, _density(fit, seed), moves=moves, vectorize=True)
    sampler.random_state = np.random.RandomState(seed).get_state()
    state, time = start, np.inf
    while sampler.iteration < most and not sampler.iteration > _LONG * time:
        state = sampler.run_mcmc(state, _STEPS)
        time = float(np.max(sampler.get_autocorr_time(tol=0, quiet=True)))
    if not sampler.iteration > _LONG * time:
        said = f"{sampler.iteration} steps are {sampler.iteration / time:.0f} autocorrelation times, not {_LONG}"
        warnings.warn(f"posterior: {said}: its ends are rough; give more steps", RunsWarning, stacklevel=3)
    every = max(1, int(time / 2))
    chain = sampler.get_chain(discard=min(int(5 * time), sampler.iteration // 2), thin=every, flat=True)
    kept = np.asarray(chain)
    kept = kept[np.random.default_rng(seed).permutation(len(kept))[:draws]]
    objective = values(fit.task.problem, kept, fit.task.rows)
    found = Draws(kept, objective, np.full(len(kept), CONVERGED))
    return replace(fit, draws=found, profiles=None, settings={**fit.settings, "resample": "posterior"})


def _emcee():
    try:
        import emcee
    except ImportError:
        raise InputError("posterior: needs emcee; pip install 'moesim[posterior]'") from None
    return emcee


def _density(fit: Fit, seed: int):
    """The log of the posterior density at points x (n, p).

    The objective takes the place of minus the log of the likelihood, in units of the scatter that the runs show (as for
    profiles), which is itself uncertain: Student's t. A coefficient without a prior of the user's has a normal one
    along its x, whose central 68 % are its typical range.
    """
    task, x = replace(fit.task, prior={}), fit.optimum.x
    scale, freedom = map(np.median, scales(task, x, fit.local, np.random.default_rng(seed)))
    scale = task.scale(x) if fit.task.prior else scale  # a prior's weight is by that scatter
    least = values(task.problem, x[None], task.rows)[0]

    def density(at: np.ndarray) -> np.ndarray:
        rise = (values(task.problem, at, task.rows) - least) / scale
        inside = np.all((at >= task.parameters.lower) & (at <= task.parameters.upper), axis=1)
        with np.errstate(invalid="ignore"):
            likely = -0.5 * (freedom + len(x)) * np.log1p(np.maximum(2.0 * rise / freedom, -0.5))
        return np.where(inside & np.isfinite(likely), likely - 0.5 * np.sum(_off(fit, at) ** 2, axis=1), -np.inf)

    return density


def _off(fit: Fit, at: np.ndarray) -> np.ndarray:
    """How many standard deviations each coefficient lies off the middle of its prior: (n, p)."""
    parameters, prior = fit.task.parameters, fit.task.prior
    low, high = parameters.typical()
    off = (2.0 * at - low - high) / np.maximum(high - low, 1e-300)
    for name, (mean, sd) in prior.items():
        off[:, parameters.free.index(name)] = (parameters.natural(at)[name] - mean) / sd
    return off
