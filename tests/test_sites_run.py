"""The simulator of sites: the ideal run, the closed forms, sums, prices, parts and presence on paper, and bad input."""

from itertools import pairwise
from math import gamma, log

import numpy as np
import pytest

from moesim.config import choices, read
from moesim.errors import InputError
from moesim.laws.load import load_law
from moesim.models.tree import fff
from moesim.output.store import open_result
from moesim.sites import compute_utilisation, cut, presence, quality, simulate
from moesim.sites.apart import path_bits
from moesim.sites.engine import SUMS
from moesim.sites.protocols import protocol

Q = quality.Quality()
ALL = {"flops": 1e15, "mfu": 0.5, "memory": 1e12, "up": 1e9, "down": 1e9}
ONE = {**ALL, "devices": 2, "price": 3.0, "watts": 700, "idle_watts": 100, "tariff": 0.1}
PLACE = {**ONE, "sites": 4}
UNEQUAL = {**ONE, "groups": {"a": {"sites": 2}, "b": {"flops": 2e15, "up": 5e8}, "c": {"mfu": 0.3, "spread": 0.2}}}
SHORT = {"hours": 5.5, "seeds": 2, "batch": 1e5}
STEM = {"policy": "frozen_stem", "levels": 2, "stem_tokens": 1e9}
PROTOCOLS = {
    "data_parallel": {"policy": "data_parallel"},
    "diloco": {"policy": "diloco", "steps": 50},
    "streaming": {"policy": "diloco", "steps": 50, "fragments": 5, "overlap": 1, "bits": 4},
    "quorum": {"policy": "diloco", "steps": 50, "quorum": 3},
    "asynchronous": {"policy": "asynchronous", "steps": 50},
    "volunteers": {"policy": "volunteers", "steps": 50, "copies": 2, "success": 0.9},
    "due": {"policy": "volunteers", "steps": 50, "copies": 2, "success": 0.9, "deadline_hours": 1.0},
    "decoupled": {"policy": "decoupled", "steps": 50, "quorum": 2},
    "elastic": {"policy": "elastic", "every": 1800.0, "recovery": 300.0},
    "stopping": {"policy": "elastic", "steps": 20, "every": 1800.0, "others": "stop", "joins": "all"},
    "pipeline": {"policy": "pipeline", "stages": 2},
    "experts": {"policy": "experts", "steps": 50},
    "frozen_stem": STEM,
    "crews": {**STEM, "levels": 1, "all_sites": True, "steps": 50},
    "path_sync": {"policy": "path_sync", "levels": 2, "d_model": 4096, "layers": 32},
}


def of(protocol, site=PLACE, params=1e9, **settings):
    return simulate(
        site, PROTOCOLS[protocol] if isinstance(protocol, str) else protocol, params, **{**SHORT, **settings}
    )


@pytest.mark.parametrize("name", ["data_parallel", "diloco", "streaming"])
def test_the_ideal_run(name):
    """Endless bandwidth and no failures: every site trains all the time, and each round is sent once round the ring."""
    found = of(name, {**PLACE, "up": 1e30, "down": 1e30})
    rate = 2 * 1e15 * 0.5 / (6 * 1e9)
    tokens = 4 * rate * 5.5 * 3600
    assert found.tokens.sum("round").values == pytest.approx(tokens, rel=1e-12)
    assert found.working.sum("round").values == pytest.approx(4 * 5.5, rel=1e-12)
    options = {"steps": 1, "bits": 16, **PROTOCOLS[name]}
    rounds = 5.5 * 3600 / (options["steps"] * 1e5 / rate)
    sent = 4 * rounds * 2 * 3 / 4 * 1e9 * options["bits"] / 8
    assert found.bytes.sum("round").values == pytest.approx(sent, rel=1e-9)
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=tokens))
    steps = options["steps"]
    factor = 1 if steps == 1 else 4 ** (1.0923 * 1e9**-0.2342 * log(steps) / log(30))
    assert found.loss.isel(round=-1).values == pytest.approx(level * factor, rel=1e-12)


