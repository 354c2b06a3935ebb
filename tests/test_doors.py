"""What a user types and the files a user brings: known and used, or refused in one line; code only by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moesim
from moesim import plugins
from moesim.config import choices, conf_dir, read
from moesim.errors import InputError
from moesim.overrides import groups, quoted, typed
from moesim.usage import page
from moesim.verbs import VERBS

QUICK = ("figures=false", "space.compute=1e20", "space.sparsity=[0,0.9]", "space.active_params=[1e8,1e9]")


def refused(command, *arguments: str) -> str:
    """The one line with which a command line is refused, before anything is written."""
    code, out, err = command(*arguments)
    assert code == 2, (code, out, err)
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not list(Path().rglob("*.nc"))
    return err


# What was typed -> what the one line says.
REFUSED = {
    "sweep compute=1e22": "no key 'compute'; did you mean space.compute?",
    "sweep +compute=1e22": "no key 'compute'; did you mean space.compute?",
    "sweep ++unique_tokens=5e12": "did you mean space.unique_tokens?",
    "sweep ~compute": "did you mean space.compute?",
    "sweep space.compuet=1": "did you mean space.compute?",
    "sweep space={compuet: 1}": "did you mean space.compute?",
    "sweep +newkey=3": "moesim sweep --help lists the keys",
    "sweep world=zipf": "one of moesim balance",
    "sweep law.coefficients.betta=1": "did you mean law.coefficients.beta?",
    "sweep law=abnar": "did you mean abnar2025?",
    "sweep law=[abnar2025,kaplan2020]": "-m law=A,B",
    "sweep +law=abnar2025": "a choice of files has no +",
    "sweep law@repetition=abnar2025": "no @",
    "sweep law=abnar2025,kaplan2020": "law: several values are run with -m",
    "sweep space.compute=1e20 space.compute=1e21": "space.compute is given twice",
    "sweep law=abnar2025 law=kaplan2020": "law is given twice",
    "sweep space=3": "no '3'",
    "sweep law.coefficients=3": "law.coefficients.KEY=VALUE",
    "sweep ~space.compute": "set it: space.compute=null",
    "sweep figures=1e5": "true or false",
    "sweep figures=null": "true or false",
    "flops mtp=inf model=llama3_8b": "true or false",
    "flops +touched_only=[inf]": "true or false",
    "fit fit.profiles={geomspace: [0,1,3]}": "true or false",
    "fit fit.drawz=3": "did you mean fit.draws?",
    "fit fit=3": "fit.KEY=VALUE",
    "sweep choices.law=%": "fills in by itself",
    "sweep choices=true": "fills in by itself",
    "sweep verb=fit": "fills in by itself",
    "sweep experiment=split_and_feed": "moesim balance experiment=split_and_feed",
    "fit experiment=sparsity_readings": "moesim sweep experiment=sparsity_readings",
    "flops depth=3 model=llama3_8b": "depth has no effect on a model",
    "flops depth=3": "depth has no effect on a network of fixed depth",
    "flops sequence=8": "give model=NAME",
    "flops mtp=true": "give model=NAME",
    "flops network.input=[1] model=llama3_8b": "network.input has no effect on a model",
    "flops compare=[onenet] depth=3": "depth has no effect beside compare",
    "sweep compare={repetition: [none]} repetition.coefficients.R_D=3": "no effect beside compare.repetition",
    "sweep repetition=none repetition.excess=total": "repetition.excess has no effect with repetition=none",
    "sweep compare={repetition: [none]} memory=1": "memory has no effect beside compare",
    "fit fit.above=0.1": "fit.above has no effect on fit.objective=huber_log",
    "fit fit.objective=squared fit.delta=0.1": "fit.delta has no effect",
    "sweep resume=x": "add -m",
    "sweep --config-dir x": "no option '--config-dir'",
    "sweep -cp x": "no option '-cp'",
    "sweep --config-name x": "no option '--config-name'",
    "sweep --experimental-rerun x.pickle": "no option",
    "sweep law": "not KEY=VALUE",
    "sweep -m space.active_params=range(1,1000001)": "more than 100000 jobs",
    "sweep -m space.compute=range(1,1001) space.sparsity=range(0,1,0.001)": "more than 100000",
    "sweep -m space.compute=interval(1,2)": "interval",
    "sweep -m law=nosuch,kaplan2O20": "no 'nosuch'",
    "sweep -m law=null,abnar2025": "null cannot be one of several",
    "sweep law=null": "law: nothing chosen",
    "sweep hydra/launcher=slurm": "submitit_slurm",
    "sweep hydra/sweeper=basic": "not a setting that can be chosen",
    "sweep experiment=path/to/my.yaml": "no 'path/to/my.yaml'",
    "swep": "did you mean sweep?",
    "laws nobody2099": "nobody2099",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_has_no_meaning_or_no_effect_is_refused_with_the_nearest(command, line):
    verb, *rest = _words(line)
    assert REFUSED[line] in refused(command, verb, *rest)


def _words(line: str) -> list[str]:
    """Words of a line; inside of braces a space does not part them."""
    words, deep = [""], 0
    for sign in line:
        deep += (sign in "{[") - (sign in "}]")
        words = [*words, ""] if sign == " " and not deep else [*words[:-1], words[-1] + sign]
    return words


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=.inf", np.inf),
        ("a=-.INF", -np.inf),
        ("a=[2e9, .inf]", [2e9, np.inf]),
        ("a={linspace: [1, .Inf, 3]}", {"linspace": [1, np.inf, 3]}),
        ("a=x.inf", "x.inf"),
        ("a=dir/.inf", "dir/.inf"),
        ("a='.inf'", ".inf"),
    ],
)
def test_infinity_as_in_yaml(word, value):
    assert typed(word).value == value


HARM = "{_target_: pathlib.Path.touch, self: harm}"
# Ways to run code, to read the environment, or to write elsewhere, on the command line.
ATTACKS = (
    f"+hydra.callbacks.x={HARM}",
    f"hydra.launcher={HARM}",
    "hydra.launcher._target_=pathlib.Path",
    f"+law.coefficients.x={HARM}",
    "+hydra.job_logging.handlers.e={class: logging.FileHandler, filename: harm, mode: w}",
    "hydra.job_logging.root.handlers=[e]",
    "hydra.hydra_logging.disable_existing_loggers=true",
    "hydra/job_logging=stdout",
    "hydra.sweeper._target_=pathlib.Path",
    "hydra.searchpath=[file://x]",
    "hydra.job.env_set={HOME: harm}",
    "hydra.job.chdir=true",
    "++figures=${oc.env:HOME}",
    "law.source=${oc.env:HOME}",
    "law.source='${oc.env:HOME}'",
    "law.source=$\\{oc.env:HOME\\}",
    "space.compute=???",
    "plugins=nosuch.py",
    "plugins=mine.yaml",
    "law=nosuch.py:mine",
    "space=nosuch.py:mine",
    "law@hydra.callbacks.x=abnar2025",
)


@pytest.mark.parametrize("argument", ATTACKS)
def test_no_argument_runs_code_or_reads_the_environment(command, argument):
    refused(command, "sweep", argument, *QUICK)
    assert not Path("harm").exists()


LAW = "form: hoffmann2022\ncoefficients: {E: 1.7, A: 400, alpha: 0.34, B: 410, beta: 0.28}\n"
BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
# Files of others that are more than data, or not readable -> what the one line says beside the file's name.
FILES = {
    "environment.yaml": (LAW + 'source: "${oc.env:HOME,none}"\n', "plain data"),
    "escaped.yaml": (LAW + 'source: "\\x24{oc.env:HOME}"\n', "plain data"),
    "missing.yaml": (LAW + "source: ???\n", "plain data"),
    "key.yaml": (LAW + '"${oc.env:HOME}": 1\n', "plain data"),
    "tag.yaml": (LAW + "source: !!python/object/apply:os.mkdir [harm]\n", "line 3: the tag"),
    "bytes.yaml": (LAW + "source: !!binary aGFybQ==\n", "line 3: the tag"),
    "bomb.yaml": (LAW + BOMB, "aliases written out"),
    "loop.yaml": (LAW + "source: &a [*a]\n", "an alias inside"),
    "twice.yaml": (LAW + "form: kaplan2020\n", "line 3: not readable as YAML: key 'form' stands twice"),
    "broken.yaml": (LAW + "source: [1,\n", "line 4: not readable as YAML"),
    "broken.json": ('{"form": \n "a",, }', "line 2: not readable as JSON"),
    "deep.yaml": (LAW + "source: " + "[" * 5000, "nested too deeply"),
    "deep.json": ("[" * 200000, "nested too deeply"),
    "list.yaml": ("[1, 2]\n", "not a mapping"),
    "empty.yaml": ("", "not a mapping"),
    "code.yaml": (LAW.replace("hoffmann2022", "mine.py:mine2026"), "plugins=[mine.py]"),
    "defaults.yaml": (LAW + "defaults: [{override /hydra/job_logging: stdout}]\n", "key 'defaults'"),
    "hydra.yaml": (LAW + "hydra: {callbacks: {x: {_target_: os.mkdir, path: harm}}}\n", "key 'hydra'"),
    "form.yaml": ("form: [x]\ncoefficients: {}\n", "form"),
    "mapping.yaml": ("form: {a: 1}\ncoefficients: {}\n", "form"),
    "coefficients.yaml": ("form: hoffmann2022\ncoefficients: [1, 2]\n", "coefficients"),
    "range.yaml": (LAW + "data_range: {nonsense: [1, 2]}\n", "nonsense"),
    "latin.yaml": (LAW.encode() + b"source: \xe9\n", "UTF-8"),
    "utf16.yaml": (LAW.encode("utf-16"), "UTF-8"),
    "large.yaml": (LAW + "source: " + "x" * 3_000_000, "bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_others_is_plain_data_or_refused_with_its_name_and_line(command, tmp_path, name):
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refused(command, "sweep", f"law={name}", *QUICK)
    assert said in error
    assert Path(name).stem in error
    if name != "defaults.yaml" and name != "hydra.yaml":
        assert said in refused(command, "laws", name) or name.endswith("json")
    assert not Path("harm").exists()


EXPERIMENTS = {
    "hydra": ("hydra: {callbacks: {x: {_target_: os.mkdir, path: harm}}}", "hydra"),
    "plugins": ("plugins: [mine.py]", "name it yourself: plugins=[FILE.py]"),
    "override": ("defaults: [{override /hydra/job_logging: stdout}]", "override /GROUP: NAME"),
    "addition": ("defaults: [{/law@repetition: abnar2025}]", "override /GROUP: NAME"),
    "path": ("defaults: [{override /law: ../evil}]", "override /GROUP: NAME"),
    "unknown": ("space: {compuet: 1}", "did you mean space.compute?"),
    "verb": ("verb: fit", "moesim fit experiment="),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_of_ones_own_sets_known_keys_and_shipped_choices_alone(command, tmp_path, name):
    content, said = EXPERIMENTS[name]
    (tmp_path / "my.yaml").write_text(f"# @package _global_\n{content}\n")
    assert said in refused(command, "sweep", "experiment=my.yaml", *QUICK)
    assert not Path("harm").exists()


def test_an_experiment_of_ones_own_is_honoured(command, tmp_path):
    (tmp_path / "my.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /law: kaplan2020\nspace: {compute: [3e19], sparsity: [0]}\n"
    )
    code, _, err = command("sweep", "experiment=my.yaml", "figures=false")
    assert code == 0, err
    (path,) = Path("outputs").rglob("result.nc")
    result = moesim.open_result(path)
    assert result.attrs["law"] == "kaplan2020"
    assert result["compute"].values.tolist() == [3e19]


def test_one_bad_choice_costs_its_job_alone(command):
    rows = {
        ("law=abnar2025,nosuch",): "no 'nosuch'",
        ("law=abnar2025,none/such.yaml",): "no 'none/such.yaml'",
        ("law=abnar2025,hoffmann2022", "law.coefficients.lam=-0.2"): "no key 'law.coefficients.lam'",
        ("repetition.excess=none,some",): "excess='some'",
        ("figures=false,3",): "true or false",
        ("law.coefficients={a: 2e4},3",): "law.coefficients.KEY=VALUE",
    }
    for number, (arguments, said) in enumerate(rows.items()):
        quick = [word for word in QUICK if not arguments[0].startswith(word.partition("=")[0])]
        code, out, err = command("sweep", "-m", *arguments, *quick, f"hydra.sweep.dir=many{number}")
        assert (code, "Traceback" in err) == (1, False), (arguments, err)
        assert "collected 1 of 2" in out, (arguments, err)
        assert said in out


def test_odd_names_of_directories_and_files(command, tmp_path):
    for number, name in enumerate(("it's", "a b", "ü=x", "[x], {y}", "$HOME", "a#b", "-dash", "back\\slash")):
        path = tmp_path / name
        path.mkdir()
        (path / "my law.yaml").write_text(LAW)
        law, out, many = (quoted(f"{path}/{last}") for last in ("my law.yaml", "out", "many"))
        code, _, err = command("sweep", f"law={law}", f"hydra.run.dir={out}", *QUICK)
        assert code == 0, (number, name, err)
        assert moesim.open_result(path / "out" / "result.nc").attrs["law"] == "my_law"
        code, _, err = command("sweep", "-m", "repetition=none,wu2026", f"hydra.sweep.dir={many}", *QUICK)
        assert code == 0, (number, name, err)


def test_own_files_are_named_and_not_placed(command, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("mine.yaml", "deep/mine.yaml", "deep/law.yaml"):
        (tmp_path / name).write_text(LAW)
    code, _, err = command("sweep", "-m", f"law={tmp_path}/mine.yaml,{tmp_path}/deep/mine.yaml,deep/law.yaml", *QUICK)
    assert code == 0, err
    (path,) = Path("outputs").rglob("collected.nc")
    assert moesim.open_result(path).law.values.tolist() == ["mine", "deep_mine", "deep_law"]


def test_a_table_of_runs_is_a_choice(command, tmp_path):
    rows = "".join(
        f"{n},{d},{1.7 + 400 / n**0.34 + 410 / d**0.28}\n" for n in (1e8, 3e8, 1e9) for d in (2e9, 9e9, 4e10)
    )
    (tmp_path / "my.csv").write_text("total_params,tokens,loss\n" + rows)
    quick = ("figures=false", "fit.draws=0", "fit.profiles=false", "fit.starts=4")
    code, _, err = command("fit", "runs=my.csv", *quick)
    assert code == 0, err
    (path,) = Path("outputs").rglob("fit.nc")
    assert moesim.open_result(path).sizes["run"] == 9
    assert "no file 'nosuch.csv'" in command("fit", "runs=nosuch.csv", *quick)[2]


PLUGIN = """
import moesim
from moesim.laws.law import Coefficient
from moesim.balance.sampling import sampling

