"""Protocols of sites on paper: failures, joins, quorums, pipelines, experts, prices, and what was measured."""

import numpy as np
import pytest

from moesim.config import read
from moesim.domains.curves import worth_of
from moesim.errors import InputError
from moesim.laws.load import load_law
from moesim.sites import goodput, quality, simulate
from moesim.sites.failures import young_daly
from moesim.sites.place import groups_of
from moesim.sites.protocols import protocol
from moesim.sites.waiting import at_least, slowest

Q = quality.Quality()
FAST = {"up": 1e30, "down": 1e30}
SITE = {"flops": 1e15, "mfu": 0.5, "memory": 1e12, "up": 1e9, "down": 1e9, "devices": 2}
HOURS = 5.5
RATE = 1e15 / 6e9  # tokens/s of a site at 1e9 parameters; 1e5 tokens are a step of .6 s


def of(site, protocol, params=1e9, **settings):
    return simulate(site, protocol, params, **{"hours": HOURS, "seeds": 1, "batch": 1e5, **settings})


def ends(found):
    return found.sum(["seed", "round"])


def test_a_quorum_with_grace():
    """Reports after 30, 30, 15 and 50 s; three close the average at 30, and 10 or 40 steps hide more."""
    site = {**SITE, **FAST}
    site["groups"] = {"a": {"sites": 2}, "b": {"flops": 2e15}, "c": {"mfu": 0.3}}
    given = {"policy": "decoupled", "steps": 50, "quorum": 3, "bits": 4}
    late = of(site, {**given, "overlap": 10}, quality={"stale": 0.5})  # 30 + 6.4 s
    there = of(site, {**given, "overlap": 40}, quality={"stale": 0.5})  # 30 + 24.4 s
    strict = of(site, {**given, "overlap": 40, "grace": 0.0}, quality={"stale": 0.5})
    rates = np.array([1, 1, 2, 0.6]) * RATE * HOURS * 3600
    assert late.site_tokens.values[0] == pytest.approx(rates * [1, 1, 1, 0.5])
    assert there.site_tokens.values[0] == pytest.approx(rates)
    assert strict.site_tokens.values[0] == pytest.approx(rates * [1, 1, 1, 0.5])
    for found in (late, there):
        assert found.site_working.values == pytest.approx(found.site_up.values)
    level = load_law("hoffmann2022")
    for found, sites in ((late, 3), (there, 4)):
        loss = float(level(total_params=1e9, tokens=float(found.tokens.sum())))
        assert found.loss.values[0, -1] == pytest.approx(loss * Q.multiplier(sites, 1e9, 50))


def test_decoupled_stalls_for_what_is_not_hidden():
    """A ring of 4 sends 6e9 bit of 4 bits: 6 s at 1 Gbit/s, of which (2/3 + 5) .6 = 3.4 s are hidden; 30 s of work."""
    found = ends(of({**SITE, "sites": 4}, {"policy": "decoupled", "steps": 50, "quorum": 4, "bits": 4, "overlap": 5}))
    assert float(found.working / found.up) == pytest.approx(30 / 32.6)
    assert float(found.bytes) == pytest.approx(4 * HOURS * 3600 / 32.6 * 6e9 / 8)


def test_without_a_quorum_all_wait():
    up = {"policy": "trace", "up": [1, 0], "hours": 50.0}
    found = of({**SITE, "sites": 3, "availability": up}, {"policy": "decoupled", "quorum": 3}, seeds=4)
    there = found.up.values / np.diff(found.hours.values, prepend=0.0) >= 3 - 1e-9
    assert (found.tokens.values[~there] == 0).all()
    assert (found.tokens.values[there] > 0).all()


FAILING = {"params": 1e9, "hours": 400.0, "seeds": 8, "batch": 1e5, "tick_minutes": 120.0}


