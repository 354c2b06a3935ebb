"""Reading a Hugging Face `config.json`: one function per model family, from its keys to the fields of a Transformer.

Keys that give a size must be there; switches that a family leaves out take the default of its `transformers` class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moesim.errors import InputError

Fields = dict[str, Any]
_ABSENT = object()


class Keys:
    """The keys of a config; `need` raises InputError that names the missing one."""

    def __init__(self, owner: str, content: Mapping[str, Any]):
        self.owner, self.content = owner, content

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the names that is there and not null, else the default."""
        return next((self.content[n] for n in names if self.content.get(n) is not None), default)

    def need(self, *names: str) -> Any:
        """The first of the names that is there; InputError if none is, or if it is null."""
        value = self.get(*names, default=_ABSENT)
        if value is _ABSENT:
            raise InputError(f"{self.owner}: no key {' or '.join(map(repr, names))}; add it to the config")
        return value

    def nullable(self, *names: str) -> Any:
        """A key that must be there by one of its names but may be null (then 0)."""
        if not any(name in self.content for name in names):
            raise InputError(f"{self.owner}: no key {' or '.join(map(repr, names))}; add it to the config")
        return self.get(*names, default=0)

    def optional(self, name: str, absent: Any) -> Any:
        """A key that means 0 if it is null, and `absent` if it is not there."""
        return self.content.get(name, absent) or 0

    def whole(self, *names: str) -> int:
        """A key that must hold a whole number above 0."""
        value = self.need(*names)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{self.owner}: {names[0]}={value!r}; it takes a whole number, 1 or more")
        return value


def description(config: str | Path | Mapping[str, Any]) -> Fields:
    """Fields of a Transformer from a config: the path of the file or its directory, or the content as a mapping."""
    content, place = (config, "") if isinstance(config, Mapping) else _load(Path(config))
    kind = content.get("model_type")
    if isinstance(content.get("text_config"), Mapping) and kind == "llama4":
        content = {**{k: content[k] for k in ("tie_word_embeddings",) if k in content}, **content["text_config"]}
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"config.json: unknown family model_type={kind!r}; there are {', '.join(FAMILIES)}")
    name = content.get("_name_or_path") or place or kind
    return {**FAMILIES[kind](Keys(f"config.json of {kind}", content)), "name": str(name)}


def _load(path: Path) -> tuple[Mapping[str, Any], str]:
    """The content, and the name of the directory it lies in."""
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"model: cannot read {str(file)!r} ({reason}); give the path of a config.json") from None
    except ValueError as error:
        raise InputError(f"model: {str(file)!r} is not JSON ({error}); give the path of a config.json") from None
    if not isinstance(content, Mapping):
        raise InputError(f"model: {str(file)!r} holds {type(content).__name__}, not a mapping of keys")
    return content, file.resolve().parent.name


def _common(keys: Keys) -> Fields:
    return {
        "layers": keys.whole("num_hidden_layers"),
        "d_model": keys.whole("hidden_size"),
        "heads": keys.whole("num_attention_heads"),
        "vocabulary": keys.whole("vocab_size"),
        "tied": keys.get("tie_word_embeddings", default=False),
    }


def _grouped(keys: Keys, head_dim: int = 0, bias: bool = False) -> Fields:
    """Grouped-query attention with one switch for the biases of all four projections."""
    biased = keys.get("attention_bias", default=bias)
    return {
        **_common(keys),
        "kv_heads": keys.nullable("num_key_value_heads"),
        "head_dim": keys.get("head_dim", default=head_dim),
        "qkv_bias": biased,
        "out_bias": biased,
    }


def _multi_head(keys: Keys) -> Keys:
    """The keys of a family that leaves out `num_key_value_heads` where there are as many as heads."""
    return Keys(keys.owner, {"num_key_value_heads": None, **keys.content})


def _routed(keys: Keys, width: str, *, shared: int = 0) -> Fields:
    return {
        "experts": keys.whole("num_local_experts", "num_experts", "n_routed_experts"),
        "active_experts": keys.whole("num_experts_per_tok"),
        "d_expert": keys.whole(width),
        "shared_experts": shared,
    }


def _types(keys: Keys, layers: int, name: str, rule: Callable[[int], bool]) -> int:
    """Layers of the named attention type: from `layer_types`, else those whose index fits the rule."""
    types: Sequence[str] | None = keys.get("layer_types")
    if types is None:
        return sum(rule(i) for i in range(layers))
    if len(types) != layers:
        raise InputError(f"{keys.owner}: layer_types has {len(types)} entries for num_hidden_layers={layers}")
    return list(types).count(name)


