"""What the small models read: windows of bytes with the domain of each, split into training and validation.

A corpus is a decorated function that makes documents or windows; a token is a byte, so that no vocabulary has to be
learned first. Its SHA-256 stands in every row that was trained on it: rows of different corpora are never one table.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.registry import Policies
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, SHARE, check

CONTEXT = 128  # tokens that a model sees; a window is one longer, for the last target
VOCABULARY = 256
_VALIDATION = 8  # one document in so many is for validation
_CHUNK = 4096  # bytes of a document that is generated

corpora = Policies("corpus", changes=False)
"""`changes`: what is read may be another tomorrow, under the same options and Python."""


@dataclass(frozen=True)
class Part:
    """Windows (window, CONTEXT + 1) of bytes and the domain of each."""

    windows: np.ndarray
    domain: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens that are predicted: CONTEXT for each window."""
        return len(self.windows) * CONTEXT


@dataclass(frozen=True)
class Corpus:
    """Windows for training and for validation, the names of their domains, and the floor of the loss if it is known."""

    name: str
    train: Part
    valid: Part
    domains: tuple[str, ...]
    floor: float = nan

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all windows and their domains, the first 16 hex digits."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid):
            digest.update(part.windows.tobytes() + part.domain.astype(np.int32).tobytes())
        return digest.hexdigest()[:16]


def load(choice: object) -> Corpus:
    """The corpus of a name, or of a mapping with `policy` and options; InputError for an unknown name or option."""
    return corpora.only(choice)()


def spelled(choice: object) -> dict[str, Any]:
    """A choice with all its options, so that two spellings of one corpus are one."""
    policy = corpora.only(choice)
    return {"policy": policy.name, **policy.takes, **policy.options}


