"""Events in tables: who did something with what, and when; conditions on columns say which rows count."""

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from raysl.config import AnyPath, PluginConfig
from raysl.data import times
from raysl.data.filters.base import Examples
from raysl.data.sources.base import BadRows, Partition, as_text
from raysl.data.sources.conditions import ConditionConfig, as_texts, holds
from raysl.data.sources.files import StoredFiles
from raysl.data.sources.readers.columns import FORMATS, PLACE, read_columns
from raysl.schema import EVENT, ID, ITEM, SPECIAL_TOKENS, TEXT, TIME, USER

BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
Test = tuple[str, Counter[str], pa.ChunkedArray]
"""A reason, where it is counted, and which rows pass."""


class InteractionsConfig(PluginConfig):
    """Events of users with items, one in a row."""

    modality: ClassVar[str] = "interactions"
    type: str = "interactions"
    path: AnyPath
    """A file, a folder (read with all below it) or a glob; on this machine, or s3://bucket/..., gs://bucket/..."""
    user_column: str = "user"
    """Column or key of who acted."""
    item_column: str = "item"
    """Column or key of what it was done with: the code that becomes a token."""
    time_column: str = "time"
    """Column or key of when."""
    text_column: str | None = None
    """Column or key that describes the item, if there is one."""
    group_column: str | None = None
    """Column or key of what belongs together and has no order inside: invoice, basket, visit."""
    time_format: str = times.ISO
    """`iso` (timestamps and ISO 8601 text), `s`, `ms`, `us`, `ns` (numbers since 1970), or a pattern as `%d/%m/%Y %H:%M`."""
    where: tuple[ConditionConfig, ...] = Field(())
    """Conditions that every row has to pass, in this order."""

    @field_validator("time_format")
    @classmethod
    def _known_format(cls, form: str) -> str:
        if form != times.ISO and form not in times.UNITS and "%" not in form:
            raise ValueError(f"time_format is {times.ISO}, {', '.join(times.UNITS)} or a pattern with %, got {form!r}")
        return form


class EventDrops:
    """Rows that are no events, counted by reason, with seeded examples; memory does not grow with the rows."""

    def __init__(self, seed: int) -> None:
        self.bad: Counter[str] = Counter()
        """Rows that cannot be read."""
        self.unwanted: Counter[str] = Counter()
        """Rows that a condition leaves out."""
        self.examples = Examples(seed)

    def take(self, bad: BadRows) -> None:
        """Counts what a reader found, and empties its list."""
        self.bad.update(bad.reasons)
        for reason in set(bad.reasons):
            names = [name for name, other in zip(bad.ids, bad.reasons, strict=True) if other == reason]
            self.examples.add(reason, pa.table({ID: names, TEXT: [""] * len(names)}))
        bad.ids.clear()
        bad.reasons.clear()


class Interactions(StoredFiles):
    """Reads what it can; each row that is no event is counted under its first reason."""

    Config: ClassVar[type[PluginConfig]] = InteractionsConfig
    config: InteractionsConfig
    formats = FORMATS

    def columns(self) -> dict[str, str]:
        keys = ("user_column", "item_column", "time_column", "text_column", "group_column")
        named = {key: getattr(self.config, key) for key in keys}
        asked = {f"where.{place}.column": one.column for place, one in enumerate(self.config.where)}
        return {key: name for key, name in (named | asked).items() if name is not None}

    def events(self, partition: Partition, drops: EventDrops) -> Iterator[pa.Table]:
        """Yields tables of schema.EVENT in the order of the source, at most 65,536 rows each."""
        wanted = list(dict.fromkeys(self.columns().values()))
        for part in self.parts(partition):
            bad = BadRows()
            for table in read_columns(part, wanted, bad):
                drops.take(bad)
                yield self._events(table, part.name, drops)
            drops.take(bad)

    def _events(self, table: pa.Table, name: str, drops: EventDrops) -> pa.Table:
        config, table = self.config, _without_blanks(table)
        events = pa.table(
            [
                _text(table, config.user_column),
                _text(table, config.item_column),
                times.as_microseconds(table[config.time_column], config.time_format),
                _text(table, config.group_column),
                _text(table, config.text_column),
            ],
            schema=EVENT,
        )
        rest = pa.chunked_array([pa.repeat(True, len(events))])
        for reason, counts, passed in self._tests(table, events, drops):
            lost = pc.and_(rest, pc.invert(passed))
            if number := pc.sum(lost).as_py():
                counts[reason] += number
                ids = [f"{name}:{place}" for place in table[PLACE].filter(lost).to_pylist()]
                drops.examples.add(reason, pa.table({ID: ids, TEXT: described(events.filter(lost))}))
            rest = pc.and_(rest, passed)
        return events.filter(rest)

    def _tests(self, table: pa.Table, events: pa.Table, drops: EventDrops) -> Iterator[Test]:
        """What every event needs comes first, then the conditions in their order."""
        yield "missing_user", drops.bad, pc.is_valid(events[USER])
        yield "missing_item", drops.bad, pc.is_valid(events[ITEM])
        reserved = pc.is_in(events[ITEM], pa.array(SPECIAL_TOKENS))
        yield "reserved_item", drops.bad, pc.invert(reserved)
        yield "missing_time", drops.bad, pc.is_valid(table[self.config.time_column])
        yield "bad_time", drops.bad, pc.is_valid(events[TIME])
        for condition in self.config.where:
            yield condition.reason, drops.unwanted, holds(condition, table[condition.column])


def _without_blanks(table: pa.Table) -> pa.Table:
    """Text without blanks around it; where nothing is left, null: a blank cell of .csv is a missing value, as NaN is."""
    for place, field in enumerate(table.schema):
        values = _decoded(table[field.name])
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            text = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
            table = table.set_column(place, field.name, pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text))
        elif pa.types.is_floating(kind):
            table = table.set_column(place, field.name, pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values))
    return table


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bytes and UUIDs as text; null for bytes that are no UTF-8."""
    kind = column.type
    if any(is_bytes(kind) for is_bytes in BYTES) or isinstance(kind, pa.UuidType):
        return pa.chunked_array([pa.array([as_text(value) for value in column.to_pylist()], pa.string())])
    return column


def _text(table: pa.Table, column: str | None) -> pa.ChunkedArray:
    """The column as text; null where it says nothing that a text could say."""
    if column is None or pa.types.is_nested(table[column].type):
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    return as_texts(table[column])


def described(events: pa.Table) -> pa.ChunkedArray:
    """One line for each event: user, item, time, what the item is."""
    time = pc.cast(pc.cast(events[TIME], pa.timestamp("us")), pa.string())
    parts = [pc.fill_null(column, "-") for column in (events[USER], events[ITEM], time, events[TEXT])]
    return pc.binary_join_element_wise(*parts, "  ")
