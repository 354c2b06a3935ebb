"""What a training step comes to in one layout: `Step`, the answer of `moesim.step_time`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.hardware.chip import peak_name
from moesim.hardware.layout import Grid
from moesim.hardware.memory import memory_parts
from moesim.hardware.training import Setup, step_parts
from moesim.output.text import Page, count, shown


@shown
@dataclass(frozen=True)
class Step:
    """A training step: what `step_time` gives.

    `seconds`, and `parts` that add up to it; `tflops_per_device`: model FLOP (recomputed ones not counted) over time
    and all devices; `mfu`: that over the peak of the precision; `tokens_per_second` of each device; `memory`: bytes on
    the fullest device, and `memory_parts`; `fits`: whether that is within the chip's memory (None: not known);
    `layout`: the fields of `Layout`; `idle_devices` that the layout leaves out; `binds`: the largest part but the
    products; `reason`: why numbers are NaN; `others`: the next best layouts and why they lose (where the layout was
    searched).
    """

    seconds: float
    tflops_per_device: float
    mfu: float
    tokens_per_second: float
    parts: Mapping[str, float]
    memory: float
    memory_parts: Mapping[str, float]
    fits: bool | None
    layout: Mapping[str, Any]
    idle_devices: int
    reason: str = ""
    others: Sequence[str] = field(default=())

    @property
    def binds(self) -> str:
        """The part that takes most time besides matrix products."""
        rest = {name: value for name, value in self.parts.items() if name not in ("products", "experts")}
        return max(rest, key=lambda name: rest[name])

    def device_hours(self, tokens: float, tokens_per_step: float) -> float:
        """Hours of all devices for a run of so many tokens, without failures."""
        devices = tokens_per_step / (self.tokens_per_second * self.seconds)
        return tokens / tokens_per_step * self.seconds * devices / 3600.0

    def _page(self) -> Page:
        what = f"{self.seconds:.4g} s a step, {self.tflops_per_device:.4g} TFLOP/s a device (MFU {self.mfu:.1%})"
        fits = {True: "fits", False: "does not fit", None: "the chip's memory is not known"}[self.fits]
        told = f"{count(self.memory)} bytes on the fullest device: {fits}; {self.idle_devices} devices idle"
        return [what, told, dict(self.layout), dict(self.parts), *([self.reason] if self.reason else []), *self.others]


def step_of(setup: Setup, grid: Grid, batch: int, others: Sequence[str] = (), at: int = 0) -> Step:
    """The Step of one of a grid's layouts."""
    work, peak = setup.work, setup.chip.peak(setup.size)
    parts = {name: float(values[at]) for name, values in step_parts(setup, grid).items()}
    memory = {name: float(values[at]) for name, values in memory_parts(work, grid, setup.size).items()}
    seconds, tokens = sum(parts.values()), float(batch) * work.sequence
    rate = work.flops * tokens / seconds / setup.devices
    return Step(
        seconds=seconds,
        tflops_per_device=rate / 1e12,
        mfu=float(rate / peak),
        tokens_per_second=tokens / seconds / setup.devices,
        parts=parts,
        memory=sum(memory.values()),
        memory_parts=memory,
        fits=None if np.isnan(setup.chip.memory) else sum(memory.values()) <= setup.chip.memory,
        layout=grid.layouts[at].as_dict(),
        idle_devices=int(setup.devices - grid.used[at]),
        reason=_reason(setup, seconds),
        others=tuple(others),
    )


def _reason(setup: Setup, seconds: float) -> str:
    """Which numbers the chip lacks, if any is needed."""
    if np.isfinite(seconds) and np.isfinite(setup.chip.memory):
        return ""
    names = (peak_name(setup.size), "flops", "memory", "memory_bandwidth", "scale_up", "scale_out")
    missing = dict.fromkeys(name for name in names if np.isnan(getattr(setup.chip, name)))
    return f"the chip has no {', '.join(missing)}: give chip={{{next(iter(missing), '')}: NUMBER, ...}}"
