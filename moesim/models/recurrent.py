"""Layers that carry a state along the sequence: the gated delta rule, and state-space layers (Mamba 1 and 2).

A sample is one token. All are counted in their recurrent form, two products of the state's size per token for Mamba
(write B x, read C h) and three for the delta rule; what kernels that work in chunks compute beyond that is counted
only where `chunk` is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moesim.errors import InputError
from moesim.models.layers import Layer, Shape, bias_of
from moesim.models.operations import Operation, Pointwise, Product, Tensor, whole


def _state(rows: int, columns: int, repeats: int = 1) -> Product:
    """One outer product with, or one reading of, a state of rows x columns in each of `repeats` heads."""
    return Product(1, rows, columns, repeats, weights=False, kind="state", reads_input=False)


def _within(rows: Any, inner: Any, columns: int, repeats: int) -> Product:
    """A product of activations within the chunks of a sequence."""
    return Product(rows, inner, columns, repeats, weights=False, kind="state", reads_input=False)


def padded(sequence: int, chunk: int) -> float:
    """Rows computed per token when a sequence is padded to whole chunks (1 without a sequence)."""
    return -(-sequence // chunk) * chunk / sequence if sequence else 1.0


@dataclass(frozen=True)
class DeltaNet(Layer):
    """Gated DeltaNet, the linear attention of Qwen3-Next (Yang et al. 2024, arXiv:2412.06464).

    Counted in its recurrent form: per value head the state is read with the key, corrected by an outer product, and
    read with the query, 6 d_k d_v FLOP per token. With `chunk` c what the chunked form in `transformers` computes: a
    triangular solve for d_k + d_v columns, and 2 c d_k + c d_v + 3 d_k d_v multiply-adds per value head and token, of
    `sequence` tokens padded to whole chunks (0: no padding). Megatron-LM counts 8 d_v^2.
    """

    d_model: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int = 4
    chunk: int = 0
    sequence: int = 0

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, key_heads=self.key_heads, value_heads=self.value_heads)
        whole(self, 1, key_dim=self.key_dim, value_dim=self.value_dim, kernel=self.kernel)
        whole(self, 0, chunk=self.chunk, sequence=self.sequence)
        if self.value_heads % self.key_heads:
            raise InputError(
                f"DeltaNet: key_heads={self.key_heads} does not divide value_heads={self.value_heads}; take a divisor"
            )

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def widths(self) -> tuple[int, int]:
        """Width of the keys (queries are as wide) and of the values (the output gate is as wide)."""
        return self.key_heads * self.key_dim, self.value_heads * self.value_dim

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        keys, values = self.widths
        shapes = [(2 * keys + 2 * values, self.d_model), (2 * self.value_heads, self.d_model), (self.d_model, values)]
        vectors = (self.value_heads, self.value_heads, self.value_dim)
        return (
            *(Tensor(*shape, matrix=True) for shape in shapes),
            Tensor(2 * keys + values, self.kernel),
            *map(Tensor, vectors),
        )

    @property
    def operations(self) -> tuple[Operation, ...]:
        keys, values = self.widths
        state = self.value_heads * self.key_dim * self.value_dim
        return (
            Product(1, self.d_model, 2 * keys + 2 * values),
            Product(1, self.d_model, 2 * self.value_heads),
            Product(1, self.kernel, 1, repeats=2 * keys + values, reads_input=False),
            *(self._chunked or [_state(self.key_dim, self.value_dim, self.value_heads)] * 3),
            Pointwise(state, 2 * state, kind="state", reads_input=False),
            Product(1, values, self.d_model, reads_input=False),
        )

    @property
    def _chunked(self) -> list[Product]:
        if not self.chunk:
            return []
        rows, k, v = padded(self.sequence, self.chunk), self.key_dim, self.value_dim
        shapes = [(k, self.chunk)] * 2 + [((self.chunk - 1) / 2, k + v), (self.chunk, v)] + [(k, v)] * 3
        return [_within(rows, *shape, self.value_heads) for shape in shapes]


@dataclass(frozen=True)
class Mamba(Layer):
    """A selective state-space layer (Gu & Dao 2023, arXiv:2312.00752): `inner` channels with a state of `state` each.

    Projections d -> 2 I, I -> rank + 2 S, rank -> I and I -> d, a convolution over `kernel` tokens, and 4 I S FLOP for
    the state. `norms`: gains on the step, B and C (Jamba); `bias`: of the outer projections.
    """

    d_model: int
    inner: int
    state: int
    rank: int
    kernel: int = 4
    bias: bool = False
    kernel_bias: bool = True
    norms: bool = False

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, inner=self.inner, state=self.state, rank=self.rank, kernel=self.kernel)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the projections."""
        inner, wide = self.inner, self.rank + 2 * self.state
        return [(self.d_model, 2 * inner), (inner, wide), (self.rank, inner), (inner, self.d_model)]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        vectors = (
            [self.inner, self.inner] + [self.inner] * self.kernel_bias + [2 * self.inner, self.d_model] * self.bias
        )
        vectors += [self.rank, 2 * self.state] * self.norms
        matrices = [Tensor(outputs, inputs, matrix=True) for inputs, outputs in self._shapes]
        return (*matrices, Tensor(self.inner, self.kernel), Tensor(self.inner, self.state), *map(Tensor, vectors))

    @property
    def operations(self) -> tuple[Operation, ...]:
        first, *rest = self._shapes
        decay = 2 * self.inner * self.state
        return (
            Product(1, *first),
            Product(1, self.kernel, 1, repeats=self.inner, reads_input=False),
            *(Product(1, *shape, reads_input=False) for shape in rest),
            *bias_of(self.bias, 2 * self.inner + self.d_model),
            *(_state(self.state, self.inner),) * 2,
            Pointwise(decay, 2 * decay, kind="state", reads_input=False),
        )


