"""Layers of plain networks: what each holds and computes.

A layer lists its weight tensors and its operations per sample; FLOPs of every pass follow from those alone
(`moesim.models.network`). Attention and feed-forward layers are in `moesim.models.attention` and
`moesim.models.feedforward`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import Any, NamedTuple

from moesim.errors import InputError
from moesim.models.operations import Bias, Cost, Counting, Operation, Pointwise, Product, Tensor, counting, whole
from moesim.models.optimizers import Optimizer, optimizer

Shape = tuple[int, ...]


class Passes(NamedTuple):
    """FLOP of each pass of one training step."""

    forward: Any
    input_gradient: Any
    weight_gradient: Any
    update: Any
    recompute: Any

    @property
    def total(self) -> Any:
        """FLOP of all passes."""
        return sum(self)

    def plus(self, other: Passes) -> Passes:
        """Pass by pass sum (a tuple's + would concatenate)."""
        return Passes(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: Any) -> Passes:
        """Every pass times a factor."""
        return Passes(*(factor * value for value in self))


NOTHING = Passes(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Layer:
    """A layer: weight tensors, operations per sample, and the shape it hands on.

    `on` builds one behind a given shape.
    """

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Weight tensors."""
        return ()

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Operations per sample."""
        return ()

    @property
    def parts(self) -> Mapping[str, Layer]:
        """Named layers it consists of, all reading the same input; itself if it is simple."""
        return {"": self}

    @property
    def about(self) -> str:
        """What a reader wants to know of it beside weights and FLOPs; empty for most."""
        return ""

    def output(self, shape: Shape) -> Shape:
        """Shape of what it hands on, from the shape it is given."""
        return shape

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def active_weights(self) -> int:
        """Number of weights that act on one sample."""
        return sum(tensor.active_size for tensor in self.tensors)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        """The fields that follow from the shape it is put behind."""
        return {}

    @classmethod
    def on(cls, shape: Shape, /, **settings: Any) -> Layer:
        """The layer behind `shape`; InputError for an unknown or missing setting."""
        given = cls.given(shape)
        takes = [f for f in fields(cls) if f.name not in given]
        accepted = ", ".join(f.name for f in takes) or "no settings"
        for name in settings:
            if name not in {f.name for f in takes}:
                raise InputError(f"{cls.__name__}: unknown setting {name!r}; it takes {accepted}")
        for f in takes:
            if f.default is MISSING and f.name not in settings:
                raise InputError(f"{cls.__name__}: no value for {f.name!r}; it takes {accepted}")
            if f.type == "bool" and not isinstance(settings.get(f.name, False), bool):
                raise InputError(f"{cls.__name__}: {f.name}={settings[f.name]!r}; it takes true or false")
        return cls(**given, **settings)

    def flops(
        self,
        batch: Any,
        *,
        first: bool = False,
        optimizer: Any = "sgd",
        counting: str = "matmul",
        touched_only: bool = False,
    ) -> Passes:
        """FLOP by pass for `batch` samples (tokens, in a transformer).

        `first`: nothing upstream is trained, so no gradient of the layer's input is computed. `touched_only`: update
        only the experts that the batch is expected to use. Raises InputError for an unknown optimiser or counting.
        """
        forward, inputs, weights = self.compute(batch, _rule(counting), 0 if first else batch, batch)
        return Passes(forward, inputs, weights, self.update(batch, _optimizer(optimizer), touched_only), 0 * batch)

    def compute(self, batch: Any, rule: Counting, entering: Any, inside: Any) -> Cost:
        """FLOP of forward, input and weight gradients.

        `entering` and `inside` are the samples whose gradient is needed at the layer's input and within the layer.
        """
        costs = [op.cost(batch, rule) for op in self.operations]
        inputs = [op.cost(entering if op.reads_input else inside, rule).input_gradient for op in self.operations]
        zero = 0 * batch
        return Cost(
            sum((c.forward for c in costs), zero), sum(inputs, zero), sum((c.weight_gradient for c in costs), zero)
        )

    def again(self, batch: Any, rule: Counting, kinds: Collection[str]) -> Any:
        """FLOP of the forward pass of the operations of those kinds: what is recomputed in the backward pass."""
        return sum((op.cost(batch, rule).forward for op in self.operations if op.kind in kinds), 0 * batch)

    def update(self, batch: Any, method: Optimizer, touched_only: bool = False) -> Any:
        """FLOP of one optimiser step."""
        share = (lambda tensor: tensor.touched(batch)) if touched_only else (lambda tensor: 1)
        return sum((method.flops(tensor) * share(tensor) for tensor in self.tensors), 0 * batch)


_rule, _optimizer = counting, optimizer


def pair(owner: object, name: str, value: Any, minimum: int) -> tuple[int, int]:
    """A number or a pair as (height, width)."""
    both = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(both) != 2:
        raise InputError(f"{type(owner).__name__}: {name}={value!r}; it takes a number or (height, width)")
    whole(owner, minimum, **{f"{name}[0]": both[0], f"{name}[1]": both[1]})
    return both[0], both[1]


def image(owner: str, shape: Shape) -> Shape:
    """(channels, height, width) or an InputError."""
    if len(shape) != 3:
        raise InputError(f"{owner}: it stands behind the shape {shape}; it takes (channels, height, width)")
    return shape


def bias_of(used: bool, width: int, rows: int = 1) -> list[Operation]:
    """A bias if it is used."""
    return [Bias(rows, width)] if used else []


@dataclass(frozen=True)
class Linear(Layer):
    """inputs -> outputs for each sample; images are flattened."""

    inputs: int
    outputs: int
    bias: bool = True

    def __post_init__(self):
        whole(self, 1, inputs=self.inputs, outputs=self.outputs)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"inputs": prod(shape)}

    def output(self, shape: Shape) -> Shape:
        return (self.outputs,)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (Tensor(self.outputs, self.inputs, matrix=True), *([Tensor(self.outputs)] if self.bias else []))

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (Product(1, self.inputs, self.outputs), *bias_of(self.bias, self.outputs))


@dataclass(frozen=True)
class Conv2d(Layer):
    """A convolution on (inputs, *size) images: forward 2 K K (C/groups) H' W' D FLOP per image.

    `kernel`, `stride`, `padding`, `dilation`: a number or (height, width), as in torch.nn.Conv2d.
    """

    inputs: int
    outputs: int
    kernel: Any
    size: tuple[int, int]
    stride: Any = 1
    padding: Any = 0
    groups: int = 1
    dilation: Any = 1
    bias: bool = True

    def __post_init__(self):
        whole(self, 1, inputs=self.inputs, outputs=self.outputs, groups=self.groups)
        for name, minimum in {"kernel": 1, "size": 1, "stride": 1, "padding": 0, "dilation": 1}.items():
            object.__setattr__(self, name, pair(self, name, getattr(self, name), minimum))
        if self.inputs % self.groups or self.outputs % self.groups:
            raise InputError(
                f"Conv2d: groups={self.groups} does not divide inputs={self.inputs} and outputs={self.outputs}; "
                "it takes a common divisor"
            )
        _window("Conv2d", self.size, self.kernel, self.stride, self.padding, self.dilation)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        channels, *size = image("Conv2d", shape)
        return {"inputs": channels, "size": tuple(size)}

    @property
    def map(self) -> tuple[int, int]:
        """Height and width of the output."""
        return _window("Conv2d", self.size, self.kernel, self.stride, self.padding, self.dilation)

    def output(self, shape: Shape) -> Shape:
        return (self.outputs, *self.map)

    @property
    def _fan_in(self) -> int:
        return self.inputs // self.groups * prod(self.kernel)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (Tensor(self.outputs, self._fan_in, matrix=True), *([Tensor(self.outputs)] if self.bias else []))

    @property
    def operations(self) -> tuple[Operation, ...]:
        pixels = prod(self.map)
        product = Product(pixels, self._fan_in, self.outputs // self.groups, repeats=self.groups)
        return (product, *bias_of(self.bias, self.outputs, pixels))


def _window(owner: str, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any = (1, 1)) -> tuple[int, int]:
    """Height and width behind a sliding window; InputError if the window is larger than the padded image."""
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if height < 1 or width < 1:
        raise InputError(
            f"{owner}: kernel {kernel} does not fit an image of {size} with padding {padding}; "
            "it takes a smaller kernel or stride, or more padding"
        )
    return height, width


@dataclass(frozen=True)
class PerUnit(Layer):
    """One FLOP per unit forward and one backward, as in Hobbhahn & Sevilla's table."""

    features: int

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"features": prod(shape)}

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (Pointwise(self.features, self.features),)


class ReLU(PerUnit):
    """An activation function."""


@dataclass(frozen=True)
class Pool(Layer):
    """Maximum or average over a window: one FLOP per value looked at."""

    channels: int
    size: tuple[int, int]
    kernel: Any
    stride: Any = None
    padding: Any = 0

    def __post_init__(self):
        object.__setattr__(self, "stride", self.kernel if self.stride is None else self.stride)
        for name, minimum in {"kernel": 1, "size": 1, "stride": 1, "padding": 0}.items():
            object.__setattr__(self, name, pair(self, name, getattr(self, name), minimum))
        _window("Pool", self.size, self.kernel, self.stride, self.padding)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        channels, *size = image("Pool", shape)
        return {"channels": channels, "size": tuple(size)}

    def output(self, shape: Shape) -> Shape:
        return (self.channels, *_window("Pool", self.size, self.kernel, self.stride, self.padding))

    @property
    def operations(self) -> tuple[Operation, ...]:
        values = prod(self.output(())) * prod(self.kernel)
        return (Pointwise(values, values),)


@dataclass(frozen=True)
class GlobalAverage(Layer):
    """The mean of each channel over the image, or over each cell of a `cells` x `cells` grid (adaptive pooling)."""

    channels: int
    size: tuple[int, int]
    cells: int = 1

    def __post_init__(self):
        whole(self, 1, cells=self.cells)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        channels, *size = image("GlobalAverage", shape)
        return {"channels": channels, "size": tuple(size)}

    def output(self, shape: Shape) -> Shape:
        return (self.channels, self.cells, self.cells)

    @property
    def operations(self) -> tuple[Operation, ...]:
        values = self.channels * prod(self.size)
        return (Pointwise(values, values),)


@dataclass(frozen=True)
class Norm(Layer):
    """A norm over `features` at `rows` places: gains, and where `bias` also a mean to subtract and a bias to add.

    RMSNorm (`bias=False`): square, add, scale, gain, 4 FLOP per value; LayerNorm and BatchNorm: 7. The backward pass
    is taken as twice that.
    """

    features: int
    bias: bool = False
    rows: int = 1
    gains: bool = True

    def __post_init__(self):
        whole(self, 1, features=self.features, rows=self.rows)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"features": shape[0], "rows": prod(shape[1:])}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (Tensor(self.features),) * (self.gains + self.bias)

    @property
    def operations(self) -> tuple[Operation, ...]:
        values, forward = self.features * self.rows, 7 if self.bias else 4
        return (Pointwise(forward * values, 2 * forward * values, (2 + self.bias) * values),)


class Loss(PerUnit):
    """The loss of a network's outputs."""


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of `vocabulary` rows; a lookup costs nothing forward and an add per value backward."""

    vocabulary: int
    d_model: int

    def __post_init__(self):
        whole(self, 1, vocabulary=self.vocabulary, d_model=self.d_model)

    def output(self, shape: Shape) -> Shape:
        return (self.d_model,)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (Tensor(self.vocabulary, self.d_model),)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (Pointwise(0, 0, self.d_model),)


@dataclass(frozen=True)
class Unembedding(Layer):
    """d_model -> logits over the vocabulary; `tied`: the weights are those of the embedding and counted there."""

    d_model: int
    vocabulary: int
    tied: bool = False
    bias: bool = False

    def __post_init__(self):
        whole(self, 1, vocabulary=self.vocabulary, d_model=self.d_model)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    def output(self, shape: Shape) -> Shape:
        return (self.vocabulary,)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        own = () if self.tied else (Tensor(self.vocabulary, self.d_model),)
        return (*own, *([Tensor(self.vocabulary)] if self.bias else []))

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (Product(1, self.d_model, self.vocabulary, kind="head"), *bias_of(self.bias, self.vocabulary))
