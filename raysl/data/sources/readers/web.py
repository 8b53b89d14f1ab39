"""Web pages: HTML files and WARC archives, their main text found by trafilatura (Barbaresi, 2021)."""

import zlib
from collections.abc import Iterator
from typing import Any

from raysl.data.sources.base import BadRows, Row
from raysl.data.sources.readers.base import Columns, Part, opened
from raysl.data.sources.stores import open_bytes

MAX_PAGE_BYTES = 10_000_000
"""Longer pages are refused, so that memory stays bounded."""
PAGES = ("text/html", "application/xhtml+xml")


def html(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """One page in a file."""
    with opened(part.path) as file:
        yield from _page(file.read(MAX_PAGE_BYTES + 1), None, part.name, bad)


def warc(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """The pages that were fetched with success; their id is the address. Other records are no documents."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with open_bytes(part.path) as file:  # each record is compressed on its own: what lies before a break can be read
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            whole = min(record.content_length, MAX_PAGE_BYTES + 1)
            data = record.reader.read(whole)
            if len(data) < whole:  # the library itself says nothing of a file that is cut off
                raise EOFError(f"{part.name} ends inside a record")
            if not _is_page(record):
                continue
            name = record.headers.get("WARC-Target-URI") or f"{part.name}:{record.stream_pos}"
            yield from _page(_as_written(data, record.http_headers), record.http_charset, name, bad)


def _is_page(record: Any) -> bool:
    if not record.is_http or record.http_headers is None:
        return False
    return record.http_headers.status_code == 200 and (record.http_content_type or "").lower() in PAGES


def _as_written(data: bytes, headers: Any) -> bytes:
    """A page without the chunks and the compression it was sent with, which many crawlers keep.

    Others undo both and leave the headers: what is not as they say stays as it is.
    """
    said = {name: (headers.get(name) or "").lower() for name in ("Transfer-Encoding", "Content-Encoding")}
    try:
        if "chunked" in said["Transfer-Encoding"]:
            data = b"".join(_chunks(data))
        if said["Content-Encoding"] in ("gzip", "x-gzip", "deflate"):
            data = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, MAX_PAGE_BYTES + 1)
    except (ValueError, zlib.error):
        pass
    return data


def _chunks(data: bytes) -> Iterator[bytes]:
    """The parts of a page, each of which stands behind its length (RFC 9112, section 7.1)."""
    place, size = 0, 1
    while size > 0:
        begin = data.index(b"\r\n", place) + 2
        size = int(data[place:begin].partition(b";")[0], 16)
        yield data[begin : begin + size]
        place = begin + size + 2


def _page(data: bytes, charset: str | None, name: str, bad: BadRows) -> Iterator[Row]:
    import trafilatura

    if len(data) > MAX_PAGE_BYTES:
        bad.add("page_too_large", name)
        return
    text = trafilatura.extract(_decoded(data, charset), include_comments=False)
    if text:
        yield name, text, None
    else:
        bad.add("no_main_text", name)


def _decoded(data: bytes, charset: str | None) -> str | bytes:
    """The page as text where its encoding is certain; the extractor looks for one in the page itself otherwise."""
    for encoding in filter(None, (charset, "utf-8")):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data
