"""Tables of runs and settings: what is accepted, and what bad input says."""

import ast
import gzip
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fitting_tools import fit, synthetic
from omegaconf import OmegaConf

import moesim
from moesim import config
from moesim.config import conf_dir
from moesim.errors import InputError
from moesim.fitting.runs import RunsWarning, load_runs
from moesim.fitting.task import Task
from moesim.forms import Coefficient, Form
from moesim.laws.law import FORMS, law

TABLE = {"total_params": [1e8, 1e9, 1e10, 2e10], "tokens": [1e10, 2e10, 3e10, 4e10], "loss": [3.0, 2.5, 2.2, 2.1]}


@pytest.mark.parametrize(
    ("name", "rows"), [("chinchilla", 240), ("datablations", 182), ("clark2022", 58), ("gadre2024", 35)]
)
def test_shipped_runs(name, rows):
    """Every shipped table loads without a warning and says where it is from."""
    runs = load_runs(name)
    assert runs.sizes == {"run": rows}
    assert runs.loss.attrs["units"] == "nat/token"
    assert runs.attrs["source"]
    assert runs.attrs["licence"]


def test_units_of_columns():
    table = {**TABLE, "total_params": [100, 1000, 10000, 20000]}
    runs = load_runs(table, {"total_params": {"column": "total_params", "unit": "million"}})
    assert runs.total_params.values.tolist() == TABLE["total_params"]


def test_csv_dataset_and_frame_are_alike(tmp_path):
    import pandas

    frame = pandas.DataFrame(TABLE)
    frame.to_csv(tmp_path / "runs.csv", index=False)
    frame.to_xarray().to_netcdf(tmp_path / "runs.nc")
    for source in (frame, frame.to_xarray(), tmp_path / "runs.csv", tmp_path / "runs.nc", TABLE):
        runs = load_runs(source)
        assert all(runs[name].values.tolist() == values for name, values in TABLE.items())


def test_yaml_beside_its_table(tmp_path):
    (tmp_path / "mine.csv").write_text("N,D,L\n1,10,3.0\n2,20,2.5\n")
    (tmp_path / "mine.yaml").write_text(
        "file: mine.csv\ncolumns: {total_params: {column: N, unit: billion}, tokens: {column: D, unit: 1e9}, loss: L}\n"
    )
    runs = load_runs(tmp_path / "mine.yaml")
    assert runs.total_params.values.tolist() == [1e9, 2e9]
    assert runs.attrs["runs"] == "mine"


def test_where():
    table = {**TABLE, "kind": ["a", "b", "b", "c"]}
    rows = {
        "b": [2, 3],
        ("a", "c"): [1, 4],
    }
    for wanted, kept in rows.items():
        value = list(wanted) if isinstance(wanted, tuple) else wanted
        assert load_runs(table, where={"kind": value})["row"].values.tolist() == kept
    assert load_runs(table, where={"loss": {"min": 2.2, "max": 2.5}})["row"].values.tolist() == [2, 3]
    assert load_runs(table, where={"kind": {"not": ["b", "c"]}})["row"].values.tolist() == [1]
    assert load_runs(table, where={"kind": None}).sizes["run"] == 4


def test_derived_columns_and_best_of_sweep():
    table = {**TABLE, "active_params": TABLE["total_params"], "sweep": [1, 1, 2, 2]}
    runs = load_runs(table, derive=["compute_from_tokens"], best_of=["sweep"])
    assert runs["compute"].values == pytest.approx(6 * runs.active_params.values * runs.tokens.values)
    assert runs["row"].values.tolist() == [2, 4]


