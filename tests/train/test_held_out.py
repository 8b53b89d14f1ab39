"""The held-out rows that a run is measured on are the same at every call and on any number of ranks."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from raysl.data.shards import TokenRows
from raysl.train.batches import held_out_batches
from raysl.train.world import single
from tests.loop_runs import config_of, loop_shards, trainer_of


class Numbered:
    """Rows that are their own numbers."""

    def __len__(self) -> int:
        return 97

    def row(self, number: int) -> int:
        return number


@pytest.mark.parametrize(("batch_size", "most_rows", "sizes"), [(12, 97, [12] * 8), (12, 40, [12] * 3), (200, 97, [97])])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_held_out_batches_are_of_one_size_and_the_same_on_any_number_of_ranks(
    batch_size: int, most_rows: int, sizes: list[int], num_ranks: int
) -> None:
    """A last batch of one row, whose contrast is next to nothing, once counted as much as a whole one."""
    objective = SimpleNamespace(collate=lambda rows, uniform: list(zip(rows, uniform(1)[:, 0].tolist(), strict=True)))

    def batches(ranks: int) -> list[list[tuple[int, float]]]:
        """Row and random number of all ranks together, batch after batch."""
        of_ranks = [held_out_batches(objective, Numbered(), most_rows, batch_size, rank, ranks) for rank in range(ranks)]
        return [sorted(pair for build in builds for pair in build()) for builds in zip(*of_ranks, strict=True)]

    found = batches(num_ranks)
    assert found == batches(1)
    assert [len(batch) for batch in found] == sizes
    assert len({row for batch in found for row, _ in batch}) == sum(sizes)


@pytest.mark.parametrize(("num_rows", "judged"), [(1, False), (2, False), (8, True)])
def test_spread_and_rank_of_a_handful_of_rows_are_not_measured(num_rows: int, judged: bool, tmp_path: Path) -> None:
    """Two rows have an effective rank of 1, and one has no spread."""
    trainer = trainer_of(loop_shards(tmp_path), "bert", config_of("bert"), single("cpu"))
    trainer.held_out = FirstRows(trainer.rows, num_rows)
    values = trainer.measure()
    assert "held_out_loss" in values
    assert ({"embedding_spread", "effective_rank"} <= values.keys()) == judged


@pytest.mark.parametrize(("num_rows", "measured"), [(1, False), (2, True)])
def test_a_row_without_another_to_compare_with_has_no_loss(num_rows: int, measured: bool, tmp_path: Path) -> None:
    """It was 0, the best there is."""
    trainer = trainer_of(loop_shards(tmp_path), "contrastive_text", config_of("contrastive_text"), single("cpu"))
    trainer.held_out = FirstRows(trainer.rows, num_rows)
    assert ("held_out_loss" in trainer.measure()) == measured


class FirstRows:
    def __init__(self, rows: TokenRows, count: int) -> None:
        self.row, self.count = rows.row, count

    def __len__(self) -> int:
        return self.count


def test_fewer_held_out_rows_than_ranks_are_not_measured() -> None:
    assert held_out_batches(SimpleNamespace(), Numbered(), 2, 200, 0, 3) == []
