"""Slow links, failures and waiting against the tables of the papers and against closed forms and simulation."""

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.sites.failures import goodput, young_daly
from moesim.sites.links import at_work, bandwidth_for, compute_utilisation, ring_seconds, server_seconds
from moesim.sites.presence import lognormal_spell, weibull_spell
from moesim.sites.waiting import at_least, available, served_once, slowest, slowest_exponential, still_up, straggler

SHARES = (0.5, 0.8, 0.9, 0.95, 0.99)
MODELS = {"1B": (1e9, 0.1, 24), "10B": (1e10, 0.8, 48), "100B": (1e11, 4.9, 108), "405B": (4.05e11, 26.0, 1)}
METHODS = {
    "data parallel": {"steps_between": 1},
    "diloco": {"steps_between": 100},
    "streaming": {"steps_between": 100, "fragments": True},
    "overlap": {"steps_between": 100, "fragments": True, "overlap_steps": 1},
    "fp4": {"steps_between": 100, "fragments": True, "overlap_steps": 1, "bits": 4},
}
# Douillard et al. 2025, arXiv:2501.18512, Table 4: Gbit/s for a compute utilisation of 50, 80, 90, 95, 99 %.
STREAMING = [
    ("1B", "data parallel", 86.8, 152.6, 184.2, 222.3, 569.0),
    ("1B", "diloco", 1.4, 6.2, 13.3, 23.3, 86.8),
    ("1B", "streaming", 1.4, 5.2, 9.1, 16.0, 28.1),
    ("1B", "overlap", 1.4, 4.3, 6.2, 9.1, 11.0),
    ("1B", "fp4", 0.4, 0.9, 1.7, 2.0, 3.0),
    ("10B", "data parallel", 104.8, 222.3, 222.3, 268.3, 471.5),
    ("10B", "diloco", 1.7, 7.5, 16.0, 33.9, 104.8),
    ("10B", "streaming", 1.7, 5.2, 9.1, 13.3, 19.3),
    ("100B", "data parallel", 184.2, 323.8, 390.7, 390.7, 471.5),
    ("100B", "diloco", 3.0, 11.0, 23.3, 49.4, 184.2),
    ("100B", "streaming", 2.4, 6.2, 9.1, 11.0, 19.3),
    ("100B", "overlap", 1.7, 3.6, 4.3, 5.2, 5.2),
    ("100B", "fp4", 0.5, 0.9, 1.1, 1.1, 1.4),
]
# Charles et al. 2025, arXiv:2503.09799, Table 6: the same without fragments, by steps between.
CHARLES = [
    ("10B", 10, 16.0, 49.4, 86.8, 152.6, 222.3),
    ("10B", 100, 1.4, 6.2, 13.3, 23.3, 86.8),
    ("10B", 300, 0.5, 2.0, 4.3, 9.1, 41.0),
    ("405B", 1, 126.5, 222.3, 268.3, 323.8, 323.8),
    ("405B", 100, 2.0, 7.5, 16.0, 33.9, 126.5),
    ("405B", 300, 0.7, 3.0, 6.2, 13.3, 59.6),
]


@pytest.mark.parametrize("row", STREAMING, ids=lambda row: f"{row[0]} {row[1]}")
def test_bandwidths_of_streaming_diloco(row):
    model, method, *printed = row
    params, seconds, layers = MODELS[model]
    given = dict(METHODS[method])
    fragments = layers / 3 if given.pop("fragments", False) else 1
    found = bandwidth_for(np.array(SHARES), params, seconds, fragments=fragments, **given) / 1e9
    off = np.maximum(found / printed, printed / found)
    assert (off[:4] <= 1.25).all()
    assert off[4] <= 2.5


@pytest.mark.parametrize("row", CHARLES, ids=lambda row: f"{row[0]} H {row[1]}")
def test_bandwidths_of_charles(row):
    model, between, *printed = row
    found = bandwidth_for(np.array(SHARES), *MODELS[model][:2], between) / 1e9
    assert (np.maximum(found / printed, printed / found) <= 1.5).all()