# table or name, keywords, what the message must hold
BAD_TABLES = [
    ({**TABLE, "loss": [3.0, -2.5, 0.0, 2.1]}, {}, ["loss is -2.5 in rows 2-3", "above 0"]),
    ({**TABLE, "loss": [3.0, np.nan, 2.2, 2.1]}, {}, ["loss is nan in row 2"]),
    ({**TABLE, "tokens": ["1e10", "many", "3e10", "?"]}, {}, ["tokens", "not a number in rows 2, 4", "'many'"]),
    ({**TABLE, "tokens": [1e10, np.inf, 3e10, 4e10]}, {}, ["tokens is inf in row 2"]),
    ({"total_params": [1e8], "tokens": [1e9]}, {}, ["no column for loss"]),
    ({**TABLE, "loss": [1.0]}, {}, ["lengths [1, 4]"]),
    (3, {}, ["int is no table"]),
    (np.ones((3, 2)), {}, ["ndarray is no table"]),
    ({}, {}, ["no rows"]),
    ("no_such_runs", {}, ["no_such_runs", "chinchilla"]),
    ("no_such.csv", {}, ["no_such.csv", "chinchilla_epoch245.csv"]),
    ("chinchilla", {"columns": {"tokens": "toks"}}, ["'toks'", "tokens", "D_tokens"]),
    ("chinchilla", {"columns": {"toks": "D_tokens"}}, ["'toks'", "total_params"]),
    ("chinchilla", {"where": {"router": 1}}, ["'router'", "in_epoch_fit"]),
    ("chinchilla", {"where": {"in_epoch_fit": 7}}, ["no row is left"]),
    ("chinchilla", {"where": {"loss": {"above": 1}}}, ["'above'", "min, max, not"]),
    ("chinchilla", {"columns": {"tokens": {"column": "D_tokens", "unit": "dozen"}}}, ["'dozen'", "million"]),
    ("chinchilla", {"derive": ["magic"]}, ["'magic'", "tokens_from_compute"]),
    ("chinchilla", {"derive": ["epochs_from_unique_tokens"]}, ["needs unique_tokens"]),
    ("chinchilla", {"group": "seed"}, ["group", "'seed'"]),
    ("chinchilla", {"weight": "in_epoch_fit", "where": {"in_epoch_fit": None}}, ["weight", "above 0"]),
    ("chinchilla", {"best_of": ["sweep"]}, ["'sweep'"]),
]


@pytest.mark.parametrize(("source", "settings", "words"), BAD_TABLES)
def test_bad_tables(source, settings, words):
    with pytest.raises(InputError) as error:
        load_runs(source, **settings)
    for word in words:
        assert word in str(error.value)


PLAIN = "total_params,tokens,loss,note\n1e8,1e10,3.5,a\n2e8,2e10,2.5,b\n"
SEMICOLONS = PLAIN.replace(",", ";")
COMMAS = SEMICOLONS.replace("3.5", "3,5").replace("2.5", "2,5")

OBJECTS = [
    {"total_params": 1e8, "tokens": 1e10, "loss": 3.5, "note": "a", "epochs": None},
    {"total_params": 2e8, "tokens": 2e10, "loss": 2.5, "note": "b", "seed": 1},
]

# Files that are read, all to the same two runs: name, content.
READ = {
    "plain.csv": PLAIN.encode(),
    "bom.csv": PLAIN.encode("utf-8-sig"),
    "utf16.csv": PLAIN.encode("utf-16"),
    "utf16_big.csv": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "accents.csv": PLAIN.replace("b\n", "café\u2028\n").encode(),
    "windows.csv": PLAIN.replace("\n", "\r\n").encode(),
    "semicolons.csv": SEMICOLONS.encode(),
    "decimal_commas.csv": COMMAS.encode(),
    "exponents.csv": COMMAS.replace("1e8", "1,0e8").encode(),
    "tabs.tsv": COMMAS.replace(";", "\t").encode(),
    "tabs.txt": PLAIN.replace(",", "\t").encode(),
    "quoted.csv": PLAIN.replace("note", '"a note, long; or not"').encode(),
    "blank_rows.csv": PLAIN.replace("\n", "\n,,,\n\n").encode(),
    "blank_columns.csv": PLAIN.replace("\n", ",,\n").encode(),
    "index.csv": PLAIN.replace("\n2e8", "\n1,2e8").replace("\n1e8", "\n0,1e8").replace("total", ",total").encode(),
    "zipped.csv.gz": gzip.compress(PLAIN.encode()),
    "lines.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in OBJECTS),
    "list.json": json.dumps(OBJECTS).encode(),
}


