"""The families of Hugging Face models: which keys of their `config.json` say what, and what is always so.

A row of FAMILIES names readers, each from the keys to some fields of a Transformer, then fields that no key says, and
the defaults of keys that published configs of the family leave out (those of its `transformers` class).

Parameters and forward FLOPs of each are those of the modules of transformers 5.24.0, on random configs
(`tests/modules.py`). That version lacks `deepseek` and `kimi_k2` (remote code: the first is counted by its published
sizes, the second is a `deepseek_v3`), and gives 256 experts of `longcat_flash` that do nothing weights that nothing
reads; here they have none, as in the published 560B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from moesim.models import readers as read
from moesim.models.readers import Fields, Reader


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
    return Family((read.common, *readers), always or {}, names, defaults)


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
    "llama": _family(read.grouped, read.dense, **_HEADS),
    "llama4": _family(read.grouped, read.interleaved, read.chunked, head_dim=128, attention_chunk_size=8192),
    "mixtral": _family(read.grouped, read.everywhere, read.windowed(read.always), always=_UNBIASED),
    "qwen3": _family(
        read.grouped,
        read.dense,
        read.windowed(read.switched_on(read.behind)),
        always={"qk_norm": "head", "mlp_bias": False},
        head_dim=128,
    ),
    "qwen3_moe": _family(
        read.grouped, read.stepped, read.windowed(read.switched_on(read.always)), always={"qk_norm": "head"}
    ),
    "qwen3_next": _family(
        read.grouped,
        read.linear,
        read.qwen_shared,
        always={"qk_norm": "head", "attention_gate": True, "state_chunk": 64},
        head_dim=256,
    ),
    "olmoe": _family(read.grouped, read.everywhere, always={"head_dim": 0, "qk_norm": "width"}, **_HEADS),
    "deepseek_v2": _family(read.latent, read.behind_dense, lambda keys: {"mlp_bias": keys["mlp_bias"]}),
    "deepseek_v3": _family(read.latent, read.behind_dense, always=_V3),
    "glm4_moe": _family(read.grouped, read.behind_dense, read.head_norm, always={"out_bias": False, **_V3}),
    "gpt_oss": _family(
        read.grouped,
        read.everywhere,
        read.windowed(lambda keys, i: i % 2 == 0),
        always={"sinks": True, "expert_bias": True, "router_bias": True},
        head_dim=64,
        attention_bias=True,
        sliding_window=128,
    ),
    "switch_transformers": _family(
        read.switch,
        names={"num_hidden_layers": "num_layers", "hidden_size": "d_model", "num_attention_heads": "num_heads"},
        tie_word_embeddings=True,
    ),
    "arcee": _family(read.grouped, read.dense, always=_TWO_MATRICES, **_HEADS),
    "cohere": _family(
        read.grouped,
        read.dense,
        lambda keys: {"qk_norm": "width" if keys["use_qk_norm"] else "none"},
        always={"block_norms": 1, "mlp_bias": False},
        tie_word_embeddings=True,
        **_HEADS,
    ),
    "cohere2": _family(
        read.grouped,
        read.dense,
        read.windowed(read.by_pattern),
        always={"block_norms": 1, "mlp_bias": False},
        tie_word_embeddings=True,
        sliding_window=4096,
        sliding_window_pattern=4,
        **_HEADS,
    ),
    "dbrx": _family(
        read.grouped,
        read.everywhere,
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
    "deepseek": _family(read.grouped, read.behind_dense, always={"mlp_bias": False}, **_HEADS),
    "deepseek_v32": _family(read.latent, read.indexed, read.behind_dense, always=_V3),
    "dots1": _family(read.grouped, read.behind_dense, always={"qk_norm": "head", **_V3}),
    "ernie4_5": _family(read.grouped, read.dense, read.one_bias, tie_word_embeddings=True, head_dim=128, **_HEADS),
    "ernie4_5_moe": _family(
        read.grouped, read.ernie, always=_V3, tie_word_embeddings=True, moe_layer_start_index=1, **_HEADS
    ),
    "flex_olmo": _family(read.grouped, read.everywhere, always={"head_dim": 0, "qk_norm": "width"}, **_HEADS),
    "gemma": _family(read.grouped, read.dense, always={"mlp_bias": False}, tie_word_embeddings=True, head_dim=256),
    "gemma2": _family(
        read.grouped,
        read.dense,
        read.windowed(read.but_every(2)),
        always={"mlp_bias": False, "block_norms": 4},
        tie_word_embeddings=True,
        head_dim=256,
        sliding_window=4096,
    ),
    "gemma3_text": _family(
        read.grouped,
        read.dense,
        read.windowed(read.by_pattern),
        always={"mlp_bias": False, "qk_norm": "head", "block_norms": 4},
        **_GEMMA3,
    ),
    "gemma3n_text": _family(
        read.grouped,
        read.gemma3n,
        always={"qk_norm": "head"},
        tie_word_embeddings=True,
        head_dim=256,
        sliding_window=512,
        num_kv_shared_layers=15,
        hidden_size_per_layer_input=256,
    ),
    "gemma4_text": _family(
        read.grouped,
        read.gemma4,
        always={"qk_norm": "head"},
        tie_word_embeddings=True,
        head_dim=256,
        global_head_dim=512,
        sliding_window=512,
        hidden_size_per_layer_input=256,
    ),
    "glm": _family(
        read.grouped, read.dense, always={"out_bias": False, "mlp_bias": False}, attention_bias=True, head_dim=128
    ),
    "glm4": _family(
        read.grouped,
        read.dense,
        always={"out_bias": False, "mlp_bias": False, "block_norms": 4},
        attention_bias=True,
        head_dim=128,
    ),
    "glm4_moe_lite": _family(read.latent, read.behind_dense, always=_V3, first_k_dense_replace=1),
    "glm_moe_dsa": _family(read.latent, read.indexed, read.behind_dense, always=_V3, first_k_dense_replace=3),
    "gpt2": _family(
        read.gpt2,
        always={"qkv_bias": True, "out_bias": True, "mlp_bias": True, **_TWO_MATRICES, **_LAYER_NORM},
        names={"num_hidden_layers": "n_layer", "hidden_size": "n_embd", "num_attention_heads": "n_head"},
        tie_word_embeddings=True,
    ),
    "gpt_neox": _family(
        read.grouped,
        read.dense,
        always={"mlp_bias": True, **_TWO_MATRICES, **_LAYER_NORM},
        attention_bias=True,
        **_HEADS,
    ),
    "granite": _family(read.grouped, read.dense, **_HEADS),
    "granitemoe": _family(read.grouped, read.everywhere, always={"head_dim": 0}, **_HEADS),
    "granitemoeshared": _family(read.grouped, read.shared_width, always={"head_dim": 0}, **_HEADS),
    "granitemoehybrid": _family(read.grouped, read.granite_hybrid, always={"head_dim": 0}, **_HEADS, mamba_d_state=256),
    "hunyuan_v1_dense": _family(read.grouped, read.dense, always={"qk_norm": "head", "mlp_bias": False}, **_HEADS),
    "hunyuan_v1_moe": _family(read.grouped, read.hunyuan, always={"qk_norm": "head"}, **_HEADS),
    "jamba": _family(read.grouped, read.jamba, always=_UNBIASED),
    "longcat_flash": _family(read.latent, read.longcat, always=_V3),
    "minimax_m2": _family(read.grouped, read.everywhere, always={"qk_norm": "width", **_UNBIASED, **_V3}),
    "ministral": _family(read.grouped, read.dense, read.windowed(read.always), always=_UNBIASED, sliding_window=4096),
    "ministral3": _family(read.grouped, read.dense, read.windowed(read.always), always=_UNBIASED),
    "mistral": _family(read.grouped, read.dense, read.windowed(read.always), always=_UNBIASED, sliding_window=4096),
    "nemotron": _family(read.grouped, read.dense, always={**_TWO_MATRICES, **_LAYER_NORM}, **_HEADS),
    "nemotron_h": _family(
        read.grouped,
        lambda keys: {"mlp_bias": keys["mlp_bias"]},
        read.nemotron_h,
        always={"gated": False, "block_norms": 1, **_UNBIASED, **_V3},
        mamba_n_groups=8,
        mamba_chunk_size=128,
        head_dim=128,
        num_hidden_layers=1,  # where it is left out the list of kinds says how many
    ),
    "olmo": _family(read.grouped, read.dense, always={"norm_gains": False, "mlp_bias": False}, **_HEADS),
    "olmo2": _family(read.grouped, read.dense, always={"qk_norm": "width", "mlp_bias": False}, **_HEADS),
    "olmo3": _family(
        read.grouped,
        read.dense,
        read.windowed(read.but_every(4)),
        always={"qk_norm": "width", "mlp_bias": False},
        sliding_window=4096,
        **_HEADS,
    ),
    "phi3": _family(
        read.grouped, read.dense, read.windowed(read.always), always={"mlp_bias": False, **_UNBIASED}, **_HEADS
    ),
    "phimoe": _family(read.grouped, read.everywhere, read.windowed(read.always), read.head_bias, always=_LAYER_NORM),
    "qwen2": _family(
        read.grouped,
        read.dense,
        read.windowed(read.switched_on(read.behind)),
        always={"qkv_bias": True, "out_bias": False, "mlp_bias": False},
        sliding_window=4096,
        max_window_layers=28,
        **_HEADS,
    ),
    "qwen2_moe": _family(
        read.grouped,
        read.qwen_shared,
        read.windowed(read.switched_on(read.odd_before)),
        lambda keys: {"qkv_bias": keys["qkv_bias"], "out_bias": False},
        qkv_bias=True,
        sliding_window=4096,
        max_window_layers=28,
        **_HEADS,
    ),
    "qwen3_5_text": _family(
        read.grouped,
        read.linear,
        read.dense,
        always={"qk_norm": "head", "attention_gate": True, "state_chunk": 64, "mlp_bias": False},
        head_dim=256,
    ),
    "qwen3_5_moe_text": _family(
        read.grouped,
        read.linear,
        read.qwen_shared,
        always={"qk_norm": "head", "attention_gate": True, "state_chunk": 64},
        head_dim=256,
    ),
    "seed_oss": _family(read.grouped, read.dense, read.out_bias, attention_bias=True, head_dim=128),
    "smollm3": _family(
        read.grouped,
        read.dense,
        read.windowed(read.switched_on(read.without_rope)),
        tie_word_embeddings=True,
    ),
    "solar_open": _family(read.grouped, read.behind_dense, always=_V3, head_dim=128, first_k_dense_replace=0),
    "gemma4_unified_text": _family(  # Gemma 4 without embeddings for each layer
        read.grouped,
        read.gemma4,
        always={"qk_norm": "head"},
        tie_word_embeddings=True,
        head_dim=256,
        global_head_dim=512,
        sliding_window=1024,
    ),
    "starcoder2": _family(
        read.grouped,
        read.dense,
        read.one_bias,
        read.windowed(read.always),
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
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
    "hunyuan_vl_text": "hunyuan_v1_dense",
    "paddleocr_vl_text": "ernie4_5",
    "granite4_vision_text": "granite",
    "mistral3": "mistral",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_omni_moe_text": "qwen3_moe",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
FAMILIES |= {name: FAMILIES[other] for name, other in _SAME_AS.items()}
