"""moesim flops: its Dataset, table, figures and command line."""

import json
from pathlib import Path

import numpy as np
import pytest

import moesim
from moesim.config import choices
from moesim.counting import figures, tables
from moesim.counting.run import PASSES, Subject, count
from moesim.models.network import Network
from moesim.models.transformer import Transformer

BATCHES = [1.0, 8.0, 64.0]


def only(pattern: str) -> Path:
    (found,) = Path("outputs").rglob(pattern)
    return found


def test_dims_and_units():
    result = count(Network.load("onenet"), BATCHES, ["sgd", 13])
    assert result.flops.dims == ("layer", "pass", "batch", "optimizer")
    assert list(result["pass"].values) == list(PASSES)
    assert list(result.optimizer.values) == ["sgd", "13 FLOP/weight"]
    assert result.flops.attrs["units"] == "FLOP"
    assert result.weights.attrs["units"] == "parameter"
    assert result.flops.dtype == np.float64


def test_dataset_equals_the_stack():
    network = Network.load("deeperconvnet", depth=3)
    result = count(network, BATCHES, ["sgd", "adam"], recompute="full")
    for batch in BATCHES:
        for name in ("sgd", "adam"):
            at = result.sel(batch=batch, optimizer=name)
            passes = network.total(int(batch), optimizer=name, recompute="full")
            assert list(at.flops.sum("layer").values) == list(passes)
            assert at.total_to_forward.item() == pytest.approx(passes.total / passes.forward)
            assert at.backward_to_forward.item() == pytest.approx(
                (passes.total - passes.recompute) / passes.forward - 1
            )


def test_only_the_update_depends_on_the_optimiser_and_not_on_the_batch():
    result = count(Network.load("convnet"), BATCHES, ["sgd", "muon", "adamw_clip"])
    update = result.flops.sel({"pass": "update"})
    rest = result.flops.drop_sel({"pass": "update"})
    assert (rest == rest.isel(optimizer=0)).all()
    assert (rest / rest.batch == rest.isel(batch=0)).all()
    assert (update == update.isel(batch=0)).all()


def test_a_mixture_of_experts():
    model = Transformer.load("mixtral_8x7b")
    result = count(model, BATCHES, ["sgd", "adamw"])
    assert result.tokens_per_expert.values == pytest.approx(np.array(BATCHES) / 4)
    assert result.expert_ratio.sel(batch=8, optimizer="adamw").item() == pytest.approx(3 + 14 / 4)
    assert result.params.sel(params_convention="total: all").item() == 46_702_792_704
    assert result.weights.sum() == model.total_params
    assert result.active_weights.sum() == model.active_params
    experts = result.flops.sel(layer="moe.experts", batch=8, optimizer="sgd").values
    assert experts.sum() / experts[0] == pytest.approx(3 + 2 / 4)


def test_only_touched_experts_are_updated():
    dense, few = (
        count(Transformer.load("mixtral_8x7b"), [1.0, 1e6], touched_only=touched) for touched in (False, True)
    )
    routed = dense.flops.sel(layer="moe.experts", optimizer="sgd").sel({"pass": "update"})
    saved = (dense.flops - few.flops).sum(["layer", "pass", "optimizer"])
    assert saved.values == pytest.approx([0.75 * routed.values[0], 0])


def test_the_table_of_a_net_is_exact():
    text = tables.table(count(Network.load("onenet"), [1, 64]).assign_attrs(names="onenet"))
    for number in ("1,059,328", "1,051,136", "1,067,796", "3.0003", "533,898"):
        assert number in text


def test_deep_nets_are_grouped_in_the_table():
    text = tables.table(count(Network.load("resnet152"), 1).assign_attrs(names="resnet152"))
    assert "layer4" in text
    assert len(text.splitlines()) < 30