@pytest.mark.parametrize("name", READ)
def test_files_that_are_read(name, tmp_path):
    (tmp_path / name).write_bytes(READ[name])
    runs = load_runs(tmp_path / name)
    found = [runs[variable].values.tolist() for variable in ("total_params", "tokens", "loss")]
    assert found == [[1e8, 2e8], [1e10, 2e10], [3.5, 2.5]]
    assert "epochs" not in runs  # blank in one row
    assert ("column 1" in runs) == (name == "index.csv")  # a column without a name is called by its place


# Files that are refused: name, content, what the message must hold besides the name.
REFUSED = {
    "latin1.csv": (PLAIN.replace("b\n", "café\n").encode("latin-1"), "not UTF-8 (byte 0xe9 in line 3)"),
    "half.csv": (b"\xff\xfe" + PLAIN.encode("utf-16-le")[:-1], "not UTF-16"),
    "no_mark.csv": (PLAIN.encode("utf-16-le"), "neither UTF-8 nor UTF-16"),
    "empty.csv": (b"", "is empty"),
    "blank.csv": (b" \n\n", "is empty"),
    "header.csv": (b"loss,tokens\n", "no rows under loss, tokens"),
    "separators.csv": (b",,,\n,,,\n", "cannot be cut"),
    "open_quote.csv": (PLAIN.replace("a\n", '"a\n').encode(), "quotation mark"),
    "ragged.csv": (b"loss,tokens\n1,2\n3\n", "row 2 has 1 cells, the header 2 (separated by comma)"),
    "ragged_semicolons.csv": (b"loss;tokens\n1;2\n3\n", "row 2 has 1 cells, the header 2 (separated by semicolon)"),
    "either.csv": (b"loss;a,b\n1;2,5\n2;3,5\n", "comma and semicolon both cut its rows evenly"),
    "twice.csv": (b"loss,tokens, loss\n1,2,3\n", "the column 'loss' stands twice"),
    "thousands.csv": (COMMAS.replace("1e8", "1.000").encode(), "loss (column 'loss') is not a number"),
    "us_thousands.csv": (b'loss,tokens\n"2,500",1e10\n"3,500",2e10\n', "loss (column 'loss') is not a number"),
    "runs.parquet": (b"PAR1\x15\x04", "Parquet"),
    "runs.jsonl": (b'{"loss": 1}\n{"loss": 2\n', "is JSON, but not an object for each run on its line"),
    "runs.json": (b"[[1]]", "is JSON, but not a list of objects"),
    "runs.xlsx": (b"PK\x03\x04\x14\x00", "is a spreadsheet"),
    "renamed.csv": (b"\x89HDF\r\n\x1a\n", "is netCDF or HDF5; name it .nc"),
    "damaged.csv.gz": (gzip.compress(PLAIN.encode())[:-9], "a damaged gzip file"),
    "no_gzip.gz": (b"\x1f\x8b\x08junk", "a damaged gzip file"),
    "empty.nc": (b"", "not a readable netCDF file"),
    "damaged.nc": (b"\x89HDF\r\n\x1a\n" + bytes(200), "not a readable netCDF file"),
    "noise.csv": (bytes(range(256)), "not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(name, tmp_path):
    content, words = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_runs(tmp_path / name)
    assert words in str(error.value)
    assert str(error.value).startswith((f"runs {name}: ", f"runs {name.removesuffix('.csv')}: "))


def test_parquet_is_read_where_an_engine_is(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas

    pandas.DataFrame(OBJECTS).to_parquet(tmp_path / "runs.parquet")
    assert load_runs(tmp_path / "runs.parquet").loss.values.tolist() == [3.5, 2.5]


def test_a_grid_is_taken_cell_by_cell():
    """loss(total_params, tokens), 5 x 6: 30 runs, none paired along the diagonal; as Dataset and as DataArray."""
    law = moesim.load_law("besiroglu2024")
    sizes, tokens = np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e11, 6)
    loss = xr.DataArray(law(total_params=sizes[:, None], tokens=tokens), dims=("total_params", "tokens"))
    grid = loss.assign_coords(total_params=sizes, tokens=tokens)
    for given in (grid, grid.to_dataset(name="loss"), grid.T):
        runs = load_runs(given)
        assert runs.sizes == {"run": 30}
        expected = law(total_params=runs.total_params.values, tokens=runs.tokens.values)
        assert runs.loss.values == pytest.approx(expected, rel=1e-14)


def test_what_fit_takes_for_runs():
    """A frame with columns of its own, arrays by name: the same fit."""
    law = moesim.load_law("besiroglu2024")
    sizes, tokens = (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e11, 6)))
    loss = law(total_params=sizes, tokens=tokens)
    columns = {"total_params": {"column": "n", "unit": "million"}, "tokens": "d", "loss": "l"}
    one = fit("hoffmann2022", {"n": sizes / 1e6, "d": tokens, "l": loss}, columns=columns, starts=4)
    two = fit("hoffmann2022", total_params=sizes, tokens=tokens, loss=loss, starts=4)
    assert one.estimate == pytest.approx(two.estimate)
    assert two.estimate["alpha"] == pytest.approx(law.coefficients["alpha"], rel=1e-6)
    ahead = two.predict(total_params=sizes[:3], tokens=1e12).loss.values
    assert ahead == pytest.approx(two.law(total_params=sizes[:3], tokens=1e12))
    for given, words in (
        ({"draw": 3, "runs": TABLE}, "unknown argument 'draw'; .* did you mean draws"),
        ({}, "no runs"),
    ):
        with pytest.raises(InputError, match=words):
            moesim.fit("hoffmann2022", **given)
    with pytest.raises(InputError, match="unknown argument 'tokenz'"):
        moesim.fit("hoffmann2022", total_params=sizes, tokenz=tokens, loss=loss)


