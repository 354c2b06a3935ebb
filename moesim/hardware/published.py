"""How far the formulas of this wing are from the published rows of `moesim/data` (see HARDWARE.md there)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from moesim.data import shipped
from moesim.hardware.chip import chip_of, precision_bytes
from moesim.hardware.exchange import all_to_all_bandwidth
from moesim.hardware.gemm import KERNELS, expert_tflops, product_seconds
from moesim.hardware.layout import Grid, Layout
from moesim.hardware.release import Release, release_of
from moesim.hardware.training import Setup, step_parts
from moesim.hardware.work import work_of
from moesim.models.transformer import Transformer


class Residual(NamedTuple):
    """A published row: what it belongs to, its name, what was measured and what the formula gives."""

    group: str
    name: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1.0


def gemm_residuals() -> list[Residual]:
    """TFLOP/s of matrix products, by kernel."""
    return [_gemm(row) for row in shipped("gemm_published.csv")]


def _gemm(row: dict[str, str]) -> Residual:
    m, groups, d_in, d_out = (float(row[name]) for name in ("rows", "groups", "d_in", "d_out"))
    kernel, weight, precision = KERNELS[row["kernel"]], float(row["weight_bits"]) / 8.0, row["precision"]
    chip, size = chip_of(row["chip"]), precision_bytes(precision)
    if row["shape"] == "expert":
        rate = expert_tflops(chip, m, d_in, d_out, groups, precision, kernel, weight)
    else:
        rate = 2e-12 * m * d_in * d_out * groups / product_seconds(chip, m, d_in, d_out, groups, size, kernel, weight)
    name = f"{row['source']}, {row['chip']} {precision}, m={m:g}, {d_in:g} x {d_out:g}"
    return Residual(row["kernel"], name, float(row["tflops"]), float(rate))


def exchange_residuals() -> list[Residual]:
    """GB/s of dispatch and combine, by library."""
    own = {"direction": "dispatch", "precision": "fp8"}, {"direction": "combine", "precision": "bf16"}
    v1 = [
        {
            "library": "deepep_v1",
            "chip": "h800",
            "node_limit": "4",
            **row,
            **how,
            "gb_per_s": row[f"{how['direction']}_gb_per_s"],
        }
        for row in shipped("all_to_all_deepep.csv")
        for how in own
    ]
    return [_exchange(row) for row in [*v1, *shipped("all_to_all_published.csv")]]


def _exchange(row: dict[str, str]) -> Residual:
    library = row["library"] + "_kernel" * (row.get("kernel_only") == "1")
    limit = int(row["node_limit"]) if "node_limit" in row else None
    precision = row["precision"]
    rate = all_to_all_bandwidth(
        row["chip"], float(row["ranks"]), precision=precision, library=library, node_limit=limit
    )
    sms = f", {row['sms']} SMs" if row.get("sms") else ""
    name = f"{row['chip']}, {row['ranks']} ranks, {row['direction']} {precision}{sms}"
    return Residual(library, name, float(row["gb_per_s"]), float(rate) / 1e9)


class StepRow(NamedTuple):
    """A published step: its release and name, what it depends on, its layout and batch, and TFLOP/s of a device."""

    release: str
    name: str
    setup: Setup
    grid: Grid
    batch: int
    tflops: float

    def residual(self, release: Release | None = None) -> Residual:
        """How far the formula is off, with the release's constants or others."""
        setup = self.setup if release is None else replace(self.setup, release=release)
        seconds = np.asarray(sum(step_parts(setup, self.grid).values()))
        flops = setup.work.flops * self.batch * setup.work.sequence / setup.devices
        return Residual(self.release, self.name, self.tflops, float(flops / seconds[0] / 1e12))


def step_rows(table: str = "step_times.csv") -> list[StepRow]:
    """The published steps of a table."""
    return [_step(row) for row in shipped(table)]


def _step(row: dict[str, str]) -> StepRow:
    names = ("tensor", "pipeline", "interleave", "expert", "micro_batch")
    layout = Layout.of({name: int(row[name]) for name in names})
    work, batch = work_of(Transformer.load(row["model"]), int(row["sequence"])), int(row["batch"])
    setup = Setup.of(
        work, chip_of(row["chip"]), int(row["devices"]), row["precision"], release_of(row["release"] or None), 1.0
    )
    value = float(row["value"]) * (work.flops / 1e12 if row["unit"] == "tokens_per_second" else 1.0)
    cut = " ".join(f"{short}{row[name]}" for short, name in zip(("TP", "PP", "VP", "EP", "MB"), names, strict=True))
    name = f"{row['model']}, {row['devices']} {row['chip']} {row['precision']}, {cut}"
    return StepRow(row["release"], name, setup, Grid.of([layout], work, setup.devices, batch), batch, value)


def step_residuals() -> list[Residual]:
    """TFLOP/s of training steps, by release."""
    return [row.residual() for row in step_rows()]


def other_residuals() -> list[Residual]:
    """The same of steps of other software, under the newest release; part of what the layout was is a guess."""
    return [row.residual() for row in step_rows("step_times_other.csv")]
