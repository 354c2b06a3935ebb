"""The exceptions of moesim: bad input, and a result that could not be written."""


class InputError(ValueError):
    """Bad input: the message names the thing, the bad value, what is accepted and the remedy."""


class NotWritten(OSError):
    """A result that could not be written: the disk is full, or the place is gone."""
