"""Fast feedforward trees: the paper's sizes, counts on paper, and what depth does to load, samples and paths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moesim
from moesim.counting.run import flops
from moesim.counting.tables import table
from moesim.errors import InputError
from moesim.models import tree
from moesim.models.feedforward import MLP
from moesim.models.network import Network
from moesim.models.tree import FFF

# Belcak & Wattenhofer 2023, arXiv:2308.14711, table 3 (inputs of the first rows) and section 4: (depth, node, leaf) ->
# training and inference size; the last is UltraFastBERT's tree, arXiv:2311.10770.
SIZES = {
    (4, 1, 8): (143, 12),
    (2, 1, 32): (131, 34),
    (3, 1, 16): (135, 19),
    (6, 1, 2): (191, 8),
    (7, 1, 1): (255, 8),
    (8, 1, 32): (8447, 40),
    (11, 1, 1): (4095, 12),
    (2, 3, 4): (25, 10),
    (0, 5, 4): (4, 4),
}


@pytest.mark.parametrize("shape", SIZES)
def test_sizes(shape):
    sizes = moesim.models.fff(*shape)
    depth, _, leaf = shape
    assert (sizes.training_size, sizes.inference_size) == SIZES[shape]
    assert (sizes.training_width, sizes.inference_width) == (2**depth * leaf, leaf)


# d = 2, 3 inputs, 4 outputs, leaves of 5: nodes 3 (3 + 1), leaves 4 (3 x 5 + 5 + 5 x 4 + 4); node width 2: nodes
# 3 (3 x 2 + 2 + 2 + 1). Soft products 3 x 3 + 4 (15 + 20) multiply-adds, hard 2 x 3 + 35.
BY_HAND = [
    (FFF(3, 2, 1, 5, 4), 12 + 176, 12 + 176, 2 * (9 + 140), (2 * (9 + 80) + 2 * 60, 2 * (9 + 140))),
    (FFF(3, 2, 1, 5, 4, hard=True), 188, 8 + 44, 2 * (6 + 35), (2 * 35, 2 * 35)),
    (FFF(3, 2, 2, 5, 4), 33 + 176, 209, 2 * (18 + 6 + 140), (2 * (18 + 6 + 140), 2 * (18 + 6 + 140))),
    (FFF(3, 0, 1, 5), 38, 38, 60, (60, 60)),
]


@pytest.mark.parametrize(("layer", "weights", "active", "forward", "backward"), BY_HAND)
def test_counts_on_paper(layer, weights, active, forward, backward):
    passes = layer.flops(7)
    assert (layer.weights, layer.active_weights) == (weights, active)
    assert passes[:3] == (7 * forward, 7 * backward[0], 7 * backward[1])


def test_the_first_layer_has_no_gradient_of_its_input():
    """Inside only: from 3 nodes to their 2 neurons, from 4 leaves' outputs to their 5."""
    assert FFF(3, 2, 2, 5, 4).flops(1, first=True).input_gradient == 2 * (3 * 2 + 4 * 5 * 4)


def test_pointwise_work_on_paper():
    """Soft, 3 nodes: bias 1 and sigmoid with path 7 each; 4 leaves: biases 9, activations 5, mixing 2 x 4 outputs."""
    layer = FFF(3, 2, 1, 5, 4)
    assert layer.flops(1, counting="pointwise").forward - layer.flops(1).forward == 3 * 8 + 4 * (9 + 5 + 8)
    hard = FFF(3, 2, 1, 5, 4, hard=True)
    assert hard.flops(1, counting="pointwise").forward - hard.flops(1).forward == 2 + 9 + 5


def test_hard_decisions_do_not_learn():
    hard = FFF(12, 3, 2, 5, hard=True).parts["nodes"]
    assert hard.flops(9, counting="scalar")[1:] == (0, 0, 0, 0)
    assert hard.flops(9).forward == 9 * 2 * 3 * (12 * 2 + 2)


@given(depth=st.integers(0, 9), leaf=st.integers(1, 40), inputs=st.integers(1, 99))
def test_soft_is_a_dense_layer_of_the_leaves_and_the_nodes(depth, leaf, inputs):
    layer, sizes = FFF(inputs, depth, 1, leaf), tree.fff(depth, 1, leaf)
    dense = MLP(inputs, sizes.training_width, gated=False)
    assert layer.flops(3).forward == dense.flops(3).forward + 3 * 2 * sizes.nodes * inputs
    hard, one = FFF(inputs, depth, 1, leaf, hard=True), MLP(inputs, leaf, gated=False)
    assert hard.flops(3).forward == one.flops(3).forward + 3 * 2 * depth * inputs
    assert hard.weights == layer.weights


