"""Reading the keys of a Hugging Face `config.json`: one table says what each may hold and what it means if left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moesim.errors import InputError

MOST_LAYERS = 100_000  # layers are looked at one by one; more are a slip (1e12) rather than a model


class Domain(NamedTuple):
    """Which values a key takes where it is read, and that in words; `unread`: what else stands in other families."""

    accepts: Callable[[Any], bool]
    words: str
    unread: Callable[[Any], bool] = lambda value: False


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(accepts, value))


def _either(*accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(accept(value) for accept in accepts)


def _zero_or_one(value: Any) -> bool:
    return value in (0, 1)


LAYERS = Domain(lambda value: _whole(value) and value <= MOST_LAYERS, f"a whole number from 1 to {MOST_LAYERS}")
SIZE = Domain(_whole, "a whole number, 1 or more")
COUNT = Domain(lambda value: _whole(value, 0), "a whole number, 0 or more")
INDEX = Domain(lambda value: _whole(value, -1), "the index of a layer, or -1 for the last")
SWITCH = Domain(lambda value: isinstance(value, bool), "true or false")
TEXT = Domain(lambda value: isinstance(value, str), "a text")
NUMBER = Domain(COUNT.accepts, COUNT.words, _list_of(COUNT.accepts))
PART = Domain(_whole, SIZE.words, lambda value: _whole(value, 0) or _list_of(_whole)(value))  # 0: there is no such part
COUNTS = Domain(
    _either(lambda value: _whole(value, 0), _list_of(lambda value: _whole(value, 0))),
    "a whole number, 0 or more, or a list of one for each layer",
)
INDICES = Domain(_list_of(lambda value: _whole(value, 0)), "a list of indices of layers")
FLAGS = Domain(_list_of(_zero_or_one), "a list of 0 or 1 for each layer")
EVERY = Domain(_either(_whole, FLAGS.accepts), "a whole number, 1 or more, or a list of 0 or 1 for each layer")
NAMES = Domain(_list_of(TEXT.accepts), "a list of the kind of each layer")
PATTERN = Domain(_either(TEXT.accepts, NAMES.accepts), "a text with a letter for each layer, or a list of kinds")
AUTO = Domain(_either(_whole, lambda value: value == "auto"), "a whole number, 1 or more, or 'auto'")

NEEDED = object()


class Key(NamedTuple):
    """What a key takes, and what it means where it is absent or null (`null` None: as if absent)."""

    domain: Domain
    absent: Any = NEEDED
    null: Any = None


def _rows(domain: Domain, absent: Any, null: Any, names: str) -> dict[str, Key]:
    return {name: Key(domain, absent, null) for name in names.split()}


KEYS: Mapping[str, Key] = {
    **_rows(LAYERS, NEEDED, None, "num_hidden_layers n_layer n_layers num_layers"),
    **_rows(
        SIZE,
        NEEDED,
        None,
        "hidden_size n_embd d_model num_attention_heads n_head n_heads num_heads vocab_size",
    ),
    **_rows(
        PART,
        NEEDED,
        None,
        "qk_nope_head_dim qk_rope_head_dim v_head_dim kv_lora_rank linear_num_key_heads linear_num_value_heads "
        "linear_key_head_dim linear_value_head_dim shared_expert_intermediate_size intermediate_size_mlp d_ff d_kv "
        "expert_layer_period attn_layer_period mamba_num_heads mamba_n_heads mamba_head_dim ssm_state_size index_topk "
        "index_n_heads index_head_dim n_positions moe_shared_expert_intermediate_size",
    ),
    **_rows(
        COUNTS,
        NEEDED,
        None,
        "intermediate_size ffn_hidden_size moe_intermediate_size expert_ffn_hidden_size num_experts_per_tok moe_topk "
        "moe_top_k moe_k",
    ),
    **_rows(PART, NEEDED, 0, "num_key_value_heads kv_n_heads"),
    **_rows(
        COUNT,
        NEEDED,
        0,
        "q_lora_rank first_k_dense_replace num_sparse_encoder_layers "
        "num_sparse_decoder_layers expert_layer_offset attn_layer_offset",
    ),
    **_rows(NUMBER, NEEDED, 0, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    **_rows(NUMBER, 0, 0, "n_shared_experts num_shared_expert moe_num_shared_experts"),
    **_rows(SIZE, 0, 0, "head_dim n_inner attention_head_dim top_k_experts global_head_dim num_global_key_value_heads"),
    **_rows(LAYERS, 0, 0, "num_decoder_layers"),
    **_rows(SIZE, 4, None, "altup_num_inputs"),
    **_rows(SIZE, 64, None, "laurel_rank"),
    **_rows(
        COUNT,
        0,
        0,
        "sliding_window attention_chunk_size max_window_layers num_nextn_predict_layers num_mtp_layers zero_expert_num "
        "moe_latent_size shared_intermediate_size num_kv_shared_layers hidden_size_per_layer_input "
        "moe_layer_start_index",
    ),
    **_rows(INDEX, -1, None, "moe_layer_end_index"),
    **_rows(
        SIZE,
        1,
        None,
        "decoder_sparse_step interleave_moe_layer_step moe_layer_interval index_topk_freq",
    ),
    **_rows(SIZE, 4, None, "full_attention_interval no_rope_layer_interval linear_conv_kernel_dim"),
    **_rows(SIZE, 4, None, "mamba_d_conv conv_kernel"),
    **_rows(SIZE, 2, None, "mamba_expand expand"),
    **_rows(COUNT, 2, None, "index_skip_topk_offset"),
    **_rows(SIZE, 1, None, "mamba_n_groups n_groups"),
    **_rows(SIZE, 16, None, "mamba_d_state"),
    **_rows(SIZE, 256, None, "mamba_chunk_size chunk_size"),
    **_rows(AUTO, "auto", None, "mamba_dt_rank mamba_d_head"),
    **_rows(SIZE, 32, None, "relative_attention_num_buckets"),
    **_rows(SIZE, 262_144, None, "vocab_size_per_layer_input"),
    **_rows(EVERY, 1, None, "moe_layer_freq"),
    **_rows(INDICES, (), None, "mlp_only_layers"),
    **_rows(INDICES, None, None, "moe_layers"),
    **_rows(FLAGS, None, None, "no_rope_layers"),
    **_rows(NAMES, None, None, "layer_types layers_block_type mlp_layer_types indexer_types"),
    **_rows(TEXT, None, None, "hybrid_override_pattern"),
    **_rows(PATTERN, None, None, "index_topk_pattern"),
    **_rows(Domain(_whole, SIZE.words, _either(TEXT.accepts, INDICES.accepts)), 6, None, "sliding_window_pattern"),
    **_rows(
        SWITCH,
        False,
        None,
        "tie_word_embeddings attention_bias attention_out_bias mlp_bias use_qk_norm use_sliding_window router_bias "
        "lm_head_bias use_bias mamba_proj_bias attention_k_eq_v enable_moe_block use_double_wide_mlp qkv_bias",
    ),
    **_rows(SWITCH, True, None, "mamba_conv_bias use_conv_bias"),
}
"""A size must be there, a switch that is left out is off, unless the family says otherwise (`Family.defaults`)."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("kv_n_heads",),
    "head_dim": ("attention_head_dim",),
    "intermediate_size": ("ffn_hidden_size", "n_inner"),
    "moe_intermediate_size": ("expert_ffn_hidden_size",),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_topk", "moe_top_k", "moe_k", "top_k_experts"),
    "n_shared_experts": ("num_shared_expert", "moe_num_shared_experts"),
    "num_nextn_predict_layers": ("num_mtp_layers",),
    "layer_types": ("layers_block_type",),
    "mamba_num_heads": ("mamba_n_heads",),
    "mamba_n_groups": ("n_groups",),
    "mamba_d_conv": ("conv_kernel",),
    "mamba_conv_bias": ("use_conv_bias",),
    "mamba_expand": ("expand",),
    "mamba_chunk_size": ("chunk_size",),
}
"""Other names of a key; the first that is there is read."""


