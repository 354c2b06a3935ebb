"""Where the YAML files are and how to read one: `conf/` of the checkout, else the copy inside the package."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from moesim.errors import InputError, nearest

_PACKAGE = Path(__file__).resolve().parent
SUFFIXES = (".yaml", ".yml", ".json")
# Far above any file of coefficients, layers or choices; a file that is larger, or grows to more by aliases, is refused.
_LARGEST, _NODES = 2_000_000, 100_000
_KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


def conf_dir() -> Path:
    """The directory of the primary configs and groups."""
    checkout = _PACKAGE.parent / "conf"
    return checkout if (checkout / "sweep.yaml").is_file() else _PACKAGE / "conf"


def path_of(owner: str, given: Any) -> Path:
    """The path that is given; InputError for what is none."""
    if not isinstance(given, str | PathLike):
        raise InputError(f"{owner}: a name or a path is wanted, not an object of type {type(given).__name__}")
    return Path(given)


def choices(group: str) -> list[str]:
    """Names of the files in a config group, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def read(group: str, name: str | Path) -> dict[str, Any]:
    """The content of `conf/GROUP/NAME.yaml`, or of a YAML or JSON file given by its path; numbers as 1e20 are numbers.

    The file is plain data. Raises InputError, with file and line, if there is no such file, or if it is not a mapping,
    holds tags, interpolations (`${...}`), aliases that multiply, or names a Python file to run.
    """
    path = Path(name) if str(name).endswith(SUFFIXES) else conf_dir() / group / f"{name}.yaml"
    if not _is_file(path):
        raise InputError(
            f"{group}: no {str(name)!r}{nearest(name, choices(group))}; there are {', '.join(choices(group))}, "
            "or give the path of a .yaml file"
        )
    content = _json(path) if path.suffix == ".json" else _yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, not a mapping of keys")
    _refuse_more_than_data(path, content)
    return {str(key): value for key, value in content.items()}


@lru_cache(maxsize=64)
def shipped(name: str) -> Mapping[str, Any]:
    """The content of `conf/NAME.yaml`, a primary config of a verb."""
    return _yaml(conf_dir() / f"{name}.yaml")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name longer than any, or with a zero byte
        return False


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes; a file of settings has at most {_LARGEST}")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in UTF-8; save it as one") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not readable as JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be read") from None


def _yaml(path: Path) -> Any:
    import yaml

    text = _text(path)
    try:
        loader = _loader()(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(path, root, {})
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not readable as YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be read") from None


@lru_cache(maxsize=1)
def _loader() -> Any:
    """PyYAML's safe loader, with 1e20 as a number, dates as text, and no key twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen and key.tag != "tag:yaml.org,2002:merge":
                    said = f"key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    dropped = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float"}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in dropped]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = r"[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?|[-+]?\d[\d_]*[eE][-+]?\d+"
    special = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(rf"(?:{number}|{special})$"), list("-+0123456789.")
    )
    return Loader


def _count(path: Path, node: Any, counted: dict[int, int | None]) -> int:
    """How many nodes this one stands for with its aliases written out; refuses tags and endless or huge expansions."""
    where = f"{path}, line {node.start_mark.line + 1}"
    if id(node) in counted:
        count = counted[id(node)]
        if count is None:
            raise InputError(f"{where}: an alias inside of what it stands for; write it out")
        return count
    if node.tag not in _KINDS:
        raise InputError(f"{where}: the tag {node.tag!r}; a file of settings is plain YAML without tags")
    counted[id(node)] = None
    below = node.value if isinstance(node.value, list) else []
    parts = [part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,))]
    total = 1 + sum(_count(path, part, counted) for part in parts)
    if total > _NODES:
        raise InputError(
            f"{where}: more than {_NODES} entries with its aliases written out; a file of settings has fewer"
        )
    counted[id(node)] = total
    return total


def _refuse_more_than_data(path: Path, value: Any, key: str = "") -> None:
    """No interpolation and no code: `${...}` would read the environment, `???` is Hydra's word for no value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_more_than_data(path, str(name))
            _refuse_more_than_data(path, inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            _refuse_more_than_data(path, inner, key)
    elif isinstance(value, str):
        if "${" in value or value == "???":
            raise InputError(
                f"{path}: {key or 'key'}: {value!r}; a file of settings is plain data: write the value itself"
            )
        if key.rpartition(".")[2] in ("form", "policy") and re.search(r"\.py(:|$)", value):
            file, _, name = value.partition(":")
            raise InputError(
                f"{path}: {key}: {value!r}: a file cannot name code to run; write {key}: {name or 'NAME'} and name the "
                f"code yourself: plugins=[{file}]"
            )
