"""Memory of arrays that come and go in every step."""

import numpy as np


def keep_freed() -> None:
    """Have glibc keep freed arrays for the next ones: fetching fresh pages takes longer than the arithmetic on them.

    It gives blocks back from the size of the largest one ever freed on, at most 32 MiB. So one of 31 MiB is made and
    freed, its pages untouched. No effect with other C libraries.
    """
    np.empty(31 * 2**17)
