"""config.json files that are read: what is missing, what is refused, and what single fields mean."""

import pytest
from test_transformer import MODULES, of

from moesim.errors import InputError
from moesim.models.transformer import Transformer

LLAMA = next(config for config in MODULES if config["model_type"] == "llama")


def _refusal(config):
    try:
        Transformer.from_config(config)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("family", sorted({config["model_type"] for config in MODULES}))
def test_missing_keys_are_named(family):
    """A config without one of its sizes is refused by the name of the key; switches have defaults."""
    config = next(config for config in MODULES if config["model_type"] == family)
    for key in set(config) - {"model_type", "parameters", "buffers", "flops"}:
        told = _refusal({k: v for k, v in config.items() if k != key})
        assert not told or key in told or "give head_dim" in told or "n_groups=8 does not divide" in told
    width = {"switch_transformers": "d_model", "gpt2": "n_embd", "dbrx": "d_model"}.get(family, "hidden_size")
    for key in (width, *(["vocab_size"] if family != "gemma3_text" else [])):
        with pytest.raises(InputError, match=f"no key '{key}'"):
            Transformer.from_config({k: v for k, v in config.items() if k != key})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "unknown family model_type='bert'; there are llama, llama4"),
        ({"model_type": None}, "unknown family model_type=None"),
        ({"hidden_size": "4096"}, "hidden_size='4096'; it takes a whole number"),
        ({"num_attention_heads": 33}, "num_attention_heads=33 does not divide hidden_size=4096"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5 does not divide num_attention_heads=32"),
        ({"num_hidden_layers": -2}, "num_hidden_layers=-2"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0; it takes a whole number, 1 or more"),
        ({"text_config": "llama"}, "text_config='llama'; it takes a mapping of keys"),
    ],
)
def test_bad_configs(change, message):
    with pytest.raises(InputError, match=message):
        Transformer.from_config({**LLAMA, **change})


V3_TOY = of("deepseek_v3", num_hidden_layers=4, first_k_dense_replace=1)
QWEN_TOY = of("qwen3_moe", num_hidden_layers=4)


@pytest.mark.parametrize("config", [V3_TOY, QWEN_TOY, of("llama"), of("gemma4_text"), of("jamba"), of("gpt_oss")])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moe_layer_freq": 0}, "moe_layer_freq=0; it takes a whole number, 1 or more, or a list of 0 or 1"),
        ({"moe_layer_freq": [0, 2]}, "moe_layer_freq=.0, 2.; it takes"),
        ({"attention_bias": "no"}, "attention_bias='no'; it takes true or false"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false'; it takes true or false"),
        ({"use_sliding_window": 1}, "use_sliding_window=1; it takes true or false"),
        ({"first_k_dense_replace": "1"}, "first_k_dense_replace='1'; it takes a whole number, 0 or more"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace=-1"),
        ({"mlp_only_layers": 3}, "mlp_only_layers=3; it takes a list of indices of layers"),
        ({"mlp_only_layers": "0"}, "mlp_only_layers='0'"),
        ({"mlp_only_layers": ["0"]}, "mlp_only_layers=.'0'."),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step=0; it takes a whole number, 1 or more"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000; it takes a whole number from 1 to 100000"),
        ({"num_hidden_layers": 1e12}, "num_hidden_layers=1000000000000.0"),
        ({"hidden_size": True}, "hidden_size=True"),
        ({"num_key_value_heads": -2}, "num_key_value_heads=-2"),
        ({"head_dim": 0}, "head_dim=0"),
        ({"head_dim": 16.0}, "head_dim=16.0"),
        ({"sliding_window": "big"}, "sliding_window='big'"),
        ({"layer_types": "full_attention"}, "layer_types='full_attention'; it takes a list"),
        ({"num_experts_per_tok": [1, -1]}, "num_experts_per_tok=.1, -1."),
        ({"num_experts": -1}, "num_experts=-1"),
        ({"n_shared_experts": 1.5}, "n_shared_experts=1.5"),
        ({"full_attention_interval": 0}, "full_attention_interval=0"),
        ({"vocab_size": float("nan")}, "vocab_size=nan"),
    ],
)
def test_values_that_a_key_does_not_take(config, change, message):
    """Whether the family reads the key or not."""
    with pytest.raises(InputError, match=message):
        Transformer.from_config({**config, **change})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**QWEN_TOY, "mlp_only_layers": [99]}, "mlp_only_layers=.99.; it takes indices from 0 to 3"),
        ({**V3_TOY, "moe_layer_freq": [0, 1, 1]}, "moe_layer_freq has 3 entries for num_hidden_layers=4"),
        (of("gpt_oss", layer_types=["foo"]), "layer_types holds 'foo'; it takes sliding_attention, full_attention"),
        (of("qwen3_next", layer_types=["linear_attention"]), "layer_types has 1 entries"),
        (
            of("nemotron_h", hybrid_override_pattern="M?"),
            "hybrid_override_pattern='M.'; it takes M .mamba., . .attention.",
        ),
        (
            of("glm4_moe_lite", mlp_layer_types=["dense", "thin"]),
            "mlp_layer_types holds .thin.; it takes dense",
        ),
        (of("llama4", moe_layers=[1000]), "moe_layers=.1000.; it takes indices from 0"),
        (of("hunyuan_v1_moe", moe_topk=[1]), "moe_topk has 1 entries"),
        (of("gemma4_text", intermediate_size=[96]), "intermediate_size=.96.; it takes a whole number"),
        (of("jamba", attn_layer_offset=9), "attn_layer_offset=9; it takes a whole number below attn_layer_period="),
        (of("jamba", expert_layer_offset=9), "expert_layer_offset=9; it takes a whole number below"),
        (of("nemotron_h", mamba_num_heads=3), "n_groups=2 does not divide mamba_num_heads=3"),
        (of("glm_moe_dsa", index_topk_pattern="FX"), "index_topk_pattern='FX'; it takes F .full., S .shared."),
        (of("glm_moe_dsa", index_topk_pattern="F"), "index_topk_pattern has 1 entries"),
        (of("deepseek_v32", q_lora_rank=0), "indexer_heads without q_lora_rank; give q_lora_rank as a whole"),
        (of("gemma4_text", global_head_dim=0), "global_head_dim=0; it takes a whole number, 1 or more"),
        (of("qwen3_moe", num_experts_per_tok=10**4), "num_experts_per_tok=10000 of num_local_experts=128"),
    ],
)
def test_values_that_do_not_fit_the_model(config, message):
    with pytest.raises(InputError, match=message):
        Transformer.from_config(config)


