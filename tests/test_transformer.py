"""Transformers: every published count, config.json of every family, FLOPs per token by convention."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import modules
import pytest

from moesim.config import choices, read
from moesim.errors import InputError
from moesim.models.conventions import CONVENTIONS
from moesim.models.huggingface import FAMILIES
from moesim.models.transformer import Transformer

DATA = Path(__file__).parent / "data"
ROWS = {row["model"]: row for row in csv.DictReader((DATA / "reference_models.csv").read_text().splitlines())}
MODULES = json.loads((DATA / "huggingface.json").read_text())  # counted on the modules of transformers 5.23.0, 5.24.0
NAMES = {
    "GPT-3-175B": "gpt3_175b",
    "Chinchilla-70B": "chinchilla_70b",
    "Llama-3-8B": "llama3_8b",
    "Llama-3-70B": "llama3_70b",
    "Llama-3.1-405B": "llama31_405b",
    "Mixtral-8x7B": "mixtral_8x7b",
    "DeepSeek-V3": "deepseek_v3",
    "Qwen3-30B-A3B": "qwen3_30b_a3b",
    "gpt-oss-120b": "gpt_oss_120b",
    "Switch-Base-128": "switch_base_128",
    "GLaM-64B/64E": "glam_64b",
}
TOY = {"layers": 4, "d_model": 64, "heads": 8, "vocabulary": 100, "d_ff": 96}
TOY_MOE = {**TOY, "experts": 8, "active_experts": 2, "d_expert": 32}
V3 = Transformer.load("deepseek_v3")


def test_every_row_has_a_file():
    assert set(NAMES) == set(ROWS)
    assert set(NAMES.values()) <= set(choices("model"))


@pytest.mark.parametrize("row", NAMES)
def test_reference_models_to_the_last_parameter(row):
    model, known = Transformer.load(NAMES[row]), {key: value for key, value in ROWS[row].items() if value}
    assert model.total_params == int(known["params_total"])
    assert model.active_params == int(known["params_active"])
    assert model.active_params_as("no_input_embedding") == int(known["active_ex_inemb"])
    assert model.active_params_as("matmul") == int(known["matmul_active"])
    assert model.forward_flops() == int(known["fwd_flop_per_token_noattn"])
    if "transformers_meta_total" in known:
        assert model.total_params == int(known["transformers_meta_total"])
    core = model.forward_flops(1000, "full") - model.forward_flops()
    cross = 4 * 12 * 12 * 64 * 1000 if model.encoder_layers else 0  # the column leaves cross attention out
    assert core - cross == 1000 * int(known["attn_flop_per_token_per_ctx"])


@pytest.mark.parametrize("name", choices("model"))
def test_published_figures_in_the_named_convention(name):
    """As close as the publisher's figures are printed; round ones (1.2T for 1162B, 7B for 7.4B, 3B for 3.25B)."""
    model, published = Transformer.load(name), read("model", name)["published"]
    coarse = {"switch_base_128": 0.06, "glam_64b": 0.035, "kimi_k2": 0.03, "qwen3_next_80b_a3b": 0.09}
    assert model.total_params == pytest.approx(published["total"], rel=coarse.get(name, 0.01))
    assert model.active_params_as(published["active_as"]) == pytest.approx(
        published["active"], rel=coarse.get(name, 0.02)
    )


@pytest.mark.parametrize("config", MODULES, ids=lambda c: f"{c['model_type']}-{c['parameters']}")
def test_config_json_to_the_last_parameter(config):
    config = dict(config)
    parameters, buffers, _ = (config.pop(name, 0) for name in ("parameters", "buffers", "flops"))
    model = Transformer.from_config(config)
    assert model.total_params_as("trained") == parameters
    assert model.total_params == parameters + buffers


def of(family, **also):
    return {**next(config for config in MODULES if config["model_type"] == family), **also}


PUBLISHED = json.loads((DATA / "published.json").read_text())


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["name"])
def test_published_models_from_their_config_json(row):
    """As closely as printed; 256 experts of LongCat do nothing, though in transformers they hold weights."""
    model = Transformer.from_config(row["config"])
    assert model.total_params == pytest.approx(row["total"], rel=0.04)
    assert model.active_params_as(row["active_as"]) == pytest.approx(row["active"], rel=0.09)