@pytest.mark.parametrize("name", ["diloco", "streaming", "data_parallel"])
@pytest.mark.parametrize("bandwidth", [1e7, 1e9, 3e10])
def test_equal_sites_compute_as_the_closed_form_says(name, bandwidth):
    found = of(name, {**PLACE, "up": bandwidth, "down": 1e30}).sum(["round", "seed"])
    options = PROTOCOLS[name]
    expected = compute_utilisation(
        1e9,
        1e5 * 6e9 / 1e15,
        options.get("steps", 1),
        options.get("bits", 16),
        bandwidth,
        options.get("fragments", 1),
        options.get("overlap", 0),
        replicas=4,
    )
    assert float(found.working / found.up) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("up", ["always", {"policy": "exponential", "up_hours": 1.0, "down_hours": 0.5}])
def test_sums(name, up):
    """Seconds by state, and every sum by round and by site and in the whole trace, add up; the last tick is short."""
    found = of(name, {**UNEQUAL, "availability": up}, record="all")
    parts = found.site_working + found.site_waiting + found.site_sending
    assert parts.values == pytest.approx(found.site_up.values, rel=1e-9, abs=1e-9)
    for sum_ in SUMS:
        whole = found[f"trace_{sum_}"]
        assert whole.sum("site").values == pytest.approx(found[sum_].values, rel=1e-9, abs=1e-9)
        assert whole.sum("round").values == pytest.approx(found[f"site_{sum_}"].values, rel=1e-9, abs=1e-9)
        assert (whole >= 0).all()
    assert found.sizes["round"] == 17
    assert float(found.hours[-1]) == 5.5
    assert (found.slack_cost <= found.cost + 1e-9).all()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_order_of_sites_changes_nothing(name):
    up = {"policy": "exponential", "up_hours": 2.0, "down_hours": 0.5}
    turned = dict(reversed(UNEQUAL["groups"].items()))
    one, other = (of(name, {**UNEQUAL, "groups": g, "availability": up}) for g in (UNEQUAL["groups"], turned))
    for sum_ in (*SUMS, "loss"):
        assert other[sum_].values == pytest.approx(one[sum_].values, rel=1e-9, nan_ok=True)
    sites = other.sel(site=one.site)
    assert sites.site_tokens.values == pytest.approx(one.site_tokens.values, rel=1e-9)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_same_seed_same_run_and_seeds_stand_alone(name):
    site = {**UNEQUAL, "availability": {"policy": "exponential", "up_hours": 2.0, "down_hours": 0.5}}
    both, again, second = of(name, site), of(name, site), of(name, site, seed=1, seeds=1)
    assert both.drop_attrs().identical(again.drop_attrs())
    assert (second.up.values == both.up.sel(seed=[1]).values).all()
    assert (both.up.sel(seed=0) != both.up.sel(seed=1)).any()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_slower_link_never_helps(name):
    tokens = []
    for up in (1e12, 1e10, 1e9, 1e8, 1e7, 1e5):
        site = {**ONE, "groups": {"a": {"sites": 3}, "b": {"up": up, "down": up}}}
        tokens.append(float(of(name, site, seeds=1).tokens.sum()))
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(tokens))
    if name in ("data_parallel", "diloco", "streaming", "quorum"):  # the slowest link stalls all
        assert tokens[-1] < 0.1 * tokens[0]


def test_the_slowest_and_the_quorum():
    """Steps of .6, .6, .3 and 1 s: a round of all takes 1 s a step, of three .6 s, and the fourth works for nothing."""
    site = {**ONE, "up": 1e30, "down": 1e30}
    site["groups"] = {"a": {"sites": 2}, "b": {"flops": 2e15}, "c": {"mfu": 0.3}}
    every, three = (of(name, site, seeds=1).isel(seed=0) for name in ("diloco", "quorum"))
    assert (every.site_working / every.site_up).values == pytest.approx([0.6, 0.6, 0.3, 1.0])
    assert (every.site_tokens / (5.5 * 3600)).values == pytest.approx(np.full(4, 1e5))
    assert (three.site_working / three.site_up).values == pytest.approx([1, 1, 0.5, 1])
    assert (three.site_tokens / (5.5 * 3600)).values == pytest.approx([1e5 / 0.6, 1e5 / 0.6, 1e5 / 0.6, 0])


