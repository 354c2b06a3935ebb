"""Python is the command line: names or objects, the same Dataset by both doors, short descriptions."""

import ast
import os
from importlib import import_module
from math import inf
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import moesim
from moesim.cli import main
from moesim.config import read
from moesim.errors import InputError
from moesim.laws.load import content_of, law_from, repetition_from
from moesim.models.network import Network
from moesim.models.transformer import Transformer
from moesim.output.provenance import as_yaml
from moesim.output.text import aligned, brief, count, full, number, shown

AXES = {"compute": [3e19, 1e20], "sparsity": [0.0, 0.9], "unique_tokens": [2e9, inf]}
LAW, REPETITION, ARCHITECTURE = "abnar2025", "muennighoff2023", "moe_transformer"


def parts():
    return moesim.load_law(LAW), moesim.load_repetition(REPETITION), moesim.load_architecture(ARCHITECTURE)


@pytest.mark.parametrize("function", [moesim.optimum, moesim.sweep])
def test_names_and_objects_give_the_same(function):
    law, repetition, architecture = parts()
    named = function(LAW, repetition=REPETITION, architecture=ARCHITECTURE, **AXES)
    for given in (
        function(law, repetition=repetition, architecture=architecture, **AXES),
        function(moesim.Model(law, repetition, architecture), **AXES),
        function(moesim.Model(LAW, REPETITION), architecture=ARCHITECTURE, **AXES),
    ):
        xr.testing.assert_identical(given, named)


def test_a_verb_and_python_give_the_identical_dataset(tmp_path):
    main(["sweep", f"hydra.run.dir={tmp_path}", "figures=false", "space.compute=1e20", "space.sparsity=[0,0.5]"])
    verb = moesim.open_result(tmp_path)
    axes = {"compute": 1e20, "sparsity": [0, 0.5], "unique_tokens": [2e9, inf]}
    mine = moesim.sweep(LAW, repetition=REPETITION, **axes)
    own = {"config", "overrides", "layout", "checksum", "warnings"}  # the last are told on the console too
    xr.testing.assert_identical(verb.drop_attrs(deep=False), mine.drop_attrs(deep=False))
    told = [{k: np.asarray(v).tolist() for k, v in d.attrs.items() if k not in own} for d in (verb, mine)]
    assert told[0] == told[1]


def test_a_dataset_says_where_it_is_from():
    found = moesim.optimum(LAW, repetition=REPETITION, **AXES).attrs
    expected = {"verb": "optimum", "moesim_version": moesim.__version__, "law": LAW, "repetition": REPETITION}
    assert {name: found[name] for name in expected} == expected
    assert (found["architecture"], found["excess"]) == ("proportional", "total")
    assert "2501.12370" in found["law_source"]
    assert "2305.16264" in found["repetition_source"]


def _plain(dataset, path):
    dataset.to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize("write", [moesim.save, _plain])
def test_a_python_sweep_is_repeated_from_its_file(tmp_path, capsys, write):
    path = tmp_path / "mine.nc"
    write(moesim.sweep(LAW, repetition=REPETITION, **AXES), path)
    main(["rerun", os.fspath(path)])
    assert "the same bit for bit" in capsys.readouterr().out


def test_a_config_spells_what_yaml_has():
    text = as_yaml({"a": np.float64(2), "b": (1, inf), "c": np.array([1.5, 2]), "d": np.zeros((2, 3)), "e": parts()[0]})
    assert text == "a: 2.0\nb:\n- 1\n- .inf\nc:\n- 1.5\n- 2.0\nd: array of 2 x 3 values\ne: Law abnar2025\n"


def test_contents_make_the_same_again():
    law, repetition, _ = parts()
    assert law_from(LAW, content_of(law)) == law
    assert repetition_from(REPETITION, content_of(repetition)) == repetition


