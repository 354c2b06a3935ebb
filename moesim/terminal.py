"""What a terminal can show: where its encoding lacks a sign, a plainer one stands for it."""

from __future__ import annotations

import codecs
import sys
import unicodedata

_PLAIN = {"±": "+-", "×": "x", "–": "-", "—": "-", "−": "-", "≤": "<=", "≥": ">=", "→": "->", "·": ".", "…": "..."}


def encodable() -> None:
    """Let standard output and error write any text, whatever their encoding."""
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or _letters(sign) for sign in signs), error.end


def _letters(sign: str) -> str:
    """The ASCII letters that a sign is made of: 2 for a superscript 2, e for an e with an accent; else a ?."""
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"
