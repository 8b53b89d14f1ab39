"""Plain text: a file, a paragraph or a line is a document."""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from raysl.data.sources.base import INVALID_UTF8, BadRows, Row
from raysl.data.sources.readers.base import UTF_16, Columns, Part, opened

PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")


def _decoded(data: bytes) -> str:
    if data.startswith(UTF_16):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def txt(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    if columns.txt_unit == "line":
        yield from _txt_lines(part, bad)
        return
    with opened(part.path) as file:
        data = file.read()
    try:
        text = _decoded(data)
    except UnicodeDecodeError:
        bad.add(INVALID_UTF8, part.name)
        return
    if columns.txt_unit == "file":
        yield part.name, text, None
        return
    for number, paragraph in enumerate(PARAGRAPH.split(text)):
        if paragraph.strip():
            yield f"{part.name}:{number}", paragraph, None


def _txt_lines(part: Part, bad: BadRows) -> Iterator[Row]:
    with opened(part.path) as file:
        if cast(io.BufferedReader, file).peek(2).startswith(UTF_16):
            yield from _utf16_lines(file, part.name, bad)
            return
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig")
            except UnicodeDecodeError:
                bad.add(INVALID_UTF8, f"{part.name}:{number}")
                continue
            if text.strip():
                yield f"{part.name}:{number}", text, None


def _utf16_lines(file: BinaryIO, name: str, bad: BadRows) -> Iterator[Row]:
    number = 0
    try:
        # Half of a pair comes through, so that its line alone is counted as a bad row.
        for number, line in enumerate(io.TextIOWrapper(file, "utf-16", "surrogatepass", newline="\n"), start=1):
            if line.strip():
                yield f"{name}:{number}", line, None
    except UnicodeDecodeError:  # half a character ends the file
        bad.add(INVALID_UTF8, f"{name}:{number + 1}")
