"""One chip and its links: how long a matrix product takes, and how long tokens travel.

Times are seconds. Formulas: facts of DeepGEMM and DeepEP (see `moesim/data/BALANCE.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.settings import number, setting
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE


@dataclass(frozen=True)
class Chip:
    """One device; keys of `conf/chip/*.yaml`.

    `flops`: peak with 16-bit values (FLOP/s), `flops_8bit` with 8-bit ones. `memory_bandwidth` (byte/s). `scale_up`,
    `scale_out`: links within a node and between nodes, one way (byte/s). `peak_share`, `bandwidth_share`, `sharpness`
    shape the time of a matrix product; the defaults are a fit to DeepGEMM on H800. `launch`: s per expert and
    microbatch; `latency`: s per exchange.
    """

    flops: float = setting(takes=number(POSITIVE))
    memory_bandwidth: float = setting(takes=number(POSITIVE))
    scale_up: float = setting(takes=number(POSITIVE))
    scale_out: float = setting(takes=number(POSITIVE))
    flops_8bit: float | None = setting(None, number(POSITIVE))
    peak_share: float = setting(0.63, number(FRACTION))
    bandwidth_share: float = setting(0.77, number(FRACTION))
    sharpness: float = setting(1.78, number(POSITIVE))
    launch: float = setting(0.0, number(NON_NEGATIVE))
    latency: float = setting(0.0, number(NON_NEGATIVE))

    def peak(self, value_bytes: float) -> float:
        """FLOP/s with values of that many bytes; InputError for 8-bit ones that the chip has no peak for."""
        if value_bytes > 1:
            return self.flops
        if self.flops_8bit is None:
            raise InputError(
                f"chip: no flops_8bit for schedule.value_bytes={value_bytes:g}; give chip.flops_8bit=NUMBER"
            )
        return self.flops_8bit


def gemm_seconds(chip: Chip, flops: Any, moved: Any, value_bytes: float) -> np.ndarray:
    """Time of matrix products of so many FLOP that move so many bytes: [(FLOP/P)^p + (bytes/W)^p]^(1/p).

    P = peak_share x peak, W = bandwidth_share x memory_bandwidth, p = sharpness; arguments broadcast. Fitted to
    DeepGEMM's published points (H800, FP8).
    """
    compute = flops / (chip.peak_share * chip.peak(value_bytes))
    memory = moved / (chip.bandwidth_share * chip.memory_bandwidth)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    return longer * (1.0 + (shorter / longer) ** chip.sharpness) ** (1.0 / chip.sharpness)


def destinations(places: int, active: float, limit: int | None = None) -> float:
    """Expected distinct places that one token's experts are spread over: places (1 - (1 - 1/places)^active).

    With a `limit` (group-limited routing) every token goes to that many places, or to all if there are fewer.
    """
    return float(min(limit, places)) if limit else places * (1.0 - (1.0 - 1.0 / places) ** active)


def all_to_all_seconds(
    tokens: Any, d_model: float, value_bytes: float, places: int, bandwidth: float, copies: float
) -> Any:
    """Time to send each of a device's `tokens` to `copies` of `places`, its own place free, at `bandwidth` byte/s."""
    return tokens * d_model * value_bytes * copies * (places - 1) / places / bandwidth


def all_reduce_bytes(parts: Any, size: Any) -> Any:
    """Bytes that each of `parts` devices sends in a ring that sums `size` bytes: 2 (parts - 1)/parts x size."""
    return 2.0 * (parts - 1) / parts * size
