"""Fast feedforward layers: a tree of small decisions over small leaves (Belcak & Wattenhofer 2023, arXiv:2308.14711).

Soft, every leaf acts on every sample, weighted by the product of the sigmoids on its path, and all learn. Hard, a
sample walks one path, log2 of the leaves long, and meets one leaf. Sizes are in neurons, as in the paper.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.models.layers import Layer, Shape
from moesim.models.operations import Bias, Cost, Counting, Operation, Pointwise, Product, Tensor, whole
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, Domain, check

HARMLESS = 0.10
"""Mean entropy of a decision, in nats, below which rounding it does no harm (section 3 of the paper)."""
_DEEPEST = 60
_SHARE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)
_TILT = Domain("0 to 0.5", 0, 0.5, lower_open=False, upper_open=False)


@dataclass(frozen=True)
class Tree:
    """`depth` levels of decisions of `node_width` neurons each above 2^depth leaves of `leaf_width` neurons."""

    depth: int
    node_width: int = 1
    leaf_width: int = 1

    def __post_init__(self):
        whole("fff", 0, depth=self.depth)
        whole("fff", 1, node_width=self.node_width, leaf_width=self.leaf_width)
        if self.depth > _DEEPEST:
            raise InputError(f"fff: depth={self.depth}; it takes a whole number from 0 to {_DEEPEST}")

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return 2**self.depth

    @property
    def nodes(self) -> int:
        """Number of decisions."""
        return self.leaves - 1

    @property
    def training_width(self) -> int:
        """Neurons of all leaves: the width of the dense layer that they would be together."""
        return self.leaves * self.leaf_width

    @property
    def inference_width(self) -> int:
        """Neurons of the one leaf that a sample meets."""
        return self.leaf_width

    @property
    def training_size(self) -> int:
        """Neurons of all nodes and leaves."""
        return self.nodes * self.node_width + self.training_width

    @property
    def inference_size(self) -> int:
        """Neurons on one path."""
        return self.depth * self.node_width + self.leaf_width


def fff(depth: int, node_width: int = 1, leaf_width: int = 1) -> Tree:
    """The sizes of a fast feedforward tree, in neurons; InputError unless they are whole numbers.

    >>> fff(4, 1, 8).training_size, fff(4, 1, 8).inference_size
    (143, 12)
    """
    return Tree(depth, node_width, leaf_width)


class _Choice(Product):
    """A product whose result is rounded to a choice, so that no gradient passes through it."""

    def cost(self, batch: Any, rule: Counting) -> Cost:
        return Cost(super().cost(batch, rule).forward, 0 * batch, 0 * batch)


@dataclass(frozen=True)
class Decisions(Layer):
    """The nodes: a linear map to one sigmoid each, or by way of `node_width` neurons where that is above 1.

    Soft, all are computed and learn. `hard`: only those on the path, which are rounded and thus do not learn.
    """

    inputs: int
    tree: Tree
    hard: bool = False

    @property
    def _acting(self) -> int:
        return self.tree.depth if self.hard else self.tree.nodes

    def _maps(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the linear maps of a node; a tree of one leaf has none."""
        width = self.tree.node_width
        inner = [(self.inputs, width), (width, 1)] if width > 1 else [(self.inputs, 1)]
        return inner if self.tree.depth else []

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        copies: dict[str, Any] = {"count": self.tree.nodes, "active": self._acting, "trained": not self.hard}
        maps = self._maps()
        return (
            *(Tensor(outputs, inputs, matrix=True, **copies) for inputs, outputs in maps),
            *(Tensor(outputs, **copies) for _, outputs in maps),
        )

    @property
    def operations(self) -> tuple[Operation, ...]:
        product = _Choice if self.hard else Product
        computed: list[Operation] = []
        for place, (inputs, outputs) in enumerate(self._maps()):
            computed.append(product(1, inputs, outputs, repeats=self._acting, reads_input=place == 0))
        return (*computed, *self._pointwise())

    def _pointwise(self) -> list[Operation]:
        """Biases and activations; soft also the sigmoids (4 FLOP, 3 back) and the products along the paths (3, 6)."""
        n = self._acting
        values = n * sum(outputs for _, outputs in self._maps())
        hidden = values - n if self.tree.depth else 0
        if self.hard:
            return [Pointwise(values + hidden, 0, reads_input=False)]
        biases = [Bias(1, values)] if n else []
        return [*biases, Pointwise(hidden + 7 * n, hidden + 9 * n, reads_input=False)]


@dataclass(frozen=True)
class Leaves(Layer):
    """The leaves: a feed-forward layer each. Soft, every leaf acts on every sample; `hard`, one of them."""

    inputs: int
    outputs: int
    tree: Tree
    hard: bool = False

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        width, copies = self.tree.leaf_width, (self.tree.leaves, 1 if self.hard else None)
        matrices = [(width, self.inputs), (self.outputs, width)]
        vectors = [width, self.outputs]
        return (
            *(Tensor(*shape, *copies, matrix=True) for shape in matrices),
            *(Tensor(n, 1, *copies) for n in vectors),
        )

    @property
    def operations(self) -> tuple[Operation, ...]:
        n, width = (1 if self.hard else self.tree.leaves), self.tree.leaf_width
        mixed = [] if self.hard else [Pointwise(2 * n * self.outputs, 3 * n * self.outputs, reads_input=False)]
        return (
            Product(1, self.inputs, width, repeats=n),
            Product(1, width, self.outputs, repeats=n, kind="last", reads_input=False),
            Bias(1, n * (width + self.outputs)),
            Pointwise(n * width, n * width, reads_input=False),
            *mixed,
        )


