"""What type checkers see of the names that are imported when first used."""

from moesim.lab.driver import kept as kept
from moesim.lab.driver import lab as run  # noqa: F401
from moesim.lab.driver import loads as loads
from moesim.lab.driver import probes as probes
from moesim.lab.estimates import calibrate as calibrate