@pytest.mark.parametrize(
    ("tokens", "given", "hours"),
    [
        (25e9, METHODS["data parallel"], 109.0),
        (25e9, METHODS["fp4"], 0.88),
        (100e9, METHODS["data parallel"], 438.0),
        (100e9, METHODS["fp4"], 3.5),
    ],
)
def test_hours_at_a_gigabit_per_second(tokens, given, hours):
    """Douillard et al. 2025, Table 1: a model of 1B; compute alone takes .67 h for 25e9 tokens, 2.7 h for 100e9."""
    given = dict(given)
    fragments = 8 if given.pop("fragments", False) else 1
    compute = {25e9: 0.67, 100e9: 2.7}[tokens]
    share = compute_utilisation(1e9, 0.1, bandwidth=1e9, fragments=fragments, **given)
    assert compute / share == pytest.approx(hours, rel=0.04)


def test_streaming_sends_a_four_hundredth():
    """FP4 at H = 100 against 16 bit every step: 4 x 100."""
    assert bandwidth_for(1.0, 1e9, 1e9, 1, bits=16) / bandwidth_for(1.0, 1e9, 1e9, 1, bits=4) == pytest.approx(4)
    slow = {"params": 1e15, "step_seconds": 1e-9, "bandwidth": 1.0}
    each, rare = (compute_utilisation(steps_between=H, bits=b, **slow) for H, b in ((1, 16), (100, 4)))
    assert rare / each == pytest.approx(400, rel=1e-6)


def test_a_link_by_hand():
    """4 bit over a link of 1 bit/s: 4 s, of which (2/3 + 1) 1.5 = 2.5 are hidden; 3 s of work: 3/4.5."""
    given = {"params": 2.0, "step_seconds": 1.5, "steps_between": 4, "bits": 4, "fragments": 2, "overlap_steps": 1}
    assert compute_utilisation(bandwidth=1.0, **given) == pytest.approx(3 / 4.5)
    assert bandwidth_for(3 / 4.5, **given) == pytest.approx(1.0)
    assert compute_utilisation(bandwidth=1.0, **{**given, "replicas": 1}) == 1.0
    # eight in a ring send 2 (7/8) of it: 7 s, 4.5 s stall
    assert compute_utilisation(bandwidth=1.0, **{**given, "replicas": 8}) == pytest.approx(3 / 7.5)


def test_limits_and_order_of_links():
    rng = np.random.default_rng(0)
    params, seconds, between = (
        10 ** rng.uniform(8, 12, 200),
        10 ** rng.uniform(-2, 2, 200),
        10 ** rng.uniform(0, 3, 200),
    )
    bandwidth = np.geomspace(1e5, 1e14, 60)[:, None]
    share = compute_utilisation(params, seconds, between, bandwidth=bandwidth)
    assert (np.diff(share, axis=0) >= 0).all()
    assert ((share > 0) & (share <= 1)).all()
    assert compute_utilisation(1e9, 1.0, 10, bandwidth=1e30) == 1.0
    wanted = rng.uniform(0.01, 0.999, 200)
    found = bandwidth_for(wanted, params, seconds, between)
    assert compute_utilisation(params, seconds, between, bandwidth=found) == pytest.approx(wanted, rel=1e-12)


# Prime Intellect 2024, arXiv:2412.01152: 100 steps of 38 min, median seconds of an average, share at work in %.
INTELLECT = [("USA", 103, 95.7), ("and Europe", 382, 85.6), ("and Asia", 469, 83.0)]


@pytest.mark.parametrize(("where", "stall", "printed"), INTELLECT)
def test_work_and_stall_as_measured(where, stall, printed):
    assert 100 * at_work(2280, stall) == pytest.approx(printed, abs=0.2)


@pytest.mark.parametrize(("bandwidth", "seconds", "share"), [(1e9, 148.6, 93.9), (5e8, 297.1, 88.5), (4e9, 37.1, 98.4)])
def test_a_ring_of_fourteen(bandwidth, seconds, share):
    """10B in 8 bit: 2 (13/14) 80 Gbit at a link; and nothing hidden, as 100 steps of 22.8 s are done before."""
    assert ring_seconds(1e10, 8, bandwidth, 14) == pytest.approx(seconds, abs=0.06)
    found = compute_utilisation(1e10, 22.8, 100, 8, bandwidth, replicas=14, backward=0)
    assert 100 * found == pytest.approx(share, abs=0.06)
    assert bandwidth_for(found, 1e10, 22.8, 100, 8, replicas=14, backward=0) == pytest.approx(bandwidth)


