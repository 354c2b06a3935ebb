"""Readers: each takes some keys of a Hugging Face `config.json` to some fields of a Transformer.

Fields that differ from layer to layer stand under `each`, a mapping for every layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moesim.errors import InputError
from moesim.models.keys import Keys

Fields = dict[str, Any]
Reader = Callable[[Keys], Fields]
Rule = Callable[[Keys, int], bool]  # whether the layer at an index is of a kind


def common(keys: Keys) -> Fields:
    """Sizes that every family has, and whether the embeddings are tied."""
    return {
        "layers": keys.layers,
        "d_model": keys["hidden_size"],
        "heads": keys["num_attention_heads"],
        "vocabulary": keys["vocab_size"],
        "tied": keys["tie_word_embeddings"],
    }


# Attention


def grouped(keys: Keys) -> Fields:
    """Grouped-query attention with one switch for the biases of all four projections."""
    biased = keys["attention_bias"]
    sizes = {"kv_heads": keys["num_key_value_heads"], "head_dim": keys["head_dim"]}
    return {**sizes, "qkv_bias": biased, "out_bias": biased}


def latent(keys: Keys) -> Fields:
    """Multi-head latent attention."""
    return {
        "q_rank": keys["q_lora_rank"],
        "kv_rank": keys["kv_lora_rank"],
        "nope_dim": keys["qk_nope_head_dim"],
        "rope_dim": keys["qk_rope_head_dim"],
        "value_dim": keys["v_head_dim"],
        "qkv_bias": keys["attention_bias"],
    }


def indexed(keys: Keys) -> Fields:
    """An indexer in every layer, or in those that do not share the choice of the one before."""
    kinds = keys.kinds("indexer_types", "full", "shared") or _index_pattern(keys)
    sizes = {"indexer_heads": keys["index_n_heads"], "indexer_dim": keys["index_head_dim"]}
    none = dict.fromkeys(sizes, 0)
    return {"indexer_keys": keys["index_topk"], "each": [sizes if kind == "full" else none for kind in kinds]}


def _index_pattern(keys: Keys) -> list[str]:
    if "index_topk_pattern" in keys:
        kinds = _spelled(keys, "index_topk_pattern", {"F": "full", "S": "shared"})
        return keys.having(index_topk_pattern=kinds).each("index_topk_pattern")
    offset, every = keys["index_skip_topk_offset"], keys["index_topk_freq"]
    return ["shared" if max(i - offset + 1, 0) % every else "full" for i in range(keys.layers)]


def _spelled(keys: Keys, name: str, kinds: Mapping[str, str]) -> list[str]:
    """The kind of each layer by a text with a letter for each, or a list of letters or kinds."""
    pattern = keys[name]
    if not {*pattern} <= {*kinds, *kinds.values()}:
        raise keys.wrong(name, ", ".join(f"{letter} ({kind})" for letter, kind in kinds.items()) + " for each layer")
    return [kinds.get(kind, kind) for kind in pattern]


def head_norm(keys: Keys) -> Fields:
    """A norm on each head of queries and keys, if switched on."""
    return {"qk_norm": "head" if keys["use_qk_norm"] else "none"}


def _of_kind(keys: Keys, kind: str, rule: Rule) -> list[bool]:
    """Whether each layer is of a kind: by `layer_types`, else by the rule."""
    kinds = keys.kinds("layer_types", kind, "full_attention")
    return [rule(keys, i) for i in range(keys.layers)] if kinds is None else [name == kind for name in kinds]


def windowed(rule: Rule) -> Reader:
    """A sliding window in the layers that the rule names, where the config has no `layer_types`."""

    def read(keys: Keys) -> Fields:
        window = keys["sliding_window"]
        local = sum(_of_kind(keys, "sliding_attention", rule))
        return {"window": window, "local_layers": local if window else 0}

    return read


def always(keys: Keys, index: int) -> bool:
    """Every layer."""
    return True


def but_every(number: int) -> Rule:
    """All layers but every `number`-th."""
    return lambda keys, index: bool((index + 1) % number)


def by_pattern(keys: Keys, index: int) -> bool:
    """All layers but every `sliding_window_pattern`-th."""
    return bool((index + 1) % keys.size("sliding_window_pattern"))


def switched_on(rule: Rule) -> Rule:
    """The layers of another rule, if `use_sliding_window` is on."""
    return lambda keys, index: keys["use_sliding_window"] and rule(keys, index)


def behind(keys: Keys, index: int) -> bool:
    """The layers behind the first `max_window_layers`."""
    return index >= keys["max_window_layers"]


def odd_before(keys: Keys, index: int) -> bool:
    """Every second one of the first `max_window_layers` layers."""
    return index % 2 == 0 and index < keys["max_window_layers"]


def without_rope(keys: Keys, index: int) -> bool:
    """The layers without rotary positions: by a list, else every `no_rope_layer_interval`-th."""
    rope = keys.at("no_rope_layers", index)
    return not ((index + 1) % keys["no_rope_layer_interval"] if rope is None else rope)


def chunked(keys: Keys) -> Fields:
    """Llama 4: chunks in the layers with rotary positions."""
    chunk = keys["attention_chunk_size"]
    local = sum(_of_kind(keys, "chunked_attention", lambda keys, i: not without_rope(keys, i)))
    return {"chunk": chunk, "local_layers": local if chunk else 0}


def linear(keys: Keys) -> Fields:
    """Gated DeltaNets in all layers but every `full_attention_interval`-th."""
    interval = keys["full_attention_interval"]
    return {
        "linear_layers": sum(_of_kind(keys, "linear_attention", lambda keys, i: bool((i + 1) % interval))),
        "linear_key_heads": keys["linear_num_key_heads"],
        "linear_value_heads": keys["linear_num_value_heads"],
        "linear_key_dim": keys["linear_key_head_dim"],
        "linear_value_dim": keys["linear_value_head_dim"],
        "linear_kernel": keys["linear_conv_kernel_dim"],
    }


# State-space layers


def jamba(keys: Keys) -> Fields:
    """Mamba layers with one of attention in every `attn_layer_period`, experts in every `expert_layer_period`."""
    inner, rank = keys["mamba_expand"] * keys["hidden_size"], keys["mamba_dt_rank"]
    sparse = [there and keys.size("num_experts") > 1 for there in _by_period(keys, "expert")]
    return {
        "mamba_layers": keys.layers - sum(_by_period(keys, "attn")),
        "mamba_inner": inner,
        "mamba_state": keys["mamba_d_state"],
        "mamba_rank": -(-keys["hidden_size"] // 16) if rank == "auto" else rank,
        "mamba_kernel": keys["mamba_d_conv"],
        "mamba_bias": keys["mamba_proj_bias"],
        "mamba_kernel_bias": keys["mamba_conv_bias"],
        "mamba_norms": True,
        **_routed(keys, keys.size("intermediate_size"), sparse),
    }


def _by_period(keys: Keys, what: str) -> list[bool]:
    """Whether each layer is the one of its period that has attention or experts."""
    period, offset = keys[f"{what}_layer_period"], keys[f"{what}_layer_offset"]
    if offset >= period:
        raise keys.wrong(f"{what}_layer_offset", f"a whole number below {what}_layer_period={period}")
    return [i % period == offset for i in range(keys.layers)]


def _mamba2(keys: Keys, heads: str, width: str | None, state: str) -> Fields:
    """State-space sizes; without the key of a head's width, heads share what `mamba_expand` gives."""
    inner = keys[heads] * keys[width] if width else keys["mamba_expand"] * keys["hidden_size"]
    return {
        "mamba_inner": inner,
        "mamba_state": keys[state],
        "mamba_heads": keys[heads],
        "mamba_groups": keys["mamba_n_groups"],
        "mamba_kernel": keys["mamba_d_conv"],
        "mamba_bias": keys["mamba_proj_bias"],
        "mamba_kernel_bias": keys["mamba_conv_bias"],
        "state_chunk": keys["mamba_chunk_size"],
    }


