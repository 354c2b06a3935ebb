"""moesim balance as a whole: experiments, studies and searches, what is kept, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from test_balance_run import config

import moesim
from moesim import config as files
from moesim.balance import study
from moesim.balance.intervals import verdicts
from moesim.balance.run import run as drive
from moesim.balance.setting import GROUPS
from moesim.errors import InputError


def asked(name, sweep, **over):
    """An experiment as its file has it, with another sweep and other keys."""
    return {**config(experiment=name), "experts": 16, "figures": False, **over, "sweep": sweep}


def test_the_experiment_at_one_size_with_one_move():
    sizes = config(experiment="split_and_feed")["sweep"]["sizes"]
    made = asked("split_and_feed", {"sizes": {16: sizes[16]}, "moves": {"rho": [3]}}, seeds=2, steps=120)
    result = drive(made)
    data, table = result.dataset, result.table
    rivals = ["static", "auxiliary", "loss_free", "loss_free_eplb"]
    rivals += ["eplb_temperature", "eplb_optimal", "eplb_optimal_macro", "hybrid"]
    assert list(data.policy.values) == [*rivals, "more_experts", "split_feed"]
    assert list(data.world.values) == ["16", "16 rho=0.15"]
    assert (data["size"].values.tolist(), data.moved.values.tolist()) == (["16"] * 2, ["nothing", "rho"])
    # the same number of parameters from the start as splits end with
    assert (data.experts_alive.sel(policy="more_experts") == 20).all()
    assert (data.wall_clock.sel(policy="loss_free_eplb") < data.wall_clock.sel(policy="loss_free")).all()
    best = data.micro_loss_at_equal_time.drop_sel(policy="split_feed").mean("seed").min("policy")
    gap = data.micro_loss_at_equal_time.sel(policy="split_feed").mean("seed") - best
    np.testing.assert_allclose(data.gap_to_best_micro_loss_at_equal_time.mean("seed"), gap)
    assert "size 16, nothing moved" in table
    assert "changed nothing" not in table
    assert "rho=0.15" in table


def test_the_experiment_moves_every_parameter_at_two_sizes():
    from moesim.balance import worlds

    made = config(experiment="split_and_feed")
    listed = worlds.listed(made)
    moves = made["sweep"]["moves"]
    assert len(listed) == 2 * (1 + 2 * len(moves)) + 1
    size, own, values = listed["64 inertia=0.0833"]
    assert (size, own["experts"], own["policies"]["more_experts"]["experts"]) == ("64", 64, 80)
    assert values == {"inertia": pytest.approx(0.25 * 0.333)}
    # the moved keys are all that a world can be moved in by, and are really put there
    for axis in moves:
        assert study.path_of(axis)[0] in (*GROUPS, *own)


def test_a_search_looks_around_the_best_and_the_worst():
    search = {"worlds": 4, "rounds": 1, "around": 1, "rho": [0.01, 0.3], "skew": [0.5, 1.5]}
    policies = {"static": {}, "split_feed": {"structure": "split", "sampling": "feed_idle"}}
    made = config({"policies": policies, "sweep": {"search": search}, "steps": 30, "figures": False})
    result = drive(made)
    data = result.dataset
    gap = data.gap_to_best_micro_loss_at_equal_time.mean("seed").values[:4]
    ends = np.log(data.at_skew.values) / np.log(3.0)
    near = ends[[np.argmin(gap), np.argmax(gap)]].repeat(2)
    assert data.sizes["world"] == 8
    assert (np.abs(ends[4:] - near) <= 0.25 + 1e-9).all()
    assert "what distinguishes worlds" in result.table
    again = drive(made).dataset
    assert again.identical(data)


def test_run_gives_dataset_figures_and_table():
    over = {"policies": {"static": {}, "both": {"structure": "split", "sampling": "feed_idle"}}, "target_loss": 12.0}
    result = drive(config(over))
    data, table = result.dataset, result.table
    assert set(data.dims) >= {"policy", "seed", "step", "expert", "device", "domain"}
    assert list(result.figures) == ["loss", "balance", "time", "serves", "family", "sampling"]
    assert "both" in table
    assert all("units" in data[name].attrs for name in data.data_vars)
    assert np.isfinite(data.tokens_to_target).all()
    assert not data.sel(policy="static").alive.isel(expert=slice(8, None)).any()


def test_study_compares_in_every_world():
    claim = {"structure": "split", "sampling": "feed_idle"}
    over = {"policies": {"static": {}, "split_feed": claim}, "sweep": {"rho": [0.0, 0.3], "indivisible": [0.05, 1.0]}}
    result = drive(config({**over, "steps": 30}))
    data, table = result.dataset, result.table
    assert data.gap_micro_loss_at_equal_time.dims == ("policy", "seed", "rho", "indivisible")
    assert (data.gap_micro_loss_at_equal_time.sel(policy="split_feed") == 0).all()
    ours = data.micro_loss_at_equal_time.sel(policy="split_feed", drop=True)
    gap = (ours - data.micro_loss_at_equal_time).transpose(*data.gap_micro_loss_at_equal_time.dims)
    np.testing.assert_allclose(data.gap_micro_loss_at_equal_time, gap)
    assert len(result.figures) == 2
    assert "rho = 0.3" in table
    assert table.endswith("split_feed: its structure changed nothing; no expert met its terms when asked")
    np.testing.assert_array_equal(verdicts(np.array([[1.0, -1, 1], [1.1, -1.1, -1], [0.9, -0.9, 0]])), [1, -1, 0])


BAD = {
    "more active than experts": ({"active_experts": 9}, {}, "active_experts=9 is more than experts=8"),
    "fewer slots": ({"cluster": {"slots_per_device": 1}}, {}, "slots_per_device=2 or more"),
    "frequencies": ({"world": {"frequency": [0.5, 0.4]}}, {"world": "given"}, "sum to 0.9"),
    "negative frequency": ({"world": {"frequency": [1.5, -0.5]}}, {"world": "given"}, "frequency=-0.5"),
    "bound": ({"sampling": {"bound": 0.9}}, {"sampling": "feed_idle"}, "bound=0.9"),
    "unreachable": (
        {"sampling": {"least": 0.9}, "world": {"domains": 8, "skew": 2.0}},
        {"sampling": "feed_idle"},
        "domain '0' alone keeps",
    ),
    "policy": ({"routing": {"policy": "random"}}, {}, "no policy 'random'; it takes"),
    "option": ({"structure": {"colour": 1}}, {}, "unknown option 'colour'"),
    "key": ({"stepz": 1}, {}, "unknown key 'stepz'"),
    "steps": ({"steps": 1.5}, {}, "whole number"),
    "rho": ({"world": {"rho": 1.5}}, {}, "rho=1.5"),
    "atom": ({"world": {"atom": 0}}, {}, "atom=0"),
    "chip": ({"chip": {"flops": None}}, {}, "flops=None"),
    "nodes": ({"cluster": {"devices": 12, "devices_per_node": 8}}, {}, "do not fill nodes"),
    "speeds": ({"cluster": {"speeds": [1, 1]}}, {}, "give one for each device"),
    "epochs": ({"world": {"unique_tokens": 1e6}, "sampling": {"epoch_cap": 1.0}}, {}, "epoch_cap=1 leaves 1e"),
    "unimax": ({"world": {"unique_tokens": 1e6}}, {"sampling": "unimax"}, "give epochs of"),
    "trace": ({"sweep": {"rho": [0.1]}, "policies": {"static": {}}}, {"world": "trace"}, "have no losses to compare"),
    "axis": ({"sweep": {"size": [1]}, "policies": {"split_feed": {}, "static": {}}}, {}, "no axis 'size'"),
    "group": ({"policies": {"a": {"model": "x"}}}, {}, "no group 'model'"),
    "other steps": ({"policies": {"a": {}, "b": {"steps": 20}}}, {}, "steps 60 and 20; give one steps for all"),
    "other seeds": ({"policies": {"a": {"seeds": 3}, "b": {}}}, {}, "seeds 3 and 2; give one seeds for all"),
    "no policy": ({"policies": {"linspace": [1, 2]}}, {}, r"\[1, 2\] is no policy"),
    "target": ({"world": {"target": "median"}}, {}, "target='median'"),
    "fidelity": ({"routing": {"fidelity": "exact"}}, {}, "fidelity='exact'"),
    "repetition": ({"world": {"repetition": "never"}}, {}, "no 'never'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    over, choices, message = BAD[name]
    with pytest.raises(InputError, match=message):
        drive(config(over, **choices))


def test_the_primary_config_says_what_the_code_does():
    from moesim.balance.setting import Run
    from moesim.settings import defaults

    shown = files.shipped("balance")
    assert {name: shown[name] for name in defaults(Run)} == defaults(Run)


def test_a_yaml_holds_only_what_differs():
    from moesim.balance.run import keys

    for group in GROUPS:
        for name in files.choices(group):
            content = files.read(group, name)
            default = keys({group: content})[group]
            same = [key for key in content if key != "policy" and content[key] == default[key]]
            assert not same, f"conf/{group}/{name}.yaml repeats defaults: {same}"


def mine(state, setting):
    """A sampler of one's own."""
    return setting.world.natural, state.memory


