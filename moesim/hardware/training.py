"""How long a training step of a transformer takes on a cluster, part by part, and how much memory it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moesim.hardware.chip import Chip, gemm_seconds, precision_bytes
from moesim.hardware.exchange import LIBRARIES, exchange_seconds
from moesim.hardware.layout import Grid
from moesim.hardware.release import Release
from moesim.hardware.work import Work

_COLLECTIVE = 0.82  # share of a link that all-reduce reaches: NVLink on H200, stas00/ml-engineering
_CORE_PASSES = 3.5  # forward, and 2.5 times it backward: FlashAttention's five products against two
_UPDATE = 28.0  # bytes of a weight that an update reads and writes
_TENSOR_COLLECTIVES = 5.0  # gathers and scatters of a block's tokens: 2 forward, 3 backward (sequence parallel)
_CONTEXT_PASSES = 3.0  # keys and values forward, once more backward, and their gradients
_VALUE = 2.0  # bytes of what travels


@dataclass(frozen=True)
class Setup:
    """All that a step depends on but the layouts; `imbalance`: busiest device over mean."""

    work: Work
    chip: Chip
    devices: int
    size: float
    release: Release
    imbalance: float = 1.0

    @classmethod
    def of(cls, work: Work, chip: Chip, devices: int, precision: str, release: Release, imbalance: float) -> Setup:
        """From the name of a precision."""
        return cls(work, chip, devices, precision_bytes(precision), release, imbalance)


def step_parts(setup: Setup, grid: Grid) -> dict[str, np.ndarray]:
    """Seconds (layout,) of a step by part; they add up to the step."""
    release, work = setup.release, setup.work
    dense, experts = product_parts(setup, grid)
    core = grid.tokens * work.core / (release.core * setup.chip.flops) * grid.share
    forward = {
        "products": dense,
        "experts": experts,
        "attention": core,
        "elementwise": elementwise(setup, grid),
        "exchange": 2.0 * _exchange(setup, grid),
        "tensor_parallel": 0.4 * _tensor(setup, grid),
        "context_parallel": _context(setup, grid) / 3.0,
        "launch": _launch(setup, grid) / 3.0,
    }
    backward = {name: 2.0 * value for name, value in forward.items()}
    backward |= {"attention": core * (_CORE_PASSES - 1.0), "exchange": forward["exchange"]}
    backward["tensor_parallel"] = 1.5 * forward["tensor_parallel"]
    again = {name: value * grid.again(name) for name, value in forward.items()}
    again["cheap"] = dense * work.cheap_share * grid.again("cheap") * (1.0 - grid.again("products"))
    m, gradients = grid.micro_batches, dense + experts
    whole = {name: m * (forward[name] + backward[name]) for name in forward}
    F, B = _total(forward), _total(backward) + _total(again)
    loads = (setup.imbalance - 1.0) * (whole["experts"] + whole["exchange"])
    return {
        **whole,
        "recompute": m * _total(again),
        "imbalance": loads,
        "pipeline": _bubble(grid, F, B, gradients, 1.0 + loads / (m * (F + B))) + _stages(setup, grid),
        "data_parallel": _data(setup, grid),
        "optimizer": _update(setup, grid),
    }


def _total(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(sum(parts.values()))


def product_parts(setup: Setup, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of a micro-batch's forward pass on one stage in products with weights: all but experts, and experts.

    A product's weights are shared by `tensor` devices, experts by `expert` devices; a group of experts has as many rows
    as the tokens of those devices bring it.
    """
    work, release, chip = setup.work, setup.release, setup.chip
    size = np.where(work.narrow, setup.size, 2.0)
    tokens, shared = grid.tokens[:, None], np.where(work.grouped, grid.expert[:, None], grid.tensor[:, None])
    group = tokens * work.rows * grid.expert[:, None] / work.experts
    flops = 2.0 * tokens * work.rows * work.inner * work.columns * work.copies
    thin = np.where(work.grouped, 1.0 / group + 1.0 / work.inner + 1.0 / work.columns, 0.0)
    weights = np.where(work.grouped, work.experts, 1.0) / shared * work.inner * work.columns * size
    moved = work.copies * (tokens * work.rows * (work.inner * size + work.columns * 2.0) + weights)
    seconds = gemm_seconds(chip, flops * (1.0 + release.rows * thin), moved, size) * grid.share[:, None]
    return seconds[:, ~work.grouped].sum(axis=1), seconds[:, work.grouped].sum(axis=1)


