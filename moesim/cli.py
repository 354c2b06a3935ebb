"""`moesim VERB KEY=VALUE ...`: a config becomes objects, one driver runs, its result is written to files."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from moesim import __version__
from moesim.config import conf_dir
from moesim.errors import InputError

# Verb -> (module whose run(config) does the work, what it does).
VERBS = {
    "sweep": ("moesim.planning.run", "isoFLOP curves, compute-optimal runs and the best sparsity under finite data"),
    "fit": ("moesim.fitting.run", "a law fitted to training runs, with intervals and what the runs cannot tell"),
    "balance": ("moesim.balance.run", "what the experts do during training, and what splitting and feeding them buys"),
    "flops": ("moesim.models.count", "what a network or a model holds and costs, per layer, forward and backward"),
}
# Verb -> module whose collected(dataset) is the table of a multirun.
_COLLECTED = {"fit": "moesim.fitting.tables"}
_USAGE = """moesim: how sparse, how large and how long to train a Mixture of Experts when unique data is finite

usage: moesim VERB [KEY=VALUE ...]

{verbs}
  laws     list the loss laws and repetitions; moesim laws NAME shows one whole
  collect  moesim collect DIR ...: the results of multiruns as one Dataset
  rerun    moesim rerun FILE: repeat a result from what it carries and compare bit for bit

moesim VERB --help explains the keys of a verb; moesim VERB -m KEY=A,B runs every combination.
moesim --version prints the version; eval "$(moesim -sc install=bash)" turns on tab completion.
"""


def main(argv: list[str] | None = None) -> None:
    """The command line; exits with 2 and one readable line on bad input."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb, *rest = arguments or ["--help"]
    tools = {"laws": _laws, "collect": _collect, "rerun": _rerun}
    commands = tools | {"-sc": _complete, "--version": _version, "-h": _usage, "--help": _usage}
    if verb not in VERBS and verb not in commands:
        _fail("moesim", f"no verb {verb!r}; there are {', '.join([*VERBS, *tools])}; moesim --help explains them")
    if verb in tools and {"-h", "--help"} & set(rest):
        verb = "--help"
    try:
        commands[verb](rest) if verb in commands else _hydra(verb, rest)
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = None
        raise SystemExit(0) from None
    except (InputError, OSError) as error:
        _fail(f"moesim {verb}", str(error))


def run_job(config: Any) -> None:
    """One job: the resolved config through the verb's driver, and everything it returns to files."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    job = (hydra.job.name, resolved, Path(hydra.runtime.output_dir), tuple(hydra.overrides.task))
    if hydra.mode is RunMode.MULTIRUN:
        _job_of_many(*job, Path(hydra.sweep.dir))
        return
    try:
        produce(*job)
    except (InputError, OSError) as error:
        _fail(f"moesim {hydra.job.name}", str(error))


def _job_of_many(verb: str, config: dict[str, Any], directory: Path, overrides: tuple[str, ...], whole: Path) -> None:
    """A job of a multirun: skipped if it is done, and one that fails leaves word and lets the others go on."""
    import logging

    from moesim.output.multirun import as_yaml, is_done, write_error

    log = logging.getLogger("moesim")
    try:
        if is_done(whole, overrides, as_yaml(config)):
            log.info("done before: %s", " ".join(overrides))
        else:
            produce(verb, config, directory, overrides)
    except Exception as error:
        expected = isinstance(error, InputError | OSError)
        log.error("%s: %s", " ".join(overrides), error, exc_info=not expected)
        write_error(directory, overrides, f"{error}" if expected else f"{type(error).__name__}: {error}")


def produce(verb: str, config: dict[str, Any], directory: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Run a verb on a resolved config; write figures, texts and last the result into the directory; print the table."""
    import logging

    from moesim.output.multirun import as_yaml
    from moesim.output.plots import write_figures
    from moesim.output.store import write_result

    result = _driver(verb)(config)
    for warning in result.warnings:
        logging.getLogger("moesim").warning(warning)
    text = as_yaml(config)
    texts = [directory / name for name in result.texts]
    for file, content in zip([*texts, directory / "config.yaml"], [*result.texts.values(), text], strict=True):
        file.write_text(content)
    drawn = write_figures(result.figures, directory)
    attrs = {"verb": verb, "config": text, "overrides": json.dumps(overrides)}
    path = write_result(result.dataset.assign_attrs(attrs), directory / result.file, result.streams)
    print(result.table)
    print("\n".join(f"wrote {os.path.relpath(file)}" for file in (path, *texts, *drawn)))
    return path