def test_blanks_in_columns_nobody_asked_for():
    """They do not matter until a law, or the user, asks for the column; the message names the rows."""
    table = {**TABLE, "epochs": ["1", "", "2", " "], "unique_tokens": [1e10, np.nan, 1e10, 1e10]}
    runs = load_runs(table)
    assert {"epochs", "unique_tokens"}.isdisjoint(runs)
    with pytest.raises(InputError, match=r"unique_tokens is blank \(.*unique_tokens in row 2\).*where="):
        fit("muennighoff2023", runs, repetition="muennighoff2023", hold="law")
    with pytest.raises(InputError, match=r"unique_tokens is nan in row 2; .*where=\{unique_tokens: \{min: 0\}\}"):
        load_runs(table, {"unique_tokens": "unique_tokens"})
    kept = load_runs(table, {"unique_tokens": "unique_tokens"}, where={"unique_tokens": {"min": 0}})
    assert kept["row"].values.tolist() == [1, 3, 4]


@pytest.mark.parametrize("name", ["N", "total_params"])
def test_a_column_has_its_names_before_and_after_mapping(name):
    table = {"N": [1e8, 1e8, 2e8, 2e8], "tokens": TABLE["tokens"], "loss": [3.0, 2.9, 2.5, 2.4]}
    columns = {"total_params": "N"}
    assert load_runs(table, columns, best_of=[name])["row"].values.tolist() == [2, 4]
    assert load_runs(table, columns, group=name).group.values.tolist() == table["N"]
    assert load_runs(table, columns, weight=name).weight.values.tolist() == table["N"]
    assert load_runs(table, columns, where={name: 1e8}).sizes["run"] == 2