def test_experts_by_a_list_of_layers():
    by_list = Transformer.from_config({**V3_TOY, "moe_layer_freq": [0, 1, 1, 1]})
    assert by_list == Transformer.from_config({**V3_TOY, "moe_layer_freq": 1})
    assert Transformer.from_config({**V3_TOY, "moe_layer_freq": [0, 0, 1, 0]}).moe_layers == 1


def test_fields_of_single_layers():
    """As newer versions of transformers write what older ones call global_head_dim."""
    config = of("gemma4_text", num_kv_shared_layers=0, attention_k_eq_v=True, num_global_key_value_heads=1)
    config |= {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    config["global_head_dim"] = 48
    older = Transformer.from_config(config)
    given = {"1": {"head_dim": 48, "num_key_value_heads": 1}, "02": {"head_dim": 48, "num_key_value_heads": 1}}
    newer = {name: value for name, value in config.items() if "global" not in name}
    assert Transformer.from_config({**newer, "per_layer_config": given}) == older
    for wrong in ({"3": {"head_dim": 8}}, {"0": {"width": 8}}, {"0": 8}, [1], {"x": {}}, {"0": {"head_dim": "8"}}):
        with pytest.raises(InputError, match=r"per_layer_config|head_dim='8'"):
            Transformer.from_config({**newer, "per_layer_config": wrong})
    with pytest.raises(InputError, match=r"per_layer_config=.*; it takes none here"):
        Transformer.from_config(of("llama", per_layer_config=given))


def test_field_cases():
    """Learned positions are embeddings (arXiv:2001.08361, section 1.3); Qwen1.5-MoE-A2.7B as published."""
    gpt2 = Transformer(
        12,
        768,
        12,
        50257,
        d_ff=3072,
        gated=False,
        mlp_bias=True,
        qkv_bias=True,
        out_bias=True,
        norm_bias=True,
        learned_positions=1024,
        tied=True,
    )
    assert (gpt2.total_params, gpt2.total_params_as("no_embedding")) == (124_439_808, 85_056_000)
    assert gpt2.active_params_as("no_embedding") == 85_056_000
    qwen = of("qwen2_moe", hidden_size=2048, intermediate_size=5632, moe_intermediate_size=1408, num_hidden_layers=24)
    qwen |= {"shared_expert_intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 16}
    qwen |= {"num_experts": 60, "num_experts_per_tok": 4, "decoder_sparse_step": 1, "mlp_only_layers": []}
    model = Transformer.from_config({**qwen, "vocab_size": 151936, "tie_word_embeddings": False, "qkv_bias": True})
    assert (model.total_params, model.active_params) == (14_315_784_192, 2_689_173_504)