@corpora
def synthetic(
    *,
    domains: int = 32,
    symbols: int = 192,
    exponent: float = 1.0,
    kin: float = 0.0,
    seed: int = 0,
    train_windows: int = 2**17,
    valid_windows: int = 2**11,
) -> Corpus:
    """Facts to memorise, with a floor that is known: Markov chains of Zipf-distributed domains.

    A window's first symbol names its domain, the second is any symbol, and each later one is one of four successors
    (probabilities .6, .2, .12, .08) of the one before, by a table of the domain. Its floor is the entropy of that.
    `kin`: share of the symbols whose successors a domain has from the sibling it is paired with, which says how much
    training on one must help the other.
    """
    check("corpus synthetic", "kin", kin, SHARE)
    check("corpus synthetic", "exponent", exponent, NON_NEGATIVE)
    for name, value in {"domains": domains, "symbols": symbols}.items():
        check("corpus synthetic", name, value, AT_LEAST_ONE)
    if not 4 <= symbols <= VOCABULARY - domains:
        raise InputError(
            f"corpus synthetic: symbols={symbols}; it takes 4 to {VOCABULARY - domains} beside {domains} domains"
        )
    rng = np.random.default_rng([seed, 11])
    table = rng.permuted(np.broadcast_to(np.arange(symbols), (domains, symbols, symbols)), axis=-1)[..., :4]
    inherited = rng.permuted(np.broadcast_to(np.arange(symbols), (domains // 2, symbols)), axis=-1) < kin * symbols
    older, younger = table[0 : domains - 1 : 2], table[1::2]
    younger[inherited] = older[inherited]
    frequency = np.arange(1, domains + 1) ** -float(exponent)
    train, valid = (
        _chains(rng, table, frequency / frequency.sum(), windows) for windows in (train_windows, valid_windows)
    )
    floor = (np.log(symbols) - (CONTEXT - 1) * float(_SUCCESSORS @ np.log(_SUCCESSORS))) / CONTEXT
    return Corpus("synthetic", train, valid, tuple(f"domain {i}" for i in range(domains)), float(floor))


_SUCCESSORS = np.array([0.6, 0.2, 0.12, 0.08])


def _chains(rng: np.random.Generator, table: np.ndarray, frequency: np.ndarray, windows: int) -> Part:
    domains, symbols, _ = table.shape
    domain = rng.choice(domains, windows, p=frequency)
    out = np.empty((windows, CONTEXT + 1), np.uint8)
    out[:, 0] = symbols + domain
    out[:, 1] = state = rng.integers(symbols, size=windows)
    for place in range(2, CONTEXT + 1):
        state = table[domain, state, rng.choice(4, windows, p=_SUCCESSORS)]
        out[:, place] = state
    return Part(out, domain)


@corpora
def stdlib(*, megabytes: float = 18.0) -> Corpus:
    """Text without a download: what Python ships with, in six kinds, split by file.

    Its tests and its code (36 % each), prose (its topics and long docstrings, 10 %), codec tables (7 %), names of
    Unicode characters (6 %) and sums (4 %), at most these shares of `megabytes` (Python 3.11 has prose for 8 %). It
    differs from one Python version to the next, and the eighth of the documents that is for validation is harder than
    most in 3.11 (by .05 nat): compare rows of one hash only. Some distributions of Python lack the tests; then it is an
    error.
    """
    check("corpus stdlib", "megabytes", megabytes, AT_LEAST_ONE)
    root = Path(sysconfig.get_path("stdlib"))
    if not any((root / "test").glob("test_*.py")):
        raise InputError(f"corpus stdlib: {root} has no tests; take a Python with its tests, or another corpus")
    sources = [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]
    tables = [path for path in sources if path.parent.name == "encodings"]
    tests = [path for path in sources if "test" in path.parts or "tests" in path.parts]
    code = sorted({*sources} - {*tables} - {*tests})
    kinds = {
        "tests": (0.36, _files(root, tests)),
        "code": (0.36, _files(root, code)),
        "prose": (0.10, _prose(root, code)),
        "tables": (0.07, _files(root, tables)),
        "names": (0.06, _generated("names", _unicode_names())),
        "sums": (0.04, _generated("sums", _sums())),
    }
    most = {kind: int(share * megabytes * 1e6) for kind, (share, _) in kinds.items()}
    return _split("stdlib", {kind: documents for kind, (_, documents) in kinds.items()}, most)


@corpora(changes=True)
def installed(
    *, packages: tuple[str, ...] = ("numpy", "scipy", "xarray", "matplotlib"), megabytes: float = 18.0
) -> Corpus:
    """The Python files of installed packages, a domain for each, at most `megabytes` in equal parts."""
    documents = {}
    if not packages:
        raise InputError("corpus installed: packages=[]; give packages that are installed here")
    for name in packages:
        found = find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise InputError(f"corpus installed: no package {name!r}; give packages that are installed here")
        root = Path(next(iter(found.submodule_search_locations)))
        documents[name] = _files(root, sorted(root.rglob("*.py")))
    return _split("installed", documents, dict.fromkeys(documents, int(megabytes * 1e6 / len(packages))))


@corpora(changes=True)
def languages(*, package: str = "django", megabytes: float = 8.0) -> Corpus:
    """The translations (.po) that an installed package carries, a domain for each language, in equal parts."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"corpus languages: no package {package!r}; pip install one with .po files, e.g. django")
    root = Path(next(iter(found.submodule_search_locations)))
    by_language: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("LC_MESSAGES/*.po")):
        by_language.setdefault(path.parent.parent.name, []).append(path)
    if not by_language:
        raise InputError(f"corpus languages: {package} has no LC_MESSAGES/*.po; give a package that has")
    documents = {language: _translations(root, paths) for language, paths in by_language.items()}
    return _split("languages", documents, dict.fromkeys(documents, int(megabytes * 1e6 / len(documents))))


@corpora(changes=True)
def files(*, path: str, megabytes: float = 64.0) -> Corpus:
    """Your own files: a directory with one directory for each domain, at most `megabytes` in equal parts."""
    root = Path(str(path))
    domains = sorted(child for child in root.iterdir() if child.is_dir()) if path and root.is_dir() else []
    if not domains:
        raise InputError(f"corpus files: path={path!r} has no directories; give a directory with one for each domain")
    documents = {d.name: _files(root, sorted(p for p in d.rglob("*") if p.is_file())) for d in domains}
    return _split("files", documents, dict.fromkeys(documents, int(megabytes * 1e6 / len(documents))))


Documents = Iterable[tuple[str, bytes]]


def _split(name: str, kinds: Mapping[str, Documents], most: Mapping[str, int]) -> Corpus:
    """Windows of documents, each document whole in one part, by the hash of its name and content."""
    rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for label, (kind, documents) in enumerate(kinds.items()):
        for text in _up_to(sorted(documents, key=_order), most[kind]):
            windows = _windows(text)
            part = int(hashlib.sha256(text).digest()[0] % _VALIDATION == 0)
            rows[part].append(windows)
            labels[part].extend([label] * len(windows))
    parts = [
        Part(np.concatenate(r or [_windows(b"")]), np.array(x, dtype=int)) for r, x in zip(rows, labels, strict=True)
    ]
    if not all(len(part.windows) for part in parts):
        raise InputError(
            f"corpus {name}: too little text to train and to validate on; give more files, or cut large ones: each is "
            f"whole in one part, about one in {_VALIDATION} in validation"
        )
    order = np.random.default_rng(0).permutation(len(parts[1].windows))[: 2**11]
    valid = Part(parts[1].windows[order], parts[1].domain[order])
    return Corpus(name, parts[0], valid, tuple(kinds))


def _order(document: tuple[str, bytes]) -> bytes:
    """A mixed order of documents that is the same on every machine."""
    return hashlib.sha256(document[0].encode()).digest()


def _up_to(documents: Iterable[tuple[str, bytes]], most: int) -> Iterator[bytes]:
    taken = 0
    for _, text in documents:
        if taken >= most:
            return
        yield text[: most - taken]
        taken += len(text)


def _windows(text: bytes) -> np.ndarray:
    """Windows that follow one another; the rest of a document is left out. The last byte of one is the next's first."""
    symbols = np.frombuffer(text, np.uint8)
    count = max((len(symbols) - 1) // CONTEXT, 0)
    places = np.arange(count)[:, None] * CONTEXT + np.arange(CONTEXT + 1)
    return symbols[places] if count else np.empty((0, CONTEXT + 1), np.uint8)


def _files(root: Path, paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        yield str(path.relative_to(root)), path.read_bytes()


def _prose(root: Path, paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Python's help topics, and the docstrings of at least 400 characters of each file."""
    for topic, text in import_module("pydoc_data.topics").topics.items():
        yield f"topic {topic}", text.encode()
    for path in paths:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # files that are wrong on purpose
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
        if long := [text for text in texts if len(text) >= 400]:
            yield f"docstrings {path.relative_to(root)}", "\n\n".join(long).encode()


def _translations(root: Path, paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        lines = path.read_text(encoding="utf-8", errors="ignore").split("msgstr ")[2:]
        quoted = [line.split("\nmsgid")[0].split("\n#")[0] for line in lines]
        text = "\n".join("".join(part.strip().strip('"') for part in line.splitlines()) for line in quoted)
        yield str(path.relative_to(root)), text.encode()


def _generated(kind: str, lines: Iterator[str]) -> Iterator[tuple[str, bytes]]:
    text = "\n".join(lines).encode()
    for start in range(0, len(text), _CHUNK):
        yield f"{kind} {start}", text[start : start + _CHUNK]


def _unicode_names() -> Iterator[str]:
    for code in range(0x110000):
        if name := unicodedata.name(chr(code), ""):
            yield f"{code:04X} {name}"


def _sums(count: int = 2**16, seed: int = 0) -> Iterator[str]:
    numbers = np.random.default_rng([seed, 12]).integers(1000, size=(count, 2))
    for a, b in numbers.tolist():
        yield f"{a}+{b}={a + b}"
