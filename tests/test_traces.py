"""Recorded loads as people have them: every format against the same counts, and what is refused."""

import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest

import moesim
from moesim.balance import dumps
from moesim.errors import InputError

# Two windows of two layers: the second has three experts, the first two; layer 1 is idle in window 1.
LOADS = np.array([[[5.0, 3.0, np.nan], [1.0, 2.0, 3.0]], [[1.0, 7.0, np.nan], [0.0, 0.0, 0.0]]])


def long(rank=None, scale=1.0):
    rows = [
        (w, y, e, LOADS[w, y, e] * scale) for w in range(2) for y in range(2) for e in range(3) if LOADS[w, y, e] >= 0
    ]
    return [(*row, rank) if rank is not None else row for row in rows]


def lines(head, rows, sep=","):
    return "\n".join([sep.join(head), *(sep.join(map(str, row)) for row in rows)]) + "\n"


def nested():
    return [[[v for v in layer if v >= 0] for layer in window] for window in LOADS.tolist()]


def saved(tmp_path, kind):
    """A file of these loads, and whether it knows that layers differ."""
    file = tmp_path / f"loads.{kind.partition(' ')[0]}"
    if kind == "csv":
        file.write_text(lines(["window", "layer", "expert", "count"], long()))
    elif kind == "csv of others":
        file.write_text(lines(["step", "layer_id", "expert_id", "tokens"], long(), ";"))
    elif kind == "csv of ranks":
        rows = long(0, 0.25) + long(1, 0.75)
        file.write_text(lines(["window", "layer", "expert", "count", "rank"], rows))
    elif kind == "json":
        file.write_text(json.dumps({"logical_count": nested()}))
    elif kind == "json of a history":
        file.write_text(json.dumps({"load_history": [{"logical_expert_load": window} for window in nested()]}))
    elif kind == "npy":
        np.save(file, LOADS)
    return file


@pytest.mark.parametrize("kind", ["csv", "csv of others", "csv of ranks", "json", "json of a history", "npy"])
def test_every_format_holds_the_same_counts(tmp_path, kind):
    dump = dumps.read_dump(str(saved(tmp_path, kind)))
    np.testing.assert_allclose(dump.loads, LOADS)
    assert (dump.windows, dump.layers) == (("0", "1"), ("0", "1"))
    # a quarter and three quarters of the tokens start on the two ranks: 1.5 x the mean
    np.testing.assert_allclose(dump.source if dump.source is not None else 1.5, 1.5)


def test_ranks_of_a_folder_add_up(tmp_path):
    for window in range(2):
        for rank, part in enumerate((0.25, 0.75)):
            np.save(tmp_path / f"rank{rank}_step{10 * window + 2}.npy", LOADS[window] * part)
    dump = dumps.read_dump(str(tmp_path))
    np.testing.assert_allclose(dump.loads, LOADS)
    assert dump.windows == ("step2", "step12")
    np.testing.assert_allclose(dump.source, 1.5)
    np.save(tmp_path / "rank0_step30.npy", np.ones((2, 2)))
    with pytest.raises(InputError, match=r"have shapes \[\(1, 2, 2\), \(1, 2, 3\)\]; they must be alike"):
        dumps.read_dump(str(tmp_path))


def test_ranks_that_are_homes_say_nothing_of_the_source(tmp_path):
    for rank in range(2):
        own = np.zeros((1, 4))
        own[0, 2 * rank : 2 * rank + 2] = 9.0 if rank else 1.0
        np.save(tmp_path / f"rank{rank}.npy", own)
    dump = dumps.read_dump(str(tmp_path))
    np.testing.assert_array_equal(dump.loads, [[[1, 1, 9, 9]]])
    np.testing.assert_array_equal(dump.source, [1.0])


def test_tables_of_ranks_add_up(tmp_path):
    # SGLang's recorder: a table for each rank, experts without a token left out, stamps of their own
    for rank, rows in enumerate(([(3, 0, 2), (3, 1, 1)], [(3, 1, 6), (3, 2, 3)])):
        file = tmp_path / f"expert_distribution_rank{rank}_timestamp174434775{rank}.372.csv"
        file.write_text(lines(["layer_id", "expert_id", "count"], rows))
    dump = dumps.read_dump(str(tmp_path))
    np.testing.assert_array_equal(dump.loads, [[[2, 7, 3]]])
    assert (dump.windows, dump.layers) == (("expert_distribution",), ("3",))
    np.testing.assert_allclose(dump.source, 9 / 6)
    (tmp_path / "latin.csv").write_bytes("layer,expert,count\n0,caf\xe9,1\n".encode("latin1"))
    with pytest.raises(InputError, match=r"latin\.csv: no UTF-8 text"):
        dumps.read_dump(str(tmp_path / "latin.csv"))


