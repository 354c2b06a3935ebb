"""Routers in a run: balanced as published, collapsed at the threshold of the theory."""

import numpy as np
import pytest
from balance_theory import collapse_threshold
from test_balance_run import run

from moesim.balance.routing import inclusion


# Published biases and weights from a cold start: 500 steps of the default world.
@pytest.fixture(scope="module")
def routers():
    controls = {
        "none": "none",
        "auxiliary": "auxiliary",
        "micro": {"policy": "auxiliary", "scope": "micro"},
        **{f"sign {step:g}": {"policy": "sign", "step": step} for step in (1e-4, 1e-3, 1e-2)},
        **{f"proportional {step:g}": {"policy": "proportional", "step": step} for step in (1e-4, 1e-3, 1e-2)},
    }
    sizes = {"steps": 500, "experts": 16, "record_every": 50, "cluster": {"devices": 8}}
    return {name: run({**sizes, "routing": {"control": control}}).records for name, control in controls.items()}


def test_balanced_routers_balance_as_published(routers):
    # Wang et al. 2024: MaxVio of all .04 and less loss-free, .52 to .94 with the auxiliary loss; their step sizes.
    last = {name: values["max_vio_global"][:, -1] for name, values in routers.items()}
    assert (last["sign 0.001"] < 0.1).all()
    assert (last["proportional 0.01"] < 0.1).all()
    for name in ("auxiliary", "micro"):
        assert (last[name] < 0.5 * last["none"]).all()
        assert (last[name] > 2 * np.maximum(last["sign 0.001"], last["proportional 0.01"])).all()
    batch = {name: values["max_vio"][:, -1] for name, values in routers.items()}
    for best, *worse in (("sign 0.001", "sign 0.01", "sign 0.0001"),):
        assert (batch[best] < batch[worse[0]]).all()  # 1e-2 fluctuates
        assert (batch[worse[0]] < batch[worse[1]]).all()  # 1e-4 has not arrived
    assert (last["proportional 0.01"] < last["proportional 0.001"]).all()
    assert (last["proportional 0.001"] < last["proportional 0.0001"]).all()
    # a cold router is even by about step 300 (PaddleNLP), and a micro-batch loss costs what experts had specialised on
    assert (routers["sign 0.001"]["max_vio"][:, 7] < 0.1).all()
    assert (routers["micro"]["micro_loss"][:, -1] > routers["auxiliary"]["micro_loss"][:, -1]).all()


def test_biases_keep_their_pace_where_learning_is_seldom():
    over = {"steps": 500, "experts": 16, "record_every": 50, "cluster": {"devices": 8}, "learn_every": 5}
    assert (run(over, routing="loss_free").records["max_vio_global"][:, -1] < 0.1).all()


def test_global_violation_is_of_the_last_hundred_steps():
    outcome = run({"steps": 120, "record_every": 1})
    loads, told = outcome.records["loads"], outcome.records["max_vio_global"]
    for step in (0, 50, 99, 110, 119):
        total = loads[:, max(step - 99, 0) : step + 1].sum(axis=1)
        np.testing.assert_allclose(told[:, step], total.max(1) / total.mean(1) - 1.0)
    # of a seed whose experts changed, those since: the split after step 51 (index 50) leaves one step at index 51
    parted = run({"steps": 60, "record_every": 1, "structure": {"every": 50}}, structure="split").records
    there = parted["copies"][:, 51] > 0
    assert (there.sum(1) > 8).any()
    for row in np.flatnonzero(there.sum(1) > 8):
        load = parted["loads"][row, 51][there[row]]
        np.testing.assert_allclose(parted["max_vio_global"][row, 51], load.max() / load.mean() - 1.0)


@pytest.mark.parametrize("active", [1, 2, 4, 7])
def test_chosen_experts_sum_to_the_active_ones(active):
    rng = np.random.default_rng(active)
    z = 5 * rng.standard_normal((3, 20, 8))
    z[:, :, 7] = -np.inf
    chosen = inclusion(z, active)
    np.testing.assert_allclose(chosen.sum(-1), active, rtol=1e-12)
    assert (chosen <= 1).all()
    assert (chosen[..., 7] == 0).all()
    np.testing.assert_allclose(inclusion(z + 3.0, active), chosen, rtol=1e-9)


@pytest.mark.parametrize("experts", [2, 3, 8])
def test_the_router_of_a_run_collapses_at_the_threshold(experts):
    def largest(part):
        rich = part * collapse_threshold(experts, 0.5, 0.05)
        routing = {"temperature": 0.5, "decay": 0.05, "reinforcement": rich, "reward": "popularity"}
        world = {"domains": 1, "shuffle": False}
        over = {
            "experts": experts,
            "routing": {**routing, "affinity": 0.0, "noise": 1e-3},
            "world": world,
            "steps": 3000,
        }
        probability = run(
            {**over, "seeds": 1, "cluster": {"slots_per_device": 4}, "record_every": 1000}
        ).final.probability
        return experts * probability.max()

    assert largest(0.95) == pytest.approx(1.0, abs=0.02)
    jump = {2: 1.37, 3: 2.56, 8: 7.99}[experts]  # of two: 1 + tanh x where x = 1.05 tanh x
    assert largest(1.05) == pytest.approx(jump, rel=0.02)