def test_parts_that_a_model_does_not_have():
    """Keys that published configs of other families hold as 0, null or lists say nothing where they are not read."""
    plain = of("qwen3_moe")
    more = {"shared_expert_intermediate_size": 0, "num_shared_expert": [1], "kv_lora_rank": 0, "moe_topk": None}
    assert Transformer.from_config({**plain, **more}) == Transformer.from_config(plain)
    with pytest.raises(InputError, match="shared_expert_intermediate_size=0; it takes a whole number, 1 or more"):
        Transformer.from_config(of("qwen2_moe", shared_expert_intermediate_size=0))
    with pytest.raises(InputError, match="num_experts_per_tok=0; it takes a whole number, 1 or more"):
        Transformer.from_config(of("qwen3_moe", num_experts_per_tok=0))


def test_every_family_is_checked():
    """But for those that transformers 5.24.0 lacks (deepseek, kimi_k2: as remote code) and other names of a family."""
    checked = {config["model_type"] for config in MODULES}
    assert {name for name in FAMILIES if FAMILIES[name] not in [FAMILIES[other] for other in checked]} == {"deepseek"}
    assert set(modules.FAMILIES) <= checked <= set(FAMILIES)


@pytest.mark.parametrize("family", modules.FAMILIES)
def test_random_configs_to_the_last_parameter(family):
    """Eight more than are stored, counted on the modules themselves."""
    pytest.importorskip("transformers", reason="transformers is not installed; stored counts are checked all the same")
    for seed in range(4, 12):
        config = modules.drawn(family, seed)
        parameters, buffers = modules.held(config)
        model = Transformer.from_config(config)
        assert (model.total_params_as("trained"), model.total_params) == (parameters, parameters + buffers), config
    flops = model.forward_flops(modules.TOKENS, "full", form="executed") * modules.TOKENS
    assert flops + modules.uncounted(model) == pytest.approx(modules.computed(config), rel=1e-12), config


@pytest.mark.parametrize("config", [row for row in MODULES if "flops" in row], ids=lambda c: c["model_type"])
def test_forward_flops_to_the_last_one(config):
    """What torch's counter says of the modules of transformers, run on 24 tokens with a mask that saves nothing."""
    model = Transformer.from_config(config)
    flops = model.forward_flops(modules.TOKENS, "full", form="executed") * modules.TOKENS
    assert flops + modules.uncounted(model) == pytest.approx(config["flops"], rel=1e-12)


def test_from_path_directory_and_wrapped_text_part(tmp_path):
    llama4 = next(config for config in MODULES if config["model_type"] == "llama4")
    path = tmp_path / "Scout" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"model_type": "llama4", "text_config": {**llama4, "model_type": "llama4_text"}}))
    counts = {Transformer.from_config(where).total_params for where in (path, str(path), path.parent, llama4)}
    assert counts == {llama4["parameters"]}
    assert Transformer.load(str(path)).name == "Scout"
    twice = {"model_type": "some_omni", "thinker_config": {"text_config": {**llama4, "model_type": "llama4_text"}}}
    assert Transformer.from_config(twice).total_params == llama4["parameters"]
    v3 = next(config for config in MODULES if config["model_type"] == "deepseek_v3")
    assert Transformer.from_config({**v3, "model_type": "kimi_k2"}) == replace(
        Transformer.from_config(v3), name="kimi_k2"
    )


def test_reference_files_equal_their_config_json():
    published = {config["parameters"] + config["buffers"]: config for config in MODULES}
    files = [Transformer.load(name) for name in choices("model")]
    same = [model for model in files if model.total_params in published]
    assert len(same) >= 10
    for model in same:
        read_in = Transformer.from_config(published[model.total_params])
        assert read_in.active_params == model.active_params
        for question in ((10_000, "causal"), (10_000, "full"), (10_000, "causal", False, "executed")):
            assert read_in.forward_flops(*question) == pytest.approx(model.forward_flops(*question), rel=1e-12)


