"""How long many sites wait for one another, and how many are there: order statistics and renewal in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np


def slowest(sites: int, spread: float, needed: int | None = None) -> float:
    """Mean time until `needed` (all) of `sites` are done, in mean times of one, for lognormal times of that sigma."""
    from scipy.integrate import quad
    from scipy.stats import beta, norm

    k = sites if needed is None else needed
    # the k-th smallest of n uniform numbers is Beta(k, n - k + 1)
    density: Any = beta(k, sites - k + 1)
    low, high = density.ppf([1e-14, 1 - 1e-14])
    value, _ = quad(lambda u: np.exp(spread * norm.ppf(u)) * density.pdf(u), low, min(high, 1 - 1e-15), limit=500)
    return float(value / np.exp(spread**2 / 2))


def slowest_exponential(sites: int, needed: int | None = None) -> float:
    """The same for exponential times: H_n - H_(n-k)."""
    k = sites if needed is None else needed
    return float(np.sum(1.0 / np.arange(sites - k + 1, sites + 1)))


def straggler(sites: Any) -> Any:
    """What waiting for the slowest of `sites` adds by a rule of thumb (MIRI's simulator): 1 + .05 log2 n.

    It lies between lognormal times of sigma .1 (64 sites: 1.26) and .3 (1.95).
    """
    return 1.0 + 0.05 * np.log2(sites)


def at_least(needed: int, sites: int, availability: float) -> float:
    """Probability that at least `needed` of `sites` are up, each on its own."""
    from scipy.stats import binom

    return float(binom.sf(needed - 1, sites, availability))


def available(mean_up: Any, mean_down: Any) -> Any:
    """Long-run share of the time that a site is up, whatever the laws of its times (renewal theorem)."""
    return mean_up / (mean_up + mean_down)


def still_up(shape: float, scale: float, hours: float) -> float:
    """Probability that a host found up stays up for `hours` more, for Weibull times up.

    A host is found in the middle of a time that is long by choice: the time left has the density S(t)/mean. Below
    shape 1 old hosts are safer than new ones.
    """
    from math import gamma

    from scipy.special import gammaincc

    if hours == 0:
        return 1.0
    # integral of exp(-(t/scale)^shape) from `hours`, over the mean scale Gamma(1 + 1/shape)
    tail = gamma(1 / shape) / shape * gammaincc(1 / shape, (hours / scale) ** shape)
    return float(tail / gamma(1 + 1 / shape))


def served_once(parts: int) -> float:
    """Rounds until each of `parts` was served once, one at random in a round: n H_n (coupon collector)."""
    return parts * slowest_exponential(parts)
