"""Where time is cut into train, validation and test."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

SECOND = 1_000_000
UNITS = (86_400 * SECOND, 3_600 * SECOND, 60 * SECOND, SECOND, 1)
"""Microseconds: cuts fall on midnight, on the hour, minute or second, or anywhere."""
FEWEST_BINS = 100


def bin_width(first: int, last: int) -> int:
    """The largest unit of which there are a hundred between the first event and the last."""
    return next((unit for unit in UNITS if (last - first) // unit >= FEWEST_BINS), UNITS[-1])


def choose_cuts(bins: Iterable[Sequence[int]], width: int, validation: float, test: float) -> tuple[int, int]:
    """Begins of bins that leave shares of the events as near as can be to those asked for.

    `bins` are (number, events in it), in any order and number of pieces. A share of 0 is nothing, not nearly nothing.
    """
    counts: Counter[int] = Counter()
    for number, count in bins:
        counts[number] += count
    numbers = sorted(counts)
    later = np.cumsum([0, *(counts[number] for number in reversed(numbers))])[::-1]  # events from each bin on
    begins = [*(number * width for number in numbers), (numbers[-1] + 1) * width]
    places = [int(np.argmin(np.abs(later - share * later[0]))) for share in (validation + test, test)]
    return begins[places[0]], begins[places[1]]
