"""Random small configs of every family, and what the modules of `transformers` hold for them (on the meta device).

`python tests/modules.py` prints, with transformers installed, one row of `tests/data/huggingface.json` for each.
"""

import json
import random
import sys
import warnings

TOKENS = 24
SHAPE = {
    "vocab_size": [1000, 512],
    "hidden_size": [64, 96],
    "num_hidden_layers": [4, 6],
    "num_attention_heads": [8],
    "num_key_value_heads": [2, 4, 8],
    "head_dim": [16, 24],
    "intermediate_size": [96, 112],
    "tie_word_embeddings": [False, True],
}
EXPERTS = {"num_experts_per_tok": [1, 2, 3], "num_experts": [4, 8]}
ROUTED = {
    "num_experts_per_tok": [1, 2, 3],
    "n_routed_experts": [4, 8],
    "moe_intermediate_size": [32, 48],
    "n_shared_experts": [1, 2],
    "first_k_dense_replace": [0, 1, 2],
}
LATENT = {
    "num_key_value_heads": [8],
    "q_lora_rank": [24, 40],
    "kv_lora_rank": [16],
    "qk_nope_head_dim": [8, 12],
    "qk_rope_head_dim": [4, 8],
    "v_head_dim": [12, 16],
}
INDEXER = {"index_n_heads": [2, 3], "index_head_dim": [16], "index_topk": [8]}
LINEAR = {
    "linear_num_key_heads": [2, 4],
    "linear_num_value_heads": [4, 8],
    "linear_key_head_dim": [8],
    "linear_value_head_dim": [8, 12],
    "linear_conv_kernel_dim": [3, 4],
}
SHARED = {"shared_expert_intermediate_size": [40, 56], "moe_intermediate_size": [32, 48]}
BIAS = {"attention_bias": [False, True]}
BIASES = {**BIAS, "mlp_bias": [False, True]}
WINDOW = {"sliding_window": [16, None]}
LOCAL = {"sliding_window": [16]}
STEP = {"decoder_sparse_step": [1, 2], "mlp_only_layers": [[], [1], [0, 3]]}
MAMBA2 = {"mamba_n_heads": [4, 8], "mamba_d_state": [16], "mamba_n_groups": [1, 2], "mamba_d_conv": [3, 4]}
KINDS4 = ["linear_attention", "full_attention"]
MLA_TIED = {"tie_word_embeddings": [False]}


def _without(shape, *names):
    return {name: values for name, values in shape.items() if name not in names}


