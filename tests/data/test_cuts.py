"""Cuts in time that leave the shares asked for."""

import pytest

from raysl.data.cuts import bin_width, choose_cuts

DAY = 86_400 * 10**6


@pytest.mark.parametrize(
    ("days", "width"),
    [(400, DAY), (99, DAY // 24), (3, DAY // 24 // 60), (0.01, 10**6), (0.0001, 1), (0, 1)],
)
def test_cuts_fall_on_the_largest_unit_that_is_fine_enough(days: float, width: int) -> None:
    assert bin_width(5 * DAY, 5 * DAY + int(days * DAY)) == width


@pytest.mark.parametrize(
    ("validation", "test", "cuts"),
    [
        (0.2, 0.1, (7, 9)),  # ten bins of ten events, 0 to 9
        (0.0, 0.1, (9, 9)),
        (0.1, 0.0, (9, 10)),  # a share of 0 is nothing: the cut lies behind the last bin
        (0.26, 0.1, (6, 9)),
    ],
)
def test_shares_are_met_as_near_as_bins_allow(validation: float, test: float, cuts: tuple[int, int]) -> None:
    bins = [[number, 5] for number in range(10)] * 2
    assert choose_cuts(bins, 60, validation, test) == (cuts[0] * 60, cuts[1] * 60)


def test_a_crowded_bin_is_not_cut() -> None:
    assert choose_cuts([[0, 1], [1, 98], [2, 1]], 1, 0.2, 0.2) == (2, 2)
