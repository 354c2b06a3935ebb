"""Stacks of layers: the post's nets as exact integers, ResNet and VGG, the one formula, selective updating."""

from itertools import pairwise, permutations

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.models import ratio
from moesim.models.attention import Attention
from moesim.models.feedforward import MLP, Experts, MoE
from moesim.models.layers import Embedding, Linear, Norm, ReLU
from moesim.models.network import RECOMPUTE, Entry, Network
from moesim.models.optimizers import OPTIMIZERS
from moesim.models.ratio import Updating

# Hobbhahn & Sevilla 2021: forward, backward, SGD update at batch 1; backward and update over forward at batch 1, inf.
NETS = {
    "linearnet": (1_234_176_512, 1_235_227_648, 1_234_184_980, 2.0009, 1.00085),
    "onenet": (1_059_328, 2_110_464, 1_067_796, 3.0003, 1.9923),
    "convnet": (275_367_168, 432_720_384, 211_412, 1.5722, 1.5714),
}


@pytest.mark.parametrize("name", NETS)
def test_the_posts_nets(name):
    forward, backward, update, at_one, at_infinity = NETS[name]
    network = Network.load(name)
    passes = network.total(1)
    assert (passes.forward, passes.input_gradient + passes.weight_gradient) == (forward, backward)
    assert (passes.update, passes.recompute) == (update, 0)
    assert all(isinstance(value, int) for value in passes)
    assert network.ratio(1) - 1 == pytest.approx(at_one, abs=5e-5)
    assert network.ratio(10**12) - 1 == pytest.approx(at_infinity, abs=5e-5)
    assert "Hobbhahn" in network.source


def test_layers_of_the_posts_nets():
    linear, conv = Network.load("linearnet").flops(1), Network.load("convnet").flops(1)
    assert [linear[n].forward for n in ("fc1", "fc2", "fc3")] == [1_233_125_376, 1_048_576, 2_560]
    assert [conv[n].forward for n in ("conv1", "conv2", "fc")] == [118_013_952, 157_351_936, 1_280]


@pytest.mark.parametrize(("depth", "forward", "backward_ratio"), [(0, 275.4e6, 1.5723), (1, 331.1e6, 1.6443)])
def test_deeper_convnet(depth, forward, backward_ratio):
    """The intermediate layer is applied again and again and updated once: 229,844 FLOP at every depth."""
    network = Network.load("deeperconvnet", depth=depth)
    assert network.total(1).forward == pytest.approx(forward, rel=2e-4)
    assert network.total(1).update == 229_844
    assert network.ratio(1) - 1 == pytest.approx(backward_ratio, abs=5e-5)


# Exact backward/forward ratios (for resnet18 and resnet50 as derived from the definitions), parameters of torchvision.
DEEP = {
    "resnet18": (1.935, 11_689_512),
    "resnet34": (1.968, 21_797_672),
    "resnet50": (1.971, 25_557_032),
    "resnet101": (1.985, 44_549_160),
    "resnet152": (1.990, 60_192_808),
    "vgg11": (1.989, 132_863_336),
    "vgg13": (1.992, 133_047_848),
    "vgg16": (1.994, 138_357_544),
    "vgg19": (1.996, 143_667_240),
}


@pytest.mark.parametrize("name", DEEP)
def test_resnet_and_vgg(name):
    network, (backward_forward, weights) = Network.load(name), DEEP[name]
    passes = network.total(1)
    assert network.weights == weights
    assert (passes.input_gradient + passes.weight_gradient) / passes.forward == pytest.approx(
        backward_forward, abs=5e-4
    )
    assert name.startswith("vgg") or network.ratio(1) < 3  # the post's bars above 2 are profiler errors


def test_resnet_ratios_to_four_digits():
    for name, expected in {"resnet18": 1.9349, "resnet50": 1.9711}.items():
        assert Network.load(name).ratio(10**9) - 1 == pytest.approx(expected, abs=5e-5)


def linears(*sizes, bias=False):
    return Network.of("linears", *(Linear(i, o, bias) for i, o in pairwise(sizes)))


@pytest.mark.parametrize("counting", ["matmul", "pointwise", "scalar"])
def test_additive_over_layers_and_copies(counting):
    block = [Linear(8, 16), ReLU(16), Linear(16, 8)]
    network = Network.of("net", *block)
    rows = network.flops(5, counting=counting)
    assert network.total(5, counting=counting) == tuple(map(sum, zip(*rows.values(), strict=True)))
    twice = Network("twice", (Entry("a", Linear(8, 8), copies=2),)).total(5, counting=counting)
    apart = Network.of("apart", Linear(8, 8), Linear(8, 8)).total(5, counting=counting)
    assert twice == apart


