"""What loss a run will reach: published laws, and what repetition does to them."""

from moesim.laws import dense, moe, pruned, repetition, single
from moesim.laws.law import FORMS, Coefficient, Form, Law
from moesim.laws.load import law_from, load_law, load_repetition, repetition_from
from moesim.laws.repetition import REPETITIONS, Repetition

__all__ = [
    "FORMS",
    "REPETITIONS",
    "Coefficient",
    "Form",
    "Law",
    "Repetition",
    "dense",
    "law_from",
    "load_law",
    "load_repetition",
    "moe",
    "pruned",
    "repetition",
    "repetition_from",
    "single",
]
