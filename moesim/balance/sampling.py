"""Which domains the next tokens come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.state import State, fitted
from moesim.domains.learning import domain_gains, fresh_worth, penalty_slope
from moesim.errors import InputError
from moesim.numerics.memory import row_sums
from moesim.registry import Policies, Policy
from moesim.settings import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Share,
    defaults,
    number,
    read,
    setting,
    whole,
)
from moesim.variables import POSITIVE_OR_INF

if TYPE_CHECKING:
    from moesim.balance.setting import Setting


@dataclass(frozen=True)
class Sampling:
    """How the mixture follows the run: `policy` (state, setting) -> (weights (seed, domain), what it remembers).

    `every`: steps between changes. `epoch_cap`: no domain's unique tokens are passed more often.
    """

    policy: Policy
    every: int = setting(10, whole())
    epoch_cap: float = setting(np.inf, number(POSITIVE_OR_INF))


sampling = Policies("sampling", defaults(Sampling))


def build(config: Any) -> Sampling:
    """The Sampling of a config: a name, a function or a mapping."""
    policy, shared = sampling.build(config)
    return read(Sampling, "sampling", {**shared, "policy": policy})


def check_reach(policy: Sampling, unique: np.ndarray, tokens: float) -> None:
    """InputError if the epoch cap leaves fewer tokens than the run takes; `unique` (seed, domain)."""
    most = float((policy.epoch_cap * unique).sum(axis=-1).min())
    if most < tokens * (1.0 - 1e-9):
        raise InputError(
            f"sampling: epoch_cap={policy.epoch_cap:g} leaves {most:.3g} of the {tokens:.3g} tokens of the run; "
            f"give epoch_cap={policy.epoch_cap * tokens / most:.4g} or more, or raise world.unique_tokens"
        )


def normalised(weights: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 along the domains (last axis)."""
    return weights / weights.sum(axis=-1, keepdims=True)


def capped(mixture: np.ndarray, cap: np.ndarray) -> np.ndarray:
    """The mixture scaled up as evenly as possible without passing `cap` (same shape); caps that sum below 1 are met.

    Water-filling: what a capped domain gives up goes to the others in proportion.
    """
    if (mixture <= cap).all():
        return mixture
    fixed = np.zeros(mixture.shape, dtype=bool)
    out = mixture
    for _ in range(mixture.shape[-1]):
        over = ~fixed & (out > cap * (1 + 1e-12))
        if not over.any():
            break
        fixed |= over
        room = np.maximum(1.0 - np.where(fixed, cap, 0.0).sum(axis=-1, keepdims=True), 0.0)
        free = np.where(fixed, 0.0, mixture).sum(axis=-1, keepdims=True)
        out = np.where(fixed, cap, mixture * room / np.where(free > 0, free, 1.0))
    return normalised(out)


def epoch_caps(policy: Sampling, state: State, setting: Setting) -> np.ndarray:
    """Largest weight that keeps each domain within the epoch cap until the mixture is chosen again."""
    left = policy.epoch_cap * setting.world.unique - state.seen
    return np.maximum(left, 0.0) / (setting.tokens * min(policy.every, setting.steps - state.step))


def sample(policy: Sampling, state: State, setting: Setting) -> tuple[np.ndarray, dict[str, Any]]:
    """The mixture of this step (seed, domain) and the sampler's memory."""
    if state.step % policy.every:
        return state.mixture, state.memory
    mixture, memory = policy.policy(state, setting)
    if np.isfinite(policy.epoch_cap):
        caps = epoch_caps(policy, state, setting)
        mixture = capped(mixture, caps)
    return mixture, memory


@sampling
def natural(state: State, setting: Setting) -> tuple[np.ndarray, dict[str, Any]]:
    """Domains as they come: the natural frequency."""
    return setting.world.natural, state.memory


@sampling
def temperature(state: State, setting: Setting, *, exponent: NonNegative = 0.3) -> tuple[np.ndarray, dict[str, Any]]:
    """Proportional to frequency^exponent (mT5 and XLM-R use 0.3)."""
    world = setting.world
    return world.shared_out(normalised(world.whole(world.natural) ** exponent)), state.memory


@sampling
def unimax(state: State, setting: Setting, *, epochs: Positive = 4.0) -> tuple[np.ndarray, dict[str, Any]]:
    """As even as possible, no domain passed more than `epochs` times in the run (Chung et al. 2023, 2304.09151)."""
    caps = epochs * setting.world.whole(setting.world.unique) / (setting.tokens * setting.steps)
    if (caps.sum(axis=-1) < 1.0 - 1e-9).any():
        most = float(caps.sum(axis=-1).min())
        raise InputError(
            f"sampling unimax: {epochs:g} epochs hold {most:.3g} of the tokens; "
            f"give epochs of {epochs / most:.3g} or more"
        )
    return setting.world.shared_out(capped(np.full(caps.shape, 1.0 / caps.shape[-1]), caps)), state.memory


