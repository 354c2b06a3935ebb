"""Our counts against FlopCounterMode, on the same nets and blocks built in PyTorch."""

from itertools import pairwise

import pytest

from moesim.models.attention import Attention, LatentAttention
from moesim.models.feedforward import MLP, MoE
from moesim.models.layers import Conv2d, Linear, Norm
from moesim.models.network import Entry, Network
from moesim.models.optimizers import OPTIMIZERS, newton_schulz
from moesim.models.ratio import Updating
from moesim.models.tree import FFF

torch = pytest.importorskip("torch", reason="PyTorch is not installed; its FLOP counter is the reference here")
nn = torch.nn


def measured(module, *inputs, grad=False):
    """(forward, backward) FLOP of torch; the math backend, because flash attention on CPU is counted as 0."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    inputs = [x.requires_grad_(grad) if x.is_floating_point() else x for x in inputs]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = module(*inputs)
        forward = counter.get_total_flops()
        output.float().sum().backward()
    return forward, counter.get_total_flops() - forward


def counted(network, batch):
    passes = network.total(batch)
    return passes.forward, passes.input_gradient + passes.weight_gradient


def conv(inputs, outputs, kernel, **settings):
    return nn.Conv2d(inputs, outputs, kernel, **settings)


def linears(*sizes):
    layers = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers)


def convnet(middle=0):
    shared = conv(32, 32, 3, padding=1, bias=False)
    first = 0 if middle else 1
    return nn.Sequential(
        conv(3, 32, 7, stride=2, padding=3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, first),
        *[shared] * middle,
        conv(32, 64, 7, stride=2, padding=3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETS = {
    "onenet": ({}, lambda: linears(1, 4096, 128, 10), (1,)),
    "convnet": ({}, convnet, (3, 224, 224)),
    "deeperconvnet": ({"depth": 3}, lambda: convnet(3), (3, 224, 224)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 2])
def test_networks(name, batch):
    parameters, build, shape = NETS[name]
    network, module = Network.load(name, **parameters), build()
    assert sum(p.numel() for p in module.parameters()) == network.weights
    assert measured(module, torch.randn(batch, *shape)) == counted(network, batch)


def test_linearnet_on_a_meta_device():
    with torch.device("meta"):
        module, x = linears(150528, 4096, 128, 10), torch.randn(2, 150528)
    assert measured(module, x) == counted(Network.load("linearnet"), 2)


CONVOLUTIONS = [
    {"kernel": 3},
    {"kernel": 5, "stride": 2, "padding": 2},
    {"kernel": (3, 1), "stride": (1, 2), "padding": (1, 0), "groups": 2},
    {"kernel": 3, "dilation": 2, "padding": 2, "groups": 4, "bias": False},
    {"kernel": 3, "groups": 8, "padding": 1},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_convolutions(settings, first):
    layer = Conv2d(8, 16, size=(13, 10), **settings)
    module = conv(8, 16, settings["kernel"], **{k: v for k, v in settings.items() if k != "kernel"})
    passes = layer.flops(3, first=first)
    assert layer.weights == sum(p.numel() for p in module.parameters())
    assert tuple(module(torch.randn(3, 8, 13, 10)).shape[1:]) == layer.output((8, 13, 10))
    # torch's formula for the weight gradient forgets the groups; each group only meets its own channels.
    ours = (passes.forward, passes.input_gradient + settings.get("groups", 1) * passes.weight_gradient)
    assert measured(module, torch.randn(3, 8, 13, 10), grad=not first) == ours


class GroupedAttention(nn.Module):
    def __init__(self, d, heads, kv_heads, head_dim):
        super().__init__()
        self.shape = (heads, kv_heads, head_dim)
        self.q, self.o = nn.Linear(d, heads * head_dim, bias=False), nn.Linear(heads * head_dim, d, bias=False)
        self.k, self.v = (nn.Linear(d, kv_heads * head_dim, bias=False) for _ in range(2))

    def forward(self, x):
        (heads, kv_heads, head_dim), (b, t, _) = self.shape, x.shape
        q = self.q(x).view(b, t, heads, head_dim).transpose(1, 2)
        k, v = (p(x).view(b, t, kv_heads, head_dim).transpose(1, 2) for p in (self.k, self.v))
        k, v = (y.repeat_interleave(heads // kv_heads, 1) for y in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class LatentHeads(nn.Module):
    def __init__(self, d, heads, q_rank, kv_rank, nope, rope, value):
        super().__init__()
        self.heads, self.split, self.value = heads, (nope, rope, kv_rank), value
        self.qa, self.qb = nn.Linear(d, q_rank, bias=False), nn.Linear(q_rank, heads * (nope + rope), bias=False)
        self.kva, self.kvb = (
            nn.Linear(d, kv_rank + rope, bias=False),
            nn.Linear(kv_rank, heads * (nope + value), bias=False),
        )
        self.qn, self.kvn = nn.RMSNorm(q_rank), nn.RMSNorm(kv_rank)
        self.o = nn.Linear(heads * value, d, bias=False)

    def forward(self, x):
        (b, t, _), (nope, rope, kv_rank) = x.shape, self.split
        q = self.qb(self.qn(self.qa(x))).view(b, t, self.heads, nope + rope).transpose(1, 2)
        latent, shared = self.kva(x).split([kv_rank, rope], -1)
        kv = self.kvb(self.kvn(latent)).view(b, t, self.heads, nope + self.value).transpose(1, 2)
        k, v = kv.split([nope, self.value], -1)
        k = torch.cat([k, shared.unsqueeze(1).expand(b, self.heads, t, rope)], -1)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class SwiGLU(nn.Module):
    def __init__(self, d, f):
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((d, f), (d, f), (f, d)))

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    def __init__(self, d, f, experts, active, shared):
        super().__init__()
        self.active, self.router = active, nn.Linear(d, experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(d, f) for _ in range(experts))
        self.shared = SwiGLU(d, shared)

    def forward(self, x):
        x = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(x).softmax(-1).topk(self.active, -1)
        y = self.shared(x)
        for i, expert in enumerate(self.experts):
            token, slot = (chosen == i).nonzero(as_tuple=True)
            if len(token):
                y = y.index_add(0, token, expert(x[token]) * weights[token, slot, None])
        return y


class Tree(nn.Module):
    """Decisions and leaves as in arXiv:2308.14711: soft, all leaves by the product of sigmoids; hard, one path."""

    def __init__(self, d, depth, leaf, hard):
        super().__init__()
        self.depth, self.hard = depth, hard
        self.nodes = nn.Linear(d, 2**depth - 1)
        self.leaves = nn.ModuleList(
            nn.Sequential(nn.Linear(d, leaf), nn.ReLU(), nn.Linear(leaf, d)) for _ in range(2**depth)
        )

    def forward(self, x):
        x = x.reshape(-1, x.shape[-1])
        return self.one_leaf(x) if self.hard else self.all_leaves(x)

    def all_leaves(self, x):
        right, y = self.nodes(x).sigmoid(), 0.0
        for i, leaf in enumerate(self.leaves):
            share, node = 1.0, 0
            for level in reversed(range(self.depth)):
                bit = (i >> level) & 1
                share = share * (right[:, node] if bit else 1.0 - right[:, node])
                node = 2 * node + 1 + bit
            y = y + share[:, None] * leaf(x)
        return y

    @torch.no_grad()
    def path(self, x):
        node = torch.zeros(len(x), dtype=torch.long)
        for _ in range(self.depth):
            score = torch.bmm(self.nodes.weight[node].unsqueeze(1), x.unsqueeze(2))[:, 0, 0] + self.nodes.bias[node]
            node = 2 * node + 1 + (score >= 0)
        return node - (2**self.depth - 1)

    def one_leaf(self, x):
        chosen, y = self.path(x), torch.zeros_like(x)
        for i, leaf in enumerate(self.leaves):
            token = (chosen == i).nonzero(as_tuple=True)[0]
            if len(token):
                y = y.index_add(0, token, leaf(x[token]))
        return y


class Block(nn.Module):
    def __init__(self, d, attention, feedforward):
        super().__init__()
        self.n1, self.n2, self.attention, self.feedforward = nn.RMSNorm(d), nn.RMSNorm(d), attention, feedforward

    def forward(self, x):
        x = x + self.attention(self.n1(x))
        return x + self.feedforward(self.n2(x)).view(x.shape)


T, D = 24, 32
PARTS = {
    "gqa": (lambda: GroupedAttention(D, 8, 2, 6), Attention(D, 8, 2, 6, context=T)),
    "mla": (lambda: LatentHeads(D, 4, 12, 10, 6, 4, 5), LatentAttention(D, 4, 12, 10, 6, 4, 5, context=T)),
    "mlp": (lambda: SwiGLU(D, 48), MLP(D, 48)),
    "moe": (lambda: Mixture(D, 20, 8, 3, 28), MoE(D, 20, 8, 3, shared_experts=1, d_shared=28)),
    "soft tree": (lambda: Tree(D, 3, 5, False), FFF(D, 3, 1, 5)),
    "hard tree": (lambda: Tree(D, 3, 5, True), FFF(D, 3, 1, 5, hard=True)),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", PARTS)
def test_layers_of_transformers(name, first):
    build, layer = PARTS[name]
    module = build()
    assert sum(p.numel() for p in module.parameters()) == layer.weights
    passes = layer.flops(2 * T, first=first)
    ours = (passes.forward, passes.input_gradient + passes.weight_gradient)
    assert measured(module, torch.randn(2, T, D), grad=not first) == ours
    if not first and name != "hard tree":  # its decisions do not learn
        assert ours[1] == 2 * ours[0]


@pytest.mark.parametrize("feedforward", ["mlp", "moe"])
@pytest.mark.parametrize("attention", ["gqa", "mla"])
def test_blocks(attention, feedforward):
    """A pre-norm block whose norm is trained: backward is exactly twice forward; frozen, the qkv gradient is saved."""
    (build_a, layer_a), (build_f, layer_f) = PARTS[attention], PARTS[feedforward]
    module = Block(D, build_a(), build_f())
    entries = tuple(Entry(n, x) for n, x in (("n1", Norm(D)), ("a", layer_a), ("n2", Norm(D)), ("f", layer_f)))
    network = Network("block", entries)
    assert measured(module, torch.randn(2, T, D)) == counted(network, 2 * T)
    assert network.total(1).input_gradient + network.total(1).weight_gradient == 2 * network.total(1).forward
    module.n1.requires_grad_(False)
    frozen = network.with_updating({"n1": Updating(0, 0)})
    assert measured(module, torch.randn(2, T, D)) == counted(frozen, 2 * T)


def test_a_frozen_start():
    module = nn.Sequential(nn.Linear(7, 9), nn.Linear(9, 5), nn.Linear(5, 3))
    network = Network.of("stack", Linear(7, 9), Linear(9, 5), Linear(5, 3))
    module[0].requires_grad_(False)
    assert measured(module, torch.randn(4, 7)) == counted(network.with_updating({"linear1": Updating(0, 0)}), 4)


def test_muon_costs_what_torch_does():
    """torch.optim.Muon's Newton-Schulz: steps (4 m^2 n + 2 m^3), only matrix products are counted."""
    from torch.utils.flop_counter import FlopCounterMode

    weight = nn.Parameter(torch.randn(24, 16))
    weight.grad = torch.randn(24, 16)
    with FlopCounterMode(display=False) as counter:
        torch.optim.Muon([weight], lr=0.1).step()
    assert counter.get_total_flops() == newton_schulz(24, 16)


