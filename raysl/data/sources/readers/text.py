"""Plain text: a file, a paragraph or a line is a document."""

import re
from collections.abc import Iterator

from raysl.data.sources.base import BadRows, Row
from raysl.data.sources.readers.base import Columns, Part, opened

PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
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
        bad.add("invalid_utf8", part.name)
        return
    if columns.txt_unit == "file":
        yield part.name, text, None
        return
    for number, paragraph in enumerate(PARAGRAPH.split(text)):
        if paragraph.strip():
            yield f"{part.name}:{number}", paragraph, None


def _txt_lines(part: Part, bad: BadRows) -> Iterator[Row]:
    with opened(part.path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = _decoded(line)
            except UnicodeDecodeError:
                bad.add("invalid_utf8", f"{part.name}:{number}")
                continue
            if text.strip():
                yield f"{part.name}:{number}", text, None
