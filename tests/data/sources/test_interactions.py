"""Event tables in files: good rows, rows that are no events, and conditions."""

import csv
import gzip
import json
import os
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from raysl import schema
from raysl.data.config import PrepareConfig
from raysl.data.sources.conditions import ConditionConfig, holds
from raysl.data.sources.interactions import EventDrops, Interactions, InteractionsConfig
from raysl.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"who": 17850, "code": " 85123A ", "at": "2010-12-01 08:26:00", "what": "LAMP", "bill": "536365", "n": 6},
    {"who": None, "code": "85123A", "at": "2010-12-01 08:26:00", "what": "LAMP", "bill": "536366", "n": 6},
    {"who": 17850, "code": "  ", "at": "2010-12-01 08:26:00", "what": "LAMP", "bill": "536367", "n": 6},
    {"who": 17850, "code": "[UNK]", "at": "2010-12-01 08:26:00", "what": "LAMP", "bill": "536368", "n": 6},
    {"who": 17850, "code": "85123A", "at": None, "what": "LAMP", "bill": "536369", "n": 6},
    {"who": 17850, "code": "85123A", "at": "some day", "what": "LAMP", "bill": "536370", "n": 6},
    {"who": 17850, "code": "85123A", "at": "2010-12-01 08:26:00", "what": "LAMP", "bill": "C536371", "n": -6},
    {"who": 17850, "code": "85123A", "at": "2010-12-01 08:26:00", "what": "", "bill": "536372", "n": 0},
    {"who": 17850, "code": "POST", "at": "2010-12-01 08:26:00", "what": None, "bill": None, "n": 1},
]
WHERE = [
    {"column": "bill", "not_matches": "^C", "reason": "cancellation"},
    {"column": "n", "above": 0, "reason": "nothing_sold"},
]
BAD = {"missing_user": 1, "missing_item": 1, "reserved_item": 1, "missing_time": 1, "bad_time": 1}


def source(path: Path, **changes: Any) -> Interactions:
    columns = {
        "user_column": "who",
        "item_column": "code",
        "time_column": "at",
        "text_column": "what",
        "group_column": "bill",
    }
    return Interactions(InteractionsConfig(**({"path": str(path), "where": WHERE} | columns | changes)))


def read(path: Path, partition_mb: float = 2.0, **changes: Any) -> tuple[pa.Table, EventDrops]:
    drops, interactions = EventDrops(0), source(path, **changes)
    tables = [t for p in interactions.partitions(partition_mb) for t in interactions.events(p, drops)]
    return pa.concat_tables([schema.EVENT.empty_table(), *tables]), drops


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_csv(path: Path) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=4)


def write_other_types(path: Path) -> None:
    """As other libraries write text, and with missing numbers."""
    table = pa.Table.from_pylist(ROWS)
    types = {
        "who": pa.float64(),
        "code": pa.dictionary(pa.int32(), pa.string()),
        "at": pa.large_string(),
        "bill": pa.string_view(),
    }
    schema = pa.schema([(field.name, types.get(field.name, field.type)) for field in table.schema])
    pq.write_table(table.cast(schema), path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_jsonl, "rows.jsonl"),
        (write_csv, "rows.csv.gz"),
        (write_parquet, "rows.parquet"),
        (write_jsonl, "ROWS.JSONL"),
        (write_csv, "ROWS.CSV.GZ"),
        (write_other_types, "o.parquet"),
    ],
    ids=["jsonl", "csv", "parquet", "jsonl in capitals", "csv in capitals", "other types"],
)
def test_formats_agree_and_each_row_has_one_reason(write: Any, name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    events, drops = read(tmp_path / name)
    assert events.schema.equals(schema.EVENT)
    lamp = {"user": "17850", "item": "85123A", "time": 1_291_191_960_000_000, "group": "536365", "text": "LAMP"}
    assert events.to_pylist() == [lamp]
    assert drops.unwanted == {"cancellation": 2, "nothing_sold": 1}  # what is missing passes no test
    assert drops.bad == BAD
    assert drops.examples.found["missing_user"][0][2] == "-  85123A  2010-12-01 08:26:00.000000  LAMP"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_number_that_is_none_is_missing(tmp_path: Path, kind: str) -> None:
    rows = [ROWS[0] | {"who": 17850.0}, ROWS[0] | {"who": float("nan")}]
    if kind == "jsonl":
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    events, drops = read(tmp_path)
    assert events["user"].to_pylist() == ["17850"]
    assert drops.bad == {"missing_user": 1}


NAME = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([1e10, 12345678901.0, 0.5]), ["10000000000", "12345678901", "0.5"]),
        (pa.array([1e10, None, 7.0]), ["10000000000", "7"]),
        (pa.array([NAME.bytes], pa.uuid()), [str(NAME)]),
        (pa.array([b" ann ", "j\u00fcrgen".encode(), b"", b"\xff"]), ["ann", "j\u00fcrgen"]),
    ],
    ids=["numbers", "whole numbers", "uuid", "bytes"],
)
def test_users_have_the_same_name_however_a_table_holds_them(tmp_path: Path, values: pa.Array, names: list[str]) -> None:
    table = pa.Table.from_pylist([ROWS[0]] * len(values))
    pq.write_table(table.set_column(0, "who", values), tmp_path / "rows.parquet")
    events, drops = read(tmp_path)
    assert events["user"].to_pylist() == names
    assert drops.bad.total() == len(values) - len(names)


