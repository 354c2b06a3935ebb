"""What stands beside the residual stream of a layer (Gemma 3n). A sample is one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moesim.models.layers import Layer, Shape
from moesim.models.operations import Operation, Pointwise, Product, Tensor, whole


@dataclass(frozen=True)
class AltUp(Layer):
    """Alternating updates (Baykal et al. 2023, arXiv:2301.13310): `inputs` streams, of which a layer computes one.

    The others are predicted and corrected by mixing coefficients from a normed router of the computed one, before and
    after the layer: 2 d n + n^3 + n^2 + d n^2 multiply-adds per token.
    """

    d_model: int
    inputs: int

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, inputs=self.inputs)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        d, n = self.d_model, self.inputs
        matrices = (Tensor(n, d, matrix=True), Tensor(n * n, n, matrix=True), Tensor(n, n, matrix=True))
        return (*matrices, Tensor(d), Tensor(d))

    @property
    def operations(self) -> tuple[Operation, ...]:
        d, n = self.d_model, self.inputs
        return (
            *(Product(1, d, n),) * 2,
            Product(1, n, n * n, reads_input=False),
            Product(1, n, n, reads_input=False),
            Product(d, n, n, weights=False, reads_input=False),
            Pointwise((8 + 2 * n) * d, (16 + 4 * n) * d, 3 * d, reads_input=False),
        )


@dataclass(frozen=True)
class Laurel(Layer):
    """A learned augmented residual of low rank (Menghani et al. 2024, arXiv:2411.07501): d -> rank -> d, and a norm."""

    d_model: int
    rank: int

    def __post_init__(self):
        whole(self, 1, d_model=self.d_model, rank=self.rank)

    @classmethod
    def given(cls, shape: Shape) -> dict[str, Any]:
        return {"d_model": shape[0]}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        d, r = self.d_model, self.rank
        return Tensor(r, d, matrix=True), Tensor(d, r, matrix=True), Tensor(d)

    @property
    def operations(self) -> tuple[Operation, ...]:
        d, r = self.d_model, self.rank
        return Product(1, d, r), Product(1, r, d, reads_input=False), Pointwise(4 * d, 8 * d, 2 * d, reads_input=False)
