"""Layers of transformers: embeddings, attention in its kinds, feed-forward layers and mixtures of experts.

A sample is one token. Attention sees `context` keys on average: sequence (full), sequence/2 (causal), fewer behind a
window; `keys_seen` says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from moesim.errors import InputError
from moesim.models.layers import Layer, Shape
from moesim.models.operations import Bias, Operation, Pointwise, Product, Tensor, choose, number, whole


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


def _bias(used: bool, width: int) -> list[Operation]:
    return [Bias(1, width)] if used else []


def core(heads: int, key_dim: int, value_dim: int, context: Any) -> tuple[Operation, ...]:
    """Q K^T, softmax (5 FLOP per score, 4 backward) and A V of one token."""
    inner = {"repeats": heads, "weights": False, "reads_input": False}
    return (
        Product(1, key_dim, context, kind="scores", **inner),
        Pointwise(5 * heads * context, 4 * heads * context, kind="scores", reads_input=False),
        Product(1, context, value_dim, kind="values", **inner),
    )


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
        return (Product(1, self.d_model, self.vocabulary, kind="head"), *_bias(self.bias, self.vocabulary))


QK_NORMS: Mapping[str, Callable[[int, int, int], int]] = {
    "none": lambda heads, kv_heads, head_dim: 0,
    "head": lambda heads, kv_heads, head_dim: 2 * head_dim,
    "width": lambda heads, kv_heads, head_dim: (heads + kv_heads) * head_dim,
}


@dataclass(frozen=True)
class Attention(Layer):
    """Multi-head, grouped-query or multi-query attention: 2 d d_h (2H + 2H_kv) and 4 H d_h context FLOP per token.

    `kv_heads`: 0 means as many as heads (MHA). `head_dim`: 0 means d_model / heads. `qk_norm`: RMSNorm of queries and
    keys, none, one set of gains per `head` (Qwen3) or over the full `width` (OLMoE). `gate`: a sigmoid gate on the
    output, as wide as the queries (Qwen3-Next). `sinks`: a learned logit per head (gpt-oss). `relative_projection`: a
    projection of relative positions, d x H d_h (Transformer-XL); its product counts once per token.
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
        return [q, kv, kv] + [q] * (self.gate + self.relative_projection)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        q, _ = self.widths
        vectors = [n for n in self._inner[: 3 + self.gate] if self.qkv_bias] + [self.d_model] * self.out_bias
        gains = QK_NORMS[self.qk_norm](self.heads, self.kv_heads, self.head_dim)
        vectors += [n for n in (gains, self.heads * self.sinks) if n]
        matrices = [(n, self.d_model) for n in self._inner] + [(self.d_model, q)]
        return (*(Tensor(*shape, matrix=True) for shape in matrices), *map(Tensor, vectors))

    @property
    def operations(self) -> tuple[Operation, ...]:
        q, kv = self.widths
        normed = (q + kv) * (self.qk_norm != "none")
        return (
            *(Product(1, self.d_model, n) for n in self._inner),
            *_bias(self.qkv_bias, sum(self._inner[: 3 + self.gate])),
            Pointwise(4 * normed, 8 * normed, 2 * normed, reads_input=False),
            *core(self.heads, self.head_dim, self.head_dim, self.context),
            Pointwise(5 * q * self.gate, 5 * q * self.gate, reads_input=False),
            Product(1, q, self.d_model, reads_input=False),
            *_bias(self.out_bias, self.d_model),
        )


@dataclass(frozen=True)
class LatentAttention(Layer):
    """Multi-head latent attention in its training form (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    Projections 2 [d r_q + r_q H (d_n + d_r) + d (r_kv + d_r) + r_kv H (d_n + d_v) + H d_v d] FLOP per token, core
    2 H (d_n + d_r + d_v) context. `q_rank` 0: queries come straight from d_model (V2-Lite).
    """

    key: ClassVar[str] = "latent_attention"
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
            *_bias(self.bias, sum(self._biases)),
            *core(self.heads, self.nope_dim + self.rope_dim, self.value_dim, self.context),
        )


