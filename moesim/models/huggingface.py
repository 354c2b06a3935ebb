"""Reading a Hugging Face `config.json`: from its keys to the fields of a Transformer, by its family.

A family is a row of `moesim.models.families.FAMILIES`; keys are checked by the table in `moesim.models.keys`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.models.description import KINDS
from moesim.models.families import FAMILIES
from moesim.models.keys import Keys
from moesim.models.readers import Fields

_TEXT = (
    "text_config",
    "llm_config",
    "language_config",
    "thinker_config",
)  # the text part of a model that also sees or hears
_INNER = ("attn_config", "ffn_config")  # parts of a config that hold keys of their own (DBRX)
_OUTER = ("tie_word_embeddings", "_name_or_path")  # keys of the whole that also hold for its text part


def description(config: str | Path | Mapping[str, Any]) -> tuple[Fields, Keys]:
    """Fields of a Transformer from a config, and its keys: the path of the file or its directory, or its content.

    Raises InputError for an unknown family, a missing key, or a value that a key does not take.
    """
    if not isinstance(config, str | Path | Mapping):
        raise InputError(f"config.json: {config!r}; it takes the path of the file or its directory, or its content")
    content, place = (config, "") if isinstance(config, Mapping) else _load(Path(config))
    kind, text = _text(content)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(
            f"config.json: unknown family model_type={kind!r}; there are {', '.join(FAMILIES)}; or describe it in a "
            "YAML file by transformer: {layers, d_model, heads, vocabulary, and kv_heads, head_dim, d_ff, experts, "
            "active_experts, d_expert, ... as they apply}"
        )
    family = FAMILIES[kind]
    fields: Fields = {}
    keys = Keys(f"config.json of {kind}", text, family.defaults, family.names)
    for reader in family.readers:
        fields |= reader(keys)
    fields = _alike(_overridden(keys, {**fields, **family.always}))
    name = content.get("_name_or_path") or place or content.get("model_type") or kind
    return {**fields, "name": str(name)}, keys


_KEY_OF = {
    "layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "experts": "num_experts",
    "active_experts": "num_experts_per_tok",
    "d_ff": "intermediate_size",
    "q_rank": "q_lora_rank",
    "window": "sliding_window",
    "key_heads": "linear_num_key_heads",
    "value_heads": "linear_num_value_heads",
    "mamba_heads": "mamba_num_heads",
    "groups": "mamba_n_groups",
}
_FIELD = re.compile(r"\b\w+(?==)|(?<=without )\w+|(?<=give )\w+(?= as)")  # where errors name a field


def in_keys(error: InputError, keys: Keys) -> InputError:
    """An error about fields in the words of the config that they were read from."""
    owner, _, said = str(error).partition(": ")
    names = {**_KEY_OF, "heads": "mamba_num_heads"} if owner == "Mamba2" else _KEY_OF
    told = re.sub(_FIELD, lambda field: keys.name(names.get(field[0], field[0])), said)
    return InputError(f"{keys.owner}: {told}")


_OF_LAYER = {"head_dim": "head_dim", "num_key_value_heads": "kv_heads", "intermediate_size": "d_ff"}


def _overridden(keys: Keys, fields: Fields) -> Fields:
    """Fields with `each`, with what `per_layer_config` says of single layers: {"05": {"head_dim": 512}}."""
    given = keys.content.get("per_layer_config") or {}
    if given and (not isinstance(given, Mapping) or "each" not in fields):
        raise keys.wrong("per_layer_config", "none here; describe the model in a YAML file, with variants")
    each = [dict(layer) for layer in fields.get("each", ())]
    for index, changes in given.items():
        known = str(index).isdecimal() and int(index) < keys.layers and isinstance(changes, Mapping)
        if not known or not _OF_LAYER.keys() >= changes.keys():
            raise keys.wrong("per_layer_config", f"indices of layers, each with some of {', '.join(_OF_LAYER)}")
        changed = keys.having(**changes)
        each[int(index)] |= {_OF_LAYER[name]: changed.size(name) for name in changes}
    return {**fields, "each": each} if each else fields


def _alike(fields: Fields) -> Fields:
    """Fields with `each`, a mapping for every layer, as those of the most common kind of layer and its variants."""
    each = fields.pop("each", None)
    if each is None:
        return fields
    kinds = Counter(tuple(layer.items()) for layer in each).most_common()
    (first, *others), dense = (
        [{"layers": n, **_times(dict(kind), n)} for kind, n in kinds],
        fields.get("dense_layers", 0),
    )
    for group in (first, *others):  # as many as fit
        if dense:
            group["dense_layers"] = min(dense, group["layers"])
            dense -= group["dense_layers"]
    return {**fields, **first, "layers": fields["layers"], "variants": tuple(others)}


def _times(layer: Fields, number: int) -> Fields:
    """Fields of so many equal layers, from those of one."""
    return {name: value * number if name in KINDS else value for name, value in layer.items()}


def _text(content: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The family, and the keys of the text part, with those of its inner parts."""
    kind = content.get("model_type")
    for name in (*_TEXT, *_INNER):
        if not isinstance(content.get(name) or {}, Mapping):
            raise InputError(f"config.json of {kind}: {name}={content[name]!r}; it takes a mapping of keys")
    part = next((content[name] for name in _TEXT if content.get(name)), None)
    if part is not None:
        outer = {key: content[key] for key in _OUTER if content.get(key) is not None}
        return _text({**part, **outer, "model_type": part.get("model_type") or kind})
    inner = {k: v for name in _INNER for k, v in (content.get(name) or {}).items() if k not in content}
    return kind, {**content, **inner}


def _load(path: Path) -> tuple[Mapping[str, Any], str]:
    """The content, and the name of the directory it lies in."""
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"model: cannot read {str(file)!r} ({reason}); give the path of a config.json") from None
    except ValueError as error:
        raise InputError(f"model: {str(file)!r} is not JSON ({error}); give the path of a config.json") from None
    if not isinstance(content, Mapping):
        raise InputError(f"model: {str(file)!r} holds {type(content).__name__}, not a mapping of keys")
    return content, file.resolve().parent.name