def llama(keys: Keys) -> Fields:
    """Llama 1 to 3 (LlamaForCausalLM)."""
    return {
        **_grouped(_multi_head(keys)),
        "d_ff": keys.whole("intermediate_size"),
        "mlp_bias": keys.get("mlp_bias", default=False),
    }


def mixtral(keys: Keys) -> Fields:
    """Mixtral: no biases; a sliding window, if given, in every layer."""
    fields, window = {**_grouped(keys), "qkv_bias": False, "out_bias": False}, keys.get("sliding_window", default=0)
    local = {"window": window, "local_layers": fields["layers"] if window else 0}
    return {**fields, **_routed(keys, "intermediate_size"), **local}


def qwen3(keys: Keys) -> Fields:
    """Dense Qwen3: a norm on each head of queries and keys; windows behind `max_window_layers` if switched on."""
    fields = _grouped(keys, head_dim=128)
    window = keys.get("sliding_window", default=0) if keys.get("use_sliding_window", default=False) else 0
    first = keys.get("max_window_layers", default=0)
    local = _types(keys, fields["layers"], "sliding_attention", lambda i: bool(window) and i >= first)
    return {
        **fields,
        "qk_norm": "head",
        "d_ff": keys.whole("intermediate_size"),
        "window": window,
        "local_layers": local if window else 0,
    }


def _qwen_experts(keys: Keys, layers: int, **routed: Any) -> Fields:
    """Experts in every `decoder_sparse_step`-th layer but those in `mlp_only_layers`."""
    step, dense = keys.get("decoder_sparse_step", default=1), set(keys.get("mlp_only_layers", default=()))
    count = keys.need("num_local_experts", "num_experts")
    sparse = sum(i not in dense and (i + 1) % step == 0 for i in range(layers)) if count else 0
    fields: Fields = {"dense_layers": layers - sparse}
    if sparse:
        fields |= {**_routed(keys, "moe_intermediate_size"), **routed}
    return fields | ({"d_ff": keys.whole("intermediate_size")} if sparse < layers else {})


def qwen3_moe(keys: Keys) -> Fields:
    """Qwen3-30B-A3B and -235B-A22B."""
    fields = _grouped(keys)
    window = keys.get("sliding_window", default=0) if keys.get("use_sliding_window", default=False) else 0
    local = {"window": window, "local_layers": fields["layers"] if window else 0}
    return {**fields, "qk_norm": "head", **_qwen_experts(keys, fields["layers"]), **local}


def qwen3_next(keys: Keys) -> Fields:
    """Qwen3-Next: three Gated DeltaNet layers to one of gated attention, one gated shared expert."""
    fields, interval = _grouped(keys, head_dim=256), keys.get("full_attention_interval", default=4)
    linear = _types(keys, fields["layers"], "linear_attention", lambda i: bool((i + 1) % interval))
    shared = {"shared_experts": 1, "d_shared": keys.need("shared_expert_intermediate_size"), "shared_gate": True}
    delta = {
        "linear_key_heads": keys.whole("linear_num_key_heads"),
        "linear_value_heads": keys.whole("linear_num_value_heads"),
        "linear_key_dim": keys.whole("linear_key_head_dim"),
        "linear_value_dim": keys.whole("linear_value_head_dim"),
        "linear_kernel": keys.get("linear_conv_kernel_dim", default=4),
    }
    attention = {"qk_norm": "head", "attention_gate": True, "linear_layers": linear}
    return {**fields, **attention, **_qwen_experts(keys, fields["layers"], **shared), **delta}


def olmoe(keys: Keys) -> Fields:
    """OLMoE: queries and keys normed over their full width; experts in every layer."""
    return {**_grouped(_multi_head(keys)), "head_dim": 0, "qk_norm": "width", **_routed(keys, "intermediate_size")}


def _latent(keys: Keys) -> Fields:
    return {
        **_common(keys),
        "q_rank": keys.nullable("q_lora_rank"),
        "kv_rank": keys.whole("kv_lora_rank"),
        "nope_dim": keys.whole("qk_nope_head_dim"),
        "rope_dim": keys.whole("qk_rope_head_dim"),
        "value_dim": keys.whole("v_head_dim"),
        "qkv_bias": keys.get("attention_bias", default=False),
    }


def _behind_dense(keys: Keys, layers: int) -> Fields:
    """Experts in every `moe_layer_freq`-th layer behind the first `first_k_dense_replace`."""
    if not keys.nullable("n_routed_experts", "num_local_experts"):
        return {"d_ff": keys.whole("intermediate_size"), "dense_layers": layers}
    first, every = keys.need("first_k_dense_replace"), keys.get("moe_layer_freq", default=1)
    sparse = sum(i >= first and i % every == 0 for i in range(layers))
    return {
        **_routed(keys, "moe_intermediate_size", shared=keys.nullable("n_shared_experts")),
        "d_ff": keys.whole("intermediate_size") if sparse < layers else 0,
        "dense_layers": layers - sparse,
        "mtp_layers": keys.get("num_nextn_predict_layers", "num_mtp_layers", default=0),
    }