def test_permutation_after_the_first_layer_changes_nothing():
    first, *rest = Linear(5, 7), MLP(12, 20), MoE(12, 6, 8, 2), Attention(12, 4, context=9), Norm(12)
    totals = {Network.of("net", first, *order).total(11, optimizer="muon") for order in permutations(rest)}
    assert len(totals) == 1


def test_weight_sharing_is_computed_often_and_updated_once():
    once, thrice = (Network("n", (Entry("a", Linear(8, 8), applied=n),)).total(5) for n in (1, 3))
    assert thrice.forward == 3 * once.forward
    assert thrice.weight_gradient == 3 * once.weight_gradient
    assert thrice.input_gradient == 2 * Linear(8, 8).flops(5).input_gradient  # not for the first application
    assert thrice.update == once.update


def test_a_batch_of_arrays_equals_a_loop():
    network, batches = Network.load("convnet"), np.array([1.0, 3.0, 64.0])
    together = network.total(batches, optimizer="adam", counting="scalar")
    for i, batch in enumerate((1, 3, 64)):
        alone = network.total(batch, optimizer="adam", counting="scalar")
        assert [np.broadcast_to(value, 3)[i] for value in together] == pytest.approx(list(alone), rel=1e-15)


@pytest.mark.parametrize("counting", ["matmul", "scalar"])
def test_deep_linear_net_at_batch_one(counting):
    """3:1 with 2 FLOP per multiply-add, 2.5:1 if every scalar is counted (SGD): 2 + (u - 1)/(2 B)."""
    width, depth = 2000, 40
    network = linears(*[width] * (depth + 1), bias=True)
    expected = {"matmul": 3.0, "scalar": 2.5}[counting]
    assert network.ratio(1, counting=counting) - 1 == pytest.approx(expected, abs=2.5 / depth)


def test_the_posts_four_cases():
    """2:1 and 1:1 with a dominant first layer, 3:1 and 2:1 with dominant other layers (big and small update)."""
    for first, update, expected in ((1, 0.5, 2), (1, 0, 1), (0, 0.5, 3), (0, 0, 2)):
        one = ratio.total_to_forward(1, update=2 * update, weights_per_flop=1, first=first)
        assert one - 1 == expected
    network = Network.load("onenet")
    first, *_ = network.flops(1).values()
    passes = network.total(1)
    exact = (first.forward + 2 * (passes.forward - first.forward) + passes.update) / passes.forward
    assert exact == pytest.approx(network.ratio(1) - 1, rel=1e-15)


@pytest.mark.parametrize("name", ["sgd", "adam", "adam_post"])
@pytest.mark.parametrize("batch", [1, 64, 10**6])
@pytest.mark.parametrize("net", ["linearnet", "convnet", "deeperconvnet", "resnet50"])
def test_one_formula(net, batch, name):
    """total/forward = 3 - phi + r + u P/(B F), from the stack's own phi, P and F."""
    network, u = Network.load(net), OPTIMIZERS[name].per_weight
    passes = network.total(1)
    phi = 1 - passes.input_gradient / passes.forward
    expected = ratio.total_to_forward(
        batch, update=u, weights_per_flop=network.weights / passes.forward, first=phi, recomputed=1
    )
    assert network.ratio(batch, optimizer=name, recompute="full") == pytest.approx(expected, rel=1e-12)


# Excess table: total/forward of one expert with u FLOP per weight and b tokens per step.
EXPERT = {2: (4.00, 3.10, 3.01), 4: (5.00, 3.20, 3.02), 13: (9.50, 3.65, 3.065), 18: (12.00, 3.90, 3.09)}


@pytest.mark.parametrize("u", EXPERT)
def test_expert_approaches_three_from_above(u):
    assert ratio.expert(np.array([1, 10, 100]), update=u) == pytest.approx(EXPERT[u], rel=1e-12)
    assert ratio.tokens_for(0.01, update=u) == pytest.approx(50 * u)
    expert = Network("e", (Entry("in", Embedding(9, 64)), Entry("e", MLP(64, 96))))
    rows = expert.flops(100, optimizer=u)["e"]
    assert rows.total / rows.forward == pytest.approx(3 + u / 200, rel=1e-12)


