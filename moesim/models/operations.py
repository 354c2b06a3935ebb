"""What layers are made of: tensors to store and update, operations to compute, and how a FLOP is counted.

Every count is per sample unless it says otherwise; a sample is an image or vector of a plain network and one token of
a transformer. Integers stay exact Python integers; a NumPy array of batch sizes gives an array of counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from moesim.errors import InputError


@dataclass(frozen=True)
class Counting:
    """How a multiply and an add are counted.

    A sum of n products costs 2n, or n multiplies and n-1 adds where `exact_additions`. `pointwise` says whether work
    that is linear in the activations (activation functions, biases, norms, softmax, loss) is counted at all.
    """

    description: str
    exact_additions: bool = False
    pointwise: bool = False

    def dot(self, length: Any) -> Any:
        """FLOP of one dot product of that length."""
        return 2 * length - 1 if self.exact_additions else 2 * length


COUNTINGS: Mapping[str, Counting] = {
    "matmul": Counting("matrix products at 2 FLOP per multiply-add, as FlopCounterMode and every framework counts"),
    "pointwise": Counting(
        "the same, and activations, norms and loss: the table of Hobbhahn & Sevilla 2021", False, True
    ),
    "scalar": Counting("every scalar multiply and every scalar add (a sum of n products has n-1 adds)", True, True),
}


def counting(name: str) -> Counting:
    """The counting rule of that name; InputError for an unknown one."""
    return choose("counting", name, COUNTINGS)


def choose(owner: str, name: Any, table: Mapping[str, Any]) -> Any:
    """The row of a table; InputError that lists the names otherwise."""
    if not isinstance(name, str) or name not in table:
        raise InputError(f"{owner}: no {name!r}; there are {', '.join(table)}")
    return table[name]


def whole(owner: object, minimum: int = 1, /, **values: Any) -> None:
    """Raise InputError unless every value is a whole number of at least `minimum` (booleans are not numbers)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            label = type(owner).__name__ if not isinstance(owner, str) else owner
            raise InputError(f"{label}: {name}={value!r}; it takes a whole number, {minimum} or more")


def number(owner: object, minimum: float = 0.0, maximum: float = float("inf"), /, **values: Any) -> None:
    """Raise InputError unless every value is a finite number between minimum and maximum."""
    for name, value in values.items():
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not minimum <= value <= maximum or value == float("inf"):
            label = type(owner).__name__ if not isinstance(owner, str) else owner
            span = f"{minimum:g} or more" if maximum == float("inf") else f"a number from {minimum:g} to {maximum:g}"
            raise InputError(f"{label}: {name}={value!r}; it takes {span}")


@dataclass(frozen=True)
class Tensor:
    """`count` equal weight tensors of rows x columns, of which a token uses `active` (experts; otherwise all).

    `matrix`: a hidden weight matrix, which Muon orthogonalises (embeddings, heads, biases and gains are not).
    `trained`: False for values that no gradient reaches (the selection bias of a router).
    """

    rows: int
    columns: int = 1
    count: int = 1
    active: float | None = None
    matrix: bool = False
    trained: bool = True

    @property
    def size(self) -> int:
        """Number of weights in all copies."""
        return self.rows * self.columns * self.count

    @property
    def active_size(self) -> Any:
        """Number of weights that act on one token."""
        return self.rows * self.columns * (self.count if self.active is None else self.active)

    def touched(self, tokens: Any) -> Any:
        """Expected share of the copies that at least one of `tokens` tokens uses, if routing is uniform."""
        if self.active is None or self.active >= self.count:
            return 1
        return 1 - (1 - self.active / self.count) ** tokens


class Cost(NamedTuple):
    """FLOP of the three passes through one operation."""

    forward: Any
    input_gradient: Any
    weight_gradient: Any


class Operation(ABC):
    """One operation of a layer.

    `reads_input`: it takes the layer's input, so its input gradient is needed only if something upstream is trained.
    `kind` tells what is recomputed in the backward pass: linear, last (the last product of a block), scores, values,
    state, head.
    """

    kind: str
    reads_input: bool

    @abstractmethod
    def cost(self, batch: Any, rule: Counting) -> Cost:
        """FLOP for `batch` samples."""


@dataclass(frozen=True)
class Product(Operation):
    """A matrix product: for each sample, `rows` vectors of length `inner` become vectors of length `columns`.

    `repeats`: as many equal products side by side (groups of a convolution, heads of attention). `weights`: whether
    the second factor is a weight. Otherwise both factors are activations, and `gradients` says how many of them need
    one (2 in attention).
    """

    rows: Any
    inner: Any
    columns: Any
    repeats: int = 1
    weights: bool = True
    gradients: int = 2
    kind: str = "linear"
    reads_input: bool = True

    @property
    def macs(self) -> Any:
        """Multiply-adds per sample."""
        return self.rows * self.inner * self.columns * self.repeats

    def cost(self, batch: Any, rule: Counting) -> Cost:
        """Forward sums over `inner`, the gradient of the first factor over `columns`, of the second over the rows.

        A second factor that is an activation belongs to one sample, so its gradient sums over that sample's rows.
        """
        n = batch * self.rows
        forward = n * self.columns * self.repeats * rule.dot(self.inner)
        first = n * self.inner * self.repeats * rule.dot(self.columns)
        second = self.inner * self.columns * self.repeats
        if self.weights:
            return Cost(forward, first, second * rule.dot(n))
        return Cost(forward, first + (self.gradients - 1) * batch * second * rule.dot(self.rows), 0 * batch)


@dataclass(frozen=True)
class Bias(Operation):
    """A bias of `columns` added to `rows` vectors of each sample; its gradient is a sum over all rows."""

    rows: Any
    columns: int
    kind: str = "linear"
    reads_input: bool = False

    def cost(self, batch: Any, rule: Counting) -> Cost:
        """One add per output; the input gradient passes unchanged."""
        if not rule.pointwise:
            return Cost(0 * batch, 0 * batch, 0 * batch)
        n = batch * self.rows
        return Cost(n * self.columns, 0 * batch, (n - 1 if rule.exact_additions else n) * self.columns)


@dataclass(frozen=True)
class Pointwise(Operation):
    """Work per activation; `forward`, `backward` and `weight` (gradient of gains) are FLOP per sample."""

    forward: Any
    backward: Any
    weight: Any = 0
    kind: str = "linear"
    reads_input: bool = True

    def cost(self, batch: Any, rule: Counting) -> Cost:
        """Linear in the batch."""
        n = batch if rule.pointwise else 0 * batch
        return Cost(n * self.forward, n * self.backward, n * self.weight)
