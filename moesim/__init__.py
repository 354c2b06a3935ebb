"""moesim: a Mixture-of-Experts scaling simulator."""

__version__ = "0.1.0"
