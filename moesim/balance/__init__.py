"""What the experts do during the run: a simulator of data, routing, structure, placement and clock."""

from moesim.balance.packing import Balanced, eplb

__all__ = ["Balanced", "eplb"]
