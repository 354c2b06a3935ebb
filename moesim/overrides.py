"""What was typed after a verb, before Hydra sees it: each key is known and has an effect, and nothing runs code.

A verb's driver says beside its `run` which mappings take keys of the user's own (`OPEN`), and which keys have no effect
under a config (`idle`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice, product
from math import prod
from typing import Any

from moesim.config import choices, read, shipped
from moesim.errors import InputError
from moesim.verbs import VERBS, driver

MOST_JOBS = 100_000
# What of Hydra's own settings a user may choose, and which package each launcher needs.
_HYDRA = re.compile(r"hydra\.(run\.dir|sweep\.dir|sweep\.subdir|verbose|output_subdir|launcher\.[A-Za-z][\w.-]*)")
_LAUNCHERS = {
    "basic": "hydra",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}
_EXTRA = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}
_FILLED = ("choices", "verb", "defaults")
_YAML_INF = re.compile(r"(?<=[=\[,:\s])([-+]?)\.(?=(inf|Inf|INF)\s*(?:[,\]}]|$))")  # Hydra's grammar has inf alone
REFUSED = "_refused_"  # the key under which a choice that cannot be read keeps what is wrong with it


class _Groups:
    """What Hydra's parser asks for when it meets glob()."""

    def get_group_options(self, group: str, **_: Any) -> list[str]:
        return choices(group)


@dataclass(frozen=True)
class Typed:
    """One KEY=VALUE as typed; `sign` is "", +, ++ or ~, `texts` its value as text, or with -m each of those to run."""

    sign: str
    key: str
    value: Any = field(hash=False)
    texts: tuple[str, ...]
    several: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        """The override of each job."""
        return tuple(f"{self.sign}{self.key}={text}" for text in self.texts) if self.texts else (f"~{self.key}",)


@lru_cache(maxsize=4096)
def typed(text: str) -> Typed:
    """Parse one argument; InputError if it cannot be read, reads the environment, or has values without end."""
    override = _parsed(text)
    several = override.is_sweep_override()
    if override.package is not None or ":" in override.key_or_group:
        raise InputError(f"{text}: a key has no @ or colon; write GROUP=NAME or GROUP.KEY=VALUE")
    if several and not override.is_discrete_sweep():
        raise InputError(f"{text}: an interval has no values to run; give a list or a range")
    try:
        texts = tuple(islice(override.sweep_string_iterator(), MOST_JOBS + 1)) if several else _text(override)
    except Exception:  # OmegaConf's, of several kinds, where a choice or a range stands inside of another
        raise InputError(f"{text}: a choice or a range stands alone; write the values out") from None
    if len(texts) > MOST_JOBS:
        axis = f"{override.key_or_group}={{linspace: [FIRST, LAST, N]}}"
        raise InputError(f"{text}: more than {MOST_JOBS} jobs; make it an axis of one job: {axis}")
    value = None if several else override.value()
    _refuse_interpolation(text, [text, value, *texts])
    sign = override.get_key_element().removesuffix(override.key_or_group)
    return Typed(sign, override.key_or_group, value, texts, several)


