"""moesim.flops: steps and runs in one number, sequences as an axis, expert columns, what modules compute."""

import inspect
import json
from pathlib import Path

import pytest
import xarray as xr
import yaml

import moesim
from moesim.config import conf_dir
from moesim.counting import figures, tables
from moesim.counting.run import flops
from moesim.errors import InputError
from moesim.models.conventions import CONVENTIONS
from moesim.models.network import Network
from moesim.models.transformer import Transformer

MODULES = json.loads((Path(__file__).parent / "data" / "huggingface.json").read_text())
EXPERTS = [
    ({}, 3 + 14 / 4, 2 + 14 / 4),
    ({"recompute": "full"}, 4 + 14 / 4, 2 + 14 / 4),
    ({"touched_only": True}, 3 + 14 / 4 * (1 - 0.75**8), 2 + 14 / 4 * (1 - 0.75**8)),
    ({"updating": {"moe": {"weight_gradient": 0.25, "update": 0.1}}}, 2.25 + 1.4 / 4, 1.25 + 1.4 / 4),
]


def test_figures_draw_what_the_run_counts():
    """Of two batches both are seen, in any order; the law of updates is not drawn where it does not hold."""
    for batch in ([1, 65_536], [65_536, 1]):
        drawn = figures.draw(flops(["llama3_8b", "mixtral_8x7b"], batch=batch, optimizer="sgd"))["ratio_by_batch"]
        curves = drawn.axes[0].get_lines()[3:]
        assert [list(curve.get_xdata()) for curve in curves] == [[1, 65_536]] * 2
    for settings, *_ in EXPERTS:
        drawn = figures.draw(flops("mixtral_8x7b", batch=[1, 8, 4096], **settings))
        assert ("expert_update" in drawn) == (settings.keys() <= {"touched_only"}), settings


@pytest.mark.parametrize(("settings", "total", "backward"), EXPERTS)
def test_the_expert_columns_hold_what_is_asked_for(settings, total, backward):
    """b = 8 K/E = 2 tokens: u/(2 b) = 14/4."""
    found = flops("mixtral_8x7b", batch=8, optimizer="adamw", **settings)
    assert found.tokens_per_expert.item() == 2
    assert found.expert_ratio.item() == pytest.approx(total)
    assert found.expert_backward.item() == pytest.approx(backward)
    assert found.expert_update.item() == 14
    shown = total - 1 if "recompute" in settings else backward
    assert tables.table(found).split()[-1] == f"{shown:.5g}"


def test_step_and_run_in_one_number():
    model = Transformer.load("deepseek_v3")
    found = flops(model, batch=[1, 62_914_560], optimizer="sgd", tokens=[1e12, 14.8e12])
    assert found.step_flops.values[:, 0] == pytest.approx(found.flops.sum(["layer", "pass", "optimizer"]).values)
    assert found.run_flops.dims == ("convention", "tokens")
    for convention in CONVENTIONS:
        expected = 14.8e12 * model.training_flops(4096, convention)
        assert found.run_flops.sel(convention=convention, tokens=14.8e12).item() == pytest.approx(expected, rel=1e-15)
    assert found.run_flops.sel(convention="exact", tokens=14.8e12).item() == pytest.approx(3.71e24, rel=2e-3)
    assert "3.7067e+24" in tables.table(found)
    assert flops(model, batch=1, tokens=2.0).run_flops.dims == ("convention",)


def test_sequence_is_an_axis():
    found = flops(["llama3_8b", "gpt_oss_20b"], batch=4, optimizer="sgd", sequence=[1024, 8192], tokens=1e12)
    for name in ("llama3_8b", "gpt_oss_20b"):
        for length in (1024, 8192):
            at = found.sel(network=name, sequence=length)
            assert at.flops_per_token.sel(convention="exact").item() == Transformer.load(name).training_flops(length)
    assert "sequence" not in found.weights.dims
    assert "flops_by_sequence" in figures.draw(found)
    text = tables.table(found)
    for told in ("tokens per sequence", "8192", "20,914,757,184", "run of 1e12"):
        assert told in text


def test_the_table_says_at_which_length():
    text = tables.table(flops("mixtral_8x7b", batch=4, optimizer="sgd", sequence=[1024, 8192], tokens=1e12))
    for told in ("step at batch 4, sgd, 8192 tokens per sequence", "without updates, 8192 tokens per sequence"):
        assert told in text


