"""The best possible, beside what happened in every record: bounds on balance, time and loss, and the noise floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from moesim.domains.curves import Curve
from moesim.domains.learning import effective_number
from moesim.errors import InputError
from moesim.variables import NON_NEGATIVE, POSITIVE, check


def schedule(loads: np.ndarray, slots: np.ndarray, devices: int, speed: Any = 1.0) -> tuple[np.ndarray, float]:
    """Share tokens among replicas so that the busiest device has least: the linear programme of LPLB.

    `loads` (expert,), `slots` (slot,) the expert in each slot (-1 empty), slots of a device adjacent. Minimise M with
    the tokens of an expert's slots summing to its load and the tokens of a device's slots at most M x its `speed`
    (device,). Returns tokens per slot and M.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    loads, slots = np.asarray(loads, dtype=float), np.asarray(slots)
    check("schedule", "loads", loads, NON_NEGATIVE)
    used = np.flatnonzero(slots >= 0)
    expert, device = slots[used], used // (len(slots) // devices)
    if homeless := [int(e) for e in np.flatnonzero(loads > 0) if e not in expert]:
        raise InputError(f"schedule: expert {homeless[0]} has load but no slot; give every loaded expert one")
    scale = max(float(loads.sum()), 1e-300)
    n, column = len(used), np.arange(len(used))
    served = coo_array((np.ones(n), (expert, column)), shape=(len(loads), n + 1)).tocsr()[np.unique(expert)]
    row, col = np.append(device, np.arange(devices)), np.append(column, np.full(devices, n))
    limit = -np.broadcast_to(np.asarray(speed, dtype=float), devices)
    burden = coo_array((np.append(np.ones(n), limit), (row, col)), shape=(devices, n + 1)).tocsr()
    cost = np.append(np.zeros(n), 1.0)
    rights = loads[np.unique(expert)] / scale
    found = linprog(cost, A_ub=burden, b_ub=np.zeros(devices), A_eq=served, b_eq=rights, method="highs")
    tokens = np.zeros(len(slots))
    tokens[used] = np.maximum(found.x[:-1], 0.0) * scale
    return tokens, float(found.x[-1]) * scale


def makespan_bound(loads: np.ndarray, copies: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """No placement beats max(total / speeds, most load per copy / top speed): (seed,).

    Loads and copies (seed, expert), `speed` (device,); a device of speed 1 serves one token in a unit of time.
    """
    return np.maximum(loads.sum(axis=-1) / speed.sum(), (loads / np.maximum(copies, 1)).max(axis=-1) / speed.max())


def lpt(weights: Any, speed: Any) -> float:
    """Makespan of longest-processing-time scheduling, any number of items per machine; `speed` (machine,).

    The next item goes where it ends first. On equal machines at most 4/3 - 1/(3 machines) times the optimum (Graham
    1969).
    """
    speed = np.asarray(speed, dtype=float)
    burden = np.zeros(len(speed))
    for weight in sorted(map(float, weights), reverse=True):
        burden[((burden + weight) / speed).argmin()] += weight
    return float((burden / speed).max())


def sampling_floor(tokens_per_expert: float, experts: int, active: int = 1) -> float:
    """Expected MaxVio, max load / mean - 1, when each token picks `active` of `experts` at random.

    Exact for the largest of independent counts with the right variance: Poisson for one active expert, binomial with
    p = (K - 1)/(N - 1) for K of N; fixing the sum changes it by less than 1 %.
    """
    from scipy.special import betainc, gammaincc

    mu = float(check("sampling_floor", "tokens_per_expert", tokens_per_expert, POSITIVE))
    if not 1 <= active <= experts:
        raise InputError(f"sampling_floor: active={active} of {experts} experts; it takes 1 to {experts}")
    if active == experts or experts == 1:
        return 0.0
    p = (active - 1) / (experts - 1)
    high = int(np.ceil(mu + 12.0 * np.sqrt(mu) + 40.0))
    count = np.arange(max(int(mu - 12.0 * np.sqrt(mu)), 0), high)
    trials = mu / p if p else np.inf
    cdf = betainc(np.maximum(trials - count, 1e-9), count + 1.0, 1.0 - p) if p else gammaincc(count + 1.0, mu)
    largest = count[0] + (1.0 - np.where(count < trials, cdf, 1.0) ** experts).sum()
    # The counts sum to a constant; without it the maximum of independent ones is lower by about z/(8 N sqrt(mu)).
    return float(largest / mu - 1.0 + zmax(experts) * np.sqrt(1 - p) / (8.0 * experts * mu**1.5))


def zmax(n: int) -> float:
    """Expected maximum of n standard normals."""
    from scipy.special import ndtr

    x = np.linspace(-9.0, 9.0, 20001)
    cdf = ndtr(x) ** n
    return float(np.trapezoid(np.where(x > 0, 1.0 - cdf, -cdf), x))


def least_loss(setting: Any, tokens: np.ndarray, steps: int = 30) -> np.ndarray:
    """No run of these many tokens has a lower target loss: (seed,) for tokens (seed,).

    All active capacity for every domain, every assignment of a domain in one place, repeats free, and the best fixed
    mixture: a convex problem, solved by scaling weights with their marginal gains; the duality gap left is subtracted,
    so it is a bound however well it was solved.
    """
    world = setting.world
    natural, weight = world.natural, world.target
    q = natural.copy()
    params = setting.capacity.total * (1.0 / np.maximum(world.ordinary, 1e-300))[:, :, None] ** setting.capacity.focus
    total = tokens[:, None] * effective_number(world, setting.capacity.total, tokens)
    hull = _hull(world.curve, params)
    best = (weight * hull(world.mix(total * np.ones(q.shape))[:, :, None])[0][..., 0]).sum(axis=1)  # all for everyone
    a = world.curve.exponent()
    a = np.where(a > 0, a, 0.4)  # only how far a step of the search goes
    power = 1.0 / (1.0 + (a[..., 0] if np.ndim(a) == 3 else a))
    for _ in range(steps):
        v = world.mix(total * q)[:, :, None]
        loss, gain = (weight * (value * np.ones(v.shape))[..., 0] for value in hull(v))
        slope, loss = world.mix(gain) * total, loss.sum(axis=1)
        best = np.maximum(best, loss - (slope.max(axis=1) - (slope * q).sum(axis=1)))
        steepest = slope.max(axis=1, keepdims=True)
        q = q * np.maximum(slope / np.where(steepest > 0, steepest, 1.0), 1e-9) ** power
        q /= q.sum(axis=1, keepdims=True)
    return best


def _hull(curve: Curve, params: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The largest convex function of the tokens below a curve: a line from its loss at none to where it touches.

    Returns a function of tokens: loss, and loss removed per token.
    """
    start = np.minimum(curve.bound, curve.unbounded(params, curve.first_tokens))
    low, high = np.full(params.shape, np.log(curve.first_tokens)), np.full(params.shape, 300.0)
    for _ in range(60):
        touch = np.exp(0.5 * (low + high))
        above = curve.unbounded(params, touch) + curve.gain(params, touch) * touch > start
        low, high = np.where(above, np.log(touch), low), np.where(above, high, np.log(touch))
    touch = np.exp(high)
    steep = np.maximum(start - curve.unbounded(params, touch), 0.0) / touch

    def of(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        line = tokens < touch
        loss = np.where(line, start - steep * tokens, curve.unbounded(params, tokens))
        return loss, np.where(line, steep, curve.gain(params, tokens))

    return of