def _parsed(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "=" not in text and not text.startswith("~"):
        raise InputError(f"{text!r} is not KEY=VALUE; moesim VERB --help lists the keys")
    try:
        (override,) = OverridesParser.create(_Groups()).parse_overrides([_YAML_INF.sub(r"\1", text)])  # type: ignore[arg-type]
        return override
    except (HydraException, ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        said = " ".join(str(error).split()).partition(" See https")[0] or type(error).__name__
        raise InputError(f"{text}: cannot be read ({said}); quote text within the value: KEY=\"'a, b'\"") from None


def _text(override: Any) -> tuple[str, ...]:
    return () if override.is_delete() else (override.get_value_element_as_str(),)


def _refuse_interpolation(text: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, Mapping):
            _refuse_interpolation(text, [*value, *value.values()])
        elif isinstance(value, list):
            _refuse_interpolation(text, value)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            raise InputError(f"{text}: ${{...}} and ??? have no meaning here; write the value itself")


@dataclass(frozen=True)
class Known:
    """What a verb knows with some choices of files: what stands in the `files`, and all `keys`, those of code too."""

    files: dict[str, Any]
    keys: dict[str, Any]


# What a verb knows: its groups, and with choices for them every key and what stands there.


@lru_cache(maxsize=32)
def groups(verb: str) -> dict[str, str | None]:
    """The groups of a verb and the file that each takes by default."""
    return {g: name for entry in shipped(verb)["defaults"] if isinstance(entry, dict) for g, name in entry.items()}


@lru_cache(maxsize=1024)
def _known(verb: str, chosen: tuple[tuple[str, Any], ...], policies: tuple[Typed, ...] = ()) -> Known:
    """The config of a verb with these choices of files and nothing else typed but policies, which decide on keys."""
    picked = dict(chosen)
    experiment = _experiment(verb, picked.get("experiment"))
    named = {key.split("/")[-1]: name for entry in experiment.pop("defaults", []) for key, name in entry.items()}
    names = {**groups(verb), **named, **picked}
    own = {k: v for k, v in {**shipped("common"), **shipped(verb)}.items() if k not in ("hydra", "defaults")}
    files = _merged({group: _content(group, name) for group, name in names.items() if group != "experiment"}, own)
    whole = _merged(files, experiment)
    for one in policies:
        whole = _merged(whole, _nested(one.key, one.value))
    beside = driver(verb).keys(whole)
    known = _merged(beside, files)
    for key, value in experiment.items():
        if key != "verb":
            _check(verb, known, key, value)
    return Known(_merged(files, experiment), _merged(known, experiment))


def _content(group: str, name: Any) -> Any:
    if name is None:
        return None
    if isinstance(name, list):
        raise InputError(f"{group}={name}: takes one name; several runs: -m {group}=A,B")
    content = _own(group, str(name)) or read(group, str(name))
    if REFUSED in content:
        raise InputError(content[REFUSED])
    return content


def _own(group: str, name: str) -> dict[str, Any] | None:
    """What was kept of a file of the user's own under this name, if there is any."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    try:
        node = ConfigStore.instance().load(f"{group}/{name}.yaml").node
    except Exception:  # Hydra has a private exception for it
        return None
    content: Any = OmegaConf.to_container(node)
    return content


def _experiment(verb: str, name: Any) -> dict[str, Any]:
    """The content of an experiment, if it is one of this verb and sets no more than keys and choices."""
    if name is None:
        return {}
    content = dict(_content("experiment", name))
    if content.get("verb", verb) != verb:
        raise InputError(f"experiment={name} is one of another verb: moesim {content['verb']} experiment={name}")
    if "plugins" in content:
        raise InputError(f"experiment={name}: a file cannot name code to run; name it yourself: plugins=[FILE.py]")
    for entry in content.get("defaults", []):
        key, choice = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, None)
        group = str(key).removeprefix("override /")
        if group == key or group not in groups(verb) or (choice is not None and choice not in choices(group)):
            raise InputError(
                f"experiment={name}: defaults: {entry!r}; it takes 'override /GROUP: NAME' of shipped files, groups "
                f"{', '.join(groups(verb))}"
            )
    return content


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return {**below, **above, **both}


# The checks.


def check(verb: str, overrides: Iterable[str]) -> None:
    """One job: every key known, of the right kind, with an effect; InputError for the first that is not."""
    given = [typed(text) for text in overrides]
    mine = [one for one in given if not one.key.startswith(("hydra.", "hydra/"))]
    known = config = known_to(verb, mine).keys
    for one in mine:
        if one.key in groups(verb) and not isinstance(one.value, Mapping):
            continue
        if one.sign == "~":
            _check_deletion(verb, known, one.key)
        else:
            _check(verb, known, one.key, one.value)
            config = _merged(config, _nested(one.key, one.value))
    _refuse_idle(verb, mine, known, config)


def known_to(verb: str, given: Iterable[Typed]) -> Known:
    """What the verb knows with the files that were chosen."""
    given = list(given)
    chosen = {one.key: _choice(one) for one in given if one.key in groups(verb) and not isinstance(one.value, Mapping)}
    return _known(verb, tuple(chosen.items()), tuple(filter(_is_policy, given)))


def _is_policy(one: Typed) -> bool:
    return one.key.endswith(".policy") or (isinstance(one.value, Mapping) and "policy" in one.value)


def _choice(one: Typed) -> Any:
    if one.sign in ("~", "+", "++"):
        raise InputError(
            f"{one.sign}{one.key}: a choice of files has no {one.sign}; write {one.key}=NAME or {one.key}=null"
        )
    if (one.value is not None and not isinstance(one.value, str | int | float)) or isinstance(one.value, bool):
        raise InputError(f"{one.arguments[0]}: takes one name; several runs: -m {one.key}=A,B")
    return one.value


def _check(verb: str, known: Mapping[str, Any], key: str, value: Any) -> None:
    """A key that the verb knows, or one below a mapping of the user's own, with a value of its kind."""
    there = _lookup(verb, known, key)
    if _is_open(verb, key) or (isinstance(there, dict) and value is None):
        if key in driver(verb).OPEN and not (value is None or isinstance(value, Mapping)):
            raise InputError(f"{key}={value}: it takes keys and values, {key}={{KEY: VALUE}}")
        return
    if isinstance(there, dict):
        if not isinstance(value, Mapping):
            raise InputError(f"{key}={value}: holds keys; it takes {key}.KEY=VALUE with {', '.join(there) or 'none'}")
        for name, inner in value.items():
            _check(verb, known, f"{key}.{name}", inner)
    elif isinstance(there, bool) and not isinstance(value, bool) and (key, value) != ("figures", "all"):
        raise InputError(f"{key}={value}: it takes true or false{', or all' if key == 'figures' else ''}")
    elif not _below(key, driver(verb).AXES):
        _check_shape(key, there, value)


def _check_shape(key: str, there: Any, value: Any) -> None:
    """A list where a list stands, one value where a text stands, and keys nowhere."""
    if isinstance(value, Mapping):
        raise InputError(f"{key}={value}: it takes no keys; give a value")
    if isinstance(there, str) and isinstance(value, list):
        raise InputError(f"{key}={value}: it takes one value")
    if isinstance(there, list) and not (value is None or isinstance(value, list)):
        raise InputError(f"{key}={value}: it takes a list, {key}=[A,B]")


def _lookup(verb: str, known: Mapping[str, Any], key: str) -> Any:
    """What stands there by default; InputError for a key that fills in by itself, and for one that there is not."""
    head = key.partition(".")[0]
    if head in _FILLED:
        raise InputError(f"{key}: fills in by itself; leave it out")
    there: Any = known
    for name in key.split("."):
        if not isinstance(there, dict) or name not in there:
            if _is_open(verb, key):
                return None
            raise InputError(_unknown(verb, known, key))
        there = there[name]
    return there


def _is_open(verb: str, key: str) -> bool:
    return _below(key, driver(verb).OPEN)


def _below(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _unknown(verb: str, known: Mapping[str, Any], key: str) -> str:
    """What to say of a key that there is not: the same name elsewhere, a name much like it, another verb's, or all."""
    head, _, last = key.rpartition(".")
    names = sorted((n for n in _names(known) if n.partition(".")[0] not in _FILLED), key=lambda name: name.count("."))
    tails = {name.rpartition(".")[2]: name for name in reversed(names)}
    like = [tails.get(last), *get_close_matches(key, names, 1), *map(tails.get, get_close_matches(last, tails, 1))]
    others = [f"moesim {v}" for v in VERBS if v != verb and key.partition(".")[0] in (*groups(v), *shipped(v))]
    if near := [name for name in like if name]:
        return f"no key {key!r}; did you mean {near[0]}?"
    if others:
        return f"no key {key!r}; it is one of {' and '.join(others)}"
    beside = [name for name in names if head and name.rpartition(".")[0] == head]
    there = f"there are {', '.join(beside)}" if beside else f"moesim {verb} --help lists the keys"
    return f"no key {key!r}; {there}"


def _names(node: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{above}{key}.")


def _check_deletion(verb: str, known: Mapping[str, Any], key: str) -> None:
    _lookup(verb, known, key)
    if not _is_open(verb, key) or key in driver(verb).OPEN:
        raise InputError(f"~{key}: cannot be taken away; set it: {key}=null or another value")


def _nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _refuse_idle(verb: str, given: Iterable[Typed], known: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Keys that the driver would not look at under this config."""
    idle = driver(verb).idle(config)
    for one in given:
        for name, why in idle.items():
            if _below(one.key, [name]) and one.value != _lookup(verb, known, one.key):
                raise InputError(f"{one.key} has no effect {why}; leave it out")


def check_hydra(one: Typed) -> None:
    """Of Hydra's own settings only directories, verbosity and the installed launchers can be chosen."""
    text = one.arguments[0]
    if one.key == "hydra/launcher" and one.value in _LAUNCHERS and one.sign != "~":
        try:
            found = find_spec(_LAUNCHERS[one.value]) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise InputError(f"{text}: not installed; pip install 'moesim[{_EXTRA[one.value]}]'")
    elif not _HYDRA.fullmatch(one.key) or one.several or one.sign == "~":
        raise InputError(
            f"{text}: not a setting that can be chosen; there are hydra.run.dir, hydra.sweep.dir, hydra.verbose, "
            f"hydra/launcher={'|'.join(_LAUNCHERS)} and hydra.launcher.KEY"
        )


def quoted(text: str) -> str:
    """A text as one value of the command line."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) else QuotedString(text, Quote.single).with_quotes()


def jobs(given: Iterable[Typed]) -> list[tuple[str, ...]]:
    """Every combination of what was typed with several values; InputError if there are too many."""
    columns = [one.arguments for one in given]
    if (count := prod(map(len, columns))) > MOST_JOBS:
        raise InputError(f"-m: {count} jobs are more than {MOST_JOBS}; make the longest choice an axis of each job")
    return list(product(*columns))
