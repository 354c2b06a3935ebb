"""One description of a transformer, by the field's names, and the stack of layers that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

from moesim.errors import InputError
from moesim.models.attention import QK_NORMS, Attention, Indexer, LatentAttention, keys_seen
from moesim.models.feedforward import MLP, MoE
from moesim.models.layers import Embedding, Layer, Linear, Norm, Unembedding
from moesim.models.network import Entry, Network
from moesim.models.operations import choose, whole
from moesim.models.recurrent import DeltaNet, Mamba, Mamba2
from moesim.models.residual import AltUp, Laurel

FORMS = {"trained": False, "executed": True}
"""`trained`: what the model's definition asks for; `executed`: what its module in `transformers` computes where that is
more: every expert for every token (`every_expert`), states in whole chunks of `state_chunk` tokens."""

KINDS = (
    "local_layers",
    "linear_layers",
    "mamba_layers",
    "mixerless_layers",
    "ffnless_layers",
    "dense_layers",
    "encoder_layers",
    "mtp_layers",
)
"""Fields that say how many of the layers are of a kind; in a variant they count within it and are 0 unless given."""


@dataclass(frozen=True)
class Description:
    """What a transformer is; a sample is one token.

    Sizes: `layers`, `d_model`, `heads`, `vocabulary`; `kv_heads` (0: as many as heads), `head_dim` (0: d_model/heads).
    Latent attention where `kv_rank` is given: `q_rank` (0: none), `nope_dim`, `rope_dim`, `value_dim`.
    Attention extras: `qkv_bias`, `out_bias`, `qk_norm` (none, head, width), `attention_gate`, `sinks`,
    `relative_projection`, `kv_projections` (2; 1: values are the keys; 0: keys and values of an earlier layer), an
    indexer of `indexer_heads` x `indexer_dim` that leaves each query `indexer_keys` keys.
    Kinds of layers, the others see the whole sequence: `local_layers` see only a `window` or a `chunk`;
    `linear_layers` are Gated DeltaNets with `linear_*` sizes; `mamba_layers` are state-space layers with `mamba_*`
    sizes (of the second form where `mamba_heads` is given, else of the first with `mamba_rank`); `mixerless_layers`
    have only a feed-forward part, `ffnless_layers` none.
    Feed-forward: `d_ff`, `gated` (3 matrices, else 2), `mlp_bias`. Mixture of experts where `experts` is given:
    `active_experts` of width `d_expert`, `shared_experts` of width `d_shared` each (0: d_expert), `shared_gate`,
    `gated_experts` (None: as `gated`), `expert_bias`, `expert_latent` (0: d_model; `latent_bias`), `zero_experts` that
    do nothing, `router_bias`, `selection_bias`, `router_scales`; `dense_layers` have none.
    Around them: `tied` embeddings, `head_bias`, `block_norms` for each layer, `norm_bias` (LayerNorm), `norm_gains`,
    `learned_positions` (rows), `relative_buckets` (T5), `layer_embedding` (width of an embedding for each layer, of
    `layer_vocabulary` rows; Gemma 4), `altup_inputs` streams and residuals of `laurel_rank` (Gemma 3n),
    `encoder_layers` (the others are then a decoder with cross attention),
    `mtp_layers` (multi-token prediction modules, counted only on request).
    `variants`: mappings of `layers` (so many of them) and the fields in which they differ from the rest.
    What the module of a family computes beyond that, counted only on request: `every_expert`, `state_chunk`.

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
    kv_projections: int = 2
    indexer_heads: int = 0
    indexer_dim: int = 0
    indexer_keys: int = 0
    local_layers: int = 0
    window: int = 0
    chunk: int = 0
    linear_layers: int = 0
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    linear_kernel: int = 4
    state_chunk: int = 0
    mamba_layers: int = 0
    mamba_inner: int = 0
    mamba_state: int = 0
    mamba_rank: int = 0
    mamba_heads: int = 0
    mamba_groups: int = 1
    mamba_kernel: int = 4
    mamba_bias: bool = False
    mamba_kernel_bias: bool = True
    mamba_norms: bool = False
    mixerless_layers: int = 0
    ffnless_layers: int = 0
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
    expert_latent: int = 0
    latent_bias: bool = False
    zero_experts: int = 0
    every_expert: bool = False
    router_bias: bool = False
    selection_bias: bool = False
    router_scales: bool = False
    dense_layers: int = 0
    tied: bool = False
    head_bias: bool = False
    block_norms: int = 2
    norm_bias: bool = False
    norm_gains: bool = True
    learned_positions: int = 0
    relative_buckets: int = 0
    layer_embedding: int = 0
    layer_vocabulary: int = 0
    altup_inputs: int = 0
    laurel_rank: int = 0
    encoder_layers: int = 0
    mtp_layers: int = 0
    variants: tuple[Mapping[str, Any], ...] = ()
    name: str = "transformer"

    def __post_init__(self):
        self._check_types()
        self._fill()
        for name, limit in {"dense_layers": "layers", "encoder_layers": "layers"}.items():
            self._at_most(name, getattr(self, name), getattr(self, limit), limit)
        choices = self.experts + self.zero_experts
        self._at_most(
            "active_experts", self.active_experts, choices, "experts" if choices == self.experts else "choices"
        )
        used = self.linear_layers + self.local_layers + self.mamba_layers + self.mixerless_layers
        self._at_most("linear_layers + local_layers", used, self.layers, "layers")
        self._at_most("ffnless_layers", self.ffnless_layers, self.layers - self.groups[0].moe_layers, "dense layers")
        self._check_needs()
        _ = self.plain

    def _check_types(self) -> None:
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        whole(self.name, 1, **{name: counts.pop(name) for name in ("layers", "d_model", "heads", "vocabulary")})
        whole(self.name, 0, **counts)
        for f in fields(self):
            value = getattr(self, f.name)
            if str(f.type).startswith("bool") and not isinstance(value, bool) and not (value is None is f.default):
                raise InputError(f"{self.name}: {f.name}={value!r}; it takes true or false")
        choose(f"{self.name}: qk_norm", self.qk_norm, QK_NORMS)
        object.__setattr__(self, "variants", self._checked_variants())

    def _checked_variants(self) -> tuple[Mapping[str, Any], ...]:
        accepted = {f.name for f in fields(self)} - {"variants", "name", "vocabulary", "encoder_layers"}
        if not isinstance(self.variants, list | tuple):
            raise InputError(f"{self.name}: variants={self.variants!r}; it takes a list of mappings")
        for variant in self.variants:
            if not isinstance(variant, Mapping) or "layers" not in variant or not accepted >= set(variant):
                raise InputError(
                    f"{self.name}: variants holds {variant!r}; it takes layers and {', '.join(sorted(accepted))}"
                )
            whole(f"{self.name}: variants", 1, layers=variant["layers"])
        self._at_most("layers of variants", sum(v["layers"] for v in self.variants) + 1, self.layers, "layers")
        return tuple(self.variants)

    def _check_needs(self) -> None:
        self._needs("dense layers", self.groups[0].mlp_layers, "d_ff")
        self._needs("experts", self.experts, "active_experts", "d_expert")
        self._needs("linear_layers", self.linear_layers, *(f"linear_{x}_{y}" for x in _KV for y in ("heads", "dim")))
        self._needs("local_layers", self.local_layers and not self.chunk, "window")
        self._needs("kv_rank", self.kv_rank, "nope_dim", "value_dim")
        self._needs("indexer_heads", self.indexer_heads, "indexer_dim", "indexer_keys", "q_rank")
        self._needs("mamba_layers", self.mamba_layers, "mamba_inner", "mamba_state")
        self._needs("mamba_layers", self.mamba_layers and not self.mamba_heads, "mamba_rank")
        self._needs("layer_embedding", self.layer_embedding, "layer_vocabulary")

    def _fill(self) -> None:
        """Replace the fields left to follow from others by their values (no width where the heads do not divide)."""
        width = 0 if self.d_model % self.heads else self.d_model // self.heads
        head_dim = self.nope_dim + self.rope_dim if self.kv_rank else width
        gated = self.gated if self.gated_experts is None else self.gated_experts
        shared = self.d_expert if self.shared_experts else 0
        follows = {"kv_heads": self.heads, "head_dim": head_dim, "d_shared": shared}
        for name, value in follows.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        object.__setattr__(self, "gated_experts", gated)

    def _at_most(self, name: str, value: int, most: int, limit: str) -> None:
        if value > most:
            raise InputError(f"{self.name}: {name}={value} of {limit}={most}; it takes at most as many")

    def _needs(self, what: str, used: int, *names: str) -> None:
        for name in names:
            if used and not getattr(self, name):
                raise InputError(f"{self.name}: {what} without {name}; give {name} as a whole number above 0")

    @cached_property
    def groups(self) -> tuple[Self, ...]:
        """The layers in groups of one description each, without variants: what is left over first."""
        if not self.variants:
            return (self,)
        rest = replace(self, layers=self.layers - sum(v["layers"] for v in self.variants), variants=())
        none = dict.fromkeys(KINDS, 0)
        return (rest, *(replace(self, **{**none, "variants": (), **variant}) for variant in self.variants))

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return sum(group.layers - group.dense_layers for group in self.groups if group.experts)

    @property
    def mlp_layers(self) -> int:
        """Layers with one feed-forward layer for all tokens."""
        return sum(group.layers - group.ffnless_layers for group in self.groups) - self.moe_layers

    @property
    def full_layers(self) -> int:
        """Layers whose attention sees the whole sequence."""
        others = ("local_layers", "linear_layers", "mamba_layers", "mixerless_layers")
        return sum(group.layers - sum(getattr(group, kind) for kind in others) for group in self.groups)

    @property
    def head_width(self) -> Any:
        """Mean of the query and the value width of one head."""
        return (self.nope_dim + self.rope_dim + self.value_dim) / 2 if self.kv_rank else self.head_dim

    @cached_property
    def plain(self) -> Network:
        """The stack without the attention core, built once: what counts of parameters need."""
        return self.network()

    @property
    def total_params(self) -> int:
        """Every weight of the main model, with norm gains, biases and the router's selection bias."""
        return self.plain.weights

    @property
    def active_params(self) -> int:
        """Total less the routed experts that a token does not use; input embedding and head both counted."""
        return self.plain.active_weights

    @property
    def sparsity_factor(self) -> float:
        """Total over active parameters."""
        return self.total_params / self.active_params

    def network(self, sequence: int = 0, mask: str = "causal", mtp: bool = False, form: str = "trained") -> Network:
        """The stack of layers; equal layers are one entry with `copies`.

        `mtp`: with the prediction modules; `form`: a row of FORMS.
        """
        whole(self.name, 0, sequence=sequence)
        executed = choose("as", form, FORMS)
        entries = [*self._entries(sequence, mask, executed), *(self._mtp(sequence, mask, executed) if mtp else ())]
        return Network(self.name, tuple(entry for entry in entries if entry.copies))

    def _entries(self, sequence: int, mask: str, executed: bool) -> Iterator[Entry]:
        d, decoder = self.d_model, self._decoder
        yield Entry("embedding", Embedding(self.vocabulary, d))
        if self.learned_positions:
            yield Entry("positions", Embedding(self.learned_positions, d))
        if self.layer_embedding:
            yield from self._layer_embeddings()
        if self.altup_inputs:
            yield Entry("altup", AltUp(d, self.altup_inputs), self.layers)
            yield Entry("altup.projections", Linear(d, d, bias=False), 2 * (self.altup_inputs - 1))
        if self.laurel_rank:
            yield Entry("laurel", Laurel(d, self.laurel_rank), self.layers)
        for place, group in enumerate(self.groups, 1):
            for entry in group._blocks(sequence, mask, executed):
                yield entry if place == 1 else replace(entry, name=f"{entry.name}_{place}")
        norms = sum(group.block_norms * group.layers for group in self.groups) + decoder + (2 if decoder else 1)
        yield Entry("norms", Norm(d, self.norm_bias, gains=self.norm_gains), norms)
        yield Entry("unembedding", Unembedding(d, self.vocabulary, self.tied, self.head_bias))

    @property
    def _decoder(self) -> int:
        return self.layers - self.encoder_layers if self.encoder_layers else 0

    def _layer_embeddings(self) -> Iterator[Entry]:
        """A table with a row part for each layer, its projection from d_model, and a gate and a projection in each."""
        width, d = self.layer_embedding, self.d_model
        yield Entry("layer_embedding", Embedding(self.layer_vocabulary, self.layers * width))
        yield Entry("layer_embedding.projection", Linear(d, self.layers * width, bias=False))
        yield Entry("layer_embedding.norm", Norm(width, rows=self.layers))
        yield Entry("layer_embedding.gate", Linear(d, width, bias=False), self.layers)
        yield Entry("layer_embedding.output", Linear(width, d, bias=False), self.layers)

    def _blocks(self, sequence: int, mask: str, executed: bool) -> Iterator[Entry]:
        """Attention and feed-forward of one group."""
        yield from self._mixers(sequence, mask, executed)
        if self._decoder:
            yield Entry("cross_attention", self._softmax_attention(keys_seen(sequence, "full")), self._decoder)
        if self.relative_buckets:  # one table of buckets x heads for the encoder and one for the decoder (T5)
            yield Entry("relative_bias", Embedding(self.relative_buckets, self.heads), 2 if self.encoder_layers else 1)
        if self.mlp_layers:
            yield Entry("mlp", MLP(self.d_model, self.d_ff, self.gated, self.mlp_bias), self.mlp_layers)
        if self.moe_layers:
            yield Entry("moe", self._moe(executed), self.moe_layers)

    def _mixers(self, sequence: int, mask: str, executed: bool) -> Iterator[Entry]:
        """Layers of an encoder see everything; the first layers with full attention are taken to be the encoder."""
        seen, encoder = keys_seen(sequence, mask, self.indexer_keys), min(self.encoder_layers, self.full_layers)
        yield Entry("encoder_attention", self._softmax_attention(keys_seen(sequence, "full")), encoder)
        yield Entry("attention", self._softmax_attention(seen), self.full_layers - encoder)
        if self.indexer_heads:
            yield Entry("indexer", self._indexer(sequence, mask), self.full_layers)
        local = keys_seen(sequence, mask, self.window, self.chunk)
        yield Entry("local_attention", self._softmax_attention(local), self.local_layers)
        if self.linear_layers:
            yield Entry("linear_attention", self._delta_net(sequence, executed), self.linear_layers)
        if self.mamba_layers:
            yield Entry("mamba", self._mamba(sequence, executed), self.mamba_layers)

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
            self.kv_projections,
        )

    def _indexer(self, sequence: int, mask: str) -> Indexer:
        return Indexer(self.d_model, self.q_rank, self.indexer_heads, self.indexer_dim, keys_seen(sequence, mask))

    def _delta_net(self, sequence: int, executed: bool) -> DeltaNet:
        heads, dims = (self.linear_key_heads, self.linear_value_heads), (self.linear_key_dim, self.linear_value_dim)
        return DeltaNet(self.d_model, *heads, *dims, self.linear_kernel, *self._chunks(sequence, executed))

    def _chunks(self, sequence: int, executed: bool) -> tuple[int, int]:
        return (self.state_chunk, sequence) if executed else (0, 0)

    def _mamba(self, sequence: int, executed: bool) -> Layer:
        after = (self.mamba_kernel, self.mamba_bias, self.mamba_kernel_bias)
        if not self.mamba_heads:
            return Mamba(self.d_model, self.mamba_inner, self.mamba_state, self.mamba_rank, *after, self.mamba_norms)
        if self.mamba_inner % self.mamba_heads:
            raise InputError(
                f"{self.name}: mamba_heads={self.mamba_heads} does not divide mamba_inner={self.mamba_inner}"
            )
        width = self.mamba_inner // self.mamba_heads
        sizes = (self.mamba_heads, width, self.mamba_state, self.mamba_groups)
        return Mamba2(self.d_model, *sizes, *after, *self._chunks(sequence, executed))

    def _moe(self, executed: bool) -> MoE:
        return MoE(
            self.d_model,
            self.d_expert,
            self.experts,
            self.active_experts,
            gated=self.gated if self.gated_experts is None else self.gated_experts,
            shared_bias=self.mlp_bias,
            bias=self.expert_bias,
            latent=self.expert_latent,
            latent_bias=self.latent_bias,
            zero_experts=self.zero_experts,
            every=self.every_expert and executed,
            shared_experts=self.shared_experts,
            d_shared=self.d_shared,
            shared_gate=self.shared_gate,
            router_bias=self.router_bias,
            selection_bias=self.selection_bias,
            router_scales=self.router_scales,
        )

    def _mtp(self, sequence: int, mask: str, executed: bool) -> Iterator[Entry]:
        """Prediction modules as in DeepSeek-V3 (arXiv:2412.19437, section 2.2): a projection of two concatenated
        inputs, one more layer like the last, five norms; embedding and head are shared with the model."""
        moe = self.groups[0].moe_layers
        ffn = self._moe(executed) if moe else MLP(self.d_model, self.d_ff, self.gated, self.mlp_bias)
        copies, seen = self.mtp_layers, keys_seen(sequence, mask, self.indexer_keys)
        yield Entry("mtp.projection", Linear(2 * self.d_model, self.d_model, bias=False), copies)
        yield Entry("mtp.attention", self._softmax_attention(seen), copies)
        if self.indexer_heads:
            yield Entry("mtp.indexer", self._indexer(sequence, mask), copies)
        yield Entry("mtp.moe" if moe else "mtp.mlp", ffn, copies)
        yield Entry("mtp.norms", Norm(self.d_model, self.norm_bias), 5 * copies)
        yield Entry("mtp.unembedding", Unembedding(self.d_model, self.vocabulary, tied=True), copies)


_KV = ("key", "value")