def test_a_round_of_a_quorum_is_among_those_that_are_in_time():
    """Three of .6, .6, .3 s and one of 1 s: the ring is of three, 2 x 2/3 copies each, and so is what many cost."""
    site = {**ONE, "groups": {"a": {"sites": 2}, "b": {"flops": 2e15}, "c": {"mfu": 0.3}}}
    three = of("quorum", site, seeds=1)
    stall = 16.0 * 4 / 3 - 0.6 * 2 / 3
    rounds = 5.5 * 3600 / (50 * 0.6 + stall)
    assert three.site_bytes.values[0] == pytest.approx([2e9 * 4 / 3 * rounds] * 3 + [0.0])
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=3 * rounds * 50 * 1e5))
    assert three.loss.values[0, -1] == pytest.approx(level * Q.multiplier(3, 1e9, 50))
    alike = of("quorum", {**ONE, "sites": 4}, seeds=1)
    assert (alike.loss.values == of("diloco", {**ONE, "sites": 4}, seeds=1).loss.values).all()


def test_a_stem_and_its_parts_on_paper():
    """1e9 tokens at one of four equal sites, then 3 copies of 2e9 byte at 1 Gbit/s: 48 s; then nothing is sent."""
    found = of(STEM, seeds=1, record="all").isel(seed=0)
    rate = 1e15 / 6e9
    stem, cut = 1e9 / rate, 48.0
    assert found.tokens.sum().item() == pytest.approx(1e9 + 4 * rate * (5.5 * 3600 - stem - cut))
    assert found.bytes.sum().item() == pytest.approx(6e9)
    ends = found.hours.values * 3600
    assert (found.bytes.values[ends > stem + cut + 1200] == 0).all()
    assert found.sending.sum().item() * 3600 == pytest.approx(cut)
    path = 1e9 + rate * (5.5 * 3600 - stem - cut)
    apart = (path - 1e9) / path
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=path))
    gain = 0.035 * 2 * min(apart / (64 / 88), 1)
    assert found.loss.values[-1] == pytest.approx(level - gain, rel=1e-9)


def test_a_tree_without_branches_is_one_site():
    found = of({**STEM, "levels": 0, "stem_tokens": 0.0}, UNEQUAL, seeds=1)
    assert found.tokens.sum().item() == pytest.approx(2 * 2e15 * 0.5 / 6e9 * 5.5 * 3600)
    assert found.bytes.sum().item() == 0
    assert fff(0).leaves == 1


def test_parts_on_paper():
    """The unit example: a tenth is stem, the rest even or .2 on one of eight; DiPaCo's 8 parts; a path's report."""
    assert quality.frozen_stem_time(0.1, np.full(8, 1 / 8), np.ones(8), 1.0) == pytest.approx(0.2125)
    uneven = [0.2, 0.15, 0.15, *[0.1] * 5]
    assert quality.frozen_stem_time(0.1, uneven, np.ones(8), 1.0) == pytest.approx(0.28)
    assert Q.parts_gain(np.full(8, 1 / 8), 64 / 88) == pytest.approx(log(16.23 / 14.62), abs=1e-3)
    assert Q.parts_gain(np.full(8, 1 / 8), 32 / 88) == pytest.approx(0.105 / 2)
    assert Q.parts_gain([1.0], 1) == 0
    report = path_bits(11, 4096, 32) / 8
    assert report == 11 * 4097 * 32 * 2 == pytest.approx(2.88e6, rel=2e-3)
    assert 1e5 * report * 8 / 600 == pytest.approx(3.85e9, rel=2e-3)


def test_the_server_of_paths_is_shared():
    """Four reports of .52 Mbyte a round: at 2.5e4 bit/s into the server a round of 600 s waits 71 s in the queue."""
    bits = path_bits(2, 4096, 32)
    options = {**PROTOCOLS["path_sync"], "server": 2.5e4}
    found = of(options).sum(["seed", "round"])
    stall = 4 * bits / 2.5e4 - 600 + 2 * bits / 1e9
    assert float(found.working / found.up) == pytest.approx(600 / (600 + stall))


def test_a_swap_with_a_server_on_paper():
    """50 steps of .6 s, then 2e9 byte up and down at 1 Gbit/s; half of .9 of it counts."""
    found = of("volunteers").sum(["seed", "round"])
    work, stall = 50 * 0.6, 2 * 16.0
    assert float(found.working / found.up) == pytest.approx(work / (work + stall))
    expected = 2 * 4 * 5.5 * 3600 / (work + stall) * 50 * 1e5 * 0.9 / 2
    assert float(found.tokens) == pytest.approx(expected)


