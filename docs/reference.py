"""The reference, written while the pages are built: from docstrings, from conf/, and from the table of variables.

Four directives: `public-names`, `config-keys`, `policies` and `dataset-variables`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import yaml
from sphinx.util.docutils import SphinxDirective

import moesim
from moesim import usage, variables
from moesim.config import choices, conf_dir, read
from moesim.laws import show
from moesim.overrides import groups, known_to
from moesim.registry import Policies
from moesim.verbs import VERBS

# Packages with public names of their own, and what public functions return or take.
ROOMS = ("plot", "balance", "sites", "lab", "models", "laws")
CLASSES = {
    "moesim.fitting.fit.Fit": "What `fit` and `load_fit` return.",
    "moesim.models.transformer.Transformer": "What a `config.json` says, counted.",
    "moesim.models.network.Network": "A stack of layers, counted.",
    "moesim.models.architecture.Architecture": "What `load_architecture` returns.",
    "moesim.hardware.outcome.Step": "What `step_time` returns.",
    "moesim.hardware.layout.Layout": "How a model is laid out over devices.",
}
# Registries of policies: where they live, and the class of the keys that all of a kind take.
KINDS = {
    "moesim.domains.world.world": "moesim.domains.world.Shared",
    "moesim.domains.curves.curves": "",
    "moesim.balance.routing.routing": "moesim.balance.routing.Routing",
    "moesim.balance.structure.structure": "moesim.balance.structure.Structure",
    "moesim.balance.sampling.sampling": "moesim.balance.sampling.Sampling",
    "moesim.balance.placement.placement": "moesim.balance.placement.Placing",
    "moesim.balance.trace.traces": "",
    "moesim.sites.protocols.protocol": "",
    "moesim.sites.presence.availability": "",
    "moesim.lab.corpus.corpora": "",
}
SETTINGS = (
    "moesim.hardware.chip.Chip",
    "moesim.hardware.step.Cluster",
    "moesim.hardware.step.Expert",
    "moesim.hardware.step.Schedule",
    "moesim.balance.setting.Run",
    "moesim.sites.place.Site",
)
# Verb -> the start of its keys -> the class whose fields have a comment for each.
FIELDS = {"sites": {"": "moesim.sites.engine.Run", "site.": "moesim.sites.place.Site"}}
# Keys that belong to a chosen law or table, and stand with it.
_ELSEWHERE = re.compile(r"(law|repetition)\.coefficients|runs\.(columns|licence|file)|model\.|site\.groups")
# What a file says of itself beside its keys.
_BESIDE = ("caveats", "source", "definitions", "data_range", "marking", "description", "choices", "name", "form")


class Written(SphinxDirective):
    """A directive whose content is the text of `lines`, in the language of its page."""

    def lines(self) -> Iterable[str]:
        raise NotImplementedError

    def run(self):
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """A Markdown table."""
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def code(value: Any) -> str:
    return f"`{value}`" if str(value) else ""


# ---------------------------------------------------------------- names


class PublicNames(Written):
    def lines(self) -> Iterator[str]:
        for name in moesim.__all__:
            if name != "__version__":
                yield from self.told("moesim", name, getattr(moesim, name))
        for room in ROOMS:
            module = import_module(f"moesim.{room}")
            yield from ["", f"moesim.{room}", "-" * 40, "", (module.__doc__ or "").partition("\n")[0], ""]
            for name in module.__all__:
                if name not in moesim.__all__ and callable(thing := getattr(module, name)):
                    yield from self.told(f"moesim.{room}", name, thing)
        yield from ["", "Classes that they return", "-" * 40, ""]
        for path in CLASSES:
            yield from [f".. autoclass:: {path}", "   :members:", ""]

    def told(self, owner: str, name: str, thing: Any) -> Iterator[str]:
        kind = "function"
        if isinstance(thing, type):
            kind = "exception" if issubclass(thing, Exception) else "class"
        yield from [f".. auto{kind}:: {owner}.{name}", *["   :members:"] * (kind == "class"), ""]


# ---------------------------------------------------------------- config


class ConfigKeys(Written):
    def lines(self) -> Iterator[str]:
        for verb, (_, does) in VERBS.items():
            yield from [f"## moesim {verb}", "", f"{does[0].upper()}{does[1:]}.", ""]
            said = {key: text for before, key, _, text in usage._entries(verb) if "-" in before}
            rows = ([code(f"{group}="), code(name or ""), said.get(group, "")] for group, name in groups(verb).items())
            yield from table(("choice", "default", "what"), rows)
            yield from table(("key", "default", "what"), keys(verb))
        yield from [
            "## Files to choose from",
            "",
            "Each is a file of `conf/`; a path of your own is taken as well.",
            "",
        ]
        for group in sorted({group for verb in VERBS for group in groups(verb)}):
            yield from [f"### {group}", ""]
            yield from table(("name", "what"), ([code(name), says(group, name)] for name in choices(group)))


def keys(verb: str) -> Iterator[list[str]]:
    """Each key of a verb that is no part of a chosen law, with its default and the comment that stands beside it."""
    said = {f"{start}{key}": text for start, path in FIELDS.get(verb, {}).items() for key, text in comments(path)}
    above = ""
    for file in (verb, "common"):
        for before, key, _, text in usage._entries(file):
            above = above if before else key
            name = f"{above}.{key}" if before else key
            said[name] = text or said.get(name, "")
    rows = [(key, value) for key, value in flat(known_to(verb, ()).keys) if not _ELSEWHERE.match(key)]
    for key, value in sorted(rows, key=lambda row: row[0] not in said):
        row = variables.VARIABLES.get(key.removeprefix("space.")) if key.startswith("space.") else None
        yield [code(key), code(plain(value)), said.get(key) or (row.long_name if row else "")]


def comments(path: str) -> list[tuple[str, str]]:
    """The fields of a class that have a comment, and the comment."""
    module, _, name = path.rpartition(".")
    return re.findall(
        r"^    (\w+): .*?  # (.*)$", inspect.getsource(getattr(import_module(module), name)), re.MULTILINE
    )


def flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key in _BESIDE:
            continue
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def plain(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return text if len(text) < 80 else text[:76] + " ..."


def says(group: str, name: str) -> str:
    """What a file of conf/ says of itself: its first comment, else its source."""
    first = (conf_dir() / group / f"{name}.yaml").read_text("utf-8").splitlines()
    comment = " ".join(
        line.removeprefix("#").strip() for line in first if line.startswith("#") and "@package" not in line
    )
    content = read(group, name)
    return comment or content.get("description") or content.get("source") or content.get("name") or ""


class LawTables(Written):
    def lines(self) -> Iterator[str]:
        for group, forms in show._GROUPS.items():
            yield from [f"## {group}=", ""]
            for name in choices(group):
                content = read(group, name)
                form = forms[content["form"]]
                yield from [f"### {name}", "", content.get("source", "") + ".", ""]
                rows = [("formula", code(" ".join((form.function.__doc__ or "").partition("\n")[0].split())))]
                rows += [("inputs", ", ".join(map(code, form.inputs)))]
                rows += [("coefficients", code(plain(content["coefficients"]) if content["coefficients"] else "none"))]
                ranges = (content.get("data_range") or {}).items()
                rows += [("data", "; ".join(f"`{axis}` {show._range(ends)}" for axis, ends in ranges))] * bool(ranges)
                yield from table(("", ""), rows)
                yield from [*(f"* {caveat}" for caveat in content.get("caveats") or ()), ""]


class PolicyPages(Written):
    def lines(self) -> Iterator[str]:
        for path, shared in KINDS.items():
            module, _, name = path.rpartition(".")
            kind: Policies = getattr(import_module(module), name)
            yield from [kind.kind.capitalize(), "-" * 40, ""]
            yield from self.documented("class", shared) if shared else []
            for policy in kind.values():
                yield from self.documented("function", f"{policy.function.__module__}.{policy.function.__qualname__}")
        yield from ["Machines and runs", "-" * 40, ""]
        for path in SETTINGS:
            yield from self.documented("class", path)

    def documented(self, what: str, path: str) -> list[str]:
        return [f".. auto{what}:: {path}", "   :no-index:", ""]


# ---------------------------------------------------------------- variables


class DatasetVariables(Written):
    def lines(self) -> Iterator[str]:
        rows = (
            [code(name), row.unit, code(row.symbol), row.long_name, row.domain.text]
            for name, row in variables.VARIABLES.items()
        )
        yield from table(("name", "unit", "symbol", "meaning", "takes"), rows)
        before = ([code(f"{prefix}NAME"), f"{said}NAME"] for prefix, said in variables._PREFIXES.items())
        after = ([code(f"NAME{suffix}"), f"NAME{said}"] for suffix, said in variables._SUFFIXES.items())
        yield from table(("name", "meaning"), [*before, *after])


def setup(app: Any) -> dict[str, bool]:
    for name, directive in {
        "public-names": PublicNames,
        "config-keys": ConfigKeys,
        "law-tables": LawTables,
        "policies": PolicyPages,
        "dataset-variables": DatasetVariables,
    }.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