def test_every_part_of_a_table_is_refused_or_read(tmp_path):
    """Files cut off anywhere: an InputError that names the file, or the rows that are whole."""
    import xarray as xr

    xr.Dataset({name: ("run", values) for name, values in TABLE.items()}).to_netcdf(tmp_path / "runs.nc")
    whole = {"runs.nc": (tmp_path / "runs.nc").read_bytes(), "zip.csv.gz": READ["zipped.csv.gz"]}
    for name, content in whole.items():
        for length in range(0, len(content) - 1, max(1, len(content) // 40)):
            (tmp_path / name).write_bytes(content[:length])
            with pytest.raises(InputError, match=name):
                load_runs(tmp_path / name)


def test_names_that_netcdf_does_not_take(tmp_path):
    """Columns as experiment trackers name them: found by their names, and the result can be written."""
    runs = load_runs(
        {"params (B)": [0.1, 0.2], "eval/loss": [3.5, 2.5], "run": ["x", "y"], "tokens": [1e10, 2e10]},
        {"loss": "eval/loss", "total_params": {"column": "params (B)", "unit": "billion"}},
        group="run",
        where={"eval/loss": {"max": 3.6}},
    )
    assert runs.group.values.tolist() == ["x", "y"]
    assert runs.total_params.values.tolist() == [1e8, 2e8]
    runs.drop_vars(["run_column", "group"]).to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total_params": [0.1, 1, 10, 20]}, "total_params is 0.1 to 20; if that is in billions, say so"),
        ({"tokens": [2, 4, 6, 8e5]}, "tokens is 2 to 800000"),
        ({"active_params": [1, 2, 3, 99999]}, "active_params is 1 to 99999"),
    ],
)
def test_billions_taken_for_units_warn(change, words):
    with pytest.warns(RunsWarning, match=re.escape(words)):
        load_runs({**TABLE, **change})
    load_runs({**TABLE, **{name: [*values[:3], 1e9] for name, values in change.items()}})  # one large run is enough


def test_more_unique_tokens_than_tokens_warn():
    whole = {**TABLE, "unique_tokens": TABLE["tokens"]}
    load_runs(whole)  # one epoch
    with pytest.warns(RunsWarning, match="more unique tokens than tokens in row 2"):
        load_runs({**whole, "unique_tokens": [1e10, 3e10, 3e10, 4e10]})


def test_a_missing_variable_lists_the_columns():
    with pytest.raises(InputError, match=r"no total_params, which .* takes; .*there are n, tokens, loss"):
        fit("hoffmann2022", load_runs({"n": [1, 2], "tokens": [1e10, 2e10], "loss": [3, 2]}))


def test_duplicates_warn_with_their_rows():
    table = {name: [*values, values[1], values[1]] for name, values in TABLE.items()}
    with pytest.warns(RunsWarning, match="rows 2, 5-6"):
        load_runs(table)


def test_mixed_tokenizers_warn_with_their_rows():
    table = {**TABLE, "tokenizer": ["x", "x", "y", "x"]}
    with pytest.warns(RunsWarning, match=r"x \(rows 1-2, 4\); y \(row 3\)"):
        load_runs(table, dataset="tokenizer")
    with pytest.warns(RunsWarning, match="3 data sets"):
        load_runs("gadre2024", where={"train_dataset": None})


