"""Results on disk: whole or not at all, and only what is whole is read."""

import json
import os
import random
import shutil
from pathlib import Path

import h5py
import pytest
import xarray as xr
from result_tools import SMALL, edited, on_a_full_disk

import moesim
from moesim.errors import InputError
from moesim.output.collect import collect
from moesim.output.job import read_job
from moesim.output.store import whole, write_result, write_text

LARGE = (
    "figures=false",
    "space.compute=1e20",
    "space.sparsity={linspace: [0, 0.9, 300]}",
    "space.active_params={geomspace: [1e7, 1e10, 300]}",
)


@pytest.mark.parametrize("memory", ["2e9", "1"])  # at once, and as a stream
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, memory):
    monkeypatch.chdir(tmp_path)
    done = on_a_full_disk("sweep", *LARGE, f"memory={memory}", "hydra.run.dir=full")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert len(errors) == 1, done.stderr
    assert "result.nc: could not be written: File too large" in errors[0]
    assert not list(Path("full").glob("*.nc"))
    assert not list(Path("full").glob(".*.part"))


def test_a_full_disk_does_not_stop_the_other_jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    axes = [axis for axis in LARGE if "sparsity" not in axis]
    many = ",".join(f"{i / 300:.4f}" for i in range(290))
    done = on_a_full_disk("sweep", "-m", *axes, f"space.sparsity=[{many}],[0,0.5]", "hydra.sweep.dir=many")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "File too large" in Path("many/0/error.txt").read_text()
    assert moesim.open_result("many/1").sizes["sparsity"] == 2


def test_what_could_not_be_written_leaves_the_earlier_file(tmp_path):
    dataset = xr.Dataset({"loss": ("x", [1.0])})
    path = write_result(dataset, tmp_path / "result.nc")
    with pytest.raises(OSError, match=r"full.*result\.nc"):
        _half(path)
    assert moesim.open_result(path).loss.item() == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["result.nc"]


def _half(path):
    with whole(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "full")


