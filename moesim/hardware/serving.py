"""Ceilings of decoding: bytes of keys and values, and the tokens a second that memory and compute allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.hardware.chip import chip_of, precision_bytes
from moesim.hardware.work import kv_width, params_by_kind
from moesim.models.transformer import Transformer
from moesim.variables import NON_NEGATIVE, POSITIVE, check


def kv_bytes(model: Transformer, value_bytes: float = 2.0) -> float:
    """Bytes that attention keeps of each token, all layers and windows as if they were full."""
    return value_bytes * kv_width(model)


def weight_bytes(model: Transformer, tokens: Any, precision: str) -> Any:
    """Bytes of weights that a decoding step of so many tokens reads: all that is dense, and the experts it touches.

    P_fixed + P_routed (1 - (1 - K/E)^n), uniform routing; the input embedding is a lookup, and is not read.
    """
    held = params_by_kind(model.plain.entries)
    fixed = held["body_params"] + held["embedding_params" if model.tied else "head_params"]
    touched = 1.0 - (1.0 - model.active_experts / max(model.experts, 1)) ** np.asarray(tokens)
    return precision_bytes(precision) * (fixed + held["expert_params"] * touched)


def decode_rate(
    model: Any, chip: Any, devices: int = 1, tokens: Any = 1, precision: str = "bf16", context: Any = 0
) -> Any:
    """Most tokens per second that `devices` can decode together for `tokens` sequences at once, each `context` long.

    Memory reads every weight that is needed and all keys and values once a step; compute does two FLOP per active
    weight. No share is taken off: this is a ceiling. `model`: a file of `conf/model` or a Transformer.
    """
    model, chip = model if isinstance(model, Transformer) else Transformer.load(model), chip_of(chip)
    tokens = check("decode_rate", "tokens", tokens, POSITIVE)
    context = check("decode_rate", "context", context, NON_NEGATIVE)
    read = weight_bytes(model, tokens, precision) + tokens * context * kv_bytes(model)
    memory = tokens * devices * chip.memory_bandwidth / read
    return np.minimum(memory, devices * chip.peak(precision_bytes(precision)) / model.forward_flops())
