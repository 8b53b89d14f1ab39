"""Files that are broken or odd, of every kind that was met: each bad row has a reason, the rest goes through."""

import errno
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl.data.clean import Empty
from raysl.data.filters import run_filters
from raysl.data.sources import BadRows, Files, image_files, stores
from raysl.data.sources.images import Images
from raysl.data.sources.readers import Part
from raysl.data.sources.readers.columns import read_columns
from raysl.data.text import normalize_column
from raysl.errors import DataError, StoreError

SHARED = Path(os.environ.get("RAYSL_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "text" / "bad"
PLAIN = "The quick brown fox jumps over the lazy dog."
ROWS = [json.dumps({"id": str(n), "text": f"Document number {n} with a little text."}) for n in range(6)]


def parquet(values: list[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": values}), sink)
    return bytes(sink.getvalue())


def plain_parquet() -> bytes:
    """Three texts that stand in the file as they are."""
    sink = pa.BufferOutputStream()
    table = pa.table({"text": ["first", "second", "third"], "picture": [b"1", b"2", b"3"]})
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue())


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


CASES: dict[str, tuple[Callable[[], bytes], int, dict[str, int]]] = {
    "broken_line.jsonl": (lambda: lines(*ROWS[:2], ROWS[2][:30], "", *ROWS[3:5]), 4, {"broken_line": 1}),
    "crlf_mixed.txt": (lambda: "one\r\ntwo\nthree\rfour\x0cfive\x85six\u2028seven".encode(), 1, {}),
    "docs.jsonl.zst": (lambda: bytes(pa.compress(lines(*ROWS), "zstd", asbytes=True)), 6, {}),
    "duplicate_ids.jsonl": (lambda: lines(*ROWS[:3], *ROWS[:3]), 6, {}),
    "empty.txt": (lambda: b"", 0, {"empty": 1}),
    "empty.txt.gz": (lambda: gzip.compress(b""), 0, {"empty": 1}),
    "invalid_utf8.txt": (lambda: PLAIN.encode() + b"\xff\xc3\x28", 0, {"invalid_utf8": 1}),
    "latin1.txt": (lambda: "café".encode("latin-1"), 0, {"invalid_utf8": 1}),
    "lone_surrogate.jsonl": (lambda: lines(ROWS[0], '{"text": "a \\ud83d b"}', ROWS[2]), 2, {"lone_surrogate": 1}),
    "missing_text.jsonl": (
        lambda: lines(ROWS[0], '{"id": "1"}', '{"text": null}', '{"text": ""}', '{"text": 4}', ROWS[5]),
        2,
        {"missing_text": 4},
    ),
    "mojibake.txt": (lambda: "Größe, naïve café".encode().decode("cp1252").encode(), 1, {}),
    "no_final_newline.jsonl": (lambda: lines(*ROWS[:2]).rstrip(b"\n"), 2, {}),
    "no_rows.parquet": (lambda: parquet([]), 0, {}),
    "not_gzip.txt.gz": (lambda: b"this is no gzip at all", 0, {"unreadable_file": 1}),
    "nul_bytes.txt": (lambda: b"before\x00after\x00\x00end of line\nclean line", 1, {}),
    "one_line_20mb.txt.gz": (lambda: gzip.compress(b"a single line " * 100_000), 1, {}),
    "truncated.parquet": (lambda: parquet(["x"] * 50)[:-60], 0, {"unreadable_file": 1}),
    "truncated.txt.gz": (lambda: gzip.compress(os.urandom(30_000).hex().encode())[:20_000], 0, {"unreadable_file": 1}),
    "two_members.txt.gz": (lambda: gzip.compress(b"first member\n") + gzip.compress(b"second member\n"), 1, {}),
    "utf16_bom.txt": (lambda: PLAIN.encode("utf-16"), 1, {}),
    "utf8_bom.txt": (lambda: PLAIN.encode("utf-8-sig"), 1, {}),
    "whitespace.txt": (lambda: b" \n\t\n  \r\n \n", 0, {"empty": 1}),
    "wrong_type.parquet": (lambda: parquet([1, 2, 3, 4, 5]), 0, {"missing_text": 5}),
}  # fmt: skip
CLEANED = {
    "crlf_mixed.txt": "one\ntwo\nthree\nfour\nfive\nsix\nseven",
    "nul_bytes.txt": "beforeafterend of line\nclean line",
    "two_members.txt.gz": "first member\nsecond member",
}


def outcome(path: Path) -> tuple[list[str], dict[str, int]]:
    """Texts that stay, and how many rows went under each reason."""
    source, bad, empty, texts = Files(Files.Config(path=str(path))), BadRows(), Empty(None), list[str]()
    for partition in source.partitions(1.0):
        for table in source.read(partition, bad):
            table = table.set_column(1, "text", normalize_column(table["text"]))
            texts += table.filter(pa.array(run_filters([empty], table).passed))["text"].to_pylist()
    return texts, {**bad.counts(), **empty.dropped}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_file_is_counted_and_the_rest_goes_through(tmp_path: Path, name: str) -> None:
    content, num_good, reasons = CASES[name]
    (tmp_path / name).write_bytes(content())
    texts, counts = outcome(tmp_path / name)
    assert (len(texts), counts) == (num_good, reasons)
    if name in CLEANED:
        assert texts == [CLEANED[name]]
    if name == "mojibake.txt":
        assert texts == ["Größe, naïve café"]
    if name in ("utf16_bom.txt", "utf8_bom.txt"):
        assert texts == [PLAIN]


def test_a_folder_of_them_all_is_read_to_its_end(tmp_path: Path) -> None:
    for name, (content, _, _) in CASES.items():
        (tmp_path / name).write_bytes(content())
    texts, counts = outcome(tmp_path)
    assert len(texts) == sum(good for _, good, _ in CASES.values())
    assert counts == {
        "broken_line": 1, "empty": 3, "invalid_utf8": 2, "lone_surrogate": 1, "missing_text": 9, "unreadable_file": 3,
    }  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder of shared data (RAYSL_SHARED)")
def test_every_shared_broken_file_has_the_same_outcome() -> None:
    found = {path.name: outcome(path) for path in sorted(SHARED.iterdir())}
    assert {name: (len(texts), counts) for name, (texts, counts) in found.items()} == {
        name: (good, reasons) for name, (_, good, reasons) in CASES.items()
    }
    for name, text in CLEANED.items():
        assert found[name][0] == [text]


class FailingDisk(io.BytesIO):
    """A file whose disk gives out after its first bytes."""

    def peek(self, size: int = 0, /) -> bytes:
        return self.getvalue()[:size]

    def read1(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError(errno.EIO, "Input/output error")
        return super().read1(size)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_file_that_is_gone_is_no_bad_row(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"text")
    (tmp_path / "other.txt").write_text("text")
    source, bad = Files(Files.Config(path=str(tmp_path), text_column="text")), BadRows()
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read: .*Every machine"):
        list(source.read([(name, 0, -1)], bad))
    assert not bad.ids


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_table_of_events_that_is_gone_is_no_bad_row(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        list(read_columns(Part(str(tmp_path / name), name), ["text"], BadRows()))


@pytest.mark.parametrize("name", ["a.png", "a.zip", "a.tar", "a.parquet"])
def test_pictures_that_are_gone_are_no_bad_row(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        list(Images(Images.Config(path=str(tmp_path))).images([(name, 0, -1)], BadRows()))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet"])
def test_pictures_that_cannot_be_listed_end_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One item for such a file would be another list of partitions than the one of the next start."""
    gone = stores.StoredFile(str(tmp_path / name), name, 10, 0)
    monkeypatch.setattr(stores, "find", lambda path: [gone])
    with pytest.raises(DataError, match=f"{name} cannot be read: .*Set that right, then start again"):
        Images(Images.Config(path=str(tmp_path))).partitions(1.0)
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        list(image_files.INDEXES[Path(name).suffix](gone.path, gone.size, 1_000_000))


@pytest.mark.parametrize(("name", "looks_at_columns"), [("a.parquet", True), ("a.parquet", False), ("a.csv", True)])
def test_a_table_that_cannot_be_divided_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, looks_at_columns: bool
) -> None:
    monkeypatch.setattr(stores, "find", lambda path: [stores.StoredFile(str(tmp_path / name), name, 10, 0)])
    if not looks_at_columns:  # the file went between the two
        monkeypatch.setattr(Files, "_check_columns", lambda self, path: None)
    with pytest.raises(DataError, match=f"{name} cannot be read: .*Set that right, then start again"):
        Files(Files.Config(path=str(tmp_path))).partitions(1.0)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_disk_that_fails_at_the_list_of_members_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(b"archive")
    monkeypatch.setattr("raysl.data.sources.image_files.open_bytes", lambda path: FailingStart(bytes(50)))
    with pytest.raises(DataError, match=f"{name} cannot be read: .*Input/output error"):
        Images(Images.Config(path=str(tmp_path))).partitions(1.0)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet"])
def test_a_damaged_file_of_pictures_is_one_item(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no such format" * 100)
    source, bad = Images(Images.Config(path=str(tmp_path))), BadRows()
    assert source.partitions(1.0) == [[(name, 0, -1)]]
    assert list(source.images([(name, 0, -1)], bad)) == []
    assert bad.counts() == {"unreadable_file": 1}


def test_a_disk_that_fails_in_the_middle_of_a_file_is_no_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    source = Files(Files.Config(path=str(tmp_path)))
    monkeypatch.setattr("raysl.data.sources.readers.base.open_bytes", lambda path: FailingDisk(b"text\n" * 90_000))
    with pytest.raises(DataError, match=r"a.csv cannot be read: .*Input/output error"):
        list(source.read([("a.csv", 0, -1)], BadRows()))


@pytest.mark.parametrize("kind", ["documents", "events", "pictures"])
def test_a_row_of_a_parquet_whose_text_is_no_utf8_costs_no_other_row(tmp_path: Path, kind: str) -> None:
    """Those who write such files need not check their texts: one that was cut inside a letter is among thousands."""
    path, bad = tmp_path / "a.parquet", BadRows()
    path.write_bytes(plain_parquet().replace(b"second", b"sec\xffnd"))
    if kind == "documents":
        source = Files(Files.Config(path=str(path)))
        found = [text for part in source.partitions(1.0) for _, text, _ in source.rows(part, bad)]
    elif kind == "events":
        found = [
            text for table in read_columns(Part(str(path), "a.parquet"), ["text"], bad) for text in table["text"].to_pylist()
        ]
    else:
        pictures = Images(Images.Config(path=str(path), image_column="picture", label_column="text"))
        found = [label for _, _, label in pictures.images([("a.parquet", 0, -1)], bad)]
    assert found == ["first", "third"]
    assert list(zip(bad.ids, bad.reasons, strict=True)) == [("a.parquet:1", "invalid_utf8")]


def test_a_parquet_whose_footer_is_damaged_is_one_item(tmp_path: Path) -> None:
    """A column name that is no UTF-8."""
    (tmp_path / "a.parquet").write_bytes(plain_parquet().replace(b"text", b"te\xfft"))
    assert Files(Files.Config(path=str(tmp_path))).partitions(1.0) == [[("a.parquet", 0, -1)]]


class FailingStart(io.BytesIO):
    """An archive whose list of members, at its end, can be read, and whose first bytes cannot."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() < 100:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_disk_that_fails_at_a_member_of_an_archive_is_no_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.png", b"picture" * 1000)
    (tmp_path / "a.zip").write_bytes(data.getvalue())
    monkeypatch.setattr("raysl.data.sources.image_files.open_bytes", lambda path: FailingStart(data.getvalue()))
    with pytest.raises(DataError, match=r"a.zip cannot be read: .*Input/output error"):
        list(Images(Images.Config(path=str(tmp_path))).images([("a.zip", 0, -1)], BadRows()))


def test_a_store_that_does_not_answer_is_told_from_a_damaged_file() -> None:
    lost = "When reading information for key 'k' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject operation"
    with pytest.raises(StoreError, match=r"s3://b/k cannot be read: .*credentials"):
        stores.raise_out_of_reach("s3://b/k", OSError(lost))
    for damage in (OSError("Corrupt snappy compressed data."), gzip.BadGzipFile("x"), OSError(errno.EINVAL, "before 0")):
        stores.raise_out_of_reach("s3://b/k", damage)
