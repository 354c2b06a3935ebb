"""How long `moesim sites` takes: 10,000 volunteers for 30 days and 8 seeds, and how time grows with sites and rounds.

python benchmarks/sites.py            # CPU seconds of one core; minimum of three for the table
"""

from __future__ import annotations

from itertools import pairwise
from math import log
from time import process_time
from typing import Any

from moesim import config
from moesim.sites import simulate


def seconds(sites: int, hours: float, seeds: int = 1, protocol: Any = "volunteers", times: int = 3) -> float:
    """CPU seconds of a run of so many simulated volunteers, the least of a few."""
    site = {**config.read("site", "volunteers"), "sites": sites, "weight": 1}
    taken = []
    for _ in range(times):
        start = process_time()
        simulate(site, protocol, 3e8, hours=hours, seeds=seeds, batch=4096)
        taken.append(process_time() - start)
    return min(taken)


def growth(what: str, runs: dict[int, tuple[int, float]]) -> None:
    """Prints the seconds of each size, and the power with which they grow from one to the next."""
    taken = {size: seconds(sites, hours) for size, (sites, hours) in runs.items()}
    for (size, first), (larger, then) in pairwise(taken.items()):
        power = log(then / first) / log(larger / size)
        print(f"{what} {size:>7,} to {larger:>7,}: {first:6.2f} to {then:6.2f} s, as {what}^{power:.2f}")


if __name__ == "__main__":
    seconds(10, 10.0)  # imports
    print(f"10,000 volunteers, 30 days, 8 seeds: {seconds(10_000, 720.0, 8, times=1):.1f} s")
    growth("sites", {n: (n, 100.0) for n in (4_000, 16_000, 64_000)})
    growth("hours", {n: (1000, float(n)) for n in (50, 200, 800)})
