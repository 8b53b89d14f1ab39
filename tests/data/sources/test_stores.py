"""Files in an S3-compatible store that runs here: the same rows as from a folder."""

import errno
import gzip
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raysl.data.sources import BadRows, Files, Images, image_files, readers, stores
from raysl.errors import DataError
from tests.object_store import object_store

LINES = "".join(json.dumps({"text": f"text {n} " + "x" * n}) + "\n" for n in range(40)).encode()


def write_files(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(LINES)
    (folder / "a.b.txt").write_text("a page")
    (folder / "deep" / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    with pa.output_stream(str(folder / "deep" / "c.jsonl.zst"), compression="zstd") as file:
        file.write(LINES)
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(10)]}), folder / "deep" / "d.parquet", row_group_size=4)
    (folder / "deep" / "e.parquet").write_bytes(b"PAR1 cut off")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a bucket, and a folder with the same files."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder / "docs")
    with object_store("corpus") as store:
        fs.copy_files(str(folder), "corpus", fs.LocalFileSystem(), store)
        yield "s3://corpus", folder


def read(path: str) -> tuple[list[dict[str, str]], dict[str, int]]:
    source, bad = Files(Files.Config(path=path)), BadRows()
    parts = source.partitions(0.0005)
    return [row for part in parts for table in source.read(part, bad) for row in table.to_pylist()], bad.counts()


@pytest.mark.parametrize(
    "path", ["docs", "docs/*.jsonl", "docs/**/*.jsonl*", "docs/deep/[cd].*", "docs/deep/[!ce].*", "docs/d*/d.*"]
)
def test_a_store_gives_the_same_rows_as_a_folder(bucket: tuple[str, Path], path: str) -> None:
    address, folder = bucket
    rows, bad = read(f"{address}/{path}")
    assert (rows, bad) == read(f"{folder}/{path}")
    assert rows


def test_the_fingerprint_names_the_content(bucket: tuple[str, Path]) -> None:
    source = Files(Files.Config(path=f"{bucket[0]}/docs"))
    assert source.fingerprint() == Files(Files.Config(path=f"{bucket[0]}/docs/")).fingerprint()
    assert source.fingerprint() != Files(Files.Config(path=f"{bucket[0]}/docs/deep")).fingerprint()


@pytest.mark.parametrize("path", ["s3://corpus/nowhere", "s3://no-such-bucket/docs"])
def test_what_is_not_there_is_named(bucket: tuple[str, Path], path: str) -> None:
    with pytest.raises(DataError, match=path):
        read(path)


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(DataError, match=r"ftp://host/docs cannot be opened.*Allowed: a path, s3://"):
        read("ftp://host/docs")


def names(path: Path | str) -> list[str]:
    return [file.name for file in stores.find(str(path))]