def _driver(verb: str) -> Any:
    return import_module(VERBS[verb][0]).run


_LOOKING = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--version"}


def _hydra(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra, in a directory of their own; its own complaints become one line as well."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    _refuse_code(arguments)
    prepared = list(_prepared(arguments))
    if _LOOKING & {argument.partition("=")[0] for argument in arguments}:
        _call_hydra(verb, prepared)
    elif {"-m", "--multirun"} & set(arguments):
        _multirun(verb, prepared)
    else:
        _call_hydra(verb, [*prepared, *_directory(verb, prepared, "run")])


def _refuse_code(arguments: list[str]) -> None:
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


def _call_hydra(verb: str, arguments: list[str]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    sys.argv = ["moesim", *arguments]
    HydraConfig.instance().cfg = None
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(run_job)()
    except OverrideParseException as error:
        _fail(f"moesim {verb}", f"{error.override}: {' '.join(str(error).split())}")
    except Exception as error:
        composed = HydraConfig.initialized()  # before that, whatever goes wrong is about what was typed
        if composed and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        _fail(f"moesim {verb}", " ".join(str(error).partition("Config search path")[0].split()) or repr(error))


def _directory(verb: str, arguments: list[str], mode: str) -> list[str]:
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


def _multirun(verb: str, arguments: list[str]) -> None:
    """Run the jobs and collect what they left; `resume=DIR` runs only what DIR lacks. Exits with 1 if any failed."""
    from moesim.output.collect import collect
    from moesim.output.multirun import progress, resumed
    from moesim.output.store import open_result

    resume = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    arguments = [argument for argument in arguments if not argument.startswith("resume=")]
    where = resumed(verb, Path(resume[0]), arguments) if resume else _directory(verb, arguments, "sweep")
    directory = _value([*arguments, *where], "hydra.sweep.dir")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # jobs side by side must not fight over the cores
    with progress(directory):
        _call_hydra(verb, [*arguments, *where])
    report = collect([directory])
    if verb in _COLLECTED:
        print(import_module(_COLLECTED[verb]).collected(open_result(report.path)))
    print(report)
    if report.done < report.asked:
        raise SystemExit(1)


def _value(arguments: list[str], key: str) -> Path:
    return Path(next(a.partition("=")[2].strip("'") for a in reversed(arguments) if a.startswith(f"{key}=")))


_RANGE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=\{\s*(linspace|geomspace)\b.*", re.DOTALL)


# Mappings whose keys the user names: Hydra would take only those that stand there.
_OPEN = re.compile(r"(fit\.(fixed|tied|prior|bounds)|runs\.(where|columns)|compare)(\.[^=]*)?=")


def _prepared(arguments: list[str]) -> Iterator[str]:
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


def _laws(names: list[str]) -> None:
    from moesim.laws.show import catalogue, page

    print("\n\n".join(map(page, names)) if names else catalogue())


def _collect(directories: list[str]) -> None:
    from moesim.output.collect import collect

    if not directories:
        raise InputError("give the directory of a multirun, or several: moesim collect outputs/sweep/DATE/TIME")
    print(collect(directories))


def _again(verb: str, config: dict[str, Any]) -> Any:
    result = _driver(verb)(config | {"figures": False})
    if result.streams:
        raise InputError("the result is larger than its memory budget; give the run a larger one to compare it")
    return result.dataset


def _rerun(paths: list[str]) -> None:
    """Repeat results from the config that they carry; exits with 1 if any number differs."""
    from moesim.output.store import open_result, repeated

    if not paths:
        raise InputError("give a result file: moesim rerun outputs/sweep/DATE/TIME/result.nc")
    verdicts = [repeated(open_result(path), _again) for path in paths]
    for path, verdict in zip(paths, verdicts, strict=True):
        print(f"{path}: {verdict or 'the same bit for bit'}")
    if any(verdicts):
        raise SystemExit(1)


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
        begun = words[1] if len(words) > 1 else ""
        print(" ".join(verb for verb in (*VERBS, "laws", "collect", "rerun") if verb.startswith(begun)))
    else:
        _hydra("sweep", ["-sc", *arguments])


def _version(_: list[str]) -> None:
    print(f"moesim {__version__}")


def _usage(_: list[str]) -> None:
    print(_USAGE.format(verbs="\n".join(f"  {verb:<8} {text}" for verb, (_, text) in VERBS.items())), end="")


def _fail(who: str, message: str) -> None:
    print(f"{who}: {message}", file=sys.stderr)
    raise SystemExit(2)