@dataclass(frozen=True)
class Mamba2(Layer):
    """A state-space layer in its second form (Dao & Gu 2024, arXiv:2405.21060): a scalar decay for each head.

    `heads` of `head_dim` channels share B and C of `state` within each of `groups`. One projection
    d -> 2 I + 2 G S + H with I = heads head_dim, a convolution over x, B and C, 4 I S FLOP for the state, gains on the
    gated output, and I -> d. With `chunk` c what the chunked form in `transformers` computes: c (S + P) + 2 S P
    multiply-adds per head and token, of `sequence` tokens padded to Z whole chunks (0: no padding), and (Z + 1)^2 S P
    per head between the chunks.
    """

    d_model: int
    heads: int
    head_dim: int
    state: int
    groups: int = 1
    kernel: int = 4
    bias: bool = False
    kernel_bias: bool = True
    chunk: int = 0
    sequence: int = 0

    def __post_init__(self):
        whole(self, 0, chunk=self.chunk, sequence=self.sequence)
        whole(self, 1, d_model=self.d_model, heads=self.heads, head_dim=self.head_dim, state=self.state)
        whole(self, 1, groups=self.groups, kernel=self.kernel)
        if self.heads % self.groups:
            raise InputError(f"Mamba2: groups={self.groups} does not divide heads={self.heads}; take a divisor")

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def widths(self) -> tuple[int, int, int]:
        """Width of the channels, of what is convolved (they, B and C), and of the whole first projection."""
        inner = self.heads * self.head_dim
        convolved = inner + 2 * self.groups * self.state
        return inner, convolved, inner + convolved + self.heads

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        inner, convolved, wide = self.widths
        vectors = [self.heads] * 3 + [inner] + [convolved] * self.kernel_bias + [wide, self.d_model] * self.bias
        matrices = Tensor(wide, self.d_model, matrix=True), Tensor(self.d_model, inner, matrix=True)
        return (*matrices, Tensor(convolved, self.kernel), *map(Tensor, vectors))

    @property
    def operations(self) -> tuple[Operation, ...]:
        inner, convolved, wide = self.widths
        decay = 2 * inner * self.state
        return (
            Product(1, self.d_model, wide),
            Product(1, self.kernel, 1, repeats=convolved, reads_input=False),
            *(self._chunked or [_state(self.state, self.head_dim, self.heads)] * 2),
            Pointwise(decay, 2 * decay, kind="state", reads_input=False),
            Product(1, inner, self.d_model, reads_input=False),
            *bias_of(self.bias, wide + self.d_model),
        )

    @property
    def _chunked(self) -> list[Product]:
        if not self.chunk:
            return []
        rows, wide, state = padded(self.sequence, self.chunk), self.head_dim, self.state
        shapes = [(state, self.chunk), (self.chunk, wide), (state, wide), (state, wide)]
        chunks = -(-self.sequence // self.chunk) + 1
        between = chunks**2 / self.sequence if self.sequence else 0
        return [_within(rows, *shape, self.heads) for shape in shapes] + [_within(between, state, wide, self.heads)]
