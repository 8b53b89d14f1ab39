"""Times in tables, whatever they are written as."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from raysl.data.times import as_microseconds, iso_of, micros_of

WHEN = datetime(2010, 12, 1, 8, 26, 0, 500_000, tzinfo=UTC)
MICROS = 1_291_191_960_500_000


@pytest.mark.parametrize(
    ("values", "form", "expected"),
    [
        (pa.array([WHEN], pa.timestamp("ms", tz="Europe/Paris")), "iso", [MICROS]),
        (pa.array([WHEN.replace(tzinfo=None)], pa.timestamp("ns")), "iso", [MICROS]),
        (pa.array([date(2010, 12, 1)]), "iso", [1_291_161_600_000_000]),
        (pa.array(["2010-12-01 08:26:00.5", "2010-12-01"]), "iso", [MICROS, 1_291_161_600_000_000]),
        (pa.array(["2010-12-01T09:26:00.5+01:00", "yesterday", None]), "iso", [MICROS, None, None]),
        (pa.array(["2010-12-01 08:26:00.500000 UTC", "2010-12-01 08:26:00.5+00", "UTC"]), "iso", [MICROS, MICROS, None]),
        (pa.array([1_291_191_960.5, float("nan"), float("inf"), 1e18]), "s", [MICROS, None, None, None]),
        (pa.array([1_291_191_960_500]), "ms", [MICROS]),
        (pa.array(["1291191960500000", "soon"]), "us", [MICROS, None]),
        (pa.array([1_291_191_960_500_000_000]), "ns", [MICROS]),
        (pa.array(["01/12/2010 8:26", "2010-12-01"]), "%d/%m/%Y %H:%M", [MICROS - 500_000, None]),
        (pa.array([20101201, 7]), "%Y%m%d", [1_291_161_600_000_000, None]),
        (pa.array([20101201.0, None]), "%Y%m%d", [1_291_161_600_000_000, None]),
        (pa.array([Decimal(20101201), None]), "%Y%m%d", [1_291_161_600_000_000, None]),
        (pa.array([[1], [2]]), "s", [None, None]),
        (pa.array([12, 13]), "iso", [None, None]),
        (pa.array([True]), "iso", [None]),
    ],
)  # fmt: skip
def test_times_become_microseconds(values: pa.Array, form: str, expected: list[int | None]) -> None:
    found = as_microseconds(pa.chunked_array([values]), form)
    assert found.type == pa.int64()
    assert found.to_pylist() == expected


def test_a_time_without_a_zone_is_utc() -> None:
    assert micros_of(WHEN) == micros_of(WHEN.replace(tzinfo=None)) == MICROS
    assert iso_of(MICROS) == "2010-12-01T08:26:00.500000"
    assert iso_of(1_291_161_600_000_000) == "2010-12-01"
