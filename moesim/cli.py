"""`moesim VERB KEY=VALUE ...`: the verbs, and which of them does what (`jobs.py` runs them)."""

from __future__ import annotations

import os
import sys

from moesim import __version__
from moesim.errors import InputError, nearest
from moesim.hydra_door import call_hydra, fail, fault, files_of_code, prepared
from moesim.jobs import rerun, run_job, single
from moesim.terminal import any_terminal
from moesim.usage import page
from moesim.verbs import VERBS

_USAGE = """moesim: how sparse, how large and how long to train a Mixture of Experts when unique data is finite

usage: moesim VERB [KEY=VALUE ...]

{verbs}
  laws     list the loss laws and repetitions; moesim laws NAME shows one whole
  collect  moesim collect DIR ...: the results of multiruns as one Dataset
  rerun    moesim rerun FILE: repeat a result from what it carries and compare bit for bit
  page     moesim page FILE ... [to=PAGE.html] [live=false]: results as one HTML file to play with, offline

moesim VERB --help explains the keys of a verb; moesim VERB -m KEY=A,B runs every combination.
moesim --version prints the version; eval "$(moesim -sc install=bash)" turns on tab completion.
"""


def main(argv: list[str] | None = None) -> None:
    """The command line: exit 0 done, 1 some job failed or a fault, 2 bad input with one line, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb, *rest = arguments or ["--help"]
    tools = {"laws": _laws, "collect": _collect, "rerun": _rerun, "page": _page}
    commands = tools | {"-sc": _complete, "--version": _version, "-h": _usage, "--help": _usage}
    any_terminal()
    if verb not in VERBS and verb not in commands:
        there = [*VERBS, *tools]
        fail(
            "moesim",
            f"no verb {verb!r}{nearest(verb, there)}; there are {', '.join(there)}; moesim --help explains them",
        )
    if verb in tools and {"-h", "--help"} & set(rest):
        verb = "--help"
    who = f"moesim {verb}"
    try:
        commands[verb](rest) if verb in commands else _verb(verb, rest)
    except KeyboardInterrupt:
        fail(who, "interrupted", 130)
    except (InputError, OSError) as error:
        fail(who, error)
    except Exception as error:
        fault(who, error)


def _verb(verb: str, arguments: list[str]) -> None:
    """Run a verb in a directory of its own; with --help say what it takes, with --cfg what it would run."""
    if {"-h", "--help"} & set(arguments):
        print(page(verb, whole="all" in arguments))
        return
    words = prepared(verb, arguments)
    flags = {word.partition("=")[0] for word in words}
    if flags & {"-c", "--cfg"}:
        call_hydra(verb, words, run_job)
    elif flags & {"-m", "--multirun"}:
        from moesim.many import multirun  # NumPy comes with it, which help does without

        multirun(verb, words, arguments)
    else:
        single(verb, words)


def _collect(directories: list[str]) -> None:
    from moesim.many import collected

    collected(directories)


def _rerun(words: list[str]) -> None:
    """`moesim rerun FILE ... [plugins=FILE.py]`: code that a result needs runs only if it is named here."""
    for word in words:
        if word.startswith("plugins="):
            files_of_code(word)
    rerun([word for word in words if not word.startswith("plugins=")])


def _page(words: list[str]) -> None:
    """`moesim page FILE ... [to=PAGE.html] [live=false]`: runs no code of the files."""
    from moesim.pages.page import page

    given = dict(word.split("=", 1) for word in words if word.startswith(("to=", "live=")))
    live = given.get("live", "true").lower()
    if live not in ("true", "false"):
        raise InputError(f"live={given['live']}: it takes true or false")
    files = [word for word in words if not word.startswith(("to=", "live="))]
    print(f"wrote {os.path.relpath(page(*files, to=given.get('to'), live=live == 'true'))}")


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
    call_hydra(verb, ["-sc", *arguments], run_job)


def _verbs_or_install(arguments: list[str], words: list[str]) -> None:
    if arguments[:1] == ["query=bash"]:
        begun = words[1] if len(words) > 1 else ""
        print(" ".join(verb for verb in (*VERBS, "laws", "collect", "rerun", "page") if verb.startswith(begun)))
    else:
        call_hydra("sweep", ["-sc", *arguments], run_job)


def _version(_: list[str]) -> None:
    print(f"moesim {__version__}")


def _usage(_: list[str]) -> None:
    print(_USAGE.format(verbs="\n".join(f"  {verb:<8} {text}" for verb, (_, text) in VERBS.items())), end="")