def test_reports_to_a_server():
    """Covenant-72B: 146 times less at 110 Mbit/s up, 70 s of each 20 min; a home of 1.5B in 8 bit, 57 up, 310 down."""
    assert server_seconds(72.7e9, 16 / 146, 110e6, np.inf) == pytest.approx(72.4, abs=0.05)
    assert at_work(1200, 70) == pytest.approx(0.945, abs=5e-4)
    up, both = (server_seconds(1.5e9, 8, 57e6, down) for down in (np.inf, 310e6))
    assert (up, both - up) == pytest.approx((211, 39), abs=0.5)
    # 95 % at work takes 19 times that of local work
    assert 19 * both == pytest.approx(4735, rel=0.005)
    assert server_seconds(1.5e9, 16 / 146, 57e6, 310e6) == pytest.approx(3.4, abs=0.05)


def test_sixteen_superchips_on_slow_links():
    """MIRI's row: 144B, 15.84 PF at .4, 131,072 tokens a step, 72 sites at 100 Mbit/s, 16 times compressed."""
    step = 6 * 144e9 * 131072 / (15.84e15 * 0.4)
    assert step == pytest.approx(17.87, abs=0.005)
    # they send 2 N b, without (M - 1)/M, at a round trip of .1 s, and wait longer by the rule of thumb
    sync = ring_seconds(144e9 * 72 / 71, 1, 1e8, 72, 0.1) * straggler(72)
    assert sync == pytest.approx(3768.6, abs=0.05)
    assert np.ceil(sync / step) == 211
    assert slowest(64, 0.1) < straggler(64) < slowest(64, 0.3)


def test_no_link_and_every_link():
    """Without a limit on links all compute; with hardly any, the share is the work over the send, w W/V."""
    given = {"params": 1e10, "step_seconds": 2.0, "steps_between": 50}
    assert compute_utilisation(bandwidth=1e18, **given) == 1.0
    assert compute_utilisation(bandwidth=1.0, **given) == pytest.approx(50 * 2.0 * 1.0 / 16e10, rel=1e-6)
    assert compute_utilisation(bandwidth=1.0, replicas=1, **given) == 1.0


@pytest.mark.parametrize(
    ("devices", "mode", "printed"),
    [(3600, "synchronous", 0.955), (3600, "elastic", 0.967), (31250, "synchronous", 0.800), (31250, "elastic", 0.904)],
)
def test_goodput_as_published(devices, mode, printed):
    """Decoupled DiLoCo, arXiv:2604.21428: 250B parameters, 24 Gbit/s, 2e-5 failures an hour, 600 s to recover."""
    found = moesim.sites.goodput(250e9, devices, 2e-5, 24e9, 600.0, mode)
    assert found == pytest.approx(printed, abs=5.1e-4)


def test_goodput_of_eight_learners():
    """The same report: 1.2M chips, 8 learners of which one that fails loses .12 of the work: 88 %."""
    found = moesim.sites.goodput(250e9, 1.2e6, 2e-5, 24e9, 600.0, "asynchronous", loss_share=0.12)
    assert found == pytest.approx(0.88, abs=0.005)


def test_goodput_by_hand():
    """c = .5 x 8 bit x 2 B x 1/(4 bit/s) = 2 s, R = 4 x .01/s: tau = 10 s, c/tau + R tau/2 = .4; R t = .04 x 5 = .2."""
    given = (1.0, 4, 36.0, 4.0, 5.0)
    more = {"state_bytes": 2, "write_share": 0.5, "loss_share": 0.1}
    assert young_daly(2.0, 0.04) == pytest.approx((10.0, 0.4))
    assert goodput(*given, "synchronous", **more) == pytest.approx(0.4)
    assert goodput(*given, "elastic", **more) == pytest.approx(0.6 - (1 - np.exp(-0.05)))
    assert goodput(*given, "asynchronous", **more) == pytest.approx(1 - 0.1 * (1 - np.exp(-0.2)))
    assert goodput(1.0, 4e6, 36.0, 4.0, 5.0) == 0.0


