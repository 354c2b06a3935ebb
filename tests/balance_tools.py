"""A world, a state and a setting small enough for paper: one seed, few domains, few experts."""

from types import SimpleNamespace

import numpy as np

from moesim.balance.state import State, Streams
from moesim.domains.curves import curve_of
from moesim.domains.learning import Capacity
from moesim.domains.world import World
from moesim.hardware.placed import Placement


def row(*values):
    """One seed."""
    return np.array([values], dtype=float)


def world(natural, unique=None, target=None, rho=0.0, decay=0.5, curve=None):
    """Domains that share nothing unless `rho`; loss E + B/tokens with E = 1, B = 1 unless another curve is given."""
    natural = row(*natural)
    n = natural.shape[1]
    made = curve_of(
        {"coefficients": {"E": 1.0, "A": 1e-300, "B": 1.0, "beta": 1.0}, "first_tokens": 1e-9, "pooled": False}
        if curve is None
        else curve
    )
    even = np.full((1, n), 1.0 / n)
    return World(
        tuple("abcdefgh"[:n]),
        natural,
        np.full((1, n), np.inf) if unique is None else row(*unique),
        even,
        natural if target is None else row(*target),
        np.arange(n)[None],
        np.arange(n)[None],
        rho,
        decay,
        1.0,
        made,
        lambda tokens, unique: tokens,
    )


def state(probability, alive=None, **over):
    """A state of one seed whose router gives `probability` (domain, expert)."""
    P = np.array([probability], dtype=float)
    shape, pair = P.shape, (1, P.shape[2])
    there = np.ones(pair, dtype=bool) if alive is None else np.array([alive])
    zeros, mixture = np.zeros(pair), np.full(shape[:2], 1.0 / shape[1])
    fields = {
        "step": 10,
        "scores": np.log(np.maximum(P, 1e-300)),
        "rest": np.zeros(shape),
        "bias": zeros,
        "learned": np.zeros(shape),
        "trained": np.zeros(shape),
        "common_learned": np.zeros(shape[:2]),
        "common_trained": np.zeros(shape[:2]),
        "pending": np.zeros(shape[:2]),
        "waiting": np.zeros(shape[:2]),
        "assigned": P,
        "probability": P,
        "loss": np.zeros(shape[:2]),
        "expert_loss": np.zeros(shape),
        "seen": np.zeros(shape[:2]),
        "made": np.zeros(shape[:2]),
        "drawn": np.zeros(shape[:2]),
        "dropped": np.zeros(1),
        "load": zeros,
        "mean_load": P.sum(axis=1),
        "hot": np.zeros(pair, dtype=int),
        "alive": there,
        "frozen": np.zeros(pair, dtype=bool),
        "parent": np.full(pair, -1),
        "born": np.zeros(pair, dtype=int),
        "bond": np.arange(shape[2])[None],
        "copies": there.astype(int),
        "mixture": mixture,
        "placement": Placement(np.zeros((1, 0), dtype=int), np.zeros((1, 0))),
        "splits": np.zeros(1, dtype=int),
        "migrated": np.zeros((1, 1)),
        "planned": np.zeros(1),
        "wall_clock": np.zeros(1),
    }
    return State(**{**fields, **over})


def setting(
    world, tokens=10.0, steps=100, slots=8, active=1, temperature=1.0, every=10, params=1e300, speed=(1.0, 1.0)
):
    """What policies see of a run."""
    return SimpleNamespace(
        world=world,
        tokens=tokens,
        steps=steps,
        slots=slots,
        active=active,
        devices=2,
        nodes=1,
        machine=SimpleNamespace(cluster=SimpleNamespace(speed=np.array(speed), devices=2)),
        routing=SimpleNamespace(temperature=temperature),
        sampling=SimpleNamespace(every=every),
        streams=Streams.of((0,)),
        most_experts=0,  # as many as the state has room for
        capacity=Capacity(params, active),
        effective=lambda state: np.ones((1, 1)),
        abilities=lambda state: (np.full(state.learned.shape, params), world.mix(state.learned)),
    )
