"""When sites are up: always, by laws of their times up and down, or as recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from math import exp, gamma
from typing import Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.registry import Policies
from moesim.settings import known
from moesim.variables import NON_NEGATIVE, POSITIVE, check

availability = Policies("availability")
_HOUR = 3600.0


class Up(NamedTuple):
    """What sites did in a tick: seconds up, and how often they went down and came up."""

    seconds: np.ndarray
    stops: np.ndarray
    starts: np.ndarray


Presence = Callable[[np.random.Generator, int, float], Iterator[Up]]
"""(generator, number of sites, seconds of a tick) -> what they did, tick by tick."""


class Spell(NamedTuple):
    """A law of times: mean, draws of whole times, and draws of the time left of one that is under way when found."""

    mean: float
    draw: Callable[[np.random.Generator, int], np.ndarray]
    left: Callable[[np.random.Generator, int], np.ndarray]


def weibull_spell(shape: float, scale: float) -> Spell:
    """Survival exp(-(t/scale)^shape); found under way, a time is long by choice: (t/scale)^shape ~ Gamma(1 + 1/k)."""
    k, s = shape, scale
    return Spell(
        s * gamma(1 + 1 / k),
        lambda rng, n: s * rng.weibull(k, n),
        lambda rng, n: rng.uniform(size=n) * s * rng.gamma(1 + 1 / k, size=n) ** (1 / k),
    )


def lognormal_spell(mu: float, sigma: float, scale: float = 1.0) -> Spell:
    """exp of a normal number, times `scale`; found under way, mu is larger by sigma^2."""
    return Spell(
        scale * exp(mu + sigma**2 / 2),
        lambda rng, n: scale * rng.lognormal(mu, sigma, n),
        lambda rng, n: rng.uniform(size=n) * scale * rng.lognormal(mu + sigma**2, sigma, n),
    )


def renewal(up: Spell, down: Spell) -> Presence:
    """Times up and down in turn, as found long after the start (renewal theory): up for mean up/(up + down)."""

    def ticks(rng: np.random.Generator, sites: int, seconds: float) -> Iterator[Up]:
        there = rng.uniform(size=sites) < up.mean / (up.mean + down.mean)
        left = np.where(there, up.left(rng, sites), down.left(rng, sites))
        while True:
            yield _advance(rng, (up, down), there, left, seconds)

    return ticks


def _advance(rng: np.random.Generator, laws: Any, there: np.ndarray, left: np.ndarray, seconds: float) -> Up:
    """One tick; `there` and `left` are brought up to its end in place."""
    worked, stops, starts = np.zeros((3, len(there)))
    todo, at = np.full(len(there), seconds), np.arange(len(there))
    while len(at):
        step = np.minimum(left[at], todo[at])
        worked[at] += np.where(there[at], step, 0.0)
        left[at] -= step
        todo[at] -= step
        turned = at[left[at] <= 0.0]
        stops[turned] += there[turned]
        starts[turned] += ~there[turned]
        there[turned] = ~there[turned]
        up, down = turned[there[turned]], turned[~there[turned]]
        left[up], left[down] = laws[0].draw(rng, len(up)), laws[1].draw(rng, len(down))
        at = at[todo[at] > 0.0]
    return Up(worked, stops, starts)


@availability
def always() -> Presence:
    """Always up."""

    def ticks(rng: np.random.Generator, sites: int, seconds: float) -> Iterator[Up]:
        while True:
            yield Up(np.full(sites, seconds), *np.zeros((2, sites)))

    return ticks


LAWS: dict[str, Callable[..., Spell]] = {
    "exponential": lambda mean_hours: weibull_spell(1.0, _positive("mean_hours", mean_hours) * _HOUR),
    "weibull": lambda shape, scale_hours: weibull_spell(
        _positive("shape", shape), _positive("scale_hours", scale_hours) * _HOUR
    ),
    "lognormal": lambda mu, sigma: lognormal_spell(mu, check("availability", "sigma", sigma, NON_NEGATIVE), _HOUR),
}
"""Laws of times by name; exp(mu) is in hours."""


def _positive(name: str, value: Any) -> float:
    return check("availability", name, value, POSITIVE)


def _spell(way: str, config: Any) -> Spell:
    settings = dict(config) if isinstance(config, Mapping) else {}
    name = settings.pop("law", None)
    if name not in LAWS:
        raise InputError(f"availability spells: {way}={config!r}; it takes {{law: NAME, ...}}: {known(LAWS, name)}")
    takes = list(inspect.signature(LAWS[name]).parameters)
    if set(settings) != set(takes):
        raise InputError(
            f"availability spells: {way} law {name} has {', '.join(settings)}; it takes {', '.join(takes)}"
        )
    return LAWS[name](**settings)


@availability
def spells(*, up: Any, down: Any) -> Presence:
    """Times up and down in turn, each by a law of LAWS: {law: weibull, shape: .4, scale_hours: 3}."""
    return renewal(_spell("up", up), _spell("down", down))


@availability
def exponential(*, up_hours: float, down_hours: float) -> Presence:
    """Times up and down without memory, with these means."""
    return renewal(LAWS["exponential"](up_hours), LAWS["exponential"](down_hours))


@availability
def weibull_lognormal(*, shape: float, scale_hours: float, mu: float, sigma: float) -> Presence:
    """Times up by a Weibull law, down by a lognormal one (exp(mu) in hours), as fitted to volunteers' hosts."""
    return renewal(LAWS["weibull"](shape, scale_hours), LAWS["lognormal"](mu, sigma))