@moesim.law("a note", a=Coefficient(), b=Coefficient())
def mine2026(total_params, tokens, *, a, b):
    return a + total_params ** -b

@sampling
def my_policy(state, setting, *, strength: float = 0.5):
    return setting.world.natural, state.memory
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of one's own code in the working directory; what it registers is forgotten afterwards."""
    from moesim.balance.sampling import sampling
    from moesim.laws import FORMS

    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text("form: mine2026\ncoefficients: {a: 1.5, b: 0.1}\n")
    yield tmp_path / "mine.py"
    FORMS.pop("mine2026", None)
    sampling.pop("my_policy", None)
    plugins.forget()


def test_a_law_of_ones_own_by_file_by_yaml_and_again(command, mine):
    assert "no form 'mine2026'" in refused(command, "sweep", "law=mine.yaml", *QUICK)
    plugins.forget()
    assert command("sweep", "law=mine.yaml", "plugins=[mine.py]", *QUICK)[0] == 0
    (path,) = Path("outputs").rglob("result.nc")
    result = moesim.open_result(path)
    assert float(result.loss.sel(active_params=1e8, sparsity=0).min()) == pytest.approx(1.5 + 1e8**-0.1)
    assert str(mine.parent) not in json.dumps(result.attrs, default=str)
    code, _, err = command("rerun", str(path), "plugins=mine.py")
    assert code == 0, err
    plugins.forget()
    code, _, err = command("rerun", str(path))
    assert (code, "plugins=[mine.py]" in err) == (2, True)