def granite_hybrid(keys: Keys) -> Fields:
    """Granite 4: Mamba-2 layers among those of attention, experts beside one MLP for all tokens, or that alone."""
    kinds = keys.kinds("layer_types", "mamba", "linear_attention", "attention", "full_attention")
    mamba = keys.layers if kinds is None else sum(kind in ("mamba", "linear_attention") for kind in kinds)
    sizes = {"mamba_layers": mamba, **(_mamba2(keys, "mamba_n_heads", None, "mamba_d_state") if mamba else {})}
    if not keys["num_experts"]:
        return {**sizes, "d_ff": keys.size("shared_intermediate_size")}
    return {**sizes, **shared_width(keys)}


_BLOCKS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_SAME = {"linear_attention": "mamba", "full_attention": "attention"}


def nemotron_h(keys: Keys) -> Fields:
    """Nemotron-H and Nemotron 3: each layer is one of Mamba-2, attention, MLP or experts, behind one norm."""
    if "hybrid_override_pattern" in keys and "layer_types" not in keys:
        keys = keys.having(layer_types=_spelled(keys, "hybrid_override_pattern", _BLOCKS))
    kinds = keys["layer_types"]
    if kinds is None:
        raise InputError(f"{keys.owner}: no key 'layers_block_type' or 'hybrid_override_pattern'; add it to the config")
    keys = keys.having(num_hidden_layers=len(kinds))
    kinds = keys.kinds("layer_types", *_BLOCKS.values(), *_SAME) or []
    count = Counter(_SAME.get(kind, kind) for kind in kinds)
    fields = {
        "layers": len(kinds),
        "mamba_layers": count["mamba"],
        "mixerless_layers": count["mlp"] + count["moe"],
        "ffnless_layers": count["mamba"] + count["attention"],
        "dense_layers": len(kinds) - count["moe"],
    }
    mamba = _mamba2(keys, "mamba_num_heads", "mamba_head_dim", "ssm_state_size") if count["mamba"] else {}
    fields |= {**mamba, "mamba_bias": keys["use_bias"]}
    fields |= {"d_ff": keys.size("intermediate_size")} if count["mlp"] else {}
    return fields | (_nemotron_experts(keys) if count["moe"] else {})


