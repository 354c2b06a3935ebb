"""The tables of runs of small models that are shipped: what stands in them, how they are read, and what they say."""

import pytest
import xarray as xr

import moesim
from moesim import config
from moesim.errors import InputError
from moesim.lab import figures
from moesim.lab.compared import BY_LOAD, frame

TABLES = [name for name in config.choices("runs") if name.startswith("lab_")]
CONTRACT = "active_params total_params embedding_params sparsity tokens unique_tokens loss weight_decay seed corpus"
CONTRACT += " hash trajectory loss_se balancing"
each_table = pytest.mark.parametrize("name", TABLES)


@each_table
def test_a_table_has_the_columns_of_the_contract(name):
    runs = moesim.load_runs(name)
    assert set(CONTRACT.split()) <= set(runs.variables)
    assert len(set(runs.hash.values)) == 1
    assert runs.sizes["run"] >= 150


@each_table
def test_a_point_stands_once(name):
    """Before its pool repeats, a run is the fresh one: no row has more unique tokens than tokens, none stands twice."""
    rows = frame(moesim.load_runs(name))
    assert (rows.unique_tokens <= rows.tokens).all()
    cell = ["arm", "seed", "weight_decay", "learning_rate", "balancing", "tokens", "unique_tokens"]
    assert not rows.duplicated(cell).any()


@each_table
def test_the_arms_are_those_of_the_question(name):
    """Dense at the active and at the total size of E 8, K 1, which has routers of 8 x 32 in 2 layers beside."""
    sizes = frame(moesim.load_runs(name)).groupby("arm")[["active_params", "total_params"]].first()
    assert sizes.loc["dense"].tolist() == [24576, 24576]
    assert sizes.loc["moe 8"].tolist() == [24576 + 512, 139264 + 512]
    assert sizes.loc["dense x8"].tolist() == [139264, 139264]


def trajectory(arm, seed, by_load, loss):
    """A file as `grid` keeps it: marks of one run, its loads, and what is the same in all of them."""
    alike = {"arm": arm, "seed": seed, "decay_by_load": by_load, "weight_decay": 0.1, "learning_rate": 0.01}
    alike |= {"corpus": "c", "hash": "h", "d_model": 32, "layers": 2, "experts": 1, "trajectory": f"{arm}{seed}"}
    marks = {"tokens": [4096, 8192], "loss": loss, "unique_tokens": [4096, 4096]}
    data = {name: ("mark", values) for name, values in marks.items()}
    data |= {"domain_loss": (("mark", "domain"), [[1.0], [2.0]]), "loads": (("window", "layer", "expert"), [[[1]]])}
    return xr.Dataset(data | {name: ((), value) for name, value in alike.items()}, {"domain": [arm]})


def test_a_folder_of_trajectories_is_a_table(command, tmp_path):
    for arm, seed, by_load in (("dense", 0, False), ("moe 8", 1, True)):
        moesim.save(trajectory(arm, seed, by_load, [2.5, 2.0 + seed]), tmp_path / f"{arm}.nc")
    rows = frame(moesim.lab.kept(tmp_path))
    assert rows.loss.tolist() == [2.5, 2.0, 2.5, 3.0]
    assert rows.arm.tolist() == ["dense"] * 2 + ["moe 8" + BY_LOAD] * 2
    code, out, err = command("lab", f"kept={tmp_path}", "figures=false")
    assert code == 0, err
    assert "2 runs of small models on c, 2 seeds" in out


def test_a_folder_without_trajectories_is_refused(tmp_path):
    with pytest.raises(InputError, match="no trajectories in"):
        moesim.lab.kept(tmp_path)


def test_the_figures_show_what_the_tables_say():
    """Where the Mixture lies between both dense models at decay .1: a bar at the index, inside its interval."""
    drawn = figures.draw(moesim.load_runs("lab_text"))
    assert set(drawn) == {"losses", "penalty", "excess"}
    assert {text.get_text() for text in drawn["losses"].legends[0].texts} >= {"dense", "dense x8", "moe 8"}
    (index,) = [bar for bar in drawn["excess"].axes[0].containers if bar[0].get_xdata()[0] == 0.1]
    assert 0.0 < index[0].get_ydata()[0] < 1.0