def test_python_is_the_verb(tmp_path, monkeypatch):
    import moesim
    from moesim.cli import main

    monkeypatch.chdir(tmp_path)
    main(["balance", "steps=20", "seeds=2", "world.rho=0.1", "structure=split", "figures=false", "hydra.run.dir=out"])
    verb = moesim.open_result("out")
    same = moesim.simulate(steps=20, seeds=2, structure="split", **{"world.rho": 0.1})
    assert verb.drop_attrs(deep=False).identical(same.drop_attrs(deep=False))
    told = ("verb", "moesim_version", "world", "structure", "chip", "law", "repetition")
    assert [verb.attrs[name] for name in told] == [same.attrs[name] for name in told]
    nested = moesim.simulate(steps=20, seeds=2, structure={"policy": "split"}, world={"rho": 0.1})
    assert nested.drop_attrs(deep=False).identical(same.drop_attrs(deep=False))
    own = moesim.simulate(steps=20, seeds=2, structure="split", world={"rho": 0.1}, sampling=mine)
    assert own.drop_attrs(deep=False).identical(same.drop_attrs(deep=False))
    assert (own.attrs["sampling"], same.attrs["sampling"]) == ("mine", "natural")
    with pytest.raises(InputError, match=r"unknown key .step.; it takes .*did you mean steps"):
        moesim.simulate(step=20)
    with pytest.raises(InputError, match="no 'slit'; did you mean split"):
        moesim.simulate(structure="slit")