# settings of fit, what the message must hold
BAD_SETTINGS = [
    ({"law": "hofmann"}, ["hofmann", "hoffmann2022"]),
    ({"repetition": "muennighoff2023"}, ["no unique_tokens", "columns"]),
    ({"law": "abnar2025"}, ["no sparsity"]),
    ({"objective": "cauchy"}, ["'cauchy'", "huber_log"]),
    ({"delta": 0.0}, ["delta", "above 0"]),
    ({"fixed": {"gamma": 1}}, ["'gamma'", "E, A, alpha, B, beta"]),
    ({"fixed": {"alpha": -1.0}}, ["alpha=-1", "above 0"]),
    ({"tied": {"beta": "betta"}}, ["beta='betta'", "alpha"]),
    ({"tied": {"beta": "alpha"}, "fixed": {"beta": 1.0}}, ["beta is fixed too"]),
    ({"bounds": {"beta": [2, 1]}}, ["beta", "[2, 1]"]),
    ({"bounds": {"beta": 3}}, ["[lowest, highest]"]),
    ({"bounds": {"beta": [0, 1]}, "tied": {"beta": "alpha"}}, ["beta is fixed or tied"]),
    ({"prior": {"alpha": 0.3}}, ["mean", "sd"]),
    ({"prior": {"alpha": {"mean": 0.3, "sd": -1}}}, ["sd of alpha", "above 0"]),
    ({"hold": "all"}, ["'all'", "law, repetition"]),
    ({"starts": -1}, ["starts=-1"]),
    ({"starts": 2.5}, ["starts=2.5"]),
    ({"level": 95}, ["level=95", "0.95"]),
    ({"draws": 10, "resample": "jackknife"}, ["'jackknife'", "pairs, residual"]),
    ({"holdout": {"largest": 0.2}}, ["largest_compute, fraction, column"]),
    ({"holdout": {"largest_compute": 20}}, ["20", "below 1"]),
    ({"holdout": {"column": "split", "value": 1}}, ["'split'"]),
    ({"holdout": {"column": "loss", "value": {"min": 0}}}, ["holds out 240 of 240"]),
    ({"start": {"E": 1.7}, "starts": 0}, ["no value for 'A'"]),
]


@pytest.mark.parametrize(("settings", "words"), BAD_SETTINGS)
def test_bad_settings(settings, words):
    with pytest.raises(InputError) as error:
        fit(settings.pop("law", "hoffmann2022"), load_runs("chinchilla"), **settings)
    for word in words:
        assert word in str(error.value)


def test_fewer_runs_than_coefficients():
    with pytest.raises(InputError, match=r"4 runs for 5 free coefficients \(E, A, alpha, B, beta\)"):
        fit("hoffmann2022", load_runs(TABLE))
    assert fit("hoffmann2022", load_runs(TABLE), tied={"beta": "alpha"}).status == "converged"


