"""How far the formulas of this wing are from the published rows of `moesim/data` (see HARDWARE.md there)."""

from __future__ import annotations

from typing import NamedTuple

from moesim.data import shipped
from moesim.hardware.chip import chip_of, precision_bytes
from moesim.hardware.exchange import all_to_all_bandwidth
from moesim.hardware.gemm import KERNELS, expert_tflops, product_seconds


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
