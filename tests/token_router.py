"""A router of single tokens, for what mean loads cannot show: batch noise, and how fast controllers react.

Scores are sigmoids of a token's random preference plus the expert's own mean; the controllers are those of `routing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.balance.metrics import max_violation
from moesim.balance.routing import controls
from moesim.errors import InputError
from moesim.registry import Policies
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, check

token_controls = Policies("token control")


@dataclass(frozen=True)
class Trial:
    """What a controller did: `loads` (step, expert) in tokens."""

    loads: np.ndarray

    def batch(self, last: int) -> float:
        """Mean MaxVio of single batches over the last steps."""
        return float(max_violation(self.loads[-last:]).mean())

    def overall(self, last: int) -> float:
        """MaxVio of the loads summed over the last steps (global)."""
        return float(max_violation(self.loads[-last:].sum(axis=0)))

    def first(self, steps: int) -> float:
        """Mean MaxVio over the first steps."""
        return float(max_violation(self.loads[:steps]).mean())


def top_experts(scores: np.ndarray, active: int) -> np.ndarray:
    """Indices (token, active) of the highest scores (token, expert)."""
    return np.argpartition(-scores, active - 1, axis=1)[:, :active]


def counts(chosen: np.ndarray, experts: int) -> np.ndarray:
    """Tokens per expert."""
    return np.bincount(chosen.ravel(), minlength=experts).astype(float)


def quantile_prices(scores: np.ndarray, active: int, bias: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Biases (expert,) that balance a batch of scores (token, expert): alternating quantiles, no step size.

    alpha_i is the K-th highest score minus price of token i; the price of expert j is the (1 - K/N) quantile over
    tokens of score minus alpha. Returned with mean zero and the sign of a bias.
    """
    experts, price = scores.shape[1], -bias
    for _ in range(rounds):
        shifted = scores - price
        # Half way between the last chosen and the first refused score of a token.
        edge = np.partition(shifted, (experts - active - 1, experts - active), axis=1)
        alpha = 0.5 * (edge[:, experts - active - 1] + edge[:, experts - active])[:, None]
        price = np.quantile(scores - alpha, 1.0 - active / experts, axis=0)
    return -(price - price.mean())


def base_assignment(scores: np.ndarray) -> np.ndarray:
    """One expert for each token (token,), all experts equally loaded, highest total score (BASE, 2103.16716)."""
    from scipy.optimize import linear_sum_assignment

    tokens, experts = scores.shape
    if tokens % experts:
        raise InputError(f"base_assignment: {tokens} tokens do not divide among {experts} experts; use a multiple")
    places = np.repeat(np.arange(experts), tokens // experts)
    rows, columns = linear_sum_assignment(scores[:, places], maximize=True)
    out = np.empty(tokens, dtype=np.int64)
    out[rows] = places[columns]
    return out


def _from_mean_field(name: str, **options: Any) -> Callable:
    control = controls.only({"policy": name, **options})

    def act(bias, means, origin, scores, load, active):
        there = np.ones((1, len(load)), dtype=bool)
        _, fresh = control(means[None, None], bias[None], None, load[None], None, there)
        return fresh[0], means

    return act


@token_controls
def none(bias, means, origin, scores, load, active):
    """No balancing."""
    return bias, means


@token_controls
def sign(bias, means, origin, scores, load, active, *, step: float = 1e-3):
    """Loss-free balancing by the sign of the excess load."""
    return _from_mean_field("sign", step=step, worth=1.0)(bias, means, origin, scores, load, active)


@token_controls
def proportional(bias, means, origin, scores, load, active, *, step: float = 1e-2):
    """Loss-free balancing in proportion to the excess load."""
    return _from_mean_field("proportional", step=step, worth=1.0)(bias, means, origin, scores, load, active)


@token_controls
def quantile(bias, means, origin, scores, load, active, *, rounds: int = 4):
    """The bias that would have balanced this batch."""
    return quantile_prices(scores, active, bias, rounds), means


@token_controls
def auxiliary(
    bias, means, origin, scores, load, active, *, weight: float = 1e-3, rate: float = 1.0, pull: float = 3e-4
):
    """The auxiliary loss moves the experts' means down its gradient, the model's own loss pulls them back.

    `pull`: strength of the return to where the model wants them. The two settle in a compromise.
    """
    share = load / load.sum()
    gate = scores / scores.sum(axis=1, keepdims=True)
    slope = len(load) * (share * gate.mean(axis=0) - gate.mean(axis=0) * (share @ gate.mean(axis=0)))
    return bias, means - rate * (weight * len(load) * slope + pull * (means - origin))


def trial(
    control: Mapping[str, Any] | str,
    *,
    experts: int = 32,
    active: int = 4,
    tokens: int = 2048,
    steps: int = 1500,
    spread: float = 0.5,
    drift: float = 0.0,
    seed: int = 0,
) -> Trial:
    """Run a controller over batches of tokens; `spread` of the experts' means, `drift` of them per step."""
    for name, value in {"experts": experts, "active": active, "tokens": tokens, "steps": steps}.items():
        check("trial", name, value, AT_LEAST_ONE)
    check("trial", "drift", drift, NON_NEGATIVE)
    if active >= experts:
        raise InputError(f"trial: active={active} of {experts} experts; it takes fewer than experts")
    act, rng = token_controls.only(control), np.random.default_rng([seed, 9])
    origin = spread * rng.standard_normal(experts)
    bias, means, loads = np.zeros(experts), origin.copy(), np.empty((steps, experts))
    for turn in range(steps):
        scores = 1.0 / (1.0 + np.exp(-(means + rng.standard_normal((tokens, experts)))))
        loads[turn] = counts(top_experts(scores + bias, active), experts)
        bias, means = act(bias, means, origin, scores, loads[turn], active)
        moved = drift * rng.standard_normal(experts)
        means, origin = means + moved, origin + moved
    return Trial(loads)