COSTS = {"lerp_": 3, "addcmul_": 2, "addcdiv_": 2, "mul_": 1, "sqrt": 1, "div": 1, "add": 1, "add_": 1, "div_": 1}


def optimizer_flops(optimizer, weight):
    """FLOP per weight of one step, op by op; a factor other than 1 (alpha, value) is one more multiply."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name, kwargs = function.overloadpacket.__name__, kwargs or {}
            if args and getattr(args[0], "shape", None) == weight.shape and name in COSTS:
                seen.append(COSTS[name] + (kwargs.get("alpha", kwargs.get("value", 1)) != 1))
            return function(*args, **kwargs)

    optimizer.step()
    with Watch(), torch.no_grad():
        optimizer.step()
    return sum(seen)


OPTIMIZER_ROWS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=False),
}


@pytest.mark.parametrize("name", OPTIMIZER_ROWS)
def test_optimizers_op_by_op(name):
    weight = nn.Parameter(torch.randn(5, 7))
    weight.grad = torch.randn(5, 7)
    assert optimizer_flops(OPTIMIZER_ROWS[name]([weight]), weight) == OPTIMIZERS[name].per_weight


def test_weight_decay_costs_two():
    """So an optimiser with a decay is given by its FLOP per weight."""
    weight = nn.Parameter(torch.randn(5, 7))
    weight.grad = torch.randn(5, 7)
    measured = optimizer_flops(torch.optim.SGD([weight], lr=0.1, weight_decay=0.1, foreach=False), weight)
    assert measured == OPTIMIZERS["sgd"].per_weight + 2
