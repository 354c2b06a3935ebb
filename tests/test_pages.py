"""Pages of results: one file, no request, and whatever a result file holds is text."""

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import moesim
from moesim.errors import InputError
from moesim.output.store import write_result
from moesim.pages.balance import descent
from moesim.pages.page import html
from moesim.pages.values import as_json, rounded, thinned

JS = Path(moesim.pages.__file__).parent / "js"
HOSTILE = "<img src=x onerror=alert(1)>"


def held(text: str) -> dict:
    """The data that a page carries."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def dataset(name: str = "loss", **attrs: str) -> xr.Dataset:
    values = xr.DataArray([[1.0, np.nan], [np.inf, 4.0]], dims=["run", "compute"], coords={"compute": [1e20, 1e21]})
    return xr.Dataset({name: values}, attrs={"verb": "sweep", "moesim_version": moesim.__version__, **attrs})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([1.0, np.nan, np.inf, -np.inf]), "[1.0,null,1e999,-1e999]"),
        ({"a": [True, None, np.int64(3)]}, '{"a":[true,null,3]}'),
        ("</script><b>", '"\\u003c/script\\u003e\\u003cb\\u003e"'),
        ({"</script>": "\u2028"}, '{"\\u003c/script\\u003e":"\\u2028"}'),
    ],
)
def test_data_as_json_that_no_html_can_end(value, text):
    assert as_json(value) == text
    assert json.loads(text) is not None


def test_what_is_not_plain_data_has_no_json():
    with pytest.raises(TypeError):
        as_json(object())


def test_numbers_are_rounded_to_nine_digits():
    given = np.array([0.0, -1.23456789012e-30, 9.87654321098e25, np.inf, np.nan])
    np.testing.assert_allclose(rounded(given), given, rtol=5e-9)
    assert rounded([1.23456789012])[0] == 1.23456789


def test_too_many_values_are_thinned_and_it_is_said():
    data = xr.Dataset({"a": (("x", "y"), np.arange(202.0).reshape(101, 2)), "x": np.arange(101)})
    kept, told = thinned(data, 120)
    assert dict(kept.sizes) == {"x": 26, "y": 2}
    assert list(kept.x.values[[0, -1]]) == [0, 100]
    assert "26 of 101 x" in told
    assert thinned(data, 303) == (data, "")


def test_values_without_a_dim_to_thin_are_left_out_by_name():
    data = xr.Dataset({f"v{i}": ("x", [1.0, 2.0]) for i in range(4)})
    kept, told = thinned(data, 5)
    assert len(kept.data_vars) == 2
    assert "without v0, v1" in told


def test_a_page_is_one_file_that_may_ask_for_nothing():
    text = html([("mine.nc", dataset())])
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', text)
    assert "@import" not in text
    assert len(text) < 200_000
    data = held(text)
    (variable,) = (s for s in data["results"][0]["sections"] if s["kind"] == "explore")
    assert variable["content"]["variables"]["loss"]["values"] == [1.0, None, np.inf, 4.0]


@pytest.mark.parametrize("where", ["verb", "law", "overrides", "warnings", "config", "law_source"])
def test_hostile_texts_are_texts(where):
    overrides = json.dumps([HOSTILE]) if where == "overrides" else HOSTILE
    data = dataset(HOSTILE, **{where: overrides}).assign_coords(run=[HOSTILE, "</script>"])
    text = html([(HOSTILE, data)])
    assert "<img" not in text
    assert text.count("</script>") == text.count("<script")


def test_nothing_on_a_page_is_parsed_as_html_or_code():
    said = "\n".join(path.read_text("utf-8") for path in JS.glob("*.js"))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|fetch\(|import\(", said
    )


def test_where_a_page_goes(tmp_path, command):
    for name in ("one", "two"):
        write_result(dataset(), tmp_path / f"{name}.nc")
    assert moesim.page(tmp_path / "one.nc") == tmp_path / "one.html"
    assert moesim.page(tmp_path / "one.nc", str(tmp_path / "two.nc")) == tmp_path / "page.html"
    code, out, _ = command("page", str(tmp_path / "one.nc"), "to=mine.html")
    assert (code, out) == (0, "wrote mine.html\n")
    assert held(Path("mine.html").read_text("utf-8"))["results"][0]["file"].endswith("one.nc")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "give a result"), (("none.nc",), "it takes a .nc file"), (("to=x.html",), "give a result")],
)
def test_what_has_no_page_is_refused_in_a_line(command, arguments, said):
    code, _, err = command("page", *arguments)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_datasets_need_a_place():
    with pytest.raises(InputError, match=r"to='page\.html'"):
        moesim.page(dataset())


@pytest.mark.parametrize("verb", ["flops", "sweep"])
def test_a_verb_writes_its_page(command, verb):
    code, out, err = command(verb, "page=true", "figures=false", *(["space.compute=1e20"] if verb == "sweep" else []))
    assert code == 0, err
    (page,) = Path("outputs").rglob("*.html")
    assert f"wrote {page}" in out
    assert held(page.read_text("utf-8"))["results"][0]["command"].startswith(f"moesim {verb} ")


def test_a_multirun_writes_the_page_of_what_it_collected(command):
    code, out, err = command("flops", "-m", "network=onenet,linearnet", "page=true", "figures=false")
    assert code == 0, err
    (page,) = Path("outputs").rglob("*.html")
    assert page.name == "collected.html"
    assert f"wrote {page}" in out


def test_a_family_tree_by_hand():
    """Expert 2 is born of 0 and bears 3; 1 is alone; 4 was never used."""
    parent, born = np.array([-1, -1, 0, 2, -1]), np.array([0.0, 0.0, 5.0, 9.0, 0.0])
    told = descent(parent, born, np.array([False, True, True, True, False]))
    assert told == [
        "expert 0, born at step 0, gone",
        "  expert 2, born at step 5",
        "    expert 3, born at step 9",
        "expert 1, born at step 0",
    ]


@pytest.mark.parametrize("view", ["balance", "sites", "flops", "fit", "plan", "lab"])
def test_a_view_has_nothing_to_say_of_what_is_not_its_own(view):
    """A question of the verb, a study, a comparison: they have other variables, and every page shows those anyway."""
    assert import_module(f"moesim.pages.{view}").view(dataset()) == []
