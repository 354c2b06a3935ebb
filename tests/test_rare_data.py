"""Repeating a scarce domain inside a mixture, and growing experts: the directions that were measured, not the numbers.

Li et al. 2026, 2608.14071 and what stands beside it: one scarce domain in a fresh stream, a model on its own.
"""

import numpy as np
import pytest

import moesim

REPEATS = np.array([1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0])


def fed(repeats, share=0.05, size=2e8, tokens=2e10, floor=1.69, strength=0.03, unique=None):
    """Losses (common, scarce) of one model fed `repeats` x the tokens of a domain that is `share` of the stream."""

    def mixture(state, setting):
        scarce = setting.world.natural == share
        return np.where(scarce, repeats * share, 1.0 - repeats * share), state.memory

    world = {"policy": "given", "frequency": [1.0 - share, share], "shuffle": False, "rho": 0.0}
    world |= {"curve": {"coefficients": {"E": [1.69, floor]}}, "overfit": {"strength": strength}}
    world |= {"unique_tokens": unique}
    data = moesim.simulate(
        world=world, sampling=mixture, experts=1, capacity=size, steps=20, tokens_per_step=tokens / 20, seeds=1
    )
    return data.domain_loss.values[0, -1]


def best(**over):
    """The number of repeats at which the scarce domain's loss is least: the vertex through the lowest three."""
    there = REPEATS[REPEATS * over.get("share", 0.05) < 1.0]
    losses = np.array([fed(r, **over)[1] for r in there])
    i = int(np.argmin(losses))
    assert 0 < i < len(there) - 1, losses
    a, b, _ = np.polyfit(np.log(there[i - 1 : i + 2]), losses[i - 1 : i + 2], 2)
    return float(np.exp(-b / (2 * a)))


@pytest.fixture(scope="module")
def usual():
    return best()


def test_feeding_has_an_interior_best(usual):
    assert 4 < usual < 7
    free = [fed(r, strength=0.0)[1] for r in REPEATS]
    assert (np.diff(free) < 0).all()  # where repeats cost nothing they go on paying


def test_an_easy_domain_stands_more_repeats(usual):
    assert best(floor=1.0) > 1.1 * usual > 1.2 * best(floor=2.5)


def test_the_unique_share_hardly_matters(usual):
    assert best(share=0.025) == pytest.approx(usual, rel=0.1)
    assert best(share=0.1, tokens=2e10) == pytest.approx(usual, rel=0.1)


def test_size_lowers_it_at_a_fixed_stream_and_raises_it_mildly_at_a_fixed_ratio(usual):
    assert best(size=8e8) < 0.85 * usual
    assert usual < best(size=2e9, tokens=2e11) < 1.25 * usual


def test_other_domains_hardly_notice():
    """Repeated in place of unique tokens of the scarce domain, at one share of the stream."""
    repeated, fresh = fed(12.0), fed(12.0, unique=np.inf)
    assert abs(repeated[0] - fresh[0]) < 0.01
    assert repeated[1] > fresh[1] + 0.1


def test_a_domain_in_a_mixture_suffers_less_than_a_corpus_alone():
    """As many repeats of as many tokens: alone they meet all parameters."""
    penalty = fed(8.0)[1] - fed(8.0, strength=0.0)[1]
    whole = {"world.domains": 1, "experts": 1, "capacity": 2e8, "steps": 20, "tokens_per_step": 8 * 0.05 * 2e10 / 20}
    whole |= {"world.unique_tokens": 0.05 * 2e10, "seeds": 1}
    alone = [
        float(moesim.simulate(**whole, **{"world.overfit": {"strength": s}}).micro_loss[0, -1]) for s in (0.03, 0.0)
    ]
    assert 0 < penalty < 0.75 * (alone[0] - alone[1])


def test_growing_in_stages_saves_time_and_not_loss():
    """EMO (2605.13247): a pool grown by token budgets equals the large one in fewer device-hours and beats the small.

    Exact copies do not diversify (Expert Upcycling, 2604.19835): what parts their data does.
    """
    tokens = 2.0**22 * 400
    runs = {"small": {"experts": 8}, "large": {"experts": 16}}
    grow = {"policy": "grow", "every": 20, "budgets": [0.3 * tokens]}
    runs |= {way: {"experts": 8, "structure": {**grow, "way": way}} for way in ("along_tree", "clone")}
    machine = {"cluster.devices": 8, "cluster.slots_per_device": 2, "placement": "packed", "world.rho": 0.05}
    usual = {"steps": 400, "seeds": 2, "learn_every": 2, "capacity": 3e7, **machine}
    ends = {name: moesim.simulate(**usual, **over).isel(step=-1).mean("seed") for name, over in runs.items()}
    loss = {name: float(end.micro_loss) for name, end in ends.items()}
    hours = {name: float(end.wall_clock) for name, end in ends.items()}
    assert loss["along_tree"] < loss["large"] * 1.003 < loss["small"]
    assert hours["along_tree"] < 0.95 * hours["large"]
    assert loss["clone"] > loss["along_tree"] + 0.02
