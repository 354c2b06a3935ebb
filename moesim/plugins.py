"""Code of the user's own: files named on the command line, and installed packages that declare `moesim.plugins`.

A file registers whatever it decorates (laws, repetitions, architectures, policies). Nothing else can name code: a YAML,
a table or a result that does is refused.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from moesim.errors import InputError

ENTRY_POINTS = "moesim.plugins"
_STORE = "moesim_plugins"
# Group -> where its registry is, the key of a YAML that names a member, and the key of its values.
_REGISTRIES = {
    "law": ("moesim.laws", "FORMS", "form", "coefficients"),
    "repetition": ("moesim.laws", "REPETITIONS", "form", "coefficients"),
    "architecture": ("moesim.models.architecture", "ARCHITECTURES", "form", "fields"),
    **{
        name: (f"moesim.balance.{name}", name, "policy", None)
        for name in ("routing", "structure", "sampling", "placement")
    },
}
_loaded: dict[str, Path] = {}


def load(files: Iterable[str]) -> None:
    """Run Python files that the user named. InputError if one is not there or fails, with its line."""
    for file in files:
        path = Path(file).resolve()
        if path.suffix != ".py" or not path.is_file():
            raise InputError(f"plugins: no Python file {str(file)!r}; give paths of .py files: plugins=[mine.py]")
        if _loaded.get(path.name) != path:
            _run(path, file)
            _loaded[path.name] = path


def _run(path: Path, file: str) -> None:
    spec = spec_from_file_location(f"moesim_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"plugins: {file} cannot be loaded as Python")
    module = sys.modules[spec.name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        at = getattr(error, "lineno", None) or (lines[-1] if lines else 1)
        raise InputError(f"plugins: {file}, line {at}: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=1)
def load_installed() -> None:
    """Load what installed packages offer under the entry point `moesim.plugins`. InputError if one fails."""
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise InputError(
                f"plugin {point.name} = {point.value}: {type(error).__name__}: {error}; mend or uninstall it"
            ) from error


def loaded() -> list[str]:
    """Names of the files that were loaded."""
    return list(_loaded)


def files() -> list[str]:
    """Where the files lie that were loaded."""
    return [str(path) for path in _loaded.values()]


def forget() -> None:
    """Load nothing of what was loaded again, and know none of it (what it registered stays)."""
    _loaded.clear()


def depart() -> None:
    """Keep where the loaded files lie, so that jobs in other processes find them (Hydra sends its store along)."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name=_STORE, node={"files": files()})


def arrive() -> None:
    """Load in a job what the command that started it had loaded."""
    from hydra.core.config_store import ConfigStore

    load_installed()
    load(ConfigStore.instance().load(f"{_STORE}.yaml").node.files)


def require(files: Iterable[str]) -> None:
    """InputError if a result needs a file of code that the user has not named."""
    if missing := [file for file in files if Path(file).name not in _loaded]:
        raise InputError(
            f"made with code that is not moesim's, {', '.join(missing)}; to run it, name it yourself: "
            f"plugins=[{','.join(missing)}]"
        )


def member(group: str, choice: str) -> dict[str, Any]:
    """The content of a file for `FILE.py:NAME`: what FILE registers as NAME in a group, values still to be given."""
    file, _, name = choice.partition(":")
    if group not in _REGISTRIES:
        raise InputError(f"{group}={choice}: a Python file can be a {', '.join(_REGISTRIES)}; give a .yaml file")
    module, registry, key, values = _REGISTRIES[group]
    members: Mapping[str, Any] = getattr(import_module(module), registry)
    load([file])
    mine = [n for n, m in members.items() if m.function.__module__ == f"moesim_plugin_{Path(file).stem}"]
    if name not in mine:
        there = f"it registers {', '.join(mine)}" if mine else f"it registers no {group}; decorate a function"
        raise InputError(f"{group}={choice}: {there}: {group}={file}:{mine[0] if mine else 'NAME'}")
    return {key: name} | ({values: dict.fromkeys(members[name].coefficients)} if values else {})