@pytest.mark.parametrize("others", ["stop", "go_on"])
@pytest.mark.parametrize("checkpoint", [20.0, 120.0])
def test_failures_cost_what_the_closed_form_says(others, checkpoint):
    """8 sites of 4 devices, one of which fails in 2000 s: within 3 standard errors of goodput, over 8 seeds."""
    hourly = 3600 / 2000 / 32
    site = {**SITE, **FAST, "sites": 8, "devices": 4, "failures_per_hour": hourly}
    given = {"policy": "elastic", "checkpoint": checkpoint, "recovery": 60.0, "others": others}
    found = of(site, given, **FAILING).tokens.sum("round") / (8 * 2 * RATE * 400 * 3600)
    bandwidth = 0.02 * 8 * 16 * 1e9 / checkpoint
    mode = {"stop": "synchronous", "go_on": "elastic"}[others]
    expected = goodput(1e9, 32, hourly, bandwidth, 60.0, mode)
    assert abs(float(found.mean()) - expected) < 3 * float(found.std(ddof=1)) / np.sqrt(8) + 1e-5
    assert float(found.std()) < 0.01


def test_work_done_again_is_work():
    """A checkpoint of 18 s each 360 s stalls 5 %; half an interval is done again at each failure and is no waiting."""
    site = {**SITE, **FAST, "sites": 8, "failures_per_hour": 0.05}
    found = of(
        site,
        {"policy": "elastic", "checkpoint": 18.0, "every": 360.0, "recovery": 0.0},
        hours=300,
        seeds=4,
        tick_minutes=60,
    )
    total = ends(found)
    assert float(total.working / total.up) == pytest.approx(0.95, rel=1e-9)
    lost = 0.95 - float(found.tokens.sum()) / (4 * 8 * RATE * 300 * 3600)
    assert lost == pytest.approx(16 * 0.05 / 3600 * 180, rel=0.15)