def test_reference_models_as_executed():
    """Both counts of the models that the module computes otherwise, by their names."""
    for name in ("llama4_maverick", "qwen3_next_80b_a3b"):
        trained, executed = (
            flops(name, batch=1, sequence=100, as_=form).step_flops for form in ("trained", "executed")
        )
        assert (executed > trained).all()


def test_several_side_by_side():
    text = tables.table(flops(["onenet", "mixtral_8x7b"], batch=64, optimizer="sgd", tokens=1e12))
    for number in ("533,898", "46,702,792,704", "12,879,925,248", "1,059,328", "7.9713e+22"):
        assert number in text


def test_what_the_module_computes():
    """Every expert of Llama 4 computes every token; the delta rule of Qwen3-Next works in whole chunks of 64."""
    scout = Transformer.from_config(next(row for row in MODULES if row["model_type"] == "llama4"))
    more = scout.forward_flops(0, form="executed") - scout.forward_flops()
    assert more == 6 * scout.d_model * scout.d_expert * (scout.experts - scout.active_experts) * scout.moe_layers
    trained, executed = (
        flops(scout, batch=1, optimizer="sgd", sequence=0, as_=form).flops.sel({"pass": "forward"}).sum().item()
        for form in ("trained", "executed")
    )
    assert executed - trained == more
    delta = Transformer.from_config(next(row for row in MODULES if row["model_type"] == "qwen3_next"))
    heads, k, v = delta.linear_value_heads, delta.linear_key_dim, delta.linear_value_dim
    for sequence, rows in ((128, 1), (65, 128 / 65), (1, 64)):
        more = delta.forward_flops(sequence, form="executed") - delta.forward_flops(sequence)
        solved = (64 - 1) / 2 * (k + v)
        chunked = rows * 2 * (2 * 64 * k + 64 * v + solved + 3 * k * v)
        assert more == pytest.approx(delta.linear_layers * heads * (chunked - 6 * k * v), rel=1e-12)
    dense = Transformer.load("llama3_8b")
    assert dense.forward_flops(4096, form="executed") == dense.forward_flops(4096)


def test_names_objects_and_defaults_are_those_of_the_command_line(command):
    defaults = yaml.safe_load((conf_dir() / "flops.yaml").read_text())
    for name, parameter in inspect.signature(flops).parameters.items():
        if name not in ("model", "chip", "clock"):  # a group of files; its keys: test_flops_clock.py
            value = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            assert defaults[name.rstrip("_")] == value
    code, _, _ = command("flops", "model=mixtral_8x7b", "tokens=1e12", "figures=false")
    assert code == 0
    (path,) = Path("outputs").rglob("result.nc")
    told = moesim.open_result(path)
    for mine in (flops("mixtral_8x7b", tokens=1e12), flops(Transformer.load("mixtral_8x7b"), tokens=1e12)):
        xr.testing.assert_equal(mine, told)
        assert mine.attrs["verb"] == "flops"
        assert mine.flops.attrs["units"] == "FLOP"
    assert flops(Network.load("onenet"), batch=1).equals(flops("onenet", batch=1))
    assert dict(flops("deeperconvnet", depth=[0, 2], batch=1).sizes)["depth"] == 2
    assert flops(dict(MODULES[0]), batch=1).params[0] == MODULES[0]["parameters"]


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("onenet", {"tokens": 1e9}, "tokens: .* of a network"),
        ("onenet", {"mtp": True}, "mtp: True of a network"),
        ("onenet", {"as_": "executed"}, "as: 'executed' of a network"),
        ("onenet", {"sequence": [4096]}, "sequence: .4096. of a network"),
        ("onenet", {"sequence": 10}, "sequence: 10 of a network"),
        ("onenet", {"mask": "full"}, "mask: 'full' of a network"),
        ("mixtral_8x7b", {"touched_only": "yes"}, "touched_only='yes'; it takes true or false"),
        ("mixtral_8x7b", {"mtp": True}, "mtp: true of a model without prediction modules"),
        ("mixtral_8x7b", {"depth": 3}, "depth: 3 of a model"),
        ("mixtral_8x7b", {"as_": "run"}, "as: no 'run'; there are trained, executed"),
        ("mixtral_8x7b", {"sequence": 1.5}, "sequence: 1.5; it takes whole numbers"),
        ("mixtral_8x7b", {"tokens": 0}, "tokens=0 is outside its domain"),
        ("mixtral_8x7", {}, "no network or model 'mixtral_8x7'"),
    ],
)
def test_questions_without_an_answer(model, settings, message):
    with pytest.raises(InputError, match=message):
        flops(model, **settings)
