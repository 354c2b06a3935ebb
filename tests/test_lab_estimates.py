"""What is read out of runs and loads of small models, without training any: by hand and by simulation."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import moesim
from moesim.balance.trace import lognormal_trace
from moesim.errors import InputError
from moesim.lab import probed
from moesim.lab.compared import (
    SETTING,
    chosen,
    differences,
    equivalent_params,
    equivalents,
    excess_index,
    frame,
    mean,
    penalties,
    ratio,
    stopped,
    tuned,
)
from moesim.lab.estimates import NOT_IDENTIFIED, calibrate


def runs(**columns):
    """Rows of a table of runs; what is not given is one setting of fresh data."""
    size = max(np.size(column) for column in columns.values())
    alike = {"corpus": "c", "hash": "h", "d_model": 32, "layers": 2, "tokens": 8.0, "unique_tokens": 8.0}
    alike |= {"weight_decay": 0.1, "learning_rate": 0.01, "arm": "dense", "seed": 0, "loss": 1.0}
    alike |= {"experts": 1.0, "active_params": 1.0, "total_params": 1.0}
    filled = {name: np.broadcast_to(value, size) for name, value in (alike | columns).items()}
    return xr.Dataset({name: ("run", value) for name, value in filled.items()})


def test_means_and_ratios_of_few_seeds():
    """1, 2, 3: 2 +- 2.920/sqrt(3). Fieller: a = b/2 has no spread at all; of one seed there is no interval."""
    assert mean([1, 2, 3])[:3] == pytest.approx((2, 2 - 1.6859, 2 + 1.6859), abs=1e-4)
    assert ratio([1, 2, 3], [2, 4, 6])[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(mean([1.0]).low)
    assert np.isnan(ratio([1.0], [2.0]).high)


def test_a_ratio_by_hand():
    """a = (1, 2), b = (2, 2): means 1.5 and 2, saa = .25, sab = sbb = 0, t = 6.3138: (r 2 - 1.5)^2 = .25 t^2."""
    found = ratio([1, 2], [2, 2])
    assert found[:3] == pytest.approx((0.75, (1.5 - 0.5 * 6.3138) / 2, (1.5 + 0.5 * 6.3138) / 2), abs=1e-4)


def test_a_ratio_over_what_may_be_zero_is_unbounded():
    assert ratio([1, 2], [-1, 2])[1:3] == (-np.inf, np.inf)


def test_fieller_covers():
    repeats, level = 4000, 0.9
    rng = np.random.default_rng(1)
    a, b = 0.5 + 0.1 * rng.standard_normal((repeats, 4)), 1.0 + 0.1 * rng.standard_normal((repeats, 4))
    held = [low <= 0.5 <= high for _, low, high, _ in map(ratio, a, b)]
    assert np.mean(held) == pytest.approx(level, abs=0.02)


def test_a_penalty_is_against_fresh_data_of_the_same_tokens_seed_and_decay():
    table = runs(
        unique_tokens=[2, 8, 4, 2, 8, 2],
        tokens=[8, 8, 4, 8, 8, 8],
        loss=[3.0, 2.0, 9.0, 5.0, 4.5, 7.0],
        seed=[0, 0, 0, 1, 1, 2],
    )
    found = penalties(frame(table))
    assert found.penalty.tolist() == [1.0, 0.5]
    assert found.epochs.tolist() == [4.0, 4.0]


def test_a_recipe_is_tuned_on_a_seed_that_is_left_out():
    table = runs(weight_decay=[0.1, 1.0] * 3, seed=[7, 7, 0, 0, 1, 1], loss=[2.0, 1.0, 1.0, 2.0, 1.0, 3.0])
    kept = tuned(frame(table), 7)
    assert kept.weight_decay.tolist() == [1.0, 1.0]
    assert kept.seed.tolist() == [0, 1]
    assert kept.note.tolist() == ["one rate tried, highest decay tried"] * 2
    with pytest.raises(InputError, match="no rows of the seed 5"):
        tuned(frame(table), 5)


TRIED = [(0.01, 0.3, 1.3), (0.01, 0.6, 1.1), (0.01, 1.0, 1.2), (0.005, 0.6, 1.4), (0.02, 0.6, 1.5)]


@pytest.mark.parametrize(
    ("changed", "others", "recipe", "note"),
    [
        ({}, TRIED, (0.01, 0.6), ""),
        ({4: 1.0}, TRIED, (0.02, 0.6), "highest rate tried, one decay tried"),
        ({4: 1.0}, TRIED[:4], (0.01, 0.6), "on seed 7 alone rate 0.02 decay 0.6 is better by 0.100"),
        ({0: 1.0}, TRIED, (0.01, 0.3), "one rate tried, lowest decay tried"),
        ({}, [], (0.01, 0.6), "on seed 7 alone"),
    ],
)
def test_what_a_choice_rests_on_is_told(changed, others, recipe, note):
    """Five pairs on the seed 7: the best inside, at an end, or where other seeds have no runs."""
    rate, decay, loss = np.array(TRIED).T
    loss[list(changed)] = list(changed.values())
    rows = runs(learning_rate=rate, weight_decay=decay, loss=loss, seed=7)
    if others:
        rate, decay, loss = np.array(others).T
        rows = xr.concat([rows, runs(learning_rate=rate, weight_decay=decay, loss=9.0)], "run")
    (found,) = chosen(frame(rows), 7).to_dict("records")
    assert ((found["learning_rate"], found["weight_decay"]), found["note"]) == (recipe, note)
    assert len(tuned(frame(rows), 7)) == bool(others)


def test_nothing_that_was_varied_is_averaged():
    """Beside a run others that differ in one thing: each is a setting, or an arm, of its own."""
    columns = {"d_model": 64, "layers": 4, "batch": 4096, "cooldown": 0.2, "learning_rate": 0.02, "hash": "g"}
    columns |= {"attention_scale": 1.0, "decay_embedding": 0}
    columns |= {"decay_by_load": 1, "balancing": "none", "balancing_rate": 0.01}
    alike = {"batch": 2048, "cooldown": 0.0, "decay_by_load": 0, "balancing": "loss_free", "balancing_rate": 0.001}
    alike |= {"attention_scale": 0.25, "decay_embedding": 1}
    alike |= {"experts": 8, "arm": "moe 8"}
    rows = xr.concat([runs(**alike), *(runs(**alike | {name: value}) for name, value in columns.items())], "run")
    table = frame(rows)
    assert len(table.groupby([*SETTING, "arm", "seed"])) == len(table) == len(columns) + 1
    assert table.arm.tolist()[-3:] == ["moe 8, decay by load", "moe 8, none", "moe 8, loss_free 0.01"]


def test_older_tables_have_no_cooldown_and_the_usual_batch():
    rows = frame(runs(batch=[2048, np.nan]))
    assert rows[["batch", "cooldown"]].to_numpy().tolist() == [[2048, 0.0]] * 2


def test_a_run_stops_where_its_loss_is_lowest():
    """Of three marks of repeated data the middle one; its fresh run stops nowhere."""
    table = runs(
        trajectory=["a", "a", "a", "b", "b"],
        tokens=[4, 8, 16, 8, 16],
        unique_tokens=[2, 2, 2, 8, 16],
        loss=[3.0, 2.0, 2.5, 1.9, 1.8],
    )
    assert stopped(frame(table)).tokens.tolist() == [8]


def test_differences_are_paired_by_seed():
    """Seeds differ by 10, the arms by 1 and 2: the pairs know nothing of the 10."""
    table = runs(arm=["moe 8", "dense"] * 2, seed=[0, 0, 1, 1], loss=[2.0, 1.0, 13.0, 11.0])
    found = differences(frame(table), "moe 8", "dense").iloc[0]
    assert found[:3] == pytest.approx((1.5, 1.5 - 0.5 * 6.3138, 1.5 + 0.5 * 6.3138), abs=1e-4)
    with pytest.raises(InputError, match="no arm 'moe 9'"):
        differences(frame(table), "moe 9", "dense")


@pytest.mark.parametrize(
    ("share", "noise", "there"), [(0.0, 0.0, True), (1.0, 0.0, True), (0.4, 0.0, True), (0.4, 9.0, False)]
)
def test_the_excess_index_is_a_share_of_the_way_to_the_total(share, noise, there):
    """Dense pays .1, total 1.1 on three seeds; beyond three standard errors of their difference it is not given."""
    rows = []
    for seed in range(3):
        total = 1.1 + noise * (seed - 1)
        for arm, paid in {"dense": 0.1, "moe 8": 0.1 + share * (total - 0.1), "dense x8": total}.items():
            rows += [(arm, seed, 8.0, 1.0), (arm, seed, 2.0, 1.0 + paid)]
    arm, seed, unique, loss = map(np.array, zip(*rows, strict=True))
    table = runs(arm=arm, seed=seed, unique_tokens=unique, loss=loss)
    found = excess_index(penalties(frame(table)), "moe 8", "dense", "dense x8")
    assert [value.value for value in found] == pytest.approx([share] if there else [])


def test_equivalent_params_lie_between_the_steps_of_the_ladder():
    """Losses 3, 2 at 1e2, 1e4: 2.5 is 1e3, and 2.25 is 10^3.5. No answer beyond the ladder or where it turns."""
    falling, rising = pd.Series({1e2: 3.0, 1e4: 2.0}), pd.Series({1e4: 3.0, 1e2: 2.0})
    assert equivalent_params(2.25, falling)[0] == pytest.approx(10**3.5)
    assert equivalent_params(2.25, rising)[0] == pytest.approx(10**2.5)
    ends = {(1.9, "falling"): "large", (3.1, "falling"): "small", (1.9, "rising"): "small", (3.1, "rising"): "large"}
    for (loss, which), end in ends.items():
        params, reason = equivalent_params(loss, falling if which == "falling" else rising)
        assert np.isnan(params)
        assert reason == f"beyond the {end} end of the ladder"
    params, reason = equivalent_params(2.5, pd.Series({1e2: 3.0, 1e3: 2.0, 1e4: 2.6}))
    assert np.isnan(params)
    assert reason == "the ladder turns"


LADDER = {24576: 2.377, 40960: 2.643, 73728: 2.848, 139264: 3.152}


def ladder_runs(ladder=LADDER, *, experts=8.0, active=25088, total=139776, loss=2.678, seeds=1, noise=0.0):
    """Runs of a dense ladder, and of a Mixture, at the end of repeated data, and a fresh run without any penalty."""
    rows = []
    for seed in range(seeds):
        shift = noise * (seed - 1)
        steps = [(f"dense {n}", 1.0, n, n, at) for n, at in ladder.items()]
        for arm, e, a, n, at in [*steps, ("moe", experts, active, total, loss)]:
            alike = {"arm": arm, "experts": e, "active_params": a, "total_params": n, "seed": seed}
            rows += [alike | {"unique_tokens": 2.0, "loss": at + shift * n / 1e5}]
            rows += [alike | {"unique_tokens": 8.0, "loss": 2.0}]
    return runs(**{name: np.array([row[name] for row in rows]) for name in rows[0]})


def on_the_ladder(**of):
    return frame(ladder_runs(**of))


@pytest.mark.parametrize(
    ("of", "params", "share"),
    [
        ({}, 45e3, 0.35),
        ({"experts": 32.0, "active": 26624, "total": 534528, "loss": 3.043}, 111e3, 0.49),
        ({"total": 74240, "loss": 2.740}, 54e3, 0.71),
    ],
    ids=["E 8 K 1", "E 32 K 1", "E 8 K 2"],
)
def test_the_measured_ladder_gives_the_measured_equivalents(of, params, share):
    """Losses after 64 epochs of dense models x1 x2 x4 x8, and of three Mixtures, as measured before on another cut."""
    repeated = on_the_ladder(**of)
    repeated = repeated[repeated.unique_tokens == 2]
    (found,) = equivalents(repeated).values()
    assert found.reason == ""
    assert found.params.value == pytest.approx(params, rel=0.01)
    assert found.share.value == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        ({"ladder": {24576: 2.377, 139264: 3.152}}, "no ladder: it takes dense models of 3 sizes on the same seeds"),
        ({"ladder": {40960: 2.3, 73728: 2.8, 139264: 3.1}}, "no dense model of the active size"),
        ({"ladder": {24576: 2.4, 40960: 2.6, 73728: 2.5}}, "the ladder turns (1 of 1 seeds)"),
        ({"loss": 2.3}, "beyond the small end of the ladder (1 of 1 seeds)"),
        ({"loss": 3.2}, "beyond the large end of the ladder (1 of 1 seeds)"),
        ({"loss": 2.05}, "penalty below 0.1"),
        ({"seeds": 3, "noise": 0.5}, "noise: the ends of the ladder are not told apart"),
        ({"seeds": 2, "noise": -0.1, "loss": 3.1519}, "beyond the large end of the ladder (1 of 2 seeds)"),
    ],
)
def test_what_a_ladder_does_not_tell_has_a_reason(of, reason):
    (found,) = equivalents(penalties(on_the_ladder(**of)), "penalty").values()
    assert found.reason == reason
    assert np.isnan(found.share.value)


LOADS = xr.Dataset({"loads": (("window", "layer", "expert"), np.ones((4, 1, 8)))})
AT = "moe, unique {}, decay 0.1, epochs {}"


def test_the_ladder_of_runs_beside_is_calibrated():
    """By the penalty .35 of the way; fresh losses here are all the same, which places nothing."""
    found = calibrate(LOADS, ladder_runs())
    assert found["excess_share, " + AT.format(2, 4)].value == pytest.approx(0.35, abs=0.005)
    assert found["capacity_share, " + AT.format(8, 1)] == "the ladder turns (1 of 1 seeds)"
    shares = [name for name in found if "_share, " in name]
    assert len(shares) == 2
    assert "give kept=" in calibrate(LOADS)["excess_share"]


def test_twins_that_were_not_tried_have_not_parted():
    """Of two trajectories one was split: its twins part at 4 and 8 bytes, and the lesser ends with a quarter."""
    twins = {"twin_cosine": [1.0, 0.4, 0.3], "twin_divergence": [0.0, 0.05, 0.2], "twin_share": [0.5, 0.3, 0.25]}
    dims = ("trajectory", "layer", "since")
    tried = {name: (dims, [[values], [[np.nan] * 3]]) for name, values in twins.items()}
    loads = LOADS.expand_dims(trajectory=2)
    found = calibrate(loads.assign(tried).assign_coords(since=[0, 4, 8]))
    assert [found[name].value for name in ("weights_part", "domains_part", "twin_share")] == [4, 8, 0.25]
    assert found["weights_part"].seeds == 1
    assert "train with probes=[split]" in calibrate(loads)["weights_part"]


def test_equivalents_are_paired_by_seed():
    """Two seeds a nat apart, the Mixture half way in each: no interval of the nat is left."""
    ladder = {1e2: 3.0, 1e3: 3.5, 1e4: 4.0}
    rows = [("dense", 1.0, n, n, at) for n, at in ladder.items()] + [("moe", 8.0, 1e2, 1e4, 3.5)]
    arm, experts, active, total, loss = (np.array(column) for column in zip(*rows * 2, strict=True))
    seed = np.repeat([0, 1], 4)
    sizes = {"active_params": active, "total_params": total}
    table = runs(arm=arm, experts=experts, seed=seed, loss=loss + seed, **sizes)
    (found,) = equivalents(frame(table)).values()
    assert found.share[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert found.params[:3] == pytest.approx((1e3, 1e3, 1e3))


@pytest.mark.parametrize(("spread", "drift"), [(1.06, 0.12), (0.3, 0.05), (2.0, 0.5)])
def test_spread_and_drift_come_back_from_loads_made_with_them(spread, drift):
    """Loads exp(x), x normal over experts; counted without noise, by 64 windows of 58 layers."""
    loads = lognormal_trace(spread=spread, drift=drift, windows=64).loads
    data = xr.Dataset({"loads": (("window", "layer", "expert"), 1e6 * loads / loads.mean())})
    found = calibrate(data)
    assert found["load_spread"].value == pytest.approx(spread, rel=0.05)
    assert found["load_drift"].value == pytest.approx(drift, rel=0.05)
    assert {name: found[name] for name in NOT_IDENTIFIED} == NOT_IDENTIFIED


def test_the_noise_of_counting_is_no_drift():
    """Constant shares, counted by Poisson draws of 100 tokens: no drift beyond a tenth of the noise."""
    rng = np.random.default_rng(0)
    loads = rng.poisson(100.0, size=(40, 20, 64))
    found = calibrate(xr.Dataset({"loads": (("window", "layer", "expert"), loads)}))
    assert found["load_drift"].value < 0.1 * (2 / 100) ** 0.5


def test_when_a_hotspot_formed_and_what_experts_know_of_domains():
    """Two domains on experts of their own: 1 bit. The load of one expert of four is twice the mean from step 30 on."""
    loads = np.ones((4, 1, 2, 4)) * 100
    loads[2:, 0, :, 0] = 400
    data = xr.Dataset(
        {"loads": (("window", "layer", "domain", "expert"), loads)}, {"window_step": ("window", [10, 20, 30, 40])}
    )
    assert calibrate(data)["hotspot_step"].value == 30
    assert calibrate(data)["domain_information"].value == 0.0
    apart = np.zeros((4, 1, 2, 4))
    apart[:, :, 0, :2] = apart[:, :, 1, 2:] = 1e4
    assert calibrate(data.assign(loads=(data.loads.dims, apart)))["domain_information"].value == pytest.approx(
        1.0, abs=1e-3
    )
    assert calibrate(data.assign(loads=(data.loads.dims, apart)))["hotspot_step"].value == np.inf


def test_experts_that_a_model_lacks_are_no_experts():
    """Half of the experts are NaN: what is left is judged alone."""
    rng = np.random.default_rng(0)
    loads = rng.poisson(1000.0, size=(2, 8, 3, 4)).astype(float)
    padded = np.concatenate([loads, np.full((2, 8, 3, 4), np.nan)], axis=-1)
    dims = ("trajectory", "window", "layer", "expert")
    plain, wide = (calibrate(xr.Dataset({"loads": (dims, values)})) for values in (loads, padded))
    assert plain["load_spread"].value == pytest.approx(wide["load_spread"].value)
    assert plain["load_drift"].value == pytest.approx(wide["load_drift"].value)


def gains(*kin, own=1.0, usual=-1.0):
    """Four domains that harm one another by 1 and gain 1 of their own; what `a` gives `b` in each of two repeats."""
    names = list("abcd")
    values = np.full((len(kin), 2, 4, 4), usual)
    values[:, :, range(4), range(4)] = own
    values[:, :, 0, 1] = kin
    dims = ("trajectory", "repeat", "source", "target")
    return xr.Dataset({"tuned_gain": (dims, values), "added_gain": (dims, values)}, {"source": names, "target": names})


def test_kinship_by_hand():
    """From -1, what the usual other gives, to the own 1: 0 and .2 are .5 and .6 of the way; t(1) is 6.3138.

    Of one training the interval is over repeats, of two it is over their means, .1 and .3.
    """
    one, two = (probed.kinship(g).sel(source="a", target="b") for g in (gains([0.0, 0.2]), gains([0, 0.2], [0.3, 0.3])))
    assert (one.kin.item(), one.low.item()) == pytest.approx((0.55, 0.55 - 0.05 * 6.3138), abs=1e-4)
    assert (two.kin.item(), two.high.item()) == pytest.approx((0.60, 0.60 + 0.05 * 6.3138), abs=1e-4)
    assert probed.kinship(gains([0.0, 0.2])).kin.sel(source=["a", "c", "d"]).values.tolist() == [
        [1.0, 0.55, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]
    ]  # fmt: skip
    assert "a +1.00* +0.55*" in " ".join(probed.transfers(gains([0.08, 0.12])).split())


def test_three_domains_have_no_usual_one():
    few = gains([0.0, 0.2]).isel(source=slice(3), target=slice(3))
    assert np.isnan(probed.kinship(few).kin).all()
    few["loads"] = ("trajectory", "window", "layer", "expert"), np.full((1, 2, 1, 4), 9.0)
    assert "fewer than four domains" in calibrate(few)["kin"]


def test_a_transfer_beside_loads_says_which_domains_are_kin():
    loads = xr.Dataset({"loads": (("trajectory", "window", "layer", "expert"), np.full((1, 2, 1, 4), 9.0))})
    found = calibrate(loads.assign(gains([0.0, 0.2])))
    assert found["kin, a to b"][:2] == pytest.approx((0.55, 0.55 - 0.05 * 6.3138), abs=1e-4)
    assert "kin, a to a" not in found
    assert found["rho"] == NOT_IDENTIFIED["rho"]
    assert "train with probes=[transfer]" in calibrate(loads)["kin"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (xr.Dataset({"loads": (("window", "expert"), np.ones((2, 2)))}), "no loads along 'layer'"),
        (xr.Dataset({"loads": (("window", "layer", "expert"), -np.ones((2, 1, 2)))}), "negative, or of one window"),
        (xr.Dataset({"loads": (("window", "layer", "expert"), np.ones((1, 1, 2)))}), "negative, or of one window"),
    ],
)
def test_bad_loads_are_refused(data, said):
    with pytest.raises(InputError, match=said):
        moesim.lab.calibrate(data)


def test_without_pytorch_one_line_names_the_extra(command, monkeypatch):
    monkeypatch.setattr("moesim.lab.grid.find_spec", lambda name: None)
    code, _, err = command("lab", "corpus.train_windows=64", "corpus.valid_windows=8")
    assert (code, err.strip()) == (
        2,
        "moesim lab: lab: training needs PyTorch, which is not installed; pip install 'moesim[lab]'",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("balancing=even",), "balancing='even'; it takes auxiliary, loss_free, none"),
        (("tokens=1000",), "tokens=1000; it takes a multiple of 2048 bytes, like 2048"),
        (("unique_tokens=3000",), "unique_tokens=3000"),
        (("sizes=[[40, 2]]",), "d_model=40; it takes a multiple of 16"),
        (("active_experts=9",), "active_experts=9 of experts=8"),
        (("weight_decay=-1",), "weight_decay=-1"),
        (("seeds=0",), "seeds=0"),
        (("corpus.kin=2",), "kin=2 is outside its domain"),
        (("corpus=files", "corpus.path=nowhere"), "path='nowhere' has no directories"),
        (("corpus=installed", "corpus.packages=[nopackage]"), "no package 'nopackage'"),
        (("calibrate=nowhere.nc",), "nowhere.nc"),
    ],
)
def test_bad_input_is_named(command, monkeypatch, words, said):
    monkeypatch.setattr("moesim.lab.grid.find_spec", lambda name: None)
    code, _, err = command("lab", *words)
    assert code == 2
    assert said in err
