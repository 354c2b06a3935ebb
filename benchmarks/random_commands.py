"""Random command lines: none may end in a traceback, a fault, a hang or several lines, and none is ignored in part.

    python benchmarks/random_commands.py [COMMANDS [SEED]]

The lines are made from good ones by changing keys and values, adding signs, options, quotes, letters of any alphabet
and files good and bad. Each runs in this process, in a directory of its own. What a run that went well was told must
stand in the config that it carries. Prints the lines that broke a rule; exits with 1 if there are any.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from moesim.cli import main
from moesim.config import choices, shipped
from moesim.errors import InputError
from moesim.overrides import groups, known_to, typed
from moesim.verbs import VERBS

# What makes each verb quick; the rest of a line is changed at random.
QUICK = {
    "sweep": ["figures=false", "space.compute=1e20", "space.sparsity=[0,0.9]", "space.active_params=[1e8,1e9]"],
    "fit": ["figures=false", "fit.draws=0", "fit.starts=2", "fit.profiles=false", "runs=good.csv"],
    "balance": ["figures=false", "steps=3", "seeds=1", "experts=4", "cluster.devices=2"],
    "flops": ["figures=false", "batch=[1,4]", "optimizer=sgd"],
    "plan": ["figures=false", "cluster.devices=8", "space.unique_tokens=1e10", "laws=[]"],
    "sites": ["figures=false", "site=eight_servers", "protocol=diloco", "hours=2", "seeds=1"],
    "lab": ["figures=false", "calibrate=good.nc"],  # trains nothing
}
VALUES = [
    "1",
    "0",
    "-1",
    "1e20",
    "1e400",
    ".inf",
    "inf",
    "nan",
    ".nan",
    "null",
    "true",
    "false",
    "on",
    "???",
    "1:30",
    "0x10",
    "1_000",
    "2020-01-01",
    "''",
    '""',
    "'",
    "a",
    "ä",
    "漢字",
    "😀",
    "a,b",
    "a=b",
    "[]",
    "{}",
    "[1]",
    "[1,2]",
    "[[1]]",
    "[a,b]",
    "{a:1}",
    "{linspace:[1,2,3]}",
    "{geomspace:[1e18,1e20,2]}",
    "{linspace:[1,2]}",
    "{linspace:[0,0,9]}",
    "${x}",
    "$x",
    "${oc.env:HOME}",
    "good.yaml",
    "bomb.yaml",
    "tag.yaml",
    "broken.json",
    "good.csv",
    "latin.csv",
    "mine.py",
    "mine.py:mine2026",
    "none.py",
    ".",
    "/",
    "../x",
    "range(1,4)",
    "choice(a,b)",
    "glob(*)",
    "interval(0,1)",
    "abs(1)",
    "int(3)",
    "shuffle(1,2)",
    "%d",
    "\\",
    "a\\,b",
    "-5",
    "1e-300",
    "[1e308]",
    "[nan]",
    "[true]",
    "{?:1}",
]
OPTIONS = [
    "-m",
    "--multirun",
    "-x",
    "--config-dir",
    "--cfg",
    "--",
    "resume=x",
    "hydra.verbose=true",
    "hydra/launcher=y",
]
LAW = "form: hoffmann2022\ncoefficients: {E: 1.7, A: 400, alpha: 0.34, B: 410, beta: 0.28}\n"
FILES = {
    "good.yaml": LAW,
    "bomb.yaml": LAW + "x0: &x0 [1, 1]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 40)),
    "tag.yaml": LAW + "source: !!python/object/apply:os.getcwd []\n",
    "broken.json": "{",
    "good.csv": "total_params,tokens,loss\n"
    + "".join(f"{1e8 * 2**n},{3e9 * 3 ** (n % 4)},{3 - n / 9}\n" for n in range(12)),
    "latin.csv": "total_params,tokens,loss,ä\n",
    "mine.py": "import moesim\n\n1 / 0\n",
}
LIMIT = 30  # s for one command line


def keys(verb: str) -> list[str]:
    """The keys of a verb, and some of another."""
    from moesim.overrides import _names

    own = list(_names(known_to(verb, ()).keys))
    other = random.Random(verb).choice([v for v in VERBS if v != verb])
    return [*own, *groups(verb), *groups(verb), *list(shipped(other))]


def line(draw: random.Random) -> list[str]:
    """One command line."""
    verb = draw.choice(list(VERBS))
    words = [*QUICK[verb], *(word(draw, verb) for _ in range(draw.randint(0, 3)))]
    if draw.random() < 0.3:
        words.insert(draw.randint(0, len(words)), draw.choice(OPTIONS))
    if draw.random() < 0.1:
        place = draw.randrange(len(words))
        words[place] = damaged(draw, words[place])
    return [verb if draw.random() > 0.02 else damaged(draw, verb), *words]


def word(draw: random.Random, verb: str) -> str:
    """One KEY=VALUE: the key of this verb or damaged, a choice of its group or any value."""
    key = draw.choice(keys(verb))
    named = choices(key) if key in groups(verb) and draw.random() < 0.7 else VALUES
    value = ",".join(draw.choice(named or VALUES) for _ in range(draw.choice([1, 1, 1, 2])))
    sign = draw.choice(["", "", "", "", "+", "++", "~"])
    return f"{sign}{damaged(draw, key) if draw.random() < 0.2 else key}={value}"


def damaged(draw: random.Random, text: str) -> str:
    """The text with a sign dropped, doubled or replaced."""
    place = draw.randrange(len(text))
    return (
        text[:place] + draw.choice(["", text[place] * 2, draw.choice("aZ09._=,'\"[{$\\é漢\n\t ")]) + text[place + 1 :]
    )


class _Hang(BaseException):
    pass


def _late(*_: object) -> None:
    raise _Hang


def outcome(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line; code -1 where it hangs, -2 where an exception comes out."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    code, before = 0, (sys.stdout, sys.stderr)
    try:
        sys.stdout, sys.stderr = out, err
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except _Hang:
        code = -1
    except BaseException as error:
        code = -2
        print(f"{type(error).__name__}: {error}", file=err)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout, sys.stderr = before
    return code, *(stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err))


def broken(arguments: list[str]) -> tuple[int, str]:
    """Exit code, and which rule a command line breaks (none: nothing)."""
    code, out, err = outcome(arguments)
    several = {"-m", "--multirun"} & set(arguments)
    if code not in (0, 1, 2):
        return code, f"exit {code}: {err[-300:]}"
    if "Traceback" in out + err or "a fault of moesim" in out + err:
        return code, f"fault: {(out + err)[-400:]}"
    if code == 2 and len(err.strip().splitlines()) != 1:
        return code, f"not one line: {err[-400:]}"
    if code == 1 and not several:
        return code, f"exit 1: {err[-300:]}"
    return code, "" if code or several else _ignored(arguments)


def _ignored(arguments: list[str]) -> str:
    """The first KEY=VALUE that does not stand in the config of the run."""
    import yaml

    files = sorted(Path("outputs").rglob("config.yaml"))
    if not files:
        return ""
    config = yaml.safe_load(files[-1].read_text())
    for argument in arguments[1:]:
        try:
            one = typed(argument)
        except InputError:
            continue  # an option
        there = config
        for name in one.key.split("."):
            there = there.get(name) if isinstance(there, dict) else None
        told = isinstance(one.value, int | float) and not isinstance(one.value, bool)
        if told and one.key not in groups(arguments[0]) and there != one.value and repr(there) != "nan":
            return f"{argument} is {there!r} in the config"
    return ""


@contextlib.contextmanager
def somewhere() -> Iterator[None]:
    """A new working directory with the files that lines name."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            for name, content in FILES.items():
                Path(name).write_bytes(content.encode("latin-1" if name == "latin.csv" else "utf-8"))
            yield
        finally:
            os.chdir(before)


def study(commands: int, seed: int, seconds: float = float("inf")) -> tuple[Counter[int], list[str]]:
    """How often each exit code came, and the lines that broke a rule; ends early when the seconds are over."""
    draw, counts, wrong, begun = random.Random(seed), Counter(), [], time.monotonic()
    for _ in range(commands):
        if time.monotonic() - begun > seconds:
            break
        with somewhere():
            arguments = line(draw)
            code, rule = broken(arguments)
        counts[code] += 1
        if rule:
            wrong.append(f"{arguments}\n    {rule}")
    return counts, wrong


if __name__ == "__main__":
    counts, wrong = study(*(int(a) for a in [*sys.argv[1:], *["5000", "0"][len(sys.argv) - 1 :]]))
    print("\n".join(wrong))
    print(f"{sum(counts.values())} command lines, exit codes {dict(counts)}, {len(wrong)} broke a rule")
    raise SystemExit(bool(wrong))