def test_figures_of_a_model():
    model = Transformer.load("deepseek_v3")
    drawn = figures.draw(count(model, np.geomspace(1, 1e8, 9), ["sgd", "muon"]))
    assert set(drawn) == {"ratio_by_batch", "flops_by_layer", "expert_update"}
    (panel,) = drawn["expert_update"].axes
    tokens, above = panel.get_lines()[0].get_data()
    assert above == pytest.approx(2 / (2 * tokens))
    (bars,) = drawn["flops_by_layer"].axes
    assert sum(patch.get_width() for patch in bars.patches) == pytest.approx(
        float(model.network().total(1).total) - model.network().total(1).update * (1 - 1e-8), rel=1e-6
    )


def test_flops_on_the_command_line(command):
    code, out, _ = command("flops", "network=onenet", "batch={geomspace: [1, 4096, 13]}", "optimizer=sgd")
    assert code == 0
    assert "3.0003" in out
    assert "1.9925" in out
    result = moesim.open_result(only("result.nc"))
    assert dict(result.sizes) == {"layer": 7, "pass": 5, "batch": 13, "optimizer": 1}
    assert "Hobbhahn" in result.attrs["source"]
    for name in ("ratio_by_batch.png", "flops_by_layer.svg", "config.yaml"):
        assert (only("result.nc").parent / name).stat().st_size > 0


def test_a_reference_model_on_the_command_line(command):
    code, out, _ = command("flops", "model=deepseek_v3", "figures=false", "batch=62914560")
    assert code == 0
    for text in ("671,026,419,200", "2.5045e+11", "moe.experts", "36,625,618,432"):
        assert text in out


def test_a_config_json_on_the_command_line(command, tmp_path):
    modules = json.loads((Path(__file__).parent / "data" / "huggingface.json").read_text())
    config = next(row for row in modules if row["model_type"] == "qwen3_moe")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    code, out, _ = command("flops", "model=mine/config.json", "figures=false")
    assert code == 0
    assert f"{config['parameters']:,}" in out
    code, out, _ = command("flops", "compare=[mine/config.json,onenet]", "batch=[1,64]", "figures=false")
    assert code == 0
    assert "mine" in out


def test_depth_and_updating_on_the_command_line(command):
    code, out, _ = command("flops", "network=deeperconvnet", "depth=[0,1,8]", "batch=1", "optimizer=sgd")
    assert code == 0
    assert "1.5723" in out
    assert "1.6443" in out
    code, out, _ = command(
        "flops", "network=onenet", "updating={fc*: {weight_gradient: 0, update: 0}}", "batch=1", "figures=false"
    )
    assert code == 0
    assert "1 0 0" in " ".join(out.split())


@pytest.mark.parametrize("name", [*choices("network"), *choices("model")])
def test_everything_counts(name):
    subject = Subject(Network.load(name)) if name in choices("network") else Transformer.load(name)
    result = count(subject, [1, 1024], ["adamw", "muon"], counting="pointwise", recompute="blocks")
    assert np.isfinite(result.flops).all()
    assert (result.flops >= 0).all()
    assert (result.total_to_forward > 2).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch=0"], "batch=0 is outside its domain"),
        (["batch=many"], "batch"),
        (["optimizer=adamm"], "optimizer: no 'adamm'; there are sgd"),
        (["counting=macs"], "counting: no 'macs'; there are matmul"),
        (["recompute=some"], "recompute: no 'some'"),
        (["depth=3"], "depth has no effect on a network of fixed depth"),
        (["network=deeperconvnet", "depth=[0.5]"], "depth: [0.5]; it takes whole numbers"),
        (["compare=[onenet,twonet]"], "compare: no network or model 'twonet'"),
        (["updating={fc9: {update: 0}}"], "no layer fits 'fc9'"),
        (["updating={fc1: 0.5}"], "fc1=0.5; it takes a mapping"),
        (["updating={fc1: {update: 2}}"], "update=2"),
        (["model=mixtral_8x7b", "sequence=-1"], "sequence=-1"),
        (["model=mixtral_8x7b", "mask=band"], "mask: no 'band'"),
        (["model=nothing.json"], "model: no 'nothing.json'"),
    ],
)
def test_refusals(command, arguments, message):
    code, _, err = command("flops", "figures=false", *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