def test_constant_column_is_flagged():
    """With one number of tokens E, B and beta are one constant: each is flagged, A and alpha are not."""
    runs = synthetic("besiroglu2024", n=80, noise=0.003)
    runs = runs.assign(tokens=runs.tokens * 0 + 1e10)
    target = fit("hoffmann2022", runs, starts=1).task.target
    known = {**target.known, "E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2000.0, "beta": 0.36}
    loss = target.at({n: runs[n].values for n in target.inputs})(known)
    found = fit("hoffmann2022", runs.assign(loss=("run", loss * runs.loss.values / runs.loss.values)), draws=50)
    verdict = dict(zip(found.identification.names, found.identification.verdict, strict=True))
    assert {verdict[c] for c in ("E", "B", "beta")} == {"not identified"}
    assert any("beta is not identified" in line for line in found.warnings)


def test_outlier_of_ten_nats():
    """Huber's objective hardly moves, and the row is named."""
    runs = load_runs("chinchilla")
    spoiled = runs.copy(deep=True)
    spoiled["loss"][100] += 10.0
    clean, found = fit("hoffmann2022", runs), fit("hoffmann2022", spoiled)
    assert found.estimate["alpha"] == pytest.approx(clean.estimate["alpha"], rel=0.02)
    assert any("far off" in line and str(int(runs["row"][100])) in line for line in found.warnings)


def test_coefficient_without_effect():
    """R_N when no parameters count as excess: named, and nothing is said of its value."""
    from dataclasses import replace

    from moesim.laws import load_repetition

    runs = load_runs("datablations")
    wrapped = replace(load_repetition("muennighoff2023"), excess="none")
    found = fit("muennighoff2023", runs, repetition=wrapped, hold="law")
    assert found.verdict["R_N"] == "not identified"
    assert any("R_N has no effect" in line for line in found.warnings)
    low, high = found.interval(method="normal")["R_N"]
    assert low < 1e-6
    assert high > 1e9


def test_user_function_with_a_ufunc_of_its_own():
    """A formula whose derivative is not known says so, with what to do."""

    def odd(tokens, *, E):
        return tokens**-0.1 * np.arcsinh(E)

    form = Form.of(odd, "test", {"E": Coefficient(typical=(1.0, 2.0))})
    with pytest.raises(InputError, match="arcsinh"):
        fit(form, load_runs("chinchilla"))


@pytest.fixture
def own_law():
    """A law registered with @law, gone again after the test."""

    @law("test", E=Coefficient(typical=(1.0, 2.0)), A=Coefficient(typical=(10.0, 1e3)))
    def own(total_params, tokens, *, E, A):
        return E + A * (total_params * tokens) ** -0.15

    yield own
    del FORMS["own"]


def test_a_registered_function_is_a_law(own_law):
    """A user's own function, declared with @law, is fitted as it stands."""
    found = fit(own_law, load_runs("chinchilla"))
    assert found.status == "converged"
    assert found.law.form.function is own_law


def test_prior_bounds_ties_and_holds():
    runs = load_runs("chinchilla")
    free = fit("hoffmann2022", runs)
    narrow = fit("hoffmann2022", runs, prior={"alpha": {"mean": 0.30, "sd": 1e-4}})
    assert narrow.estimate["alpha"] == pytest.approx(0.30, abs=1e-3)
    wide = fit("hoffmann2022", runs, prior={"alpha": {"mean": 0.30, "sd": 10.0}})
    assert wide.estimate["alpha"] == pytest.approx(free.estimate["alpha"], abs=1e-4)
    bounded = fit("hoffmann2022", runs, bounds={"alpha": [None, 0.3]})
    assert bounded.estimate["alpha"] == pytest.approx(0.3, rel=1e-12)
    assert bounded.status == "at bound"
    assert any("at bound: alpha" in line for line in bounded.warnings)
    tied = fit("hoffmann2022", runs, tied={"beta": "alpha"})
    assert tied.estimate["alpha"] == tied.estimate["beta"]
    assert tied.objective > free.objective
    fixed = fit("hoffmann2022", runs, fixed={"E": 1.69})
    assert fixed.estimate["E"] == 1.69


def test_task_keeps_runs_apart_from_the_hold_out():
    runs = load_runs("chinchilla")
    found = fit("hoffmann2022", runs, holdout={"fraction": 0.25}, seed=3)
    assert isinstance(found.task, Task)
    assert len(found.task.loss) == 180
    assert found.outside.sum() == 60


def test_no_warning_from_numbers():
    """A fit far outside the typical ranges stays silent about its own overflows."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit("hoffmann2022", synthetic("sardana2024", n=50, noise=0.3), starts=8, draws=20, profiles=True)


def test_messages_name_keys_that_exist():
    """Whatever a message of the wing calls fit.KEY or runs.KEY is a key of the configuration."""
    keys = {"fit": OmegaConf.load(conf_dir() / "fit.yaml").fit, "runs": config.read("runs", "table")}
    named = set()
    for path in (Path(moesim.__file__).parent / "fitting").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if not text.endswith(".") and "\n" not in text and "moesim." not in text:  # no docstrings
                named |= set(re.findall(r"\b(fit|runs)\.([a-z_]+)", text))
    named -= {("fit", "nc")}
    assert len(named) > 10
    assert [f"{wing}.{key}" for wing, key in named if key not in keys[wing]] == []
