"""What fits: bytes of weights, gradients, optimizer and activations on the fullest device."""

from __future__ import annotations

import numpy as np

from moesim.hardware.layout import Grid
from moesim.hardware.work import Work

# Mixed-precision Adam: 16-bit weights and gradients; 32-bit weights and two moments (ZeRO, arXiv:1910.02054).
STATES = {"weights": 2.0, "gradients": 2.0, "optimizer": 12.0}
_SHARED_FROM = {"weights": 3, "gradients": 2, "optimizer": 1}  # the level of ZeRO that divides them
_LOGITS = 6.0  # byte of a logit: 16 bits, and 32 for the loss


def memory_parts(work: Work, grid: Grid, size: float) -> dict[str, np.ndarray]:
    """Bytes (layout,) on the fullest device: `weights`, `gradients`, `optimizer`, `activations`.

    The fullest is the first stage (the embedding, most micro-batches in flight) or the last (the head, the logits).
    `size`: bytes of an input of a product that is kept.
    """
    first, last = (_stage(work, grid, size, *end) for end in ((True, False), (False, True)))
    alone = _stage(work, grid, size, True, True)
    fuller = sum(first.values()) >= sum(last.values())
    return {n: np.where(grid.pipeline == 1, alone[n], np.where(fuller, first[n], last[n])) for n in alone}


def _stage(work: Work, grid: Grid, size: float, embeds: bool, heads: bool) -> dict[str, np.ndarray]:
    copies = grid.by_schedule(lambda schedule, _: schedule.copies)
    ends = work.embedding_params * embeds + work.head_params * heads
    dense = (work.body_params * grid.share * copies + ends) / grid.tensor
    routed = work.expert_params * grid.share * copies / grid.expert
    own = {name: state_bytes(name, grid, dense, routed) for name in STATES}
    flying = grid.by_schedule(lambda s, at: s.in_flight(grid.pipeline[at], grid.interleave[at])) if embeds else 1.0
    flying = np.minimum(flying, grid.micro_batches)
    logits = heads * _LOGITS * grid.tokens * work.vocabulary
    return {**own, "activations": activation_bytes(work, grid, size) * flying + working_bytes(work, grid) + logits}


def state_bytes(name: str, grid: Grid, dense: np.ndarray, routed: np.ndarray) -> np.ndarray:
    """Bytes of one kind of state for so many dense and routed parameters of a device, shared as `zero` says."""
    shared = grid.zero >= _SHARED_FROM[name]
    dense_over = np.where(shared, grid.data * grid.context, 1.0)
    routed_over = np.where(shared, np.maximum(grid.stage_devices / grid.expert, 1.0), 1.0)
    return STATES[name] * (dense / dense_over + routed / routed_over)


def activation_bytes(work: Work, grid: Grid, size: float) -> np.ndarray:
    """Bytes that one micro-batch leaves on a stage for its backward pass."""
    inner = ~work.head
    everything, costly = (work.ends(size, cheap)[inner].sum() for cheap in (True, False))
    one = np.ones(len(grid.layouts))
    kept = grid.kept(all=one * everything, costly=one * costly, inputs=one * 2.0 * work.d_model * work.layers)
    return grid.tokens * grid.share * kept


def working_bytes(work: Work, grid: Grid) -> np.ndarray:
    """Bytes of one layer that is computed once more."""
    layer, none = grid.tokens * work.ends()[~work.head].sum() / work.layers, np.zeros(len(grid.layouts))
    return grid.kept(all=none, costly=none, inputs=layer)