def _nemotron_experts(keys: Keys) -> Fields:
    return {
        "experts": keys.size("num_experts"),
        "active_experts": keys.size("num_experts_per_tok"),
        "d_expert": keys.size("moe_intermediate_size"),
        "shared_experts": 1,
        "d_shared": keys["moe_shared_expert_intermediate_size"],
        "expert_latent": keys["moe_latent_size"],
        "latent_bias": keys["mlp_bias"],
    }


# Feed-forward


def dense(keys: Keys) -> Fields:
    """One gated feed-forward layer for all tokens."""
    return {"d_ff": keys.size("intermediate_size"), "mlp_bias": keys["mlp_bias"]}


def _routed(keys: Keys, width: int, sparse: Sequence[bool], **more: Any) -> Fields:
    """Experts in the layers that are `sparse`, one feed-forward layer in the others."""
    fields: Fields = {"dense_layers": len(sparse) - sum(sparse)}
    if any(sparse):
        fields |= {"experts": keys.size("num_experts"), "active_experts": keys.size("num_experts_per_tok")}
        fields |= {"d_expert": width, **more}
    return fields | ({} if all(sparse) else {"d_ff": keys.size("intermediate_size")})


def everywhere(keys: Keys) -> Fields:
    """Experts of width `intermediate_size` in every layer."""
    return _routed(keys, keys.size("intermediate_size"), [True] * keys.layers)


def shared_width(keys: Keys) -> Fields:
    """The same beside one MLP for all tokens of width `shared_intermediate_size`, if there is any (Granite)."""
    width = keys["shared_intermediate_size"]
    return {**everywhere(keys), "shared_experts": int(width > 0), "d_shared": width}


def stepped(keys: Keys, **more: Any) -> Fields:
    """Qwen: experts in every `decoder_sparse_step`-th layer but those in `mlp_only_layers`."""
    step, dense = keys["decoder_sparse_step"], keys.indices("mlp_only_layers")
    sparse = [i not in dense and (i + 1) % step == 0 and keys["num_experts"] > 0 for i in range(keys.layers)]
    return _routed(keys, keys.size("moe_intermediate_size") if any(sparse) else 0, sparse, **more)


