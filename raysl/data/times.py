"""Times of events as microseconds since 1970 in UTC: one number, whatever the table holds."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from raysl.data.sources.conditions import as_numbers, as_texts

UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
"""Microseconds in one unit of a number."""
ISO = "iso"
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999."""
Parse = Callable[[str], datetime]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_microseconds(column: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """int64, null where a value is no time. Times without a zone are taken as UTC.

    `form` is `iso` (timestamps, dates, ISO 8601 text), a unit (numbers since 1970), or a pattern of strptime.
    """
    kind = column.type
    if form not in (ISO, *UNITS) and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        column = as_texts(column)  # 20240131
        kind = column.type
    if form in UNITS and not (pa.types.is_temporal(kind) or pa.types.is_nested(kind)):
        scaled = pc.multiply(as_numbers(column), UNITS[form])
        known = pc.if_else(pc.is_finite(scaled), scaled, None)
        micros = pc.cast(pc.if_else(pc.less(pc.abs(known), 2.0**62), known, None), pa.int64(), safe=False)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        instants = pc.cast(column, pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        micros = pc.cast(instants, pa.int64())
    elif form != ISO and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        micros = _each(column, lambda text: datetime.strptime(text, form))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        micros = _iso(column)
    else:
        micros = pa.chunked_array([pa.nulls(len(column), pa.int64())])
    inside = pc.and_(pc.greater_equal(micros, FIRST), pc.less_equal(micros, LAST))
    return pc.if_else(inside, micros, pa.scalar(None, pa.int64()))


def _iso(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64())
    except pa.ArrowInvalid:  # zones, or text that is no time
        return _each(column, lambda text: datetime.fromisoformat(text.removesuffix(" UTC")))  # as BigQuery writes it


def _each(column: pa.ChunkedArray, parse: Parse) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([_micros(text, parse) for text in column.to_pylist()], pa.int64())])


def _micros(text: str | None, parse: Parse) -> int | None:
    try:
        return None if text is None else micros_of(parse(text.strip()))
    except (ValueError, OverflowError):
        return None


def micros_of(time: datetime) -> int:
    """A time without a zone is taken as UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def iso_of(micros: int) -> str:
    """2011-10-01 or 2011-10-01T08:30:00, in UTC."""
    time = EPOCH + timedelta(microseconds=micros)
    text = time.replace(tzinfo=None).isoformat()
    return text.removesuffix("T00:00:00")
