"""Dense and mixture-of-experts transformers: what they hold, and FLOPs per token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.models.attention import QK_NORMS, Attention, DeltaNet, LatentAttention, keys_seen
from moesim.models.feedforward import MLP, MoE
from moesim.models.layers import Embedding, Layer, Linear, Norm, Unembedding
from moesim.models.network import Entry, Network
from moesim.models.operations import Product, choose, whole
from moesim.output.text import Page, count, shown


@shown
@dataclass(frozen=True)
class Transformer:
    """One description of a transformer, with the field's names; a sample is one token.

    Sizes: `layers`, `d_model`, `heads`, `vocabulary`; `kv_heads` (0: as many as heads), `head_dim` (0: d_model/heads).
    Latent attention where `kv_rank` is given: `q_rank` (0: none), `nope_dim`, `rope_dim`, `value_dim`.
    Attention extras: `qkv_bias`, `out_bias`, `qk_norm` (none, head, width), `attention_gate`, `sinks`,
    `relative_projection`. `local_layers` of the layers see only a `window` or a `chunk`; `linear_layers` are Gated
    DeltaNets with `linear_*` sizes.
    Feed-forward: `d_ff`, `gated` (3 matrices, else 2), `mlp_bias`. Mixture of experts where `experts` is given:
    `active_experts` of width `d_expert`, `shared_experts` of width `d_shared` each (0: d_expert), `shared_gate`,
    `gated_experts` (None: as `gated`), `expert_bias`, `router_bias`, `selection_bias`; `dense_layers` have none.
    Around them: `tied` embeddings, `norm_bias` (LayerNorm), `learned_positions` (rows), `relative_buckets` (T5),
    `encoder_layers` (the others are then a decoder with cross attention), `mtp_layers` (multi-token prediction modules,
    counted only on request).

    Raises InputError for impossible shapes.
    """

    layers: int
    d_model: int
    heads: int
    vocabulary: int
    kv_heads: int = 0
    head_dim: int = 0
    q_rank: int = 0
    kv_rank: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    value_dim: int = 0
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str = "none"
    attention_gate: bool = False
    sinks: bool = False
    relative_projection: bool = False
    local_layers: int = 0
    window: int = 0
    chunk: int = 0
    linear_layers: int = 0
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    linear_kernel: int = 4
    d_ff: int = 0
    gated: bool = True
    mlp_bias: bool = False
    experts: int = 0
    active_experts: int = 0
    d_expert: int = 0
    shared_experts: int = 0
    d_shared: int = 0
    shared_gate: bool = False
    gated_experts: bool | None = None
    expert_bias: bool = False
    router_bias: bool = False
    selection_bias: bool = False
    dense_layers: int = 0
    tied: bool = False
    norm_bias: bool = False
    learned_positions: int = 0
    relative_buckets: int = 0
    encoder_layers: int = 0
    mtp_layers: int = 0
    name: str = "transformer"

    def __post_init__(self):
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        needed = ("layers", "d_model", "heads", "vocabulary")
        whole(self.name, 1, **{name: counts.pop(name) for name in needed})
        whole(self.name, 0, **counts)
        choose(f"{self.name}: qk_norm", self.qk_norm, QK_NORMS)
        for name, limit in {"dense_layers": "layers", "encoder_layers": "layers", "active_experts": "experts"}.items():
            self._at_most(name, getattr(self, name), limit)
        self._at_most("linear_layers + local_layers", self.linear_layers + self.local_layers, "layers")
        self._needs("dense layers", self.mlp_layers, "d_ff")
        self._needs("experts", self.experts, "active_experts", "d_expert")
        self._needs("linear_layers", self.linear_layers, *(f"linear_{x}_{y}" for x in _KV for y in ("heads", "dim")))
        self._needs("local_layers", self.local_layers and not self.chunk, "window")
        self._needs("kv_rank", self.kv_rank, "nope_dim", "value_dim")
        self.network()
        self._fill()

    def _page(self) -> Page:
        told = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        told.pop("name", None)
        sizes = f"{count(self.total_params)} parameters, {count(self.active_params)} active"
        return [f"Transformer {self.name}: {sizes}", told]

    def _fill(self) -> None:
        """Replace the fields left to follow from others by their values."""
        head_dim = self.nope_dim + self.rope_dim if self.kv_rank else self.d_model // self.heads
        gated = self.gated if self.gated_experts is None else self.gated_experts
        shared = self.d_expert if self.shared_experts else 0
        follows = {"kv_heads": self.heads, "head_dim": head_dim, "d_shared": shared}
        for name, value in follows.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        object.__setattr__(self, "gated_experts", gated)

    def _at_most(self, name: str, value: int, limit: str) -> None:
        if value > getattr(self, limit):
            raise InputError(f"{self.name}: {name}={value} of {limit}={getattr(self, limit)}; it takes at most as many")

    def _needs(self, what: str, used: int, *names: str) -> None:
        for name in names:
            if used and not getattr(self, name):
                raise InputError(f"{self.name}: {what} without {name}; give {name} as a whole number above 0")

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any]) -> Transformer:
        """From a Hugging Face `config.json`: its path, its directory or its content as a mapping.

        Raises InputError for an unknown family (`model_type`), a missing key or an impossible shape.
        """
        from moesim.models.huggingface import description

        return cls(**description(config))

    @classmethod
    def load(cls, name: str | Path) -> Transformer:
        """From `conf/model/NAME.yaml`, a YAML file of that kind, or a `config.json`."""
        if str(name).endswith(".json") or Path(name).is_dir():
            return cls.from_config(name)
        from moesim.config import read

        return cls.from_spec(Path(name).stem, read("model", name))

    @classmethod
    def from_spec(cls, name: str, spec: Mapping[str, Any]) -> Transformer:
        """From the mapping `transformer` of a YAML file; InputError for an unknown or missing field."""
        given, accepted = spec.get("transformer"), [f.name for f in fields(cls)]
        if not isinstance(given, Mapping):
            raise InputError(f"{name}: transformer={given!r}; it takes a mapping of {', '.join(accepted)}")
        for key in given:
            if key not in accepted:
                raise InputError(f"{name}: unknown field {key!r}; it takes {', '.join(accepted)}")
        for key in accepted[:4]:
            if key not in given:
                raise InputError(f"{name}: no {key!r}; give {key} as a whole number")
        return cls(**{"name": name, **given})

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def mlp_layers(self) -> int:
        """Layers with one feed-forward layer for all tokens."""
        return self.layers - self.moe_layers

    @property
    def full_layers(self) -> int:
        """Layers whose attention sees the whole sequence."""
        return self.layers - self.local_layers - self.linear_layers

    @property
    def sparsity_factor(self) -> float:
        """Total over active parameters."""
        return self.total_params / self.active_params

    @property
    def total_params(self) -> int:
        """Every weight of the main model, with norm gains, biases and the router's selection bias."""
        return self.network().weights

    @property
    def active_params(self) -> int:
        """Total less the routed experts that a token does not use; input embedding and head both counted."""
        return self.network().active_weights

    def total_params_as(self, convention: str) -> int:
        """Total parameters by a convention: a row of TOTAL_CONVENTIONS."""
        return choose("total_params_as", convention, TOTAL_CONVENTIONS)(self)

    def active_params_as(self, convention: str) -> int:
        """Active parameters by a publisher's convention: a row of ACTIVE_CONVENTIONS."""
        return choose("active_params_as", convention, ACTIVE_CONVENTIONS)(self)

    def forward_flops(self, sequence: int = 0, mask: str = "causal", mtp: bool = False) -> Any:
        """Forward FLOP per token: 2 per weight that multiplies, and the attention core over `sequence` tokens.

        `sequence` 0 leaves the core out. `mask`: full, causal (T/2) or causal_diagonal ((T + 1)/2); see `keys_seen`.
        """
        return self.network(sequence, mask, mtp).total(1).forward

    def training_flops(
        self,
        sequence: int = 0,
        convention: str = "exact",
        mask: str = "causal",
        recompute: str = "none",
        mtp: bool = False,
    ) -> Any:
        """Training FLOP per token, without the update, by a row of `moesim.models.conventions.CONVENTIONS`.

        `mask`, `recompute` (a row of `network.RECOMPUTE`) and `mtp` are for `exact`; a framework's convention
        prescribes its own.
        """
        from moesim.models.conventions import CONVENTIONS, Setting

        setting = Setting(sequence, mask, recompute, mtp)
        return choose("convention", convention, CONVENTIONS)(self, setting)

    def network(self, sequence: int = 0, mask: str = "causal", mtp: bool = False) -> Network:
        """The stack of layers; equal layers are one entry with `copies`. `mtp`: with the prediction modules."""
        whole(self.name, 0, sequence=sequence)
        entries = [*self._entries(sequence, mask), *(self._mtp(sequence, mask) if mtp else ())]
        return Network(self.name, tuple(entry for entry in entries if entry.copies))

    def _entries(self, sequence: int, mask: str) -> Iterator[Entry]:
        d, decoder = self.d_model, self.layers - self.encoder_layers if self.encoder_layers else 0
        yield Entry("embedding", Embedding(self.vocabulary, d))
        if self.learned_positions:
            yield Entry("positions", Embedding(self.learned_positions, d))
        yield from self._attention(sequence, mask)
        if decoder:
            yield Entry("cross_attention", self._softmax_attention(keys_seen(sequence, "full")), decoder)
        yield from self._relative_bias()
        if self.mlp_layers:
            yield Entry("mlp", MLP(d, self.d_ff, self.gated, self.mlp_bias), self.mlp_layers)
        if self.moe_layers:
            yield Entry("moe", self._moe(), self.moe_layers)
        yield Entry("norms", Norm(d, self.norm_bias), 2 * self.layers + decoder + (2 if decoder else 1))
        yield Entry("unembedding", Unembedding(d, self.vocabulary, self.tied))

    def _attention(self, sequence: int, mask: str) -> Iterator[Entry]:
        """Layers of an encoder see everything; the first layers with full attention are taken to be the encoder."""
        seen, encoder = keys_seen(sequence, mask), min(self.encoder_layers, self.full_layers)
        yield Entry("encoder_attention", self._softmax_attention(keys_seen(sequence, "full")), encoder)
        yield Entry("attention", self._softmax_attention(seen), self.full_layers - encoder)
        local = keys_seen(sequence, mask, self.window, self.chunk)
        yield Entry("local_attention", self._softmax_attention(local), self.local_layers)
        if self.linear_layers:
            yield Entry("linear_attention", self._delta_net(), self.linear_layers)

    def _softmax_attention(self, context: Any) -> Layer:
        if self.kv_rank:
            dims = (self.q_rank, self.kv_rank, self.nope_dim, self.rope_dim, self.value_dim)
            return LatentAttention(self.d_model, self.heads, *dims, context, self.qkv_bias)
        return Attention(
            self.d_model,
            self.heads,
            self.kv_heads,
            self.head_dim,
            context,
            self.qkv_bias,
            self.out_bias,
            self.qk_norm,
            self.attention_gate,
            self.sinks,
            self.relative_projection,
        )

    def _delta_net(self) -> DeltaNet:
        heads, dims = (self.linear_key_heads, self.linear_value_heads), (self.linear_key_dim, self.linear_value_dim)
        return DeltaNet(self.d_model, *heads, *dims, self.linear_kernel)

    def _relative_bias(self) -> Iterator[Entry]:
        """One table of buckets x heads for the encoder and one for the decoder (T5)."""
        if self.relative_buckets:
            stacks = 2 if self.encoder_layers else 1
            yield Entry("relative_bias", Embedding(self.relative_buckets, self.heads), stacks)

    def _moe(self) -> MoE:
        return MoE(
            self.d_model,
            self.d_expert,
            self.experts,
            self.active_experts,
            gated=self.gated if self.gated_experts is None else self.gated_experts,
            shared_bias=self.mlp_bias,
            bias=self.expert_bias,
            shared_experts=self.shared_experts,
            d_shared=self.d_shared,
            shared_gate=self.shared_gate,
            router_bias=self.router_bias,
            selection_bias=self.selection_bias,
        )

    def _mtp(self, sequence: int, mask: str) -> Iterator[Entry]:
        """Prediction modules as in DeepSeek-V3 (arXiv:2412.19437, section 2.2): a projection of two concatenated
        inputs, one more layer like the last, five norms; embedding and head are shared with the model."""
        ffn = self._moe() if self.moe_layers else MLP(self.d_model, self.d_ff, self.gated, self.mlp_bias)
        copies = self.mtp_layers
        yield Entry("mtp.projection", Linear(2 * self.d_model, self.d_model, bias=False), copies)
        yield Entry("mtp.attention", self._softmax_attention(keys_seen(sequence, mask)), copies)
        yield Entry("mtp.moe" if self.moe_layers else "mtp.mlp", ffn, copies)
        yield Entry("mtp.norms", Norm(self.d_model, self.norm_bias), 5 * copies)
        yield Entry("mtp.unembedding", Unembedding(self.d_model, self.vocabulary, tied=True), copies)


