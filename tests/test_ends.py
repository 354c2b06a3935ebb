"""However a run or a multirun ends, and wherever: nothing is lost or mixed, and the way on is told."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import xarray as xr
from result_tools import CHOICES, MOESIM, SMALL, heeding

import moesim
from moesim import many
from moesim.errors import InputError
from moesim.output import cluster
from moesim.output.claim import claimed, stoppable
from moesim.planning import run as sweeps

LAWS = ("law=abnar2025,hoffmann2022,kaplan2020", *SMALL)


@pytest.fixture
def stopped_at(monkeypatch):
    """Make the n-th job raise something."""

    def stop(n: int, error: BaseException) -> None:
        ran, run = [], sweeps.run

        def once(config):
            ran.append(config)
            if len(ran) == n:
                raise error
            return run(config)

        monkeypatch.setattr(sweeps, "run", once)

    return stop


def test_an_interrupted_multirun_is_collected_and_says_how_it_is_resumed(command, stopped_at):
    stopped_at(2, KeyboardInterrupt())
    code, out, err = command("sweep", "-m", *LAWS, "hydra.sweep.dir=many")
    assert code == 130
    assert "Traceback" not in out + err
    assert "collected 1 of 3 jobs" in out
    assert "missing: law=kaplan2020" in out
    (told,) = [line.partition(": ")[2] for line in out.splitlines() if line.startswith("to run what is missing: ")]
    again = shlex.split(told)
    assert again[0] == "moesim"
    assert "hydra.sweep.dir=many" not in again
    code, out, _ = command(*again[1:])
    assert (code, "collected 3 of 3 jobs" in out) == (0, True)


def test_whatever_a_launcher_raises_what_is_there_is_collected(command, monkeypatch):
    call = many.call_hydra

    def breaks(*arguments):
        call(*arguments)
        raise RuntimeError("Job 11_1 has not produced\nany output (state: CANCELLED)")

    monkeypatch.setattr(many, "call_hydra", breaks)
    code, out, err = command("sweep", "-m", *LAWS, "hydra.sweep.dir=many")
    assert code == 0
    assert "stopped early: Job 11_1 has not produced any output (state: CANCELLED)" in out
    assert "collected 3 of 3 jobs" in out
    assert "Traceback" not in out + err


def test_an_interrupted_run_is_one_line_and_leaves_no_result(command, stopped_at):
    stopped_at(1, KeyboardInterrupt())
    code, _, err = command("sweep", *SMALL, "hydra.run.dir=one")
    assert (code, err.strip()) == (130, "moesim sweep: interrupted")
    assert not list(Path("one").glob("*.nc"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_a_multirun_in_order(tmp_path, name):
    budgets = ",".join(f"{i}e19" for i in range(1, 100))
    process = subprocess.Popen(
        [*MOESIM, "sweep", "-m", f"space.compute={budgets}", "figures=false"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding,
    )  # fmt: skip
    while not list(tmp_path.rglob("result.nc")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert "interrupted" in out
    assert "of 99 jobs" in out
    assert not list(tmp_path.rglob("*.part"))


def test_ctrl_c_while_it_is_loaded_is_quiet(tmp_path):
    process = subprocess.Popen(
        [*MOESIM, "sweep", "figures=false"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding,
    )  # fmt: skip
    time.sleep(0.25)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT)  # the latter before Python has come to moesim
    assert process.returncode != 130 or ("interrupted" in err and "Traceback" not in err)


@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_a_used_directory_is_refused(command, mode):
    flags = ("-m", "law=abnar2025,hoffmann2022") if mode == "sweep" else ("law=abnar2025",)
    where = f"hydra.{mode}.dir=here"
    assert command("sweep", *flags, *SMALL, where)[0] == 0
    before = {path: path.read_bytes() for path in Path("here").rglob("*.nc")}
    code, _, err = command("sweep", *[f.replace("hoffmann2022", "kaplan2020") for f in flags], *SMALL, where)
    assert code == 2
    assert "here: holds " in err
    assert len(err.strip().splitlines()) == 1
    assert ("resume=" in err) == (mode == "sweep")
    assert {path: path.read_bytes() for path in Path("here").rglob("*.nc")} == before


def test_two_at_once_in_one_directory_are_refused(command):
    assert command("sweep", "-m", *LAWS, "hydra.sweep.dir=many")[0] == 0
    with claimed(Path("many"), again=True):
        code, _, err = command("sweep", "-m", *LAWS, "resume=many")
        assert code == 2
        assert f"many: in use by moesim, process {os.getpid()}" in err
    assert command("sweep", "-m", *LAWS, "resume=many")[0] == 0


def test_resume_of_nothing_is_refused(command):
    code, _, err = command("sweep", "-m", *LAWS, "resume=nowhere")
    assert (code, "nowhere: no such directory" in err) == (2, True)
    assert not Path("nowhere").exists()


def test_a_damaged_job_is_run_again(command):
    assert command("sweep", "-m", *CHOICES, *SMALL, "hydra.sweep.dir=many")[0] == 0
    before = xr.load_dataset("many/collected.nc")
    path = Path("many/2/result.nc")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    code, out, _ = command("collect", "many")
    assert (code, "2/result.nc: damaged" in out, "collected 3 of 4" in out) == (0, True, True)
    assert command("sweep", "-m", *CHOICES, *SMALL, "resume=many")[0] == 0
    xr.testing.assert_identical(xr.load_dataset("many/collected.nc"), before)


def test_odd_directories_can_be_used_and_resumed(command):
    assert command("sweep", "-m", *LAWS, 'hydra.sweep.dir="it\'s"')[0] == 0
    assert moesim.open_result("it's/collected.nc").sizes["law"] == 3
    assert command("sweep", "-m", *LAWS, 'resume="it\'s"')[0] == 0


def test_sigterm_interrupts_like_ctrl_c_within_the_block_only():
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_cluster_job_is_known_by_its_directory(tmp_path):
    for name in ("11_0", "11_3", "9_1", "%j", "3f2a.pkl", "12"):
        (tmp_path / ".submitit" / name).mkdir(parents=True)
    assert cluster.numbers(tmp_path) == ["9", "11", "12"]


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 15), (2, 30), (8, 120), (600, 120), (0.1, 5)])
def test_a_short_time_limit_is_told_shortly_before(minutes, seconds):
    assert cluster.warning_time(minutes) == seconds
    words = [many.SLURM, f"hydra.launcher.timeout_min={minutes}"]
    assert many._warned_in_time(words) == [f"hydra.launcher.signal_delay_s={seconds}"]
    assert many._warned_in_time([*words, "hydra.launcher.signal_delay_s=9"]) == []
    assert many._warned_in_time(words[1:]) == []


def test_a_directory_is_held_once(tmp_path):
    with claimed(tmp_path), pytest.raises(InputError, match="in use by moesim, process"), claimed(tmp_path):
        pass
