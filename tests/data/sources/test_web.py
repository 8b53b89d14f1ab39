"""HTML files and WARC archives: the main text of pages, and a reason for each that has none."""

import gzip
import importlib.util
from pathlib import Path

import pytest

from raysl.data.sources import BadRows, Files
from raysl.errors import ConfigError

PAGE = """<html><head><title>T</title></head><body><nav><a href="/">Home</a> <a href="/x">About us</a></nav>
<article><h1>Cats</h1><p>Cats are small animals that live with people in houses all over the wörld.</p>
<p>They sleep for most of the day, and hunt at night when it is quiet {number}.</p></article><footer>Copyright</footer>
</body></html>"""


@pytest.fixture
def _installed() -> None:
    for name in ("trafilatura", "fastwarc"):
        pytest.importorskip(name)


def read(path: Path) -> tuple[list[dict[str, str]], dict[str, int]]:
    source, bad = Files(Files.Config(path=str(path))), BadRows()
    rows = [row for part in source.partitions(1.0) for table in source.read(part, bad) for row in table.to_pylist()]
    return rows, bad.counts()


def record(url: str, body: bytes, kind: str = "text/html; charset=utf-8", status: int = 200, headers: str = "") -> bytes:
    http = f"HTTP/1.1 {status} OK\r\n{headers}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def archive() -> list[bytes]:
    return [
        record("http://a.org/1", PAGE.replace("{number}", "one").encode()),
        record("http://a.org/image", b"\x89PNG", "image/png"),
        record("http://a.org/gone", PAGE.encode(), status=404),
        record("http://a.org/empty", b"<html><body></body></html>"),
        record("http://a.org/2", PAGE.replace("{number}", "two").encode("latin-1"), "text/html; charset=latin-1"),
    ]


@pytest.mark.usefixtures("_installed")
def test_an_html_file_is_its_main_text(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "b.htm").write_bytes(b"<html><body></body></html>")
    (tmp_path / "c.html.gz").write_bytes(gzip.compress(PAGE.encode()))
    rows, bad = read(tmp_path)
    assert [row["id"] for row in rows] == ["a.html", "c.html.gz"]
    assert rows[0]["text"] == rows[1]["text"]
    assert "all over the wörld" in rows[0]["text"]
    assert "About us" not in rows[0]["text"]
    assert bad == {"no_main_text": 1}


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_an_archive_gives_its_pages_under_their_addresses(tmp_path: Path, name: str) -> None:
    records = archive()
    members = b"".join(gzip.compress(one) for one in records) if name.endswith(".gz") else b"".join(records)
    (tmp_path / name).write_bytes(members)
    rows, bad = read(tmp_path)
    assert [row["id"] for row in rows] == ["http://a.org/1", "http://a.org/2"]
    assert all("all over the wörld" in row["text"] for row in rows)
    assert bad == {"no_main_text": 1}


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("cut", [40, 200])
def test_an_archive_that_is_cut_off_keeps_what_came_before(tmp_path: Path, cut: int) -> None:
    whole = b"".join(gzip.compress(one) for one in archive())
    (tmp_path / "cut.warc.gz").write_bytes(whole[:-cut])
    rows, bad = read(tmp_path)
    assert [row["id"] for row in rows] == ["http://a.org/1"]
    assert bad == {"no_main_text": 1, "unreadable_file": 1}


def chunked(data: bytes) -> bytes:
    parts = [data[start : start + 70] for start in range(0, len(data), 70)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


CHUNKS, PACKED = "Transfer-Encoding: chunked\r\n", "content-encoding: gzip\r\n"


@pytest.mark.usefixtures("_installed")
def test_a_page_is_read_as_it_was_written_however_it_was_sent(tmp_path: Path) -> None:
    page, packed = PAGE.encode(), gzip.compress(PAGE.encode())
    sent = [
        ("", page), (CHUNKS, chunked(page)), (PACKED, packed), (CHUNKS + PACKED, chunked(packed)), (CHUNKS + PACKED, page),
        (CHUNKS, page),
    ]  # fmt: skip
    (tmp_path / "a.warc").write_bytes(b"".join(record("http://a.org", body, headers=headers) for headers, body in sent))
    rows, bad = read(tmp_path)
    assert (len(rows), bad) == (len(sent), {})
    assert len({row["text"] for row in rows}) == 1


@pytest.mark.usefixtures("_installed")
def test_a_page_past_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysl.data.sources.readers.web.MAX_PAGE_BYTES", 100)
    (tmp_path / "a.html").write_bytes(PAGE.encode())
    assert read(tmp_path) == ([], {"page_too_large": 1})


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Reading .html needs .* trafilatura. Install it: pip install 'raysl\[web\]'"):
        read(tmp_path)
