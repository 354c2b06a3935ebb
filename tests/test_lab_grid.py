"""Many runs of the lab: in processes of their own, killed and resumed, read by fit and balance; and its probes."""

import multiprocessing
import os
import re
import subprocess
import sys
from math import inf
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch", reason="the lab trains with PyTorch: pip install 'moesim[lab]'")

import moesim  # noqa: E402
from moesim.errors import InputError  # noqa: E402
from moesim.lab import probe, probed  # noqa: E402
from moesim.lab.corpus import load  # noqa: E402
from moesim.lab.driver import loads_of, probes_of, runs_of  # noqa: E402
from moesim.lab.estimates import calibrate  # noqa: E402
from moesim.lab.grid import trained  # noqa: E402
from moesim.lab.job import Job, Shape  # noqa: E402
from moesim.lab.simulated import routing_of, world_of  # noqa: E402
from moesim.lab.train import Run, train  # noqa: E402

SMALL = {"policy": "synthetic", "domains": 4, "symbols": 16, "train_windows": 2**11, "valid_windows": 64}
MOE = Shape(experts=4)
JOBS = [Job(SMALL, shape, tokens=2**14, seed=seed) for shape, seed in ((Shape(), 0), (MOE, 0), (MOE, 1))]


@pytest.fixture(scope="module")
def corpus():
    return load(SMALL)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The trajectories of JOBS, trained here."""
    return trained(JOBS, 1, tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def tried(corpus):
    """A run that has ended, for probes."""
    job = Job(SMALL, MOE, tokens=2**15, balancing="none")
    torch.manual_seed(0)
    run = Run(job, corpus)
    for step in range(1, job.steps + 1):
        run.step(step)
    run.taken_loads()
    return run


def same(a, b):
    return a.drop_vars("seconds").identical(b.drop_vars("seconds"))


def test_workers_in_processes_of_their_own_find_the_same_bit_for_bit(grid, tmp_path):
    assert all(map(same, grid, trained(JOBS, 2, tmp_path)))


def test_a_killed_grid_goes_on_where_it_was(grid, tmp_path):
    """A plain script, killed by SIGKILL once the first trajectory is there: its workers end with it, the rest is
    trained when it is asked for again, and all is as never killed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from tests.test_lab_grid import JOBS, trained\n"
        "trained(JOBS, 2, Path(sys.argv[1]))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    run = subprocess.Popen([sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": paths})
    while len(done := list(tmp_path.glob("[!.]*.nc"))) < 1 and run.poll() is None:
        sleep(0.01)
    workers = children(run.pid)
    run.kill()
    run.wait()
    assert (len(done), len(workers)) == (1, 3)  # two, and what tracks their resources
    left = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*.nc")}
    assert len(left) < len(JOBS)
    assert all(map(same, grid, trained(JOBS, 1, tmp_path)))
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in left.items())
    assert within_seconds(lambda: not any(map(lives, workers)))