def test_a_single_window_is_told(tmp_path):
    from moesim.balance import figures, tables

    file = tmp_path / "one.npy"
    np.save(file, np.arange(1.0, 9.0).reshape(2, 4))
    data = replayed(file, placement="scheduled", active_experts=2)
    # even loads give no spare slot: experts 0, 1 | 2, 3 of both layers, as packed
    assert np.isfinite(data.max_over_mean.values).all()
    assert f"{float(data.max_over_mean[0, 0]):.4g}" in tables.trace_table(data)
    assert list(figures.draw(data)) == ["trace"]


def test_tokens_are_counted(tmp_path):
    # four tokens of two sequences, two experts each
    rows = [("a", 0, 1), ("a", 0, 2), ("b", 3, 1), ("b", 1, 0)]
    file = tmp_path / "routing.csv"
    file.write_text(lines(["seq", "e1", "e2"], rows))
    dump = dumps.read_dump(str(file))
    np.testing.assert_array_equal(dump.loads, [[[2, 1, 1, 0]], [[1, 2, 0, 1]]])
    assert (dump.windows, dump.active) == (("a", "b"), 2)
    three = dumps.read_dump(str(file), 3)
    np.testing.assert_array_equal(three.loads, [[[2, 2, 1, 1]], [[1, 1, 0, 0]]])
    # a row for each layer of a token
    file.write_text(lines(["seq", "layer", "e1", "e2"], [(*row[:1], y, *row[1:]) for row in rows for y in (3, 7)]))
    both = dumps.read_dump(str(file), 3)
    np.testing.assert_array_equal(both.loads, np.repeat(three.loads, 2, axis=1))
    assert both.layers == ("3", "7")
    for bad, said in (
        (("b", 1, 1), "row 1 names an expert twice"),
        (("b", 1, -1), "expert -1; it takes"),
        (("b", 1, "x"), "no whole number in e1, e2"),
    ):
        file.write_text(lines(["seq", "e1", "e2"], [bad]))
        with pytest.raises(InputError, match=said):
            dumps.read_dump(str(file))


def of_the_lab(path, trajectories=2):
    """The loads.nc of `moesim lab`: two windows of two layers, two domains; the second model has an expert less."""
    import xarray as xr

    from moesim.output.store import save

    loads = np.arange(trajectories * 24.0).reshape(trajectories, 2, 2, 2, 3)
    loads[1:, ..., 2] = np.nan
    along = {"arm": ["moe 3", "moe 2"], "seed": [0, 7], "active_experts": [1, 2]}
    data = xr.Dataset(
        {
            "loads": (("trajectory", "window", "layer", "domain", "expert"), loads),
            **{name: ("trajectory", values[:trajectories]) for name, values in along.items()},
        },
        {"trajectory": ["one", "two"][:trajectories], "window_step": ("window", [4, 9])},
    )
    save(data.assign_attrs(verb="lab"), path / "loads.nc")
    return path / "loads.nc"


def test_loads_of_the_lab(tmp_path):
    file = of_the_lab(tmp_path)
    # first window, first layer: domains (0, 1, 2) and (3, 4, 5); 24 more of each in the second trajectory
    for where, which in ((file, 0), (tmp_path, "0"), (file, "one")):
        dump = dumps.read_dump(str(where), trajectory=which)
        np.testing.assert_array_equal(dump.loads[0], [[3, 5, 7], [15, 17, 19]])
    assert (dump.windows, dump.layers, dump.active) == (("4", "9"), ("0", "1"), 1)
    two = dumps.read_dump(str(file), trajectory="two")
    np.testing.assert_array_equal(two.loads[0], [[51, 53], [63, 65]])
    assert two.active == 2
    for which, said in (
        (None, "2 trajectories; give world.*NUMBER or NAME of 0 one .moe 3, seed 0., 1 two"),
        (2, "no"),
    ):
        with pytest.raises(InputError, match=f"loads.nc: {said}"):
            dumps.read_dump(str(file), trajectory=which)