def test_links_to_folders_are_followed_and_each_folder_is_read_once(tmp_path: Path) -> None:
    write_files(tmp_path / "docs")
    whole = names(tmp_path / "docs")
    elsewhere = tmp_path / "elsewhere"
    for name in ("x/one.txt", "x/y/two.txt"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("text")
    links = {
        "docs/again": "docs/deep", "docs/deep/up": "docs", "docs/b": "elsewhere", "docs/c": "elsewhere/x/y",
        "docs/gone": "nowhere", "docs/self": "docs/self", "elsewhere/x/back": "docs", "elsewhere/z.txt": "docs/a.b.txt",
    }  # fmt: skip
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    assert names(tmp_path / "docs") == sorted([*whole, "b/x/one.txt", "b/x/y/two.txt", "b/z.txt"])
    assert [row["text"] for row in read(str(tmp_path / "docs"))[0] if row["id"] == "b/x/y/two.txt"] == ["text"]


@pytest.mark.parametrize("path", ["docs", "docs/", "docs/**/*", "docs/._*"])
def test_what_a_mac_leaves_beside_files_is_no_data(tmp_path: Path, path: str) -> None:
    write_files(tmp_path / "docs")
    before = read(str(tmp_path / "docs")), Files(Files.Config(path=str(tmp_path / "docs"))).fingerprint()
    for name in ("._a.jsonl", "deep/._d.parquet", "__MACOSX/deep/._a.b.txt", "__MACOSX/a.txt"):
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(b"\0\5\x16\7 Mac OS X")
    assert names(f"{tmp_path}/{path}") == ([] if "._" in path else names(tmp_path / "docs"))
    assert (read(str(tmp_path / "docs")), Files(Files.Config(path=str(tmp_path / "docs"))).fingerprint()) == before


@pytest.mark.parametrize("name", ["deep", "link"])
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_files(tmp_path / "docs")
    (tmp_path / "docs" / "link").symlink_to(tmp_path)
    (tmp_path / "docs" / "lost+found").mkdir()
    scandir = os.scandir

    def forbidding(path: str) -> object:
        if os.path.basename(path) in (name, "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    with pytest.raises(DataError, match=rf"docs/{name} cannot be read: .*Permission denied.*Set that right"):
        names(tmp_path / "docs")


def test_a_glob_reads_a_folder_below_two_stars_once(tmp_path: Path) -> None:
    write_files(tmp_path / "docs")
    (tmp_path / "docs" / "deep" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / ".git").mkdir()
    (tmp_path / "docs" / ".git" / "f.jsonl").write_bytes(LINES)
    whole = ["a.b.txt", "a.jsonl", "deep/b.jsonl.gz", "deep/c.jsonl.zst", "deep/d.parquet", "deep/e.parquet"]
    found = {
        "docs/**": whole, "docs/**/*": whole, "docs/**/deep/*.parquet": whole[4:], "docs/**/[!ade].*": whole[2:4],
        "d*/**/*.jsonl*": [f"docs/{name}" for name in whole if "jsonl" in name],
        "docs/*": whole[:2], "docs/.*/*": [".git/f.jsonl"], "nowhere/**/*": [], "docs/a.jsonl/*": [],
    }  # fmt: skip
    assert {path: names(tmp_path / path) for path in found} == found


@pytest.mark.parametrize("path", ["docs/**/*.jsonl", "docs/*/*.jsonl"])
def test_a_glob_names_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    write_files(tmp_path / "docs")
    for name in ("scandir", "listdir"):
        listing = getattr(os, name)

        def forbidding(place: str, listing: Callable[[str], object] = listing) -> object:
            if os.path.basename(place) == "deep":
                raise PermissionError(errno.EACCES, "Permission denied", place)
            return listing(place)

        monkeypatch.setattr(os, name, forbidding)
    with pytest.raises(DataError, match=r"docs/deep cannot be read: .*Permission denied"):
        names(tmp_path / path)


def test_files_come_in_the_order_of_their_folders(tmp_path: Path) -> None:
    write_files(tmp_path / "docs")
    expected = ["a.b.txt", "a.jsonl", "deep/b.jsonl.gz", "deep/c.jsonl.zst", "deep/d.parquet", "deep/e.parquet"]
    assert names(tmp_path / "docs") == expected


class Asked(io.RawIOBase):
    """A file in a store that counts the requests."""

    def __init__(self, data: bytes) -> None:
        self._file, self.requests = io.BytesIO(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0, /) -> int:
        return self._file.seek(place, whence)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        self.requests += 1
        return self._file.readinto(buffer)

    def readall(self) -> bytes:
        self.requests += 1
        return self._file.read()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.jsonl.gz"])
def test_a_store_is_not_asked_for_every_few_lines(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    line = '{"text": "a line of a file in a store"}\n' if "jsonl" in name else "a line of a file in a store\n"
    text = f"{'text' if 'csv' in name else ''}\n".encode() + line.encode() * (1_500_000 // len(line))
    file = Asked(gzip.compress(text, 0) if name.endswith(".gz") else text)
    monkeypatch.setattr(stores, "arrow_file", lambda path: file)
    rows = readers.read(readers.Part(f"s3://b/{name}", name), Files.Config(path="s3://b"), BadRows())
    assert next(rows)[1].strip().startswith("a line")
    list(rows)
    assert file.requests < 8


@pytest.mark.parametrize("key", ["folder/a dog", "C#/notes", "100%/x", "a%20b", "[a]?x", "folder", ""])
def test_a_key_is_taken_as_it_stands(key: str) -> None:
    system, path = stores._opened(f"gs://anonymous@bucket/{key}".rstrip("/"))
    assert path == f"bucket/{key}".rstrip("/")
    assert system is stores._opened("gs://anonymous@bucket/elsewhere")[0]  # a client for each folder is memory


def test_a_file_may_be_named_by_a_uri(tmp_path: Path) -> None:
    write_files(tmp_path / "my docs")
    assert read(f"file://{tmp_path}/my docs") == read(str(tmp_path / "my docs"))


def test_an_endpoint_may_end_with_a_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000/")
    assert stores._opened("s3://bucket/a b")[0] == fs.S3FileSystem(endpoint_override="store:9000", scheme="http")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_a_store_are_looked_at_side_by_side(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Ten thousand of them one after the other are an hour before any work."""
    files = [stores.StoredFile(f"s3://b/{n}.{kind}", f"{n}.{kind}", 10, 0) for n in range(4)]
    together = threading.Barrier(len(files), timeout=5)

    def columns_of(path: str) -> list[str]:
        together.wait()
        return ["text", "image"]

    monkeypatch.setattr(stores, "find", lambda path: files)
    monkeypatch.setattr(readers, "columns_of", columns_of)
    monkeypatch.setattr(image_files, "columns_of", columns_of)
    monkeypatch.setitem(image_files.INDEXES, ".parquet", lambda path, size, num_bytes: [(0, 1, size)])
    source = Files(Files.Config(path="s3://b")) if kind == "csv" else Images(Images.Config(path="s3://b"))
    assert [name for part in source.partitions(1.0) for name, _, _ in part] == [file.name for file in files]
