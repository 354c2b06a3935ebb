"""Which experts a token goes to, and what keeps their loads even.

Mean field: every domain's tokens are split by the probability that an expert is among the K chosen. Tokens: a batch is
drawn token by token with the same probabilities. Controllers change biases or router logits after each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.memory import row_sums
from moesim.registry import Policies, Policy
from moesim.settings import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Share,
    Takes,
    defaults,
    number,
    one_of,
    read,
    setting,
    whole,
)
from moesim.variables import NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, Domain

controls = Policies("control", tree=False)
rewards = Policies("reward")
# Logits that one unit of a published bias is worth. Published scores are sigmoids: a domain's preferences, 2 x reach
# wide here, lie within half a unit there. With it a cold router is even after about 300 steps of 1e-3, as reported.
BIAS_WORTH = 20.0
# Logits more than 60 below the best are treated as 60 below, so that K experts can always be found.
_LEAST_WEIGHT = np.exp(-60.0)
_UP_TO_ONE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)


def _one(kind: Policies) -> Takes:
    return lambda owner, name, value: kind.only(value)


@dataclass(frozen=True)
class Routing:
    """The router of a run: how tokens are assigned, how the router learns, what balances it.

    `assign` (logits, tokens, alive, active) -> probability of being chosen (seed, domain, expert); `control` changes
    (scores, bias); `reward` feeds the reinforcement: logit += reinforcement x P x reward - decay x logit.
    `temperature`: noise of a batch on the logits. `affinity`: how much an expert prefers its own part of the tree at
    the start; `noise`: spread of the initial logits, `common`: the part of its variance that all domains share: by it
    a hotspot forms that tells nothing of domains; `wander`: by how much logits move in a step by themselves (standard
    deviation, with the same part in common), as a router's do that learns from batches. `reach`: how far from 0
    reinforcement takes a logit, as a sigmoid gate has its ends, so that a bias can overrule it. Tokens above
    `capacity_factor` x the fair share are dropped. `fidelity`: mean_field (expected tokens) or tokens (each drawn;
    `batch` of them for all, null: every token of the step).
    """

    assign: Policy
    control: Policy = setting("none", _one(controls))  # noqa: RUF009
    temperature: float = setting(1.0, number(POSITIVE))
    affinity: float = setting(4.0, number(NON_NEGATIVE))
    noise: float = setting(0.1, number(NON_NEGATIVE))
    common: float = setting(0.0, number(_UP_TO_ONE))
    wander: float = setting(0.0, number(NON_NEGATIVE))
    reinforcement: float = setting(1.0, number(NON_NEGATIVE))
    decay: float = setting(1e-3, number(NON_NEGATIVE))
    reach: float = setting(5.0, number(POSITIVE_OR_INF))
    reward: Policy = setting("advantage", _one(rewards))  # noqa: RUF009
    capacity_factor: float = setting(np.inf, number(POSITIVE_OR_INF))
    fidelity: str = setting("mean_field", one_of("mean_field", "tokens"))
    batch: int | None = setting(None, whole())

    def __post_init__(self):
        if self.tokens and not self.assign.traits["drawn"]:
            raise InputError(
                f"routing {self.assign.name}: fidelity=tokens draws tokens one by one, which its assignments do not "
                "allow; use fidelity=mean_field, or declare drawn=True if each domain's sum to active_experts"
            )

    @property
    def tokens(self) -> bool:
        """Whether single tokens are drawn."""
        return self.fidelity == "tokens"


# `drawn`: single tokens can be drawn by the probabilities that the policy gives (each row sums to K). `sees_tokens`:
# they depend on the tokens of the step, so they are worked out anew in each. `tree`: it is asked with the trees of
# `branches` besides, as is a control that is one.
routing = Policies("routing", defaults(Routing), drawn=False, sees_tokens=True, tree=False)


def build(config: Any) -> Routing:
    """The Routing of a config: a name, a function or a mapping; InputError for what it does not take."""
    policy, shared = routing.build(config)
    return read(Routing, "routing", {**shared, "assign": policy})


def logits(scores: np.ndarray, bias: np.ndarray, temperature: float) -> np.ndarray:
    """Router logits (seed, domain, expert) in units of the temperature."""
    biased = scores + bias[:, None, :].astype(scores.dtype)
    return biased if temperature == 1.0 else biased / temperature


def inclusion(z: np.ndarray, active: int) -> np.ndarray:
    """Probability that an expert is among the `active` chosen, from logits (..., expert); each row sums to `active`.

    Proportional to exp(logit) and capped at 1 (the design of sampling proportional to size): for one active expert
    this is the softmax. Splitting an expert's weight in two keeps the sum of the pair.
    """
    shifted = z - z.max(axis=-1, keepdims=True)
    if active == 1:
        weights = np.exp(shifted, out=shifted)
        weights /= row_sums(weights)[..., None]
        return weights
    weights = np.exp(shifted, out=shifted)
    faint = weights < _LEAST_WEIGHT
    if faint.any():
        weights[faint & (z > -np.inf)] = _LEAST_WEIGHT
    scale = active / row_sums(weights)
    rows = np.nonzero(scale > 1.0)  # the largest weight of a row is 1, so only these can exceed the cap
    scale[rows] = _capped_scale(weights[rows], active)
    weights *= scale[..., None]
    return np.clip(weights, 0.0, 1.0, out=weights)


def _capped_scale(weights: np.ndarray, active: int) -> np.ndarray:
    """The scale of each row (row, expert) at which weights capped at 1 sum to `active`: the fewest capped that do.

    Each round caps what passes 1 at a scale that is not yet large enough; one is left, which alone would reach 1.
    """
    left, count = weights.copy(), np.zeros(len(weights), dtype=int)
    while True:
        scale = (active - count) / row_sums(left)
        over = left * scale[:, None].astype(left.dtype) > 1.0 + 8.0 * np.finfo(left.dtype).eps
        if not over.any():
            return scale
        left[over] = 0.0
        count += over.sum(axis=1)


@routing(drawn=True, sees_tokens=False)
def topk(z: np.ndarray, tokens: np.ndarray, alive: np.ndarray, active: int) -> np.ndarray:
    """The K experts with the highest noisy logits; the noise is the smoothing of a batch (temperature)."""
    return inclusion(z, active)


@routing(drawn=True, sees_tokens=False)
def hash_(z: np.ndarray, tokens: np.ndarray, alive: np.ndarray, active: int, *, salt: int = 0) -> np.ndarray:
    """A fixed hash of the domain, whatever the router learned: balanced only up to domain frequencies."""
    domains = np.arange(z.shape[1], dtype=np.uint64)
    mixed = (domains + np.uint64(salt + 1)) * np.uint64(0x9E3779B97F4A7C15)
    code = (mixed >> np.uint64(20)).astype(np.int64)
    out = np.zeros(z.shape)
    for seed, row in enumerate(alive):
        experts = np.flatnonzero(row)
        for choice in range(active):
            out[seed, np.arange(z.shape[1]), experts[(code + choice) % len(experts)]] = 1.0
    return out


@routing
def expert_choice(
    z: np.ndarray, tokens: np.ndarray, alive: np.ndarray, active: int, *, capacity: Fraction = 1.0
) -> np.ndarray:
    """Each expert takes the tokens it likes best up to capacity x K x tokens / experts (Zhou et al. 2022, 2202.09368).

    Balanced by construction; a token may get no expert or many, of those liked alike as many are taken of each. It
    looks at tokens that come later in the text.
    """
    affinity = inclusion(z, 1)
    order = np.argsort(-affinity, axis=1, kind="stable")
    waiting = np.take_along_axis(np.broadcast_to(tokens[:, :, None], z.shape), order, axis=1)
    after = np.cumsum(waiting, axis=1)
    less = np.diff(np.take_along_axis(affinity, order, axis=1), axis=1) < 0
    edge = np.ones((len(z), 1, z.shape[2]), dtype=bool)
    first, last = np.concatenate([edge, less], axis=1), np.concatenate([less, edge], axis=1)
    begin = np.maximum.accumulate(np.where(first, after - waiting, 0.0), axis=1)
    end = np.minimum.accumulate(np.where(last, after, np.inf)[:, ::-1], axis=1)[:, ::-1]
    room = capacity * active * tokens.sum(axis=1) / alive.sum(axis=1)
    alike = end - begin  # tokens that are liked as much as these
    share = np.clip(room[:, None, None] - begin, 0.0, alike) / np.where(alike > 0, alike, 1.0) * alive[:, None, :]
    out = np.empty(z.shape)
    np.put_along_axis(out, order, share, axis=1)
    return out * (tokens > 0)[:, :, None]


@routing(drawn=True)
def balanced(
    z: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    active: int,
    *,
    iterations: Count = 50,
    sharpness: Positive = 1.0,
) -> np.ndarray:
    """Equal loads by prices on experts: Sinkhorn's scaling; a high `sharpness` approaches BASE's linear assignment.

    For one active expert this is Sinkhorn normalisation of exp(logit) with equal column sums (Clark et al. 2022,
    2202.01169); BASE is Lewis et al. 2021, 2103.16716.
    """
    sharp = sharpness * z
    price = equal_load_prices(sharp, tokens, alive, active, iterations)
    return inclusion(sharp + price[:, None, :], active)


# Prices are first found for softer logits: at the full sharpness alone they would creep.
_SOFTER = (32.0, 8.0, 2.0, 1.0)


def equal_load_prices(
    z: np.ndarray, tokens: np.ndarray, alive: np.ndarray, active: int, iterations: int, price: np.ndarray | None = None
) -> np.ndarray:
    """Additions to the logits (seed, expert) that make expected loads equal, by `iterations` of log-scaling.

    Without a `price` to start from, a part of the iterations goes to logits divided by 32, 8 and 2.
    """
    stages = _SOFTER if price is None else (1.0,)
    price = np.zeros(alive.shape) if price is None else price
    fair = active * tokens.sum(axis=1, keepdims=True) / alive.sum(axis=1, keepdims=True)
    for softer in stages:
        for _ in range(max(iterations // len(stages), 1)):
            load = np.einsum("sk,ske->se", tokens, inclusion((z + price[:, None, :]) / softer, active))
            step = np.log(fair / np.maximum(load, 1e-12 * fair))
            price = price + softer * np.where(alive, step, 0.0)
    return price


@controls
def none(
    scores: np.ndarray,
    bias: np.ndarray,
    probability: np.ndarray,
    load: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """No balancing."""
    return scores, bias


def excess(load: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """(load - mean) / mean over the experts that are there; 0 for the others."""
    mean = load.sum(axis=1, keepdims=True) / alive.sum(axis=1, keepdims=True)
    return np.where(alive, load / np.where(mean > 0, mean, 1.0) - 1.0, 0.0)


@controls
def sign(
    scores: np.ndarray,
    bias: np.ndarray,
    probability: np.ndarray,
    load: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    *,
    step: NonNegative = 1e-3,
    worth: Positive = BIAS_WORTH,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss-free balancing: bias += step x sign(mean load - load) (Wang et al. 2024, 2408.15664).

    `step` as published, for scores between 0 and 1; one unit of it is `worth` logits.
    """
    return scores, bias - worth * step * np.sign(excess(load, alive))


