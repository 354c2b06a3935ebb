"""What stands between a user and Hydra: own files and ranges as choices, one line for whatever goes wrong."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

from moesim import plugins
from moesim.config import SUFFIXES, choices, conf_dir, read
from moesim.errors import InputError, NotWritten
from moesim.overrides import REFUSED, Typed, check, check_hydra, groups, jobs, known_to, quoted, typed

# What may be typed beside KEY=VALUE, and how many words follow each.
_OPTIONS = {"-m": 0, "--multirun": 0, "-c": 1, "--cfg": 1, "--resolve": 0}
_MANY = {"-m", "--multirun"}
_TABLES = (".csv", ".nc")


def call_hydra(verb: str, arguments: list[str], job: Callable[[Any], None]) -> None:
    """Compose the config of a verb from the arguments and run `job` on it; what one job raises comes out."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    raised: list[Exception] = []

    @wraps(job)
    def alone(config: Any) -> None:  # Hydra would print lines of its own about an exception
        try:
            job(config)
        except Exception as error:
            raised.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    sys.argv = ["moesim", *arguments]
    HydraConfig.instance().cfg = None
    task = job if _MANY & set(arguments) else alone
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(" ".join(str(error).partition("To append to")[0].split())) from error
    if raised:
        raise raised[0]