@pytest.mark.parametrize("joins", ["alone", "all"])
def test_who_joins_copies_the_state(joins):
    """16e9 byte at 1 Gbit/s are 128 s: of the one that comes, or of all two; one comes each 2 h of one that stays."""
    site = {**SITE, "up": 1e30}
    site["groups"] = {"stays": {}, "goes": {"availability": {"policy": "trace", "up": [1, 1, 1, 0], "hours": 0.5}}}
    given = {"policy": "elastic", "every": 1e12, "joins": joins, "bits": 1e-9}
    found = of(site, given, hours=200).isel(seed=0)
    lost = (found.site_up - found.site_working) * 3600 / 100
    assert lost.sel(site="goes").item() == pytest.approx(128, rel=0.02)
    assert lost.sel(site="stays").item() == pytest.approx(0 if joins == "alone" else 128, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("every", [600.0, 7200.0])
def test_a_stop_sends_all_back_to_the_checkpoint(every):
    """Each stop, one in 2 h, loses half an interval, be it longer than a tick, and 120 s of recovery of everyone."""
    site = {**SITE, **FAST}
    site["groups"] = {"stays": {}, "goes": {"availability": {"policy": "trace", "up": [1, 1, 1, 0], "hours": 0.5}}}
    given = {"policy": "elastic", "checkpoint": 1e-9, "every": every, "recovery": 120.0, "others": "stop"}
    found = of(site, given, hours=200).isel(seed=0)
    assert (200 - found.site_working.sel(site="stays").item()) * 36 == pytest.approx(120, rel=0.02)
    lost = 1 - found.site_tokens.sel(site="stays").item() / (RATE * 200 * 3600)
    assert lost == pytest.approx((every / 2 + 120) / 7200, rel=0.02)
    with pytest.raises(InputError, match=r"sites go down, but no failures .* give protocol.every"):
        of(site, {**given, "every": None}, hours=20)


def test_the_interval_is_the_best_for_the_devices():
    site = {**SITE, **FAST, "sites": 8, "failures_per_hour": 0.01}
    rate = 16 * 0.01 / 3600
    best = young_daly(30.0, rate)
    given = {"policy": "elastic", "checkpoint": 30.0, "recovery": 0.0}
    own, given_interval = (of(site, {**given, "every": e}, hours=40) for e in (None, float(best.interval)))
    assert own.tokens.values == pytest.approx(given_interval.tokens.values)


def test_a_pipeline_on_paper():
    """Three stages and 8 micro-batches: a bubble of 2 in 10. With links of 1 Gbit/s: activations of 12,500 tokens."""
    given = {"policy": "pipeline", "stages": 3, "d_model": 100, "steps": 10}
    free = of({**SITE, **FAST, "sites": 3}, given)
    assert float(ends(free).working / ends(free).up) == pytest.approx(8 / 10)
    assert float(free.tokens.sum()) == pytest.approx(3 * RATE * 0.8 * HOURS * 3600)
    found = ends(of({**SITE, "sites": 3, "latency": 0.01}, given))
    compute, hop = 0.6 / 8 / 3, 2 * 12500 * 100 * 16 / 1e9 + 0.01
    step = 10 * (compute + hop)
    assert float(found.working / found.up) == pytest.approx(8 * compute / step)
    links = 2  # between three stages, each with an activation and a gradient
    assert float(found.bytes) == pytest.approx(links * HOURS * 3600 / step * 8 * 2 * 12500 * 100 * 16 / 8)


def test_pipelines_are_averaged_and_the_rest_is_idle():
    """Seven sites are two pipelines of three, each site a third of the model, and one left over."""
    given = {"policy": "pipeline", "stages": 3, "steps": 10, "bits": 8, "d_model": 1}
    found = of({**SITE, "sites": 7}, given)
    compute = 0.6 / 24
    step = 10 * (compute + 2 * 12500 * 16 / 1e9)
    stall = 1e9 / 3 * 8 / 1e9 - step * 2 / 3  # a ring of two sends it once
    total = found.site_working.isel(seed=0).values
    assert total[:6] == pytest.approx(HOURS * 10 * 8 * compute / (10 * step + stall))
    assert total[6] == 0
    loss = float(load_law("hoffmann2022")(total_params=1e9, tokens=float(found.tokens.sum())))
    kept = 1.0 - 0.0
    assert found.loss.values[0, -1] == pytest.approx(loss * Q.multiplier(2, 1e9, 10) * kept, rel=2e-4)


def test_a_pipeline_takes_the_stages_that_memory_asks():
    """16e9 byte of state over sites of 6e9: three; of 4e9 four; too few sites or stages are told."""
    site = {**SITE, **FAST, "devices": 1, "memory": 6e9, "flops": 2e15, "sites": 4}
    at_work = [float(ends(of({**site, "memory": m}, "pipeline")).working) / (4 * HOURS) for m in (6e9, 4e9)]
    assert at_work == pytest.approx([0.75 * 8 / 10, 8 / 11])
    with pytest.raises(InputError, match="5 stages for 4 sites"):
        of({**site, "memory": 3.5e9}, "pipeline")
    with pytest.raises(InputError, match=r"a stage of 8e\+09 bytes lacks 2e\+09 bytes"):
        of(site, {"policy": "pipeline", "stages": 2})
    whole = of({**site, "memory": 16e9}, {"policy": "pipeline"})
    assert float(ends(whole).working) == pytest.approx(4 * HOURS)


def test_experts_where_their_data_are():
    """A fifth is shared and averaged: a ring of 4 sends 1.5 x 3.2e9 bit in 4.8 s less .4, after 30 s."""
    given = {"policy": "experts", "steps": 50, "shared": 0.2}
    found = of({**SITE, "sites": 4}, given)
    total = ends(found)
    assert float(total.working / total.up) == pytest.approx(30 / 34.4)
    tokens = float(found.tokens.sum())
    seen = 0.2 * tokens + 0.8 * tokens / 4
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=seen))
    gain = 0.035 * 2 * 0.8
    assert found.loss.values[0, -1] == pytest.approx(level * Q.multiplier(4, 1e9, 50) ** 0.2 - gain, rel=1e-9)
    alone = of({**SITE, "sites": 4}, {**given, "shared_are": "replicated"})
    assert float(alone.bytes.sum()) == 0
    assert float(ends(alone).working) == pytest.approx(4 * HOURS)


