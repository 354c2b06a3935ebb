"""Many results to one: choices become dims, and what is not whole is named."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from result_tools import CHOICES, SMALL, edited, multirun

import moesim
from moesim.output import collect as collecting
from moesim.output.collect import collect
from moesim.output.job import Job, chosen, listed
from moesim.output.plan import _names, _shared, _variables, index, union


def test_choices_become_dims(command):
    code, _, _, directory = multirun(command, *CHOICES, "space.unique_tokens=2e9,4e9")
    assert code == 0
    collected = moesim.open_result(directory / "collected.nc")
    assert list(collected.law.values) == ["abnar2025", "ludziejewski2025"]
    assert list(collected.repetition.values) == ["none", "muennighoff2023"]
    assert list(collected.unique_tokens.values) == [2e9, 4e9]
    assert set(collected.job_status.dims) == {"law", "repetition", "unique_tokens"}
    assert (collected.job_status == "done").all()
    model = moesim.Model("ludziejewski2025", moesim.load_repetition("muennighoff2023"))
    cell = {"law": "ludziejewski2025", "repetition": "muennighoff2023", "unique_tokens": 4e9, "sparsity": 0.9}
    alone = moesim.optimum(model, compute=1e20, sparsity=0.9, unique_tokens=4e9)
    assert collected.optimal_loss.sel(cell).item() == alone.optimal_loss.item()
    assert collected.optimum_status.sel(cell).item() == "inside"
    assert collected.loss.attrs["units"] == "nat/token"


def test_what_varies_together_shares_a_dim(command, tmp_path):
    for law in ("abnar2025", "hoffmann2022"):
        command("sweep", f"law={law}", f"repetition={'none' if law == 'abnar2025' else 'wu2026'}", *SMALL)
    collected = moesim.open_result(collect(["outputs"]).path)
    assert collected.repetition.dims == ("law",)
    assert collected.job_status.dims == ("law",)


def test_foreign_corrupt_and_vanished_files_are_named(command):
    _, _, _, directory = multirun(command, "repetition=none,wu2026")
    (directory / "corrupt.nc").write_bytes(b"not netCDF")
    xr.Dataset({"a": 1}).to_netcdf(directory / "foreign.nc", engine="h5netcdf")
    (directory / "7").mkdir()
    (directory / "7" / "error.txt").write_text("half")
    code, out, _ = command("collect", str(directory))
    assert code == 0
    assert all(name in out for name in ("corrupt.nc", "foreign.nc", "error.txt"))
    assert (moesim.open_result(directory / "collected.nc").job_status == "done").all()
    code, _, err = command("collect", str(directory / "nowhere"))
    assert (code, "nowhere" in err) == (2, True)


def test_results_of_other_verbs_and_contradictions_are_refused(command):
    _, _, _, directory = multirun(command, "repetition=none,wu2026")
    path = directory / "0" / "result.nc"
    with edited(path) as file:
        file.attrs["verb"] = "fit"
    code, _, err = command("collect", str(directory))
    assert (code, "collect the verbs apart" in err) == (2, True)
    with edited(path) as file:
        file.attrs["verb"] = "sweep"
    shutil.copytree(directory / "1", directory / "9")
    with edited(directory / "9" / "result.nc") as file:
        file.attrs["config"] = file.attrs["config"].replace("0.94", "0.95")
    code, _, err = command("collect", str(directory))
    assert (code, "another config: was e: 0.94, is e: 0.95" in err) == (2, True)


def test_slabs_give_the_same_numbers_as_memory(command, monkeypatch, tmp_path):
    _, _, _, directory = multirun(command, "law=abnar2025,kaplan2020", "space.unique_tokens=[2e9,inf],[4e9]")
    monkeypatch.setattr(collecting, "_SLAB", 3)
    one, two = collect([directory], tmp_path / "a.nc"), collect([directory], tmp_path / "b.nc", memory=0)
    a, b = xr.load_dataset(one.path), xr.load_dataset(two.path)
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        np.testing.assert_array_equal(a[name].values.astype(b[name].dtype), b[name].values, err_msg=name)


def test_numbers_are_numbers_and_names_are_names():
    picked = chosen(["law=abnar2025", "space.compute=1e20", "++space.sparsity={linspace: [0, 0.9, 3]}"])
    assert picked["law"] == "abnar2025"
    assert picked["space.compute"] == 1e20
    assert "linspace" in picked["space.sparsity"]


def test_seeds_give_the_same_streams_in_one_process_and_in_two(command, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    jobs = ("-m", "seed=0,8", "seeds=2", "steps=20", "figures=false")
    assert command("balance", *jobs, f"hydra.sweep.dir={tmp_path / 'one'}")[0] == 0
    arguments = [sys.executable, "-m", "moesim", "balance", *jobs, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    subprocess.run([*arguments, f"hydra.sweep.dir={tmp_path / 'two'}"], check=True, capture_output=True)
    one, two = (xr.load_dataset(tmp_path / name / "collected.nc") for name in ("one", "two"))
    xr.testing.assert_identical(one, two)
    assert list(one.job_seed.values) == [0, 8]  # the choice; `seed` is the axis inside a result
    results = [moesim.open_result(tmp_path / "one" / str(i)) for i in range(2)]
    assert not np.array_equal(results[0].loads.values, results[1].loads.values)
    np.testing.assert_array_equal(one.loads.sel(job_seed=8, seed=[8, 9]).values, results[1].loads.values)


# Rows: the choices of a multirun, the dims of best_loss in order, and the coordinate that the choices span.
AXES = {
    "lists of one": ("space.compute=[1e20],[1e21]", "compute", [1e20, 1e21]),
    "lists apart": ("space.compute=[1e20,1e22],[1e21]", "compute", [1e20, 1e21, 1e22]),
    "lists that overlap": ("space.compute=[1e20,1e21],[1e21,1e22]", "compute", [1e20, 1e21, 1e22]),
    "a number and a list": ("space.compute=1e20,[1e21,1e22]", "compute", [1e20, 1e21, 1e22]),
    "numbers": ("space.compute=1e20,1e21", "compute", [1e20, 1e21]),
}


@pytest.mark.parametrize("row", AXES)
def test_choices_of_an_axis_lie_along_it(command, row):
    choice, dim, values = AXES[row]
    assert command("sweep", "-m", choice, *SMALL[:1], *SMALL[2:], "hydra.sweep.dir=many")[0] == 0
    collected = moesim.open_result("many/collected.nc")
    assert collected.job_status.dims == (dim,)
    np.testing.assert_allclose(collected[dim], values, rtol=1e-14)
    assert set(collected.best_loss.dims) == {dim, "unique_tokens"}
    assert np.isfinite(collected.best_loss).all()
    assert (collected.job_status == "done").all()
    given = "[" + ",".join(map(str, values)) + "]"
    assert command("sweep", f"space.compute={given}", *SMALL[:1], *SMALL[2:], "hydra.run.dir=one")[0] == 0
    one = moesim.open_result("one")
    for name in ("best_loss", "loss", "optimal_status"):
        if name in one:
            order = one[name].dims
            np.testing.assert_array_equal(collected[name].transpose(*order).values, one[name].values)


def test_choices_that_are_no_axis_of_the_results_keep_their_dim(command):
    jobs = ("seed=0,8", "seeds=2", "steps=20", "figures=false")
    assert command("balance", "-m", *jobs, "hydra.sweep.dir=many")[0] == 0
    collected = moesim.open_result("many/collected.nc")
    assert list(collected.job_seed.values) == [0, 8]
    assert list(collected.seed.values) == [0, 1, 8, 9]


def test_a_failed_choice_of_an_axis_has_its_place(command):
    code, _, _ = command(
        "sweep", "-m", "space.sparsity=[0,0.5],[0.9,1.5],0.7", *SMALL[:2], *SMALL[3:], "hydra.sweep.dir=many"
    )
    assert code == 1
    collected = moesim.open_result("many/collected.nc")
    assert list(collected.sparsity.values) == [0, 0.5, 0.7, 0.9, 1.5]
    assert list(collected.job_status.values) == ["done", "done", "done", "failed", "failed"]
    assert "1.5" in collected.job_error.sel(sparsity=0.9).item()


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (([0.1 + 0.2], [0.3]), [0.3]),
        (([1e20, 1e21], [10.0**20, 1e21 * (1 + 3e-15), np.inf]), [1e20, 1e21, np.inf]),
        (([1.0, 1.0 + 1e-9],), [1.0, 1.0 + 1e-9]),
        (([-np.inf, 2.0], [0.0]), [-np.inf, 0.0, 2.0]),
        ((["b", "a"], ["a", "c"]), ["b", "a", "c"]),
    ],
)
def test_axes_that_differ_in_their_last_bits_are_one(columns, values):
    joined = union([np.array(column) for column in columns])
    assert joined.tolist() == values or np.allclose(joined, values, rtol=1e-14, atol=0)
    assert len(joined) == len(values)
    for column in columns:
        assert list(index(joined, column)) == [
            min(range(len(values)), key=lambda i: _off(values[i], v)) for v in column
        ]


def _off(a, b):
    return a != b if isinstance(a, str) or a == b else abs(a - b)


def test_what_all_jobs_say_is_kept(command):
    _, _, _, directory = multirun(command, *CHOICES)
    attrs = moesim.open_result(directory / "collected.nc").attrs
    assert attrs["verb"] == "sweep"
    assert attrs["jobs_made_with"] == moesim.__version__
    assert "2501.12370" in attrs["law_source"]
    assert "2502.05172" in attrs["law_source"]
    assert "law" not in attrs


def test_values_of_an_override():
    given = listed(["a=[1,x]", "b='y z'", "c={linspace: [0, 1, 3]}", "d=null", "e={f: 1}"])
    assert given == {"a": [1.0, "x"], "b": ["y z"], "c": [0.0, 0.5, 1.0], "d": ["None"], "e": []}


def test_one_job_done_of_many_has_its_place(command):
    choices = ("space.compute=1e20,1e21,1e22", *SMALL[:1], *SMALL[2:])
    assert command("sweep", "-m", *choices, "hydra.sweep.dir=many")[0] == 0
    for number in "02":
        shutil.rmtree(Path("many") / number)
    assert "collected 1 of 3" in command("collect", "many")[1]
    collected = moesim.open_result("many/collected.nc")
    assert list(collected["compute"].values) == [1e20, 1e21, 1e22]
    assert list(collected.job_status.values) == ["missing", "done", "missing"]


def test_a_coordinate_that_all_jobs_share_stays_one_number(command):
    _, _, _, directory = multirun(command, *CHOICES)
    assert moesim.open_result(directory / "collected.nc")["compute"].item() == 1e20


def test_names_of_dims_by_hand():
    keys = ("world.rho", "law.coefficients.alpha", "repetition.coefficients.alpha", "space.sparsity")
    assert list(_names(keys, {"sparsity"}).values()) == ["rho", keys[1], keys[2], "job_sparsity"]


def test_keys_share_a_dim_only_if_each_tells_the_other():
    a, b, c = ["x", "x", "y"], ["1", "2", "3"], ["u", "u", "v"]  # b tells a, a does not tell b
    assert _shared({"a": a, "b": b, "c": c}) == {"a": "a", "b": "b", "c": "a"}
    assert _shared({"b": b, "a": a}) == {"b": "b", "a": "a"}


def test_a_variable_has_every_dim_that_any_job_gives_it():
    jobs = [Job((), layout={"v": (["x"], "f")}), Job((), layout={"v": (["y", "x"], "f")})]
    assert _variables(jobs, set()) == {"v": (["y", "x"], "f")}