def test_a_killed_study_keeps_its_worlds(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    policies = {"static": {}, "split_feed": {"structure": "split", "sampling": "feed_idle"}}
    made = config({"policies": policies, "sweep": {"rho": [0.0, 0.3]}, "steps": 12, "figures": False})
    whole, done, run_one = drive(made).dataset, [], study.compared

    def dies(world, advance=None):
        if done:
            raise KeyboardInterrupt
        done.append(world)
        return run_one(world, advance)

    monkeypatch.setattr(study, "compared", dies)
    with pytest.raises(KeyboardInterrupt):
        drive(made)
    assert len(list(tmp_path.rglob("world_0.nc"))) == 1
    monkeypatch.setattr(study, "compared", lambda world, advance=None: done.append(world) or run_one(world, advance))
    assert drive(made).dataset.identical(whole)
    assert len(done) == 2
    assert not list(tmp_path.rglob("world_*.nc"))


def test_processes_share_the_worlds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policies = {"static": {}, "split_feed": {"structure": "split", "sampling": "feed_idle"}}
    made = config({"policies": policies, "sweep": {"rho": [0.0, 0.3]}, "steps": 12, "figures": False})
    one, two = (drive({**made, "workers": workers}).dataset for workers in (1, 2))
    assert two.identical(one)
    assert not list(tmp_path.rglob("world_*.nc"))
    # one bad world is refused before any is run, and so is what cannot be sent to another process
    with pytest.raises(InputError, match="rho=2"):
        drive({**made, "sweep": {"rho": [0.0, 2.0]}, "steps": 10**6})
    with pytest.raises(InputError, match=r"workers=2: .* so it cannot go to another process; use workers=1"):
        drive({**made, "sampling": lambda state, setting: None, "workers": 2})
    with pytest.raises(InputError, match=r"workers=0; it takes a whole number"):
        drive({**made, "workers": 0})


def test_what_the_first_step_would_not_see_is_refused_before_it():
    for over, choices, message in (
        ({"structure": {"way": "foo"}}, {"structure": "split"}, "split way: no policy 'foo'"),
        ({"structure": {"factor": 0.5}}, {"structure": "grow"}, "factor=0.5"),
        ({"seeds": 10**9}, {}, "1000000000 seeds x .* bytes of memory"),
        ({"steps": 10**12}, {}, "records, 8 experts x 64 domains need about"),
        ({"cluster": {"slots_per_device": 2.5}}, {}, "slots_per_device=2.5; it takes a whole number"),
        ({"seed": -1}, {}, "seed=-1; it takes a whole number of 0 or more"),
        ({"seed": True}, {}, "seed=True"),
        ({"world": {"shuffle": 1}}, {}, "shuffle=1; it takes true or false"),
        ({"world": {"domains": 2**21}}, {}, "domains=2097152"),
        ({"world": {"atom": 1e-12}}, {}, "1e\\+12 domains"),
        ({"schedule": {"optimizer": "adamm"}}, {}, "no 'adamm'"),
        ({"structure": {"at_most": 1.5}}, {"structure": "split"}, "at_most=1.5"),
        ({"routing": {"control": {"policy": "auxiliary", "scope": "local"}}}, {}, "scope='local'"),
        ({"sampling": {"exponent": -1.0}}, {"sampling": "temperature"}, "exponent=-1"),
        ({"placement": {"topology": "star"}}, {"placement": "scheduled"}, "topology='star'"),
        ({"placement": {"threshold": 0.9}}, {"placement": "eplb"}, "threshold=0.9"),
        ({"cluster": {"stages": 0}}, {}, "stages=0"),
        ({"schedule": {"microbatches": 0.1}}, {}, "microbatches=0.1"),
        ({"capacity": 1e8, "expert": {"capacity": 2e8}}, {}, "are one thing; give one of them"),
        ({"routing": {"policy": "expert_choice", "capacity": -1}}, {}, "capacity=-1"),
        ({"routing": {"policy": "balanced", "iterations": 0}}, {}, "iterations=0; it takes a whole number of 1"),
        ({"routing": {"control": {"policy": "sign", "step": -1}}}, {}, "step=-1"),
        ({"structure": {"policy": "merge", "below": -1}}, {}, "below=-1"),
        ({"structure": {"way": {"policy": "clone", "noise": -1}}}, {"structure": "split"}, "noise=-1"),
        ({"sampling": {"policy": "bandit", "memory": 2}}, {}, "memory=2"),
        ({"sampling": {"policy": "rehearsal", "quality": 2}}, {}, "quality=2"),
        ({"world": {"trajectory": 1}}, {"world": "trace"}, "give world.path=FILE too"),
    ):
        with pytest.raises(InputError, match=message):
            drive(config({**over, "figures": False}, **choices))


def test_equal_time_is_that_of_the_fastest():
    """One policy takes 10 s for its tokens, one 20: at 10 s the slow one is half way from 3 to 2."""
    dims, curve = ("policy", "seed", "step"), [[[3.0, 1.0]], [[3.0, 2.0]]]
    data = xr.Dataset({name: (dims, np.array(curve)) for name in study.LOSSES}, {"seed": [0]})
    for name in ("max_over_mean", "utilisation", "experts_alive", "edits"):
        data[name] = (dims, np.ones((2, 1, 2)))
    data["wall_clock"] = (dims, np.array([[[0.0, 10.0]], [[0.0, 20.0]]]))
    ends = study._ends(data)
    np.testing.assert_allclose(ends.micro_loss_at_equal_time, [[1.0], [2.5]])
    np.testing.assert_allclose(ends.micro_loss_at_equal_tokens, [[1.0], [2.0]])


def test_a_bad_policy_is_refused_before_another_one_runs():
    """Ten million steps of the first would take hours."""
    policies = {"good": {}, "bad": {"routing": {"temperature": -1}}}
    with pytest.raises(InputError, match="temperature=-1"):
        moesim.simulate(policies=policies, steps=10**7, seeds=1)