def test_the_bill_on_paper():
    """2 devices of 4 sites for 5.5 h at $3 and .50 lost a device-hour; 700 W at work, 100 W else, $.1/kWh."""
    site = {**PLACE, "depreciation": 0.5}
    found = of({"policy": "diloco", "steps": 50}, site, seeds=1).sum(["seed", "round"])
    busy = float(found.working) * 2
    energy = (busy * 700 + (44 - busy) * 100) / 1000
    assert float(found.energy) == pytest.approx(energy)
    assert float(found.cost) == pytest.approx(44 * 3.5 + energy * 0.1)
    assert float(found.slack_energy) == pytest.approx((44 - busy) * 0.1)
    assert float(found.slack_cost) == pytest.approx((44 - busy) * 3.5 + (44 - busy) * 0.1 * 0.1)


def test_prices_by_the_hour_begin_anew():
    found = of("data_parallel", {**PLACE, "price": [1.0, 5.0], "watts": 0, "idle_watts": 0}, seeds=1)
    assert (found.cost.isel(seed=0) / (8 / 3)).values == pytest.approx([1, 1, 1, 5, 5, 5] * 2 + [1, 1, 1, 5, 2.5])
    assert found.cost.sum().item() == pytest.approx(8 * (3 * 1 + 2.5 * 5))


SPELLS = {
    "exponential": ({"policy": "exponential", "up_hours": 5.74, "down_hours": 0.81}, 5.74 / 6.55),
    "weibull_lognormal": (
        {"policy": "weibull_lognormal", "shape": 0.6, "scale_hours": 3.0, "mu": 0.2, "sigma": 1.0},
        3 * gamma(1 + 1 / 0.6) / (3 * gamma(1 + 1 / 0.6) + np.exp(0.7)),
    ),
    "trace": ({"policy": "trace", "up": [1, 1, 0, 1, 0], "hours": 2.0}, 0.6),
    "spells": (
        {
            "policy": "spells",
            "up": {"law": "lognormal", "mu": 1.0, "sigma": 0.5},
            "down": {"law": "weibull", "shape": 2.0, "scale_hours": 2.0},
        },
        np.exp(1.125) / (np.exp(1.125) + 2 * gamma(1.5)),
    ),
}


@pytest.mark.parametrize("name", SPELLS)
def test_sites_are_up_as_often_as_renewal_theory_says(name):
    """Also in the first tick: what is found under way is long by choice. Within 4 standard errors over 4000 sites."""
    config, expected = SPELLS[name]
    ticks = presence.availability.only(config)()(np.random.default_rng(0), 4000, 1200.0)
    seconds = np.array([next(ticks).seconds for _ in range(200)]) / 1200
    assert ((seconds >= 0) & (seconds <= 1 + 1e-12)).all()
    for values in (seconds[0], seconds[:3].mean(0), seconds.mean(0)):
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(4000)


def test_a_recorded_trace_from_a_file(tmp_path):
    rows = ["hour,up", *(f"{0.5 * i},{int(i % 4 > 0)}" for i in range(8))]
    path = tmp_path / "zone.csv"
    path.write_text("\n".join(rows))
    found, listed = (presence.trace(up=up, hours=0.5) for up in (str(path), [0, 1, 1, 1] * 2))
    one, other = (next(each(np.random.default_rng(0), 50, 3600.0)) for each in (found, listed))
    assert one.seconds.tolist() == other.seconds.tolist()
    assert one.starts.sum() == other.starts.sum() == pytest.approx(25, rel=0.3)  # each comes up once in 2 h
    path.write_text("\n".join(rows[:4] + rows[5:]))
    with pytest.raises(InputError, match=r"zone.csv: a gap after hour 1; give every 0.5 h a row"):
        presence.trace(up=str(path))
    with pytest.raises(InputError, match="it takes a list or a CSV with hour, up"):
        presence.trace(up="nothing.csv")


def test_stops_come_as_often_as_cycles():
    ticks = presence.exponential(up_hours=2.0, down_hours=1.0)(np.random.default_rng(3), 2000, 3600.0)
    assert np.mean([next(ticks).stops for _ in range(60)]) == pytest.approx(1 / 3, rel=0.02)
    recorded = presence.trace(up=[1, 0, 1, 0])(np.random.default_rng(3), 500, 3600.0)
    assert np.mean([next(recorded).stops for _ in range(40)]) == pytest.approx(0.5, rel=1e-6)