def qwen_shared(keys: Keys) -> Fields:
    """The same beside one gated shared expert."""
    width = keys["shared_expert_intermediate_size"]
    return stepped(keys, shared_experts=1, d_shared=width, shared_gate=True)


def behind_dense(keys: Keys) -> Fields:
    """DeepSeek: experts in every `moe_layer_freq`-th layer behind the first `first_k_dense_replace`, or as listed."""
    if not keys["num_experts"]:
        return {"d_ff": keys.size("intermediate_size"), "dense_layers": keys.layers}
    sparse = _sparse(keys)
    more = {"shared_experts": keys["n_shared_experts"]} if any(sparse) else {}
    fields = _routed(keys, keys.size("moe_intermediate_size"), sparse, **more)
    return {**fields, "mtp_layers": keys["num_nextn_predict_layers"]}


def _sparse(keys: Keys) -> list[bool]:
    kinds = keys.kinds("mlp_layer_types", "dense", "sparse")
    if kinds is not None:
        return [kind == "sparse" for kind in kinds]
    every = keys["moe_layer_freq"]
    if isinstance(every, list | tuple):
        return [bool(flag) for flag in keys.each("moe_layer_freq")]
    first = keys["first_k_dense_replace"]
    return [i >= first and i % every == 0 for i in range(keys.layers)]


def interleaved(keys: Keys) -> Fields:
    """Llama 4: experts in every `interleave_moe_layer_step`-th layer or those in `moe_layers`, with one shared."""
    every = keys["interleave_moe_layer_step"]
    listed = keys.indices("moe_layers") if keys["moe_layers"] is not None else None
    sparse = [(i + 1) % every == 0 if listed is None else i in listed for i in range(keys.layers)]
    fields = _routed(keys, keys.size("intermediate_size"), sparse, shared_experts=1, every_expert=True)
    return fields | ({} if all(sparse) else {"d_ff": keys["intermediate_size_mlp"]})


def ernie(keys: Keys) -> Fields:
    """ERNIE 4.5: experts in every `moe_layer_interval`-th layer from a first to a last one."""
    first, last, every = (keys[f"moe_layer_{name}"] for name in ("start_index", "end_index", "interval"))
    last = keys.layers - 1 if last == -1 else last
    sparse = [first <= i <= last and (i + 1) % every == 0 for i in range(keys.layers)]
    fields = _routed(keys, keys.size("moe_intermediate_size"), sparse, shared_experts=keys["n_shared_experts"])
    return {**fields, **one_bias(keys), "head_bias": keys["use_bias"]}


def one_bias(keys: Keys) -> Fields:
    """One switch for all biases of attention and feed-forward."""
    biased = keys["use_bias"]
    return {"qkv_bias": biased, "out_bias": biased, "mlp_bias": biased}


def hunyuan(keys: Keys) -> Fields:
    """Hunyuan: experts of `intermediate_size` in every layer, as many acting as `moe_topk` lists, one shared MLP."""
    rows = zip(*(keys.each(name) for name in ("intermediate_size", "num_experts_per_tok")), strict=True)
    experts = keys.size("num_experts")
    return {
        "experts": experts,
        "shared_experts": 1,
        "each": [{"d_expert": width, "active_experts": active, "d_shared": width} for width, active in rows],
    }


def longcat(keys: Keys) -> Fields:
    """LongCat-Flash: each of `num_layers` holds attention and an MLP twice and experts once, some of which do nothing.

    The experts count with the first MLP, which thereby is a shared expert.
    """
    layers, width = 2 * keys["num_layers"], keys.size("intermediate_size")
    return {
        "layers": layers,
        "dense_layers": layers // 2,
        "d_ff": width,
        "experts": keys.size("num_experts"),
        "zero_experts": keys["zero_expert_num"],
        "active_experts": keys.size("num_experts_per_tok"),
        "d_expert": keys.size("moe_intermediate_size"),
        "shared_experts": 1,
        "d_shared": width,
        "router_bias": keys["router_bias"],
    }


def gpt2(keys: Keys) -> Fields:
    """GPT-2: learned positions, biases everywhere, four times as wide an MLP unless `n_inner` says otherwise."""
    return {"learned_positions": keys["n_positions"], "d_ff": keys["n_inner"] or 4 * keys["hidden_size"]}