class Keys:
    """The keys of one config, read by `keys[name]`.

    Every key of the table that the config holds is checked at once, whether the family reads it or not. Raises
    InputError that names the key, its value and what it takes. `defaults`: what keys mean where the family leaves them
    out; `names`: what it calls them, where that differs.
    """

    def __init__(self, owner: str, content: Mapping[str, Any], defaults: Mapping[str, Any], names: Mapping[str, str]):
        self.owner, self.content, self.defaults, self.names = owner, content, defaults, names
        for name in content.keys() & KEYS.keys():
            domain, value = KEYS[name].domain, content[name]
            if value is not None and not domain.accepts(value) and not domain.unread(value):
                raise self.wrong(name, domain.words)

    def having(self, **more: Any) -> Keys:
        """The same keys and these."""
        return Keys(self.owner, {**self.content, **more}, self.defaults, self.names)

    def wrong(self, name: str, accepted: str) -> InputError:
        """The error for the value of a key."""
        return InputError(f"{self.owner}: {name}={self.content.get(name)!r}; it takes {accepted}")

    def name(self, name: str) -> str:
        """The name under which the config holds the key: itself unless only an alias is there."""
        names = (name, *ALIASES.get(name, ()))
        return next(
            (n for n in names if self.content.get(n) is not None), next((n for n in names if n in self.content), name)
        )

    def __contains__(self, name: str) -> bool:
        return self.content.get(self.name(name)) is not None

    def __getitem__(self, name: str) -> Any:
        """The value; where there is none, what that means by the table and the family."""
        own, row = self.name(name), KEYS[name]
        value = self.content.get(own)
        if value is not None:
            return self._read(own, value)
        if own in self.content and row.null is not None:
            return row.null
        value = self.defaults.get(name, row.absent)
        if value is NEEDED:
            names = (self.names[name],) if name in self.names else (name, *ALIASES.get(name, ()))
            raise InputError(f"{self.owner}: no key {' or '.join(map(repr, names))}; add it to the config")
        return value

    def _read(self, own: str, value: Any) -> Any:
        if not KEYS[own].domain.accepts(value):
            raise self.wrong(own, KEYS[own].domain.words)
        return value

    def size(self, name: str) -> int:
        """A key that takes one number here, 1 or more, though other families give a list or 0."""
        value = self[name]
        if not _whole(value):
            raise self.wrong(self.name(name), SIZE.words)
        return value

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self["num_hidden_layers"]

    def each(self, name: str) -> list[Any]:
        """The value of the key in each layer, from one value or a list of one for each."""
        value = self[name]
        return self._one_each(name, value) if isinstance(value, list | tuple) else [value] * self.layers

    def _one_each(self, name: str, values: Any) -> list[Any]:
        if len(values) != self.layers:
            own = self.name(name)
            raise InputError(f"{self.owner}: {own} has {len(values)} entries for num_hidden_layers={self.layers}")
        return list(values)

    def at(self, name: str, index: int) -> Any:
        """The entry of such a list for one layer; None where there is no list."""
        values = self[name]
        if values and len(values) != self.layers:
            self._one_each(name, values)
        return values[index] if values else None

    def kinds(self, name: str, *accepted: str) -> list[str] | None:
        """The kind of each layer by such a key, or None where it is not given; InputError for an unknown kind."""
        kinds = self[name]
        for kind in kinds or ():
            if kind not in accepted:
                raise InputError(f"{self.owner}: {self.name(name)} holds {kind!r}; it takes {', '.join(accepted)}")
        return kinds if kinds is None else self._one_each(name, kinds)

    def indices(self, name: str) -> set[int]:
        """Indices of layers; InputError for one that no layer has."""
        for index in self[name]:
            if index >= self.layers:
                raise self.wrong(name, f"indices from 0 to {self.layers - 1}")
        return set(self[name])
