"""The small models of the lab: what they are, that they learn, and what is read out of them."""

from math import inf
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab trains with PyTorch: pip install 'moesim[lab]'")

from moesim.lab.corpus import CONTEXT, load  # noqa: E402
from moesim.lab.job import Job, Shape  # noqa: E402
from moesim.lab.model import Attention, Dense, Experts, Model, norm  # noqa: E402
from moesim.lab.train import Run, _batches, _imbalance, _pools, train  # noqa: E402

SMALL = {"policy": "synthetic", "domains": 4, "symbols": 16, "train_windows": 2**11, "valid_windows": 64}
SHAPES = [Shape(), Shape(experts=8), Shape(experts=8, active_experts=2), Shape(ffn_multiple=4), Shape(64, 3, 4, 2)]


@pytest.fixture(scope="module")
def corpus():
    return load(SMALL)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_model_holds_what_models_counts(shape):
    held = sum(weights.numel() for weights in Model(shape).parameters())
    assert held == shape.transformer.total_params


@pytest.mark.parametrize("shape", [Shape(experts=4), Shape(experts=8, active_experts=2)], ids=str)
def test_grouped_experts_are_a_loop_over_tokens(shape):
    torch.manual_seed(0)
    layer, x = Experts(shape), torch.randn(3, 5, shape.d_model)
    torch.nn.init.normal_(layer.down)
    layer.bias += torch.linspace(-0.2, 0.2, shape.experts)
    with torch.no_grad():
        grouped = layer(x)
        for sequence in range(3):
            for place in range(5):
                token = x[sequence, place]
                gates = torch.sigmoid(layer.router @ token)
                chosen = (gates + layer.bias).topk(shape.active_experts).indices
                looped = sum(gates[e] * (torch.relu(token @ layer.up[e]) ** 2) @ layer.down[e] for e in chosen)
                torch.testing.assert_close(grouped[sequence, place], looped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_attention_is_a_softmax_of_scaled_products(scale):
    """Of unit queries and keys, as complex numbers turned by their place; token by token."""
    torch.manual_seed(0)
    layer, x = Attention(Shape(), scale), torch.randn(1, 5, 32)
    torch.nn.init.normal_(layer.out)
    angle = 1e4 ** (-torch.arange(8) / 8)
    with torch.no_grad():
        q, k, v = (layer.qkv @ x[0].T).view(3, 2, 16, 5).unbind()
        mixed = torch.zeros(2, 16, 5)
        for head in range(2):
            for place in range(5):
                turned = [
                    torch.complex(a[:8], a[8:]) * torch.polar(torch.tensor(4.0), i * angle) / a.norm()
                    for i, a in [(place, q[head, :, place]), *((i, k[head, :, i]) for i in range(place + 1))]
                ]
                scores = torch.stack([scale * (turned[0].conj() * key).real.sum() for key in turned[1:]])
                mixed[head, :, place] = v[head, :, : place + 1] @ torch.softmax(scores, 0)
        torch.testing.assert_close(layer(x)[0], (layer.out @ mixed.view(32, 5)).T, rtol=1e-4, atol=1e-4)


def test_the_auxiliary_loss_by_hand():
    """Two of three tokens at expert 0; gates .6 .2, .6 .2, .2 .6: 2 (2/3 (.75 + .75 + .25)/3 + 1/3 1.25/3)."""
    layer = SimpleNamespace(bias=torch.zeros(2), chosen=torch.tensor([[0], [0], [1]]))
    layer.gates = torch.tensor([[0.6, 0.2], [0.6, 0.2], [0.2, 0.6]])
    assert float(_imbalance(layer)) == pytest.approx(2 * (2 / 3 * 1.75 / 3 + 1 / 3 * 1.25 / 3))


def test_one_expert_is_the_dense_model():
    """The only expert with an open gate gives what the dense part of the same weights gives."""
    shape = Shape(experts=1)
    torch.manual_seed(0)
    layer, dense = Experts(shape), Dense(shape)
    torch.nn.init.normal_(dense.down)
    with torch.no_grad():
        layer.up.copy_(dense.up.T[None])
        layer.down.copy_(dense.down.T[None])
        x = norm(torch.randn(2, 3, shape.d_model))
        gate = torch.sigmoid(x @ layer.router.T)
        torch.testing.assert_close(layer(x), gate * dense(x))
    assert isinstance(Model(shape).feedforward[0], Dense)


def test_what_a_model_sees_is_what_came_before():
    """A later token changes no logits of the earlier ones; an earlier one does, and so does its place."""
    torch.manual_seed(0)
    model = Model(Shape(experts=4))
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    tokens = torch.randint(256, (1, 16))
    other, swapped = tokens.clone(), tokens.clone()
    other[0, 8] = (other[0, 8] + 1) % 256
    swapped[0, [2, 5]] = swapped[0, [5, 2]]
    with torch.no_grad():
        base, changed, moved = (model(t)[0] for t in (tokens, other, swapped))
    torch.testing.assert_close(base[:8], changed[:8])
    assert (base[9:] - changed[9:]).abs().max() > 1e-3
    assert (base[10:] - moved[10:]).abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES[:2], ids=["dense", "moe"])
def test_a_run_learns_and_repeats_bit_for_bit(shape, corpus):
    job = Job(SMALL, shape, tokens=2**16)
    first, second = train(job, corpus), train(job, corpus)
    losses = [row["loss"] for row in first.rows]
    assert losses[-1] < losses[0] - 0.5
    assert losses == [row["loss"] for row in second.rows]
    np.testing.assert_array_equal(first.loads, second.loads)