def test_inputs_without_a_name_are_refused():
    with pytest.raises(InputError, match=r"1000000000.0 has no name; write law\(total_params=\.\.\., tokens"):
        parts()[0](1e9, 2e10, 0.9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: moesim.load_law(None), "law: a name or a path is wanted, not an object of type NoneType"),
        (lambda: moesim.load_law(parts()[0]), "not an object of type Law"),
        (lambda: moesim.load_repetition(3), "repetition: a name or a path is wanted"),
        (lambda: moesim.open_result(3), "open_result: a name or a path is wanted"),
        (lambda: moesim.load_fit(None), "not an object of type NoneType"),
        (lambda: moesim.Model(moesim.Model("abnar2025")), "law is of type Model; it takes a name or a moesim Law"),
        (lambda: moesim.optimum("abnar2025", compute=1e20, best="yes"), "best='yes'; it takes true or false"),
        (lambda: moesim.optimum("abnar2025", compute=1e20, a=[1, 2]), r"no such axis; .*given by load_law\(NAME, a="),
        (
            lambda: moesim.load_law("abnar2025")(total_params=[1e9, 2e9], tokens=[1e9, 2e9, 3e9], sparsity=0),
            r"the shapes total_params \(2,\), tokens \(3,\) do not broadcast",
        ),
        (
            lambda: moesim.load_law("hoffmann2022")(
                total_params=[1e9, 2e9], tokens=xr.DataArray([1e9, 2e9, 3e9], dims="run")
            ),
            r"the shapes total_params \(2,\), tokens \(3,\) do not broadcast",
        ),
        (
            lambda: moesim.load_law("hoffmann2022")(
                total_params=xr.DataArray([1e9, 2e9], dims="run"), tokens=xr.DataArray([1e9, 2e9, 3e9], dims="run")
            ),
            r"the shapes total_params \(2,\), tokens \(3,\) do not broadcast",
        ),
        (lambda: moesim.simulate(routing=3), "balance: routing=3; it takes a name"),
        (lambda: moesim.balance.eplb("abc", replicas=4), "loads='abc' is not a number"),
        (lambda: moesim.balance.eplb([1.0, -2], replicas=4), "loads=-2 is outside its domain"),
        (lambda: moesim.balance.eplb([1.0, 2], replicas=4).device_loads([1]), "loads of 1 experts; this is of 2"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def described():
    law, repetition, architecture = parts()
    yield from (law, repetition, architecture, moesim.Model(law, repetition, architecture))
    yield moesim.fit("hoffmann2022", "chinchilla", draws=20, starts=2, profiles=False)
    yield from (Network.load("onenet"), Transformer.from_spec("deepseek_v3", read("model", "deepseek_v3")))
    yield moesim.balance.eplb([[4.0, 3, 2, 1]], replicas=8, devices=4)


def test_descriptions_are_short_and_plain():
    for thing in described():
        text, page = repr(thing), thing._repr_html_()
        assert len(text) < 1500, text
        assert "0x" not in text
        assert page.startswith("<p>")
        assert len(page) < 6000


def test_a_description_escapes_what_it_shows():
    @shown
    class Odd:
        def _page(self):
            return ["<b>", {"a<b": "<i>"}, [["<u>", "&"]]]

    assert repr(Odd()) == "<b>\n  a<b = <i>\n  <u>  &"
    assert {"<b>", "<i>", "<u>"}.isdisjoint(Odd()._repr_html_().split(">")[0])
    assert "<b>" not in Odd()._repr_html_()
    assert "&lt;i&gt;" in Odd()._repr_html_()


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (count, 1.234e9, "1.23B"),
        (full, 1234567.0, "1,234,567"),
        (full, 1.5e13, "1.5000e+13"),
        (full, np.nan, "-"),
        (number, 0.34731, "0.34731"),
        (number, 1.2e-5, "1.2000e-05"),
        (number, 0.0, "0"),
        (brief, True, "True"),
        (brief, 7168, "7168"),
        (brief, [1.0, 2.0, 4.0], "2 (1 to 4, 3 values)"),
        (brief, "many words " * 20, "many words " * 8 + "many ..."),
    ],
)
def test_numbers_as_a_person_reads_them(form, value, text):
    assert form(value) == text


def test_columns_are_aligned():
    rows = [("a", "long", "said"), ("bb", "1", "yes"), ("c", "22", "no")]
    assert aligned(rows, 1) == " a   long  said\n bb     1  yes\n c     22  no"


def test_every_package_is_a_name(tmp_path):
    found = {path.parent.name for path in Path(moesim.__file__).parent.glob("*/__init__.py")}
    assert found <= set(dir(moesim))
    assert {moesim.planning.__name__, moesim.balance.__name__} == {"moesim.planning", "moesim.balance"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = moesim.nothing


@pytest.mark.parametrize("room", ["", ".sites", ".lab", ".models"])
def test_type_checkers_see_what_is_imported_late(room):
    module = import_module(f"moesim{room}")
    stub = ast.parse(Path(module.__file__ or "").with_suffix(".pyi").read_text())
    told = {
        alias.asname: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module != "moesim"
        for alias in node.names
    }
    assert set(told) == set(module._PUBLIC)
    for name, (where, real) in told.items():
        assert getattr(import_module(where), real) is getattr(module, name)


@pytest.mark.parametrize(("error", "tokens"), [(InputError, [1e9, 2e9]), (ValueError, 1e9)])
def test_what_a_law_says_itself_is_not_taken_for_shapes(error, tokens):
    def refuses(**_):
        raise error("this law has its own reason")

    with pytest.raises(error, match="its own reason"):
        moesim.load_law("hoffmann2022")._evaluate(refuses, {"total_params": 1e9, "tokens": tokens})
