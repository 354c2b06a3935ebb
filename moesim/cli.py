"""`moesim VERB KEY=VALUE ...`: a config becomes objects, one driver runs, its result is written to files."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from moesim import __version__
from moesim.errors import InputError
from moesim.hydra_door import LOOKING, call_hydra, directory_in, directory_of, fail, prepared, refuse_code

# Verb -> (module whose run(config) does the work, what it does).
VERBS = {
    "sweep": ("moesim.planning.run", "isoFLOP curves, compute-optimal runs and the best sparsity under finite data"),
    "fit": ("moesim.fitting.run", "a law fitted to training runs, with intervals and what the runs cannot tell"),
    "balance": ("moesim.balance.run", "what the experts do during training, and what splitting and feeding them buys"),
    "flops": ("moesim.counting.run", "what a network or a model holds and costs, per layer, forward and backward"),
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
        fail("moesim", f"no verb {verb!r}; there are {', '.join([*VERBS, *tools])}; moesim --help explains them")
    if verb in tools and {"-h", "--help"} & set(rest):
        verb = "--help"
    try:
        commands[verb](rest) if verb in commands else _hydra(verb, rest)
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = None
        raise SystemExit(0) from None
    except (InputError, OSError) as error:
        fail(f"moesim {verb}", str(error))


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
        fail(f"moesim {hydra.job.name}", str(error))


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


def _hydra(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra, in a directory of their own; its own complaints become one line as well."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    refuse_code(arguments)
    words = list(prepared(arguments))
    if LOOKING & {argument.partition("=")[0] for argument in arguments}:
        call_hydra(verb, words, run_job)
    elif {"-m", "--multirun"} & set(arguments):
        _multirun(verb, words)
    else:
        call_hydra(verb, [*words, *directory_of(verb, words, "run")], run_job)


def _multirun(verb: str, arguments: list[str]) -> None:
    """Run the jobs and collect what they left; `resume=DIR` runs only what DIR lacks. Exits with 1 if any failed."""
    from moesim.output.collect import collect
    from moesim.output.multirun import progress, resumed
    from moesim.output.store import open_result

    resume = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    arguments = [argument for argument in arguments if not argument.startswith("resume=")]
    where = resumed(verb, Path(resume[0]), arguments) if resume else directory_of(verb, arguments, "sweep")
    directory = directory_in([*arguments, *where], "hydra.sweep.dir")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # jobs side by side must not fight over the cores
    with progress(directory):
        call_hydra(verb, [*arguments, *where], run_job)
    report = collect([directory])
    if verb in _COLLECTED:
        print(import_module(_COLLECTED[verb]).collected(open_result(report.path)))
    print(report)
    if report.done < report.asked:
        raise SystemExit(1)


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