def test_deepseek_v3_closure():
    """DeepSeek-V3 technical report and ISCA 2025 paper: 250 GFLOP per token, 385 and 432 TFLOPS per GPU, 2.664M
    GPU-hours, a step of 19.926 s, MFU 38.94 % and 43.73 %."""
    causal, full = (V3.training_flops(4096, mask=mask) for mask in ("causal", "full"))
    assert causal == pytest.approx(250.4e9, rel=2.5e-4)
    tokens_per_second, chips, peak = 272.80e9 / 86400, 2048, 989e12
    achieved = [tokens_per_second * flops / chips for flops in (causal, full)]
    assert achieved == pytest.approx([385e12, 432e12], rel=4e-3)
    assert [flops / peak for flops in achieved] == pytest.approx([0.3894, 0.4373], rel=4e-3)
    assert 14.8e12 / tokens_per_second * chips / 3600 == pytest.approx(2.664e6, rel=1.5e-3)
    assert 62_914_560 / tokens_per_second == pytest.approx(19.926, rel=5e-4)
    assert 14.8e12 * causal == pytest.approx(3.71e24, rel=2e-3)
    assert 6 * 37e9 * 14.8e12 / (14.8e12 * causal) == pytest.approx(0.89, abs=5e-3)  # the shortcut is 11 % low


def test_llama_405b_causal_at_4096():
    """2473 G; the 2448 G that are printed beside DeepSeek-V3's 250 G do not follow from the same formula."""
    assert Transformer.load("llama31_405b").training_flops(4096) == pytest.approx(2473e9, rel=5e-4)


def test_palm_appendix_b():
    """6N + 12 L H Q T; the causal half is 6 L H Q T, and T/(6d) of 6N with N = 12 L d^2 (full)."""
    model = Transformer(32, 1024, 16, 1, d_ff=4096, gated=False)
    T, core = 2048, 12 * 32 * 16 * 64 * 2048
    assert model.training_flops(T, "palm") == 6 * model.active_params + core
    assert model.training_flops(T, "6nd_attention", mask="full") == 6 * model.active_params_as("matmul") + core
    assert model.training_flops(T, mask="full") - model.training_flops(T) == core / 2
    assert core / (6 * 12 * 32 * 1024**2) == T / (6 * 1024)
    assert model.training_flops(T, "6nd") == model.training_flops()


def test_exact_is_6nd_and_attention_where_nothing_else_is_there():
    for name in ("llama3_8b", "mixtral_8x7b", "deepseek_v3"):
        model = Transformer.load(name)
        assert model.training_flops(4096) == model.training_flops(4096, "6nd_attention")
        assert model.training_flops(4096) == 3 * model.forward_flops(4096)


def test_frameworks_differ_as_documented():
    """Megatron-LM leaves out the router and takes the causal half; torchtitan counts router and norms, full mask."""
    exact, megatron, titan = (V3.training_flops(4096, name) for name in ("exact", "megatron", "torchtitan"))
    router, gains = 6 * 58 * 7168 * 256, 6 * 61 * (1536 + 512)
    assert exact - megatron == router - gains
    norms = 6 * (61 * (1536 + 512 + 2 * 7168) + 7168)
    assert titan - V3.training_flops(4096, mask="full") == norms
    gpt = Transformer.load("gpt3_175b")
    padding = 6 * 12288 * (50304 - 50257)
    assert gpt.training_flops(2048, "megatron") - gpt.training_flops(2048) == padding
    windowed = Transformer.load("gpt_oss_120b")
    assert windowed.training_flops(8192) < windowed.training_flops(8192, "megatron")
    mtp = V3.training_flops(4096, "megatron", mtp=True) - megatron
    layer = V3.training_flops(4096, mtp=True) - exact
    assert mtp == pytest.approx(layer, rel=1e-2)