_KV = ("key", "value")


def matmul_params(model: Transformer) -> int:
    """Weights that multiply for one token, 2 FLOP each: no lookups, norm gains or biases; a tied table counts once."""
    entries = model.network().entries
    return sum(
        entry.copies * op.macs
        for entry in entries
        for op in entry.layer.operations
        if isinstance(op, Product) and op.weights
    )


def _embeddings(model: Transformer, tables: int) -> int:
    return tables * model.vocabulary * model.d_model


def _untrained(model: Transformer) -> int:
    return model.moe_layers * model.experts if model.selection_bias else 0


TOTAL_CONVENTIONS: Mapping[str, Callable[[Transformer], int]] = {
    "all": lambda model: model.total_params,
    "trained": lambda model: model.total_params - _untrained(model),
    "no_embedding": lambda model: model.total_params - _embeddings(model, 1 if model.tied else 2),
    "with_mtp": lambda model: model.network(mtp=True).weights,
}
"""`trained`: without the router's selection bias, a buffer that no gradient reaches (what `parameters()` sums);
`no_embedding`: without input embedding and head; `with_mtp`: with the multi-token prediction modules."""

ACTIVE_CONVENTIONS: Mapping[str, Callable[[Transformer], int]] = {
    "all": lambda model: model.active_params,
    "no_input_embedding": lambda model: model.active_params - _embeddings(model, 0 if model.tied else 1),
    "no_embedding": lambda model: model.active_params - _embeddings(model, 1 if model.tied else 2),
    "matmul": matmul_params,
}
"""`all`: both embeddings (Mixtral, Qwen3); `no_input_embedding`: without the lookup, which costs nothing, unless the
table is also the head (gpt-oss, DeepSeek-V3); `no_embedding`: neither, as scaling laws count; `matmul`: only weights
that multiply, half the forward FLOP without the attention core."""