def prepared(verb: str, arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them, checked; -m first. InputError for what has no meaning or no effect.

    With -m a job that cannot run stays in: it fails alone. If none can run, the first says why.
    """
    if "${" in os.getcwd():
        raise InputError(f"{os.getcwd()}: a working directory with ${{ in its name cannot be used; choose another")
    options, words = _options(arguments)
    several = bool(_MANY & set(options))
    resume = [word for word in words if word.startswith("resume=")]
    if resume and not several:
        raise InputError(f"{resume[0]}: only a multirun is resumed; add -m")
    plugins.load_installed()
    files = [file for word in words if word.startswith("plugins=") for file in files_of_code(word)]
    given = [typed(word) for word in words if not word.startswith(("resume=", "plugins="))]
    _refuse_twice(given, several)
    taken: dict[tuple[str, str], str] = {}
    given = [_taken_in(one, taken, files) if one.key in groups(verb) else one for one in given]
    given += [typed(f"plugins=[{','.join(quoted(Path(file).name) for file in files)}]")] if files else []
    plugins.depart()
    known = _files_of_jobs(verb, given)
    choices_of, values = ([one for one in given if (one.key in groups(verb)) is chosen] for chosen in (True, False))
    ready = [argument for one in choices_of for argument in _choice(one, groups(verb)[one.key], known)]
    ready += [argument for one in values for argument in _for_hydra(one, known)]
    return [*sorted(options, key=lambda option: option not in _MANY), *ready, *resume]


def files_of_code(word: str) -> list[str]:
    """`plugins=FILE.py` or `plugins=[A.py,B.py]`: the files, which are run."""
    value = typed(word).value
    files = [str(file) for file in (value if isinstance(value, list) else [value])]
    plugins.load(files)
    return files


def _options(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """The options with the words that follow them, and everything else."""
    options: list[str] = []
    words: list[str] = []
    following = 0
    for word in arguments:
        name = word.partition("=")[0]
        if following or word in _OPTIONS:
            following = following - 1 if following else _OPTIONS[word]
            options.append(word)
        elif word.startswith("-"):
            raise InputError(f"no option {name!r}; there are -m, --help and --cfg job; everything else is KEY=VALUE")
        else:
            words.append(word)
    if {"-c", "--cfg"} & set(options) and "job" not in options:
        raise InputError("--cfg takes job: --cfg job shows the config that would be run")
    return options, words


def _refuse_twice(given: Iterable[Typed], several: bool) -> None:
    seen: dict[str, Typed] = {}
    for one in given:
        if one.several and not several:
            raise InputError(
                f"{one.key}: several values are run with -m, one job each; for an axis of one job give a list [A,B]"
            )
        before = seen.setdefault(one.key, one)
        if before.arguments != one.arguments:
            raise InputError(f"{one.key} is given twice: {before.arguments[0]} and {one.arguments[0]}; leave one out")


def _files_of_jobs(verb: str, given: Iterable[Typed]) -> list[dict[str, Any]]:
    """What stands in each choice of files; InputError if none of the jobs can run."""
    mine = [one for one in given if not _is_hydra(one)]
    for one in given:
        if _is_hydra(one):
            check_hydra(one)
    failures: list[InputError] = []
    known: dict[int, dict[str, Any]] = {}
    every = jobs(mine)
    for overrides in every:
        try:
            config = known_to(verb, map(typed, overrides)).files
            known[id(config)] = config
            check(verb, overrides)
        except InputError as error:
            failures.append(error)
    if len(failures) == len(every):
        raise failures[0]
    return list(known.values())


def _is_hydra(one: Typed) -> bool:
    return one.key.startswith(("hydra.", "hydra/"))


def _choice(one: Typed, default: str | None, known: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A choice of files as Hydra takes it, which has another word for none."""
    if isinstance(one.value, Mapping):
        yield from _for_hydra(one, known)
    elif one.texts != ("null",):
        yield f"{one.key}={','.join(one.texts)}"
    elif default is not None:
        yield f"~{one.key}"


def _for_hydra(one: Typed, known: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One KEY=VALUE as Hydra takes it, which merges a mapping into what stands there and adds no key unasked."""
    if one.sign == "~":
        yield f"~{one.key}"
        return
    there = [_there(config, one.key) for config in known]
    ranged = any(isinstance(typed(text).value, Mapping) for text in one.arguments)
    add = "++" if not _is_hydra(one) and (ranged or None in there) else ""
    if ranged and any(isinstance(value, list) for value in there):
        yield f"{one.key}=null"
    yield f"{add}{one.key}={','.join(one.texts)}"


def _there(config: Mapping[str, Any], key: str) -> list[Any] | Mapping[str, Any] | None:
    """What stands at a key: a mapping, or a list of the value, or None if there is no such key."""
    there: Any = config
    for name in key.split("."):
        if not isinstance(there, Mapping) or name not in there:
            return None
        there = there[name]
    return there if isinstance(there, Mapping) else [there]


# Own files as choices.


def _taken_in(one: Typed, taken: dict[tuple[str, str], str], files: list[str]) -> Typed:
    """GROUP=path/to/FILE as a choice that Hydra knows: the file's content is kept under a name."""
    values = [typed(argument).value for argument in one.arguments]
    if one.several and None in values:
        raise InputError(f"{one.key}: null cannot be one of several choices; run it alone")
    if one.sign or not all(isinstance(value, str | int | float) for value in values):
        return one
    texts = [
        text if str(value) in choices(one.key) else quoted(_kept(one, str(value), taken, files))
        for text, value in zip(one.texts, values, strict=True)
    ]
    return replace(one, texts=tuple(texts), value=one.value if one.several else typed(f"{one.key}={texts[0]}").value)


def _kept(one: Typed, choice: str, taken: dict[tuple[str, str], str], files: list[str]) -> str:
    """The name under which the content of a choice is kept; of several choices one that cannot be read fails alone."""
    from hydra.core.config_store import ConfigStore

    group = one.key
    try:
        content = _content(group, choice, files)
    except InputError as error:
        if not one.several:
            raise
        content = {REFUSED: str(error)}
    names = (name for name in _names(group, choice) if taken.setdefault((group, name), choice) == choice)
    name = next(names)
    package = "_global_" if group == "experiment" else None
    ConfigStore.instance().store(group=group, name=name, node=content, package=package)
    return name


def _content(group: str, choice: str, files: list[str]) -> dict[str, Any]:
    path = Path(choice)
    if re.search(r"\.py:[^/]*$", choice):
        content = plugins.member(group, choice)
        files.append(choice.rpartition(":")[0])
        return content
    if group == "runs" and path.suffix in _TABLES:
        return {**read("runs", "table"), "file": choice}
    if group in ("law", "repetition"):
        from moesim.laws.load import read_content

        return _data_alone(choice, group, read_content(group, path))
    if group == "model" and (path / "config.json").is_file():
        path = path / "config.json"
    return _data_alone(choice, group, read(group, str(path)))


def _data_alone(choice: str, group: str, content: dict[str, Any]) -> dict[str, Any]:
    """The content, if it has no keys that would reach beyond it."""
    if other := {"defaults", "hydra"} & set(content) - ({"defaults"} if group == "experiment" else set()):
        raise InputError(f"{choice}: key {min(other)!r}: a file of a {group} holds its own keys alone; leave it out")
    return content


def _names(group: str, choice: str) -> Iterator[str]:
    """Names for a file, the shortest first: its own, with that of its directory, and so on; never a shipped one."""
    path = Path(choice.rpartition(":")[2] if ".py:" in choice else choice)
    parts = [re.sub(r"[^\w.-]", "_", part) for part in path.parts]
    parts[-1] = parts[-1].removesuffix(path.suffix if path.suffix in (*SUFFIXES, *_TABLES) else "")
    for first in range(len(parts) - 1, -1, -1):
        name = "_".join(parts[first:]).strip("._") or "own"
        if name not in (*choices(group), group):
            yield name
    number = 1
    while True:
        number += 1
        yield f"{parts[-1].strip('._')}_{number}"


# Directories.


def directory_of(verb: str, arguments: list[str], mode: str) -> list[str]:
    """The override that names a new directory for a run or a sweep, made here so that no two share one."""
    key = f"hydra.{mode}.dir="
    if any(argument.startswith(key) for argument in arguments):
        return []
    return [f"{key}{quoted(str(new_directory(Path('outputs') / verb)))}"]


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
    return Path(str(typed(next(a for a in reversed(arguments) if a.startswith(f"{key}="))).value))


# The end of a command.


def fail(who: str, message: str | Exception, code: int = 2) -> None:
    """One readable line on standard error, and the exit code: 2 for bad input, 1 for a result that is not written."""
    written = not isinstance(message, NotWritten)
    said = str(message) if written else f"{message.filename}: {message.strerror}"
    line = " ".join(f"{who}: {said}".split())
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in line), file=sys.stderr)
    raise SystemExit(code if written else 1)


def fault(who: str, error: Exception) -> None:
    """One line, exit 1, on an error that is nobody's input but a fault of the program: what, and where in it."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    whose = "moesim or of the code in plugins=" if plugins.loaded() else "moesim"
    fail(who, f"a fault of {whose}, not of the input: {type(error).__name__} at {at}: {error}; please report it", 1)