@dataclass(frozen=True)
class DeltaNet(Layer):
    """Gated DeltaNet, the linear attention of Qwen3-Next (Yang et al. 2024, arXiv:2412.06464).

    Counted in its recurrent form: per value head the state is read with the key, corrected by an outer product, and
    read with the query, 6 d_k d_v FLOP per token. Chunked kernels do more; Megatron-LM counts 8 d_v^2.
    """

    key: ClassVar[str] = "delta_net"
    d_model: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int = 4

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, key_heads=self.key_heads, value_heads=self.value_heads)
        whole(self, 1, key_dim=self.key_dim, value_dim=self.value_dim, kernel=self.kernel)
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
        recurrent = Product(
            1, self.key_dim, self.value_dim, self.value_heads, weights=False, kind="state", reads_input=False
        )
        return (
            Product(1, self.d_model, 2 * keys + 2 * values),
            Product(1, self.d_model, 2 * self.value_heads),
            Product(1, self.kernel, 1, repeats=2 * keys + values, reads_input=False),
            *(recurrent,) * 3,
            Pointwise(state, 2 * state, kind="state", reads_input=False),
            Product(1, values, self.d_model, reads_input=False),
        )


@dataclass(frozen=True)
class MLP(Layer):
    """A feed-forward layer: 4 d f FLOP per token, gated (SwiGLU) 6 d f; `output_gate`: a sigmoid gate d -> 1."""

    d_model: int
    d_ff: int
    gated: bool = True
    bias: bool = False
    output_gate: bool = False

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, d_ff=self.d_ff)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        up, vectors = 1 + self.gated, ([self.d_ff] * (1 + self.gated) + [self.d_model]) * self.bias
        matrices = [(self.d_ff, self.d_model)] * up + [(self.d_model, self.d_ff)]
        gate = [Tensor(1, self.d_model)] * self.output_gate
        return (*(Tensor(*shape, matrix=True) for shape in matrices), *map(Tensor, vectors), *gate)

    @property
    def operations(self) -> tuple[Operation, ...]:
        up = 1 + self.gated
        return (
            Product(1, self.d_model, self.d_ff * up),
            *_bias(self.bias, self.d_ff * up),
            Pointwise((1 + 5 * self.gated) * self.d_ff, (1 + 7 * self.gated) * self.d_ff, reads_input=False),
            Product(1, self.d_ff, self.d_model, kind="last", reads_input=False),
            *_bias(self.bias, self.d_model),
            *([Product(1, self.d_model, 1)] if self.output_gate else []),
        )


@dataclass(frozen=True)
class Router(Layer):
    """A linear router: 2 d E FLOP per token. `selection_bias`: one value per expert, set by a rule, not trained."""

    d_model: int
    experts: int
    bias: bool = False
    selection_bias: bool = False

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, experts=self.experts)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        extra = [Tensor(self.experts)] * self.bias + [Tensor(self.experts, trained=False)] * self.selection_bias
        return (Tensor(self.experts, self.d_model, matrix=True), *extra)

    @property
    def operations(self) -> tuple[Operation, ...]:
        softmax = Pointwise(5 * self.experts, 4 * self.experts, reads_input=False)
        return (Product(1, self.d_model, self.experts), *_bias(self.bias, self.experts), softmax)


