"""`moesim VERB --help`: what can be chosen, from the comments in conf/ and the names of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import wrap

from moesim.config import choices, conf_dir, read
from moesim.overrides import groups, known_to
from moesim.verbs import VERBS

# KEY: VALUE  # comment, as a top-level key, below one, or as a choice in the list of defaults.
_LINE = re.compile(r"(?P<before>[ -]*)(?P<key>\w+):(?P<value>.*?)(?:\s+# (?P<said>.*))?")
_WIDTH, _INDENT = 118, 32
_ENDING = """
V is a number, a list [a, b], {linspace: [first, last, n]} or {geomspace: [first, last, n]} (quote the braces). A choice
is also the path of a .yaml file of your own, or MINE.py:NAME of code of your own. hydra.run.dir=DIR (with -m
hydra.sweep.dir=DIR) says where results go; hydra/launcher=joblib|submitit_local|submitit_slurm runs jobs side by side;
resume=DIR finishes a multirun. moesim VERB --help all adds every key with its value."""


def page(verb: str, whole: bool = False) -> str:
    """The help of a verb: its groups with their choices, its keys; with `whole` also the config that it starts from."""
    lines = [
        f"moesim {verb}: {VERBS[verb][1]}",
        "",
        f"{f'  moesim {verb} KEY=VALUE ...':<{_INDENT}}one run",
        f"{f'  moesim {verb} -m KEY=A,B ...':<{_INDENT}}one job for each combination, collected as one Dataset",
        "",
        *(line for group in groups(verb) for line in _group(verb, group)),
        "",
        *(line for file in (verb, "common") for line in _keys(file)),
        _ENDING.replace("VERB", verb),
    ]
    return "\n".join(lines + ["", *_config(verb)] * whole)


def _entries(file: str) -> Iterator[tuple[str, str, str, str]]:
    """The keys of a primary config as they stand there: indent and dash, key, value, comment."""
    for line in (conf_dir() / f"{file}.yaml").read_text("utf-8").partition("\nhydra:")[0].splitlines():
        if match := _LINE.fullmatch(line):
            yield match["before"], match["key"], match["value"].strip(), match["said"] or ""


def _group(verb: str, group: str) -> Iterator[str]:
    said = next((said for before, key, _, said in _entries(verb) if "-" in before and key == group), "")
    default = groups(verb)[group]
    yield from _row(f"{group}={'NAME' if default is None else default}", said)
    names = [name for name in choices(group) if group != "experiment" or read(group, name).get("verb", verb) == verb]
    yield from (f"      {line}" for line in wrap(" ".join(names), _WIDTH - 6, break_on_hyphens=False))


def _keys(file: str) -> Iterator[str]:
    above = ""
    for before, key, value, said in _entries(file):
        if not before:
            above = key
        if above not in ("defaults", "choices") and (before or value):
            name = f"{above}.{key}" if before else key
            yield from _row(f"{name}={value if len(name + value) < _INDENT - 4 else 'V'}", said)


def _row(what: str, said: str) -> list[str]:
    lines = wrap(said, _WIDTH - _INDENT) or [""]
    return [f"{f'  {what}':<{_INDENT - 1}} {lines[0]}".rstrip(), *(f"{'':<{_INDENT}}{line}" for line in lines[1:])]


def _config(verb: str) -> list[str]:
    import yaml

    config = {key: value for key, value in known_to(verb, ()).keys.items() if key != "choices"}
    return ["Config", yaml.safe_dump(config, sort_keys=False, width=_WIDTH, allow_unicode=True)]
