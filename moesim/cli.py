"""`moesim VERB KEY=VALUE ...`: the verbs, and which of them does what (`jobs.py` runs them)."""

from __future__ import annotations

import os
import sys

from moesim import __version__
from moesim.errors import InputError
from moesim.hydra_door import LOOKING, call_hydra, fail, prepared, refuse_code
from moesim.jobs import VERBS, collected, multirun, rerun, run_job, single

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
    tools = {"laws": _laws, "collect": collected, "rerun": rerun}
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
        fail(f"moesim {verb}", error)


def _hydra(verb: str, arguments: list[str]) -> None:
    """Hand the arguments to Hydra, in a directory of their own; its own complaints become one line as well."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    refuse_code(arguments)
    words = list(prepared(arguments))
    if LOOKING & {argument.partition("=")[0] for argument in arguments}:
        call_hydra(verb, words, run_job)
    elif {"-m", "--multirun"} & set(arguments):
        multirun(verb, words)
    else:
        single(verb, words)


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
        begun = words[1] if len(words) > 1 else ""
        print(" ".join(verb for verb in (*VERBS, "laws", "collect", "rerun") if verb.startswith(begun)))
    else:
        _hydra("sweep", ["-sc", *arguments])


def _version(_: list[str]) -> None:
    print(f"moesim {__version__}")


def _usage(_: list[str]) -> None:
    print(_USAGE.format(verbs="\n".join(f"  {verb:<8} {text}" for verb, (_, text) in VERBS.items())), end="")
