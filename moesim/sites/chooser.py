"""Which sites are rented: at each moment the cheapest of those that are up, for the compute that they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moesim.sites.place import Site, column, weights


class Chooser:
    """Rents `most` sites at a time, by $ for their FLOP at the price of the tick; None: all that are up.

    One that is rented is left only for one that is cheaper by more than the share `stay`: what moving costs.
    """

    def __init__(self, groups: Mapping[str, Site], speeds: np.ndarray, most: int | None, stay: float):
        self.sites = groups.values()
        self.sizes = [group.simulated for group in self.sites]
        self.work, self.weight = speeds / column(groups, "devices"), weights(groups)
        self.most, self.stay = most, stay
        self.rented = np.zeros(len(speeds))

    def __call__(self, share: np.ndarray, start: float, hours: float) -> tuple[np.ndarray, np.ndarray]:
        """Share of the sites of each kind that are rented, and the change of it to the tick before."""
        if self.most is None:
            return np.ones(len(share)), np.zeros(len(share))
        price = np.repeat([site.mean_price(start, hours) for site in self.sites], self.sizes)
        asked = price / self.work * np.where(self.rented > 0, 1.0 - self.stay, 1.0)
        order = np.argsort(np.where(share > 0, asked, np.inf), kind="stable")
        there = np.where(share > 0, self.weight, 0.0)[order]
        before = np.cumsum(there) - there
        part = np.zeros(len(share))
        part[order] = np.divide(np.clip(self.most - before, 0.0, there), there, np.zeros(len(there)), where=there > 0)
        moved, self.rented = part - self.rented, part
        return part, moved
