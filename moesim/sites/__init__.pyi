"""What type checkers see of the names that are imported when first used."""

from moesim.sites.failures import goodput as goodput
from moesim.sites.links import bandwidth_for as bandwidth_for
from moesim.sites.links import compute_utilisation as compute_utilisation
from moesim.sites.run import simulate as simulate
