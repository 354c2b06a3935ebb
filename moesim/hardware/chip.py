"""One chip and its links: how long a matrix product takes, and how long tokens travel.

Times are seconds. Formulas: facts of DeepGEMM and DeepEP (see `moesim/data/BALANCE.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import nan
from typing import Any

import numpy as np

from moesim.config import read as read_file
from moesim.errors import InputError
from moesim.settings import number, read, setting, whole
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE

PRECISIONS: Mapping[str, float] = {"bf16": 2.0, "fp8": 1.0, "mxfp8": 1.0, "nvfp4": 0.5}
"""Precision of matrix products -> bytes of a value."""


def peak_name(value_bytes: float) -> str:
    """The key of a chip that holds its peak with values of that many bytes."""
    return "flops" if value_bytes > 1 else "flops_8bit" if value_bytes > 0.5 else "flops_4bit"


@dataclass(frozen=True)
class Chip:
    """One device; keys of `conf/chip/*.yaml`. A number that no source gives is left out, and NaN here.

    `flops`: peak with 16-bit values (FLOP/s), `flops_8bit` and `flops_4bit` with narrower ones; all without sparsity.
    `memory` (byte), `memory_bandwidth` (byte/s). `scale_up`: link among the `domain` devices that it joins,
    `scale_out`: beyond them, both one way and per device (byte/s). `price` ($ for an hour), `watts_busy`,
    `watts_idle`. `peak_share`, `bandwidth_share`, `sharpness` shape the time of a matrix product; the defaults are a
    fit to DeepGEMM on H800. `start`: s to start a kernel or a message (no source tells chips apart). `launch`: s per
    expert and microbatch; `latency`: s per exchange, both on top.
    """

    flops: float = setting(None, number(POSITIVE))
    memory_bandwidth: float = setting(None, number(POSITIVE))
    scale_up: float = setting(None, number(POSITIVE))
    scale_out: float = setting(None, number(POSITIVE))
    flops_8bit: float = setting(None, number(POSITIVE))
    flops_4bit: float = setting(None, number(POSITIVE))
    memory: float = setting(None, number(POSITIVE))
    domain: int = setting(8, whole())
    price: float = setting(None, number(NON_NEGATIVE))
    watts_busy: float = setting(None, number(POSITIVE))
    watts_idle: float = setting(None, number(NON_NEGATIVE))
    peak_share: float = setting(0.63, number(FRACTION))
    bandwidth_share: float = setting(0.77, number(FRACTION))
    sharpness: float = setting(1.78, number(POSITIVE))
    start: float = setting(5e-6, number(NON_NEGATIVE))
    launch: float = setting(0.0, number(NON_NEGATIVE))
    latency: float = setting(0.0, number(NON_NEGATIVE))
    source: str = setting("")

    def __post_init__(self):
        for row in fields(self):
            if getattr(self, row.name) is None:
                object.__setattr__(self, row.name, nan)

    def peak(self, value_bytes: Any) -> Any:
        """FLOP/s with values of that many bytes (2: 16-bit, 1: 8-bit, 0.5: 4-bit); NaN where no source gives it."""
        size = np.asarray(value_bytes, dtype=float)
        return np.select([size > 1, size > 0.5], [self.flops, self.flops_8bit], self.flops_4bit)[()]

    def require(self, *names: str) -> None:
        """InputError that names the first of these numbers that is missing."""
        for name in names:
            if np.isnan(getattr(self, name)):
                raise InputError(f"chip: {name}=None, which is needed here; give chip.{name}=NUMBER")


def chip_of(given: Any) -> Chip:
    """A Chip from one, the name of a file in `conf/chip` or a path, or a mapping of its keys."""
    if isinstance(given, Chip):
        return given
    return read(Chip, "chip", given if isinstance(given, Mapping) else read_file("chip", given))


def precision_bytes(precision: str) -> float:
    """Bytes of a value of a precision; InputError for an unknown one."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: no {precision!r}; there are {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def gemm_seconds(chip: Chip, flops: Any, moved: Any, value_bytes: Any) -> np.ndarray:
    """Time of matrix products of so many FLOP that move so many bytes: [(FLOP/P)^p + (bytes/W)^p]^(1/p).

    P = peak_share x peak, W = bandwidth_share x memory_bandwidth, p = sharpness; arguments broadcast. Fitted to
    DeepGEMM's published points (H800, FP8).
    """
    compute = flops / (chip.peak_share * chip.peak(value_bytes))
    memory = moved / (chip.bandwidth_share * chip.memory_bandwidth)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    return longer * (1.0 + (shorter / longer) ** chip.sharpness) ** (1.0 / chip.sharpness)


def destinations(places: Any, active: Any, limit: int | None = None) -> Any:
    """Expected distinct places that one token's experts are spread over: places (1 - (1 - 1/places)^active).

    With a `limit` (group-limited routing) every token goes to that many places, or to all if there are fewer.
    """
    return np.minimum(limit, places) if limit else places * (1.0 - (1.0 - 1.0 / places) ** active)


def all_reduce_bytes(parts: Any, size: Any) -> Any:
    """Bytes that each of `parts` devices sends in a ring that sums `size` bytes: 2 (parts - 1)/parts x size."""
    return 2.0 * (parts - 1) / parts * size
