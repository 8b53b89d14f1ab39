"""Which rows of an event table count: conditions on any of its columns, each with the reason under which others go."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from raysl.config import Config
from raysl.data.sources.base import as_text
from raysl.errors import DataError

NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "above": pc.greater, "at_least": pc.greater_equal, "below": pc.less, "at_most": pc.less_equal,
}  # fmt: skip
"""Tests of a number."""


class ConditionConfig(Config):
    """Keeps the rows whose column passes all the tests given; a missing value passes none."""

    column: str
    """Column or key of the table."""
    reason: str = Field(pattern="^[a-z][a-z0-9_]*$")
    """Name under which the other rows are counted."""
    above: float | None = None
    """The number is larger."""
    at_least: float | None = None
    """The number is as large or larger."""
    below: float | None = None
    """The number is smaller."""
    at_most: float | None = None
    """The number is as small or smaller."""
    one_of: tuple[str, ...] = ()
    """The value is one of these."""
    none_of: tuple[str, ...] = ()
    """The value is none of these."""
    matches: str | None = None
    """The regular expression (RE2) is found in the value; ^ and $ bind it to the ends."""
    not_matches: str | None = None
    """The regular expression is not found in the value."""

    @field_validator("matches", "not_matches")
    @classmethod
    def _valid_expression(cls, pattern: str | None) -> str | None:
        try:
            pc.match_substring_regex(pa.array([""]), pattern or "")
        except pa.ArrowInvalid as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _some_test(self) -> "ConditionConfig":
        tests = [name for name in type(self).model_fields if name not in ("column", "reason")]
        if all(getattr(self, name) in (None, ()) for name in tests):
            raise ValueError(f"a condition needs a test. Allowed: {', '.join(tests)}")
        return self


def holds(condition: ConditionConfig, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """For each value of the column whether it passes; no nulls. Raises DataError for values that it cannot test."""
    if pa.types.is_nested(column.type):
        raise _untestable(condition, column)
    try:
        return _passed(condition, column)
    except pa.ArrowNotImplementedError as error:
        raise _untestable(condition, column) from error


def _untestable(condition: ConditionConfig, column: pa.ChunkedArray) -> DataError:
    return DataError(
        f"where: the column '{condition.column}' holds {column.type}, which this condition cannot test. "
        "Name a column of numbers or text."
    )


def _passed(condition: ConditionConfig, column: pa.ChunkedArray) -> pa.ChunkedArray:
    found = [
        test(as_numbers(column), getattr(condition, name))
        for name, test in NUMBERS.items()
        if getattr(condition, name) is not None
    ]
    of_text = (condition.one_of, condition.none_of, condition.matches, condition.not_matches)
    text = column if all(test in (None, ()) for test in of_text) else as_texts(column)
    if condition.one_of:
        found.append(pc.is_in(text, pa.array(condition.one_of)))
    if condition.none_of:
        found.append(pc.and_(pc.is_valid(text), pc.invert(pc.is_in(text, pa.array(condition.none_of)))))
    if condition.matches is not None:
        found.append(pc.match_substring_regex(text, condition.matches))
    if condition.not_matches is not None:
        found.append(pc.invert(pc.match_substring_regex(text, condition.not_matches)))
    passed = found[0]
    for one in found[1:]:
        passed = pc.and_kleene(passed, one)
    return pc.fill_null(passed, False)


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as float64; null where a text is no number."""
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        values = [_number(text) for text in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.float64())])


def as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text, whole numbers without a point or an exponent: 1e10 is 10000000000, as in other formats."""
    if not pa.types.is_floating(column.type):
        return pc.cast(column, pa.string())
    try:
        return pc.cast(pc.cast(column, pa.int64()), pa.string())
    except pa.ArrowInvalid:  # some are not whole
        return pa.chunked_array([pa.array([as_text(value) for value in column.to_pylist()], pa.string())])


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
