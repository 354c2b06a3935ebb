"""From a size and a sparsity of an architecture to a model that can be built: a Transformer, and its `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.errors import InputError
from moesim.models.transformer import Transformer

HEAD = 128  # width of an attention head, and what d_model is a multiple of
WIDTHS = range(2 * HEAD, 65537, HEAD)
NEEDED = ("active_experts", "granularity", "aspect", "ffn_ratio", "ffn_matrices", "vocabulary", "embeddings", "context")


def shape(fields: Mapping[str, Any], d_model: int, spread: int) -> Transformer:
    """The transformer of that width with `spread` x active_experts routed experts; `spread` 1: a dense one.

    `fields` of the architecture moe_transformer. Raises InputError for fields that no such model has.
    """
    _check(fields)
    layers, wide = max(round(d_model / fields["aspect"]), 1), round(fields["ffn_ratio"] * d_model)
    active, common = round(fields["active_experts"]), {"layers": layers, "d_model": d_model, "heads": d_model // HEAD}
    common |= {"vocabulary": round(fields["vocabulary"]), "tied": fields["embeddings"] == 1, "head_dim": HEAD}
    if spread == 1:
        return Transformer(**common, d_ff=wide, gated=fields["ffn_matrices"] == 3, name="dense")
    narrow = round(wide / fields["granularity"])
    experts = {"experts": spread * active, "active_experts": active, "d_expert": narrow}
    return Transformer(**common, **experts, gated=fields["ffn_matrices"] == 3, name=f"moe_{spread * active}")


def _check(fields: Mapping[str, Any]) -> None:
    lacking = [name for name in NEEDED if name not in fields]
    if lacking:
        raise InputError(f"plan: the architecture has no {lacking[0]}; take moe_transformer or fine_grained")
    for name, wanted in {"shared_experts": 0, "moe_every": 1}.items():
        if fields[name] != wanted:
            raise InputError(f"plan: architecture.fields.{name}={fields[name]:g}; a plan is for {name}={wanted}")


def config_json(model: Transformer, context: int) -> dict[str, Any]:
    """The content of a Hugging Face `config.json` for a gated model of `shape`: of the family mixtral, or llama."""
    common = {
        "hidden_size": model.d_model,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": model.tied,
        "torch_dtype": "bfloat16",
    }
    if not model.experts:
        kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "intermediate_size": model.d_ff}
        return {**kind, **common}
    experts = {"num_local_experts": model.experts, "num_experts_per_tok": model.active_experts}
    kind = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "intermediate_size": model.d_expert}
    return {**kind, **common, **experts}
