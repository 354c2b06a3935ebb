"""All-to-all of tokens between devices that hold experts: how fast, by library, ranks, links and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.hardware.chip import Chip, chip_of, destinations, precision_bytes
from moesim.models.operations import choose
from moesim.variables import AT_LEAST_ONE, check


@dataclass(frozen=True)
class Link:
    """One kind of link under a library: the `share` of its bandwidth that is reached, and what a call costs besides.

    `fixed` and `per_rank` count starts of a kernel or a message (`Chip.start`).
    """

    share: float
    fixed: float = 0.0
    per_rank: float = 0.0


@dataclass(frozen=True)
class Library:
    """An all-to-all library: its links within a domain and between domains.

    `own_free`: what stays in the sender's node takes no time between nodes. `hybridep` times the whole call,
    `hybridep_kernel` its kernel. Constants fitted to `moesim/data/all_to_all_published.csv` (`benchmarks/hardware.py`
    prints every residual).
    """

    up: Link
    out: Link
    own_free: bool = True


LIBRARIES: Mapping[str, Library] = {
    "hybridep": Library(Link(0.744, 14.4, 1.08), Link(0.814, 118.0)),
    "hybridep_kernel": Library(Link(0.896, 2.6, 0.8), Link(0.906, 56.0)),
    "deepep_v1": Library(Link(0.99, 29.6, 1.78), Link(1.0), own_free=False),
    "deepep_v2": Library(Link(0.846, 5.2), Link(0.884)),
}


def all_to_all_bandwidth(
    chip: Any,
    ranks: Any,
    *,
    precision: str = "bf16",
    library: str = "hybridep",
    tokens: Any = 4096,
    d_model: Any = 7168,
    active_experts: Any = 8,
    node_limit: int | None = None,
) -> Any:
    """Algorithm bandwidth (byte/s) of a dispatch or combine: bytes that a device sends over the time it takes.

    As the libraries count: a token goes once to each rank (within a domain) or node (between domains) that holds one of
    its experts, the sender's own included. `tokens` of each device; `node_limit`: most nodes of a token; `library`: a
    row of LIBRARIES. NaN where the chip has no such link, inf for one rank. Raises InputError for unknown
    names and sizes below 1.
    """
    sizes = {"ranks": ranks, "tokens": tokens, "d_model": d_model, "active_experts": active_experts}
    ranks, tokens, d_model, active = (
        check("all_to_all_bandwidth", name, value, AT_LEAST_ONE) for name, value in sizes.items()
    )
    chip, rule = chip_of(chip), choose("library", library, LIBRARIES)
    row = tokens * d_model * precision_bytes(precision)
    nodes = np.maximum(ranks / chip.domain, 1.0)
    sent = row * np.where(nodes > 1, destinations(nodes, active, node_limit), destinations(ranks, active))
    with np.errstate(divide="ignore"):
        return (sent / exchange_seconds(chip, ranks, row, active, rule, node_limit))[()]


def exchange_seconds(
    chip: Chip, ranks: Any, row: Any, active: Any, library: Library, node_limit: int | None = None
) -> Any:
    """Seconds of one dispatch or combine of `row` bytes of tokens per device over `ranks` (arrays broadcast).

    Within a domain each token travels to every rank it needs; between domains once to each node, and the slower of
    both counts. Nothing for one rank.
    """
    near, nodes = np.minimum(ranks, chip.domain), np.maximum(ranks / chip.domain, 1.0)
    up = _seconds(chip, row * destinations(near, active), chip.scale_up, library.up, near)
    leaving = (nodes - 1.0) / nodes if library.own_free else 1.0
    out = _seconds(chip, row * leaving * destinations(nodes, active, node_limit), chip.scale_out, library.out, ranks)
    return np.where(np.asarray(ranks) > 1, np.maximum(up, np.where(nodes > 1, out, 0.0)), 0.0)


def _seconds(chip: Chip, sent: Any, bandwidth: float, link: Link, ranks: Any) -> Any:
    return sent / (link.share * bandwidth) + chip.start * (link.fixed + link.per_rank * ranks)
