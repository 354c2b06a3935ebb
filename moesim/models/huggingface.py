"""Reading a Hugging Face `config.json`: from its keys to the fields of a Transformer, by its family.

A family is a row of `moesim.models.families.FAMILIES`; keys are checked by the table in `moesim.models.keys`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.models.description import KINDS
from moesim.models.families import FAMILIES
from moesim.models.keys import Keys
from moesim.models.readers import Fields

_TEXT = ("text_config", "llm_config", "language_config")  # the text part of a model that also sees or hears
_INNER = ("attn_config", "ffn_config")  # parts of a config that hold keys of their own (DBRX)
_OUTER = ("tie_word_embeddings", "_name_or_path")  # keys of the whole that also hold for its text part


def description(config: str | Path | Mapping[str, Any]) -> Fields:
    """Fields of a Transformer from a config: the path of the file or its directory, or the content as a mapping.

    Raises InputError for an unknown family, a missing key, or a value that a key does not take.
    """
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
    return {**fields, "name": str(name)}


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
    (common, most), *others = Counter(tuple(layer.items()) for layer in each).most_common()
    variants = tuple({"layers": n, **_times(dict(kind), n)} for kind, n in others)
    return {**fields, **_times(dict(common), most), "variants": variants}


def _times(layer: Fields, number: int) -> Fields:
    """Fields of so many equal layers, from those of one."""
    return {name: value * number if name in KINDS else value for name, value in layer.items()}


def _text(content: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The family, and the keys of the text part, with those of its inner parts."""
    kind = content.get("model_type")
    part = next((content[name] for name in _TEXT if isinstance(content.get(name), Mapping)), None)
    if part is not None:
        outer = {key: content[key] for key in _OUTER if content.get(key) is not None}
        kind, content = part.get("model_type") or kind, {**part, **outer}
    parts = {name: content.get(name) or {} for name in _INNER}
    for name, inner in parts.items():
        if not isinstance(inner, Mapping):
            raise InputError(f"config.json of {kind}: {name}={inner!r}; it takes a mapping of keys")
    inner = {k: v for part in parts.values() for k, v in part.items() if k not in content}
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