def test_a_failed_expert_is_left_out_of_the_mean():
    """Three of four are up: a ring of three, 4/3 x 3.2e9 bit, and the fourth does not stall it."""
    site = {**SITE, "groups": {"a": {"sites": 3}, "b": {"availability": {"policy": "trace", "up": [0]}, "up": 1e3}}}
    found = of(site, {"policy": "experts", "steps": 50, "shared": 0.2})
    total = ends(found)
    assert float(total.working / total.up) == pytest.approx(30 / (30 + 3.2 * 4 / 3 - 0.4))
    assert (found.site_tokens.values[0] > 0).tolist() == [True] * 3 + [False]


def test_experts_need_less_memory_than_the_model():
    """(.2 + .8/4) of 16e9 byte are 6.4e9."""
    site = {**SITE, "devices": 1, "flops": 2e15, "sites": 4}
    assert float(of({**site, "memory": 6.4e9}, {"policy": "experts", "shared": 0.2}).tokens.sum()) > 0
    with pytest.raises(InputError, match=r"experts of 6.4e\+09 bytes fit on no site: the largest lacks 4e\+08 bytes"):
        of({**site, "memory": 6e9}, {"policy": "experts", "shared": 0.2})


def test_for_the_same_time_nobody_waits():
    """Sites of speed 1, 1, 2 and .6 train for the time of a mean one, each as many steps as it can."""
    site = {**SITE, **FAST, "groups": {"a": {"sites": 2}, "b": {"flops": 2e15}, "c": {"mfu": 0.3}}}
    found = of(site, {"policy": "diloco", "steps": 50, "pace": "time"})
    assert found.site_working.values == pytest.approx(found.site_up.values)
    assert found.site_tokens.values[0] == pytest.approx(np.array([1, 1, 2, 0.6]) * RATE * HOURS * 3600)
    with pytest.raises(InputError, match="quorum with pace=time"):
        of(site, {"policy": "diloco", "quorum": 2, "pace": "time"})


@pytest.mark.parametrize(("exchange", "seconds"), [("ring", 24.0), ("server", 16 + 8), ("upload", 16)])
def test_ways_to_average(exchange, seconds):
    """16 Gbit of each of four: 1.5 times in a ring; up at 1 and down at 2 Gbit/s by a server; up alone."""
    given = {"policy": "diloco", "steps": 50, "exchange": exchange, "backward": 0}
    found = ends(of({**SITE, "sites": 4, "down": 2e9}, given))
    assert float(found.working / found.up) == pytest.approx(30 / (30 + seconds))


# Prime Intellect 2024: share at work in the US, with Europe, with Asia.
@pytest.mark.parametrize(
    ("where", "printed"), [(["america"], 95.7), (["america", "europe"], 85.6), (["america", "europe", "asia"], 83.0)]
)
def test_intellect_by_simulation(where, printed):
    """10B in 8 bits after 100 steps of 22.8 s: 1,048,576 tokens at an mfu of .433 of 8 H100 with 7.45e10 FLOP each."""
    site = read("site", "three_continents")
    site = {**site, "groups": {name: site["groups"][name] for name in where}}
    found = ends(of(site, "diloco", 1e10, batch=1048576, flops_per_token=7.45e10))
    assert 100 * float(found.working / found.up) == pytest.approx(printed, abs=0.2)


def test_covenant_by_simulation():
    """72.7B, 146 times less every 20 min: .945 measured with 70 s; 72.4 s at the nominal 110 Mbit/s."""
    rate = 8 * 2.25e15 * 0.4 / (6 * 72.7e9)
    found = ends(of(read("site", "peers"), "covenant", 72.7e9, batch=rate * 40, state_bytes=16))
    assert float(found.working / found.up) == pytest.approx(0.945, abs=0.0021)


def test_the_slowest_of_many_by_simulation():
    """Waiting for the last of 8 sites whose times are lognormal, sigma .3: 200 seeds, 3 standard errors."""
    found = of({**SITE, **FAST, "sites": 8, "spread": 0.3}, "data_parallel", seeds=200, hours=1)
    spent = 3600 / (found.tokens.sum("round") / 8 / RATE)  # s for each second of a site of mean speed
    # the mean of a time is exp(sigma^2) where that of a speed is 1
    expected = slowest(8, 0.3) * np.exp(0.09)
    assert abs(float(spent.mean()) - expected) < 3 * float(spent.std(ddof=1)) / np.sqrt(200)


