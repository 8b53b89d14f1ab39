"""Prepared outputs in an object store: the same rows and facts as in the folder they were copied from."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysl.data import prepared as prepared_module
from raysl.data import publish as publish_module
from raysl.data import transfer
from raysl.data.prepared import Prepared
from raysl.data.publish import publish
from raysl.data.shards import TokenRows
from raysl.data.sources import stores
from raysl.data.statistics import count, statistics_of
from raysl.errors import StageError, StoreError
from raysl.stage import Stage, read_manifest
from raysl.storage import hash_folder
from tests.object_store import object_store
from tests.picture_shards import write_prepared
from tests.tiny_run import make_run
from tests.token_shards import random_documents, write_shards


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run folder with token shards, while a store with an empty bucket is there."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    for split in ("train", "validation"):
        documents = random_documents(40)
        write_shards(folder / "prepare" / "tokens" / split, [documents[:15], documents[15:30], documents[30:]])
    Stage(folder, "prepare", {}, {}).finish({"kept": 40}, {}, hash_folder(folder / "prepare", keep=not_manifest))
    with object_store("bucket"):
        yield folder


def not_manifest(path: Path) -> bool:
    return path.name != "manifest.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0))


def send(folder: Path, uri: str) -> None:
    manifest = read_manifest(folder, "prepare")
    assert manifest is not None
    publish(folder / "prepare", manifest, uri)


@pytest.mark.parametrize(("kind", "min_tokens"), [("packed", 1), ("documents", 1), ("documents", 25)])
def test_a_store_gives_the_rows_of_the_folder(run: Path, kind: Any, min_tokens: int, tmp_path: Path) -> None:
    send(run, "s3://bucket/prepared")
    there = Prepared("s3://bucket/prepared", tmp_path, "a run", window_shards=1)
    rows = TokenRows(there.shards("tokens", "train"), kind, 16, min_tokens)
    local = TokenRows(run / "prepare" / "tokens" / "train", kind, 16, min_tokens)
    assert (rows.counts, len(rows)) == (local.counts, len(local))
    assert [rows.row(i).tolist() for i in range(len(rows))] == [local.row(i).tolist() for i in range(len(local))]
    assert statistics_of(there) == count(run / "prepare")
    assert there.manifest == read_manifest(run, "prepare")
    assert there.file("tokenizer.json").read_bytes() == (run / "prepare/tokenizer.json").read_bytes()


def test_stored_pictures_in_a_store_are_decoded(run: Path, tmp_path: Path) -> None:
    write_prepared(tmp_path / "run", encoded=True)
    send(tmp_path / "run", "s3://bucket/pictures")
    here = Prepared(str(tmp_path / "run/prepare"), tmp_path / "cache", "a run").shards("pixels", "train")
    there = Prepared("s3://bucket/pictures", tmp_path / "cache", "a run").shards("pixels", "train")
    assert [there.path(n).read_bytes() for n in range(len(there))] == [here.path(n).read_bytes() for n in range(len(here))]
    assert [there.facts(n) for n in range(len(there))] == [here.facts(n) for n in range(len(here))]


def test_a_copy_that_was_cut_off_is_no_copy_and_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent, cut, whole = list[str](), list[str](), transfer.send

    def count_sent(path: Path, uri: str) -> None:
        if uri.endswith("train/shard-00001.arrow") and not cut:
            cut.append(uri)
            raise KeyboardInterrupt
        sent.append(uri.removeprefix("s3://bucket/cut/"))
        whole(path, uri)

    monkeypatch.setattr(publish_module, "THREADS", 1)
    monkeypatch.setattr(publish_module.transfer, "send", count_sent)
    with pytest.raises(KeyboardInterrupt):
        send(run, "s3://bucket/cut")
    with pytest.raises(StageError, match=r"No prepared outputs in pretrain\.feed\.shards: s3://bucket/cut/manifest"):
        Prepared("s3://bucket/cut", tmp_path, "a run").manifest  # noqa: B018
    before = set(sent)
    assert before >= {"tokenizer.json", "tokens/train/shard-00000.arrow"}
    sent.clear()
    send(run, "s3://bucket/cut")
    assert set(sent) & before == {"copying.json"}, "files that were there were copied again"
    manifest = read_manifest(run, "prepare")
    assert manifest is not None
    assert {file.name for file in stores.find("s3://bucket/cut")} == {
        *manifest.files, "manifest.json", prepared_module.FACTS, prepared_module.STATISTICS,
    }  # fmt: skip


def test_a_copy_broken_off_over_an_earlier_one_takes_none_of_its_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels of another resize have the same number of bytes."""
    send(run, "s3://bucket/again")
    other = tmp_path / "other"
    shutil.copytree(run, other)
    name = "documents/part-00000.parquet"
    changed = (run / "prepare" / name).read_bytes()[:-1] + b"x"
    (other / "prepare" / name).write_bytes(changed)
    Stage(other, "prepare", {}, {}).finish({}, {}, hash_folder(other / "prepare", keep=not_manifest))

    whole = transfer.send

    def break_off(path: Path, uri: str) -> None:
        if not uri.endswith("copying.json"):
            raise KeyboardInterrupt
        whole(path, uri)

    monkeypatch.setattr(publish_module.transfer, "send", break_off)
    with pytest.raises(KeyboardInterrupt):
        send(other, "s3://bucket/again")
    monkeypatch.undo()
    send(other, "s3://bucket/again")
    assert transfer.read(f"s3://bucket/again/{name}") == changed


def test_other_bytes_than_the_manifest_names_are_refused(run: Path, tmp_path: Path) -> None:
    send(run, "s3://bucket/altered")
    transfer.send(run / "prepare/tokenizer.json", "s3://bucket/altered/tokens/train/shard-00001.arrow")
    shards = Prepared("s3://bucket/altered", tmp_path, "a run").shards("tokens", "train")
    with pytest.raises(StoreError, match=r"shard-00001\.arrow cannot be read after 3 attempts: its bytes are not those"):
        shards.path(1)


def test_a_store_that_fails_is_asked_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(run, "s3://bucket/flaky")
    failures, opened = [OSError("connection reset"), OSError("timed out")], stores.open_bytes

    def flaky(uri: str) -> Any:
        if failures:
            raise failures.pop()
        return opened(uri)

    monkeypatch.setattr(transfer.stores, "open_bytes", flaky)
    transfer.fetch("s3://bucket/flaky/tokenizer.json", tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_bytes() == (run / "prepare/tokenizer.json").read_bytes()


def test_a_store_that_is_down_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(uri: str) -> Any:
        raise OSError("connection refused")

    monkeypatch.setattr(transfer.stores, "open_bytes", down)
    with pytest.raises(StoreError, match=r"s3://bucket/x cannot be read after 3 attempts: connection refused\. Check"):
        transfer.fetch("s3://bucket/x", tmp_path / "x")
