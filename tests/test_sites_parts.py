"""Trees in parts on many hosts: what comes too late, who leaves, and who averages."""

import numpy as np
import pytest
from test_sites_protocols import FAST, HOURS, RATE, SITE, Q, of

from moesim.errors import InputError
from moesim.laws.load import load_law


def test_units_that_come_too_late_are_lost():
    """Units of 6000 steps of .6 s take 1 h, at a tenth of the speed 10 h: due in 2 h, the slow ones never count."""
    site = {**SITE, **FAST, "groups": {"fast": {}, "slow": {"mfu": 0.05}}}
    given = {"policy": "volunteers", "steps": 6000, "copies": 1, "deadline_hours": 2.0}
    found = of(site, given, hours=24)
    assert found.site_tokens.values[0] == pytest.approx([24 * 6000 * 1e5, 0], rel=0.05)
    assert found.site_working.values[0] == pytest.approx([24, 24])
    free = of(site, {**given, "deadline_hours": np.inf}, hours=24)
    assert free.site_tokens.values[0] == pytest.approx([24 * 6000 * 1e5, 2.4 * 6000 * 1e5])


def test_hosts_that_leave_lose_what_is_due():
    """Up 1 h of each 4: a unit of 1 h is back in 1 to 4 h, so that a deadline of 4 h loses hardly any and 1 h most."""
    up = {"policy": "trace", "up": [1, 0, 0, 0], "hours": 1.0}
    site = {**SITE, **FAST, "sites": 40, "availability": up}
    given = {"policy": "volunteers", "steps": 6000, "copies": 1}
    tokens = [float(of(site, {**given, "deadline_hours": h}, hours=200).tokens.sum()) for h in (1.0, 2.0, 4.4, np.inf)]
    assert tokens[0] < tokens[1] < tokens[2]
    assert tokens[2] == pytest.approx(tokens[3], rel=0.03)
    assert tokens[0] < 0.2 * tokens[3]


def test_the_unit_example_of_a_frozen_stem():
    """A tenth of the work is stem. Eight even parts take .2125 of one site's time; of .2, .15, .15, .1 x 5, .28."""
    site, work = {**SITE, **FAST, "sites": 8}, RATE * 100 * 3600
    given = {"policy": "frozen_stem", "levels": 3, "stem_tokens": work / 10, "tokens": work}
    worlds = {0.2125: None, 0.28: {"policy": "given", "frequency": [0.2, 0.15, 0.15, *[0.1] * 5], "shuffle": False}}
    for time, world in worlds.items():
        found = of(site, {**given, "cut": "balanced"}, hours=40, tick_minutes=6, world=world)
        assert float(found.tokens.sum()) == pytest.approx(work)
        done = found.hours.values[np.argmax(found.tokens.cumsum("round").values[0] >= work * (1 - 1e-12))]
        assert done == pytest.approx(100 * time, abs=0.11)
    # unequal parts see different amounts: the loss is their mean by share, less .035 nat for each bit of entropy
    q = np.array(worlds[0.28]["frequency"])
    seen = work / 10 + 0.9 * work * q
    level = np.sum(q * load_law("hoffmann2022")(total_params=1e9, tokens=seen))
    gain = 0.035 * np.sum(-q * np.log2(q) * np.minimum((1 - 0.1 * work / seen) / (64 / 88), 1))
    assert found.loss.values[0, -1] == pytest.approx(level - gain, rel=1e-9)


@pytest.mark.parametrize("how", ["equal", "proportional", "longest_first", "huffman"])
def test_a_cut_for_unequal_machines(how):
    """Machines of 1, 1, 1 and 3: an equal cut takes (1/4)/(1/6) of the time of one in proportion."""
    site = {**SITE, **FAST, "groups": {"slow": {"sites": 3}, "fast": {"flops": 3e15}}}
    work = 6 * RATE * 20 * 3600
    given = {"policy": "frozen_stem", "levels": 2, "stem_tokens": 0.0, "tokens": work, "cut": how}
    found = of(site, given, hours=40, tick_minutes=6)
    done = found.hours.values[np.argmax(found.tokens.cumsum("round").values[0] >= work * (1 - 1e-12))]
    times = {"equal": 30, "proportional": 20, "longest_first": 20, "huffman": 30}
    assert done == pytest.approx(times[how], abs=0.3)


def test_marking_and_frozen_parameters():
    """The centre marks 2 FLOP of 6 of a tenth of the parameters for each token left, and sends stem and numbers."""
    site, work = {**SITE, "sites": 4}, 1e10
    given = {"policy": "frozen_stem", "levels": 2, "stem_tokens": 1e9, "tokens": work, "marking": 0.1, "shared": 0.25}
    found = of(site, given, hours=8)
    assert float(found.tokens.sum()) == pytest.approx(work)
    assert float(found.bytes.sum()) == pytest.approx(3 * 2e9 + 0.75 * 9e9 * 2)
    marked = 9e9 * 0.1 / 3 / RATE
    assert float(found.working.sum()) * 3600 == pytest.approx(work / RATE + marked)
    seen = 1e9 + 0.75 * 9e9 / 4
    level = float(load_law("hoffmann2022")(total_params=1e9, tokens=seen))
    gain = 0.07 * min(2.25 / 3.25 / (64 / 88), 1)
    assert found.loss.values[0, -1] == pytest.approx(level - gain, rel=1e-9)
    with pytest.raises(InputError, match=r"marking without an end; give protocol.tokens"):
        of(site, {**given, "tokens": np.inf})