def lives(process):
    """Whether it runs: one that has ended may stay in the list until somebody asks how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within_seconds(happens):
    until = monotonic() + 20
    while not happens() and monotonic() < until:
        sleep(0.05)
    return happens()


def children(parent):
    return Path(f"/proc/{parent}/task/{parent}/children").read_text().split()


def test_what_fails_in_a_worker_ends_the_others(tmp_path):
    corpus_of_less = Job(SMALL, MOE, tokens=2**19)
    with pytest.raises(InputError, match="too few for tokens=524288"):
        trained([corpus_of_less, *(Job(SMALL, MOE, tokens=2**18, seed=seed) for seed in range(8))], 2, tmp_path)
    assert within_seconds(lambda: not multiprocessing.active_children())
    assert len(list(tmp_path.glob("*.nc"))) < 3


def test_a_trajectory_that_is_damaged_is_trained_again(grid, tmp_path):
    (tmp_path / f"{JOBS[0].name}.nc").write_bytes(b"half a file")
    assert same(trained(JOBS[:1], 1, tmp_path)[0], grid[0])


def test_progress_says_how_long_still(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("moesim.output.progress._LINE_AFTER", 0.0)
    with caplog.at_level("INFO", logger="moesim"):
        trained([Job(SMALL, tokens=2**13, seed=seed) for seed in (0, 1)], 1, tmp_path)
    assert re.search(r"lab: 2 of 3 GFLOPs after .* s, about .* s left", caplog.text)


@pytest.mark.filterwarnings("ignore:runs given. tokens is 2048")
def test_runs_are_a_table_that_fit_reads(grid):
    """One row for each mark of a run, with the columns that a law of sparsity asks for."""
    runs = runs_of(grid)
    assert runs.sizes["run"] == sum(len(job.marks) for job in JOBS)
    held = {"a": 16612.5, "alpha": 0.6, "c": 0.46, "lam": -0.17, "d": 17.26, "delta": 0.16, "gamma": 0.16}
    fitted = moesim.fit("abnar2025", runs, draws=0, starts=2, fixed=held)
    assert set(fitted.estimate) >= {"b", "beta"}
    assert fitted.verdict["beta"]


def test_loads_are_read_by_balance(grid, tmp_path):
    """Recorded loads are replayed, and the world and router that calibration makes of them are simulated."""
    loads = loads_of(grid)
    assert loads.sizes["trajectory"] == 2
    assert float(loads.loads.sum("expert").isel(layer=0).sum(("window", "domain"))[0]) == 2**14
    assert loads.loss.sizes == {"trajectory": 2, "tokens": 4}
    router = routing_of(calibrate(loads))
    made = {"experts": 4, "steps": 3, "tokens_per_step": 2048, "seeds": 1}
    assert np.isfinite(moesim.simulate(world=world_of(loads), routing=router, **made).micro_loss).all()


def test_a_split_keeps_the_loss(tried, corpus):
    """Without noise to the last digits: the twin takes what the other would have, behind a gate of its own."""
    own, before = tried.branch(), tried.losses(corpus.valid.windows)
    own.split(1, 2, 0.0, 0.0, True)
    assert len(own.model.moe[1].bias) == 5
    np.testing.assert_allclose(own.losses(corpus.valid.windows), before, rtol=1e-5)
    assert len(tried.model.moe[1].bias) == 4


def test_noise_parts_twins_and_moves_the_loss(tried, corpus):
    own, before = tried.branch(), tried.losses(corpus.valid.windows)
    own.split(0, int(tried.last_loads[0].sum(axis=0).argmax()), 0.1, 3.0, True)
    assert abs(own.losses(corpus.valid.windows) - before).max() > 1e-3


def test_a_branch_is_no_part_of_the_run(tried, corpus):
    """Two branches learn the same from the same windows; the run and its optimiser learn nothing of it."""
    before = tried.losses(corpus.valid.windows)
    first, second = tried.branch(), tried.branch()
    for own in (first, second):
        for _ in range(3):
            own.update(0.01, next(own.batches))
    np.testing.assert_array_equal(first.losses(corpus.valid.windows), second.losses(corpus.valid.windows))
    np.testing.assert_array_equal(tried.losses(corpus.valid.windows), before)
    assert abs(first.losses(corpus.valid.windows) - before).max() > 1e-3


@pytest.mark.parametrize("keep", [True, False])
def test_a_twin_has_the_averages_of_the_optimiser_or_none(tried, keep):
    own = tried.branch()
    own.split(0, 1, 0.0, 0.0, keep)
    moments = own.optimizer.state[own.model.moe[0].up]["exp_avg_sq"]
    assert moments[1].abs().sum() > 0 or tried.last_loads[0][:, 1].sum() == 0
    torch.testing.assert_close(moments[4], moments[1] * keep)


def test_only_a_part_learns_where_asked(tried):
    own = tried.branch()
    own.train_only("feedforward")
    before = {name: weights.detach().clone() for name, weights in own.model.named_parameters()}
    own.update(0.01, next(own.batches))
    moved = {name for name, weights in own.model.named_parameters() if (weights != before[name]).any()}
    assert moved
    assert all(name.startswith("feedforward") for name in moved)


def test_a_forced_layer_gives_every_token_to_one_expert(tried):
    own = probe._forced(tried, 1, 3)
    own.update(0.0, next(own.batches))
    assert own.taken_loads()[1].sum(axis=0).tolist() == [0, 0, 0, 2048]


def test_a_batch_of_one_domain_has_no_other(tried):
    windows, domain = next(tried.batches_of(2))
    assert (len(windows), set(domain.tolist())) == (16, {2})


def test_training_on_a_domain_teaches_its_sibling_more_than_others():
    """Two pairs of siblings that share nine facts of ten, known from how the corpus is made."""
    choice = {**SMALL, "exponent": 0.0, "kin": 0.9}
    job = Job(choice, MOE, tokens=2**16, batch=512)
    torch.manual_seed(0)
    run = Run(job, load(choice))
    for step in range(1, job.steps + 1):
        run.step(step)
    found = probe.transfer(run, repeats=1)
    tried = xr.Dataset(dict(found.values), {name: list(v) for name, v in found.axes.items()}).expand_dims("trajectory")
    order = [f"domain {i}" for i in range(4)]
    kin = probed.kinship(tried).kin.sel(source=order, target=order).values
    assert kin[[0, 1, 2, 3], [1, 0, 3, 2]].min() > 0.15
    assert abs(kin[:2, 2:]).max() < 0.15
    assert abs(kin[2:, :2]).max() < 0.15


def test_probes_are_kept_with_their_trajectory(tmp_path, corpus):
    asked = [
        {"policy": "split", "tokens": 2**13, "router_noise": [0.0, 0.1]},
        {"policy": "transfer", "steps": 2, "repeats": 2},
        "forced",
    ]
    job = Job(SMALL, MOE, tokens=2**14, probes=asked)
    kept = trained([job, JOBS[0]], 1, tmp_path)
    found = probes_of(kept)
    assert found.split_loss.dims == ("trajectory", "layer", "router_noise", "weight_noise", "since")
    assert found.since.values.tolist() == [0, 2048, 4096, 8192]
    assert abs(found.split_loss - found.unsplit_loss).isel(since=0, router_noise=0).max() < 1e-5
    assert found.tuned_gain.sizes == {"trajectory": 1, "repeat": 2, "source": 4, "target": 4}
    assert found.forced_excess.sizes == {"trajectory": 1, "layer": 2, "domain": 4, "expert": 4}
    assert len(probed.tables(found)) == 3
    said = calibrate(xr.merge([loads_of(kept), found], join="outer", compat="override"))
    assert said["kin, domain 1 to domain 0"].low < said["kin, domain 1 to domain 0"].high
    assert said["weights_part"].value >= 2048
    plain = Job(SMALL, MOE, tokens=2**14)
    assert plain.name != job.name
    np.testing.assert_array_equal(train(plain, corpus).loads, train(job, corpus).loads)


def test_a_cooled_run_ends_at_no_rate_and_is_measured_there(corpus):
    job = Job(SMALL, tokens=2**18, cooldown=0.25)
    assert [job.rate(step) for step in (16, 32, 96, 97, 112, 128)] == pytest.approx(
        [0.005, 0.01, 0.01, 0.01, 0.01 * 17 / 32, 0.01 / 32]
    )
    assert job.marks == [2**18]
    (row,) = train(Job(SMALL, tokens=2**14, cooldown=0.25), corpus).rows
    assert row["loss"] == pytest.approx(row["loss_last"], rel=1e-6)


@pytest.mark.parametrize("option", ["steps", "repeats", "domains", "windows", "rate"])
def test_a_transfer_of_nothing_is_refused(tried, option):
    with pytest.raises(InputError, match=f"probe transfer: {option}=0 is outside its domain"):
        probe.transfer(tried, **{option: 0})


def test_a_corpus_that_is_too_small_is_no_fresh_data(corpus):
    with pytest.raises(InputError, match="corpus synthetic has 262144 bytes to train on, too few for tokens=524288"):
        train(Job(SMALL, tokens=2**19), corpus)
    assert train(Job(SMALL, tokens=2**14, unique_tokens=inf), corpus).rows