def test_a_law_and_a_policy_of_ones_own_in_one_word(command, mine):
    assert "no value for coefficient 'a'" in refused(command, "sweep", "law=mine.py:mine2026", *QUICK)
    values = ("law.coefficients.a=1.5", "law.coefficients.b=0.1")
    assert command("sweep", "law=mine.py:mine2026", *values, *QUICK)[0] == 0
    assert "it registers mine2026" in command("sweep", "law=mine.py:other", *QUICK)[2]
    code, _, err = command("balance", "sampling=mine.py:my_policy", "steps=10", "seeds=1", "figures=false")
    assert code == 0, err


def test_a_job_in_another_process_finds_the_code(command, mine):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    many = ("law=mine.yaml,abnar2025", "plugins=[mine.py]", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    code, out, err = command("sweep", "-m", *many, *QUICK)
    assert (code, "collected 2 of 2" in out) == (0, True), err


def test_code_that_fails_is_named_with_its_line(command, mine):
    mine.write_text("import moesim\n\n1 / 0\n")
    assert "mine.py, line 3: ZeroDivisionError" in refused(command, "sweep", "plugins=mine.py", *QUICK)
    mine.write_text("def f(:\n")
    assert "mine.py, line 1: SyntaxError" in refused(command, "sweep", "plugins=mine.py", *QUICK)


def test_an_installed_package_offers_its_code(command, mine, monkeypatch):
    """An entry point of the group moesim.plugins, as pip would install it."""
    info = mine.parent / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[moesim.plugins]\nmine = mine\n")
    monkeypatch.syspath_prepend(mine.parent)
    plugins.load_installed.cache_clear()
    assert command("sweep", "law=mine.yaml", *QUICK)[0] == 0
    sys.modules.pop("mine", None)
    plugins.load_installed.cache_clear()


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_one_screenful_of_this_verb(command, verb):
    _, out, _ = command(verb, "--help")
    assert len(out.splitlines()) <= 60
    assert max(map(len, out.splitlines())) <= 120
    for group in groups(verb):
        shown = (
            choices(group) if group != "experiment" else [n for n in choices(group) if read(group, n)["verb"] == verb]
        )
        assert f"  {group}=" in out
        assert all(name in out.split() for name in shown)
    assert "hydra.run.dir" in out
    whole = command(verb, "--help", "all")[1]
    assert whole.startswith(out.rstrip())
    assert len(whole) > len(out) + 300
    others = {group for other in VERBS for group in groups(other)} - set(groups(verb))
    assert not any(f"  {group}=" in out for group in others)


def test_any_encoding_and_a_reader_that_leaves():
    def run(arguments: str, **environment: str):
        line = f"{sys.executable} -m moesim {arguments}"
        clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(moesim.__file__).parent.parent), **environment}
        return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, env=clean)

    ascii_only = run("laws zhao2025", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0, ascii_only.stderr
    ascii_only.stdout.decode("ascii")
    left = run("laws | head -1")
    assert left.stderr == b""
    assert run("laws >&-").returncode == 0


def test_the_catalogue_and_a_page_of_each_law(command):
    for name in choices("law"):
        assert read("law", name)["form"] in command("laws", name)[1]
    assert page("sweep") in page("sweep", whole=True)
    assert (conf_dir() / "sweep.yaml").is_file()
    with pytest.raises(InputError, match="did you mean"):
        read("law", "abnar2052")