def test_broken_files_and_lines_are_counted(tmp_path: Path) -> None:
    row = json.dumps(ROWS[0])
    (tmp_path / "a.jsonl").write_text(f"{row}\n{row[:20]}\n[1]\n{row.replace('LAMP', chr(92) + 'ud800')}\n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not at all")
    with gzip.open(tmp_path / "whole.gz", "wb", compresslevel=1) as file:
        file.write(b"".join(json.dumps(ROWS[0] | {"n": n}).encode() + b"\n" for n in range(1, 5000)))
    (tmp_path / "c.jsonl.gz").write_bytes((tmp_path / "whole.gz").read_bytes()[:-2000])
    events, drops = read(tmp_path)
    assert drops.bad == {"broken_line": 2, "lone_surrogate": 1, "unreadable_file": 2}
    assert len(events) > 1000  # what came before the break counts


def test_lines_are_read_once_however_a_file_is_cut(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"code": f"item{n}"} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events, _ = read(tmp_path, partition_mb=0.001)
    assert events["item"].to_pylist() == [f"item{n}" for n in range(100)]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"no column 'customer'\. Its columns: who, .*Set prepare\.source\.user_column"):
        source(tmp_path, user_column="customer").partitions(1.0)
    with pytest.raises(DataError, match=r"no column 'price'.*Set prepare\.source\.where\.0\.column"):
        source(tmp_path, where=[{"column": "price", "above": 0, "reason": "free"}]).partitions(1.0)


@pytest.mark.parametrize(
    ("value", "test", "kind"), [(["a", "b"], {"one_of": ["a"]}, "list<"), (datetime(2020, 1, 1), {"above": 0}, "timestamp")]
)
def test_a_condition_that_a_column_cannot_be_tested_for_is_refused(
    tmp_path: Path, value: Any, test: dict[str, Any], kind: str
) -> None:
    pq.write_table(pa.Table.from_pylist([ROWS[0] | {"tags": value}]), tmp_path / "rows.parquet")
    where = [{"column": "tags", "reason": "untagged", **test}]
    with pytest.raises(DataError, match=rf"the column 'tags' holds {kind}.*Name a column of numbers or text"):
        read(tmp_path / "rows.parquet", where=where)


def test_rows_of_a_file_whose_name_is_no_utf8_have_reasons(tmp_path: Path) -> None:
    write_jsonl(Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.jsonl")))
    events, drops = read(tmp_path)
    assert (len(events), drops.bad) == (1, BAD)


def test_text_files_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"Allowed: \.jsonl, \.csv, \.parquet"):
        source(tmp_path).partitions(1.0)


NUMBERS = pa.chunked_array([[5, -1, None, 0]])
WORDS = pa.chunked_array([["5", "-1", None, "many"]])


@pytest.mark.parametrize(
    ("test", "column", "passed"),
    [
        ({"above": 0}, NUMBERS, [True, False, False, False]),
        ({"at_least": 0}, NUMBERS, [True, False, False, True]),
        ({"below": 0}, NUMBERS, [False, True, False, False]),
        ({"at_most": 0, "above": -1}, NUMBERS, [False, False, False, True]),
        ({"above": 0}, WORDS, [True, False, False, False]),
        ({"one_of": ["5", "many"]}, WORDS, [True, False, False, True]),
        ({"one_of": ["10000000000"]}, pa.chunked_array([[1e10]]), [True]),
        ({"one_of": ["5"]}, NUMBERS, [True, False, False, False]),
        ({"none_of": ["5"]}, NUMBERS, [False, True, False, True]),
        ({"matches": "^[0-9]"}, WORDS, [True, False, False, False]),
        ({"not_matches": "an"}, WORDS, [True, True, False, False]),
    ],
)
def test_conditions(test: dict[str, Any], column: pa.ChunkedArray, passed: list[bool]) -> None:
    condition = ConditionConfig(column="n", reason="why", **test)
    assert holds(condition, column).to_pylist() == passed


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"column": "n", "reason": "why"}, "a condition needs a test. Allowed: above, at_least"),
        ({"column": "n", "reason": "why", "matches": "("}, "no regular expression"),
        ({"column": "n", "reason": "Why not", "above": 0}, "reason"),
    ],
)
def test_conditions_that_cannot_work_are_refused(condition: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ConditionConfig(**condition)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"filters": ["length"]}, "`filters` is not for interactions, which source 'interactions' yields"),
        (
            {"source": {"type": "files", "path": "x"}, "behaviour": {}},
            "`behaviour` is not for text, which source 'files' yields",
        ),
        ({"behaviour": {"split": {"test_from": "2011-01-01"}}}, "give both validation_from and test_from"),
        ({"behaviour": {"split": {"validation_from": "2011-02-01", "test_from": "2011-01-01"}}}, "must not lie before"),
        (
            {"behaviour": {"split": {"validation_from": "2011-01-01", "test_from": "2011-02-01", "test": 0.2}}},
            "the cuts are given as times, so test would have no effect",
        ),
        ({"source": {"type": "interactions", "path": "x", "time_format": "minutes"}}, "time_format is iso, s, ms"),
    ],
)
def test_settings_that_nobody_would_read_are_refused(section: dict[str, Any], message: str) -> None:
    data = {"source": {"type": "interactions", "path": "x"}} | section
    with pytest.raises(ValidationError, match=message):
        PrepareConfig.model_validate(data)
