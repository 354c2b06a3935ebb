"""What an expert knows of each domain, what that is worth in loss, and which experts have nothing left to gain.

Each domain k follows the law L(N, D) of a dense model. Expert e of C parameters has, for domain k,

    c_ek = C ((Z h_e)_k / (Z p)_k)^focus        v_ek = m (Z learned_e)_k

p: natural frequencies. Z: similarities, 1 on the diagonal, `part_similarity` between parts of a domain, rho x
decay^levels between domains. h_e: shares of what the expert was trained on, over its last `inertia` x (active
parameters) tokens. A token with the K experts S has N = sum_S c and D^8 = sum_S c v^8 / sum_S c, near what the one
knows that knows most; given that e is in S, the others come as they would without it. The loss of a domain is the mean
of L over its tokens, L_k = sum_e P(e|k) L_ek / K, and never above ln(vocabulary), an untrained model's.

Z h is ordinariness, as in the similarity-sensitive diversity of Leinster and Cobbold (2012), and m the effective number
of domains: of order 1 - beta where the data term is D^-beta, (sum_k p_k (Z p)_k^-beta)^(1/beta); in general, and while
domains are at the bound, the scale at which one expert on the natural stream has the loss of the pooled law. A `focus`
near .4 is what Clark et al. (2022) found for one of E experts: a routed model is worth a dense one of C E^.43 at 2e8
parameters (S-BASE, every second layer routed). From this follow:

* Description: alike parts add up in Z h, Z learned and Z p, so cutting a domain into them changes nothing.
* One expert on the natural stream has h = p: N = C, D = m D_k, and sum_k p_k L_k is the law of the whole corpus.
* K = E experts all see everything: N = E C, one expert of E times the capacity. Twins, halves that come together, add
  up to the expert they halve. With a balanced router c_ek ~ (P E/K)^focus, so N ~ K^(1 - focus) grows with K.
* A split copies h and what was learned: nothing changes in its step. Halves of one mixture keep h, hence N, and share
  the tokens: they are never better. Halves whose data part gain N as h follows, over tokens in proportion to the active
  size. So does every change of routing: capacity follows what an expert was trained on.
* Shared experts and factors are one more expert that is always chosen and trained on the whole stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.domains.world import World
from moesim.numerics.memory import row_sums

_TINY, _LARGE = 1e-300, 1e300


@dataclass(frozen=True)
class Capacity:
    """Parameters that act on a token: of `active` experts of `expert` parameters and `shared` more that always act.

    `factor`: the part of every expert's parameters that all have in common. `focus`: how an expert's parameters for a
    domain grow with the domain's share of its training (1: in proportion, 0: not). `inertia`: tokens per active
    parameter over which they follow a change of it. `twins`: experts that come together.
    """

    expert: float
    active: int = 1
    shared: int = 0
    factor: float = 0.0
    focus: float = 0.5
    inertia: float = 0.25
    twins: int = 1

    @property
    def alone(self) -> float:
        """Parameters of a routed expert that no other has."""
        return (1.0 - self.factor) * self.expert

    @property
    def common(self) -> float:
        """Parameters that act on every token."""
        return (self.shared + self.factor) * self.expert

    @property
    def total(self) -> float:
        """All that act on one token."""
        return self.active * self.alone + self.common

    @property
    def horizon(self) -> float:
        """Tokens over which capacity follows training."""
        return self.inertia * self.total


@dataclass(frozen=True)
class Knowledge:
    """What experts have learned and been trained on; `common`: shared parameters, as one expert that serves all.

    `learned`, `trained` (seed, part, expert), `common_learned`, `common_trained` (seed, part): effective tokens so far,
    and shares of what was trained on within the horizon.
    """

    learned: np.ndarray
    trained: np.ndarray
    common_learned: np.ndarray
    common_trained: np.ndarray


def fresh_worth(world: World, seen: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """What one of the drawn tokens is worth (seed, domain): below 1 once a domain's unique tokens repeat.

    The difference of the repetition law between tokens seen before and after, over the tokens drawn.
    """
    if np.isinf(world.unique).all():
        return np.ones(seen.shape)
    unique = np.where(world.unique > 0, world.unique, 1.0)
    gained = np.asarray(world.worth(seen + drawn, unique)) - np.asarray(world.worth(seen, unique))
    return np.where(drawn > 0, gained / np.where(drawn > 0, drawn, 1.0), 1.0)


def learn(
    world: World,
    learned: np.ndarray,
    assigned: np.ndarray,
    worth: np.ndarray,
    frozen: np.ndarray,
    forgetting: float = 0.0,
) -> np.ndarray:
    """Effective tokens after a step: what was assigned times what it is worth, except for frozen experts.

    `forgetting`: share that an expert forgets of a domain per token of other domains; a similar one counts less.
    """
    taken = trained_on(assigned, frozen)
    kept = learned
    if forgetting > 0.0:
        foreign = np.maximum(taken.sum(axis=1, keepdims=True) - world.mix(taken), 0.0)
        kept = learned * np.exp(np.log1p(-forgetting) * foreign)
    out = taken * worth[:, :, None].astype(taken.dtype)
    out += kept
    return out


def trained_on(assigned: np.ndarray, frozen: np.ndarray) -> np.ndarray:
    """Assignments that change weights: those of experts that are not frozen."""
    return assigned * ~frozen[:, None, :] if frozen.any() else assigned


def trained_after(trained: np.ndarray, assigned: np.ndarray, load: np.ndarray, horizon: float) -> np.ndarray:
    """Shares of training (seed, part, ...) after `assigned` tokens more: the old fade over `horizon` tokens.

    `load` (seed, ...): their sums over the parts. The first tokens of an expert are its shares in full.
    """
    load = load[:, None]
    kept = np.where((trained.sum(axis=1, keepdims=True) > 0) | (load <= 0), np.exp(-load / horizon), 0.0)
    fresh = (1.0 - kept) / np.where(load > 0, load, 1.0)
    out = trained * kept.astype(trained.dtype)
    out += assigned * fresh.astype(trained.dtype)
    return out


def abilities(
    world: World,
    capacity: Capacity,
    known: Knowledge,
    effective: np.ndarray,
    probability: np.ndarray,
    family: np.ndarray | None = None,
    place: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """N and D of the tokens of each part of a domain that have an expert among theirs (seed, part, expert).

    `effective` (seed, 1): the effective number of domains; `probability` of being chosen (seed, part, expert); `family`
    (seed, expert): experts of one number are never chosen together (None: no such). `place` (seed, expert): each of the
    K has experts of its own, chosen whatever the others are (None: all compete for all).
    """
    dtype = known.learned.dtype
    params = _place(world, known.trained) ** capacity.focus
    params *= capacity.alone
    tokens = world.mix(known.learned) * effective[:, :, None].astype(dtype)
    if capacity.active == 1 and not capacity.common:
        return params, tokens
    most = np.maximum(world.mix(known.common_learned).max(axis=1, keepdims=True) * effective, 1.0)[:, :, None].astype(
        dtype
    )
    knowing = _power(tokens * (1.0 / most))
    knowing *= params
    size = params
    if capacity.active > 1:
        if place is None and capacity.active == capacity.twins:
            size, knowing = (capacity.twins * term for term in (size, knowing))  # nobody else comes
        elif place is None:
            size, knowing = with_companions(probability, (size, knowing), capacity.twins, family)
        else:
            size, knowing = (with_others(probability, term, capacity.twins, place) for term in (size, knowing))
    if capacity.common:
        own = (capacity.common * _place(world, known.common_trained[:, :, None]) ** capacity.focus).astype(dtype)
        seen = (world.mix(known.common_learned) * effective)[:, :, None].astype(dtype)
        size, knowing = size + own, knowing + own * _power(seen / most)
    knowing /= np.clip(size, np.finfo(dtype).tiny, np.inf)
    for _ in range(3):
        np.sqrt(knowing, out=knowing)
    knowing *= most
    return size, knowing


def _power(x: np.ndarray) -> np.ndarray:
    """x^8."""
    x = x * x
    x *= x
    return x * x


def _place(world: World, trained: np.ndarray) -> np.ndarray:
    """(Z h)_k / (Z p)_k: how much of an expert's training a part of a domain was, against its part of the stream."""
    return world.mix(trained) * (1.0 / np.maximum(world.ordinary, _TINY))[:, :, None].astype(trained.dtype)


