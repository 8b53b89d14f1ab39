from pathlib import Path

import pytest

from raysl.data.shards import TokenRows
from raysl.data.statistics import token_frequencies
from raysl.errors import DataError
from tests.token_shards import write_shards

DOCUMENTS = [[[10, 11, 12], [13, 14]], [[15, 16, 17, 18, 19]]]


def test_packed_rows_hold_every_token_once_and_in_order(tmp_path: Path) -> None:
    rows = TokenRows(write_shards(tmp_path, DOCUMENTS), "packed", length=4)
    assert [rows.row(i).tolist() for i in range(len(rows))] == [[10, 11, 12, 3], [13, 14, 3], [15, 16, 17, 18], [19, 3]]


def test_documents_are_slices_and_short_ones_are_left_out(tmp_path: Path) -> None:
    rows = TokenRows(write_shards(tmp_path, DOCUMENTS), "documents", length=4, min_tokens=4)
    assert rows.left_out == 1
    assert [rows.row(i).tolist() for i in range(len(rows))] == [[10, 11, 12, 3], [15, 16, 17, 18, 19, 3]]


def test_titled_documents_are_parted_where_their_title_ends(tmp_path: Path) -> None:
    rows = TokenRows(write_shards(tmp_path / "titled", DOCUMENTS, [[1, 0], [2]]), "titled", length=4, min_tokens=3)
    assert [rows.row(i).tolist() for i in range(len(rows))] == [[10, 3, 11, 12, 3], [13, 14, 3], [15, 16, 3, 17, 18, 19, 3]]
    untitled = TokenRows(write_shards(tmp_path / "plain", DOCUMENTS), "titled", length=4)
    with pytest.raises(DataError, match=r"holds no titles\. Set prepare\.source\.title_column"):
        untitled.row(0)


def test_missing_shards_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raysl prepare"):
        TokenRows(tmp_path, "packed", 4)


def test_frequencies_count_documents_not_occurrences(tmp_path: Path) -> None:
    write_shards(tmp_path, [[[7, 7, 7], [7, 8]], [[9]]])
    shares = token_frequencies(tmp_path, 10)
    assert shares[[7, 8, 9, 3]] == pytest.approx([2 / 3, 1 / 3, 1 / 3, 1.0])


def test_of_many_tokens_a_part_of_each_shard_is_counted(tmp_path: Path) -> None:
    write_shards(tmp_path, [[[7]] * 500 + [[8]] * 500, [[9]] * 1000])
    size = sum(path.stat().st_size for path in tmp_path.glob("shard-*.arrow"))
    shares = token_frequencies(tmp_path, 10, most_tokens=size // 8)  # at 4 bytes a token: half of the documents
    assert shares[[7, 8, 9]] == pytest.approx([0.5, 0.0, 0.5], abs=0.01)
    assert token_frequencies(tmp_path, 10)[[7, 8, 9]].tolist() == [0.25, 0.25, 0.5]
