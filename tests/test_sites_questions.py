"""Questions about places, and trees that follow the load or the price."""

import numpy as np
import pytest
from test_sites_run import ONE, PLACE, PROTOCOLS, STEM, Q, of

from moesim.errors import InputError
from moesim.laws.load import load_law
from moesim.sites import figures, quality, questions
from moesim.sites.run import _made


def answer(name):
    return questions.QUESTIONS[name]


def test_folding_at_home():
    """Days at the peak as 6 N D gives them, the chain of shares, and one host's pipe on paper."""
    found = answer("folding_at_home")({}, None)
    ideal = found.days.sel(factor="peak", reading="BOINC hosts 2006")
    assert ideal.values == pytest.approx([2.42, 26, 293], rel=0.03)
    share = found.share.sel(reading="BOINC hosts 2006")
    assert share.sel(factor="there").values == pytest.approx(0.612, abs=5e-4)
    assert share.sel(factor="checked").values == pytest.approx(1 / 2.04, rel=1e-3)
    rate = 1.5e18 / 7e5 * 0.3 * 350 / (6 * 174.6e9)
    assert share.sel(factor="piped", model="gpt3_175b").item() == pytest.approx(1e7 / (rate * 12288 * 32))
    assert share.sel(factor="sent", model="gpt3_175b").item() == pytest.approx(3600 / 3606, rel=1e-3)
    assert found.hosts_of_a_replica.values.tolist() == [350, 1342, 812]
    assert (found.days.diff("factor") >= 0).all()
    text = questions.table(found)
    assert "gpt3_175b, BOINC hosts 2006" in text
    assert "2.431" in text


# Loss and its factor at N parameters and 25.6 N tokens -> share of the compute of the best run with that loss.
WORTH = [(2.4e9, 1.0145, 0.69), (10e9, 1.0104, 0.67), (250e9, 1.016, 0.21)]


@pytest.mark.parametrize(("params", "factor", "share"), WORTH)
def test_a_loss_in_compute(params, factor, share):
    loss = 1.8172 + 482.01 / params**0.3478 + 2085.43 / (25.6 * params) ** 0.3658
    slope = 0.3478 * 0.3658 / (0.3478 + 0.3658)
    assert quality.effective_share(loss, factor, 1.8172, slope) == pytest.approx(share, abs=0.015)


def test_when_a_low_power_mode_pays():
    assert questions.break_even_idle(80.0, 105, 25) == 1.0
    with pytest.raises(InputError, match="watts saved"):
        questions.break_even_idle(80.0, 25, 25)


def test_questions_by_simulation():
    config = {"site": {**PLACE}, "protocol": PROTOCOLS["diloco"], "model": None, "law": "hoffmann2022"}
    config |= {"params": 1e8, "batch": 1e5, "hours": 6, "seeds": 1, "target_loss": 3.0}
    by_link = answer("stem_path_or_diloco")(config, _made)
    at_work = by_link.at_work.sel(protocol=["diloco", "streaming"])
    assert (at_work.diff("bandwidth") >= -1e-12).all()
    assert (at_work.isel(bandwidth=-1) > 0.99).all()
    lowest = by_link.loss.min("protocol")
    assert (by_link.loss.sel(protocol=by_link.best_loss) == lowest).all()
    reached = by_link.cost_to_target.notnull().any("protocol")
    assert ((by_link.best_cost_to_target == "none") == ~reached).all()
    found = answer("slack")(config, _made)
    assert found.slack_cost.sel(protocol="data_parallel") > found.slack_cost.sel(protocol="streaming")
    assert found.idle_that_pays.values == pytest.approx(found.entry.values / 0.75)
    with pytest.raises(InputError, match="cheapest_provider: a site without groups"):
        answer("cheapest_provider")(config, _made)
    zones = {**ONE, "groups": {"near": {"price": 2.0}, "far": {"price": 4.0}}}
    sets = answer("cheapest_provider")({**config, "site": zones}, _made)
    assert sets.zones.values.tolist() == ["near", "far", "near + far", "cheapest 1 of 2"]
    assert sets.cost.values[2] == pytest.approx(sets.cost.values[:2].sum(), rel=0.05)
    assert sets.cost.values[3] == pytest.approx(sets.cost.values[0])
    assert sets.hours_to_target.values[2] < sets.hours_to_target.values[0]
    assert set(figures.draw(sets.assign_attrs(question="cheapest_provider"))) == {"zones"}