@dataclass(frozen=True)
class FFF(Layer):
    """A fast feedforward layer behind `inputs` values, which hands on `outputs` (0: as many as it is given).

    `hard`: decisions are rounded, as after hardening: a sample computes its path and one leaf, and only that leaf
    learns from it; otherwise every leaf learns from every sample. Rows `nodes` and `leaves`.
    """

    inputs: int
    depth: int
    node_width: int = 1
    leaf_width: int = 1
    outputs: int = 0
    hard: bool = False

    def __post_init__(self):
        whole(self, 1, inputs=self.inputs)
        whole(self, 0, outputs=self.outputs)
        Tree(self.depth, self.node_width, self.leaf_width)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"inputs": shape[0]}

    def output(self, shape: Shape) -> Shape:
        return (self.outputs or self.inputs,)

    @property
    def tree(self) -> Tree:
        """Its sizes in neurons."""
        return Tree(self.depth, self.node_width, self.leaf_width)

    @property
    def about(self) -> str:
        """Its sizes in words."""
        tree, mode = self.tree, "hard" if self.hard else "soft"
        sizes = f"{tree.training_size} neurons, {tree.inference_size} on a path"
        return f"{mode} tree of {sizes}; leaves {tree.training_width} wide, {tree.inference_width} on a path"

    @property
    def parts(self) -> Mapping[str, Layer]:
        """Nodes and leaves."""
        nodes = Decisions(self.inputs, self.tree, self.hard)
        return {"nodes": nodes, "leaves": Leaves(self.inputs, self.output(())[0], self.tree, self.hard)}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for part in self.parts.values() for tensor in part.tensors)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(op for part in self.parts.values() for op in part.operations)


def hottest_leaf(depth: Any, tilt: Any) -> Any:
    """Load of the hottest leaf over the fair share, where each node sends 1/2 + tilt one way: (1 + 2 tilt)^depth."""
    return (1.0 + 2.0 * check("tree", "tilt", tilt, _TILT)) ** check("tree", "depth", depth, NON_NEGATIVE)


def samples_per_leaf(batch: Any, depth: Any) -> Any:
    """Samples of a batch that a leaf sees once decisions are hard, if they are even: batch / 2^depth."""
    return check("tree", "batch", batch, POSITIVE) / 2.0 ** check("tree", "depth", depth, NON_NEGATIVE)


def deepest_fed(batch: Any, samples: Any = 1) -> Any:
    """Levels that a tree can have before a leaf sees fewer than `samples` of a batch."""
    enough = check("tree", "batch", batch, POSITIVE) / check("tree", "samples", samples, AT_LEAST_ONE)
    return np.maximum(np.floor(np.log2(enough)), 0.0)


def decision_entropy(probability: Any) -> Any:
    """Entropy of a decision in nats; hardening adds its sum over samples and nodes to the loss."""
    p = np.asarray(check("tree", "probability", probability, _SHARE), dtype=float)
    return -_xlogx(p) - _xlogx(1.0 - p)


def _xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1.0))


def region_leak(probability: Any, rate: Any) -> Any:
    """Probability of a branch in training that takes the other one with the probability `rate`: p + rate (1 - 2 p)."""
    return probability + check("tree", "rate", rate, _TILT) * (1.0 - 2.0 * probability)


def off_path(probability: Any) -> Any:
    """Share of a sample that does not reach the leaf of its rounded path: 1 - product of max(p, 1 - p), last axis."""
    p = np.asarray(check("tree", "probability", probability, _SHARE), dtype=float)
    return 1.0 - np.prod(np.maximum(p, 1.0 - p), axis=-1)


def huffman(masses: Any) -> np.ndarray:
    """Depth of each leaf in the tree of least mean depth for leaves of these masses (Huffman 1952, Proc. IRE 40, 1098).

    The mean depth lies between the entropy of the masses in bits and one more. One leaf has depth 0.
    """
    p = np.atleast_1d(check("tree", "masses", masses, POSITIVE))
    depth = np.zeros(len(p), dtype=int)
    heap = [(mass, leaf, [leaf]) for leaf, mass in enumerate(p.tolist())]
    heapq.heapify(heap)
    for name in range(len(p), 2 * len(p) - 1):  # the name of a new node decides between equal masses
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        depth[left + right] += 1
        heapq.heappush(heap, (a + b, name, left + right))
    return depth


def mean_depth(masses: Any, depths: Any) -> float:
    """Decisions that a sample takes on average."""
    p = np.asarray(masses, dtype=float)
    return float(np.sum(p * np.asarray(depths)) / np.sum(p))


def accuracy_lost(depth: Any, *, stacked: bool = False) -> Any:
    """Points of accuracy that a tree loses to a dense layer as wide as its leaves together, as published.

    A line through what was measured at 1 to 7 levels, not a law: 1.5 a level in the mean over three data sets (table
    1), .65 in a vision transformer (`stacked`, table 3). To a dense layer of inference size about nothing is lost.
    """
    return (0.65 if stacked else 1.5) * check("tree", "depth", depth, NON_NEGATIVE)
