"""Work that cannot end is refused before it starts, with what it needs and what there is."""

import re

import pytest

from moesim.errors import InputError
from moesim.output import budget
from moesim.output.budget import points, refuse_if_too_large, refuse_if_too_many, size


@pytest.fixture
def small(monkeypatch):
    """A machine with 1 GB of memory and 2 GB of disk."""
    monkeypatch.setattr(budget, "free_memory", lambda: 1e9)
    monkeypatch.setattr(budget.shutil, "disk_usage", lambda _: type("", (), {"free": 2e9})())


@pytest.mark.parametrize(
    ("memory", "disk", "said"),
    [
        (1e9, 2e9, None),
        (1.1e9, 0, "work: needs at least 1.1 GB of memory, 1 GB are free; make it smaller"),
        (1e8, 8e13, "work: needs at least 80 TB of disk, 2 GB are free; make it smaller"),
    ],
)
def test_what_does_not_fit_is_refused(small, memory, disk, said):
    if said is None:
        refuse_if_too_large("work", memory, disk)
        return
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        refuse_if_too_large("work", memory, disk)


def test_values_are_numbers_of_eight_bytes(small):
    refuse_if_too_many("draws", 1.25e8)
    with pytest.raises(InputError, match=r"draws \(126,000,000 values\): needs at least 1\.01 GB"):
        refuse_if_too_many("draws", 1.26e8)


@pytest.mark.parametrize(
    ("value", "count"),
    [(1e20, 1), ([1, 2], 2), ({"linspace": [0, 1, 300]}, 300), ({"geomspace": [1, 10, 1000000000]}, 1e9), ({}, 1),
     ({"linspace": "x"}, 1), ({"linspace": [0, 1, True]}, 1)],
)  # fmt: skip
def test_points_of_an_axis_are_counted_unmade(value, count):
    assert points(value) == count


@pytest.mark.parametrize(("amount", "text"), [(0, "0 B"), (1234, "1.23 kB"), (8e13, "80 TB"), (1e21, "1e+06 PB")])
def test_sizes(amount, text):
    assert size(amount) == text


def test_free_memory_is_that_of_the_machine():
    assert 1e7 < budget.free_memory() < 1e15


HUGE = {
    "cells": ("sweep", "space.compute={geomspace: [1e18, 1e24, 10000]}", "space.sparsity={linspace: [0, 0.9, 10000]}",
              "space.active_params={geomspace: [1e7, 1e12, 50000]}"),
    "an axis": ("sweep", "space.active_params={geomspace: [1e7, 1e12, 10000000000]}"),
    "draws": ("fit", "fit.draws=1000000000000"),
    "batches": ("flops", "batch={geomspace: [1, 1e9, 10000000000]}"),
}  # fmt: skip


@pytest.mark.parametrize("row", HUGE)
def test_huge_work_is_refused_with_numbers(command, row):
    code, _, err = command(*HUGE[row], "figures=false")
    assert code == 2
    assert re.search(r"needs at least [\d.e+]+ [kMGTP]?B of (memory|disk), .* are free; ", err)
    assert len(err.strip().splitlines()) == 1
