"""Multiruns on a real Slurm cluster of one node: all jobs, one cancelled, one over its time limit; then resumed."""

import re
import subprocess
import time
from pathlib import Path

import pytest
import xarray as xr
from result_tools import MOESIM, SMALL
from slurm_cluster import cluster, missing

CHOICES = ("law=abnar2025,hoffmann2022", "repetition=none,muennighoff2023", "plugins=slow.py", *SMALL)
# Own code that holds up one job of the array until the file is gone, or the time limit is reached.
SLOW = """import os, time
while os.environ.get("SLURM_ARRAY_TASK_ID") == "1" and os.path.exists("hang"):
    time.sleep(0.1)
"""
SLURM = (
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.partition=cpu",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)


@pytest.fixture(params=["with accounting", "without accounting"])
def slurm(request, tmp_path, monkeypatch):
    """Whether the running cluster keeps accounts, and its environment; the test runs in an empty directory."""
    accounting = request.param == "with accounting"
    if lacking := missing(accounting):
        pytest.skip(f"a Slurm cluster {request.param} needs {', '.join(lacking)}")
    monkeypatch.chdir(tmp_path)
    with cluster(accounting) as environment:
        yield accounting, environment


def moesim(environment, *arguments):
    return subprocess.run([*MOESIM, *arguments], env=environment, capture_output=True, text=True, timeout=150)


@pytest.mark.slow
def test_lost_jobs_are_named_the_others_collected_and_resume_completes(slurm):
    accounting, environment = slurm
    Path("slow.py").write_text(SLOW)
    Path("hang").touch() if accounting else None
    started = subprocess.Popen(
        [*MOESIM, "sweep", "-m", *CHOICES, *SLURM, "hydra.launcher.timeout_min=1", "hydra.sweep.dir=many"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    _cancel(environment, started, 3)
    said, _ = started.communicate(timeout=200)
    assert started.returncode == 1, said
    assert "Traceback" not in said
    assert f"collected {2 if accounting else 3} of 4 jobs" in said, said
    assert "missing: law=hoffmann2022 repetition=muennighoff2023" in said
    assert not accounting or re.search(r"(failed|missing): law=abnar2025 repetition=muennighoff2023", said), said
    assert re.search(r"moesim sweep -m law=abnar2025,hoffmann2022 .*resume=many", said)
    if accounting:
        Path("hang").unlink()
        _resume(environment)


def _resume(environment):
    done = moesim(environment, "sweep", "-m", *CHOICES, *SLURM, "hydra.launcher.timeout_min=20", "resume=many")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "collected 4 of 4 jobs" in done.stdout
    assert moesim(environment, "sweep", "-m", *CHOICES, "hydra.sweep.dir=undisturbed").returncode == 0
    collected = (xr.load_dataset(Path(name) / "collected.nc") for name in ("many", "undisturbed"))
    xr.testing.assert_identical(*collected)


def _cancel(environment, started, task):
    """Cancel a task of the job array while it waits."""
    command = ["squeue", "--noheader", "--array", "--format=%i %T"]
    for _ in range(1200):
        asked = subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split("\n")
        for name, state in (line.split() for line in asked if line):
            if name.endswith(f"_{task}") and state == "PENDING":
                subprocess.run(["scancel", name], env=environment, check=True)
                return
        assert started.poll() is None, started.stdout.read()
        time.sleep(0.05)
    raise TimeoutError(f"task {task} never waited")