def test_a_single_trajectory_needs_no_name(tmp_path):
    data = replayed(of_the_lab(tmp_path, 1))
    assert data.window.values.tolist() == ["4", "9"]
    assert data.sizes["expert"] == 3
    import xarray as xr

    from moesim.output.store import save

    save(xr.Dataset({"loss": ("run", [1.0])}, attrs={"verb": "lab"}), tmp_path / "runs.nc")
    with pytest.raises(InputError, match=r"runs\.nc: no loads with dims domain, expert"):
        dumps.read_dump(str(tmp_path / "runs.nc"))


def test_keys_of_other_files_are_refused(tmp_path):
    file = saved(tmp_path, "csv")
    for keys, said in (
        ({"trajectory": 0}, "trajectory=0 is of a loads.nc"),
        ({"tokens_per_window": 8}, "tokens_per_window=8 is of tables of tokens"),
    ):
        with pytest.raises(InputError, match=said):
            dumps.read_dump(str(file), **keys)


def test_parquet(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    counts, tokens = tmp_path / "counts.parquet", tmp_path / "tokens.parquet"
    pandas.DataFrame(long(), columns=["window", "layer", "expert", "count"]).to_parquet(counts)
    np.testing.assert_allclose(dumps.read_dump(str(counts)).loads, LOADS)
    # the tokens of test_tokens_are_counted, their experts in columns and in lists
    rows = [("a", 0, 1), ("a", 0, 2), ("b", 3, 1), ("b", 1, 0)]
    frame = pandas.DataFrame(rows, columns=["seq", "e1", "e2"])
    for made in (frame, frame[["seq"]].assign(topk_ids=[list(row[1:]) for row in rows])):
        made.to_parquet(tokens)
        dump = dumps.read_dump(str(tokens))
        np.testing.assert_array_equal(dump.loads, [[[2, 1, 1, 0]], [[1, 2, 0, 1]]])
        assert dump.active == 2
    tokens.write_bytes(b"PAR1 junk")
    with pytest.raises(InputError, match=r"tokens\.parquet: not a readable Parquet file"):
        dumps.read_dump(str(tokens))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"needs pandas with an engine: pip install 'moesim\[parquet\]'"):
        dumps.read_dump(str(counts))