def _recorded(up: Any, hours: float) -> tuple[np.ndarray, float]:
    """Share up in each step and hours of a step, from a list, or from a CSV file with columns `hour` and `up`."""
    if not isinstance(up, str):
        return np.atleast_1d(np.asarray(up, dtype=float)), hours
    try:
        rows = np.genfromtxt(up, delimiter=",", names=True, ndmin=1)
        at, values = rows["hour"], rows["up"]
    except (OSError, ValueError) as error:
        raise InputError(f"availability trace: up={up!r}: {error}; it takes a list or a CSV with hour, up") from None
    steps = np.diff(at)
    uneven = np.flatnonzero(~np.isclose(steps, steps[0], rtol=1e-3)) if steps.size else steps
    if uneven.size:
        raise InputError(
            f"availability trace: {up}: a gap after hour {at[uneven[0]]:g}; give every {steps[0]:g} h a row"
        )
    return values, float(steps[0]) if steps.size else hours


@availability
def trace(*, up: Any, hours: float = 1.0) -> Presence:
    """As recorded: `up` lists 0 or 1 (or a share) for each `hours`, or names a CSV file with columns `hour` and `up`.

    Each site begins at a moment of its own; the record begins anew at its end.
    """
    values, hours = _recorded(up, hours)
    gaps = np.flatnonzero(~np.isfinite(values))
    if gaps.size:
        raise InputError(f"availability trace: a gap at entry {gaps[0]}; fill it with 0 or 1")
    if ((values < 0) | (values > 1)).any():
        raise InputError("availability trace: up takes numbers from 0 to 1")
    step = _positive("hours", hours) * _HOUR
    seconds_up = np.concatenate([[0.0], np.cumsum(values) * step])  # seconds up since the start of the trace
    there, before = values >= 0.5, np.roll(values, 1) >= 0.5
    falls, rises = (np.concatenate([[0.0], np.cumsum(turned)]) for turned in (before & ~there, there & ~before))
    whole = len(values) * step

    def since(total: np.ndarray, at: np.ndarray) -> np.ndarray:
        laps, rest = np.divmod(at, whole)
        return laps * total[-1] + np.interp(rest, np.arange(len(total)) * step, total)

    def ticks(rng: np.random.Generator, sites: int, seconds: float) -> Iterator[Up]:
        at = rng.uniform(0.0, whole, sites)
        while True:
            yield Up(*(since(total, at + seconds) - since(total, at) for total in (seconds_up, falls, rises)))
            at = at + seconds

    return ticks