def test_levels_are_given_away_until_parts_starve():
    """Without links that cost anything a cut wins what parts gain; each further one halves what a part sees."""
    config = {"site": {**PLACE}, "protocol": {**STEM, "all_sites": True, "stem_tokens": 0.0}, "model": None}
    config |= {"law": "hoffmann2022", "params": 1e9, "batch": 1e5, "hours": 6, "seeds": 1}
    found = answer("levels_given_away")(config, _made)
    assert found.levels.values.tolist() == [0, 1, 2]
    tokens = 4e15 / 6e9 * 6 * 3600
    law = load_law("hoffmann2022")
    # every 100 steps; hidden almost wholly at 1e10 bit/s
    free = [float(law(total_params=1e9, tokens=tokens / n)) * Q.multiplier(4 / n, 1e9, 100) for n in (1, 2, 4)]
    expected = np.array(free) - 0.035 * np.array([0, 1, 2])
    assert found.loss.isel(bandwidth=-1).values == pytest.approx(expected, abs=0.01)
    assert found.best_levels.values.tolist() == found.loss.argmin("levels").values.tolist()
    with pytest.raises(InputError, match="choose protocol=crews"):
        answer("levels_given_away")({**config, "protocol": PROTOCOLS["diloco"]}, _made)


def test_a_tree_that_follows_the_load():
    """Speeds 1, 1, 1, 3 and leaves of .5, .3, .1, .1: Huffman's heaviest on the fastest, .3 last; balanced, .5 on 1."""
    site = {**ONE, "up": 1e30, "groups": {"slow": {"sites": 3}, "fast": {"flops": 3e15}}}
    world = {"policy": "given", "frequency": [0.1, 0.5, 0.3, 0.1], "shuffle": False}
    work = 1e15 / 6e9 * 20 * 3600
    stem = {**STEM, "stem_tokens": 0.0, "tokens": work}
    config = {"site": site, "protocol": stem, "world": world, "model": None, "law": "hoffmann2022"}
    found = answer("unequal_machines")({**config, "params": 1e9, "batch": 1e5, "hours": 30, "seeds": 2}, _made)
    assert found.hours.sel(cut="huffman").item() == pytest.approx(20 * 0.3, abs=0.34)
    assert found.hours.sel(cut="balanced").item() == pytest.approx(20 * 0.5, abs=0.34)
    assert (found.finished == 1).all()
    assert set(figures.draw(found.assign_attrs(question="unequal_machines"))) == {"unequal_machines"}


def test_the_cheapest_at_the_moment():
    """Prices of 1 and 5 in turn, opposite in two zones: always 1 for who moves, 3 on average for who stays."""
    zones = {**ONE, "watts": 0, "idle_watts": 0, "groups": {"a": {"price": [1, 5]}, "b": {"price": [5, 1]}}}
    moving, staying = (of("data_parallel", zones, seeds=1, hours=6, rented=1, stay=s) for s in (0.1, 0.9))
    assert moving.cost.sum().item() == pytest.approx(2 * 6 * 1)
    assert staying.cost.sum().item() == pytest.approx(2 * 6 * 3)
    assert moving.site_up.values[0] == pytest.approx([3, 3])
    # by FLOP: 2e15 at 1.9 is cheaper than 1e15 at 1; who is down is not chosen
    zones = {**ONE, "groups": {"a": {"price": 1.0}, "b": {"price": 1.9, "flops": 2e15}, "c": {"price": 0.1}}}
    zones["groups"]["c"]["availability"] = {"policy": "trace", "up": [0]}
    found = of("data_parallel", zones, seeds=1, rented=1)
    assert found.site_up.values[0] == pytest.approx([0, 5.5, 0])
    # moving in is a join: 128 s of each hour, to copy 16e9 byte at 1 Gbit/s
    zones = {**ONE, "groups": {"a": {"price": [1, 5]}, "b": {"price": [5, 1]}}}
    joined = of({"policy": "elastic", "every": 1e12}, zones, seeds=1, hours=6, rented=1)
    assert joined.waiting.sum().item() * 3600 == pytest.approx(5 * 128)
