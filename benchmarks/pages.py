"""How long a page's slider takes: `python benchmarks/pages.py` prints milliseconds of CPU in headless Chromium.

20 curves of abnar2025 with muennighoff2023, without and with 200 draws: for one move of a slider, from the input to
what is on the screen (curves, optima, tables), and with all that follows (best sparsities, bands of draws). CPU time
of the page's own thread, the mean over 20 moves; the first moves, which compile, are left out.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

import moesim

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser_tools import Seen, chromium

MOVES = 20
MOVE = """async (n) => {
  const input = document.querySelector('section.live input[type=range]');
  for (let i = 0; i < n; i++) {
    input.value = 300 + 10 * i;
    input.dispatchEvent(new Event('input'));
    await new Promise((done) => requestAnimationFrame(done));
  }
}"""


def spent(session) -> float:
    """Milliseconds of CPU that the page has used."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1e3 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def measured(law) -> tuple[float, float]:
    """Milliseconds for a move, and for one with all that follows."""
    axes = {"compute": 1e21, "unique_tokens": 2e9, "sparsity": np.linspace(0.0, 0.98, 20)}
    found = moesim.optimum(law, repetition="muennighoff2023", best=False, **axes)
    with tempfile.TemporaryDirectory() as place, chromium() as browser:
        seen = Seen(browser, moesim.page(found, to=Path(place) / "page.html"))
        live = seen.settled()
        session = seen.context.new_cdp_session(seen.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        seen.page.evaluate(MOVE, MOVES)
        before = spent(session)
        seen.page.evaluate(MOVE, MOVES)
        move = (spent(session) - before) / MOVES
        seen.page.wait_for_timeout(3000)
        before, done = spent(session), int(live.get_attribute("data-done"))
        seen.page.evaluate(MOVE, 1)
        seen.settled(done)
        return move, spent(session) - before


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    wide = {n: v * np.exp(0.02 * rng.normal(size=200)) for n, v in {"alpha": 0.5962, "beta": 0.3954}.items()}
    drawn = moesim.load_law("abnar2025", **{name: xr.DataArray(v, dims="draw") for name, v in wide.items()})
    for said, law in (("20 curves", "abnar2025"), ("20 curves, 200 draws", drawn)):
        move, whole = measured(law)
        print(f"{said}: {move:.0f} ms a move, {whole:.0f} ms with all that follows")