def test_a_quorum_is_there_as_often_as_the_binomial_says():
    """18 of 20 sites that are up .9 of the time, at one moment of 1000 seeds, within 3 standard errors."""
    up = {"policy": "exponential", "up_hours": 9.0, "down_hours": 1.0}
    site = {**SITE, "sites": 20, "availability": up}
    found = of(site, {"policy": "decoupled", "quorum": 18}, hours=1e-3, tick_minutes=0.06, seeds=1000)
    expected = at_least(18, 20, 0.9)
    assert expected == pytest.approx(0.6769, abs=5e-5)
    error = np.sqrt(expected * (1 - expected) / 1000)
    assert abs(float((found.tokens > 0).mean()) - expected) < 3 * error


def test_while_down_only_depreciation_and_standby_cost():
    """Up half of the time at $3, always $.50 of wear and 5 W; two devices, $.1/kWh; 700 W at work."""
    up = {"policy": "trace", "up": [1, 0], "hours": 50.0}
    site = {**SITE, "availability": up, "price": 3.0, "depreciation": 0.5, "watts": 700, "down_watts": 5, "tariff": 0.1}
    found = ends(of(site, "data_parallel", hours=100))
    energy = 2 * (50 * 0.7 + 50 * 0.005)
    assert float(found.energy) == pytest.approx(energy)
    assert float(found.cost) == pytest.approx(2 * (50 * 3 + 100 * 0.5) + 0.1 * energy)
    assert float(found.slack_cost) == pytest.approx(0, abs=1e-9)


def test_slack_is_paid_in_rent():
    """At .83 at work and .15 of the watts idle, slack costs 20.5 % of the rent at work and 3.1 % of its energy."""
    site = {**SITE, **FAST, "sites": 1, "price": 1.0, "watts": 100, "idle_watts": 15}
    work = 600.0 * 0.6
    site = {**site, "sites": 2, "up": 16e9 / (work * (1 / 0.83 - 1)), "down": 1e30}
    found = ends(of(site, {"policy": "diloco", "steps": 600, "backward": 0}, hours=10))
    assert float(found.working / found.up) == pytest.approx(0.83)
    assert float(found.slack_cost / (found.cost - found.slack_cost)) == pytest.approx(0.205, abs=5e-4)
    assert float(found.slack_energy / (found.energy - found.slack_energy)) == pytest.approx(0.031, abs=5e-4)


def test_watts_of_a_site_that_sends():
    site = {**SITE, "sites": 2, "watts": 0, "idle_watts": 100, "sending_watts": 300}
    found = ends(of(site, {"policy": "diloco", "steps": 50, "backward": 0}))
    assert float(found.sending) > 0
    assert float(found.energy) == pytest.approx(float(found.sending) * 2 * 0.3)


def test_gpt3_in_one_cluster():
    """3.15e23 FLOP on H100 at .4 of the peak: 154 MWh and, at $2.35 an hour, $518k; 492 Wh per 1e18."""
    site = {**read("site", "one_cluster"), "up": 1e30, "down": 1e30, "tariff": 0.0, "failures_per_hour": 0.0}
    found = ends(of(site, "data_parallel", 174.6e9, batch=1e6, state_bytes=1, hours=24))
    flops = float(found.tokens) * 6 * 174.6e9
    assert float(found.energy) / flops * 1e21 == pytest.approx(492, rel=2e-3)
    assert float(found.energy) / flops * 3.15e23 == pytest.approx(154e3, rel=0.01)
    assert float(found.cost) / flops * 3.15e23 == pytest.approx(518e3, rel=0.005)


def test_names_and_order_of_groups_change_nothing():
    up = {"policy": "exponential", "up_hours": 2.0, "down_hours": 0.5}
    site = {**SITE, "availability": up, "spread": 0.2}
    one = of({**site, "groups": {"a": {"sites": 2}, "b": {"price": 3.0}, "c": {"sites": 2, "price": 1.0}}}, "diloco")
    two = of({**site, "groups": {"z": {"sites": 2, "price": 1.0}, "b": {"sites": 2}, "y": {"price": 3.0}}}, "diloco")
    for name in ("up", "tokens", "bytes", "cost", "loss"):
        assert two[name].values == pytest.approx(one[name].values, rel=1e-12, nan_ok=True)
    assert two.site_up.sel(site=["z 0", "z 1"]).values.tolist() == one.site_up.sel(site=["c 0", "c 1"]).values.tolist()


