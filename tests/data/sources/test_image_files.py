"""Pictures in folders, archives, tables and a store: the same rows from each, whatever the partitions."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import fs

from raysl.data.sources import BadRows, Digits, Images
from raysl.data.sources.image_source import ImageRow
from raysl.errors import DataError
from tests.data.pictures import saved, scene

PICTURES = {
    f"{label}/{number}.png": saved(scene(number, 24, 16), "PNG") for number in range(12) for label in ["ab"[number % 2]]
}
LITTER = {"notes.txt": b"no picture", "a/._1.png": b"left by a Mac", "__MACOSX/a/2.png": b"the same"}


def write_tar(path: Path, classes: bool) -> None:
    with tarfile.open(path, "w") as archive:
        for number, (name, data) in enumerate(PICTURES.items()):
            members = [(name, data), *([(name.replace(".png", ".cls"), str(number % 3).encode())] if classes else [])]
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for name, data in {**PICTURES, **LITTER}.items():
        (root / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "folder" / name).write_bytes(data)
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name, data in {**PICTURES, **LITTER}.items():
            archive.writestr(name, data)
    write_tar(root / "plain.tar", classes=False)
    write_tar(root / "classes.tar", classes=True)
    rows = {"name": list(PICTURES), "image": list(PICTURES.values()), "label": [int(n > 5) for n in range(12)]}
    pq.write_table(pa.table(rows), root / "rows.parquet", row_group_size=5)
    structs = [{"bytes": data, "path": None} for data in PICTURES.values()]
    pq.write_table(pa.table({"image": structs}), root / "structs.parquet")
    return root


def read(path: Path | str, partition_mb: float = 0.002, **keys: object) -> tuple[list[ImageRow], dict[str, int], int]:
    source, bad = Images(Images.Config(path=str(path), **keys)), BadRows()
    parts = source.partitions(partition_mb)
    return [row for part in parts for row in source.images(part, bad)], bad.counts(), len(parts)


@pytest.mark.parametrize("name", ["folder", "all.zip", "plain.tar"])
@pytest.mark.parametrize("partition_mb", [0.0001, 0.002, 100])
def test_every_picture_comes_once_with_its_folder_as_label(folder: Path, name: str, partition_mb: float) -> None:
    rows, bad, num_parts = read(folder / name, partition_mb)
    prefix = "" if name == "folder" else f"{name}/"
    assert sorted(rows) == sorted((prefix + member, data, member[0]) for member, data in PICTURES.items())
    assert bad == {}
    assert (num_parts == 1) == (partition_mb == 100)


@pytest.mark.parametrize("partition_mb", [0.0001, 100])
def test_a_webdataset_has_its_classes_as_labels(folder: Path, partition_mb: float) -> None:
    rows, bad, _ = read(folder / "classes.tar", partition_mb)
    assert [label for _, _, label in rows] == [str(number % 3) for number in range(12)]
    assert [data for _, data, _ in rows] == list(PICTURES.values())
    assert bad == {}


def test_folders_need_not_be_labels(folder: Path) -> None:
    assert {label for _, _, label in read(folder / "all.zip", folder_labels=False)[0]} == {None}


def test_a_table_has_columns(folder: Path) -> None:
    rows, _, num_parts = read(folder / "rows.parquet", 1e-9, label_column="label", id_column="name")
    assert rows == [(name, data, str(int(n > 5))) for n, (name, data) in enumerate(PICTURES.items())]
    assert num_parts == 3
    assert [name for name, _, _ in read(folder / "rows.parquet")[0]][6] == "rows.parquet:6"
    assert [data for _, data, _ in read(folder / "structs.parquet")[0]] == list(PICTURES.values())
    with pytest.raises(DataError, match=r"no column 'picture'. Its columns: name, image, label"):
        read(folder / "rows.parquet", image_column="picture")


def test_blank_labels_and_ids_of_a_table_are_missing(tmp_path: Path) -> None:
    rows = {"image": [b"x"] * 3, "label": ["", " ", None], "number": [1.0, float("nan"), None]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert read(tmp_path, label_column="label")[0] == [(f"a.parquet:{n}", b"x", None) for n in range(3)]
    assert [label for _, _, label in read(tmp_path, label_column="number")[0]] == ["1", None, None]
    assert [name for name, _, _ in read(tmp_path, id_column="number")[0]] == ["1", "a.parquet:1", "a.parquet:2"]


def test_a_blank_class_of_a_webdataset_is_missing(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for member, content in (("1.png", b"x"), ("1.cls", b"\n"), ("2.PNG", b"x"), ("2.CLS", b"7\n")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert [label for _, _, label in read(tmp_path)[0]] == [None, "7"]


def test_a_table_whose_name_is_no_utf8_is_read_as_any_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"]}), pa.OSFile(bytes(tmp_path) + b"/caf\xe9.parquet", "wb"))
    assert read(tmp_path)[:2] == ([("caf?.parquet:0", b"x", None)], {})


def test_a_row_without_a_picture_is_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x", None]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "b.parquet")
    rows, bad, _ = read(tmp_path)
    assert (len(rows), bad) == (1, {"missing_image": 3})


@pytest.mark.parametrize(
    ("name", "left"), [("all.zip", 0), ("plain.tar", range(1, 12)), ("classes.tar", range(1, 12)), ("rows.parquet", 0)]
)
def test_a_file_that_is_cut_off_is_counted_and_the_pictures_before_the_cut_stay(
    folder: Path, tmp_path: Path, name: str, left: int | range
) -> None:
    whole = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2 + 7])
    (tmp_path / "good.png").write_bytes(PICTURES["a/0.png"])
    rows, bad, _ = read(tmp_path)
    assert bad == {"unreadable_file": 1}
    assert len(rows) - 1 in (left if isinstance(left, range) else [left])
    assert {data for _, data, _ in rows} <= set(PICTURES.values())


def test_a_damaged_member_of_an_archive_is_counted_alone(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "all.zip").read_bytes())
    data[200] ^= 0xFF
    (tmp_path / "all.zip").write_bytes(data)
    rows, bad, _ = read(tmp_path / "all.zip")
    assert (len(rows), bad) == (11, {"unreadable_file": 1})


def test_the_list_of_an_archive_is_read_once_by_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of a million members for each of 70,000 ranges would take weeks."""
    names = [f"{'ab'[number % 2]}/{number:04d}.png" for number in range(600)]
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for name in names:
            archive.writestr(name, name)
    lists = []
    listed = zipfile.ZipFile.infolist
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: lists.append(1) or listed(self))
    rows, bad, num_parts = read(tmp_path / "many.zip", 1e-4)
    assert rows == [(f"many.zip/{name}", name.encode(), name[0]) for name in names]
    assert (bad, num_parts) == ({}, 60)
    assert len(lists) == 2  # to divide it, and to read it


