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

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from result_tools import CHOICES, SMALL, multirun

import moesim
from moesim.hydra_door import new_directory


def test_a_failed_job_is_reported_and_the_others_are_kept(command):
    code, out, _, directory = multirun(command, "repetition=none,nosuch,wu2026")
    assert code == 1
    assert "collected 2 of 3" in out
    collected = moesim.open_result(directory / "collected.nc")
    assert list(collected.job_status.values) == ["done", "failed", "done"]
    assert "no 'nosuch'" in collected.job_error.sel(repetition="nosuch").item()
    assert np.isnan(collected.loss.sel(repetition="nosuch")).all()
    assert (collected.optimum_status.sel(repetition="nosuch") == "missing").all()


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


@example(key="space.unique_tokens", value="{geomspace: [1e9, 1e10, 3]}")
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
