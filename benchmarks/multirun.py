"""What a multirun costs: Hydra's price of a job against an axis inside one job, and collecting 1000 small results.

    python benchmarks/multirun.py

Prints seconds and ratios of one run on one machine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import moesim
from moesim.output.collect import collect
from moesim.output.store import write_result

JOBS = 20


def seconds(call, *arguments, **options):
    start = time.perf_counter()
    call(*arguments, **options)
    return time.perf_counter() - start


def command(*arguments):
    subprocess.run(
        [sys.executable, "-m", "moesim", "sweep", "figures=false", *arguments], check=True, capture_output=True
    )


def jobs_against_axis():
    budgets = [f"{1 + i / JOBS:.3f}e20" for i in range(JOBS)]
    many = seconds(command, "-m", f"space.compute={','.join(budgets)}")
    one = seconds(command, f"space.compute=[{','.join(budgets)}]")
    empty = seconds(command, f"space.compute={budgets[0]}")
    print(f"{JOBS} jobs {many:.2f} s, one job with an axis of {JOBS} {one:.2f} s: ratio {many / one:.1f}")
    each = [(total - empty) / (JOBS - 1) for total in (many, one)]
    print(f"one more job costs {each[0]:.3f} s, one more value on an axis {each[1]:.4f} s")


def collecting(n=1000):
    dataset = moesim.optimum(
        moesim.Model("abnar2025"), compute=[1e20, 1e21], sparsity=[0, 0.9], unique_tokens=[2e9, 4e9]
    )
    folder = Path("jobs")
    for i in range(n):
        (folder / str(i)).mkdir(parents=True)
        attrs = {"verb": "sweep", "config": f"seed: {i}\n", "overrides": json.dumps([f"seed={i}"])}
        write_result(dataset.assign_attrs(attrs), folder / str(i) / "result.nc")
    print(f"collect of {n} results: {seconds(collect, [folder]):.2f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        jobs_against_axis()
        collecting()
