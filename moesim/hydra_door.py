"""Everything that stands between a user and Hydra: own files and ranges as choices, no code from a config, one line
for whatever goes wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from moesim.config import conf_dir
from moesim.errors import InputError, NotWritten

LOOKING = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--version"}


def refuse_code(arguments: list[str]) -> None:
    """Hydra builds objects from `_target_` in its own sections of a config: none may come from the user."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if "_target_" in argument or key.startswith(("hydra.callbacks", "hydra.searchpath", "--e")):
            raise InputError(
                f"{argument}: a config cannot name code to run (_target_, callbacks, pickles); leave it out"
            )
    for place, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if place.startswith(("--config", "-cd", "-cp")):
            folder = Path(place.partition("=")[2] or following)
            for path in sorted(folder.rglob("*.y*ml")):
                if "_target_" in path.read_text() or "searchpath" in path.read_text():
                    raise InputError(f"{path}: a config cannot name code to run (_target_, searchpath); leave it out")


def call_hydra(verb: str, arguments: list[str], job: Callable[[Any], None]) -> None:
    """Compose the config of a verb from the arguments and run `job` on it; bad input ends with one line."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    sys.argv = ["moesim", *arguments]
    HydraConfig.instance().cfg = None
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(job)()
    except OverrideParseException as error:
        fail(f"moesim {verb}", f"{error.override}: {' '.join(str(error).split())}")
    except Exception as error:
        composed = HydraConfig.initialized()  # before that, whatever goes wrong is about what was typed
        if composed and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        fail(f"moesim {verb}", " ".join(str(error).partition("Config search path")[0].split()) or repr(error))


def directory_of(verb: str, arguments: list[str], mode: str) -> list[str]:
    """The override that names a new directory for a run or a sweep, made here so that no two share one."""
    key = f"hydra.{mode}.dir="
    if any(argument.startswith(key) for argument in arguments):
        return []
    return [f"{key}'{new_directory(Path('outputs') / verb)}'"]


def new_directory(parent: Path) -> Path:
    """A new directory PARENT/<date>/<time with microseconds>; never one that another process has made."""
    while True:
        path = parent / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def directory_in(arguments: list[str], key: str) -> Path:
    """The directory that the last override of this key names."""
    return Path(next(a.partition("=")[2].strip("'") for a in reversed(arguments) if a.startswith(f"{key}=")))


_RANGE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=\{\s*(linspace|geomspace)\b.*", re.DOTALL)


# Mappings whose keys the user names: Hydra would take only those that stand there.
_OPEN = re.compile(
    r"((fit\.(fixed|tied|prior|bounds)|runs\.(where|columns)|compare)(\.[^=]*)?"
    r"|(world|routing|structure|sampling|placement|chip|cluster|expert|schedule)\.[^=]*)="  # defaults are in the code
)


def prepared(arguments: list[str]) -> Iterator[str]:
    """What Hydra cannot take as it is: own files as choices, ranges for lists, new keys of mappings, -m last."""
    for argument in sorted(arguments, key=lambda a: a not in ("-m", "--multirun")):  # which Hydra wants first
        if match := _RANGE.fullmatch(argument):
            yield from (f"{match['key']}=null", f"++{argument}")  # Hydra would merge it into what stands there
        elif _OPEN.match(argument):
            yield f"++{argument}"
        else:
            yield _stored(argument) if re.search(r"\.(ya?ml|json)\b", argument) else argument


def _stored(argument: str) -> str:
    """`GROUP=path/to/NAME.yaml` as a choice that Hydra knows: the file's content is stored under its path."""
    from hydra.core.config_store import ConfigStore

    from moesim.config import choices, read

    group, equals, values = argument.partition("=")
    for value in values.split(",") if equals and (conf_dir() / group).is_dir() else ():
        if value.endswith((".yaml", ".yml", ".json")):
            name = str(Path(value).with_suffix("")).replace("/", "_").strip("._")
            name = f"own_{name}" if name in choices(group) else name  # beside the shipped file of that name
            ConfigStore.instance().store(group=group, name=name, node=read(group, value))
            argument = argument.replace(value, name)
    return argument


def fail(who: str, message: str | Exception) -> None:
    """One readable line; exit 1 for a result that could not be written, else 2."""
    said = f"{message.filename}: {message.strerror}" if isinstance(message, NotWritten) else str(message)
    print(f"{who}: {said}", file=sys.stderr)
    raise SystemExit(1 if isinstance(message, NotWritten) else 2)
