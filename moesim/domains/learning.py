"""What an expert knows of each domain, what that is worth in loss, and which experts have nothing left to gain."""

from __future__ import annotations

import numpy as np

from moesim.domains.world import World

_TINY = 1e-300


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
    learned: np.ndarray, assigned: np.ndarray, worth: np.ndarray, frozen: np.ndarray, forgetting: float = 0.0
) -> np.ndarray:
    """Effective tokens after a step: what was assigned times what it is worth, except for frozen experts.

    `forgetting`: share that an expert forgets of a domain per token of other domains.
    """
    taken = assigned * worth[:, :, None]
    if frozen.any():
        taken *= ~frozen[:, None, :]
    taken += learned if forgetting == 0.0 else learned * _kept(assigned, forgetting)
    return taken


def _kept(assigned: np.ndarray, forgetting: float) -> np.ndarray:
    foreign = assigned.sum(axis=1, keepdims=True) - assigned
    return np.exp(np.log1p(-forgetting) * foreign)


def domains_served(world: World, assigned: np.ndarray, load: np.ndarray) -> np.ndarray:
    """Effective number of domains of each expert (seed, expert): exp of the entropy of its token shares.

    Similar domains share capacity as they share experience: the entropy is of order 1 with similarities (Leinster and
    Cobbold 2012), which is the plain one when domains share nothing, and 1 when all are alike.
    """
    share = assigned / np.maximum(load, _TINY)[:, None, :]
    ordinary = world.mix(share)
    entropy = np.einsum("ske,ske->se", share, np.log(np.maximum(ordinary, _TINY)))
    return np.exp(-entropy)


def expert_losses(world: World, learned: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Loss (seed, domain, expert) of every expert on every domain; `params` (seed, expert) are per domain served."""
    return world.curve.loss(params[:, None, :], world.mix(learned))


def domain_losses(probability: np.ndarray, expert_loss: np.ndarray) -> np.ndarray:
    """Loss of each domain (seed, domain): experts weighted by how often they are chosen for it."""
    total = probability.sum(axis=-1)
    return np.einsum("ske,ske->sk", probability, expert_loss) / np.where(total > 0, total, 1.0)


def domain_gains(world: World, learned: np.ndarray, params: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Loss of each domain removed by one more of its tokens (seed, domain), at the present routing."""
    gain = world.curve.gain(params[:, None, :], world.mix(learned))
    return domain_losses(probability, gain * np.ones(probability.shape))


def expert_gains(
    world: World, learned: np.ndarray, params: np.ndarray, assigned: np.ndarray, load: np.ndarray
) -> np.ndarray:
    """Loss removed by one more token of its usual mixture, for each expert (seed, expert)."""
    gain = world.curve.gain(params[:, None, :], world.mix(learned))
    return np.einsum("ske,ske->se", assigned, gain * np.ones(assigned.shape)) / np.maximum(load, _TINY)


def nothing_left(gains: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """Experts to leave without weight updates: gain below `threshold` x the mean gain of the experts there."""
    if threshold <= 0:
        return np.zeros(alive.shape, dtype=bool)
    mean = (gains * alive).sum(axis=1, keepdims=True) / alive.sum(axis=1, keepdims=True)
    return alive & (gains < threshold * mean)