@sampling
def optimal(state: State, setting: Setting, *, exponent: Positive | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Proportional to target^(1/(1 + a)): the best fixed mixture for domain losses n^-a that do not interfere.

    `exponent` a: the data exponent of the world's curve unless given.
    """
    a = np.asarray(setting.world.curve.exponent() if exponent is None else exponent, dtype=float)
    if not (a > 0).all():
        raise InputError("sampling optimal: the curve is no power of tokens; give sampling.exponent=NUMBER above 0")
    world = setting.world
    a = world.whole(a[..., 0] * world.natural) / world.whole(world.natural) if a.ndim == 3 else a
    return world.shared_out(normalised(world.whole(world.target) ** (1.0 / (1.0 + a)))), state.memory


def served(state: State) -> np.ndarray:
    """Share of a domain's assignments that each expert gets (seed, domain, expert)."""
    total = row_sums(state.probability)[:, :, None]
    return state.probability / np.where(total > 0, total, 1.0)


@sampling
def feed_idle(
    state: State, setting: Setting, *, bound: float = 1.1, iterations: Count = 20, least: Share = 0.0
) -> tuple[np.ndarray, dict[str, Any]]:
    """Feed under-used experts: nearest to natural (in KL) with no expert above `bound` x its fair share of tokens.

    q = p exp(-sum_e mu_e P(e|k)) with a price mu on each overloaded expert, found by `iterations` of scaling from the
    last prices; a replicated expert may carry one share for each copy, one on slow devices less. `least`: every domain
    keeps at least this part of its natural frequency.
    """
    limit = _limits(state, setting, bound)
    _check_reach(setting.world, limit, least)
    part, price = served(state), fitted(state.memory.get("price", np.zeros(limit.shape)), state.experts)
    natural = setting.world.natural
    for _ in range(iterations):
        mixture = _tilted(natural, part, price, least)
        load = (mixture[:, None, :].astype(part.dtype) @ part)[:, 0].astype(np.float64)
        price = np.maximum(price + np.log(np.maximum(load, 1e-300) / limit), 0.0)
    return _tilted(natural, part, price, least), {**state.memory, "price": price}


def _rates(state: State, setting: Setting) -> np.ndarray:
    """What an expert's copies serve in a unit of time (seed, expert); 0 for those not there."""
    pace = state.placement.pace(state.alive.shape[1], setting.machine.cluster.speed)
    return np.where(state.alive, state.copies * pace, 0.0)


def _limits(state: State, setting: Setting, bound: float) -> np.ndarray:
    if not bound >= 1:
        raise InputError(f"sampling feed_idle: bound={bound:g} x the fair share; no mixture puts every expert below 1")
    rates = _rates(state, setting)
    return np.where(state.alive, bound * rates / rates.sum(axis=1, keepdims=True), 1.0)


def _check_reach(world, limit: np.ndarray, least: float) -> None:
    alone = least * world.natural - limit.max(axis=1, keepdims=True)
    if (alone > 0).any():
        seed, leaf = np.unravel_index(int(np.argmax(alone)), alone.shape)
        name = world.names[int(np.argmax(world.position[seed] == world.group[seed, leaf]))]
        raise InputError(
            f"sampling feed_idle: domain {name!r} alone keeps {least * world.natural[seed, leaf]:.3g} of the "
            f"tokens, above the expert-load bound {limit[seed].max():.3g}; lower least, raise bound, or let the domain "
            "be divided (world.atom)"
        )


def _tilted(natural: np.ndarray, part: np.ndarray, price: np.ndarray, least: float) -> np.ndarray:
    exponent = (part @ price[:, :, None].astype(part.dtype))[..., 0]
    free = normalised(natural * np.exp(exponent.min(axis=1, keepdims=True) - exponent))
    return least * natural + (1.0 - least) * free


@sampling
def feed_idle_power(
    state: State, setting: Setting, *, strength: NonNegative = 1.0
) -> tuple[np.ndarray, dict[str, Any]]:
    """q = p (mean load / load of the domain's experts)^strength; 1 equalises loads if each domain has one expert.

    Loads are by copy, and over the speed of the devices that hold them.
    """
    natural = setting.world.natural
    load = np.einsum("sk,ske->se", natural, served(state)) / np.where(state.alive, _rates(state, setting), 1.0)
    around = np.einsum("ske,se->sk", served(state), load)
    return normalised(natural * around**-strength), state.memory


def gains(state: State, setting: Setting) -> np.ndarray:
    """Loss of each domain removed by one more token of it (seed, domain), less what its repeat costs."""
    world = setting.world
    worth = setting.effective(state) * fresh_worth(world, state.seen - state.made, np.ones(state.seen.shape))
    gain = domain_gains(world, *setting.abilities(state), state.probability) * worth
    return gain - penalty_slope(world, setting.capacity, state, state.probability)


@sampling
def marginal_gain(
    state: State, setting: Setting, *, credit: NonNegative = 0.5, smoothing: Fraction = 0.1, least: Share = 0.01
) -> tuple[np.ndarray, dict[str, Any]]:
    """Proportional to frequency x learning speed x recent share^credit, smoothed (ADO-like, after Jiang et al. 2024).

    Speed is tokens x loss removed per token, a (L - floor) for a power law. `least` of the mass stays natural.
    """
    world = setting.world
    if state.step == 0:
        return world.natural, state.memory
    experience = np.einsum("ske,ske->sk", served(state), world.mix(state.learned))
    speed = np.maximum(gains(state, setting) * experience, 1e-300)
    recent = world.each(world.whole(state.mixture)) ** credit
    wanted = normalised(world.natural * speed * recent)
    mixture = (1.0 - smoothing) * state.mixture + smoothing * wanted
    return (1.0 - least) * normalised(mixture) + least * world.natural, state.memory


@sampling
def bandit(state: State, setting: Setting, *, memory: Share = 0.9) -> tuple[np.ndarray, dict[str, Any]]:
    """Exponential weights on the loss of each domain, with decaying exploration (ODM-like, Albalak et al. 2023).

    The reward is the loss itself divided by how often a domain is drawn: it cannot tell noise from rare value.
    """
    world = setting.world
    domains, turn = len(world.names), max(state.step // setting.sampling.every, 1)
    explore = min(1.0 / domains, np.sqrt(np.log(domains) / (domains * turn))) if domains > 1 else 0.0
    loss = world.whole(state.loss * world.natural) / np.maximum(world.whole(world.natural), 1e-300)
    reward = state.memory.get("reward", np.zeros(loss.shape))
    reward = memory * reward + (1.0 - memory) * loss / np.maximum(world.whole(state.mixture), 1e-12)
    exponent = explore * reward
    chosen = normalised(np.exp(exponent - exponent.max(axis=-1, keepdims=True)))
    mixture = world.shared_out((1.0 - domains * explore) * chosen + explore)
    return mixture, {**state.memory, "reward": reward}


def _rare(state: State, setting: Setting) -> np.ndarray:
    """Domains in inverse proportion to what was seen of them, parts by frequency."""
    world = setting.world
    return world.shared_out(normalised(1.0 / (world.whole(state.seen) + setting.tokens / len(world.names))))


@sampling
def replay(state: State, setting: Setting, *, share: Share = 0.2) -> tuple[np.ndarray, dict[str, Any]]:
    """Natural, except that a `share` of the tokens replays domains in inverse proportion to what was seen of them."""
    return (1.0 - share) * setting.world.natural + share * _rare(state, setting), state.memory


@dataclass(frozen=True)
class Generated:
    """Generated tokens: share of each domain (seed, domain), the worth of one, their time over that of the step."""

    share: np.ndarray
    quality: float
    cost: float


@sampling
def rehearsal(
    state: State, setting: Setting, *, share: Share = 0.2, quality: Share = 0.5, price: NonNegative = 1 / 3
) -> tuple[np.ndarray, dict[str, Any]]:
    """Pseudo-experience (Robins 1995): as `replay`, but the model generates the `share` itself, of what it saw least.

    A generated token is worth `quality` of a new one and uses up no unique tokens; to make it costs `price` x the time
    of training on one (1/3: a forward pass). None are made before something is learned.
    """
    if state.step == 0:
        return setting.world.natural, state.memory
    made = share * _rare(state, setting)
    mixture = (1.0 - share) * setting.world.natural + made
    return mixture, {**state.memory, "generated": Generated(made / mixture, quality, price * share)}


@sampling
def skip_solved(state: State, setting: Setting, *, solved: Share = 1e-12) -> tuple[np.ndarray, dict[str, Any]]:
    """Natural over the domains that still gain: those whose gain per token is above `solved` x the largest."""
    gain = gains(state, setting)
    open_ = gain > solved * gain.max(axis=-1, keepdims=True)
    open_ |= ~open_.any(axis=-1, keepdims=True)
    return normalised(setting.world.natural * open_), state.memory