def test_touched_experts_only():
    """3 + (u/(2b)) (1 - (1 - K/E)^B), never above 3 + u/2: 4 for SGD, 12 for the post's Adam."""
    experts = np.array([4, 16, 64, 256, 1024])
    few = ratio.touched_only(256, experts, 1, update=13)
    tokens = ratio.tokens_per_expert(256, experts, 1)
    assert few == pytest.approx(3 + 13 / (2 * tokens) * (1 - (1 - 1 / experts) ** 256))
    assert (few <= 3 + 13 / 2).all()
    assert [ratio.touched_only(1, 10**6, 1, update=u) for u in (2, 18)] == pytest.approx([4, 12])
    layer = Experts(32, 48, 16, 1)
    network = Network("n", (Entry("in", Embedding(9, 32)), Entry("x", layer)))
    rows = network.flops(256, optimizer=13, touched_only=True)["x"]
    assert rows.total / rows.forward == pytest.approx(ratio.touched_only(256, 16, 1, update=13), rel=1e-12)


def test_excess_of_trained_models():
    """rho - 3 with u = 18: 5.6e-7 (Llama 3.1 405B, B = 16M) and 2.6e-6 (DeepSeek-V3); Muon there 1.2 %."""
    llama = ratio.total_to_forward(16e6, update=18) - 3
    deepseek = ratio.total_to_forward(62_914_560, update=18, weights_per_flop=671.03 / 36.62 / 2) - 3
    tokens = ratio.tokens_per_expert(62_914_560, 256, 8)
    assert llama == pytest.approx(5.6e-7, rel=0.01)
    assert deepseek == pytest.approx(2.6e-6, rel=0.02)
    assert tokens == pytest.approx(1.97e6, rel=2e-3)
    assert ratio.expert(tokens, update=46_811) - 3 == pytest.approx(0.012, rel=0.02)
    assert ratio.tokens_for(update=46_811) == pytest.approx(2.34e6, rel=1e-3)


def block():
    layers = (Attention(32, 4, context=24), MLP(32, 48))
    return Network("block", (Entry("in", Embedding(9, 32)), *(Entry(f"l{i}", x) for i, x in enumerate(layers))))


def test_recompute():
    """Full: 4/3 of forward and backward; torch's checkpoint leaves out the last product of the block."""
    network = block()
    plain = network.total(7)
    down = 2 * 32 * 48 * 7
    factor = {name: network.total(7, recompute=name) for name in RECOMPUTE}
    assert factor["none"].recompute == 0
    assert factor["full"].recompute == plain.forward
    assert factor["checkpoint"].recompute == plain.forward - down
    assert factor["core"].recompute == 4 * 4 * 8 * 24 * 7
    assert factor["flash"].recompute == 2 * 4 * 8 * 24 * 7


def test_nothing_trained_upstream_saves_the_qkv_gradient():
    """backward/forward = 2 - qkv/forward if the embedding and norm before a block are frozen."""
    network = block().with_updating({"in": Updating(0, 0)})
    passes = network.total(1)
    qkv = 2 * 3 * 32 * 32
    assert (passes.input_gradient + passes.weight_gradient) / passes.forward == pytest.approx(2 - qkv / passes.forward)


def test_selective_updating_spans_one_to_beyond_three():
    network = linears(16, 16, 16)
    everything = network.ratio(1)
    frozen = network.with_updating({"*": Updating(0, 0, 0)})
    assert frozen.ratio(1) == 1
    half = network.with_updating({"*": Updating(0.5, 0.5, 0.5)})
    assert half.total(4).weight_gradient == 0.5 * network.total(4).weight_gradient
    assert half.total(4).update == 0.5 * network.total(4).update
    assert half.total(4).input_gradient == 0.5 * network.total(4).input_gradient
    assert half.ratio(1) == ratio.total_to_forward(1, update=2, first=0.5, updating=Updating(0.5, 0.5, 0.5))
    assert 1 < half.ratio(1) < everything
    assert network.ratio(1, optimizer="adam_post", recompute="full") > 5
    last = network.with_updating({"linear1": Updating(0, 0)}).total(3)
    assert (last.input_gradient, last.weight_gradient) == (0, last.forward / 2)


