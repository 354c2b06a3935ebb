"""Layers: what they hold and compute, against the post's tables, printed formulas and properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.models.attention import Attention, Indexer, LatentAttention, keys_seen
from moesim.models.feedforward import MLP, Experts, MoE, Router
from moesim.models.layers import Conv2d, Embedding, GlobalAverage, Linear, Loss, Norm, Pool, ReLU, Unembedding
from moesim.models.network import Network
from moesim.models.recurrent import DeltaNet, Mamba, Mamba2
from moesim.models.residual import AltUp, Laurel
from moesim.models.tree import FFF

SIZE = st.integers(1, 10**6)
EVERY = [
    Linear(7, 5),
    Conv2d(4, 6, 3, (9, 8), stride=2, padding=1, groups=2),
    ReLU(11),
    Pool(4, (9, 8), 3, 2, 1),
    GlobalAverage(4, (9, 8)),
    Norm(12, bias=True),
    Loss(10),
    Embedding(50, 12),
    Unembedding(12, 50),
    Attention(12, 4, 2, 5, context=32, qkv_bias=True, qk_norm="head", gate=True, sinks=True),
    LatentAttention(12, 4, 6, 5, 4, 2, 3, context=32),
    DeltaNet(12, 2, 4, 3, 5),
    DeltaNet(12, 2, 4, 3, 5, chunk=8, sequence=20),
    Mamba2(12, 4, 6, 8, 2, chunk=8, sequence=20),
    AltUp(12, 3),
    Laurel(12, 5),
    Mamba(12, 24, 8, 3, bias=True, norms=True),
    Mamba2(12, 4, 6, 8, 2, bias=True),
    Indexer(12, 6, 2, 4, 10),
    Attention(12, 4, 2, context=6, qkv_bias=True, qk_norm="head", kv_projections=1),
    MoE(12, 6, 4, 3, zero_experts=2, router_scales=True, latent=5, latent_bias=True),
    MLP(12, 20, bias=True),
    Router(12, 8),
    Experts(12, 6, 8, 2),
    MoE(12, 6, 8, 2, shared_experts=1, shared_gate=True, selection_bias=True),
    FFF(12, 3, 2, 5, outputs=7),
    FFF(12, 3, 1, 5),
]


@pytest.fixture(params=EVERY, ids=lambda layer: type(layer).__name__)
def layer(request):
    return request.param


@settings(max_examples=30)
@given(inputs=SIZE, h1=SIZE, h2=SIZE, out=SIZE, batch=st.integers(1, 999))
def test_the_posts_table_of_operations(inputs, h1, h2, out, batch):
    """Hobbhahn & Sevilla 2021, table of a three-layer net: per image but for the update."""
    stack = [
        Linear(inputs, h1, bias=False),
        ReLU(h1),
        Linear(h1, h2, bias=False),
        ReLU(h2),
        Linear(h2, out, bias=False),
        ReLU(out),
        Loss(out),
    ]
    rows = list(Network.of("post", *stack).flops(batch, counting="pointwise").values())
    forward = [2 * inputs * h1, h1, 2 * h1 * h2, h2, 2 * h2 * out, out, out]
    weight_gradient = [2 * inputs * h1, 0, 2 * h1 * h2, 0, 2 * h2 * out, 0, 0]
    input_gradient = [0, h1, 2 * h1 * h2, h2, 2 * h2 * out, out, out]
    assert [row.forward for row in rows] == [batch * n for n in forward]
    assert [row.weight_gradient for row in rows] == [batch * n for n in weight_gradient]
    assert [row.input_gradient for row in rows] == [batch * n for n in input_gradient]
    assert sum(row.update for row in rows) == 2 * (inputs * h1 + h1 * h2 + h2 * out)


@settings(max_examples=30)
@given(i=SIZE, o=SIZE, batch=st.integers(1, 999))
def test_exact_scalar_count_of_a_linear_layer(i, o, batch):
    """A comment of "toph" under the post: a sum of n products has n - 1 adds; at batch 1 dW has none."""
    passes = Linear(i, o).flops(batch, counting="scalar")
    assert passes.forward == 2 * i * o * batch
    assert passes.input_gradient == (2 * o - 1) * i * batch
    assert passes.weight_gradient == (2 * batch - 1) * i * o + (batch - 1) * o
    assert passes.update == 2 * (i * o + o)


def test_convolution():
    """2 K K C H' W' D per image, FLOP per weight 2 H' W' (the post, as corrected in its comments)."""
    layer = Conv2d(3, 32, 7, (224, 224), stride=2, padding=3, bias=False)
    assert layer.map == (112, 112)
    assert layer.flops(1).forward == 2 * 7 * 7 * 3 * 112 * 112 * 32 == 118_013_952
    assert layer.flops(1).forward == 2 * 112 * 112 * layer.weights
    first = layer.flops(1, first=True)
    assert (first.input_gradient, first.weight_gradient) == (0, first.forward)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_divide_weights_and_flops(groups):
    whole, split = Conv2d(8, 16, 3, (10, 10), bias=False), Conv2d(8, 16, 3, (10, 10), groups=groups, bias=False)
    assert split.weights * groups == whole.weights
    assert split.flops(5).forward * groups == whole.flops(5).forward


def test_backward_is_twice_forward_unless_it_is_the_first_layer(layer):
    passes = layer.flops(17)
    assert passes.input_gradient + passes.weight_gradient == 2 * passes.forward
    assert layer.flops(17, first=True).input_gradient <= passes.input_gradient


@pytest.mark.parametrize("counting", ["matmul", "pointwise"])
def test_linear_in_the_batch_but_for_the_update(layer, counting):
    one, many = (layer.flops(n, counting=counting) for n in (1, 23))
    assert many[:3] == pytest.approx([23 * value for value in one[:3]], rel=1e-14)
    assert many.update == one.update


def test_pointwise_work_only_adds(layer):
    matmul, pointwise, scalar = (layer.flops(3, counting=c) for c in ("matmul", "pointwise", "scalar"))
    assert all(more >= less for more, less in zip(pointwise, matmul, strict=True))
    assert all(less <= more for less, more in zip(scalar, pointwise, strict=True))


def test_parts_add_up(layer):
    parts = [part.flops(9) for part in layer.parts.values()]
    assert tuple(map(sum, zip(*parts, strict=True))) == layer.flops(9)
    assert sum(part.weights for part in layer.parts.values()) == layer.weights


def test_attention_formulas():
    """2 d d_h (2H + 2H_kv) and 4 H d_h T; multi-query with as few keys as one head."""
    d, heads, kv, head_dim, context = 96, 8, 2, 16, 100
    parts = Attention(d, heads, kv, head_dim, context).parts
    assert parts["projections"].flops(1).forward == 2 * d * head_dim * (2 * heads + 2 * kv)
    assert parts["core"].flops(1).forward == 4 * heads * head_dim * context
    assert parts["core"].weights == 0
    assert Attention(d, heads).head_dim == d // heads
    assert Attention(d, heads, 1).weights == d * d * 2 + 2 * d * d // heads


def test_latent_attention_formula():
    """DeepSeek-V3: 2 [d r_q + r_q H (d_n + d_r) + d (r_kv + d_r) + r_kv H (d_n + d_v) + H d_v d]; gains r_q + r_kv."""
    d, H, rq, rkv, n, r, v = 7168, 128, 1536, 512, 128, 64, 128
    layer = LatentAttention(d, H, rq, rkv, n, r, v, context=10)
    weights = d * rq + rq * H * (n + r) + d * (rkv + r) + rkv * H * (n + v) + H * v * d
    assert layer.weights == weights + rq + rkv
    assert layer.flops(1).forward == 2 * weights + 2 * H * (n + r + v) * 10
    assert LatentAttention(d, H, 0, rkv, n, r, v).weights == weights - d * rq - rq * H * (n + r) + d * H * (n + r) + rkv


BY_HAND = [
    (Mamba(4, 8, 2, 3), 248, 2 * (64 + 32 + 56 + 24 + 32) + 4 * 8 * 2),
    (Mamba(4, 8, 2, 3, kernel_bias=False, norms=True, bias=True), 248 - 8 + 3 + 4 + 16 + 4, 480),
    (Mamba2(4, 2, 4, 2), 88 + 32 + 48 + 6 + 8 + 12, 2 * (88 + 48 + 32) + 4 * 8 * 2),
    (Mamba2(4, 2, 4, 2, chunk=4, sequence=6), 194, 2 * (168 + 8 / 6 * 2 * (4 * 6 + 2 * 8) + 9 / 6 * 2 * 8)),
    (DeltaNet(4, 1, 2, 3, 5, chunk=4, sequence=6), 4 * 26 + 4 * 4 + 40 + 16 * 4 + 9, None),
    (Indexer(4, 3, 2, 5, 10), 30 + 20 + 8 + 10, 2 * (30 + 20 + 8 + 100 + 20)),
    (AltUp(4, 2), 28, 2 * (8 + 8 + 8 + 4 + 16)),
    (Laurel(4, 2), 20, 32),
    (Attention(4, 2, 1, context=10, kv_projections=1), 16 + 8 + 16, 2 * 40 + 4 * 4 * 10),
    (Attention(4, 2, 1, context=10, kv_projections=0, qk_norm="head"), 16 + 16 + 2, 2 * 32 + 4 * 4 * 10),
    (Experts(4, 3, 4, 2, zero_experts=4), 4 * 36, 2 * 36),
    (Experts(4, 3, 4, 2, every=True), 4 * 36, 2 * 4 * 36),
    (Experts(4, 3, 4, 2, latent=2, latent_bias=True), 4 * 18 + 16 + 6, 2 * (2 * 18 + 16)),
    (Router(4, 6, selection_bias=True, scales=True), 24 + 6 + 4 + 6, 48),
]


@pytest.mark.parametrize(("layer", "weights", "forward"), BY_HAND)
def test_numbers_on_paper(layer, weights, forward):
    """Weights and forward FLOP per token, each product written out."""
    assert layer.weights == weights
    if forward is None:  # 2 value heads, 8 of 6 tokens padded; the solve for 8 columns takes 3/2 per row
        within = 8 / 6 * 2 * (2 * 3 * 4 + 1.5 * 8 + 4 * 5 + 3 * 15)
        forward = 2 * (4 * 26 + 4 * 4 + 16 * 4 + 40 + within)
    assert layer.flops(1).forward == pytest.approx(forward, rel=1e-14)


def test_keys_seen():
    assert keys_seen(4096, "full") == 4096
    assert keys_seen(4096) == 2048
    assert keys_seen(4096, "causal_diagonal") == 2048.5
    assert keys_seen(4096, "full", window=128) == 4096
    for T, w in ((4096, 128), (100, 30), (7, 7), (5, 9)):
        exact = sum(min(t, w) for t in range(1, T + 1)) / T
        assert keys_seen(T, "causal_diagonal", window=w) == pytest.approx(exact, rel=1e-14)
    for T, c in ((10, 4), (12, 4), (3, 8)):
        exact = sum(t % c + 1 for t in range(T)) / T
        assert keys_seen(T, "causal_diagonal", chunk=c) == pytest.approx(exact, rel=1e-14)
        assert keys_seen(T, "causal", chunk=c) == pytest.approx(exact - 0.5, rel=1e-14)
    assert keys_seen(4096, window=128) == pytest.approx(128 - 128**2 / 8192)


def test_moe_formula():
    """2 d E for the router and 6 d (K f_e + f_shared); every expert's weights are held."""
    d, f, E, K, shared = 7168, 2048, 256, 8, 2048
    layer = MoE(d, f, E, K, shared_experts=1)
    assert layer.flops(1).forward == 2 * d * E + 6 * d * (K * f + shared)
    assert layer.weights == d * E + 3 * d * (E * f + shared)
    assert layer.active_weights == d * E + 3 * d * (K * f + shared)
    router, routed = (layer.parts[part].flops(1).forward for part in ("router", "experts"))
    assert router / routed == pytest.approx(E / (3 * K * f)) == pytest.approx(0.0052, abs=5e-5)  # DeepSeek-V3