def test_a_restart_is_time_that_is_waited():
    """600 s for each 2 h up, but for what reaches beyond the tick of the stop."""
    up = {"policy": "exponential", "up_hours": 2.0, "down_hours": 0.2}
    site = {**PLACE, "sites": 60, "availability": up, "up": 1e30, "down": 1e30}
    free, paid = (of({"policy": "data_parallel", "restart": r}, site, params=1e8, hours=48) for r in (0.0, 600.0))
    lost = float((free.working - paid.working).sum() / free.up.sum())
    assert 0.85 * 600 / 7200 < lost < 1.03 * 600 / 7200
    assert (paid.up.values == free.up.values).all()


# Charles et al. 2025, arXiv:2503.09799, table 4: ln(L8/L1)/ln 8 at H = 30; Streaming DiLoCo table 6: H 100 over 30.
BETAS = {35e6: 0.0188, 90e6: 0.0154, 335e6: 0.0110, 2.4e9: 0.0070}


def test_replicas_and_bits():
    for params, beta in BETAS.items():
        assert Q.exponent(params, 30) == pytest.approx(beta, abs=6e-4)
    assert Q.exponent(1e9, 100) / Q.exponent(1e9, 30) == pytest.approx(1.38, abs=0.03)
    assert Q.multiplier(1, 1e9, 100) == 1
    assert Q.multiplier(8, 1e9, 1) == 1
    assert Q.kept([16, 4, 1, 0.16, 0.032, 1e-6]).tolist() == pytest.approx([1, 1, 0.99, 0.98, 0.95, 0.95])
    assert Q.kept(0.4) == pytest.approx(0.99 - 0.01 * log(2.5) / log(6.25))
    for grow in ((Q.multiplier, [1, 2, 9], 1e9, 50), (Q.multiplier, 8, 1e9, [10, 99, 1000])):
        assert (np.diff(grow[0](*map(np.array, grow[1:]))) > 0).all()
    assert (np.diff(Q.multiplier(8, np.array([1e8, 1e9, 1e10]), 50)) < 0).all()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_simulated_site_stands_for_many(name):
    one, grouped = (of(name, {**PLACE, "sites": 60, "weight": w}) for w in (1, 15))
    assert grouped.sizes["site"] == 4
    for sum_ in (*SUMS, "loss"):
        assert grouped[sum_].values == pytest.approx(one[sum_].values, rel=1e-9)


def test_a_run_names_what_its_loss_rests_on(command):
    assert "Charles" in of("diloco").attrs["evidence"]
    assert "DiPaCo" in of("frozen_stem").attrs["evidence"]
    assert "evidence" not in of("data_parallel").attrs
    _, out, _ = command("sites", "hours=2", "seeds=1", "figures=false")
    assert "loss of replicas: fitted to Charles" in out


def test_sites_that_cannot_hold_the_model_do_nothing():
    site = {**ONE, "groups": {"a": {"sites": 3}, "b": {"memory": 7e9}}}
    found = of("diloco", site)
    assert found.fits.values.tolist() == [True] * 3 + [False]
    assert (found.site_tokens.values[:, 3] == 0).all()
    assert (found.site_tokens.values[:, :3] > 0).all()


def test_time_and_cost_to_a_loss():
    found = of("diloco", target_loss=2.9)
    first = int(np.argmax(found.loss.values[0] <= 2.9))
    assert 0 < first < 16
    assert found.hours_to_target.values.tolist() == [float(found.hours[first])] * 2
    assert found.cost_to_target.values[0] == found.cost.values[0, : first + 1].sum()
    assert np.isnan(of("diloco", target_loss=0.1).cost_to_target).all()