# One dense and two MoE layers of width 8, grouped queries of width 4: multiply-adds of a token that sees 10.
GROUPED = {"layers": 3, "dense_layers": 1, "d_model": 8, "heads": 2, "kv_heads": 1, "vocabulary": 100, "d_ff": 16}
GROUPED |= {"experts": 4, "active_experts": 2, "d_expert": 5, "shared_experts": 1, "d_shared": 6, "mtp_layers": 1}
HEAD = 8 * 128  # the vocabulary padded to 128
ATTENTION = 8 * 4 * (2 + 2 + 1 + 1) + 2 * 4 * 10  # q and output, k and v of one head each, core
EXPERTS = 8 * 3 * (2 * 5 + 6)
LATENT = {"q_rank": 3, "kv_rank": 2, "nope_dim": 3, "rope_dim": 1, "value_dim": 2}
MLA = 3 * (8 + 8 + 1) + 2 * (8 + 2 * (3 + 2) + 1) + 8 * 1 + 2 * 2 * 8 + 2 * 3 * 10
DELTA = {"linear_key_heads": 1, "linear_key_dim": 2, "linear_value_heads": 3, "linear_value_dim": 4, "linear_kernel": 5}
DELTA_NET = 8 * (2 * 2 + 3 * 12 + 2 * 3) + 5 * (2 * 2 + 12) + 4 * 12 * 4
MEGATRON = [
    # fields, mtp, multiply-adds of one token
    ({}, False, 3 * ATTENTION + 8 * 3 * 16 + 2 * EXPERTS + HEAD),
    ({}, True, 4 * ATTENTION + 8 * 3 * 16 + 3 * EXPERTS + 3 * 8 + 2 * 8 * 8 + 2 * HEAD),
    ({"gated": False, "gated_experts": True}, False, 3 * ATTENTION + 8 * 2 * 16 + 2 * EXPERTS + HEAD),
    ({"attention_gate": True}, False, 3 * (ATTENTION + 8 * 4 * 2) + 8 * 3 * 16 + 2 * EXPERTS + HEAD),
    (LATENT, False, 3 * MLA + 8 * 3 * 16 + 2 * EXPERTS + HEAD),
    ({**LATENT, "q_rank": 0}, False, 3 * (MLA - 3 * 17 + 8 * 8) + 8 * 3 * 16 + 2 * EXPERTS + HEAD),
    ({"linear_layers": 2, **DELTA}, False, ATTENTION + 2 * DELTA_NET + 8 * 3 * 16 + 2 * EXPERTS + HEAD),
]


@pytest.mark.parametrize(("fields", "mtp", "macs"), MEGATRON)
def test_megatron_by_hand(fields, mtp, macs):
    model = Transformer(**{**GROUPED, **fields})
    assert model.training_flops(10, "megatron", mtp=mtp) == pytest.approx(6 * macs, rel=1e-9)


def test_multi_token_prediction():
    """One more layer, 2 * 2 d^2 and one more head forward; about 11.5B weights of its own (README_WEIGHTS)."""
    own = V3.total_params_as("with_mtp") - V3.total_params
    assert own == pytest.approx(11.5e9, rel=0.011)
    extra = V3.forward_flops(4096, mtp=True) - V3.forward_flops(4096)
    layer = V3.network(4096).total(1).forward
    assert extra > 4 * 7168**2 + 2 * 7168 * 129280
    assert extra < layer / 20
    assert Transformer.load("mixtral_8x7b").total_params_as("with_mtp") == 46_702_792_704


def test_windows_and_chunks():
    gpt = Transformer.load("gpt_oss_20b")
    T, per_key = 8192, 4 * 64 * 64
    assert gpt.forward_flops(T, "full") - gpt.forward_flops() == 24 * per_key * T
    local, seen = 12 * per_key * (128 - 128**2 / (2 * T)), 12 * per_key * T / 2
    assert gpt.forward_flops(T) - gpt.forward_flops() == pytest.approx(local + seen, rel=1e-12)
    chunked = Transformer.load("llama4_maverick")
    assert chunked.forward_flops(8192) == replace(chunked, local_layers=0).forward_flops(8192)
    assert chunked.forward_flops(65536) < replace(chunked, local_layers=0).forward_flops(65536)


