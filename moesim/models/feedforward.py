"""Feed-forward layers: one for all tokens, or a mixture of experts. A sample is one token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from moesim.errors import InputError
from moesim.models.layers import Layer, Shape, bias_of
from moesim.models.operations import Bias, Operation, Pointwise, Product, Tensor, number, whole


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
            *bias_of(self.bias, self.d_ff * up),
            Pointwise((1 + 5 * self.gated) * self.d_ff, (1 + 7 * self.gated) * self.d_ff, reads_input=False),
            Product(1, self.d_ff, self.d_model, kind="last", reads_input=False),
            *bias_of(self.bias, self.d_model),
            *([Product(1, self.d_model, 1)] if self.output_gate else []),
        )


@dataclass(frozen=True)
class Router(Layer):
    """A linear router: 2 d E FLOP per token. `selection_bias`: one value per expert, set by a rule, not trained.

    `scales`: gains on its input and on each expert's weight (Gemma 4).
    """

    d_model: int
    experts: int
    bias: bool = False
    selection_bias: bool = False
    scales: bool = False

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, experts=self.experts)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        extra = [Tensor(self.experts)] * self.bias + [Tensor(self.experts, trained=False)] * self.selection_bias
        scales = [Tensor(self.d_model), Tensor(self.experts)] * self.scales
        return (Tensor(self.experts, self.d_model, matrix=True), *extra, *scales)

    @property
    def operations(self) -> tuple[Operation, ...]:
        softmax = Pointwise(5 * self.experts, 4 * self.experts, reads_input=False)
        return (Product(1, self.d_model, self.experts), *bias_of(self.bias, self.experts), softmax)


@dataclass(frozen=True)
class Experts(Layer):
    """Routed experts: 6 d K f_e FLOP per token (4 if not gated), whatever their number.

    `capacity`: rows computed per routed token; the capacity factor of GShard, or 1 + tile/(2 m) for a dropless grouped
    GEMM that pads the m rows of an expert to whole tiles. `latent`: width at which the experts work, with a projection
    down and up (0: d_model), biased where `latent_bias`. `einsum_group`: tokens per group of the one-hot dispatch and
    combine of GShard and Switch, 4 c K T d FLOP per token for both (0: sorted). `zero_experts`: of these a token may
    choose some that pass it on unchanged (LongCat), at no cost; routing is taken to be uniform. `every`: each expert
    computes every token, whatever the choice, as some modules run.
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
    latent_bias: bool = False
    zero_experts: int = 0
    every: bool = False

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, d_expert=self.d_expert, experts=self.experts)
        whole(self, 1, active_experts=self.active_experts)
        whole(self, 0, latent=self.latent, einsum_group=self.einsum_group, zero_experts=self.zero_experts)
        number(self, capacity=self.capacity)
        if self.active_experts > self.experts + self.zero_experts:
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
    def acting(self) -> Any:
        """Experts that act on a token, on average: those it chooses, less the zero experts among them."""
        share = Fraction(self.active_experts * self.experts, self.experts + self.zero_experts)
        return share.numerator if share.denominator == 1 else float(share)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        up, copies = 1 + self.gated, (self.experts, self.acting)
        matrices = [(self.d_expert, self._width)] * up + [(self._width, self.d_expert)]
        vectors = ([self.d_expert] * up + [self._width]) * self.bias
        latent = [Tensor(self.latent, self.d_model, matrix=True), Tensor(self.d_model, self.latent, matrix=True)]
        latent += [Tensor(n) for n in (self.latent, self.d_model) if self.latent_bias]
        return (
            *(Tensor(*shape, *copies, matrix=True) for shape in matrices),
            *(Tensor(n, 1, *copies) for n in vectors),
            *(latent if self.latent else []),
        )

    @property
    def operations(self) -> tuple[Operation, ...]:
        up, width = 1 + self.gated, self._width
        rows = self.experts if self.every else self.acting * self.capacity
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
        if not self.latent:
            return []
        products = [Product(1, *down), Product(1, *up, reads_input=False)]
        return [*products, *bias_of(self.latent_bias, self.latent + self.d_model)]

    def _dispatch(self, rows: Any) -> list[Operation]:
        """The one-hot dispatch mask has no gradient, the combine weights do."""
        products = Product(rows, self.einsum_group, self._width, weights=False, gradients=1)
        return [products, replace(products, gradients=2, reads_input=False)] if self.einsum_group else []


@dataclass(frozen=True)
class MoE(Experts):
    """A mixture of experts: router, routed experts and shared experts.

    `shared_experts` of width `d_shared` each (0: as wide as a routed one) act on every token, behind a sigmoid gate
    where `shared_gate`; biases: `bias` of all experts, `shared_bias` of the shared ones, `router_bias`.
    """

    shared_experts: int = 0
    d_shared: int = 0
    shared_gate: bool = False
    shared_bias: bool = False
    router_bias: bool = False
    selection_bias: bool = False
    router_scales: bool = False

    def __post_init__(self):
        super().__post_init__()
        whole(self, 0, shared_experts=self.shared_experts, d_shared=self.d_shared)

    @property
    def parts(self) -> Mapping[str, Layer]:
        """Router, routed experts and shared experts."""
        own = {name: getattr(self, name) for name in Experts.__dataclass_fields__}
        width = self.shared_experts * (self.d_shared or self.d_expert)
        shared = (
            {"shared": MLP(self.d_model, width, self.gated, self.bias or self.shared_bias, self.shared_gate)}
            if width
            else {}
        )
        choices = self.experts + self.zero_experts
        router = Router(self.d_model, choices, self.router_bias, self.selection_bias, self.router_scales)
        return {"router": router, "experts": Experts(**own), **shared}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for part in self.parts.values() for tensor in part.tensors)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(op for part in self.parts.values() for op in part.operations)
