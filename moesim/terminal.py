"""What a terminal can show: where its encoding lacks a sign, a plainer one; where its reader has left, nothing."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

_PLAIN = {"±": "+-", "×": "x", "–": "-", "—": "-", "−": "-", "≤": "<=", "≥": ">=", "→": "->", "·": ".", "…": "..."}


class Patient:
    """Standard output that goes nowhere once its reader has left: the work behind it is worth finishing."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write as the stream does."""
        return self._try(self.stream.write, text) or len(text)

    def flush(self) -> None:
        """Flush as the stream does."""
        self._try(self.stream.flush)

    def _try(self, act: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def any_terminal() -> None:
    """Let standard output and error take any text, whatever their encoding, and the output lose its reader."""
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="plainer")
    if sys.stdout and not isinstance(sys.stdout, Patient):
        sys.stdout = Patient(sys.stdout)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or _letters(sign) for sign in signs), error.end


def _letters(sign: str) -> str:
    """The ASCII letters that a sign is made of: 2 for a superscript 2, e for an e with an accent; else a ?."""
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def one_line_warnings() -> None:
    """Warnings of libraries go to the log, without the place in the code that they come from."""
    import logging
    import warnings

    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: " ".join(str(message).split())