def test_recomputation():
    """Full: 4/3 of 6ND, 8 N; torch's checkpoint on a block: 4/3 - (down projection)/(3 forward); flash 2 L H Q T."""
    model = Transformer.load("llama3_8b")
    plain = model.training_flops(8192)
    assert model.training_flops(8192, recompute="full") == plain * 4 / 3
    assert model.training_flops(recompute="full") == 8 * model.active_params_as("matmul")
    flash = model.training_flops(8192, mask="full", recompute="flash") - model.training_flops(8192, mask="full")
    assert flash == 2 * 32 * 32 * 128 * 8192
    core = model.training_flops(8192, mask="full", recompute="core") - model.training_flops(8192, mask="full")
    assert core == 4 * 32 * 32 * 128 * 8192
    block = model.training_flops(8192, recompute="blocks") - plain
    assert block - (model.training_flops(8192, recompute="checkpoint") - plain) == 32 * 2 * 4096 * 14336
    assert plain / 3 - block == 2 * 4096 * 128256


def test_backward_is_exactly_twice_forward():
    for name in choices("model"):
        passes = Transformer.load(name).network(4096).total(1)
        assert passes.input_gradient + passes.weight_gradient == pytest.approx(2 * passes.forward, rel=1e-14)


def test_granularity_leaves_flops_and_weights_but_for_the_router():
    coarse = Transformer(**TOY_MOE)
    fine = Transformer(**{**TOY_MOE, "experts": 16, "active_experts": 4, "d_expert": 16})
    assert fine.forward_flops() - coarse.forward_flops() == 2 * 4 * 64 * 8
    assert fine.total_params - coarse.total_params == 4 * 64 * 8


def test_conventions_are_ordered():
    for name in choices("model"):
        model = Transformer.load(name)
        matmul, active = model.active_params_as("matmul"), model.active_params
        assert matmul <= active <= model.total_params
        assert model.active_params_as("no_embedding") < model.active_params_as("no_input_embedding") <= active
        assert model.total_params_as("trained") <= model.total_params <= model.total_params_as("with_mtp")
        assert model.sparsity_factor >= 1
        assert all(model.training_flops(4096, convention) > 0 for convention in CONVENTIONS)


def test_fields_left_out_are_filled_in():
    model = Transformer(**TOY)
    assert (model.kv_heads, model.head_dim, model.moe_layers, model.mlp_layers) == (8, 8, 0, 4)
    assert Transformer(**TOY_MOE, shared_experts=1).d_shared == 32