def test_selective_updating_of_an_expert():
    share = Updating(weight_gradient=0.25, update=0.1, input_gradient=1)
    assert ratio.expert(50, update=18, updating=share) == pytest.approx(1 + 1 + 0.25 + 0.1 * 18 / 100)
    assert ratio.expert(50, update=18, updating=Updating(0, 0, 0)) == 1
    shares = np.array([0.0, 0.5, 1.0])
    assert ratio.expert(50, update=18, updating=Updating(shares, shares, shares)) == pytest.approx(1 + shares * 2.18)
    network = Network("n", (Entry("in", Embedding(9, 64)), Entry("moe", MoE(64, 96, 8, 2))))
    rows = network.with_updating({"moe": {"weight_gradient": 0.25, "update": 0.1}}).flops(200, optimizer=18)
    row = rows["moe.experts"]
    assert row.total / row.forward == pytest.approx(ratio.expert(50, update=18, updating=share))


def test_layers_from_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "input: 32\nparameters: {width: 48, n: 3}\nlayers:\n"
        "  - {attention: {heads: 4, context: 24}, copies: n}\n"
        "  - {name: ffn, mlp: {d_ff: width}, updating: {update: 0.5}}\n"
        "  - {unembedding: {vocabulary: 100}}\n"
    )
    network = Network.load(path, n=2)
    assert network.weights == 2 * 4 * 32 * 32 + 3 * 32 * 48 + 3200
    assert network.entries[1].updating.update == 0.5
    assert list(network.flops(1)) == ["attention1.projections", "attention1.core", "ffn", "unembedding3"]


BAD = [
    ({"layers": ["relu"]}, "input=None"),
    ({"input": 0, "layers": ["relu"]}, "input"),
    ({"input": [3, 4], "layers": ["relu"]}, "a width or"),
    ({"input": 3, "layers": []}, "layers=\\[\\]"),
    ({"input": 3, "layers": ["rely"]}, "no layer 'rely'; there are linear, conv2d"),
    ({"input": 3, "layers": [{"linear": {"outputs": 3}, "relu": {}}]}, "is not a layer"),
    ({"input": 3, "layers": [{"linear": {}}]}, "no value for 'outputs'"),
    ({"input": 3, "layers": [{"linear": {"output": 3}}]}, "unknown setting 'output'; it takes outputs, bias"),
    ({"input": 3, "layers": [{"conv2d": {"outputs": 3, "kernel": 1}}]}, "channels, height, width"),
    ({"input": 3, "layer": []}, "unknown key 'layer'"),
    ({"input": 3, "width": 4, "layers": ["relu"]}, "no layer uses the parameter 'width'"),
    ({"input": 3, "parameters": {"width": 4}, "layers": ["relu"]}, "no layer uses the parameter 'width'"),
    ({"input": 3, "width": "4", "layers": [{"linear": {"outputs": "width"}}]}, "unknown key 'width'"),
    ({"input": 3, "layers": [{"fff": {"depth": -1}}]}, "depth=-1; it takes a whole number, 0 or more"),
    ({"input": 3, "layers": [{"fff": {"depth": 99}}]}, "depth=99; it takes a whole number from 0 to 60"),
    ({"input": 3, "layers": [{"fff": {"depth": 2, "leaf_width": 0}}]}, "leaf_width=0"),
    ({"input": 3, "layers": [{"fff": {"depth": 2, "hard": 1}}]}, "hard=1; it takes true or false"),
    ({"input": 3, "layers": ["relu", {"relu": {}, "name": "relu1"}]}, "two layers are called 'relu1'"),
    ({"input": 3, "layers": [{"relu": {}, "copies": -1}]}, "copies=-1"),
    ({"input": 3, "layers": [{"relu": {}, "updating": {"updates": 1}}]}, "unknown key 'updates'"),
    ({"input": 3, "layers": [{"relu": {}, "updating": {"update": 2}}]}, "update=2; it takes a number from 0 to 1"),
]


@pytest.mark.parametrize(("spec", "message"), BAD)
def test_bad_descriptions(spec, message):
    with pytest.raises(InputError, match=message):
        Network.from_spec("net", spec)


def test_bad_settings():
    network = Network.load("onenet")
    with pytest.raises(InputError, match="no layer fits 'moe'; there are fc1"):
        network.with_updating({"moe": Updating(0, 0)})
    with pytest.raises(InputError, match="recompute: no 'all'; there are none, full"):
        network.total(1, recompute="all")
    with pytest.raises(InputError, match="unknown key 'depth'"):
        Network.load("onenet", depth=3)
    with pytest.raises(InputError, match="no 'twonet'; did you mean onenet"):
        Network.load("twonet")
    with pytest.raises(InputError, match="batch=0"):
        ratio.expert(0, update=2)