def with_companions(
    probability: np.ndarray, terms: tuple[np.ndarray, ...], twins: int, family: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Expected sums of each term over the experts of a token that has this one (seed, part, expert).

    Twins always come together, a family never. Another comes with its own probability P less what its uncertainty
    P (1 - P) bears, in proportion, of the place that is taken, so that K come in all and the certain ones always do
    (Hajek's approximation to sampling without replacement, made to sum up).
    """
    if np.isclose(row_sums(probability).max(), twins):
        return tuple(twins * term for term in terms)  # there is but one place
    kin = [] if family is None else _families(family, probability.dtype)
    uncertain = 1.0 - _summed(probability, kin)
    unsure = probability * uncertain
    room = row_sums(unsure)[:, :, None] / twins - _summed(unsure, kin)
    room[room <= 1e-9] = np.inf
    share = np.divide(uncertain, room, out=uncertain)
    own = share * unsure
    own -= probability
    own += 1.0
    own *= twins
    return tuple(_joined(probability, unsure, share, own, term, kin) for term in terms)


def _joined(
    P: np.ndarray, unsure: np.ndarray, share: np.ndarray, own: np.ndarray, term: np.ndarray, kin: Kin
) -> np.ndarray:
    """Twins, and others by their probability less the share that their uncertainty bears."""
    out = own * term
    out += np.vecdot(P, term)[:, :, None]
    out -= share * np.vecdot(unsure, term)[:, :, None]
    for row, members, same in kin:  # the family's others do not come either
        u, p, s, t, o = (values[row].take(members, axis=1) for values in (unsure, P, share, term, out))
        kept, gone = ((w * t) @ same - w * t for w in (u, p))
        out[row][:, members] = o + s * kept - gone
    return np.maximum(out, term, out=out)


def with_others(probability: np.ndarray, term: np.ndarray, twins: int, place: np.ndarray) -> np.ndarray:
    """Expected sum of a term over an expert's twins and one expert of each other place (seed, part, expert)."""
    others = (place[:, :, None] != place[:, None, :]).astype(term.dtype)
    return twins * term + (probability * term) @ others  # no difference: terms are far apart in size


Kin = list[tuple[int, np.ndarray, np.ndarray]]


def _families(family: np.ndarray, dtype: np.dtype) -> Kin:
    """Of each seed with families of more than one: it, the experts in them, and whether two are of the same."""
    members = [np.flatnonzero(np.bincount(numbers)[numbers] > 1) for numbers in family]
    same = [row[of] == row[of][:, None] for row, of in zip(family, members, strict=True)]
    return [(i, of, alike.astype(dtype)) for i, (of, alike) in enumerate(zip(members, same, strict=True)) if of.size]


def _summed(values: np.ndarray, kin: Kin) -> np.ndarray:
    """Values with those of a family replaced by their sum."""
    if not kin:
        return values
    out = values.copy()
    for row, members, same in kin:
        out[row][:, members] = values[row].take(members, axis=1) @ same
    return out


def effective_number(world: World, params: float, tokens: np.ndarray) -> np.ndarray:
    """m (seed, 1): at which one expert of `params` has the pooled law's loss after `tokens` (seed,) natural tokens.

    1 for a curve that counts a domain's own tokens. In closed form where the law is a power of tokens and no domain is
    at the bound, else by bisection.
    """
    if not world.curve.pooled:
        return np.ones((len(tokens), 1))
    W, first = tokens[:, None, None], world.effective
    goal = _natural_mean(world, world.curve.loss(params, W))

    def short(m: np.ndarray) -> np.ndarray:
        return _natural_mean(world, world.curve.loss(params, W * (world.ordinary * m)[:, :, None])) - goal

    if (np.abs(short(first)) <= 1e-14 * goal).all():
        return first
    low, high = first * 1e-12, first * 1e6
    for _ in range(90):
        middle = np.sqrt(low * high)
        above = short(middle) >= -1e-15 * goal
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low


def _natural_mean(world: World, loss: Any) -> np.ndarray:
    return (world.natural * (loss * np.ones((*world.natural.shape, 1)))[..., 0]).sum(axis=1, keepdims=True)


def expert_losses(world: World, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Loss (seed, part, expert) of every expert on every domain."""
    return world.curve.cast(tokens.dtype).loss(params, tokens)


def own_params(capacity: Capacity, known: Knowledge, probability: np.ndarray) -> np.ndarray:
    """Parameters that a part of a domain occupies (seed, part), of those that its tokens meet."""
    routed = np.einsum("ske,ske->sk", probability, known.trained) * capacity.alone
    return routed + capacity.common * known.common_trained


def penalty(world: World, capacity: Capacity, state: Any, probability: np.ndarray) -> np.ndarray:
    """What repeats cost each part of a domain (seed, part), nat/token; `state` has known, seen and made."""
    return world.overfit.penalty(*_repeated(world, capacity, state, probability))


def penalty_slope(world: World, capacity: Capacity, state: Any, probability: np.ndarray) -> np.ndarray:
    """What one more token of a domain adds to its penalty (seed, part)."""
    if world.overfit.strength == 0.0:
        return np.zeros(world.natural.shape)
    return world.overfit.slope(*_repeated(world, capacity, state, probability))


def _repeated(world: World, capacity: Capacity, state: Any, probability: np.ndarray) -> tuple[np.ndarray, ...]:
    floor = np.broadcast_to(world.curve.lowest(_LARGE), (*world.natural.shape, 1))[..., 0]
    unique = world.each(world.whole(world.unique))
    seen, params = state.seen - state.made, own_params(capacity, state.known, probability)
    repeats, dense = seen / np.where(world.unique > 0, world.unique, np.inf) - 1.0, params / world.unique
    return floor, np.maximum(repeats, 0.0), unique, dense


def domain_losses(probability: np.ndarray, expert_loss: np.ndarray) -> np.ndarray:
    """Loss of each domain (seed, domain): experts weighted by how often they are chosen for it."""
    total = row_sums(probability)
    return np.vecdot(probability, expert_loss) / np.where(total > 0, total, 1.0)


def domain_gains(world: World, params: np.ndarray, tokens: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Loss of each domain removed by one more effective token of it (seed, part), at the present routing."""
    return domain_losses(probability, world.curve.gain(params, tokens) * np.ones(probability.shape))


def expert_gains(world: World, params: np.ndarray, tokens: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    """Loss removed by one more effective token of its usual mixture, for each expert (seed, expert)."""
    gain = world.curve.gain(params, tokens) * np.ones(assigned.shape)
    return np.einsum("ske,ske->se", assigned, gain) / np.maximum(assigned.sum(axis=1, dtype=np.float64), _TINY)


def heard(gains: np.ndarray, load: np.ndarray, noise: float) -> np.ndarray:
    """Expected gain of an update (seed, expert): gain per token, times the part of the gradient that is no noise.

    `noise` (token): where noise and gradient are alike; with n tokens n/(n + noise) of an update is gradient, as at the
    critical batch (McCandlish et al. 2018, 1812.06162).
    """
    return gains * load / np.maximum(load + noise, _TINY)


def nothing_left(gains: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """Experts to leave without weight updates: gain below `threshold` x the mean gain of the experts there."""
    if threshold <= 0:
        return np.zeros(alive.shape, dtype=bool)
    mean = (gains * alive).sum(axis=1, keepdims=True) / alive.sum(axis=1, keepdims=True)
    return alive & (gains < threshold * mean)