def test_counts_sum_to_the_assignments(corpus):
    job = Job(SMALL, Shape(experts=8, active_experts=2), tokens=2**14)
    loads = train(job, corpus).loads
    assert loads.shape[1:] == (2, 4, 8)
    np.testing.assert_array_equal(loads.sum(axis=(0, 2, 3)), [2 * job.tokens] * 2)


def test_pools_of_one_seed_share_their_prefix(corpus):
    short, long = (_pools(Job(SMALL, unique_tokens=u, tokens=2**15), corpus)[0].windows for u in (2**12, 2**13))
    np.testing.assert_array_equal(short, long[: len(short)])
    other = _pools(Job(SMALL, unique_tokens=2**12, tokens=2**15, seed=1), corpus)[0].windows
    assert not np.array_equal(short, other)


def test_an_epoch_shows_every_window_once(corpus):
    job = Job(SMALL, unique_tokens=2**13, tokens=2**15)
    pool, _ = _pools(job, corpus)
    batches = _batches(pool, job)
    for _ in range(2):
        epoch = np.concatenate([next(batches)[0].numpy() for _ in range(job.unique_tokens // job.batch)])
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(pool.windows, axis=0))


def test_repetition_is_measured_beyond_the_first_pass():
    assert Job(SMALL, unique_tokens=2**13, tokens=2**15).marks == [2**14, 2**15]
    assert Job(SMALL, tokens=2**15).marks == [2**k for k in range(11, 16)]


def test_the_average_weighs_steps_by_their_seventh_power(corpus):
    """The mean of weights of steps 1 to n with weights that grow like step^7: binomials (t + 6 over 7), by hand."""
    run = Run(Job(SMALL), corpus)
    weights, kept = (next(iter(m.parameters())) for m in (run.model, run.average))
    values = (3.0, -1.0, 2.0)
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            weights.fill_(value)
        run._keep_average(step)
    assert kept[0, 0].item() == pytest.approx((1 * 3.0 - 8 * 1.0 + 36 * 2.0) / (1 + 8 + 36), rel=1e-5)


def test_the_bias_follows_the_loads(corpus):
    """One step: experts above the mean load go down by the step, those below go up."""
    run = Run(Job(SMALL, Shape(experts=4), balancing_rate=0.25), corpus)
    run.step(1)
    counts = torch.tensor(run.loads[0].sum(axis=0)).float()
    torch.testing.assert_close(run.model.moe[0].bias, 0.25 * (counts.mean() - counts).sign())


@pytest.mark.parametrize("embedding", [True, False])
def test_decay_is_decoupled_and_may_follow_the_load(embedding, corpus):
    """With a share s of E experts' tokens an expert keeps 1 - rate decay s E of its weights, others 1 - rate decay."""
    run = Run(Job(SMALL, Shape(experts=2), weight_decay=2.0, decay_by_load=True, decay_embedding=embedding), corpus)
    layer = run.model.moe[0]
    layer.chosen = torch.tensor([[0], [0], [0], [1]])
    run.model.moe[1].chosen = layer.chosen
    before = {name: weights.detach().clone() for name, weights in run.model.named_parameters()}
    run._decay(0.1)
    kept = {name: weights.detach() / before[name] for name, weights in run.model.named_parameters()}
    assert kept["embedding"].mean().item() == pytest.approx(1 - 0.2 * embedding)
    assert kept["feedforward.0.up"].mean((1, 2)).tolist() == pytest.approx([1 - 0.2 * 1.5, 1 - 0.2 * 0.5])


def test_the_floor_of_the_synthetic_corpus_is_its_entropy():
    """Counted on its own windows: entropy of the second symbol and of the successors, within counting noise."""
    corpus = load({**SMALL, "train_windows": 2**13})
    windows, domain = corpus.train.windows, corpus.train.domain
    pairs = np.zeros((4, 16, 16))
    np.add.at(pairs, (np.repeat(domain, CONTEXT - 1), windows[:, 1:-1].ravel(), windows[:, 2:].ravel()), 1)
    given = pairs / pairs.sum(axis=-1, keepdims=True)
    entropy = -(pairs * np.log(np.where(given > 0, given, 1))).sum() / pairs.sum()
    assert corpus.floor == pytest.approx((np.log(16) + (CONTEXT - 1) * entropy) / CONTEXT, abs=1e-3)
    assert (np.bincount(domain) / len(domain)).tolist() == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.02)


def test_siblings_share_what_kin_says():
    tables = load({**SMALL, "kin": 0.5, "train_windows": 2**12}).train
    successors = np.zeros((4, 16, 16), bool)
    of = np.repeat(tables.domain, CONTEXT - 1)
    successors[of, tables.windows[:, 1:-1].ravel(), tables.windows[:, 2:].ravel()] = True
    assert (successors[0] == successors[1]).all(axis=-1).sum() == 8
    assert (successors[0] == successors[2]).all(axis=-1).sum() == 0


def test_a_job_is_named_by_all_it_depends_on():
    base = Job("synthetic", seed=1)
    assert base.name == Job({"policy": "synthetic"}, unique_tokens=inf, seed=1).name
    others = [Job("synthetic", seed=1, attention_scale=1), Job("synthetic", seed=1, decay_embedding=False)]
    others += [Job("synthetic", seed=2), Job("stdlib", seed=1), Job("synthetic", seed=1, weight_decay=0.3)]
    assert len({base.name, *(job.name for job in others)}) == 6
