"""The command line: what it writes, what it prints, and how it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moesim
from moesim.cli import VERBS
from moesim.config import choices, conf_dir

QUICK = ("figures=false", "space.compute=[1e20]", "space.sparsity=[0,0.9]")


def only(pattern: str) -> Path:
    (found,) = Path("outputs").rglob(pattern)
    return found


def test_default_sweep_answers_the_question(command):
    code, out, _ = command("sweep")
    assert code == 0
    result = moesim.open_result(only("result.nc"))
    assert set(result.loss.dims) == {"compute", "sparsity", "unique_tokens", "active_params"}
    assert set(result.optimal_loss.dims) == {"compute", "sparsity", "unique_tokens"}
    assert set(result.best_sparsity.dims) == {"compute", "unique_tokens"}
    # Abnar et al. 2025 with N_a = (1 - S) N: minimum at 1e20 FLOP, S = 0, unlimited data.
    cell = result.sel(compute=1e20, sparsity=0, unique_tokens=np.inf)
    assert cell.optimal_active_params.item() == pytest.approx(0.639e9, rel=2e-3)
    assert cell.optimal_loss.item() == pytest.approx(2.5885, abs=5e-5)
    assert "639M" in out
    assert "2.5885" in out
    for name in ("isoflop.png", "isoflop.svg", "sparsity.png", "sparsity.svg", "config.yaml", "sweep.log"):
        assert (only("result.nc").parent / name).stat().st_size > 0
    assert result.attrs["verb"] == "sweep"
    assert "2501.12370" in result.attrs["law_source"]
    assert result.attrs["moesim_version"] == moesim.__version__
    assert result.loss.attrs["units"] == "nat/token"


def test_one_warning_line_where_the_law_extrapolates(command):
    command("sweep", *QUICK[:2], "space.sparsity=[0,0.98]")
    assert only("sweep.log").read_text().count("outside the data of law") == 1


# What makes a long study short enough for a test.
SHORTER = {
    "tree_routing": ("steps=160", "seeds=2", "target_loss=5"),
    "split_and_feed": ("steps=8", "seeds=2", "sweep.sizes=null", "sweep.moves=null", "sweep.rho=[0.0,0.1]"),
    "split_and_feed_search": ("steps=8", "seeds=2", "sweep.search.worlds=4", "sweep.search.rounds=0"),
    "chinchilla_refit": ("fit.draws=50",),
    "lab_repetition": (
        "corpus=synthetic",
        "corpus.train_windows=64",
        "corpus.valid_windows=8",
        "tokens=65536",
        "seeds=2",
    ),
}


# What a run that draws no single tokens, or in whose few steps no child parted from its parent, cannot know.
NEEDS_MORE = {"regret_floor", "separation_steps"}


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_runs(command, name):
    from moesim.config import read

    verb = read("experiment", name).get("verb", "sweep")
    if name == "lab_repetition":
        pytest.importorskip("torch", reason="the lab trains with PyTorch: pip install 'moesim[lab]'")
    code, out, err = command(verb, f"experiment={name}", "figures=false", *SHORTER.get(name, ()))
    assert code == 0, err
    written = {Path(line.split("wrote ")[1]) for line in out.splitlines() if line.startswith("wrote ")}
    assert only("*.nc") in written
    assert all(path.stat().st_size > 0 for path in written)
    result = moesim.open_result(only("*.nc"))
    assert result.attrs["verb"] == verb
    numbers = [name for name, values in result.data_vars.items() if values.dtype.kind == "f"]
    unknown = {name for name in numbers if not np.isfinite(result[name]).any()}
    assert unknown <= NEEDS_MORE


@pytest.mark.parametrize("name", sorted({*choices("law")} - {"bhagia2024_hellaswag", "marin2026"}))
def test_every_law_sweeps(command, name):
    both = {"tokens"} < set(moesim.load_law(name).inputs)  # of size or tokens alone: the loss falls for ever
    sizes = [] if both else ["space.active_params={geomspace: [1e8, 1e9, 11]}"]
    code, out, err = command("sweep", f"law={name}", *QUICK, *sizes)
    assert code == 0, err
    assert ("no size is best" in out + err) is not both
    result = moesim.open_result(only("result.nc"))
    loss = result.loss.transpose(..., "active_params").values
    assert np.isfinite(loss).all()
    if both:
        assert np.isin(result.optimum_status.values, ("inside", "flat", "two dips")).all()
        assert (result.optimal_loss.values <= loss.min(axis=-1) * (1 + 1e-12)).all()
    fixed = {"compute": 1e20, "sparsity": 0.9, "unique_tokens": np.inf}
    law, size = moesim.load_law(name), result.active_params.values[10]
    at = moesim.Model(law).at(np.log(size), fixed)
    cell = result.loss.sel(fixed).sel(active_params=size).item()
    assert cell == pytest.approx(float(law(**{input: at[input] for input in law.inputs})), rel=1e-12)


@pytest.mark.parametrize("name", choices("architecture"))
def test_every_architecture_sweeps(command, name):
    assert command("sweep", f"architecture={name}", *QUICK)[0] == 0
    assert (moesim.open_result(only("result.nc")).optimum_status == "inside").all()


def test_ranges_replace_lists_numbers_and_nothing(command):
    code, _, err = command(
        "sweep",
        "figures=false",
        "space.compute={geomspace: [1e19, 1e21, 3]}",
        "space.active_params={linspace: [1e8, 1e9, 4]}",
        "space.sparsity=0.9",
        "repetition.coefficients.R_D={linspace: [3, 30, 2]}",
    )
    assert code == 0, err
    sizes = moesim.open_result(only("result.nc")).loss.sizes
    assert dict(sizes) == {"R_D": 2, "compute": 3, "unique_tokens": 2, "active_params": 4}


def test_multirun_with_the_flag_anywhere(command):
    assert command("sweep", "law=abnar2025,ludziejewski2025", "repetition=none,muennighoff2023", *QUICK, "-m")[0] == 0
    assert len(list(Path("outputs").rglob("result.nc"))) == 4


def test_own_law_file(command, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("form: hoffmann2022\ncoefficients: {E: 1.7, A: 400, alpha: 0.34, B: 410, beta: 0.28}\n")
    assert command("sweep", f"law={mine}", *QUICK)[0] == 0
    assert "mine" in moesim.open_result(only("result.nc")).attrs["law"]


def test_own_file_named_like_a_shipped_one(command, tmp_path):
    text = (conf_dir() / "law" / "abnar2025.yaml").read_text().replace("e: 0.94", "e: 1.94")
    (tmp_path / "abnar2025.yaml").write_text(text)
    code, _, err = command("sweep", "law=abnar2025.yaml", *QUICK)
    assert code == 0, err
    assert moesim.open_result(only("result.nc")).optimal_loss.min() > 3


BAD = {
    "verb": (["swep"], "swep"),
    "law": (["sweep", "law=abnar"], "did you mean"),
    "key": (["sweep", "space.compuet=1"], "compuet"),
    "axis text": (["sweep", "space.compute=abc"], "compute: 'abc'"),
    "axis nested": (["sweep", "space.compute=[[1,2]]"], "compute"),
    "axis domain": (["sweep", "space.sparsity=[0,1]"], "sparsity=1"),
    "coefficient": (["sweep", "law.coefficients.a=-1"], "a=-1"),
    "excess": (["sweep", "repetition.excess=some"], "excess='some'"),
    "no coefficients": (["sweep", "repetition.coefficients.R_D=null"], "no value for coefficient 'R_D'"),
    "bounds": (["sweep", "space.sparsity_bounds=[0.9,0.1]"], "sparsity_bounds"),
    "group": (["sweep", "compare={lwa:[a]}"], "lwa"),
    "missing file": (["sweep", "law=none/such.yaml"], "such.yaml"),
    "laws": (["laws", "nobody2099"], "nobody2099"),
    "grammar": (["sweep", "space.compute=[1,"], "compute"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_readable_line_and_exit_code_2(command, name):
    arguments, named = BAD[name]
    code, _, err = command(*arguments)
    assert code == 2
    assert named in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_help_names_every_key_and_choice(command):
    _, out, _ = command("--help")
    assert all(verb in out for verb in VERBS)
    _, out, _ = command("sweep", "--help")
    assert all(key in out for key in ("law=", "repetition.excess", "space.unique_tokens", "abnar2025", "experiment="))


def test_laws_lists_and_shows(command):
    _, out, _ = command("laws")
    assert all(name in out for name in choices("law") + choices("repetition"))
    _, out, _ = command("laws", "abnar2025")
    assert all(text in out for text in ("2501.12370", "16612.5", "inactive share", "sparsity: 0 to 0.95"))


def test_completion_knows_verbs_and_choices(command, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "moesim sw")
    assert command("-sc", "query=bash")[1].split() == ["sweep"]
    monkeypatch.setenv("COMP_LINE", "moesim sweep law=abn")
    monkeypatch.setenv("COMP_POINT", "20")
    assert "law=abnar2025" in command("-sc", "query=bash")[1]


def test_help_imports_nothing_heavy():
    code = "import sys; from moesim.cli import main; main(['--help']); print(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(out.split())
    assert not loaded & {"numpy", "scipy", "xarray", "matplotlib", "hydra"}