HEADLESS = _without(SHAPE, "head_dim")
FAMILIES = {
    "llama": {**SHAPE, **BIASES},
    "arcee": {**SHAPE, **BIASES},
    "cohere": {**HEADLESS, **BIAS, "use_qk_norm": [False, True]},
    "cohere2": {**HEADLESS, **BIAS, **LOCAL},
    "deepseek_v32": {**SHAPE, **BIAS, **ROUTED, **LATENT, **INDEXER, **MLA_TIED},
    "dots1": {**SHAPE, **BIAS, **ROUTED},
    "ernie4_5": {**SHAPE, "use_bias": [False, True]},
    "ernie4_5_moe": {
        **HEADLESS,
        "use_bias": [False, True],
        "moe_k": [1, 2],
        "moe_num_experts": [4, 8],
        "moe_num_shared_experts": [1, 2],
        "moe_intermediate_size": [32],
        "moe_layer_start_index": [0, 1],
        "moe_layer_interval": [1, 2],
        "moe_layer_end_index": [-1, 3],
    },
    "flex_olmo": {**HEADLESS, **BIAS, **EXPERTS},
    "gemma": {**SHAPE, **BIAS},
    "gemma2": {**SHAPE, **BIAS, **LOCAL},
    "gemma3_text": {**SHAPE, **BIAS, **LOCAL, "sliding_window_pattern": [2, 3, 6]},
    "gemma4_text": {
        **SHAPE,
        **BIAS,
        **LOCAL,
        "num_hidden_layers": [6, 9],
        "layer_types": [["sliding_attention", "sliding_attention", "full_attention"]],
        "global_head_dim": [32, 48],
        "num_global_key_value_heads": [1, 4, None],
        "attention_k_eq_v": [False, True],
        "num_kv_shared_layers": [0, 3],
        "use_double_wide_mlp": [False, True],
        "hidden_size_per_layer_input": [0, 16],
        "vocab_size_per_layer_input": [300],
        "enable_moe_block": [False, True],
        "num_experts": [4, 8],
        "top_k_experts": [1, 2],
        "moe_intermediate_size": [24, 40],
    },
    "gemma3n_text": {
        **SHAPE,
        **BIAS,
        **LOCAL,
        "tie_word_embeddings": [True],
        "num_hidden_layers": [5, 10],
        "intermediate_size": [96, 112],
        "num_kv_shared_layers": [0],
        "altup_num_inputs": [2, 3, 4],
        "laurel_rank": [8, 12],
        "hidden_size_per_layer_input": [16, 24],
        "vocab_size_per_layer_input": [300],
    },
    "glm": {**SHAPE, **BIAS},
    "glm4": {**SHAPE, **BIAS},
    "glm4_moe": {**SHAPE, **BIAS, **ROUTED, "use_qk_norm": [False, True]},
    "glm4_moe_lite": {
        **_without(SHAPE, "head_dim"),
        **BIAS,
        **_without(ROUTED, "first_k_dense_replace"),
        **LATENT,
        **MLA_TIED,
    },
    "glm_moe_dsa": {**SHAPE, **BIAS, **ROUTED, **LATENT, **INDEXER, **MLA_TIED, "index_topk_freq": [1, 2, 3]},
    "gpt2": {
        "vocab_size": [1000],
        "n_embd": [64, 96],
        "n_layer": [3, 4],
        "n_head": [4, 8],
        "n_positions": [128],
        "n_inner": [None, 80],
        "tie_word_embeddings": [False, True],
    },
    "gpt_neox": {**_without(HEADLESS, "num_key_value_heads"), **BIAS},
    "granite": {**HEADLESS, **BIASES},
    "granitemoe": {**HEADLESS, **BIAS, "num_experts_per_tok": [1, 2], "num_local_experts": [4, 8]},
    "granitemoeshared": {
        **HEADLESS,
        **BIAS,
        "num_experts_per_tok": [1, 2],
        "num_local_experts": [4, 8],
        "shared_intermediate_size": [0, 40],
    },
    "granitemoehybrid": {
        **HEADLESS,
        **BIAS,
        **MAMBA2,
        "num_experts_per_tok": [1, 2],
        "num_local_experts": [0, 8],
        "shared_intermediate_size": [40, 56],
        "mamba_proj_bias": [False, True],
        "mamba_conv_bias": [False, True],
        "layer_types": [KINDS4],
    },
    "hunyuan_v1_dense": {**SHAPE, **BIAS},
    "hunyuan_v1_moe": {**SHAPE, **BIAS, "num_experts": [4, 8], "moe_topk": [1, 2]},
    "jamba": {
        **HEADLESS,
        **EXPERTS,
        "expert_layer_period": [2, 3],
        "expert_layer_offset": [0, 1],
        "attn_layer_period": [3, 4],
        "attn_layer_offset": [1, 2],
        "mamba_d_state": [8, 16],
        "mamba_d_conv": [3, 4],
        "mamba_expand": [2],
        "mamba_dt_rank": ["auto", 12],
        "mamba_conv_bias": [False, True],
        "mamba_proj_bias": [False, True],
    },
    "llama4_text": {
        **SHAPE,
        **BIAS,
        "num_local_experts": [4, 8],
        "num_experts_per_tok": [1, 2],
        "intermediate_size_mlp": [128],
        "interleave_moe_layer_step": [1, 2],
        "attention_chunk_size": [16, None],
    },
    "longcat_flash": {
        **_without(SHAPE, "num_hidden_layers", "intermediate_size", "num_key_value_heads", "head_dim"),
        **_without(LATENT, "num_key_value_heads"),
        **BIAS,
        **MLA_TIED,
        "num_layers": [2, 3],
        "ffn_hidden_size": [96],
        "expert_ffn_hidden_size": [32],
        "n_routed_experts": [4, 8],
        "zero_expert_num": [0],
        "moe_topk": [2, 3],
    },
    "minimax_m2": {**SHAPE, "num_experts_per_tok": [1, 2], "num_local_experts": [4, 8]},
    "ministral": {**SHAPE, **LOCAL},
    "ministral3": {**SHAPE, **WINDOW},
    "mistral": {**SHAPE, **WINDOW},
    "mixtral": {**SHAPE, **WINDOW, "num_experts_per_tok": [1, 2], "num_local_experts": [4, 8]},
    "nemotron": {**SHAPE, **BIASES},
    "nemotron_h": {
        **_without(SHAPE, "num_hidden_layers", "tie_word_embeddings"),
        "hybrid_override_pattern": ["M-M*E", "MEM*-E", "M*M-"],
        "mamba_num_heads": [4, 8],
        "mamba_head_dim": [8, 16],
        "ssm_state_size": [16],
        "n_groups": [1, 2],
        "conv_kernel": [3, 4],
        "use_conv_bias": [False, True],
        "use_bias": [False, True],
        "mlp_bias": [False, True],
        "n_routed_experts": [4, 8],
        "num_experts_per_tok": [1, 2],
        "moe_intermediate_size": [24],
        "moe_shared_expert_intermediate_size": [40],
        "moe_latent_size": [None, 32],
    },
    "olmo": {**HEADLESS, **BIAS},
    "olmo2": {**HEADLESS, **BIAS},
    "olmo3": {**HEADLESS, **BIAS, **LOCAL},
    "olmoe": {**HEADLESS, **BIAS, **EXPERTS},
    "phi3": {**HEADLESS, **WINDOW},
    "phimoe": {
        **HEADLESS,
        **BIAS,
        "lm_head_bias": [False, True],
        "num_experts_per_tok": [2],
        "num_local_experts": [4, 8],
        "tie_word_embeddings": [False],
    },
    "qwen2": {**HEADLESS, "use_sliding_window": [False, True], "max_window_layers": [2], **LOCAL},
    "qwen2_moe": {**HEADLESS, **EXPERTS, **SHARED, **STEP, "qkv_bias": [False, True]},
    "qwen3": {**SHAPE, **BIAS, "use_sliding_window": [False, True], "max_window_layers": [2], **LOCAL},
    "qwen3_moe": {**SHAPE, **BIAS, **EXPERTS, "moe_intermediate_size": [32], **STEP},
    "qwen3_next": {**SHAPE, **BIAS, **EXPERTS, **SHARED, **LINEAR, **STEP, "full_attention_interval": [2, 4]},
    "qwen3_5_text": {**SHAPE, **BIAS, **LINEAR, "full_attention_interval": [2, 4]},
    "qwen3_5_moe_text": {**SHAPE, **BIAS, **EXPERTS, **SHARED, **LINEAR, "full_attention_interval": [2, 4]},
    "sarvam_mla": {**SHAPE, **BIAS, **ROUTED, **LATENT, **MLA_TIED},
    "sarvam_moe": {**SHAPE, **BIAS, **ROUTED, "use_qk_norm": [False, True]},
    "deepseek_v2": {**SHAPE, **BIASES, **ROUTED, **LATENT, **MLA_TIED},
    "deepseek_v3": {**SHAPE, **BIAS, **ROUTED, **LATENT, **MLA_TIED},
    "seed_oss": {**SHAPE, **BIASES, "attention_out_bias": [False, True]},
    "smollm3": {**HEADLESS, **BIASES, "use_sliding_window": [False, True], **LOCAL},
    "solar_open": {**SHAPE, **_without(ROUTED, "first_k_dense_replace")},
    "starcoder2": {**HEADLESS, "use_bias": [False, True], **WINDOW},
    "gpt_oss": {**SHAPE, **LOCAL, "num_experts_per_tok": [1, 2], "num_local_experts": [4, 8]},
    "dbrx": {
        "vocab_size": [1000],
        "d_model": [64, 96],
        "n_layers": [3],
        "n_heads": [8],
        "attn_config": [{"kv_n_heads": 2}, {"kv_n_heads": 4}],
        "ffn_config": [
            {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
            {"ffn_hidden_size": 40, "moe_num_experts": 8, "moe_top_k": 3},
        ],
    },
}


def drawn(family, seed):
    """A config of the family with every key drawn from its choices."""
    rng = random.Random(f"{family} {seed}")
    config = {"model_type": family, **{name: rng.choice(values) for name, values in FAMILIES[family].items()}}
    if "layer_types" in config:
        kinds, layers = config["layer_types"], config["num_hidden_layers"]
        config["layer_types"] = [kinds[i % len(kinds)] for i in range(layers)]
    if config.get("hidden_size_per_layer_input") == 0:  # with which its module cannot share keys and values
        config["num_kv_shared_layers"] = 0
    if "head_dim" in config and "qk_rope_head_dim" in config:
        config["head_dim"] = config["qk_rope_head_dim"]
    return config


def module(config, device="cpu"):
    """The module of `transformers` for a config, with what it cannot do without and no key of it says."""
    import torch
    import transformers
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    transformers.logging.set_verbosity_error()
    family = config["model_type"]
    settings = {"pad_token_id": 0, **{name: value for name, value in config.items() if name != "model_type"}}
    if family in ("ministral", "hunyuan_v1_dense", "hunyuan_v1_moe", "nemotron"):
        settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    if family in ("deepseek_v3", "deepseek_v32", "sarvam_mla"):
        settings |= {"n_group": 1, "topk_group": 1}
    if family == "longcat_flash":
        settings["head_dim"] = config["qk_rope_head_dim"]
    if family == "dbrx":
        settings["attn_config"] = {**settings["attn_config"], "rope_theta": 10000.0, "clip_qkv": 8.0}
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = CONFIG_MAPPING[family](**settings)
        try:
            ways = {"attn_implementation": "eager", "experts_implementation": "eager"}
            return AutoModelForCausalLM.from_config(made, **ways).eval()
        except ValueError:  # a module without experts
            return AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()


def held(config):
    """(parameters that are trained, selection biases that are not) of the module of `transformers`."""
    made = module(config, "meta")
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    fixed = [p for p in made.parameters() if not p.requires_grad]
    fixed += [b for name, b in made.named_buffers() if "correction_bias" in name]
    return trained, sum(b.numel() for b in fixed)


def computed(config, tokens=TOKENS):
    """Forward FLOP of the module of `transformers` on one sequence, by torch's counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    made = module(config)
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")
        made(input_ids=torch.randint(1, 100, (1, tokens)), use_cache=False)
    return counter.get_total_flops()


def uncounted(model, tokens=TOKENS):
    """What torch's counter sees otherwise: it adds the padding of convolutions, and leaves out triangular solves and
    the outer products that Mamba's module writes as elementwise work."""
    from moesim.models.recurrent import DeltaNet, Mamba, Mamba2, padded

    more = 0
    for entry, layer in model.network(tokens, form="executed").rows().values():
        if isinstance(layer, DeltaNet | Mamba | Mamba2):
            (convolved,) = (tensor.rows for tensor in layer.tensors if tensor.columns == layer.kernel)
            more += entry.copies * 2 * layer.kernel * (layer.kernel - 1) * convolved
        if isinstance(layer, DeltaNet):
            columns = layer.value_heads * (layer.key_dim + layer.value_dim)
            more -= entry.copies * tokens * padded(tokens, layer.chunk) * (layer.chunk - 1) * columns
        if isinstance(layer, Mamba):
            more -= entry.copies * 2 * tokens * layer.inner * layer.state
    return more


def main(families):
    for family in families or FAMILIES:
        for seed in range(3):
            config = drawn(family, seed)
            parameters, buffers = held(config)
            counts = {"parameters": parameters, "buffers": buffers, "flops": computed(config)}
            print(json.dumps({**config, **counts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
