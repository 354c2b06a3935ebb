"""How fast a matrix product runs: by shape, precision and kernel, fitted to published points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.hardware.chip import Chip, chip_of, gemm_seconds, precision_bytes
from moesim.models.operations import choose
from moesim.variables import POSITIVE, check


@dataclass(frozen=True)
class Kernel:
    """A family of kernels: the `share` of peak that it reaches, and how much longer small products take.

    A product takes 1 + rows (1/m + 1/d_in + 1/d_out) times as long as a large one.
    Constants of `moesim/data/gemm_published.csv` (`benchmarks/hardware.py` prints every residual).
    """

    description: str
    share: float
    rows: float = 0.0


KERNELS: Mapping[str, Kernel] = {
    "dense": Kernel("the vendor's library on one large product, best of shapes", 0.762),
    "deepgemm": Kernel("DeepGEMM, dense or grouped, without the exchange", 0.649),
    "grouped": Kernel("grouped products of open libraries in 16 bits (torch, cuBLAS, CUTLASS, Triton)", 0.649, 930.0),
    "fused": Kernel("an expert layer in one kernel (Liger)", 0.56),
    "fused_exchange": Kernel("an expert layer in one kernel with dispatch and combine (DeepGEMM)", 0.457, 45.0),
}


def gemm_tflops(
    chip: Any, m: Any, d_in: Any, d_out: Any, groups: Any = 1, precision: str = "bf16", kernel: str = "dense"
) -> Any:
    """TFLOP/s of `groups` products [m, d_in] x [d_in, d_out] on one chip; NaN where the chip has no such peak.

    `chip`: a name, a mapping or a Chip; `m`: rows of each product (tokens per expert); numbers or arrays; `precision`:
    bf16, fp8, mxfp8, nvfp4; `kernel`: a row of KERNELS. Outputs have 16 bits. The time is [(FLOP/P)^p + (bytes/W)^p]
    ^(1/p) (`chip.gemm_seconds`) with P = share x peak / (1 + rows (1/m + 1/d_in + 1/d_out)). Raises InputError for
    unknown names and for sizes that are not above 0.
    """
    sizes = {"m": m, "d_in": d_in, "d_out": d_out, "groups": groups}
    m, d_in, d_out, groups = (check("gemm_tflops", name, value, POSITIVE) for name, value in sizes.items())
    size = precision_bytes(precision)
    seconds = product_seconds(chip_of(chip), m, d_in, d_out, groups, size, choose("kernel", kernel, KERNELS))
    return 2.0 * m * d_in * d_out * groups / seconds / 1e12


def product_seconds(
    chip: Chip, m: Any, d_in: Any, d_out: Any, groups: Any, size: Any, kernel: Kernel, weight_size: Any = None
) -> Any:
    """Seconds of grouped products; `size`: bytes of an input (and of a weight, unless given), outputs have 2."""
    weight = size if weight_size is None else weight_size
    moved = groups * (m * (d_in * size + d_out * 2.0) + d_in * d_out * weight)
    flops = 2.0 * m * d_in * d_out * groups * (1.0 + kernel.rows * (1.0 / m + 1.0 / d_in + 1.0 / d_out))
    return gemm_seconds(replace(chip, peak_share=kernel.share), flops, moved, size)


def expert_tflops(
    chip: Any, m: Any, d_model: Any, d_expert: Any, groups: Any, precision: str, kernel: Kernel, weight_size: Any = None
) -> Any:
    """TFLOP/s of a forward pass of gated experts: d_model to twice d_expert, and back."""
    chip, size = chip_of(chip), precision_bytes(precision)
    shapes = ((d_model, 2.0 * d_expert), (d_expert, d_model))
    seconds = sum(product_seconds(chip, m, *shape, groups, size, kernel, weight_size) for shape in shapes)
    return 6.0 * np.asarray(m) * d_model * d_expert * groups / seconds / 1e12
