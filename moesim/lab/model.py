"""A decoder with a Mixture of Experts, as small as it can be and still be one.

Each layer is causal attention (rotary positions, normed queries and keys) and a feed-forward part with squared ReLU,
each on a normed copy of the stream; embeddings are tied; there are no biases, and norms have no gains, so that what it
holds is its matrices and nothing else: the sizes are those of `Shape.transformer` to the last parameter.
"""

from __future__ import annotations

from functools import lru_cache

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from moesim.lab.corpus import VOCABULARY
from moesim.lab.job import HEAD_DIM, Shape


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, shape: Shape, scale: float):
        super().__init__()
        self.heads, self.scale = shape.d_model // HEAD_DIM, scale
        self.qkv = matrix(3 * shape.d_model, shape.d_model)
        self.out = nn.Parameter(torch.zeros(shape.d_model, shape.d_model))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = F.linear(x, self.qkv).view(batch, length, 3, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotated(norm(q)), rotated(norm(k)), v, is_causal=True, scale=self.scale)
        return F.linear(mixed.transpose(1, 2).reshape(batch, length, width), self.out)


class Dense(nn.Module):
    """One feed-forward part for all tokens."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.up = matrix(shape.d_ff, shape.d_model)
        self.down = nn.Parameter(torch.zeros(shape.d_model, shape.d_ff))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, self.up)).square(), self.down)


class Experts(nn.Module):
    """Experts behind a router: each token goes to the `active_experts` of the highest gate plus bias.

    The gate is a sigmoid of the token's score, and what an expert gives is weighted by it. `bias` moves the choice and
    nothing else (balancing without a loss). After a pass `chosen` (token, active) and `gates` (token, expert) tell what
    the router did.
    """

    bias: Tensor

    def __init__(self, shape: Shape):
        super().__init__()
        self.active = shape.active_experts
        self.router = matrix(shape.experts, shape.d_model)
        self.up = nn.Parameter(torch.stack([matrix(shape.d_expert, shape.d_model).T for _ in range(shape.experts)]))
        self.down = nn.Parameter(torch.zeros(shape.experts, shape.d_expert, shape.d_model))
        self.register_buffer("bias", torch.zeros(shape.experts))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        self.gates = torch.sigmoid(F.linear(tokens, self.router))
        self.chosen = (self.gates + self.bias).topk(self.active).indices
        order = self.chosen.flatten().argsort(stable=True)
        ends = self.chosen.flatten().bincount(minlength=len(self.bias)).cumsum(0, dtype=torch.int32)
        rows, weight = order // self.active, self.gates.gather(1, self.chosen).flatten()[order]
        hidden = F.relu(F.grouped_mm(tokens[rows], self.up, offs=ends)).square()
        outputs = F.grouped_mm(hidden, self.down, offs=ends) * weight[:, None]
        return torch.zeros_like(tokens).index_add(0, rows, outputs).view_as(x)


class Model(nn.Module):
    """Logits (batch, length, vocabulary) of tokens (batch, length)."""

    def __init__(self, shape: Shape, attention_scale: float = HEAD_DIM**-0.5):
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(VOCABULARY, shape.d_model))
        self.attention = nn.ModuleList([Attention(shape, attention_scale) for _ in range(shape.layers)])
        feedforward = Experts if shape.experts > 1 else Dense
        self.feedforward = nn.ModuleList([feedforward(shape) for _ in range(shape.layers)])

    def forward(self, tokens: Tensor) -> Tensor:
        x = norm(F.embedding(tokens, self.embedding))
        for attention, feedforward in zip(self.attention, self.feedforward, strict=True):
            x = x + attention(norm(x))
            x = x + feedforward(norm(x))
        return F.linear(norm(x), self.embedding)

    @property
    def moe(self) -> list[Experts]:
        """The layers with experts."""
        return [layer for layer in self.feedforward if isinstance(layer, Experts)]


def matrix(rows: int, columns: int) -> nn.Parameter:
    """Weights that keep the scale of a normed input: uniform, standard deviation columns^-1/2."""
    return nn.Parameter((3 / columns) ** 0.5 * (2 * torch.rand(rows, columns) - 1))


def norm(x: Tensor) -> Tensor:
    """Root mean square 1."""
    return F.rms_norm(x, (x.shape[-1],))


def rotated(x: Tensor) -> Tensor:
    """Pairs of channels turned by an angle that grows with the position (base 10,000)."""
    cos, sin = _turns(x.shape[-2], x.shape[-1] // 2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


@lru_cache(maxsize=8)
def _turns(length: int, half: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(length)[:, None] * 1e4 ** (-torch.arange(half) / half)
    return angle.cos(), angle.sin()
