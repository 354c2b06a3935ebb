"""What is read of a router comes back from the simulator's own loads; its hands write what balance takes."""

import numpy as np
import pytest
import xarray as xr
import yaml

import moesim
from moesim.balance import policies
from moesim.balance.run import CHOICES
from moesim.balance.setting import setting
from moesim.balance.simulate import trajectory
from moesim.errors import InputError
from moesim.lab import reality, router
from moesim.lab.estimates import ROUTER, calibrate, recorded
from moesim.lab.simulated import curve_of, routing_of

FREQUENCY = [0.36, 0.36, 0.1, 0.08, 0.06, 0.04]
ENDS = np.array([1, 2, 4, 8, 16, 32, *range(36, 129, 4)])


def simulated_loads(seeds=24, **router_keys):
    """Loads by domain of simulated seeds as of trajectories, in the windows of a lab run of 128 steps."""
    config = {group: policies.named({group: name})[group] for group, name in CHOICES.items()}
    config |= {
        "world": {"policy": "given", "frequency": FREQUENCY, "shuffle": False},
        "cluster": {"devices": 1, "slots_per_device": 8},
    }
    same = {"policy": "topk", "affinity": 0.0, "reward": "popularity", "decay": 0.0, "fidelity": "tokens"}
    config |= {"routing": same | router_keys, "steps": 128, "tokens_per_step": 2048, "experts": 8}
    given = setting(config, tuple(range(seeds)))
    counts = np.stack([state.assigned for state, _ in trajectory(given)], axis=1)
    summed = np.add.reduceat(counts, np.r_[0, ENDS[:-1]], axis=1)
    dims = ("trajectory", "window", "layer", "domain", "expert")
    coords = {"window_step": ("window", ENDS), "domain": [f"d{i}" for i in range(len(FREQUENCY))]}
    told = {"balancing": ("trajectory", ["none"] * seeds), "seed": ("trajectory", np.arange(seeds))}
    return xr.Dataset({"loads": (dims, summed[:, :, None]), **told}, coords)


@pytest.mark.parametrize(
    "put",
    [
        {"noise": 0.6, "common": 0.5, "reinforcement": 0.2, "reach": 1.5},
        {"noise": 0.6, "common": 0.9, "reinforcement": 0.2, "reach": 3.0},
        {"noise": 1.0, "common": 0.2, "reinforcement": 0.1, "reach": 2.0},
    ],
    ids=str,
)
def test_a_router_comes_back_from_its_own_loads(put):
    found = calibrate(simulated_loads(**put))
    said = {"noise": "noise", "common": "common", "reinforcement": "popularity", "reach": "reach"}
    assert {name: found[word].value for name, word in said.items()} == pytest.approx(put, rel=0.17, abs=0.05)
    assert isinstance(found["wander"], str) or found["wander"].value < 0.04


@pytest.mark.parametrize("put", [0.05, 0.15, 0.3])
def test_wandering_comes_back(put):
    """Scores that nothing else moves walk at random, each domain's for itself or all alike."""
    for common in (0.0, 1.0):
        loads = simulated_loads(8, noise=0.1, common=common, reinforcement=0.0, wander=put)
        assert calibrate(loads)["wander"].value == pytest.approx(put, rel=0.12, abs=0.01)


def test_noise_by_hand():
    """Two domains of equal tokens on two experts, 3:1 and 1:3: their variances are (ln 3)^2/2 less counting, and the
    covariance the opposite of (ln 3)^2/2, which counting does not touch."""
    counts = np.array([[3e6, 1e6], [1e6, 3e6]])[None, None, None]
    variance, alike = router.noise(counts)
    assert variance.item() == pytest.approx(np.log(3) ** 2 / 2, rel=1e-5)
    assert alike.item() == pytest.approx(-(np.log(3) ** 2) / 2, rel=1e-5)


def test_reach_and_growth_by_hand():
    """One domain, two experts: e^2 to 1 at the end, so 1 above and below 0; from even on the log ratio grows with use.

    Two windows of one step, 3:1 then 4:1: ln(4/3) more, on (3/4 - 1/4 + 4/5 - 1/5)/2 = .55 of use.
    """
    counts = np.array([[3e6, 1e6], [4e6, 1e6], [np.exp(2) * 1e6, 1e6], [np.exp(2) * 1e6, 1e6]])[None, :, None, None]
    assert router.reach(counts).item() == pytest.approx(1.0, rel=1e-5)
    found = router.growth(counts[:, [0, 1, 3, 3]], np.array([1.0, 2.0, 40.0, 41.0]))
    assert found.item() == pytest.approx(np.log(4 / 3) / 0.55, rel=1e-5)