def test_parquet_of_ranks_in_a_folder_adds_up(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for rank, rows in enumerate(([(3, 0, 2), (3, 1, 1)], [(3, 1, 6), (3, 2, 3)])):
        pandas.DataFrame(rows, columns=["layer_id", "expert_id", "count"]).to_parquet(tmp_path / f"rank{rank}.parquet")
    np.testing.assert_array_equal(dumps.read_dump(str(tmp_path)).loads, [[[2, 7, 3]]])


def test_plain_tensors_of_pt_files(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "dump.pt"
    for tensor in (torch.arange(24).reshape(2, 3, 4), torch.arange(24.0).reshape(4, 3, 2).T.half()):
        torch.save({"rank": 0, "logical_count": tensor}, file)
        np.testing.assert_array_equal(dumps.read_dump(str(file)).loads, tensor.numpy())
    torch.save([{"logical_count": torch.ones(3, 4)}, {"logical_count": torch.zeros(3, 4)}], file)
    np.testing.assert_array_equal(dumps.read_dump(str(file)).loads[:, 0, 0], [1, 0])
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(InputError, match="which is no plain tensor"):
        dumps.read_dump(str(file))


class Saver(pickle.Pickler):
    """Writes tensors as torch.save does: storages apart, named by persistent ids."""

    def persistent_id(self, obj):
        return ("storage", obj.kind, obj.key, "cpu", obj.count) if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, kind, key, count):
        self.kind, self.key, self.count = kind, key, count


class Tensor:
    def __init__(self, rebuild, *arguments):
        self.rebuild, self.arguments = rebuild, arguments

    def __reduce__(self):
        return self.rebuild, self.arguments


def torch_file(path, monkeypatch, made, storages):
    """A file of the layout of torch.save, with the names of torch and without it."""
    module, utils = ModuleType("torch"), ModuleType("torch._utils")

    def _rebuild_tensor_v2(*arguments): ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    kinds = {}
    for kind in ("LongStorage", "HalfStorage", "ComplexFloatStorage"):
        kinds[kind] = type(kind, (), {"__module__": "torch", "__qualname__": kind})
        setattr(module, kind, kinds[kind])
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    stream = io.BytesIO()
    Saver(stream, protocol=2).dump(made(_rebuild_tensor_v2, kinds))
    monkeypatch.undo()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dump/data.pkl", stream.getvalue())
        for key, values in storages.items():
            archive.writestr(f"dump/data/{key}", values.tobytes())


def test_pt_files_without_torch(tmp_path, monkeypatch):
    file = tmp_path / "dump.pt"
    numbers = np.arange(30)

    def content(rebuild, kinds):
        # (2, 3, 4) from the fifth number on, and a transposed half-precision one that comes second
        long, half = Storage(kinds["LongStorage"], "0", 30), Storage(kinds["HalfStorage"], "1", 24)
        own = Tensor(rebuild, long, 5, (2, 3, 4), (12, 4, 1), False, OrderedDict())
        return {
            "rank": 0,
            "logical_count": own,
            "other": Tensor(rebuild, half, 0, (4, 6), (1, 4), False, OrderedDict()),
        }

    torch_file(file, monkeypatch, content, {"0": numbers, "1": np.arange(24).astype("<f2")})
    np.testing.assert_array_equal(dumps.read_dump(str(file)).loads, numbers[5:29].reshape(2, 3, 4))

    def turned(rebuild, kinds):
        return Tensor(rebuild, Storage(kinds["HalfStorage"], "1", 24), 0, (4, 6), (1, 4), False, OrderedDict())

    torch_file(file, monkeypatch, turned, {"1": np.arange(24).astype("<f2")})
    np.testing.assert_array_equal(dumps.read_dump(str(file)).loads[0], np.arange(24).reshape(6, 4).T)

    def beyond(rebuild, kinds):
        return Tensor(rebuild, Storage(kinds["LongStorage"], "0", 30), 20, (4, 6), (6, 1), False, OrderedDict())

    torch_file(file, monkeypatch, beyond, {"0": numbers})
    with pytest.raises(InputError, match="longer than what is stored"):
        dumps.read_dump(str(file))

    def odd(rebuild, kinds):
        return Tensor(rebuild, Storage(kinds["ComplexFloatStorage"], "0", 30), 0, (4, 6), (6, 1), False, OrderedDict())

    torch_file(file, monkeypatch, odd, {"0": numbers})
    with pytest.raises(InputError, match=r"torch\.ComplexFloatStorage, which is no plain tensor"):
        dumps.read_dump(str(file))


class Runs:
    def __reduce__(self):
        return (print, ("this ran",))


def test_what_would_run_is_refused(tmp_path, capsys):
    file = tmp_path / "dump.pt"
    for content in (pickle.dumps(Runs()), pickle.dumps(eval), b"junk"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("dump/data.pkl", content)
        with pytest.raises(InputError, match=r"dump\.pt: not taken"):
            dumps.read_dump(str(file))
    file.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(InputError, match="not taken"):
        dumps.read_dump(str(file))
    np.save(tmp_path / "objects.npy", np.array([Runs()]), allow_pickle=True)
    with pytest.raises(InputError, match="no plain NumPy array"):
        dumps.read_dump(str(tmp_path / "objects.npy"))
    assert "this ran" not in capsys.readouterr().out


REFUSED = {
    "a.csv": ("window,layer,expert\n0,0,0\n", "no column 'count'.*a row for each token with seq, e1"),
    "b.csv": ("window,layer,expert,count\n", "no rows below its head"),
    "c.csv": (
        "window,layer,expert,count,rank\n0,0,0,1,0\n0,0,0,1,0\n",
        "rank 0: window 0, layer 0, expert 0 stands twice",
    ),
    "d.json": ("{", "no JSON"),
    "e.json": ('{"counts": [[1]]}', "none of logical_count, .* in it; it has counts"),
    "f.json": ('{"logical_count": [["a"]]}', "is no list of counts"),
    "g.json": ('{"logical_count": [[1, -1]]}', "a count of -1"),
    "h.json": ('{"logical_count": [1, 2]}', r"shape \(2,\); it takes \(layer, expert\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    content, said = REFUSED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        dumps.read_dump(str(tmp_path / name))


def replayed(path, **over):
    cluster = {"devices": 2, "slots_per_device": 2, **over.pop("cluster", {})}
    return moesim.simulate(world={"policy": "trace", "path": str(path)}, cluster=cluster, **over)
