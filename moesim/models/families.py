"""The families of Hugging Face models: which keys of their `config.json` say what, and what is always so.

A row of FAMILIES names readers, each from the keys to some fields of a Transformer, then fields that no key says, and
the defaults of keys that published configs of the family leave out (those of its `transformers` class).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from moesim.errors import InputError
from moesim.models.keys import Keys

Fields = dict[str, Any]
Reader = Callable[[Keys], Fields]
Rule = Callable[[Keys, int], bool]  # whether the layer at an index is of a kind


class Family(NamedTuple):
    """How a family is read: `readers` in turn, later fields win; `always`: fields whatever the keys say.

    `names`: what the family calls a key where that differs; `defaults`: what keys mean that it leaves out.
    """

    readers: tuple[Reader, ...]
    always: Fields
    names: Mapping[str, str]
    defaults: Mapping[str, Any]


_NO_NAMES: Mapping[str, str] = {}


def _family(
    *readers: Reader, always: Fields | None = None, names: Mapping[str, str] = _NO_NAMES, **defaults: Any
) -> Family:
    return Family((_common, *readers), always or {}, names, defaults)


def _common(keys: Keys) -> Fields:
    return {
        "layers": keys.layers,
        "d_model": keys["hidden_size"],
        "heads": keys["num_attention_heads"],
        "vocabulary": keys["vocab_size"],
        "tied": keys["tie_word_embeddings"],
    }


# Attention


def _grouped(keys: Keys) -> Fields:
    """Grouped-query attention with one switch for the biases of all four projections."""
    biased = keys["attention_bias"]
    sizes = {"kv_heads": keys["num_key_value_heads"], "head_dim": keys["head_dim"]}
    return {**sizes, "qkv_bias": biased, "out_bias": biased}


def _latent(keys: Keys) -> Fields:
    return {
        "q_rank": keys["q_lora_rank"],
        "kv_rank": keys["kv_lora_rank"],
        "nope_dim": keys["qk_nope_head_dim"],
        "rope_dim": keys["qk_rope_head_dim"],
        "value_dim": keys["v_head_dim"],
        "qkv_bias": keys["attention_bias"],
    }


def _indexed(keys: Keys) -> Fields:
    """An indexer in every layer, or in those that do not share the choice of the one before."""
    kinds = keys.kinds("indexer_types", "full", "shared") or _index_pattern(keys)
    sizes = {"indexer_heads": keys["index_n_heads"], "indexer_dim": keys["index_head_dim"]}
    none = dict.fromkeys(sizes, 0)
    return {"indexer_keys": keys["index_topk"], "each": [sizes if kind == "full" else none for kind in kinds]}


def _index_pattern(keys: Keys) -> list[str]:
    pattern, letters = keys["index_topk_pattern"], {"F": "full", "S": "shared"}
    if pattern is not None:
        kinds = [letters.get(kind, kind) for kind in pattern]
        return keys.having(indexer_types=kinds).kinds("indexer_types", "full", "shared") or []
    offset, every = keys["index_skip_topk_offset"], keys["index_topk_freq"]
    return ["shared" if max(i - offset + 1, 0) % every else "full" for i in range(keys.layers)]


def _head_norm(keys: Keys) -> Fields:
    return {"qk_norm": "head" if keys["use_qk_norm"] else "none"}


def _of_kind(keys: Keys, kind: str, rule: Rule) -> list[bool]:
    """Whether each layer is of a kind: by `layer_types`, else by the rule."""
    kinds = keys.kinds("layer_types", kind, "full_attention")
    return [rule(keys, i) for i in range(keys.layers)] if kinds is None else [name == kind for name in kinds]


def _windowed(rule: Rule) -> Reader:
    """A sliding window in the layers that the rule names, where the config has no `layer_types`."""

    def read(keys: Keys) -> Fields:
        window = keys["sliding_window"]
        local = sum(_of_kind(keys, "sliding_attention", rule))
        return {"window": window, "local_layers": local if window else 0}

    return read


def _always(keys: Keys, index: int) -> bool:
    return True


def _but_every(number: int) -> Rule:
    return lambda keys, index: bool((index + 1) % number)


def _by_pattern(keys: Keys, index: int) -> bool:
    return bool((index + 1) % keys.size("sliding_window_pattern"))


def _switched_on(rule: Rule) -> Rule:
    return lambda keys, index: keys["use_sliding_window"] and rule(keys, index)


def _behind(keys: Keys, index: int) -> bool:
    return index >= keys["max_window_layers"]


def _odd_before(keys: Keys, index: int) -> bool:
    return index % 2 == 0 and index < keys["max_window_layers"]


def _without_rope(keys: Keys, index: int) -> bool:
    rope = keys["no_rope_layers"]
    return not (rope[index] if rope else (index + 1) % keys["no_rope_layer_interval"])


def _chunked(keys: Keys) -> Fields:
    """Llama 4: chunks in the layers with rotary positions."""
    chunk = keys["attention_chunk_size"]
    local = sum(_of_kind(keys, "chunked_attention", lambda keys, i: not _without_rope(keys, i)))
    return {"chunk": chunk, "local_layers": local if chunk else 0}


def _linear(keys: Keys) -> Fields:
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


def _jamba(keys: Keys) -> Fields:
    """Mamba layers with one of attention in every `attn_layer_period`, experts in every `expert_layer_period`."""
    period, offset = keys["attn_layer_period"], keys["attn_layer_offset"]
    inner, rank = keys["mamba_expand"] * keys["hidden_size"], keys["mamba_dt_rank"]
    return {
        "mamba_layers": sum(i % period != offset for i in range(keys.layers)),
        "mamba_inner": inner,
        "mamba_state": keys["mamba_d_state"],
        "mamba_rank": -(-keys["hidden_size"] // 16) if rank == "auto" else rank,
        "mamba_kernel": keys["mamba_d_conv"],
        "mamba_bias": keys["mamba_proj_bias"],
        "mamba_kernel_bias": keys["mamba_conv_bias"],
        "mamba_norms": True,
        **_routed(keys, keys.size("intermediate_size"), _by_period(keys)),
    }


def _by_period(keys: Keys) -> list[bool]:
    period, offset = keys["expert_layer_period"], keys["expert_layer_offset"]
    return [i % period == offset and keys.size("num_experts") > 1 for i in range(keys.layers)]


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


def _granite_hybrid(keys: Keys) -> Fields:
    """Granite 4: Mamba-2 layers among those of attention, experts beside one MLP for all tokens, or that alone."""
    kinds = keys.kinds("layer_types", "mamba", "linear_attention", "attention", "full_attention")
    mamba = keys.layers if kinds is None else sum(kind in ("mamba", "linear_attention") for kind in kinds)
    sizes = {"mamba_layers": mamba, **(_mamba2(keys, "mamba_n_heads", None, "mamba_d_state") if mamba else {})}
    if not keys["num_experts"]:
        return {**sizes, "d_ff": keys.size("shared_intermediate_size")}
    return {**sizes, **_shared_width(keys)}


_BLOCKS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_SAME = {"linear_attention": "mamba", "full_attention": "attention"}


def _nemotron_h(keys: Keys) -> Fields:
    """Nemotron-H and Nemotron 3: each layer is one of Mamba-2, attention, MLP or experts, behind one norm."""
    pattern = keys["hybrid_override_pattern"]
    if pattern is not None and "layer_types" not in keys:
        keys = keys.having(layer_types=[_BLOCKS.get(letter, letter) for letter in pattern])
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


def _dense(keys: Keys) -> Fields:
    return {"d_ff": keys.size("intermediate_size"), "mlp_bias": keys["mlp_bias"]}


def _routed(keys: Keys, width: int, sparse: Sequence[bool], **more: Any) -> Fields:
    """Experts in the layers that are `sparse`, one feed-forward layer in the others."""
    fields: Fields = {"dense_layers": len(sparse) - sum(sparse)}
    if any(sparse):
        fields |= {"experts": keys.size("num_experts"), "active_experts": keys.size("num_experts_per_tok")}
        fields |= {"d_expert": width, **more}
    return fields | ({} if all(sparse) else {"d_ff": keys.size("intermediate_size")})


def _everywhere(keys: Keys) -> Fields:
    """Experts of width `intermediate_size` in every layer."""
    return _routed(keys, keys.size("intermediate_size"), [True] * keys.layers)


def _shared_width(keys: Keys) -> Fields:
    """The same beside one MLP for all tokens of width `shared_intermediate_size`, if there is any (Granite)."""
    width = keys["shared_intermediate_size"]
    return {**_everywhere(keys), "shared_experts": int(width > 0), "d_shared": width}


def _stepped(keys: Keys, **more: Any) -> Fields:
    """Qwen: experts in every `decoder_sparse_step`-th layer but those in `mlp_only_layers`."""
    step, dense = keys["decoder_sparse_step"], keys.indices("mlp_only_layers")
    sparse = [i not in dense and (i + 1) % step == 0 and keys["num_experts"] > 0 for i in range(keys.layers)]
    return _routed(keys, keys.size("moe_intermediate_size") if any(sparse) else 0, sparse, **more)


def _qwen_shared(keys: Keys) -> Fields:
    """The same beside one gated shared expert."""
    width = keys["shared_expert_intermediate_size"]
    return _stepped(keys, shared_experts=1, d_shared=width, shared_gate=True)


def _behind_dense(keys: Keys) -> Fields:
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


def _interleaved(keys: Keys) -> Fields:
    """Llama 4: experts in every `interleave_moe_layer_step`-th layer or those in `moe_layers`, with one shared."""
    every = keys["interleave_moe_layer_step"]
    listed = keys.indices("moe_layers") if keys["moe_layers"] is not None else None
    sparse = [(i + 1) % every == 0 if listed is None else i in listed for i in range(keys.layers)]
    fields = _routed(keys, keys.size("intermediate_size"), sparse, shared_experts=1, every_expert=True)
    return fields | ({} if all(sparse) else {"d_ff": keys["intermediate_size_mlp"]})


def _ernie(keys: Keys) -> Fields:
    """ERNIE 4.5: experts in every `moe_layer_interval`-th layer from a first to a last one."""
    first, last, every = (keys[f"moe_layer_{name}"] for name in ("start_index", "end_index", "interval"))
    last = keys.layers - 1 if last == -1 else last
    sparse = [first <= i <= last and (i + 1) % every == 0 for i in range(keys.layers)]
    fields = _routed(keys, keys.size("moe_intermediate_size"), sparse, shared_experts=keys["n_shared_experts"])
    return {**fields, **_one_bias(keys), "head_bias": keys["use_bias"]}


def _one_bias(keys: Keys) -> Fields:
    """One switch for all biases of attention and feed-forward."""
    biased = keys["use_bias"]
    return {"qkv_bias": biased, "out_bias": biased, "mlp_bias": biased}


def _hunyuan(keys: Keys) -> Fields:
    """Hunyuan: experts of `intermediate_size` in every layer, as many acting as `moe_topk` lists, one shared MLP."""
    rows = zip(*(keys.each(name) for name in ("intermediate_size", "num_experts_per_tok")), strict=True)
    experts = keys.size("num_experts")
    return {
        "experts": experts,
        "shared_experts": 1,
        "each": [{"d_expert": width, "active_experts": active, "d_shared": width} for width, active in rows],
    }


def _longcat(keys: Keys) -> Fields:
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


def _gpt2(keys: Keys) -> Fields:
    """GPT-2: learned positions, biases everywhere, four times as wide an MLP unless `n_inner` says otherwise."""
    return {"learned_positions": keys["n_positions"], "d_ff": keys["n_inner"] or 4 * keys["hidden_size"]}


def _out_bias(keys: Keys) -> Fields:
    return {"out_bias": keys["attention_out_bias"]}


def _head_bias(keys: Keys) -> Fields:
    return {"head_bias": keys["lm_head_bias"]}


def _gemma4(keys: Keys) -> Fields:
    """Gemma 4: wider heads in the layers that see everything, keys and values of earlier layers in the last ones."""
    local = _of_kind(keys, "sliding_attention", _but_every(6))
    local[-1] = False
    shared = keys.layers - keys["num_kv_shared_layers"]
    fields = {
        "window": keys["sliding_window"],
        "layer_embedding": keys["hidden_size_per_layer_input"],
        "layer_vocabulary": keys["vocab_size_per_layer_input"],
        "block_norms": 4 + bool(keys["hidden_size_per_layer_input"]),
        "each": [_gemma4_layer(keys, near, i >= shared) for i, near in enumerate(local)],
    }
    return fields | (_gemma4_experts(keys) if keys["enable_moe_block"] else {})


def _gemma4_layer(keys: Keys, local: bool, shared: bool) -> Fields:
    width = keys.size("intermediate_size") * (2 if shared and keys["use_double_wide_mlp"] else 1)
    same = keys["attention_k_eq_v"] and not local
    kv = keys["num_global_key_value_heads"] if same else 0
    return {
        "local_layers": int(local),
        "head_dim": keys["head_dim"] if local else keys["global_head_dim"],
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


def _switch(keys: Keys) -> Fields:
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


_UNBIASED: Fields = {"qkv_bias": False, "out_bias": False}
_TWO_MATRICES: Fields = {"gated": False}
_LAYER_NORM: Fields = {"norm_bias": True}
_HEADS: Mapping[str, Any] = {"num_key_value_heads": 0}  # left out: as many as heads
_GEMMA3: Mapping[str, Any] = {  # sizes that published configs leave to the class
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_V3: Fields = {"selection_bias": True}

FAMILIES: dict[str, Family] = {
    "llama": _family(_grouped, _dense, **_HEADS),
    "llama4": _family(_grouped, _interleaved, _chunked, head_dim=128, attention_chunk_size=8192),
    "mixtral": _family(_grouped, _everywhere, _windowed(_always), always=_UNBIASED),
    "qwen3": _family(
        _grouped, _dense, _windowed(_switched_on(_behind)), always={"qk_norm": "head", "mlp_bias": False}, head_dim=128
    ),
    "qwen3_moe": _family(_grouped, _stepped, _windowed(_switched_on(_always)), always={"qk_norm": "head"}),
    "qwen3_next": _family(
        _grouped,
        _linear,
        _qwen_shared,
        always={"qk_norm": "head", "attention_gate": True, "state_chunk": 64},
        head_dim=256,
    ),
    "olmoe": _family(_grouped, _everywhere, always={"head_dim": 0, "qk_norm": "width"}, **_HEADS),
    "deepseek_v2": _family(_latent, _behind_dense, lambda keys: {"mlp_bias": keys["mlp_bias"]}),
    "deepseek_v3": _family(_latent, _behind_dense, always=_V3),
    "glm4_moe": _family(_grouped, _behind_dense, _head_norm, always={"out_bias": False, **_V3}),
    "gpt_oss": _family(
        _grouped,
        _everywhere,
        _windowed(lambda keys, i: i % 2 == 0),
        always={"sinks": True, "expert_bias": True, "router_bias": True},
        head_dim=64,
        attention_bias=True,
        sliding_window=128,
    ),
    "switch_transformers": _family(
        _switch,
        names={"num_hidden_layers": "num_layers", "hidden_size": "d_model", "num_attention_heads": "num_heads"},
        tie_word_embeddings=True,
    ),
    "arcee": _family(_grouped, _dense, always=_TWO_MATRICES, **_HEADS),
    "cohere": _family(
        _grouped,
        _dense,
        lambda keys: {"qk_norm": "width" if keys["use_qk_norm"] else "none"},
        always={"block_norms": 1, "mlp_bias": False},
        tie_word_embeddings=True,
        **_HEADS,
    ),
    "cohere2": _family(
        _grouped,
        _dense,
        _windowed(_by_pattern),
        always={"block_norms": 1, "mlp_bias": False},
        tie_word_embeddings=True,
        sliding_window=4096,
        sliding_window_pattern=4,
        **_HEADS,
    ),
    "dbrx": _family(
        _grouped,
        _everywhere,
        always=_UNBIASED,
        names={
            "num_hidden_layers": "n_layers",
            "hidden_size": "d_model",
            "num_attention_heads": "n_heads",
            "num_key_value_heads": "attn_config",
            "intermediate_size": "ffn_config",
            "num_experts": "ffn_config",
            "num_experts_per_tok": "ffn_config",
        },
    ),
    "deepseek": _family(_grouped, _behind_dense, always={"mlp_bias": False}, **_HEADS),
    "deepseek_v32": _family(_latent, _indexed, _behind_dense, always=_V3),
    "dots1": _family(_grouped, _behind_dense, always={"qk_norm": "head", **_V3}),
    "ernie4_5": _family(_grouped, _dense, _one_bias, tie_word_embeddings=True, head_dim=128, **_HEADS),
    "ernie4_5_moe": _family(_grouped, _ernie, always=_V3, tie_word_embeddings=True, moe_layer_start_index=1, **_HEADS),
    "flex_olmo": _family(_grouped, _everywhere, always={"head_dim": 0, "qk_norm": "width"}, **_HEADS),
    "gemma": _family(_grouped, _dense, always={"mlp_bias": False}, tie_word_embeddings=True, head_dim=256),
    "gemma2": _family(
        _grouped,
        _dense,
        _windowed(_but_every(2)),
        always={"mlp_bias": False, "block_norms": 4},
        tie_word_embeddings=True,
        head_dim=256,
        sliding_window=4096,
    ),
    "gemma3_text": _family(
        _grouped,
        _dense,
        _windowed(_by_pattern),
        always={"mlp_bias": False, "qk_norm": "head", "block_norms": 4},
        **_GEMMA3,
    ),
    "gemma4_text": _family(
        _grouped,
        _gemma4,
        always={"qk_norm": "head"},
        tie_word_embeddings=True,
        head_dim=256,
        global_head_dim=512,
        sliding_window=512,
        hidden_size_per_layer_input=256,
    ),
    "glm": _family(_grouped, _dense, always={"out_bias": False, "mlp_bias": False}, attention_bias=True, head_dim=128),
    "glm4": _family(
        _grouped,
        _dense,
        always={"out_bias": False, "mlp_bias": False, "block_norms": 4},
        attention_bias=True,
        head_dim=128,
    ),
    "glm4_moe_lite": _family(_latent, _behind_dense, always=_V3, first_k_dense_replace=1),
    "glm_moe_dsa": _family(_latent, _indexed, _behind_dense, always=_V3, first_k_dense_replace=3),
    "gpt2": _family(
        _gpt2,
        always={"qkv_bias": True, "out_bias": True, "mlp_bias": True, **_TWO_MATRICES, **_LAYER_NORM},
        names={"num_hidden_layers": "n_layer", "hidden_size": "n_embd", "num_attention_heads": "n_head"},
        tie_word_embeddings=True,
    ),
    "gpt_neox": _family(
        _grouped, _dense, always={"mlp_bias": True, **_TWO_MATRICES, **_LAYER_NORM}, attention_bias=True, **_HEADS
    ),
    "granite": _family(_grouped, _dense, **_HEADS),
    "granitemoe": _family(_grouped, _everywhere, always={"head_dim": 0}, **_HEADS),
    "granitemoeshared": _family(_grouped, _shared_width, always={"head_dim": 0}, **_HEADS),
    "granitemoehybrid": _family(_grouped, _granite_hybrid, always={"head_dim": 0}, **_HEADS, mamba_d_state=256),
    "hunyuan_v1_dense": _family(_grouped, _dense, always={"qk_norm": "head", "mlp_bias": False}, **_HEADS),
    "hunyuan_v1_moe": _family(_grouped, _hunyuan, always={"qk_norm": "head"}, **_HEADS),
    "jamba": _family(_grouped, _jamba, always=_UNBIASED),
    "longcat_flash": _family(_latent, _longcat, always=_V3),
    "minimax_m2": _family(_grouped, _everywhere, always={"qk_norm": "width", **_UNBIASED, **_V3}),
    "ministral": _family(_grouped, _dense, _windowed(_always), always=_UNBIASED, sliding_window=4096),
    "ministral3": _family(_grouped, _dense, _windowed(_always), always=_UNBIASED),
    "mistral": _family(_grouped, _dense, _windowed(_always), always=_UNBIASED, sliding_window=4096),
    "nemotron": _family(_grouped, _dense, always={**_TWO_MATRICES, **_LAYER_NORM}, **_HEADS),
    "nemotron_h": _family(
        _grouped,
        lambda keys: {"mlp_bias": keys["mlp_bias"]},
        _nemotron_h,
        always={"gated": False, "block_norms": 1, **_UNBIASED, **_V3},
        mamba_n_groups=8,
        mamba_chunk_size=128,
        head_dim=128,
        num_hidden_layers=1,  # where it is left out the list of kinds says how many
    ),
    "olmo": _family(_grouped, _dense, always={"norm_gains": False, "mlp_bias": False}, **_HEADS),
    "olmo2": _family(_grouped, _dense, always={"qk_norm": "width", "mlp_bias": False}, **_HEADS),
    "olmo3": _family(
        _grouped,
        _dense,
        _windowed(_but_every(4)),
        always={"qk_norm": "width", "mlp_bias": False},
        sliding_window=4096,
        **_HEADS,
    ),
    "phi3": _family(_grouped, _dense, _windowed(_always), always={"mlp_bias": False, **_UNBIASED}, **_HEADS),
    "phimoe": _family(_grouped, _everywhere, _windowed(_always), _head_bias, always=_LAYER_NORM),
    "qwen2": _family(
        _grouped,
        _dense,
        _windowed(_switched_on(_behind)),
        always={"qkv_bias": True, "out_bias": False, "mlp_bias": False},
        sliding_window=4096,
        max_window_layers=28,
        **_HEADS,
    ),
    "qwen2_moe": _family(
        _grouped,
        _qwen_shared,
        _windowed(_switched_on(_odd_before)),
        lambda keys: {"qkv_bias": keys["qkv_bias"], "out_bias": False},
        qkv_bias=True,
        sliding_window=4096,
        max_window_layers=28,
        **_HEADS,
    ),
    "qwen3_5_text": _family(
        _grouped,
        _linear,
        _dense,
        always={"qk_norm": "head", "attention_gate": True, "state_chunk": 64, "mlp_bias": False},
        head_dim=256,
    ),
    "qwen3_5_moe_text": _family(
        _grouped,
        _linear,
        _qwen_shared,
        always={"qk_norm": "head", "attention_gate": True, "state_chunk": 64},
        head_dim=256,
    ),
    "seed_oss": _family(_grouped, _dense, _out_bias, attention_bias=True, head_dim=128),
    "smollm3": _family(
        _grouped,
        _dense,
        _windowed(_switched_on(_without_rope)),
        tie_word_embeddings=True,
    ),
    "solar_open": _family(_grouped, _behind_dense, always=_V3, head_dim=128, first_k_dense_replace=0),
    "starcoder2": _family(
        _grouped,
        _dense,
        _one_bias,
        _windowed(_always),
        always={**_TWO_MATRICES, **_LAYER_NORM},
        use_bias=True,
        tie_word_embeddings=True,
    ),
}
"""By `model_type`; the names below are read like one of these."""

_SAME_AS = {
    "llama4_text": "llama4",
    "kimi_k2": "deepseek_v3",
    "sarvam_mla": "deepseek_v3",
    "sarvam_moe": "glm4_moe",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "mistral3": "mistral",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
FAMILIES |= {name: FAMILIES[other] for name, other in _SAME_AS.items()}
