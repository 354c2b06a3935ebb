"""Sparse matrices: how much faster than dense ones they are multiplied, by kernel and density, and where that pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.models.operations import choose
from moesim.variables import FRACTION, NON_NEGATIVE, check


@dataclass(frozen=True)
class SparseKernel:
    """A way to multiply by a matrix with few non-zeros.

    `efficiency`: FLOP/s on the non-zeros over those of dense products on the same chip; `most`: the largest speed-up
    over the dense product that is seen; `usable`: the density up to which a matrix has the form that it takes.
    """

    description: str
    efficiency: float
    most: float = np.inf
    usable: float = 1.0
    source: str = ""


SPARSE: Mapping[str, SparseKernel] = {
    "dense": SparseKernel("zeros are multiplied too", 1.0, most=1.0, source="by definition"),
    "2:4": SparseKernel(
        "two of four, tensor cores", 0.565, 1.13, 0.5,
        "cuSPARSELt in PyTorch pull 96147, 1.13x (1.11x: NVIDIA sample issue 57; up to 1.7x: torchao README)",
    ),
    "block": SparseKernel(
        "blocks of 128, tensor cores", 0.9, source="MegaBlocks README: within a tenth of dense products on its blocks"
    ),
    "unstructured_tensor": SparseKernel(
        "loaded sparse, computed dense", 0.1, 2.1,
        source="Flash-LLM, 1.4 to 2.1x at 70 to 90 % in skinny products; no library beats dense above 10 % density",
    ),
    "unstructured_vector": SparseKernel(
        "vector units", 0.034, source="Sputnik, 27 % of V100's fp32 peak: 3.4 % of its tensor cores'"
    ),
    "skipping": SparseKernel(
        "hardware that skips every zero", 1.0, source="Cerebras CS-2 (vendor); taken as ideal, no speed is published"
    ),
}  # fmt: skip


def speedup(kernel: str, density: Any) -> Any:
    """Time of the dense product over that with a share `density` of non-zeros: efficiency / density, within limits.

    Raises InputError for an unknown kernel and a density outside (0, 1].
    """
    row, q = choose("sparse kernel", kernel, SPARSE), check("speedup", "density", density, FRACTION)
    return np.where(q <= row.usable, np.clip(row.efficiency / q, 1.0, row.most), 1.0)[()]


def pays_below(kernel: str) -> float:
    """The density below which a kernel is faster than the dense product; 0 if it never is."""
    row = choose("sparse kernel", kernel, SPARSE)
    return float(min(row.efficiency, row.usable)) if row.most > 1.0 else 0.0


def crossbar_area(ports: Any, crosspoint: Any) -> Any:
    """Area of a unit that gathers any operand to any lane over that of a systolic edge with as many lanes.

    Lanes grow as the ports, a crossbar as their square: 1 + ports x crosspoint, where `crosspoint` is the area of one
    crossing over that of one lane. No published number was found for it: a free parameter.
    """
    ports, crosspoint = (check("crossbar_area", "ports", x, NON_NEGATIVE) for x in (ports, crosspoint))
    return 1.0 + ports * crosspoint
