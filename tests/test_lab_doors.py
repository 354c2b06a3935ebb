"""How a grid of small models is asked for: spellings, arms, and what is refused before anything is trained."""

from inspect import signature
from math import inf

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.lab import grid
from moesim.lab.driver import jobs_of, lab
from moesim.lab.job import Job, Shape

DEFAULTS = {name: parameter.default for name, parameter in signature(lab).parameters.items()}


def jobs(**asked):
    return jobs_of({**DEFAULTS, "tokens": 2**16, "unique_tokens": 2**15, **asked})


@pytest.mark.parametrize(
    "sizes",
    [32, [32], [(32, 2)], [[32.0, 2.0]], np.array([[32, 2]]), {"d_model": 32, "layers": 2}, [{"d": 32, "layers": 2}]],
    ids=str,
)
def test_a_size_is_written_in_many_ways(sizes):
    assert [job.shape for job in jobs(sizes=sizes, experts=[1, 8])] == [
        Shape(),
        Shape(ffn_multiple=8),
        Shape(experts=8),
    ]


@pytest.mark.parametrize("seeds", [2, np.int64(2), 2.0, [0, 1], (0, 1), range(2), np.arange(2)], ids=repr)
def test_seeds_are_counted_or_listed(seeds):
    assert [job.seed for job in jobs(seeds=seeds, experts=1)] == [0, 1]


def test_the_arms_of_the_question_and_the_dense_ladder():
    def arms(**asked):
        return [job.arm for job in jobs(**asked)]

    assert arms(experts=8, active_experts=2) == ["dense x4", "moe 8 top 2"]
    assert arms(experts=[1, 8], always_on=False) == ["dense", "moe 8"]
    assert arms(experts=1, ffn_multiple=[1, 2, 4]) == ["dense", "dense x2", "dense x4"]
    assert arms(experts=[1, 4, 8], ffn_multiple=[1, 4]) == ["dense", "dense x4", "dense x8", "moe 4", "moe 8"]


def test_what_is_of_experts_alone_makes_no_other_dense_model():
    usual = {job.name for job in jobs(experts=[1, 8]) if job.shape.experts == 1}
    asked = jobs(experts=[1, 8], balancing=["none", "auxiliary"], decay_by_load=True, probes="split")
    assert {job.name for job in asked if job.shape.experts == 1} == usual
    assert [(job.arm, job.balancing) for job in asked[2:]] == [("moe 8", "none"), ("moe 8", "auxiliary")]


def test_as_many_unique_tokens_as_tokens_are_fresh_and_trained_once():
    assert [job.unique_tokens for job in jobs(experts=1, unique_tokens=[2**15, 2**16, 2**20, inf])] == [2**15, inf]


BAD = {
    "tokens": (1e5, "tokens=100000; it takes a multiple of 2048 bytes, like 98304 or 100352"),
    "unique_tokens": (1000, "unique_tokens=1000; it takes a multiple of 2048 bytes, like 2048"),
    "batch": (100, "batch=100; it takes a multiple of 128 bytes, like 128"),
    "experts": ([0, 8], "experts=0.0; it takes a whole number of 1 or more"),
    "ffn_multiple": (1.5, "ffn_multiple=1.5; it takes a whole number"),
    "active_experts": ([1, 2], "active_experts=.1, 2.; it takes a whole number"),
    "seeds": (True, "seeds=True; it takes a whole number"),
    "weight_decay": (100, "weight_decay=100 at learning_rate=0.01"),
    "balancing": ([], "balancing=..; it takes auxiliary, loss_free, none"),
    "balancing_rate": (-1, "balancing_rate=-1"),
    "cooldown": ("x", "cooldown='x' is not a number"),
    "always_on": ("no", "always_on='no'; it takes true or false"),
    "decay_by_load": (1, "decay_by_load=1; it takes true or false"),
    "sizes": ([(32, 2, 1)], r"sizes has \(32, 2, 1\); it takes a list of sizes, each .d_model, layers."),
}
MORE_BAD = [
    ({"tokens": [2**16, 2**17]}, "is not one number"),
    ({"tokens": inf}, "tokens=inf"),
    ({"unique_tokens": np.nan}, "unique_tokens=nan"),
    ({"seeds": [-1]}, "seeds=-1.0; it takes a whole number of 0 or more"),
    ({"seeds": [0.5]}, "seeds=0.5"),
    ({"sizes": []}, "sizes=.."),
    ({"sizes": (32, 2)}, "d_model=2; it takes a multiple of 16 .a size is"),
    ({"sizes": {"d": 32, "depth": 2}}, "sizes has .'d': 32, 'depth': 2"),
    ({"experts": 6, "active_experts": 4}, "experts=6 with all on is no whole number of active_experts=4"),
]


@pytest.mark.parametrize(("asked", "said"), [*(({name: v}, said) for name, (v, said) in BAD.items()), *MORE_BAD])
def test_what_cannot_be_trained_is_refused(asked, said):
    with pytest.raises(InputError, match=said):
        jobs(**asked)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "auto", None])
def test_workers_are_counted(workers):
    with pytest.raises(InputError, match=r"workers=.*; it takes a whole number of 1 or more"):
        grid.trained([], workers)


def folder(path, more=""):
    for domain in ("verse", "prose"):
        (path / domain).mkdir(parents=True, exist_ok=True)
        for i in range(20):
            (path / domain / f"{i}.txt").write_text(f"{domain} {i} {more}" * 40)
    return {"policy": "files", "path": str(path)}


def test_other_text_under_the_same_path_is_another_trajectory(tmp_path):
    """The names of jobs on text that comes with moesim or Python are what they were."""
    job = Job(folder(tmp_path))
    names = [grid._name(job, grid._Corpora())]
    assert names == [grid._name(job, grid._Corpora())]
    folder(tmp_path, "changed")
    assert grid._name(job, grid._Corpora()) not in names
    assert grid._name(Job(), grid._Corpora()) == Job().name


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ({"policy": "files", "path": None}, "path=None has no directories; give a directory with one for each domain"),
        ({"policy": "files", "path": "few"}, "too little text to train and to validate on; give more files, or cut"),
        ({"policy": "installed", "packages": []}, "packages=.."),
        ({"policy": "installed", "packages": ["nopackage"]}, "no package 'nopackage'"),
    ],
)
def test_a_corpus_that_cannot_be_read_says_why(corpus, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few" / "one").mkdir(parents=True)
    (tmp_path / "few" / "one" / "file").write_bytes(b"text" * 100)
    with pytest.raises(InputError, match=said):
        grid._Corpora()[grid._choice(Job(corpus))]


def test_shipped_loads_are_calibrated_with_their_figures(command, tmp_path):
    code, out, err = command("lab", "calibrate=lab_loads")
    assert code == 0, err
    assert "load_spread" in out
    assert {path.name for path in tmp_path.rglob("*.png")} == {"loads.png", "domains.png", "twins.png"}
