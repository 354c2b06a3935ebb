"""Attention in its kinds: multi-head and grouped-query, and latent, with or without an indexer.

A sample is one token. It sees `context` keys on average: the sequence (full mask), half of it (causal), fewer behind a
window; `keys_seen` says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moesim.errors import InputError
from moesim.models.layers import Layer, Shape, bias_of
from moesim.models.operations import Operation, Pointwise, Product, Tensor, choose, number, whole


def _half(value: int) -> Any:
    return value / 2 if value % 2 else value // 2


def _within(sequence: int, window: int) -> int:
    return min(window, sequence) if window else sequence


def _causal(sequence: int, window: int, chunk: int) -> Any:
    """Half the square, or the same of each chunk; a band of width w has w (T - w/2) of it."""
    if chunk and chunk < sequence:
        whole_chunks, rest = divmod(sequence, chunk)
        return (whole_chunks * chunk**2 + rest**2) / (2 * sequence)
    w = _within(sequence, window)
    return _half(sequence) if w == sequence else w - w * w / (2 * sequence)


def _diagonal(sequence: int, window: int, chunk: int) -> Any:
    """As causal, with every token seeing itself: (T + 1)/2 rather than T/2."""
    if chunk and chunk < sequence:
        whole_chunks, rest = divmod(sequence, chunk)
        return (whole_chunks * chunk * (chunk + 1) + rest * (rest + 1)) / (2 * sequence)
    w = _within(sequence, window)
    return _half(sequence + 1) if w == sequence else w - w * (w - 1) / (2 * sequence)


MASKS: Mapping[str, Callable[[int, int, int], Any]] = {
    "full": lambda sequence, window, chunk: sequence,
    "causal": _causal,
    "causal_diagonal": _diagonal,
}


def keys_seen(sequence: int, mask: str = "causal", window: int = 0, chunk: int = 0) -> Any:
    """Keys that a token attends to, on average over a sequence.

    `full`: the whole sequence, as a kernel that ignores masks computes (windows too). `causal`: T/2, the half that
    frameworks count; `window` w: w - w^2/(2T); `chunk` c: c/2. `causal_diagonal`: the exact (T + 1)/2, which counts
    the diagonal in full. Raises InputError for an unknown mask.
    """
    whole("attention", 0, sequence=sequence, window=window, chunk=chunk)
    return choose("mask", mask, MASKS)(sequence, window, chunk) if sequence else 0


def core(heads: int, key_dim: int, value_dim: int, context: Any) -> tuple[Operation, ...]:
    """Q K^T, softmax (5 FLOP per score, 4 backward) and A V of one token."""
    inner = {"repeats": heads, "weights": False, "reads_input": False}
    return (
        Product(1, key_dim, context, kind="scores", **inner),
        Pointwise(5 * heads * context, 4 * heads * context, kind="scores", reads_input=False),
        Product(1, context, value_dim, kind="values", **inner),
    )


QK_NORMS: Mapping[str, Callable[[int, int, int], int]] = {
    "none": lambda heads, kv_heads, head_dim: 0,
    "head": lambda heads, kv_heads, head_dim: (1 + bool(kv_heads)) * head_dim,
    "width": lambda heads, kv_heads, head_dim: (heads + kv_heads) * head_dim,
}


@dataclass(frozen=True)
class Core(Layer):
    """The attention core alone: scores, softmax and the weighted sum of values, without weights."""

    heads: int
    key_dim: int
    value_dim: int
    context: Any

    @property
    def operations(self) -> tuple[Operation, ...]:
        return core(self.heads, self.key_dim, self.value_dim, self.context)


@dataclass(frozen=True)
class Attention(Layer):
    """Multi-head, grouped-query or multi-query attention: 2 d d_h (2H + 2H_kv) and 4 H d_h context FLOP per token.

    `kv_heads`: 0 means as many as heads (MHA). `head_dim`: 0 means d_model / heads. `qk_norm`: RMSNorm of queries and
    keys, none, one set of gains per `head` (Qwen3) or over the full `width` (OLMoE). `gate`: a sigmoid gate on the
    output, as wide as the queries (Qwen3-Next). `sinks`: a learned logit per head (gpt-oss). `relative_projection`: a
    projection of relative positions, d x H d_h (Transformer-XL); its product counts once per token. `kv_projections`:
    2 (keys, values), 1 (the values are the keys) or 0 (both are those of an earlier layer; Gemma 3n and 4).
    """

    d_model: int
    heads: int
    kv_heads: int = 0
    head_dim: int = 0
    context: Any = 0
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str = "none"
    gate: bool = False
    sinks: bool = False
    relative_projection: bool = False
    kv_projections: int = 2

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, heads=self.heads)
        whole(self, 0, kv_heads=self.kv_heads, head_dim=self.head_dim)
        number(self, context=self.context)
        choose("qk_norm", self.qk_norm, QK_NORMS)
        if not self.head_dim and self.d_model % self.heads:
            raise InputError(
                f"Attention: heads={self.heads} does not divide d_model={self.d_model}; "
                "it takes a divisor, or give head_dim"
            )
        object.__setattr__(self, "head_dim", self.head_dim or self.d_model // self.heads)
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        if self.heads % self.kv_heads:
            raise InputError(f"Attention: kv_heads={self.kv_heads} does not divide heads={self.heads}; take a divisor")
        if self.kv_projections not in (0, 1, 2):
            raise InputError(f"Attention: kv_projections={self.kv_projections!r}; it takes 0, 1 or 2")

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def widths(self) -> tuple[int, int]:
        """Width of the queries and of the keys (the values are as wide)."""
        return self.heads * self.head_dim, self.kv_heads * self.head_dim

    @property
    def _inner(self) -> list[int]:
        q, kv = self.widths
        return [q] + [kv] * self.kv_projections + [q] * (self.gate + self.relative_projection)

    @property
    def _biased(self) -> list[int]:
        """Widths of the biases of what reads the input."""
        return self._inner[: 1 + self.kv_projections + self.gate] * self.qkv_bias

    @property
    def parts(self) -> Mapping[str, Layer]:
        """Projections and core."""
        return {
            "projections": replace(self, context=0),
            "core": Core(self.heads, self.head_dim, self.head_dim, self.context),
        }

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        q, _ = self.widths
        gains = QK_NORMS[self.qk_norm](self.heads, self.kv_heads * bool(self.kv_projections), self.head_dim)
        vectors = self._biased + [self.d_model] * self.out_bias + [n for n in (gains, self.heads * self.sinks) if n]
        matrices = [(n, self.d_model) for n in self._inner] + [(self.d_model, q)]
        return (*(Tensor(*shape, matrix=True) for shape in matrices), *map(Tensor, vectors))

    @property
    def operations(self) -> tuple[Operation, ...]:
        q, kv = self.widths
        normed = (q + kv * bool(self.kv_projections)) * (self.qk_norm != "none")
        return (
            *(Product(1, self.d_model, n) for n in self._inner),
            *bias_of(self.qkv_bias, sum(self._biased)),
            Pointwise(4 * normed, 8 * normed, 2 * normed, reads_input=False),
            *core(self.heads, self.head_dim, self.head_dim, self.context),
            Pointwise(5 * q * self.gate, 5 * q * self.gate, reads_input=False),
            Product(1, q, self.d_model, reads_input=False),
            *bias_of(self.out_bias, self.d_model),
        )


@dataclass(frozen=True)
class LatentAttention(Layer):
    """Multi-head latent attention in its training form (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    Projections 2 [d r_q + r_q H (d_n + d_r) + d (r_kv + d_r) + r_kv H (d_n + d_v) + H d_v d] FLOP per token, core
    2 H (d_n + d_r + d_v) context. `q_rank` 0: queries come straight from d_model (V2-Lite).
    """

    d_model: int
    heads: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    context: Any = 0
    bias: bool = False

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, heads=self.heads, kv_rank=self.kv_rank)
        whole(self, 1, nope_dim=self.nope_dim, value_dim=self.value_dim)
        whole(self, 0, q_rank=self.q_rank, rope_dim=self.rope_dim)
        number(self, context=self.context)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def _down(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the products that read the layer's input."""
        query = self.q_rank or self.heads * (self.nope_dim + self.rope_dim)
        return [(self.d_model, query), (self.d_model, self.kv_rank + self.rope_dim)]

    @property
    def _up(self) -> list[tuple[int, int]]:
        query = [(self.q_rank, self.heads * (self.nope_dim + self.rope_dim))] if self.q_rank else []
        keys_values = (self.kv_rank, self.heads * (self.nope_dim + self.value_dim))
        return [*query, keys_values, (self.heads * self.value_dim, self.d_model)]

    @property
    def _biases(self) -> list[int]:
        return [*([self.q_rank] if self.q_rank else []), self.kv_rank + self.rope_dim, self.d_model] * self.bias

    @property
    def parts(self) -> Mapping[str, Layer]:
        """Projections and core."""
        return {
            "projections": replace(self, context=0),
            "core": Core(self.heads, self.nope_dim + self.rope_dim, self.value_dim, self.context),
        }

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        vectors = [n for n in (self.q_rank, self.kv_rank) if n] + self._biases
        return (
            *(Tensor(outputs, inputs, matrix=True) for inputs, outputs in self._down + self._up),
            *map(Tensor, vectors),
        )

    @property
    def operations(self) -> tuple[Operation, ...]:
        normed = self.q_rank + self.kv_rank
        return (
            *(Product(1, *shape) for shape in self._down),
            Pointwise(4 * normed, 8 * normed, 2 * normed, reads_input=False),
            *(Product(1, *shape, reads_input=False) for shape in self._up),
            *bias_of(self.bias, sum(self._biases)),
            *core(self.heads, self.nope_dim + self.rope_dim, self.value_dim, self.context),
        )


@dataclass(frozen=True)
class Indexer(Layer):
    """The lightning indexer of sparse attention (DeepSeek-V3.2, arXiv:2512.02556, section 2.1).

    It scores every earlier token for each query: `heads` queries of `head_dim` from the query latent of `q_rank`, one
    key with a LayerNorm, and one weight for each head. Forward 2 H_i (d_i + 1) FLOP per key seen. Its choice has no
    gradient in the main loss; trained on its own it costs both gradients like any layer.
    """

    d_model: int
    q_rank: int
    heads: int
    head_dim: int
    context: Any = 0

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, q_rank=self.q_rank, heads=self.heads, head_dim=self.head_dim)
        number(self, context=self.context)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        shapes = [(self.heads * self.head_dim, self.q_rank), (self.head_dim, self.d_model), (self.heads, self.d_model)]
        return (*(Tensor(*shape, matrix=True) for shape in shapes), Tensor(self.head_dim), Tensor(self.head_dim))

    @property
    def operations(self) -> tuple[Operation, ...]:
        inner = {"weights": False, "kind": "scores", "reads_input": False}
        return (
            Product(1, self.q_rank, self.heads * self.head_dim, reads_input=False),
            Product(1, self.d_model, self.head_dim + self.heads),
            Pointwise(7 * self.head_dim, 14 * self.head_dim, 3 * self.head_dim, reads_input=False),
            Product(1, self.head_dim, self.context, repeats=self.heads, **inner),
            Product(1, self.heads, self.context, **inner),
        )