def test_young_daly_of_a_minute():
    """c = 1 min, 3.09 h between failures of 16,384 devices (Llama 3): every 19.3 min, 10.4 % lost."""
    interval, lost = young_daly(60.0, 1 / (3.09 * 3600))
    assert interval / 60 == pytest.approx(19.3, abs=0.05)
    assert lost == pytest.approx(0.104, abs=5e-4)


def test_the_interval_between_checkpoints_is_the_best():
    stall, failures = 30.0, 1e-4
    taus = np.geomspace(50, 5e4, 20001)
    losses = stall / taus + failures * taus / 2
    best = young_daly(stall, failures)
    assert taus[losses.argmin()] == pytest.approx(best.interval, rel=1e-3)
    assert losses.min() == pytest.approx(best.lost, rel=1e-6)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: slowest_exponential(8), 2.718),
        (lambda: slowest_exponential(64), 4.744),
        (lambda: slowest_exponential(20), 3.598),
        (lambda: slowest_exponential(20, 18), 2.098),
        (lambda: slowest_exponential(24, 20), 1.693),
        (lambda: slowest(8, 0.3), 1.491),
        (lambda: slowest(64, 0.3), 1.949),
        (lambda: slowest(512, 0.3), 2.398),
        (lambda: slowest(64, 0.1), 1.259),
        (lambda: at_least(20, 20, 0.9), 0.1216),
        (lambda: at_least(18, 20, 0.9), 0.6769),
        (lambda: at_least(20, 24, 0.9), 0.9149),
        (lambda: available(5.74, 0.81), 0.876),
        (lambda: still_up(0.393, 2.964, 4.0), 0.822),
        (lambda: still_up(1.0, 10.35, 4.0), 0.679),
        (lambda: served_once(8), 21.743),
        (lambda: weibull_spell(0.393, 2.964).mean, 10.35),
        (lambda: lognormal_spell(-0.586, 2.844).mean, 31.76),
        (lambda: available(10.35, 31.76), 0.2458),
    ],
)
def test_waiting_in_closed_form(found, expected):
    assert found() == pytest.approx(expected, rel=1.1e-3)


@pytest.mark.parametrize("mode", ["synchronous", "elastic", "asynchronous"])
def test_limits_of_failures_and_links(mode):
    assert goodput(1e9, 8, 0.0, 1e9, 60, mode) == 1.0
    assert goodput(1e9, 8, 1e-5, np.inf, 0.0, mode) == 1.0
    assert compute_utilisation(1e9, 1.0, 10, bandwidth=np.inf) == 1.0


def test_waiting_by_simulation():
    """Order statistics of drawn times, and hosts found at a random moment of long records."""
    rng = np.random.default_rng(0)
    times = np.sort(np.exp(0.3 * rng.standard_normal((20000, 16))), axis=1) / np.exp(0.045)
    assert slowest(16, 0.3) == pytest.approx(times[:, -1].mean(), rel=0.01)
    assert slowest(16, 0.3, 12) == pytest.approx(times[:, 11].mean(), rel=0.01)
    lengths = weibull_spell(0.393, 2.964).draw(rng, 400000)
    assert [(lengths > hours).mean() for hours in (1, 24)] == pytest.approx([0.521, 0.103], abs=0.003)
    found = lengths[np.searchsorted(lengths.cumsum(), rng.uniform(0, lengths.sum(), 100000))]
    left = found * rng.uniform(size=found.size)
    assert still_up(0.393, 2.964, 4.0) == pytest.approx((left > 4).mean(), abs=0.03)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: goodput(1e9, 8, 1e-5, 1e9, 60, "magic"), "mode='magic'; it takes asynchronous, elastic, synchronous"),
        (lambda: goodput(1e9, 8, -1.0, 1e9, 60), "failures_per_hour=-1 is outside"),
        (lambda: compute_utilisation(1e9, 1.0, 0.5), "steps_between=0.5 is outside"),
        (lambda: compute_utilisation(1e9, 1.0, 10, bandwidth=-1), "bandwidth=-1 is outside"),
        (lambda: bandwidth_for(1.5, 1e9, 1.0, 10), "utilisation=1.5 is outside"),
    ],
)
def test_bad_numbers_are_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()