def test_balanced_loads_say_nothing_of_an_unbalanced_router():
    loads = simulated_loads(2)
    found = calibrate(loads.assign(balancing=("trajectory", ["loss_free"] * 2)))
    assert {found[name] for name in ROUTER} == {"these loads were balanced; train with balancing=none"}
    found = calibrate(loads.assign(active_experts=("trajectory", [2, 2])))
    assert {found[name] for name in ROUTER} == {"several experts act on a token; train with active_experts=1"}


def test_half_of_the_tokens_by_hand():
    """Five experts: shares .4, then .6 from step 20 on; twice the mean is .4, half is .5."""
    loads = np.full((3, 1, 5), 15.0)
    loads[0, 0, 0], loads[1:, 0, 0] = 41.0, 90.0
    data = xr.Dataset({"loads": (("window", "layer", "expert"), loads)}, {"window_step": ("window", [10, 20, 30])})
    found = calibrate(data)
    assert (found["hotspot_step"].value, found["half_step"].value) == (10, 20)
    assert found["max_over_mean"].value == pytest.approx(3.0, abs=0.05)


def test_the_law_of_a_world_goes_through_its_losses():
    """Losses 3 and 2.5 at 1e6 and 2e6 tokens; what size costs is taken off before the power is worked out."""
    loads = simulated_loads(1).assign(
        loss=(("trajectory", "tokens"), [[3.0, 2.5]]), active_params=("trajectory", [25088])
    )
    loads = loads.assign_coords(tokens=[1e6, 2e6])
    law = curve_of(loads)["curve"]["coefficients"]
    at = [law["E"] + law["A"] * 25088 ** -law["alpha"] + law["B"] * D ** -law["beta"] for D in (1e6, 2e6)]
    assert at == pytest.approx([3.0, 2.5], abs=1e-5)
    assert curve_of(loads.drop_vars("loss")) == {}


def test_what_is_written_is_what_balance_takes(command, tmp_path, monkeypatch):
    """World and router of recorded loads, by the command line, run as they stand."""
    monkeypatch.chdir(tmp_path)
    moesim.save(simulated_loads(3, noise=0.5, wander=0.1), "loads.nc")
    code, out, err = command("lab", "calibrate=loads.nc")
    assert (code, err) == (0, "")
    assert "noise" in out
    (folder,) = {path.parent for path in tmp_path.rglob("routing.yaml")}
    assert yaml.safe_load((folder / "world.yaml").read_text())["frequency"] == pytest.approx(FREQUENCY, abs=0.01)
    made = ("experts=8", "steps=3", "tokens_per_step=2048", "figures=false", "seeds=1", "cluster.slots_per_device=1")
    code, _, err = command("balance", f"world={folder}/world.yaml", f"routing={folder}/routing.yaml", *made)
    assert (code, err) == (0, "")


def test_a_router_has_the_defaults_of_what_is_not_known():
    found = {
        **dict.fromkeys(ROUTER, "not identified"),
        "wander": calibrate(simulated_loads(3, reinforcement=0.0, wander=0.1))["wander"],
    }
    assert set(routing_of(found)) == {
        "policy", "affinity", "reward", "decay", "fidelity", "wander", "control"
    }  # fmt: skip
    control = routing_of(found, "loss_free", rate=0.01, worth=5.0)["control"]
    assert control == {"policy": "sign", "step": 0.01, "worth": 5.0}


def test_the_simulator_is_judged_on_seeds_it_has_not_seen(monkeypatch):
    """From what is shipped: five seeds, two of them predicted; what holds is where the ranges meet."""
    monkeypatch.setattr(reality, "_SEEDS", 2)
    monkeypatch.setattr(reality, "_TRIED", 1)
    shipped = recorded("lab_loads")
    assert np.unique(shipped.seed).tolist() == [0, 1, 2, 3, 4]
    halves, rows = [], reality._rows
    monkeypatch.setattr(reality, "_rows", lambda *parts: halves.extend(parts) or rows(*parts))
    found = reality.reality(shipped)
    assert [np.unique(half.seed).tolist() for half in halves] == [[0, 1, 2], [3, 4]]
    assert {*found.balancing.values} == {"none", "auxiliary", "loss_free"}
    meet = (found.least <= found.high) & (found.most >= found.low)
    assert (found.held == meet).all()
    told = reality.table(found)
    assert told.count("miss") == int((~found.held).sum())
    own = shipped.loss.isel(tokens=-1, trajectory=np.isin(shipped.seed, [3, 4]) & (shipped.balancing == "none").values)
    assert found.measured[(found.quantity == "loss").values].item() == pytest.approx(float(own.mean()))


def test_a_dataset_is_what_it_is():
    loads = simulated_loads(1)
    assert recorded(loads) is loads


def test_too_few_seeds_to_judge_by_are_refused():
    with pytest.raises(InputError, match="loads of 2 seeds; it takes three or more"):
        reality.reality(simulated_loads(2))
    with pytest.raises(InputError, match=r"no loads.nc in"):
        recorded("tests")
