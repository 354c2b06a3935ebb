"""`moesim VERB KEY=VALUE ...`: a config becomes objects, one driver runs, its result is written to files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from moesim import __version__
from moesim.config import conf_dir
from moesim.errors import InputError

# Verb -> (module whose run(config) does the work, what it does).
VERBS = {
    "sweep": ("moesim.planning.run", "isoFLOP curves, compute-optimal runs and the best sparsity under finite data"),
}
_USAGE = """moesim: how sparse, how large and how long to train a Mixture of Experts when unique data is finite

usage: moesim VERB [KEY=VALUE ...]

{verbs}
  laws     list the loss laws and repetitions; moesim laws NAME shows one whole

moesim VERB --help explains the keys of a verb; moesim VERB -m KEY=A,B runs every combination.
moesim --version prints the version; eval "$(moesim -sc install=bash)" turns on tab completion.
"""


def main(argv: list[str] | None = None) -> None:
    """The command line; exits with 2 and one readable line on bad input."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb, *rest = arguments or ["--help"]
    commands = {"laws": _laws, "-sc": _complete, "--version": _version, "-h": _usage, "--help": _usage}
    if verb not in VERBS and verb not in commands:
        _fail("moesim", f"no verb {verb!r}; there are {', '.join([*VERBS, 'laws'])}; moesim --help explains them")
    try:
        commands[verb](rest) if verb in commands else _hydra(verb, rest)
    except (InputError, OSError) as error:
        _fail(f"moesim {verb}", str(error))


def run_job(config: Any) -> None:
    """One job: the resolved config through the verb's driver, and everything it returns to files."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    try:
        produce(hydra.job.name, resolved, Path(hydra.runtime.output_dir))
    except (InputError, OSError) as error:
        if hydra.mode is RunMode.MULTIRUN:
            raise
        _fail(f"moesim {hydra.job.name}", str(error))


def produce(verb: str, config: dict[str, Any], directory: Path) -> Path:
    """Run a verb on a resolved config and write result, figures and texts into the directory; prints the table."""
    import logging

    from moesim.output.plots import write_figures
    from moesim.output.store import write_result

    result = import_module(VERBS[verb][0]).run(config)
    for warning in result.warnings:
        logging.getLogger("moesim").warning(warning)
    text = _yaml(config)
    path = write_result(result.dataset.assign_attrs(verb=verb, config=text), directory / result.file)
    for name, content in {"config.yaml": text, **result.texts}.items():
        (directory / name).write_text(content)
    drawn = write_figures(result.figures, directory)
    print(result.table)
    print("\n".join(f"wrote {os.path.relpath(file)}" for file in (path, *drawn)))
    return path


def _yaml(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def _hydra(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra; its own complaints become one line as well."""
    import hydra
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    sys.argv = ["moesim", *_prepared(arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(run_job)()
    except OverrideParseException as error:
        _fail(f"moesim {verb}", f"{error.override}: {' '.join(str(error).split())}")
    except (HydraException, OmegaConfBaseException) as error:
        _fail(f"moesim {verb}", " ".join(str(error).partition("Config search path")[0].split()))


_RANGE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=\{\s*(linspace|geomspace)\b.*", re.DOTALL)


def _prepared(arguments: list[str]) -> Iterator[str]:
    """What Hydra cannot take as it is: a file of one's own as a choice, a range in place of a list, -m at the end."""
    for argument in sorted(arguments, key=lambda a: a not in ("-m", "--multirun")):  # which Hydra wants first
        if match := _RANGE.fullmatch(argument):
            yield from (f"{match['key']}=null", f"++{argument}")  # Hydra would merge it into what stands there
        else:
            yield _stored(argument) if re.search(r"\.ya?ml\b", argument) else argument


def _stored(argument: str) -> str:
    """`GROUP=path/to/NAME.yaml` as a choice that Hydra knows: the file's content is stored under its path."""
    from hydra.core.config_store import ConfigStore

    from moesim.config import read

    group, equals, values = argument.partition("=")
    for value in values.split(",") if equals and (conf_dir() / group).is_dir() else ():
        if value.endswith((".yaml", ".yml")):
            name = str(Path(value).with_suffix("")).replace("/", "_").strip("._")
            ConfigStore.instance().store(group=group, name=name, node=read(group, value))
            argument = argument.replace(value, name)
    return argument


def _laws(names: list[str]) -> None:
    from moesim.laws.show import catalogue, page

    print("\n\n".join(map(page, names)) if names else catalogue())


def _complete(arguments: list[str]) -> None:
    """Tab completion by Hydra, which does not know verbs: they are completed here and hidden from it."""
    words = os.environ.get("COMP_LINE", "").split()
    verb = words[1] if len(words) > 1 and words[1] in VERBS else None
    if arguments[:1] != ["query=bash"] or verb is None:
        _verbs_or_install(arguments, words)
        return
    line = os.environ["COMP_LINE"].replace(f" {verb}", "", 1)
    os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    _hydra(verb, ["-sc", *arguments])


def _verbs_or_install(arguments: list[str], words: list[str]) -> None:
    if arguments[:1] == ["query=bash"]:
        print(" ".join(verb for verb in (*VERBS, "laws") if verb.startswith(words[1] if len(words) > 1 else "")))
    else:
        _hydra("sweep", ["-sc", *arguments])


def _version(_: list[str]) -> None:
    print(f"moesim {__version__}")


def _usage(_: list[str]) -> None:
    print(_USAGE.format(verbs="\n".join(f"  {verb:<8} {text}" for verb, (_, text) in VERBS.items())), end="")


def _fail(who: str, message: str) -> None:
    print(f"{who}: {message}", file=sys.stderr)
    raise SystemExit(2)