BAD = [
    ({**TOY, "heads": 7}, "heads=7 does not divide d_model=64"),
    ({**TOY, "kv_heads": 3}, "kv_heads=3 does not divide heads=8"),
    ({**TOY_MOE, "active_experts": 9}, "active_experts=9 of experts=8"),
    ({**TOY, "layers": -1}, "layers=-1; it takes a whole number, 1 or more"),
    ({**TOY, "vocabulary": 1.5}, "vocabulary=1.5"),
    ({**TOY, "d_ff": 0}, "dense layers without d_ff"),
    ({**TOY_MOE, "d_expert": 0}, "experts without d_expert"),
    ({**TOY_MOE, "dense_layers": 5}, "dense_layers=5 of layers=4"),
    ({**TOY, "local_layers": 2}, "local_layers without window"),
    ({**TOY, "linear_layers": 2}, "linear_layers without linear_key_heads"),
    ({**TOY, "local_layers": 3, "linear_layers": 2}, "linear_layers"),
    ({**TOY, "kv_rank": 4}, "kv_rank without nope_dim"),
    ({**TOY, "qk_norm": "both"}, "no 'both'; there are none, head, width"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_impossible_shapes(fields, message):
    with pytest.raises(InputError, match=message):
        Transformer(**fields)


@pytest.mark.parametrize(
    ("name", "sequence", "mtp", "published"),
    [
        ("deepseek_v3", 4096, True, 260.0e9),
        ("qwen3_30b_a3b", 4096, False, 23.006e9),
        ("qwen3_235b_a22b", 4096, False, 148.0e9),
        ("kimi_k2", 4096, False, 204.5e9),
        ("llama3_70b", 8192, False, 449.2e9),
        ("llama31_405b", 8192, False, 2524e9),
    ],
)
def test_flop_per_token_as_published_with_megatron(name, sequence, mtp, published):
    """NVIDIA's training FLOP per token, as closely as printed."""
    flops = Transformer.load(name).training_flops(sequence, "megatron", mtp=mtp)
    assert flops == pytest.approx(published, rel=5e-4)


SMALL = {"layers": 1, "d_model": 4, "heads": 1, "vocabulary": 128}
MEGATRON = [
    ({"mamba_layers": 1, "ffnless_layers": 1, "mamba_inner": 8, "mamba_state": 2, "mamba_heads": 2}, 88 + 32 + 56),
    ({"experts": 4, "active_experts": 2, "d_expert": 3, "expert_latent": 2}, 64 + 36 + 16),
    ({"experts": 4, "active_experts": 2, "d_expert": 3, "zero_experts": 4}, 64 + 36),
    ({"d_ff": 3, "kv_projections": 1}, 48 + 36),
    ({"d_ff": 3, "mixerless_layers": 1}, 36),
]


@pytest.mark.parametrize(("fields", "layer"), MEGATRON)
def test_megatron_on_paper(fields, layer):
    """6 x (multiply-adds of the layer + 4 x 128 of the head)."""
    assert Transformer(**SMALL, **fields).training_flops(0, "megatron") == pytest.approx(6 * (layer + 512), rel=1e-14)


def test_variants_are_layers_of_their_own():
    """Two layers of 64 wide heads among six of 32: as two models of these layers, less what they share."""
    base = {"d_model": 64, "vocabulary": 100, "heads": 2, "head_dim": 32, "d_ff": 96, "window": 8}
    wide = {"head_dim": 64, "kv_heads": 1, "d_ff": 48}
    mixed = Transformer(8, local_layers=4, variants=({"layers": 2, **wide},), **base)
    apart = [Transformer(6, local_layers=4, **base), Transformer(2, **{**base, **wide})]
    assert (mixed.full_layers, mixed.mlp_layers) == (4, 8)
    shared = 2 * 100 * 64 + 64
    assert mixed.total_params == sum(model.total_params for model in apart) - shared
    for convention in ("exact", "palm", "torchtitan", "torchtitan_b5bcd76", "megatron", "megatron_bridge"):
        both = sum(model.training_flops(32, convention) for model in apart)
        head = {"palm": shared, "exact": 6400, "megatron": 8192, "megatron_bridge": 8192}.get(convention, 6464)
        assert mixed.training_flops(32, convention) == pytest.approx(both - 6 * head, rel=1e-12)


def test_sparse_attention_sees_the_keys_that_its_indexer_leaves():
    """2 H (d_q + d_v) for min(i, k) keys, 2 H_i (d_i + 1) for all of them; layers that share a choice score none."""
    sizes = {"q_rank": 8, "kv_rank": 8, "nope_dim": 4, "rope_dim": 2, "value_dim": 5, "d_ff": 96, "indexer_keys": 3}
    index = {"indexer_heads": 2, "indexer_dim": 7}
    model = Transformer(4, 64, 8, 100, **sizes, **index, variants=({"layers": 1, "indexer_heads": 0},))
    core = model.forward_flops(10, "causal_diagonal") - model.forward_flops()
    seen = (1 + 2 + 3 * 8) / 10
    assert core == pytest.approx(4 * 2 * 8 * (6 + 5) * seen + 3 * 2 * 2 * 8 * 5.5, rel=1e-12)


def test_states_by_convention():
    """torchtitan today: 18 H d_k d_v for each Gated DeltaNet, keys only in layers with softmax; lookups cost nothing.

    Megatron-LM: a Mamba-2 layer 2 d wide, whatever it is.
    """
    model = Transformer.from_config(of("qwen3_next"))
    heads, keys, values = model.linear_value_heads, model.linear_key_dim, model.linear_value_dim
    states = 18 * model.linear_layers * heads * keys * values
    assert model.training_flops(0, "torchtitan") - model.training_flops(0, "torchtitan_b5bcd76") == states
    attention = model.training_flops(4096, "torchtitan") - model.training_flops(0, "torchtitan")
    assert attention == 12 * model.full_layers * model.heads * model.head_dim * 4096
    gpt2 = Transformer.from_config(of("gpt2"))
    before, today = (gpt2.training_flops(8, name) for name in ("torchtitan_b5bcd76", "torchtitan"))
    assert before - today == 6 * gpt2.learned_positions * gpt2.d_model
    sizes = {"mamba_layers": 1, "mamba_state": 8, "mamba_heads": 4, "ffnless_layers": 1}
    found = {Transformer(**SMALL, **sizes, mamba_inner=n).training_flops(0, "megatron") for n in (8, 16)}
    d = SMALL["d_model"]
    assert found == {6 * (d * (4 * d + 2 * 8 + 4) + 7 * d * 8 + 2 * d * d + 128 * d)}


def test_flop_per_token_of_torchtitan():
    qwen = Transformer.load("qwen3_30b_a3b")
    assert qwen.training_flops(8192, "torchtitan") == 37_578_559_488
    assert qwen.training_flops(8192, "torchtitan_b5bcd76") == 37_578_559_488


@pytest.mark.parametrize("T", [64, 128, 8192])
def test_windows_by_convention(T):
    """Twelve of 24 layers behind w = 128: 6 H (d_qk + d_v) min(T, w) today, T before; Bridge w - w (w - 1)/(2 T)."""
    gpt = Transformer.load("gpt_oss_20b")
    assert (gpt.local_layers, gpt.window, gpt.heads, gpt.head_dim) == (12, 128, 64, 64)
    one = 6 * 64 * (64 + 64)
    before, today = (gpt.training_flops(T, name) for name in ("torchtitan_b5bcd76", "torchtitan"))
    assert before - today == 12 * one * (T - min(T, 128))
    plain, bridge = (gpt.training_flops(T, name) for name in ("megatron", "megatron_bridge"))
    seen = 128 - 128 * 127 / (2 * T) if T > 128 else T / 2
    assert plain - bridge == pytest.approx(12 * one * (T / 2 - seen), rel=1e-12)


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        Transformer.from_config(tmp_path / "nothing.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        Transformer.from_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="not a mapping"):
        Transformer.from_config(tmp_path)
    with pytest.raises(InputError, match="no 'gpt5'; did you mean gpt3_175b"):
        Transformer.load("gpt5")
    with pytest.raises(InputError, match="unknown field 'width'"):
        Transformer.from_spec("mine", {"transformer": {"width": 3}})
    with pytest.raises(InputError, match="no 'heads'"):
        Transformer.from_spec("mine", {"transformer": {"layers": 1, "d_model": 2}})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: V3.active_params_as("published"), "no 'published'; there are all, no_input_embedding"),
        (lambda: V3.total_params_as("hf"), "no 'hf'"),
        (lambda: V3.training_flops(8, "nanotron"), "convention: no 'nanotron'; there are exact, 6nd"),
        (lambda: V3.forward_flops(8, "half"), "mask: no 'half'; there are full, causal"),
        (lambda: V3.forward_flops(-8), "sequence=-8"),
    ],
)
def test_bad_questions(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("experts", "granularity", "shared", "every"), [(8, 1, 0, 1), (32, 4, 1, 2)])
def test_planning_counts_the_same(experts, granularity, shared, every):
    """The continuous counting rule that sweeps use, at a whole size: the same but for norm gains."""
    from moesim.models.architecture import moe_transformer

    d, layers, active = 1024, 16, 2
    fields = {"aspect": d / layers, "ffn_ratio": 4, "ffn_matrices": 3, "moe_every": every}
    rule = moe_transformer(
        d,
        1 - active / experts,
        active_experts=active,
        granularity=granularity,
        shared_experts=shared,
        vocabulary=32000,
        embeddings=2,
        context=2048,
        attended=0.5,
        **fields,
    )
    width, dense = 4 * d // granularity, layers - layers // every
    moe = {"experts": experts, "active_experts": active, "d_expert": width, "shared_experts": shared}
    model = Transformer(layers, d, 16, 32000, d_ff=4 * d, dense_layers=dense, **moe)
    gains = (2 * layers + 1) * d
    assert rule["total_params"] == pytest.approx(model.total_params - gains, rel=1e-12)
    assert rule["active_params"] == pytest.approx(model.active_params - gains, rel=1e-12)
    assert rule["nonembedding_params"] == pytest.approx(model.total_params_as("no_embedding") - gains, rel=1e-12)
    assert rule["flops_per_token"] == pytest.approx(model.training_flops(2048), rel=1e-12)