def test_links_are_replaced_not_followed(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    for name in ("config.yaml", f".config.yaml.{os.getpid()}.part"):
        (tmp_path / name).symlink_to(mine)
    write_text(tmp_path / "config.yaml", "new")
    assert mine.read_text() == "precious"
    assert (tmp_path / "config.yaml").read_text() == "new"
    (tmp_path / "result.nc").symlink_to(mine)
    write_result(xr.Dataset({"a": 1.0}), tmp_path / "result.nc")
    assert mine.read_text() == "precious"


# Damage: what happens to a whole file. Each returns the bytes of the damaged one.


def truncated(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def flipped(content: bytes, dice: random.Random, times: int = 1) -> bytes:
    damaged = bytearray(content)
    for _ in range(times):
        damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def flipped_often(content: bytes, dice: random.Random) -> bytes:
    return flipped(content, dice, 20)


def zeroed(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content))
    return content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A result of a sweep."""
    from moesim.cli import main

    directory = tmp_path_factory.mktemp("result")
    main(["sweep", *SMALL, f"hydra.run.dir={directory}"])
    return directory / "result.nc"


@pytest.mark.parametrize("damage", [truncated, flipped, flipped_often, zeroed])
def test_a_damaged_file_is_never_read(result, tmp_path, damage):
    dice, content = random.Random(0), result.read_bytes()
    path = tmp_path / "result.nc"
    for _ in range(60):
        path.write_bytes(damaged := damage(content, dice))
        if damaged == content:
            continue
        with pytest.raises(InputError, match=r"result\.nc: (damaged|not )"):
            moesim.open_result(path)
        with pytest.raises(InputError):
            read_job(path)


# What a hand may write into the attributes of a result whose checksum is right.
HANDMADE = {
    "overrides": ["null", "not json", "[1,2]", '["a=[1"]', '{"a": 1}', '"text"', '[["a=1"]]'],
    "layout": ["nope", "[]", "null", '{"nowhere": [[], "f"]}', '{"loss": [["compute"], "f"]}', '{"loss": "f"}'],
    "config": ["[1,", "- 1", "a: [", "text", "a: ${b}"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HANDMADE.items() for value in values])
def test_handmade_attributes_are_skipped(result, tmp_path, capsys, name, value):
    for place in ("whole", "handmade"):
        (tmp_path / place).mkdir()
        shutil.copy(result, tmp_path / place)
    with edited(tmp_path / "handmade" / "result.nc") as file:
        file.attrs[name] = value
    report = collect([tmp_path])
    assert report.done == 1
    assert "handmade/result.nc: " in str(report)
    assert "skipped" in str(report)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_file_that_claims_more_than_it_holds_is_not_read(result, tmp_path, sealed):
    path = tmp_path / "result.nc"
    shutil.copy(result, path)
    with h5py.File(path, "a") as file:
        del file.attrs["checksum"]
        del file["loss"]
        file.create_dataset("loss", (20000, 20000, 5), float, fillvalue=1.0, chunks=(100, 100, 5))
    if sealed:
        with edited(path):
            pass
    with pytest.raises(InputError, match=r"should have 16000000000 bytes"):
        moesim.open_result(path)


def test_a_result_of_an_earlier_version_has_no_checksum_and_is_read(result, tmp_path):
    dataset = moesim.open_result(result).assign_attrs(moesim_version="0.1.0")
    assert "checksum" not in dataset.attrs
    dataset.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    xr.testing.assert_identical(moesim.open_result(tmp_path / "old.nc"), dataset)
    (content := bytearray((tmp_path / "old.nc").read_bytes()))[-1:] = b""
    (tmp_path / "old.nc").write_bytes(content[:-500])
    with pytest.raises(InputError, match="not a readable"):
        moesim.open_result(tmp_path / "old.nc")


def test_the_checksum_is_that_of_sha256sum(result, tmp_path):
    from hashlib import sha256

    content = result.read_bytes()
    body, seal = content[:-73], content[-73:]
    assert seal == f"\nsha256 {sha256(body).hexdigest()}\n".encode()


def test_rerun_says_whether_the_numbers_are_the_same(command):
    command("sweep", *SMALL)
    (path,) = Path("outputs").rglob("result.nc")
    code, out, _ = command("rerun", str(path))
    assert (code, "bit for bit" in out) == (0, True)
    with edited(path) as file:
        file["loss"][0, 0, 0] += 1e-15
    code, out, _ = command("rerun", str(path))
    assert (code, "differs in loss" in out) == (1, True)


def test_rerun_of_an_earlier_version_says_so_and_knows_no_less(command):
    assert command("sweep", *SMALL, "hydra.run.dir=old")[0] == 0
    with edited(Path("old/result.nc")) as file:
        file.attrs["moesim_version"] = "0.1.0"
        del file["epochs"]
        file.attrs["layout"] = json.dumps({k: v for k, v in json.loads(file.attrs["layout"]).items() if k != "epochs"})
        file.attrs["config"] = file.attrs["config"].replace("evidence: false\n", "")
    code, out, _ = command("rerun", "old/result.nc")
    assert (code, f"bit for bit (made with moesim 0.1.0, this is {moesim.__version__})" in out) == (0, True)


def test_larger_than_memory_gives_the_same_numbers(command, monkeypatch):
    monkeypatch.setattr("moesim.output.store._SLAB", 100)
    axes = ("space.compute=[1e20,1e21]", "space.active_params={geomspace: [1e8, 1e10, 7]}", "figures=true")
    assert command("sweep", *axes, "hydra.run.dir=one")[0] == 0
    assert command("sweep", *axes, "memory=1", "hydra.run.dir=slabs")[0] == 0
    one, slabs = moesim.open_result("one"), moesim.open_result("slabs")
    assert set(one.variables) == set(slabs.variables)
    for name in one.variables:
        xr.testing.assert_identical(one[name].variable, slabs[name].variable)
    assert Path("slabs/isoflop.png").is_file()


def test_a_config_of_another_version_that_does_not_run_says_so(command):
    assert command("sweep", *SMALL, "hydra.run.dir=old")[0] == 0
    with edited(Path("old/result.nc")) as file:
        file.attrs["moesim_version"] = "0.0.1"
        file.attrs["config"] = file.attrs["config"].replace("sparsity:", "sparseness:")
    code, _, err = command("rerun", "old/result.nc")
    assert code == 2
    assert "its config, of moesim 0.0.1, does not run with" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("config", ["a: &x [1]\nb: *x", "- 1", "a: [", "a: !!python/name:os.system"])
def test_a_config_that_is_not_plain_is_not_repeated(command, config):
    assert command("sweep", *SMALL, "hydra.run.dir=old")[0] == 0
    with edited(Path("old/result.nc")) as file:
        file.attrs["config"] = config
    code, _, err = command("rerun", "old/result.nc")
    assert (code, "the config that the result carries" in err) == (2, True)