def test_a_key_for_all_sites_holds_in_groups_too():
    """Python's dotted keys: every link of three continents at 1e12 bit/s, and nobody waits for it any more."""
    fast = simulate("three_continents", "diloco", 1e10, hours=2, seeds=1, **{"site.up": 1e12, "site.down": 1e12})
    assert float(ends(fast).working / ends(fast).up) > 0.999
    assert (fast.bandwidth.values == 1e12).all()


def test_a_chip_fills_in_what_a_site_does_not_say():
    found = groups_of({"chip": "h100", "up": 1e9, "down": 1e9, "price": 9.0})["all"]
    assert (found.flops, found.memory, found.watts, found.idle_watts) == (989e12, 80e9, 700, 105)
    assert found.price == (9.0,)
    with pytest.raises(InputError, match="chip: no 'h101'"):
        groups_of({"chip": "h101", "up": 1e9, "down": 1e9})


def test_failures_of_llama():
    """419 stops of 16,384 devices in 54 days."""
    assert read("site", "data_centres")["failures_per_hour"] == pytest.approx(419 / (54 * 24 * 16384), rel=2e-3)


def test_what_repairs_a_loss_in_tokens():
    """At 10B and 200B tokens: 1.002 takes 1.080 times the tokens, 1.005 1.217, 1.0104 1.526 (D's exponent .3658)."""

    def loss(tokens):
        return 1.8172 + 482.01 / 10e9**0.3478 + 2085.43 / tokens**0.3658

    found = [quality.repaired(loss, 200e9, factor) for factor in (1.0, 1.002, 1.005, 1.0104)]
    assert found == pytest.approx([1.0, 1.080, 1.217, 1.526], abs=6e-4)
    assert quality.repaired(loss, 200e9, 2.0) == np.inf


# Charles et al. 2025, arXiv:2503.09799, tables 4 and 5, H = 30: loss of 1, 2, 4, 8 replicas.
REPLICAS = {
    35e6: (3.482, 3.508, 3.554, 3.621),
    90e6: (3.162, 3.182, 3.213, 3.265),
    335e6: (2.777, 2.788, 2.808, 2.841),
    2.4e9: (2.317, 2.323, 2.332, 2.351),
    10e9: (2.086, 2.086, 2.096),
}


@pytest.mark.parametrize("params", REPLICAS)
def test_replicas_as_charles_measured(params):
    losses = np.array(REPLICAS[params])
    found = Q.multiplier(2.0 ** np.arange(len(losses)), params, 30)
    assert found == pytest.approx(losses / losses[0], abs=0.0065)


# Streaming DiLoCo, arXiv:2501.18512, table 6: loss of 2 and 4 replicas at H = 30, then at H = 100.
CADENCE = [(3.53, 3.60, 3.56, 3.64), (3.21, 3.25, 3.22, 3.29), (2.81, 2.84, 2.83, 2.87), (2.48, 2.50, 2.50, 2.53)]


def test_cadence_as_measured():
    """What doubling the replicas costs grows from H = 30 to 100 as ln H: 1.35; measured 1.42 over these four sizes."""
    measured = np.mean([np.log(d / c) / np.log(b / a) for a, b, c, d in CADENCE])
    assert Q.exponent(1e9, 100) / Q.exponent(1e9, 30) == pytest.approx(measured, abs=0.1)


def test_dipaco():
    """arXiv:2403.10616, table 1: 8 independent parts are .105 nat better than one, as 8 times the steps (14.72)."""
    gain = Q.parts_gain(np.full(8, 1 / 8), 64 / 88)
    assert gain == pytest.approx(np.log(16.23 / 14.62), abs=6e-4)
    assert gain == pytest.approx(np.log(16.23 / 14.72), abs=0.01)


