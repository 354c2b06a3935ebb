"""The docs give of the small models the numbers of the shipped rows, and a number that is not theirs is found."""

import pytest
from lab_prose import ROOT, SAID, mended, styled, unheld

from moesim.lab.compared import Interval


@pytest.mark.parametrize(("file", "sentence", "values"), SAID, ids=[f"{file} {said}" for file, said, _ in SAID])
def test_the_docs_say_what_the_rows_say(file, sentence, values):
    found = mended((ROOT / file).read_text(), sentence, values())
    assert len(found) == 1, f"{file} has this {len(found)} times, not once; change it there or in tests/lab_prose.py"
    stands, should = found[0]
    assert stands == should, "python tests/lab_prose.py mends it; then read the sentence again"


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0.0449, ".045", ".045"),
        (0.0449, "0.04", "0.04"),
        (0.0449, "-.045", "+.045"),
        (-0.0449, ".045", "-.045"),
        (1.5, ".4", "1.5"),
        (0.5, "1.51", "0.50"),
        (3, "five", "three"),
        (3, "5", "3"),
        (float("nan"), ".4", "nan"),
    ],
)
def test_a_number_keeps_the_style_it_has(value, like, text):
    assert styled(value, like) == text


def test_a_wrong_number_is_found_and_mended_where_it_stands():
    """Across a line's end, beside text that looks like a pattern, in a cell; what is not asked for stays."""
    text = "* it is .63 [.42,\n  .87] (three seeds), not .5 (a+b) | 1 | 5, 2 |"
    index = Interval(0.7, 0.4, 0.9, 4)
    assert mended(text, "# [#, #] (# seeds)", [index, 4]) == [
        (".63 [.42,\n  .87] (three seeds)", ".70 [.40,\n  .90] (four seeds)")
    ]
    assert mended(text, "not # (a+b) | # |@|", [0.5, 1, " 4 "]) == [
        ("not .5 (a+b) | 1 | 5, 2 |", "not .5 (a+b) | 1 | 4 |")
    ]
    assert mended(text, "it was #", [1.0]) == []
    with pytest.raises(ValueError, match="has 1 numbers; its row of SAID gives 3"):
        mended(text, "it is #", [index])


def test_numbers_that_nothing_holds_are_listed():
    text = "first 9.9\n(lab)=\na .5 and b\nc 0.25"
    assert unheld(text, ["a .5 and"]) == ["c 0.25"]
    assert unheld(text, []) == ["a .5 and b", "c 0.25"]