def elementwise(setup: Setup, grid: Grid) -> np.ndarray:
    """Seconds of norms, activations, casts and permutations of a forward pass: passes over the ends of all products."""
    ends = float(setup.work.ends().sum())
    return setup.release.passes * grid.tokens * ends / setup.chip.memory_bandwidth * grid.share


def _exchange(setup: Setup, grid: Grid) -> np.ndarray:
    """Exposed seconds of one dispatch or combine of all layers of a stage."""
    work, release = setup.work, setup.release
    row, library = grid.tokens * work.d_model * _VALUE, LIBRARIES[release.library]
    one = exchange_seconds(setup.chip, grid.expert, row, work.active_experts, library)
    one = one + np.where(grid.expert > 1, setup.chip.latency, 0.0)
    return release.exposed * one * work.moe_layers * grid.share


def _launch(setup: Setup, grid: Grid) -> np.ndarray:
    """Seconds of a micro-batch on one stage before its kernels run: of each layer, and the chip's own of an expert."""
    experts = 3.0 * setup.chip.launch * setup.work.experts / grid.expert * setup.work.moe_layers
    kernels = setup.release.launches * setup.chip.start * setup.work.layers
    return (kernels + experts) * grid.share


def _link(setup: Setup, ranks: np.ndarray) -> np.ndarray:
    """byte/s of a collective over so many neighbours: the slower link if they do not fit a domain."""
    return _COLLECTIVE * np.where(ranks > setup.chip.domain, setup.chip.scale_out, setup.chip.scale_up)


def _tensor(setup: Setup, grid: Grid) -> np.ndarray:
    """Exposed seconds of a micro-batch in gathers and scatters among tensor parallel devices, both passes."""
    work, t = setup.work, grid.tensor
    moved = grid.tokens * (t - 1.0) * work.d_model * _VALUE * _TENSOR_COLLECTIVES * (work.layers + work.mlp_layers)
    return _where(t, setup.release.exposed * moved * grid.share / _link(setup, t))


def _context(setup: Setup, grid: Grid) -> np.ndarray:
    """Exposed seconds of a micro-batch in passing keys and values among context parallel devices, both passes."""
    c = grid.context
    moved = grid.tokens * (c - 1.0) * setup.work.kv_width * _VALUE * _CONTEXT_PASSES
    return _where(c, setup.release.exposed * moved * grid.share / _link(setup, c * grid.tensor))


def _where(ranks: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Nothing among one device, whatever its links."""
    return np.where(ranks > 1, seconds, 0.0)


def _bubble(grid: Grid, F: np.ndarray, B: np.ndarray, W: np.ndarray, slowed: np.ndarray) -> np.ndarray:
    """Seconds that a device waits for other stages, by the schedule."""
    p, v = grid.pipeline, grid.interleave
    idle = grid.by_schedule(lambda schedule, at: schedule.bubble(p[at], v[at], F[at], B[at], W[at]))
    return np.maximum(idle, 0.0) * slowed


def _stages(setup: Setup, grid: Grid) -> np.ndarray:
    """Exposed seconds of activations and their gradients between stages, whole step."""
    moved = 2.0 * grid.micro_batches * grid.interleave * grid.tokens * setup.work.d_model * _VALUE
    return _where(grid.pipeline, setup.release.exposed * moved / _link(setup, grid.used))


def _held(setup: Setup, grid: Grid) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Parameters of the fullest device and the devices that hold the same, for dense and routed ones."""
    work, ends = setup.work, max(setup.work.embedding_params, setup.work.head_params)
    dense = (work.body_params * grid.share + ends) / grid.tensor
    routed = work.expert_params * grid.share / grid.expert
    return (dense, grid.data * grid.context), (routed, np.maximum(grid.stage_devices / grid.expert, 1.0))


def _data(setup: Setup, grid: Grid) -> np.ndarray:
    """Exposed seconds to sum gradients and gather weights; with ZeRO-3 weights for every micro-batch and pass."""
    moves = np.where(grid.zero > 2, 1.0 + 2.0 * grid.micro_batches, 2.0)
    sent = sum(moves * _VALUE * held * (n - 1.0) / n for held, n in _held(setup, grid))
    return _where(np.asarray(sent), setup.release.exposed * np.asarray(sent) / _link(setup, grid.used))


def _update(setup: Setup, grid: Grid) -> np.ndarray:
    """Seconds of the update, bound by memory; devices that hold the same weights share it (ZeRO-1 and above)."""
    held = sum(held / np.where(grid.zero > 0, n, 1.0) for held, n in _held(setup, grid))
    return _UPDATE * np.asarray(held) / setup.chip.memory_bandwidth