def test_crews_of_a_part_average():
    """Four sites, two parts: two sites average every 50 steps, a ring of two: 16 Gbit, 16 s less .4, after 30 s."""
    given = {"policy": "frozen_stem", "levels": 1, "stem_tokens": 0.0, "all_sites": True, "steps": 50}
    found = of({**SITE, "sites": 4}, given, tick_minutes=5)
    cut = 16.0  # s, at the start
    tokens = 4 * RATE * (HOURS * 3600 - cut) * 30 / 45.6
    assert float(found.tokens.sum()) == pytest.approx(tokens)
    loss = float(load_law("hoffmann2022")(total_params=1e9, tokens=tokens / 2)) * Q.multiplier(2, 1e9, 50)
    assert found.loss.values[0, -1] == pytest.approx(loss - 0.035, rel=1e-9)


@pytest.mark.parametrize(("relayed", "cut"), [(False, 48.0), (True, 16.0)])
def test_a_stem_is_sent_to_each_part_or_handed_on(relayed, cut):
    """Three copies of 16 Gbit at 1 Gbit/s, one after another, or all while one goes; then not a byte."""
    given = {"policy": "frozen_stem", "levels": 2, "stem_tokens": 0.0, "all_sites": True, "relayed": relayed}
    found = of({**SITE, "sites": 4}, given)
    assert float(found.tokens.sum()) == pytest.approx(4 * RATE * (HOURS * 3600 - cut))
    assert float(found.bytes.sum()) == pytest.approx(3 * 2e9)
    assert not found.bytes.values[0, 1:].any()


def test_a_stem_is_handed_on_over_the_slowest_link_to_all_that_train():
    """Two sites of each part average; a site uploads at .25 Gbit/s: 64 s, and three copies whatever the levels."""
    site = {**SITE, "groups": {"fast": {"sites": 3}, "slow": {"sites": 1, "up": 2.5e8}}}
    given = {"policy": "frozen_stem", "stem_tokens": 0.0, "all_sites": True, "relayed": True, "steps": 1000}
    cuts = [of(site, {**given, "levels": n}, hours=64 / 3600, tick_minutes=64 / 60) for n in (0, 1, 2)]
    for found in cuts:
        assert float(found.bytes.sum()) == pytest.approx(3 * 2e9)
        assert not found.tokens.any()


def test_several_sites_on_one_path():
    """Eight sites for four leaves send the leaf too, 16e9 bit less the branches counted once, and average by two."""
    given = {"policy": "path_sync", "levels": 2, "d_model": 4096, "layers": 32, "server": 1e30}
    one, two = (of({**SITE, "sites": n}, given) for n in (4, 8))
    branches = 2 * 4097 * 32 * 16
    rounds = [HOURS * 3600 / (600 + 2 * sent / 1e9) for sent in (branches, 1.6e10)]
    assert float(one.bytes.sum()) == pytest.approx(4 * rounds[0] * branches / 8)
    assert float(two.bytes.sum()) == pytest.approx(8 * rounds[1] * 2e9, rel=1e-6)
    share = 2 * 4097 * 32 / 1e9
    total = float(two.tokens.sum())
    level = load_law("hoffmann2022")(total_params=1e9, tokens=total * ((1 - share) / 4 + share * 0.75))
    factor = 2 ** (Q.exponent(1e9, 1000) * (1 - share))
    assert two.loss.values[0, -1] == pytest.approx(float(level) * factor - 0.07, rel=1e-9)


def test_shared_parts_of_paths_are_synced():
    """A quarter on every path is in each report and learns from all tokens; replicated, it is a leaf's own."""
    given = {"policy": "path_sync", "levels": 2, "d_model": 1, "layers": 1, "server": 1e30, "shared": 0.25}
    own, synced = (of({**SITE, "sites": 4}, {**given, "shared_are": how}) for how in ("replicated", "synced"))
    cycles = HOURS * 3600 / (600 + 2 * 4e9 / 1e9)
    assert float(synced.bytes.sum()) == pytest.approx(4 * cycles * 5e8, rel=1e-6)
    assert float(own.bytes.sum()) < 1e6
    total = float(synced.tokens.sum())
    level = load_law("hoffmann2022")(total_params=1e9, tokens=total * (0.25 + 0.75 / 4))
    factor = 4 ** (Q.exponent(1e9, 1000) * 0.25)
    assert synced.loss.values[0, -1] == pytest.approx(float(level) * factor - 0.07, rel=1e-6)