def test_only_leaves_that_were_met_are_updated():
    layer = FFF(12, 3, 1, 5, hard=True).parts["leaves"]
    share = layer.flops(4, touched_only=True).update / layer.flops(4).update
    assert share == pytest.approx(1 - (7 / 8) ** 4)


def test_of_the_command():
    """The same leaves as a tree, soft and hard, as one dense layer and as a flat mixture."""
    names = ["fff", "fff_hard", "fff_dense", "fff_flat"]
    found = flops(names, batch=64, optimizer="sgd")
    forward = found.flops.sum("layer").sel({"pass": "forward"}).squeeze().values / 64
    d, l, depth = 768, 8, 4
    dense = 4 * d * 2**depth * l
    expected = [dense + 2 * d * 15, 4 * d * l + 2 * d * depth, dense, 4 * d * l + 2 * d * 16]
    assert forward.tolist() == expected
    assert flops("fff", depth=[1, 2], batch=1).sizes["depth"] == 2
    assert "tree: soft tree of 143 neurons, 12 on a path" in table(flops("fff", batch=1))


def test_parameters_are_numbers_beside_the_layers():
    network = Network.load("fff", depth=5, leaf_width=4, hard=True)
    assert network.entries[0].layer.tree == tree.Tree(5, 1, 4)
    assert network.entries[0].layer.hard is True
    with pytest.raises(InputError, match="unknown key 'height'; it takes depth, hard, leaf_width, node_width"):
        Network.load("fff", height=3)


def test_skew_multiplies_down_the_tree():
    assert tree.hottest_leaf(3, 0.1) == pytest.approx(1.728)
    assert tree.hottest_leaf(8, 0.1) == pytest.approx(4.30, abs=5e-3)
    assert tree.hottest_leaf(np.array([0, 5]), 0.5).tolist() == [1, 32]
    assert tree.hottest_leaf(9, 0) == 1


def test_leaves_starve():
    assert tree.samples_per_leaf(256, 7) == 2
    assert tree.deepest_fed(256, 2) == 7
    assert tree.deepest_fed([256, 255, 1], 2).tolist() == [7, 6, 0]


def test_huffman_on_paper():
    masses = [0.5, 0.25, 0.125, 0.125]
    assert tree.huffman(masses).tolist() == [1, 2, 3, 3]
    assert tree.mean_depth(masses, tree.huffman(masses)) == 1.75
    assert tree.huffman([3.0]).tolist() == [0]
    assert sorted(tree.huffman([1, 1, 2, 3, 5]).tolist()) == [1, 2, 3, 4, 4]


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=60))
def test_huffman_is_a_tree_within_one_of_the_entropy(masses):
    depths, p = tree.huffman(masses), np.array(masses) / np.sum(masses)
    entropy = -np.sum(p * np.log2(p))
    assert np.sum(0.5**depths) == 1  # Kraft: every branch ends in a leaf
    assert entropy - 1e-9 <= tree.mean_depth(masses, depths) < entropy + 1
    assert tree.mean_depth(masses, depths) <= tree.mean_depth(masses, [np.ceil(np.log2(len(p)))] * len(p)) + 1e-9


def test_hardening():
    """A decision of 2 % has .098 nat: rounding is harmless from there; a path of three such keeps .98^3."""
    assert tree.decision_entropy(0.5) == pytest.approx(np.log(2))
    assert tree.decision_entropy([0, 1]).tolist() == [0, 0]
    assert tree.decision_entropy(0.02) < tree.HARMLESS < tree.decision_entropy(0.021)
    assert tree.off_path([0.02, 0.98, 0.98]) == pytest.approx(1 - 0.98**3)
    assert tree.off_path([[0.5, 0.5], [0, 1]]).tolist() == [0.75, 0]


# Points of accuracy lost against the dense layer as wide as the leaves together: mean of three data sets (table 1) by
# depth 1 to 7; vision transformer (table 3) by depth.
LOST = [dict(enumerate([1.7, 3.4, 4.0, 5.6, 7.4, 8.3, 11.5], 1)), {2: 1.1, 3: 1.5, 4: 1.9, 6: 4.6, 7: 4.9}]


@pytest.mark.parametrize("stacked", [False, True])
def test_published_penalties(stacked):
    for depth, points in LOST[stacked].items():
        assert tree.accuracy_lost(depth, stacked=stacked) == pytest.approx(points, abs=1.0 + 1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tree.fff(1.5), "fff: depth=1.5; it takes a whole number"),
        (lambda: tree.fff(2, leaf_width=0), "fff: leaf_width=0"),
        (lambda: tree.hottest_leaf(3, 0.6), "tilt"),
        (lambda: tree.samples_per_leaf(0, 3), "batch"),
        (lambda: tree.huffman([0.5, 0]), "masses"),
        (lambda: tree.off_path([0.5, 1.1]), "probability"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
