"""The one formula behind backward/forward ratios: total/forward = 3 - phi + r + u P/(B F).

phi: share of the forward FLOP in layers that need no input gradient (the first); r: share of the forward that is
recomputed; u: optimiser FLOP per weight; P: weights; B: samples or tokens per step; F: forward FLOP per sample. Every
function takes numbers or arrays that broadcast.

The backward/forward ratio of Hobbhahn & Sevilla 2021 ("What's the backward-forward FLOP ratio for neural networks?",
epoch.ai) counts the update in the backward: total/forward - 1 with r = 0. Their text and tables agree with the exact
counts here. Of their measured ResNet and VGG bars most agree to a few hundredths at batch 64 and 128; the bars above 2
for deep ResNets at batch 1 and the low ones at batch 256 do not: the exact ratio of every ResNet stays below 2 even at
batch 1 with the update, and it hardly depends on the batch. They are errors of the profiler. Two more readings to keep
apart: "3:1" is total/forward and "2:1" backward/forward, the same statement; and 3:1 at batch 1 counts a multiply-add
as 2 FLOP, where counting every scalar gives 2.5:1 (a sum of B products has B - 1
adds, so 3 + (u - 1)/(2 B); a comment of "toph" under the post).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.models.operations import number


@dataclass(frozen=True)
class Updating:
    """Selective updating: shares of the tokens, or of the steps, for which a pass is done at all.

    `weight_gradient`: tokens whose gradient of these weights is computed; `update`: steps in which they are updated;
    `input_gradient`: tokens whose gradient is passed back through (skipped where it flows round a residual branch).
    Numbers for a layer of a stack; here also arrays, say a share for each expert. InputError outside 0 to 1.
    """

    weight_gradient: Any = 1
    update: Any = 1
    input_gradient: Any = 1

    def __post_init__(self):
        for name in ("weight_gradient", "update", "input_gradient"):
            for share in np.ravel(getattr(self, name)).tolist():
                number(self, 0, 1, **{name: share})


ALWAYS = Updating()


def total_to_forward(
    batch: Any,
    *,
    update: Any,
    weights_per_flop: Any = 0.5,
    first: Any = 0.0,
    recomputed: Any = 0.0,
    updating: Updating = ALWAYS,
) -> Any:
    """FLOP of a training step over FLOP of its forward pass.

    `update` is u, `weights_per_flop` P/F: 1/2 for linear layers, 1/(2 H' W') for a convolution, (P/P_a)/2 for a
    mixture of experts. `first` is phi, `recomputed` r. With `updating` a (input), w (weight gradient), s (update):
    1 + a (1 - phi) + w + r + s u P/(B F), so that it runs from 1 upwards.
    """
    _check(batch=batch)
    backward = updating.input_gradient * (1 - first) + updating.weight_gradient
    return 1 + backward + recomputed + updating.update * update * weights_per_flop / batch


def tokens_per_expert(batch: Any, experts: Any, active_experts: Any) -> Any:
    """Tokens that one expert sees per step, b = B K / E, if the load is balanced."""
    _check(batch=batch, experts=experts, active_experts=active_experts)
    return batch * active_experts / experts


def expert(tokens: Any, *, update: Any, updating: Updating = ALWAYS) -> Any:
    """total/forward of an expert that sees `tokens` tokens per step: 3 + u/(2 b), "approaching 3:1 from above"."""
    return total_to_forward(tokens, update=update, updating=updating)


def tokens_for(excess: Any = 0.01, *, update: Any) -> Any:
    """Tokens per expert and step at which its ratio has come down to 3 + excess: u/(2 excess), 50 u for 3.01."""
    _check(excess=excess)
    return update / (2 * excess)


def touched_only(batch: Any, experts: Any, active_experts: Any, *, update: Any) -> Any:
    """total/forward of the experts if only those that the batch uses are updated, under uniform routing.

    3 + (u/(2b)) (1 - (1 - K/E)^B), never above 3 + u/2, as a touched expert has a token; a dense update has no bound.
    """
    tokens = tokens_per_expert(batch, experts, active_experts)
    return 3 + update / (2 * tokens) * (1 - (1 - active_experts / experts) ** batch)


def _check(**values: Any) -> None:
    for name, value in values.items():
        if not np.all(np.asarray(value, dtype=float) > 0):
            raise InputError(f"ratio: {name}={value!r}; it takes numbers above 0")