def deepseek_v2(keys: Keys) -> Fields:
    """DeepSeek-V2 and -V2-Lite: latent attention, shared experts, no selection bias."""
    fields = _latent(keys)
    return {**fields, **_behind_dense(keys, fields["layers"]), "mlp_bias": keys.get("mlp_bias", default=False)}


def deepseek_v3(keys: Keys) -> Fields:
    """DeepSeek-V3, -R1 and Kimi-K2: as V2, with one selection bias per expert."""
    fields = _latent(keys)
    return {**fields, **_behind_dense(keys, fields["layers"]), "selection_bias": True}


def glm4_moe(keys: Keys) -> Fields:
    """GLM-4.5 and its relatives: grouped attention without output bias, DeepSeek-like experts."""
    fields = _grouped(keys)
    norm = "head" if keys.get("use_qk_norm", default=False) else "none"
    experts = _behind_dense(keys, fields["layers"])
    return {**fields, "out_bias": False, "qk_norm": norm, **experts, "selection_bias": True}


def gpt_oss(keys: Keys) -> Fields:
    """gpt-oss: attention sinks, biases everywhere, a sliding window in every second layer."""
    fields, window = _grouped(keys, head_dim=64, bias=True), keys.optional("sliding_window", 128)
    local = _types(keys, fields["layers"], "sliding_attention", lambda i: i % 2 == 0)
    return {
        **fields,
        "sinks": True,
        **_routed(keys, "intermediate_size"),
        "expert_bias": True,
        "router_bias": True,
        "window": window,
        "local_layers": local if window else 0,
    }


def llama4(keys: Keys) -> Fields:
    """The text part of Llama 4: chunked attention but in every fourth layer, one shared expert."""
    fields, every = _grouped(keys, head_dim=128), keys.get("interleave_moe_layer_step", default=1)
    layers, chunk = fields["layers"], keys.optional("attention_chunk_size", 8192)
    interval = keys.get("no_rope_layer_interval", default=4)
    rope = keys.get("no_rope_layers") or [(i + 1) % interval for i in range(layers)]
    sparse = len(keys.get("moe_layers", default=range(every - 1, layers, every)))
    local = _types(keys, layers, "chunked_attention", lambda i: bool(rope[i]))
    return {
        **fields,
        **_routed(keys, "intermediate_size", shared=1),
        "dense_layers": layers - sparse,
        "d_ff": keys.whole("intermediate_size_mlp") if sparse < layers else 0,
        "chunk": chunk,
        "local_layers": local if chunk else 0,
    }


def _switched(layers: int, sparse: int) -> int:
    """Layers with experts, as the modules place them: index 1 modulo the step, or all if the step is 1."""
    step = layers // sparse if sparse > 0 else layers
    return sum(i % step == 1 or step == 1 for i in range(layers)) if step > 0 else 0


def switch_transformers(keys: Keys) -> Fields:
    """Switch Transformer: T5 encoder and decoder, top-1 routing, two matrices per feed-forward layer."""
    encoder = keys.whole("num_layers")
    decoder = keys.get("num_decoder_layers", default=encoder)
    stacks = ((encoder, keys.need("num_sparse_encoder_layers")), (decoder, keys.need("num_sparse_decoder_layers")))
    sparse = sum(_switched(*stack) for stack in stacks)
    return {
        "layers": encoder + decoder,
        "encoder_layers": encoder,
        "d_model": keys.whole("d_model"),
        "heads": keys.whole("num_heads"),
        "head_dim": keys.whole("d_kv"),
        "vocabulary": keys.whole("vocab_size"),
        "d_ff": keys.whole("d_ff"),
        "gated": False,
        "dense_layers": encoder + decoder - sparse,
        "experts": keys.whole("num_experts"),
        "active_experts": 1,
        "d_expert": keys.whole("d_ff"),
        "router_bias": keys.get("router_bias", default=False),
        "relative_buckets": keys.get("relative_attention_num_buckets", default=32),
        "tied": keys.get("tie_word_embeddings", default=True),
    }


FAMILIES: Mapping[str, Callable[[Keys], Fields]] = {
    "llama": llama,
    "llama4": llama4,
    "llama4_text": llama4,
    "mixtral": mixtral,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "qwen3_next": qwen3_next,
    "olmoe": olmoe,
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "kimi_k2": deepseek_v3,
    "glm4_moe": glm4_moe,
    "gpt_oss": gpt_oss,
    "switch_transformers": switch_transformers,
}