def out_bias(keys: Keys) -> Fields:
    """A switch of its own for the bias of the output projection."""
    return {"out_bias": keys["attention_out_bias"]}


def head_bias(keys: Keys) -> Fields:
    """A bias on the logits."""
    return {"head_bias": keys["lm_head_bias"]}


def gemma3n(keys: Keys) -> Fields:
    """Gemma 3n: several streams, keys and values of earlier layers in the last ones, an MLP width for each layer."""
    local = _of_kind(keys, "sliding_attention", but_every(5))
    shared = keys.layers - keys["num_kv_shared_layers"]
    rows = zip(local, keys.each("intermediate_size"), strict=True)
    return {
        **_layer_embedding(keys),
        "altup_inputs": keys["altup_num_inputs"],
        "laurel_rank": keys["laurel_rank"],
        "each": [
            {"local_layers": int(near), "kv_projections": 0 if i >= shared else 2, "d_ff": width}
            for i, (near, width) in enumerate(rows)
        ],
    }


def _layer_embedding(keys: Keys) -> Fields:
    width = keys["hidden_size_per_layer_input"]
    return {
        "window": keys["sliding_window"],
        "layer_embedding": width,
        "layer_vocabulary": keys["vocab_size_per_layer_input"],
        "block_norms": 4 + bool(width),
    }


def gemma4(keys: Keys) -> Fields:
    """Gemma 4: wider heads in the layers that see everything, keys and values of earlier layers in the last ones."""
    local = _of_kind(keys, "sliding_attention", but_every(6))
    local[-1] = False
    shared = keys.layers - keys["num_kv_shared_layers"]
    each = [_gemma4_layer(keys, near, i >= shared) for i, near in enumerate(local)]
    fields = {**_layer_embedding(keys), "each": each}
    return fields | (_gemma4_experts(keys) if keys["enable_moe_block"] else {})


def _gemma4_layer(keys: Keys, local: bool, shared: bool) -> Fields:
    width = keys.size("intermediate_size") * (2 if shared and keys["use_double_wide_mlp"] else 1)
    same = keys["attention_k_eq_v"] and not local
    kv = keys["num_global_key_value_heads"] if same else 0
    return {
        "local_layers": int(local),
        "head_dim": keys["head_dim"] if local or keys.content.get("per_layer_config") else keys["global_head_dim"],
        "kv_heads": kv or keys["num_key_value_heads"],
        "kv_projections": 0 if shared else 1 if same else 2,
        "d_ff": width,
        "d_shared": width if keys["enable_moe_block"] else 0,
    }


def _gemma4_experts(keys: Keys) -> Fields:
    """Experts beside the MLP, which thereby is a shared expert, with three more norms."""
    return {
        "experts": keys.size("num_experts"),
        "active_experts": keys.size("num_experts_per_tok"),
        "d_expert": keys.size("moe_intermediate_size"),
        "shared_experts": 1,
        "router_scales": True,
        "block_norms": 7 + bool(keys["hidden_size_per_layer_input"]),
    }


def switch(keys: Keys) -> Fields:
    """Switch Transformer: T5 encoder and decoder, top-1 routing, two matrices per feed-forward layer."""
    encoder = keys["num_layers"]
    decoder = keys["num_decoder_layers"] or encoder
    stacks = ((encoder, keys["num_sparse_encoder_layers"]), (decoder, keys["num_sparse_decoder_layers"]))
    sparse = sum(_switched(*stack) for stack in stacks)
    return {
        "layers": encoder + decoder,
        "encoder_layers": encoder,
        "head_dim": keys["d_kv"],
        "d_ff": keys["d_ff"],
        "gated": False,
        "dense_layers": encoder + decoder - sparse,
        "experts": keys.size("num_experts"),
        "active_experts": 1,
        "d_expert": keys["d_ff"],
        "router_bias": keys["router_bias"],
        "relative_buckets": keys["relative_attention_num_buckets"],
    }


def _switched(layers: int, sparse: int) -> int:
    """Layers with experts, as the modules place them: index 1 modulo the step, or all if the step is 1."""
    step = layers // sparse if sparse > 0 else layers
    return sum(i % step == 1 or step == 1 for i in range(layers)) if step > 0 else 0