ONE_SITE = {
    "data_parallel": {},
    "diloco": {},
    "decoupled": {},
    "elastic": {},
    "pipeline": {"stages": 1},
    "asynchronous": {},
    "volunteers": {"copies": 1},
    "frozen_stem": {"levels": 0, "stem_tokens": 0.0},
    "path_sync": {"levels": 0},
    "experts": {},
}


@pytest.mark.parametrize("name", protocol)
def test_one_site_is_one_run(name):
    """Whatever the protocol, on any link: all its time is work, nothing is sent, and the loss is that of the law."""
    found = of({**SITE, "up": 1e3, "down": 1e3}, {"policy": name, **ONE_SITE[name]})
    tokens = RATE * HOURS * 3600
    assert float(found.tokens.sum()) == pytest.approx(tokens)
    assert float(found.bytes.sum()) == 0
    loss = float(load_law("hoffmann2022")(total_params=1e9, tokens=tokens))
    assert found.loss.values[0, -1] == pytest.approx(loss)


@pytest.mark.parametrize("name", protocol)
def test_links_without_limit_leave_every_site_at_work(name):
    """And all tokens count; but for a tree's sites without a part there is no slack."""
    given = {"frozen_stem": {"levels": 2, "stem_tokens": 0.0}, "path_sync": {"levels": 2}}.get(name, ONE_SITE[name])
    found = of({**SITE, **FAST, "sites": 4}, {"policy": name, **given})
    assert float(found.tokens.sum()) == pytest.approx(4 * RATE * HOURS * 3600)
    assert float(found.working.sum()) == pytest.approx(4 * HOURS)
    loss = float(load_law("hoffmann2022")(total_params=1e9, tokens=4 * RATE * HOURS * 3600))
    if name in ("data_parallel", "elastic"):
        assert found.loss.values[0, -1] == pytest.approx(loss)
    assert found.loss.values[0, -1] >= loss - 0.07 - 1e-9


def test_a_model_by_name_has_its_shape():
    """DeepSeek-V3: 58 layers of 256 experts of 3 x 7168 x 2048; what is no expert is .025 of all."""
    shared = 1 - 58 * 256 * 3 * 7168 * 2048 / 671.03e9
    site = {**SITE, **FAST, "memory": 1e14, "sites": 4, "up": 1e9}
    named, own = (of(site, {"policy": "experts", **given}, "deepseek_v3") for given in ({}, {"shared": shared}))
    assert shared == pytest.approx(0.025, abs=1e-3)
    assert float(named.bytes.sum()) == pytest.approx(float(own.bytes.sum()), rel=1e-3)
    piped, wide = (of(site, {"policy": "pipeline", "stages": 2, **w}, "deepseek_v3") for w in ({}, {"d_model": 7168}))
    assert piped.tokens.values == pytest.approx(wide.tokens.values)


def test_repeated_tokens_are_worth_less():
    """A world of 1e9 unique tokens, repeated three times by muennighoff2023; each part has its own of them."""
    world = {"policy": "given", "frequency": [0.25] * 4, "unique_tokens": 1e9, "rho": 0.0, "shuffle": False}
    plain, rich = (
        of({**SITE, **FAST, "sites": 4}, "data_parallel", world={**world, "unique_tokens": u}) for u in (1e9, 1e15)
    )
    free = of({**SITE, **FAST, "sites": 4}, "data_parallel")
    assert rich.loss.values == pytest.approx(free.loss.values, rel=1e-4)
    assert (plain.loss.values[0, 2:] > free.loss.values[0, 2:]).all()
    worth = worth_of("muennighoff2023")(float(plain.tokens.sum()), 1e9)
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=worth))
    assert plain.loss.values[0, -1] == pytest.approx(level)
    stem = {"policy": "frozen_stem", "levels": 2, "stem_tokens": 0.0}
    parts = of({**SITE, **FAST, "sites": 4}, stem, world=world)
    own = worth_of("muennighoff2023")(float(parts.tokens.sum()) / 4, 2.5e8)
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=own))
    assert parts.loss.values[0, -1] == pytest.approx(level - 0.07)