def test_a_model_by_name_has_its_sizes():
    found = simulate("one_cluster", "diloco", "llama3_8b", hours=1, seeds=1)
    assert found.attrs["model"] == "llama3_8b"
    dense = simulate("one_cluster", "diloco", 8.03e9, hours=1, seeds=1)
    assert float(found.tokens.sum() / dense.tokens.sum()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", choices("site"))
def test_every_place(name):
    found = simulate(name, "streaming", 4e8, hours=2, seeds=1)
    assert float(found.tokens.sum()) > 0
    assert read("site", name)["source"]


@pytest.mark.parametrize("name", choices("protocol"))
def test_every_protocol(name):
    assert read("protocol", name)["policy"] in protocol
    assert float(simulate("three_continents", name, 1e9, hours=2, seeds=1).tokens.sum()) > 0


BAD = {
    "a part of 1.6e\\+14 bytes fits on no site: the largest lacks 1.58e\\+14 bytes": {"params": 1e13},
    "active_params=1000000000.0 has no effect with model=NAME": {"params": "llama3_8b", "active_params": 1e9},
    "stay=0.5 has no effect without rented=NUMBER": {"stay": 0.5},
    "sequence=10 has no effect without model=NAME": {"sequence": 10},
    "site: None; it takes the name": {"site": None},
    "law law: None is no mapping": {"law": None},
    "quorum=9 of 4 sites": {"protocol": {"policy": "diloco", "quorum": 9}},
    "price=-1 is outside": {"site": {**PLACE, "price": -1}},
    "a gap at entry 1": {"site": {**PLACE, "availability": {"policy": "trace", "up": [1, None, 0]}}},
    "up law weibull has shape; it takes shape, scale_hours": {
        "site": {
            **PLACE,
            "availability": {"policy": "spells", "up": {"law": "weibull", "shape": 1}, "down": {"law": "exponential"}},
        }
    },
    "it takes exponential, lognormal, weibull": {
        "site": {**PLACE, "availability": {"policy": "spells", "up": "gamma", "down": "gamma"}}
    },
    "others='wait'; it takes go_on or stop": {"protocol": {"policy": "elastic", "others": "wait"}},
    "exchange": {"protocol": {"policy": "diloco", "exchange": "pigeon"}},
    "d_model=-5 is outside": {"protocol": {"policy": "pipeline", "stages": 1, "d_model": -5}},
    "layers=0 is outside": {"protocol": {"policy": "path_sync", "levels": 2, "layers": 0}},
    "grace=2 is outside": {"protocol": {"policy": "decoupled", "grace": 2}},
    "compression='best'": {"quality": {"compression": "best"}},
    "no world 'atlantis'|no 'atlantis'": {"world": "atlantis"},
    "up takes numbers from 0 to 1": {"site": {**PLACE, "availability": {"policy": "trace", "up": [2]}}},
    "no policy 'sometimes'": {"site": {**PLACE, "availability": "sometimes"}},
    "unknown key 'speed'": {"site": {**PLACE, "speed": 3}},
    "no value for 'flops'": {"site": {"sites": 3}},
    "groups=3": {"site": {**PLACE, "groups": 3}},
    "record=all of 1.2e\\+07 cells": {
        "site": {**PLACE, "sites": 10**5},
        "record": "all",
        "hours": 20,
        "tick_minutes": 20,
    },
    "record='some'": {"record": "some"},
    "hours=0": {"hours": 0},
    "8 parts for 4 simulated sites": {"protocol": {"policy": "frozen_stem", "levels": 3}},
    "levels=50": {"protocol": {"policy": "frozen_stem", "levels": 50}},
    "steps=0": {"protocol": {"policy": "diloco", "steps": 0}},
    "success=2": {"protocol": {"policy": "volunteers", "success": 2}},
    "stale=1 ": {"quality": {"stale": 1}},
    "unknown option 'step'": {"protocol": {"policy": "diloco", "step": 5}},
    "unknown key 'hour'": {"hour": 3},
    "no key 'sites.up'": {"sites.up": 3},
    "takes experts, which a run here does not have": {"law": "ludziejewski2025"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    given = {"site": PLACE, "protocol": "diloco", **SHORT, **BAD[message]}
    params = given.pop("params", 1e9)
    with pytest.raises(InputError, match=message):
        simulate(model=params, **given)


def test_the_command(command):
    code, out, err = command("sites", "site=spot", "protocol=diloco", "protocol.steps=2000", "hours=10", "seeds=1")
    assert code == 0, err
    assert "site spot, protocol diloco, law hoffmann2022" in out
    found = open_result(next(line.split()[-1] for line in out.splitlines() if line.endswith("sites.nc")))
    assert "protocol.steps=2000 lies outside of 10 to 1000" in found.attrs["warnings"]
    again = simulate("spot", "diloco", 1e10, hours=10, seeds=1, **{"protocol.steps": 2000})
    assert found.tokens.values.tolist() == again.tokens.values.tolist()
    assert found.tokens.attrs["units"] == "token"
    code, _, err = command("sites", "model=llama3_8b", "params=1e9")
    assert (code, "params has no effect with model=NAME" in err) == (2, True)


def test_steps_that_nobody_tried_are_told():
    assert "outside of 10 to 1000" in of({"policy": "diloco", "steps": 2000}).attrs["outside"]
    assert "outside" not in of("diloco").attrs | of("data_parallel").attrs | of("elastic").attrs
    many = of("diloco", {**PLACE, "sites": 65}).attrs["outside"]
    assert "up to 65 sites train; nobody has averaged more than 64" in many
    told = [of({**STEM, "levels": n}, {**PLACE, "sites": 16}, hours=12).attrs.get("outside", "") for n in (3, 4)]
    assert told[0] == ""
    assert "parts gain 0.14 nat, more than those of 8 parts" in told[1]


# Leaves of 4, 1, 1, 2 for machines of speed 1 and 3: machine of each leaf, and time over 8/4.
CUT = {
    "balanced": ([0, 0, 1, 1], 2.5),
    "equal": ([0, 1, 1, 1], 2.0),
    "proportional": ([0, 1, 1, 1], 2.0),
    "longest_first": ([1, 1, 1, 0], 1.0),
    "huffman": ([0, 1, 1, 1], 2.0),
}


@pytest.mark.parametrize("how", CUT)
def test_leaves_for_unequal_machines(how):
    masses, speeds = [4, 1, 1, 2], [1, 3]
    owner = cut.cut(masses, speeds, how)
    expected, time = CUT[how]
    assert owner.tolist() == expected
    assert cut.slowest_machine(masses, speeds, owner) == pytest.approx(time)
    parts = cut.part_masses(masses, speeds, how)
    assert parts.sum() == 1
    assert max(parts / speeds) * 4 == pytest.approx(time)


def test_parts_of_a_tree_whose_nodes_tilt():
    """Six levels that send .6 one way: the heaviest of 8 subtrees has 1.728 x its share; Huffman's are within twice."""
    masses = np.array([1.0])
    for _ in range(6):
        masses = np.concatenate([0.6 * masses, 0.4 * masses])
    assert cut.subtrees(masses, 3).max() * 8 == pytest.approx(1.728)
    speeds = np.ones(8)
    times = {how: cut.slowest_machine(masses, speeds, cut.cut(masses, speeds, how)) for how in cut.CUTS}
    assert times["balanced"] == pytest.approx(1.728)
    assert times["longest_first"] < times["huffman"] < times["balanced"]
    parts = cut.part_masses(masses, speeds, "huffman")
    assert parts.max() <= 2 * parts.min()
    with pytest.raises(InputError, match="64 leaves do not divide among the nodes of levels=7"):
        cut.subtrees(masses, 7)


def test_many_leaves_are_cut_as_fine_as_they_are():
    rng = np.random.default_rng(0)
    masses, speeds = rng.exponential(size=512), np.array([1, 2, 3, 10.0])
    times = {how: cut.slowest_machine(masses, speeds, cut.cut(masses, speeds, how)) for how in cut.CUTS}
    assert times["equal"] == pytest.approx(4.0, rel=0.05)  # a quarter of the mass at a sixteenth of the speed
    assert 1 <= times["longest_first"] < 1.01 < times["equal"]
    assert 1 <= times["proportional"] < 1.1
    with pytest.raises(InputError, match="no 'best'"):
        cut.cut([1], [1], "best")


def test_parts_overfit_their_shards():
    """A part's own tokens over a quarter of 4e7: so many passes, of which 4 are free."""
    free, paid = (of(STEM, seeds=1, unique_tokens=u, quality={"overfit": 0.1}) for u in (np.inf, 4e7))
    own = 1e15 / 6e9 * (5.5 * 3600 - 6000 - 48)
    cost = (paid.loss - free.loss).values[0]
    assert cost[-1] == pytest.approx(0.1 * log(own / 1e7 / 4))
    assert cost[3] == 0
    assert quality.Quality(overfit=0.1).overfitted([1, 4, 4 * np.e]).tolist() == pytest.approx([0, 0, 0.1])
