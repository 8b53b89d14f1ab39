"""Files are whole or absent; hashes depend on content alone."""

import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysl import storage
from raysl.errors import DataError


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    storage.write_text(target, "old")
    with pytest.raises(KeyError), storage.atomic_path(target) as temporary:
        print("ne", temporary.write_text("ne"), {}["halfway"])
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_that_came_first_stays_for_those_who_read_it(tmp_path: Path) -> None:
    """A worker that a killed run left behind may finish a folder after the new run has."""
    for content in ("first", "second"):
        with storage.atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
            inside = (tmp_path / "folder").exists() and os.open(tmp_path / "folder", os.O_RDONLY)
    assert os.listdir(inside) == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(OSError), storage.atomic_path(tmp_path / "name") as temporary:
        temporary.write_text("file")


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_hash_of_json_ignores_the_order_of_keys(data: dict[str, object]) -> None:
    assert storage.hash_json(data) == storage.hash_json(dict(reversed(data.items())))


def test_hash_of_text_takes_lone_surrogates() -> None:
    assert storage.hash_text("\ud800") != storage.hash_text("\ud801")


def test_hash_of_a_folder_names_files_and_skips_hidden_ones(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "a" / "b.txt", "text")
    storage.write_text(tmp_path / ".hidden", "text")
    assert storage.hash_folder(tmp_path) == {"a/b.txt": storage.hash_text("text")}
    assert storage.hash_folder(tmp_path, keep=lambda path: path.suffix != ".txt") == {}


def test_json_takes_numpy_scalars_and_refuses_the_rest(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "a.json", {"f1": np.float32(0.5), "rows": np.int64(3)})
    assert storage.read_json(tmp_path / "a.json") == {"f1": 0.5, "rows": 3}
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        storage.write_json(tmp_path / "b.json", {"x": {1}})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("text", ['{"cut": ', "[1, 2]", ""])
def test_json_that_is_cut_off_or_no_object_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        storage.read_json(tmp_path / "a.json")


def test_lines_are_appended(tmp_path: Path) -> None:
    for step in (1, 2):
        storage.append_jsonl(tmp_path / "m.jsonl", {"step": np.int32(step)})
    assert [json.loads(line)["step"] for line in (tmp_path / "m.jsonl").read_text().splitlines()] == [1, 2]


def test_remove_takes_files_folders_links_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("link", "folder", "absent"):
        storage.remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_is_being_removed_is_never_finished_half_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that a killed driver left behind ends while the next start clears what it takes for a rest."""
    unlink, late = os.unlink, tmp_path / "late"

    def unlink_and_finish(*arguments: Any, **options: Any) -> None:
        unlink(*arguments, **options)
        with suppress(OSError):
            os.rename(tmp_path / ".late.1.tmp", late)

    (tmp_path / ".late.1.tmp").mkdir()
    for name in ("rows", "stats"):
        (tmp_path / ".late.1.tmp" / name).write_text(name)
    monkeypatch.setattr(os, "unlink", unlink_and_finish)
    storage.remove(tmp_path / ".late.1.tmp")
    assert not late.exists() or len(os.listdir(late)) == 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("inside", ["prints", "deeper/prints"])
def test_a_folder_that_a_later_start_removes_is_not_made_again_by_who_wrote_in_it(tmp_path: Path, inside: str) -> None:
    def write_while_another_start_clears() -> None:
        with storage.atomic_path(tmp_path / "unit") as temporary:
            temporary.mkdir()
            storage.write_text(temporary / "rows", "first")
            storage.write_text(temporary / inside, "second")
            storage.remove_unfinished(tmp_path)
            storage.write_text(temporary / inside, "third")

    with pytest.raises(FileNotFoundError, match="removed while"):
        write_while_another_start_clears()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_removal_left_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "inner").mkdir(parents=True)
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        storage.remove(tmp_path / "first")
    assert not (tmp_path / "first").exists()
    assert len(list(tmp_path.iterdir())) == 2
    storage.remove(tmp_path / "second")
    assert not list(tmp_path.iterdir())


def test_files_of_a_folder_are_hashed_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large corpus one after the other would take an hour, when all else is done."""
    together = threading.Barrier(4, timeout=5)
    for name in "abcd":
        (tmp_path / name).write_text(name)

    def hash_file(path: Path) -> str:
        together.wait()
        return path.name.upper()

    monkeypatch.setattr(storage, "hash_file", hash_file)
    assert storage.hash_folder(tmp_path) == {"a": "A", "b": "B", "c": "C", "d": "D"}