@controls
def proportional(
    scores: np.ndarray,
    bias: np.ndarray,
    probability: np.ndarray,
    load: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    *,
    step: NonNegative = 1e-2,
    worth: Positive = BIAS_WORTH,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss-free balancing in proportion: bias += step x (mean load - load) / mean load (ablation of 2408.15664)."""
    return scores, bias - worth * step * excess(load, alive)


@controls
def quantile(
    scores: np.ndarray,
    bias: np.ndarray,
    probability: np.ndarray,
    load: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    *,
    iterations: Count = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Bias of the next step = the prices that would have balanced this one; no step size.

    The mean-field counterpart of alternating quantiles of (score - threshold).
    """
    active = max(round(float(probability[0].sum(axis=-1).mean())), 1)
    price = equal_load_prices(scores, tokens, alive, active, iterations, bias)
    return scores, np.where(alive, price - (price * alive).sum(1, keepdims=True) / alive.sum(1, keepdims=True), 0.0)


@controls
def auxiliary(
    scores: np.ndarray,
    bias: np.ndarray,
    probability: np.ndarray,
    load: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    *,
    weight: NonNegative = 1e-3,
    pull: Share = 2e-3,
    gate: Positive = 5.0,
    scope: str = "global",
    worth: Positive = BIAS_WORTH,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient step on the auxiliary loss weight x sum_i f_i G_i, f_i = experts x share of the assignments.

    G is the gate, softer than the choices: softmax of scores / `gate`. What all domains have in common moves the
    experts' biases, which the model's own loss draws back by `pull` per step (unmeasured; it sets the compromise,
    published as MaxVio .52 to .94); the rest moves the scores. `scope` global: f over the whole batch, all-reduced;
    micro: over each domain's own tokens, which pushes every domain towards all experts (Switch/GShard; the two scopes
    as in Qwen 2025, 2501.11873).
    """
    if scope not in ("global", "micro"):
        raise InputError(f"control auxiliary: scope={scope!r}; it takes global or micro")
    experts = alive.sum(axis=1)[:, None, None]
    part = (tokens / np.maximum(tokens.sum(axis=1, keepdims=True), 1e-300))[:, None, :]
    chosen = probability / np.maximum(probability.sum(axis=-1, keepdims=True, dtype=np.float64), 1e-300)
    share = inclusion(scores / gate, 1)
    pressure = experts * (chosen if scope == "micro" else part @ chosen)
    step = worth * weight * experts * share * (pressure - (share * pressure).sum(axis=-1, keepdims=True))
    common = part @ step
    return scores - (step - common).astype(scores.dtype), bias * (1.0 - pull) - common[:, 0]


@rewards
def advantage(probability: np.ndarray, expert_loss: np.ndarray, loss) -> np.ndarray:
    """How much lower an expert's loss on a domain is than the domain's own (nat/token)."""
    return loss[:, :, None] - expert_loss


@rewards
def popularity(probability: np.ndarray, expert_loss: np.ndarray, loss) -> np.ndarray:
    """1 for every choice: pure rich-get-richer."""
    return np.ones(())


def reinforce(
    scores: np.ndarray,
    probability: np.ndarray,
    reward: np.ndarray,
    rate: float,
    decay: float,
    reach: float = np.inf,
) -> np.ndarray:
    """One step of dS = rate x P x reward - decay x S: what is chosen and does well is chosen more.

    Within a domain they end `reach` above and below 0: where the best would pass it all give way, which changes no
    choice, and none is taken below.
    """
    step = probability * (rate * reward)
    step += (1.0 - decay) * scores
    if np.isfinite(reach):
        step -= np.maximum(step.max(axis=-1, keepdims=True) - reach, 0.0)
        np.maximum(step, np.clip(scores, -np.inf, -reach), out=step)
    return step


def draw_domains(mixture: np.ndarray, tokens: float, seed: int, step: int) -> np.ndarray:
    """Tokens of each domain (domain,) in a step of `tokens` drawn one by one from sampling weights (domain,).

    The numbers of a seed and a step are its own, so two policies meet the same draws whatever else they draw.
    """
    return np.random.default_rng([seed, step, 1]).multinomial(round(tokens), mixture / mixture.sum())


def draw_experts(probability: np.ndarray, drawn: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Assignments (domain, expert) when each token picks K distinct experts (systematic sampling).

    `probability` (domain, expert) with rows that sum to K; `drawn` (domain,) whole tokens. A token with uniform number
    u picks the experts at which the running sum of the row passes u, u + 1, ...: only how many numbers fall below the
    fraction of each running sum has to be drawn. Sums are scaled to K and taken to 9 digits: of what rounding leaves
    between two of them, somebody who is never chosen would draw tokens, and all who come after other numbers.
    """
    ladder = np.cumsum(probability, axis=-1, dtype=np.float64)
    ladder = np.round(ladder * (np.round(ladder[:, -1:]) / ladder[:, -1:]), 9)
    whole = np.floor(ladder)
    order = np.argsort(ladder - whole, axis=-1, kind="stable")
    fraction = np.take_along_axis(ladder - whole, order, axis=-1)
    gaps = np.diff(fraction, axis=-1, prepend=0.0, append=1.0)
    rng = np.random.default_rng([seed, step, 2])
    below = np.empty(ladder.shape)
    counted = np.cumsum(rng.multinomial(drawn.astype(np.int64), gaps), axis=-1)[:, :-1]
    np.put_along_axis(below, order, counted, axis=-1)
    return np.diff(whole * drawn[:, None] + below, axis=-1, prepend=0.0)
