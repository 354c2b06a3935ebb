"""Multirun: nothing is lost, whatever happens on the way."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import moesim
from moesim.hydra_door import new_directory
from moesim.output import collect as collecting
from moesim.output.collect import collect
from moesim.output.multirun import chosen
from moesim.output.store import write_result

CHOICES = ("law=abnar2025,ludziejewski2025", "repetition=none,muennighoff2023")
SMALL = ("figures=false", "space.compute=1e20", "space.sparsity=[0,0.9]", "space.active_params=[1e8,1e9]")


def multirun(command, *arguments):
    code, out, err = command("sweep", "-m", *arguments, *SMALL)
    (directory,) = {path.parent for path in Path("outputs").rglob("multirun.yaml")}
    return code, out, err, directory


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


def test_a_failed_job_is_reported_and_the_others_are_kept(command):
    code, out, _, directory = multirun(command, "repetition=none,lovelace2026,wu2026")
    assert code == 1
    assert "collected 2 of 3" in out
    collected = moesim.open_result(directory / "collected.nc")
    assert list(collected.job_status.values) == ["done", "failed", "done"]
    assert "coefficient 'P'" in collected.job_error.sel(repetition="lovelace2026").item()
    assert np.isnan(collected.loss.sel(repetition="lovelace2026")).all()
    assert (collected.optimum_status.sel(repetition="lovelace2026") == "missing").all()


def test_resume_runs_only_what_is_missing(command):
    _, _, _, directory = multirun(command, *CHOICES)
    before = xr.load_dataset(directory / "collected.nc")
    kept = (directory / "0" / "result.nc").stat().st_mtime_ns
    shutil.rmtree(directory / "2")
    assert "missing: law=ludziejewski2025" in command("collect", str(directory))[1]
    code, _, _ = command("sweep", "-m", *CHOICES, *SMALL, f"resume={directory}")
    assert code == 0
    xr.testing.assert_identical(xr.load_dataset(directory / "collected.nc"), before)
    assert (directory / "0" / "result.nc").stat().st_mtime_ns == kept
    assert len(list(directory.rglob("result.nc"))) == 4


def test_resume_may_add_choices_but_not_drop_or_change_them(command, monkeypatch, tmp_path):
    _, _, _, directory = multirun(command, "repetition=none,wu2026")
    code, _, err = command("sweep", "-m", "repetition=none,muennighoff2023", *SMALL, f"resume={directory}")
    assert (code, "repetition=wu2026" in err) == (2, True)
    assert command("sweep", "-m", "repetition=none,wu2026,muennighoff2023", *SMALL, f"resume={directory}")[0] == 0
    changed = tmp_path / "conf"
    shutil.copytree(moesim.config.conf_dir(), changed)
    file = changed / "law" / "abnar2025.yaml"
    file.write_text(file.read_text().replace("e: 0.94", "e: 0.95"))
    monkeypatch.setattr("moesim.output.multirun.conf_dir", lambda: changed)
    code, _, err = command("sweep", "-m", "repetition=none,wu2026,muennighoff2023", *SMALL, f"resume={directory}")
    assert code == 2
    assert "was e: 0.94" in err
    assert "is e: 0.95" in err


@pytest.mark.slow
def test_killed_at_random_moments_then_resumed(command, tmp_path):
    budgets = ",".join(f"{c:.3e}" for c in np.geomspace(1e19, 1e21, 20))
    choices = ("repetition=none,muennighoff2023", f"space.compute={budgets}", *SMALL[:1], *SMALL[2:])
    whole = tmp_path / "whole"
    assert command("sweep", "-m", *choices, f"hydra.sweep.dir={whole}")[0] == 0
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed, ignore=shutil.ignore_patterns("*.nc"))
    arguments = [sys.executable, "-m", "moesim", "sweep", "-m", *choices, f"resume={killed}"]
    moments = random.Random(0)
    for _ in range(20):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.0 + 1.5 * moments.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in killed.rglob("*.nc"):
            moesim.open_result(path)  # never half a file
    assert command(*arguments[3:])[0] == 0
    xr.testing.assert_identical(xr.load_dataset(killed / "collected.nc"), xr.load_dataset(whole / "collected.nc"))


def test_a_full_disk_names_the_file_and_leaves_earlier_results(tmp_path, monkeypatch):
    dataset = xr.Dataset({"loss": ("x", [1.0])})
    path = write_result(dataset, tmp_path / "result.nc")

    def full(*_args, **_kwargs):
        Path(_args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match=r"No space left on device.*result\.nc"):
        write_result(dataset * 2, path)
    monkeypatch.undo()
    assert moesim.open_result(path).loss.item() == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["result.nc"]


def test_multiruns_of_one_instant_do_not_share_a_directory(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_directory(tmp_path), range(200)))
    assert len(set(made)) == 200


def test_a_directory_that_cannot_be_written_is_named(command):
    Path("outputs").write_text("in the way")
    code, _, err = command("sweep", *SMALL)
    assert code == 2
    assert "outputs" in err
    assert len(err.strip().splitlines()) == 1


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
    with h5py.File(path, "a") as file:
        file.attrs["verb"] = "fit"
    code, _, err = command("collect", str(directory))
    assert (code, "collect the verbs apart" in err) == (2, True)
    with h5py.File(path, "a") as file:
        file.attrs["verb"] = "sweep"
    shutil.copytree(directory / "1", directory / "9")
    with h5py.File(directory / "9" / "result.nc", "a") as file:
        file.attrs["config"] = file.attrs["config"].replace("0.94", "0.95")
    code, _, err = command("collect", str(directory))
    assert (code, "another config: was e: 0.94, is e: 0.95" in err) == (2, True)


def test_rerun_says_whether_the_numbers_are_the_same(command):
    command("sweep", *SMALL)
    (path,) = Path("outputs").rglob("result.nc")
    code, out, _ = command("rerun", str(path))
    assert (code, "bit for bit" in out) == (0, True)
    with h5py.File(path, "a") as file:
        file["loss"][0, 0, 0] += 1e-15
    code, out, _ = command("rerun", str(path))
    assert (code, "differs in loss" in out) == (1, True)


def test_slabs_give_the_same_numbers_as_memory(command, monkeypatch, tmp_path):
    _, _, _, directory = multirun(command, "law=abnar2025,kaplan2020", "space.unique_tokens=[2e9,inf],[4e9]")
    monkeypatch.setattr(collecting, "_SLAB", 3)
    one, two = collect([directory], tmp_path / "a.nc"), collect([directory], tmp_path / "b.nc", memory=0)
    a, b = xr.load_dataset(one.path), xr.load_dataset(two.path)
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        np.testing.assert_array_equal(a[name].values.astype(b[name].dtype), b[name].values, err_msg=name)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_give_the_same_bit_for_bit(command, launcher, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher" if launcher == "joblib" else "submitit")
    _, _, _, directory = multirun(command, *CHOICES)
    other = tmp_path / launcher
    environment = {**os.environ, "MPLBACKEND": "agg"}
    arguments = [sys.executable, "-m", "moesim", "sweep", "-m", *CHOICES, *SMALL, f"hydra/launcher={launcher}"]
    done = subprocess.run([*arguments, f"hydra.sweep.dir={other}"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    xr.testing.assert_identical(xr.load_dataset(other / "collected.nc"), xr.load_dataset(directory / "collected.nc"))


VALUES = st.one_of(
    st.floats(allow_nan=True).map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=12),
    st.lists(st.one_of(st.floats(width=16), st.text("ab1.", max_size=3)), max_size=3).map(str),
    st.sampled_from(["{geomspace: [1e18, 1e20, 3]}", "{linspace: [1, 2]}", "[[1]]", "null", "true", "1:30", "{a: 1}"]),
)
KEYS = (
    "space.compute",
    "space.sparsity",
    "space.unique_tokens",
    "law.coefficients.alpha",
    "repetition.excess",
    "architecture.fields.granularity",
    "space.sparsity_bounds",
    "law",
    "figures",
    "nonsense.key",
)


@given(key=st.sampled_from(KEYS), value=VALUES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_runs_or_is_refused_in_one_line(command, key, value):
    if key == "space.compute" and "," in value and value.startswith("{g"):
        value = "1e20"
    code, _, err = command("sweep", f"{key}={value}", *(item for item in SMALL if not item.startswith(key)))
    assert code in (0, 2)
    assert "Traceback" not in err
    if code:
        assert len(err.strip().splitlines()) == 1


def test_numbers_are_numbers_and_names_are_names():
    picked = chosen(["law=abnar2025", "space.compute=1e20", "++space.sparsity={linspace: [0, 0.9, 3]}"])
    assert picked["law"] == "abnar2025"
    assert picked["space.compute"] == 1e20
    assert "linspace" in picked["space.sparsity"]


def test_larger_than_memory_gives_the_same_numbers(command, monkeypatch):
    monkeypatch.setattr("moesim.output.store._SLAB", 100)
    axes = ("space.compute=[1e20,1e21]", "space.active_params={geomspace: [1e8, 1e10, 7]}", "figures=true")
    assert command("sweep", *axes, "hydra.run.dir=one")[0] == 0
    assert command("sweep", *axes, "memory=1", "hydra.run.dir=slabs")[0] == 0
    one, slabs = moesim.open_result("one"), moesim.open_result("slabs")
    assert set(one.variables) == set(slabs.variables)
    for name in one.variables:
        xr.testing.assert_identical(one[name].variable, slabs[name].variable)
    assert Path("slabs/isoflop.png").is_file()


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