def test_an_archive_that_was_written_anew_is_listed_anew(tmp_path: Path) -> None:
    for name in ("first.png", "other.png"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, name)
        assert read(tmp_path / "a.zip")[0] == [(f"a.zip/{name}", name.encode(), None)]


def test_a_file_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysl.data.sources.image_files.MAX_BYTES", 10)
    for name in ("folder", "all.zip", "plain.tar"):
        assert read(folder / name)[:2] == ([], {"file_too_large": 12})


def test_nothing_to_read_says_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"Allowed: .jpg, .*\.tar, \.parquet"):
        read(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.zip")


def test_ten_thousand_small_files_are_many_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysl.data.sources.image_files.MAX_MEMBERS", 5)
    for number in range(12):
        (tmp_path / f"{number:02d}.png").write_bytes(b"x")
    assert [len(part) for part in Images(Images.Config(path=str(tmp_path))).partitions(2.0)] == [5, 5, 2]


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[str]:
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        store = fs.S3FileSystem(allow_bucket_creation=True, endpoint_override=f"{host}:{port}", scheme="http")
        store.create_dir("pictures")
        fs.copy_files(str(folder), "pictures", fs.LocalFileSystem(), store)
        yield "s3://pictures"
    server.stop()


@pytest.mark.parametrize("name", ["folder", "all.zip", "classes.tar", "rows.parquet"])
def test_a_store_gives_the_same_rows_as_this_machine(folder: Path, bucket: str, name: str) -> None:
    assert read(f"{bucket}/{name}") == read(folder / name)


def test_digits_are_grey_pictures_with_labels() -> None:
    source, bad = Digits(Digits.Config()), BadRows()
    parts = source.partitions(2.0)
    rows = [row for part in parts for row in source.images(part, bad)]
    assert len(rows) == len({name for name, _, _ in rows}) == 1797
    assert {label for _, _, label in rows} == set("0123456789")
    assert len(parts) == 4
    first = np.asarray(Image.open(io.BytesIO(rows[0][1])))
    assert (first.shape, rows[0][2]) == ((8, 8), "0")
    assert first[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0, 0, 5, 13, 9, 1, 0, 0 sixteenths