@pytest.mark.parametrize("granularity", [1, 2, 4, 8])
def test_granularity_leaves_routed_work_and_weights_unchanged(granularity):
    coarse = MoE(64, 96, 4, 1, shared_experts=1)
    fine = MoE(64, 96 // granularity, 4 * granularity, granularity, shared_experts=1, d_shared=96)
    for part in ("experts", "shared"):
        assert fine.parts[part].flops(10)[:3] == coarse.parts[part].flops(10)[:3]
        assert fine.parts[part].weights == coarse.parts[part].weights
    assert fine.parts["router"].flops(1).forward == granularity * coarse.parts["router"].flops(1).forward


def test_padding_dispatch_and_latent_width():
    plain = Experts(64, 96, 16, 2)
    forward = plain.flops(1).forward
    assert Experts(64, 96, 16, 2, capacity=1.25).flops(1).forward == 1.25 * forward
    # GShard's one-hot einsum: dispatch and combine cost 4 c K T d per token, 2 c T/(3 f) of the experts.
    einsum = Experts(64, 96, 16, 2, capacity=1.5, einsum_group=48).flops(1).forward
    assert einsum - 1.5 * forward == 4 * 1.5 * 2 * 48 * 64
    assert (einsum - 1.5 * forward) / forward == pytest.approx(2 * 1.5 * 48 / (3 * 96))
    # Backward: the gradient of the tokens in dispatch, those of outputs and weights in combine; the mask has none.
    einsum = Experts(64, 96, 16, 2, einsum_group=48).flops(1)
    assert einsum.input_gradient - plain.flops(1).input_gradient == 3 * (2 * 2 * 48 * 64)
    latent = Experts(64, 96, 16, 2, latent=16)
    assert latent.flops(1).forward == 6 * 16 * 96 * 2 + 4 * 64 * 16


def test_touched_experts():
    """Expected share of the experts that B tokens use: 1 - (1 - K/E)^B; other weights are always touched."""
    layer = MoE(64, 96, 16, 2, shared_experts=1)
    dense, few = layer.flops(3), layer.flops(3, touched_only=True)
    routed = layer.parts["experts"].weights * 2
    assert dense.update - few.update == pytest.approx(routed * (1 - 2 / 16) ** 3)
    assert layer.flops(10**6, touched_only=True).update == dense.update


def test_tied_unembedding_costs_but_holds_nothing():
    assert Unembedding(64, 1000, tied=True).weights == 0
    assert Unembedding(64, 1000, tied=True).flops(3).forward == 2 * 3 * 64 * 1000
    assert Embedding(1000, 64).flops(3).total == 2 * 64_000


BAD = [
    (lambda: Linear(0, 3), r"Linear: inputs=0; it takes a whole number, 1 or more"),
    (lambda: Linear(2.5, 3), "inputs=2.5"),
    (lambda: Linear(True, 3), "inputs=True"),
    (lambda: Conv2d(3, 4, 9, (5, 5)), r"kernel \(9, 9\) does not fit"),
    (lambda: Conv2d(3, 4, 3, (5, 5), groups=2), "groups=2 does not divide"),
    (lambda: Conv2d(3, 4, (3, 3, 3), (5, 5)), "a number or"),
    (lambda: Conv2d(3, 4, 3, (5, 5), stride=0), "stride"),
    (lambda: Conv2d(3, 4, 3, (5, 5), padding=-1), "padding"),
    (lambda: Attention(10, 3), "heads=3 does not divide d_model=10"),
    (lambda: Attention(12, 4, 3), "kv_heads=3 does not divide heads=4"),
    (lambda: Attention(12, 4, context=-1), "context=-1"),
    (lambda: Attention(12, 4, qk_norm="layer"), "no 'layer'; there are none, head, width"),
    (lambda: MoE(12, 6, 4, 5), "active_experts=5 of experts=4"),
    (lambda: MoE(12, 6, 4, 0), "active_experts=0"),
    (lambda: MoE(12, 6, 4, 2, capacity=-1), "capacity=-1"),
    (lambda: Mamba2(12, 4, 2, 8, 3), "groups=3 does not divide heads=4"),
    (lambda: Attention(12, 2, kv_projections=3), "kv_projections=3; it takes 0, 1 or 2"),
    (lambda: DeltaNet(12, 3, 4, 2, 2), "key_heads=3"),
    (lambda: keys_seen(10, "banded"), "mask: no 'banded'"),
    (lambda: Linear(2, 3).flops(1, counting="flops"), "counting: no 'flops'; there are matmul, pointwise, scalar"),
    (lambda: Linear(2, 3).flops(1, optimizer="sdg"), "optimizer: no 'sdg'"),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_impossible_shapes(build, message):
    with pytest.raises(InputError, match=message):
        build()