@dataclass(frozen=True)
class Experts(Layer):
    """Routed experts: 6 d K f_e FLOP per token (4 if not gated), whatever their number.

    `capacity`: rows computed per routed token; the capacity factor of GShard, or `tile_padding` of a dropless grouped
    GEMM. `latent`: width at which the experts work, with a projection down and up (0: d_model). `einsum_group`: tokens
    per group of the one-hot dispatch and combine of GShard and Switch, 4 c K T d FLOP per token for both (0: sorted).
    """

    d_model: int
    d_expert: int
    experts: int
    active_experts: int
    gated: bool = True
    bias: bool = False
    capacity: float = 1
    latent: int = 0
    einsum_group: int = 0

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, d_expert=self.d_expert, experts=self.experts)
        whole(self, 1, active_experts=self.active_experts)
        whole(self, 0, latent=self.latent, einsum_group=self.einsum_group)
        number(self, capacity=self.capacity)
        if self.active_experts > self.experts:
            raise InputError(
                f"{type(self).__name__}: active_experts={self.active_experts} of experts={self.experts}; "
                "it takes at most as many as there are"
            )

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def _width(self) -> int:
        return self.latent or self.d_model

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        up, pool = 1 + self.gated, {"count": self.experts, "active": self.active_experts}
        matrices = [(self.d_expert, self._width)] * up + [(self._width, self.d_expert)]
        vectors = ([self.d_expert] * up + [self._width]) * self.bias
        latent = [Tensor(self.latent, self.d_model, matrix=True), Tensor(self.d_model, self.latent, matrix=True)]
        return (
            *(Tensor(*shape, matrix=True, **pool) for shape in matrices),
            *(Tensor(n, **pool) for n in vectors),
            *(latent if self.latent else []),
        )

    @property
    def operations(self) -> tuple[Operation, ...]:
        up, rows, width = 1 + self.gated, self.active_experts * self.capacity, self._width
        activation = Pointwise((1 + 5 * self.gated) * rows * self.d_expert, (1 + 7 * self.gated) * rows * self.d_expert)
        return (
            Product(rows, width, self.d_expert * up, reads_input=not self.latent),
            Product(rows, self.d_expert, width, reads_input=False),
            *([Bias(rows, self.d_expert * up), Bias(rows, width)] if self.bias else []),
            replace(activation, reads_input=False),
            *self._projections,
            *self._dispatch(rows),
        )

    @property
    def _projections(self) -> list[Operation]:
        down, up = (self.d_model, self.latent), (self.latent, self.d_model)
        return [Product(1, *down), Product(1, *up, reads_input=False)] if self.latent else []

    def _dispatch(self, rows: Any) -> list[Operation]:
        """The one-hot dispatch mask has no gradient, the combine weights do."""
        products = Product(rows, self.einsum_group, self._width, weights=False, gradients=1)
        return [products, replace(products, gradients=2, reads_input=False)] if self.einsum_group else []


@dataclass(frozen=True)
class MoE(Experts):
    """A mixture of experts: router, routed experts and shared experts.

    `shared_experts` of width `d_shared` each (0: as wide as a routed one) act on every token.
    """

    shared_experts: int = 0
    d_shared: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    selection_bias: bool = False

    def __post_init__(self):
        super().__post_init__()
        whole(self, 0, shared_experts=self.shared_experts, d_shared=self.d_shared)

    @property
    def parts(self) -> Mapping[str, Layer]:
        """Router, routed experts and shared experts."""
        own = {name: getattr(self, name) for name in Experts.__dataclass_fields__}
        width = self.shared_experts * (self.d_shared or self.d_expert)
        shared = {"shared": MLP(self.d_model, width, self.gated, self.bias, self.shared_gate)} if width else {}
        router = Router(self.d_model, self.experts, self.router_bias, self.selection_bias)
        return {"router": router, "experts": Experts(**own), **shared}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for part in self.parts.values() for tensor in part.tensors)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(op for part in self.parts.values() for op in part.operations)

    def refined(self, granularity: int) -> MoE:
        """The same layer with each expert split into `granularity` narrower ones, of which as many more act.

        Weights and FLOP of the routed experts stay; the router grows. InputError if the width does not divide.
        """
        whole(self, 1, granularity=granularity)
        if self.d_expert % granularity:
            raise InputError(f"MoE: granularity={granularity} does not divide d_expert={self.d_expert}; take a divisor")
        return replace(
            self,
            d_expert=self.d_expert // granularity,
            experts=self.experts * granularity,
            active_experts=self.active_experts * granularity,
            d_shared=self.d_shared or self.d_expert,
        )


def tile_padding(tokens_per_expert: Any, tile: int = 128) -> Any:
    """Rows computed per routed row when each expert's rows are padded to whole tiles: 1 + tile/(2 m) on average."""
    return 1 + tile / (2 * tokens_per_expert)
