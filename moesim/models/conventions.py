"""Training FLOP per token as the field counts it: exactly, by 6ND, and by the formulas of training frameworks.

They differ in what they leave out, and so does every utilisation (MFU) computed from them. For DeepSeek-V3 at 4096
tokens the causal half of the attention core alone is the difference between 38.9 % and 43.7 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moesim.models.attention import keys_seen

if TYPE_CHECKING:
    from moesim.models.transformer import Transformer


class Setting(NamedTuple):
    """What a count depends on besides the model."""

    sequence: int = 0
    mask: str = "causal"
    recompute: str = "none"
    mtp: bool = False


def exact(model: Transformer, setting: Setting) -> Any:
    """Forward, both gradients and what is recomputed, layer by layer: masks, windows, router, head, no update."""
    network = model.network(setting.sequence, setting.mask, setting.mtp)
    passes = network.total(1, recompute=setting.recompute)
    return passes.total - passes.update


def six_nd(model: Transformer, setting: Setting) -> Any:
    """6 N with N the weights that multiply for one token; no attention core."""
    return 6 * model.active_params_as("matmul")


def six_nd_attention(model: Transformer, setting: Setting) -> Any:
    """6 N + 12 L H Q T with a full mask, + 6 L H Q T causal; every softmax layer is taken to see the whole sequence."""
    seen = keys_seen(setting.sequence, setting.mask)
    return six_nd(model, setting) + 12 * _softmax_layers(model) * model.heads * _mean_dim(model) * seen


def palm(model: Transformer, setting: Setting) -> Any:
    """6 N + 12 L H Q T (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

    N: all active parameters, embeddings included; the mask is not discounted and every layer counts.
    """
    return 6 * model.active_params + 12 * model.layers * model.heads * _mean_dim(model) * setting.sequence


def torchtitan(model: Transformer, setting: Setting) -> Any:
    """torchtitan's `get_moe_model_nparams_and_flops`: 6 N + 6 L H (d_qk + d_v) T.

    N: active parameters without the input embedding and without buffers, norm gains and router counted; the routed
    experts are scaled by K/E. The mask is not discounted.
    """
    selection = model.moe_layers * model.experts * model.selection_bias
    N = model.active_params - selection - model.vocabulary * model.d_model * (not model.tied)
    return 6 * N + 12 * model.layers * model.heads * _mean_dim(model) * setting.sequence


def megatron(model: Transformer, setting: Setting) -> Any:
    """Megatron-LM's `num_floating_point_operations`: causal half, no router, no lookup, vocabulary padded to 128.

    Windows are ignored, the gains of latent attention count as weights, a Gated DeltaNet layer's core is 8 d_v^2 per
    head, and a prediction module adds one more layer, a 2 d x d projection, 3 d for norms and one more head.
    """
    extra = model.mtp_layers if setting.mtp else 0
    layers, moe = model.layers + extra, model.moe_layers + extra * bool(model.moe_layers)
    d, head = model.d_model, -(-model.vocabulary // 128) * 128
    macs = (
        (layers - model.linear_layers) * _megatron_attention(model, setting.sequence)
        + model.linear_layers * _megatron_delta_net(model)
        + d * (2 + model.gated) * model.d_ff * (layers - moe)
        + d * _megatron_experts(model) * moe
        + extra * (3 * d + 2 * d * d)
        + d * head * (1 + extra)
    )
    return 6 * macs


def _megatron_experts(model: Transformer) -> int:
    shared = model.shared_experts * model.d_shared
    return (2 + bool(model.gated_experts)) * (model.active_experts * model.d_expert + shared)


def _megatron_attention(model: Transformer, sequence: int) -> Any:
    """Multiply-adds of one attention layer."""
    core = model.heads * _mean_dim(model) * sequence
    if model.kv_rank:
        query, width = model.nope_dim + model.rope_dim, model.d_model
        wide = model.heads * query
        q = model.q_rank * (width + wide + 1) if model.q_rank else width * wide
        kv = model.kv_rank * (width + model.heads * (model.nope_dim + model.value_dim) + 1)
        return q + kv + width * model.rope_dim + model.heads * model.value_dim * width + core
    groups = 2 * model.heads + 2 * model.kv_heads + model.heads * model.attention_gate
    return model.d_model * model.head_dim * groups + core


def _megatron_delta_net(model: Transformer) -> int:
    keys = model.linear_key_heads * model.linear_key_dim
    values = model.linear_value_heads * model.linear_value_dim
    projections = model.d_model * (2 * keys + 3 * values + 2 * model.linear_value_heads)
    return projections + model.linear_kernel * (2 * keys + values) + 4 * values * model.linear_value_dim


def _mean_dim(model: Transformer) -> Any:
    """Mean of the query and the value width of one head."""
    if model.kv_rank:
        return (model.nope_dim + model.rope_dim + model.value_dim) / 2
    return model.head_dim


def _softmax_layers(model: Transformer) -> int:
    return model.layers - model.linear_layers


CONVENTIONS: Mapping[str, Callable[[Transformer, Setting], Any]] = {
    "exact": exact,
    "6nd": six_nd,
    "6nd_attention": six_nd_attention,
    "palm": palm,
    "torchtitan": torchtitan,
    "megatron": megatron,
}
