"""The order of a run: each row once an epoch, whatever the windows, the batches and the number of ranks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysl.data.order import RowOrder

SHARDS = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(sum)
WINDOW = st.none() | st.integers(1, 10)


def test_one_window_over_all_shards_is_the_order_of_runs_made_before_there_were_windows() -> None:
    """The first formula of this order, which checkpoints of older runs count on."""
    order = RowOrder([4, 0, 6], seed=5)
    for epoch in range(3):
        expected = np.random.default_rng((5, epoch)).permutation(10)
        assert order.rows(epoch * 10, 10).tolist() == expected.tolist()
    assert RowOrder([4, 0, 6], 5, window_shards=3).rows(0, 30).tolist() == order.rows(0, 30).tolist()


@given(SHARDS, st.integers(0, 2**40), WINDOW)
def test_each_row_comes_once_an_epoch(shards: list[int], seed: int, window: int | None) -> None:
    order, rows = RowOrder(shards, seed, window), sum(shards)
    for epoch in range(3):
        assert sorted(order.rows(epoch * rows, rows)) == list(range(rows))


@given(SHARDS, WINDOW, st.integers(1, 30))
def test_batches_of_any_size_read_the_same_order(shards: list[int], window: int | None, size: int) -> None:
    whole = RowOrder(shards, 1, window).rows(0, 4 * size)
    batches = [RowOrder(shards, 1, window).rows(start, size) for start in range(0, 4 * size, size)]
    assert np.concatenate(batches).tolist() == whole.tolist()


@given(SHARDS, WINDOW, st.integers(1, 5), st.integers(1, 20), st.integers(0, 50))
def test_ranks_of_any_number_read_disjoint_rows_that_are_the_batch(
    shards: list[int], window: int | None, world: int, size: int, start: int
) -> None:
    order = RowOrder(shards, 3, window)
    batch = order.rows(start, size)
    parts = [[int(order.rows(start + place, 1)[0]) for place in range(rank, size, world)] for rank in range(world)]
    assert sorted(row for part in parts for row in part) == sorted(batch.tolist())


@given(SHARDS, st.integers(1, 10))
def test_a_window_holds_the_rows_of_its_shards_and_of_no_other(shards: list[int], window_shards: int) -> None:
    order, starts = RowOrder(shards, 7, window_shards), np.cumsum([0, *shards])
    position = 0
    while position < 2 * sum(shards):
        window = order.window(position)
        assert window.start == position
        assert len(window.shards) <= window_shards
        held = [row for shard in window.shards for row in range(starts[shard], starts[shard + 1])]
        assert sorted(order.rows(position, window.end - position)) == sorted(held)
        position = window.end


def test_every_epoch_has_another_order_of_shards_and_of_rows() -> None:
    order = RowOrder([20] * 6, seed=1, window_shards=2)
    epochs = [order.rows(epoch * 120, 120).tolist() for epoch in range(5)]
    assert len({tuple(epoch) for epoch in epochs}) == 5
    firsts = [order.window(epoch * 120).shards for epoch in range(5)]
    assert len(set(firsts)) > 1
    assert epochs[0] != RowOrder([20] * 6, seed=2, window_shards=2).rows(0, 120).tolist()


def test_every_epoch_mixes_the_rows_of_a_window_anew() -> None:
    """Windows of one shard, of which the fifth epoch begins with the same one as an epoch before it."""
    order = RowOrder([20] * 3, seed=1, window_shards=1)
    mixed = [(order.window(start).shards, tuple(order.rows(start, 20))) for start in range(0, 5 * 60, 20)]
    assert len(set(mixed)) == 15
