"""Training FLOP per token as the field counts it: exactly, by 6ND, and by the formulas of training frameworks.

They differ in what they leave out, and so does every utilisation (MFU) computed from them. For DeepSeek-V3 at 4096
tokens the causal half of the attention core alone is the difference between 38.9 % and 43.7 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moesim.models.attention import keys_seen
from moesim.models.description import Description
from moesim.models.operations import Product


class Setting(NamedTuple):
    """What a count depends on besides the model."""

    sequence: int = 0
    mask: str = "causal"
    recompute: str = "none"
    mtp: bool = False
    form: str = "trained"


def exact(model: Description, setting: Setting) -> Any:
    """Forward, both gradients and what is recomputed, layer by layer: masks, windows, router, head, no update."""
    network = model.network(setting.sequence, setting.mask, setting.mtp, setting.form)
    passes = network.total(1, recompute=setting.recompute)
    return passes.total - passes.update


def six_nd(model: Description, setting: Setting) -> Any:
    """6 N with N the weights that multiply for one token; no attention core."""
    return 6 * matmul_params(model)


def six_nd_attention(model: Description, setting: Setting) -> Any:
    """6 N + 12 L H Q T with a full mask, + 6 L H Q T causal; every softmax layer is taken to see the whole sequence."""
    return six_nd(model, setting) + 12 * _widths(model) * keys_seen(setting.sequence, setting.mask)


def palm(model: Description, setting: Setting) -> Any:
    """6 N + 12 L H Q T (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

    N: all active parameters, embeddings included; the mask is not discounted and every layer counts.
    """
    every = sum(group.layers * group.heads * group.head_width for group in model.groups)
    return 6 * model.active_params + 12 * every * setting.sequence


def torchtitan(model: Description, setting: Setting) -> Any:
    """torchtitan's `get_nparams_and_flops` at commit 01c01c8: 6 N + 6 H (d_qk + d_v) keys + 18 H d_k d_v of each state.

    N: active parameters without lookups and buffers, norm gains and router counted; the routed experts are scaled by
    K/E. The mask is not discounted: a layer sees T keys, min(T, w) behind a window of w. Only Gated DeltaNets count as
    states (`delta_rule_flops_per_token`).
    """
    T = setting.sequence
    keys = sum(g.heads * g.head_width * (g.full_layers * T + g.local_layers * _nearest(g, T)) for g in model.groups)
    states = sum(g.linear_layers * g.linear_value_heads * g.linear_key_dim * g.linear_value_dim for g in model.groups)
    return 6 * (_trained_matrices(model) - _lookups(model)) + 12 * keys + 18 * states


def torchtitan_b5bcd76(model: Description, setting: Setting) -> Any:
    """Its `get_moe_model_nparams_and_flops` at commit b5bcd76, where every layer sees everything: 6 N + 6 L H (d_qk +
    d_v) T.

    Layers without softmax attention are taken to have one too; of the lookups only the input embedding is left out.
    """
    every = sum(g.layers * g.heads * g.head_width for g in model.groups)
    return 6 * _trained_matrices(model) + 12 * every * setting.sequence


def _trained_matrices(model: Description) -> int:
    return model.active_params - _untrained(model) - _input_embedding(model)


def megatron(model: Description, setting: Setting) -> Any:
    """Megatron-LM's `num_floating_point_operations` at commit d98e8a6: causal half, no router, no lookup, vocabulary
    padded to 128.

    Windows are ignored, the gains of latent attention count as weights, a Gated DeltaNet layer's core is 8 d_v^2 per
    head, a Mamba-2 layer is taken to be 2 d wide with a scan of 7 d S multiply-adds, and a prediction module adds one
    more layer, a 2 d x d projection, 3 d for norms and one more head.
    """
    return 6 * _megatron(model, setting, lambda group: setting.sequence / 2)


def megatron_bridge(model: Description, setting: Setting) -> Any:
    """Megatron-Bridge's `num_floating_point_operations` at commit 0494433: as Megatron-LM's, but for the layers behind
    a window of w, which see w - w (w - 1)/(2 T) keys."""
    T = setting.sequence

    def local(group: Description) -> Any:
        w = _nearest(group, T)
        return w - w * (w - 1) / (2 * T) if 0 < w < T else T / 2

    return 6 * _megatron(model, setting, local)


def _nearest(group: Description, sequence: int) -> int:
    """Keys that a layer with a window sees at most; these frameworks know no chunks."""
    return min(sequence, group.window or sequence)


def _megatron(model: Description, setting: Setting, local: Callable[[Description], Any]) -> Any:
    """Multiply-adds of a forward pass; `local`: the keys that a local layer of a group sees."""
    extra = model.mtp_layers if setting.mtp else 0
    d, head = model.d_model, -(-model.vocabulary // 128) * 128
    macs = sum(_megatron_layers(group, setting.sequence, local(group)) for group in model.groups)
    return macs + extra * (_megatron_last(model, setting.sequence) + 3 * d + 2 * d * d) + d * head * (1 + extra)


def _megatron_layers(group: Description, sequence: int, local: Any) -> Any:
    """Multiply-adds of the layers of one group."""
    softmax = group.full_layers + group.local_layers
    core = 2 * group.heads * group.head_width * (group.full_layers * sequence / 2 + group.local_layers * local)
    experts = group.d_model * _megatron_experts(group) * group.moe_layers
    return (
        softmax * _megatron_projections(group)
        + core
        + group.linear_layers * _megatron_delta_net(group)
        + group.mamba_layers * _megatron_mamba(group)
        + group.d_model * (2 + group.gated) * group.d_ff * group.mlp_layers
        + experts
    )


def _megatron_last(model: Description, sequence: int) -> Any:
    """Multiply-adds of one more layer with full attention, with experts if there are any."""
    layer = model.groups[0]
    wide = _megatron_experts(layer) if layer.moe_layers else (2 + layer.gated) * layer.d_ff
    return _megatron_projections(layer) + layer.heads * layer.head_width * sequence + layer.d_model * wide


def _megatron_experts(group: Description) -> Any:
    shared, wide = group.shared_experts * group.d_shared, group.experts and group.active_experts * group.d_expert
    acting = wide * group.experts / (group.experts + group.zero_experts) if group.zero_experts else wide
    narrow = group.expert_latent / group.d_model if group.expert_latent else 1
    return (2 + bool(group.gated_experts)) * (acting * narrow + shared) + 2 * group.expert_latent


def _megatron_projections(group: Description) -> Any:
    """Multiply-adds of the projections of one softmax layer."""
    d, out = group.d_model, group.heads * group.value_dim
    if group.kv_rank:
        query = group.nope_dim + group.rope_dim
        wide = group.heads * query
        q = group.q_rank * (d + wide + 1) if group.q_rank else d * wide
        kv = group.kv_rank * (d + group.heads * (group.nope_dim + group.value_dim) + 1)
        return q + kv + d * group.rope_dim + out * d
    heads = 2 * group.heads + group.kv_projections * group.kv_heads + group.heads * group.attention_gate
    return d * group.head_dim * heads


def _megatron_delta_net(group: Description) -> int:
    keys = group.linear_key_heads * group.linear_key_dim
    values = group.linear_value_heads * group.linear_value_dim
    projections = group.d_model * (2 * keys + 3 * values + 2 * group.linear_value_heads)
    return projections + group.linear_kernel * (2 * keys + values) + 4 * values * group.linear_value_dim


def _megatron_mamba(group: Description) -> Any:
    inner, shared = 2 * group.d_model, 2 * group.mamba_groups * group.mamba_state
    projections = group.d_model * (2 * inner + shared + group.mamba_heads) + inner * group.d_model
    return projections + 7 * inner * group.mamba_state / 2


def _widths(model: Description) -> Any:
    """Heads times their mean width, summed over the layers with softmax attention."""
    return sum((g.full_layers + g.local_layers) * g.heads * g.head_width for g in model.groups)


CONVENTIONS: Mapping[str, Callable[[Description, Setting], Any]] = {
    "exact": exact,
    "6nd": six_nd,
    "6nd_attention": six_nd_attention,
    "palm": palm,
    "torchtitan": torchtitan,
    "torchtitan_b5bcd76": torchtitan_b5bcd76,
    "megatron": megatron,
    "megatron_bridge": megatron_bridge,
}


def matmul_params(model: Description) -> int:
    """Weights that multiply for one token, 2 FLOP each: no lookups, norm gains or biases; a tied table counts once."""
    entries = model.plain.entries
    return sum(
        entry.copies * op.macs
        for entry in entries
        for op in entry.layer.operations
        if isinstance(op, Product) and op.weights
    )


def _lookups(model: Description) -> int:
    """Weights that are only looked up: learned positions and the embeddings of each layer."""
    return model.learned_positions * model.d_model + model.layer_vocabulary * model.layers * model.layer_embedding


def _embeddings(model: Description) -> int:
    """Input embedding, head, and what else is looked up."""
    return (1 if model.tied else 2) * model.vocabulary * model.d_model + _lookups(model)


def _untrained(model: Description) -> int:
    """Values that no gradient reaches."""
    tensors = ((entry.copies, tensor) for entry in model.plain.entries for tensor in entry.layer.tensors)
    return sum(copies * tensor.size for copies, tensor in tensors if not tensor.trained)


def _input_embedding(model: Description) -> int:
    """The table of an untied input embedding; a tied one is the head."""
    return 0 if model.tied else model.vocabulary * model.d_model


TOTAL_CONVENTIONS: Mapping[str, Callable[[Description], int]] = {
    "all": lambda model: model.total_params,
    "trained": lambda model: model.total_params - _untrained(model),
    "no_embedding": lambda model: model.total_params - _embeddings(model),
    "with_mtp": lambda model: model.network(mtp=True).weights,
}
"""`trained`: without the router's selection bias, a buffer that no gradient reaches (what `parameters()` sums);
`no_embedding`: without input embedding, learned positions and head; `with_mtp`: with the prediction modules."""

ACTIVE_CONVENTIONS: Mapping[str, Callable[[Description], int]] = {
    "all": lambda model: model.active_params,
    "no_input_embedding": lambda model: model.active_params - _input_embedding(model),
    "no_embedding": lambda model: model.active_params - _embeddings(model),
    "matmul": matmul_params,
}
"""`all`: both embeddings (Mixtral, Qwen3); `no_input_embedding`: without the lookup, which costs nothing, unless the
table is also the head (gpt-oss, DeepSeek-V3); `no_embedding`: neither, as scaling laws count; `matmul`: only weights
that multiply, half the forward FLOP without the attention core."""
