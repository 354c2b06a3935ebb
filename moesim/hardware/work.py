"""What a training step of a transformer is made of, as arrays over its matrix products: rows, shapes, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.models.attention import LatentAttention
from moesim.models.feedforward import MLP, Experts, Router
from moesim.models.layers import Embedding, Layer, Unembedding
from moesim.models.network import Entry
from moesim.models.operations import Product
from moesim.models.transformer import Transformer


@dataclass(frozen=True)
class Work:
    """Counts of one transformer at one length of sequence, per token.

    Arrays over matrix products with weights: `rows` per token, `inner`, `columns`, `copies` (layers), whether they are
    of the routed experts (`grouped`) or the `head`, and whether they run in the narrow precision (`narrow`: not the
    head, not the router). `reads`: 1 where a product's input is its own, 0 where another of its layer has read it;
    `cheap_inputs`, `cheap_outputs`: 1 where what is kept for the backward pass is cheaply computed once more (what an
    activation function gives; the projections up of latent attention).
    `core`: forward FLOP of attention cores and states; `flops`: training FLOP of the model. Parameters:
    `expert_params` routed, `embedding_params` and `head_params` at the ends, `body_params` the rest. `kv_width`:
    values that attention keeps of a token, all layers.
    """

    rows: np.ndarray
    inner: np.ndarray
    columns: np.ndarray
    copies: np.ndarray
    grouped: np.ndarray
    head: np.ndarray
    narrow: np.ndarray
    reads: np.ndarray
    cheap_inputs: np.ndarray
    cheap_outputs: np.ndarray
    core: float
    flops: float
    layers: int
    moe_layers: int
    mlp_layers: int
    experts: int
    active_experts: float
    d_model: int
    heads: int
    vocabulary: int
    sequence: int
    kv_width: float
    expert_params: float
    embedding_params: float
    head_params: float
    body_params: float

    def ends(self, size: float = 2.0, cheap: bool = True) -> np.ndarray:
        """Bytes per token and product of inputs (each once, `size` where narrow) and outputs (16 bits), all layers.

        `cheap`: with those that are cheaply computed once more.
        """
        inputs = self.reads * self.inner * np.where(self.narrow, size, 2.0)
        kept = (1.0, 1.0) if cheap else (1.0 - self.cheap_inputs, 1.0 - self.cheap_outputs)
        return self.rows * self.copies * (inputs * kept[0] + 2.0 * self.columns * kept[1])

    @property
    def cheap_share(self) -> float:
        """Share of the products that are no experts' whose results are cheaply computed once more."""
        flops = self.rows * self.copies * self.inner * self.columns * ~self.grouped
        return float((flops * self.cheap_outputs).sum() / flops.sum())

    @property
    def params(self) -> float:
        """All parameters."""
        return self.expert_params + self.embedding_params + self.head_params + self.body_params


def work_of(model: Transformer, sequence: int) -> Work:
    """The Work of a transformer with its prediction modules, causal, exact (`Transformer.training_flops`)."""
    network = model.network(sequence, mtp=bool(model.mtp_layers))
    passes = network.total(1)
    moe_layers = model.moe_layers + model.mtp_layers * bool(model.moe_layers)
    placed = list(_products(network.rows().values()))
    return Work(
        **_arrays([one for one in placed if one[2].weights]),
        core=float(sum(2 * entry.copies * op.macs for entry, _, op in placed if not op.weights)),
        flops=float(passes.total - passes.update),
        layers=model.layers + model.mtp_layers,
        moe_layers=moe_layers,
        mlp_layers=model.layers + model.mtp_layers - moe_layers,
        experts=max(model.experts, 1),
        active_experts=max(model.active_experts, 1),
        d_model=model.d_model,
        heads=model.heads,
        vocabulary=model.vocabulary,
        sequence=sequence,
        kv_width=kv_width(model),
        **params_by_kind(network.entries),
    )


def _arrays(products: list[tuple[Entry, Layer, Product]]) -> dict[str, Any]:
    """The arrays of a Work; equal products of different layers are one, with the copies of all."""
    copies: dict[tuple[Any, ...], float] = {}
    for (entry, layer, op), reads in zip(products, _first_readers(products), strict=True):
        head, routed = op.kind == "head", isinstance(layer, Experts)
        inside = not op.reads_input and isinstance(layer, MLP | Experts)
        flags = (routed, head, not head and not isinstance(layer, Router), reads, inside, _up(layer, op))
        key = (op.rows, op.inner, op.columns, *flags)
        copies[key] = copies.get(key, 0.0) + entry.copies * op.repeats
    names = ("rows", "inner", "columns", "grouped", "head", "narrow", "reads", "cheap_inputs", "cheap_outputs")
    columns = dict(zip(names, map(np.array, zip(*copies, strict=True)), strict=True))
    return {**columns, "copies": np.array(list(copies.values()))}


def kv_width(model: Transformer) -> float:
    """Values that attention keeps of one token over all layers: keys and values, or the latent of latent attention."""
    per_layer = [
        (g.kv_rank + g.rope_dim if g.kv_rank else g.kv_projections * g.kv_heads * g.head_dim) for g in model.groups
    ]
    softmax = [g.full_layers + g.local_layers for g in model.groups]
    return float(sum(a * b for a, b in zip(per_layer, softmax, strict=True)))


def _products(rows: Any) -> Iterator[tuple[Entry, Layer, Product]]:
    return ((entry, layer, op) for entry, layer in rows for op in layer.operations if isinstance(op, Product))


def _up(layer: Layer, op: Product) -> bool:
    return isinstance(layer, LatentAttention) and not op.reads_input and op.columns != layer.d_model


def _first_readers(products: list[tuple[Entry, Layer, Product]]) -> list[float]:
    """1 for a product whose input no earlier product of its layer has read."""
    seen: set[int] = set()
    out = []
    for _, layer, op in products:
        out.append(float(not (op.reads_input and id(layer) in seen)))
        if op.reads_input:
            seen.add(id(layer))
    return out


def params_by_kind(entries: tuple[Entry, ...]) -> dict[str, Any]:
    """Parameters of routed experts, of the tables at the ends, and of the rest (body)."""
    parts = [(part, entry.copies * part.weights) for entry in entries for part in entry.layer.parts.values()]
    kinds = {"expert_params": Experts, "embedding_params": Embedding, "head_params": Unembedding}
    out = {name: float(sum(n for part, n in parts if isinstance(part, kind))) for name, kind in kinds.items()}
    return {**out, "body_params": float(sum(n for _, n in parts)) - sum(out.values())}
