"""Versions move between states one writer at a time, and every move is written down."""

import multiprocessing
from pathlib import Path

import pytest

from raysl.errors import BundleError, StageError
from raysl.release import model_registry as registry
from raysl.release.bundle import open_bundle, write_bundle


def make_bundle(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "encoder.onnx").write_text(content)
    write_bundle(folder, {"classes": [], "max_tokens": 8, "width": 4})
    return folder


def register(run: Path, content: str) -> int:
    return registry.register(run, make_bundle(run / "made" / content, content), {"macro_f1": 0.5})


def states(run: Path) -> list[str]:
    return [version.state for version in registry.read_registry(run).versions]


def test_a_registered_bundle_is_a_candidate_and_a_copy(tmp_path: Path) -> None:
    assert register(tmp_path, "a") == 1
    (tmp_path / "made" / "a" / "encoder.onnx").write_text("overwritten")
    assert open_bundle(registry.version_folder(tmp_path, 1)).path("encoder.onnx").read_text() == "a"
    assert states(tmp_path) == ["candidate"]


def test_nothing_in_production_names_the_command(tmp_path: Path) -> None:
    register(tmp_path, "a")
    with pytest.raises(StageError, match="raysl release"):
        registry.production(tmp_path)


def test_promotion_archives_the_version_before(tmp_path: Path) -> None:
    for content in "ab":
        registry.promote(tmp_path, register(tmp_path, content))
    assert states(tmp_path) == ["archived", "production"]
    assert registry.production(tmp_path) == (2, tmp_path / "registry" / "versions" / "2")


def test_roll_back_returns_to_what_was_in_production_and_not_to_what_was_refused(tmp_path: Path) -> None:
    registry.promote(tmp_path, register(tmp_path, "a"))
    registry.archive(tmp_path, register(tmp_path, "b"), "worse on old rows")
    registry.promote(tmp_path, register(tmp_path, "c"))
    assert registry.roll_back(tmp_path, "errors") == 1
    assert states(tmp_path) == ["production", "archived", "archived"]
    with pytest.raises(BundleError, match="no earlier"):
        registry.roll_back(tmp_path)


def test_a_version_promoted_after_a_roll_back_rolls_back_to_the_one_it_followed(tmp_path: Path) -> None:
    for content in "abc":
        registry.promote(tmp_path, register(tmp_path, content))
    registry.roll_back(tmp_path)
    assert registry.production(tmp_path)[0] == 2
    registry.promote(tmp_path, register(tmp_path, "d"))
    assert registry.roll_back(tmp_path) == 2
    assert registry.roll_back(tmp_path) == 1


def test_a_version_that_was_compared_with_an_earlier_production_is_archived(tmp_path: Path) -> None:
    for content in "ab":
        registry.promote(tmp_path, register(tmp_path, content))
    version = register(tmp_path, "c")
    assert registry.roll_back(tmp_path) == 1
    assert registry.promote(tmp_path, version, instead_of=2) == 1
    assert states(tmp_path) == ["production", "archived", "archived"]
    reason = "production changed to version 1 meanwhile; run `raysl update` again"
    assert registry.read_registry(tmp_path).version(version).reason == reason
    assert registry.promote(tmp_path, version, instead_of=1) == version


def test_every_change_is_listed_with_time_and_reason(tmp_path: Path) -> None:
    registry.promote(tmp_path, register(tmp_path, "a"), "the first version")
    changes = registry.read_registry(tmp_path).changes
    assert [(c.version, c.before, c.after, c.reason) for c in changes] == [
        (1, "", "candidate", "released"),
        (1, "candidate", "production", "the first version"),
    ]
    assert all(c.time.endswith("Z") for c in changes)


def test_registering_the_same_bundle_again_changes_nothing(tmp_path: Path) -> None:
    assert register(tmp_path, "a") == 1
    assert registry.register(tmp_path, tmp_path / "made" / "a", {}) == 1
    assert len(registry.read_registry(tmp_path).changes) == 1


def test_the_production_version_cannot_be_archived(tmp_path: Path) -> None:
    registry.promote(tmp_path, register(tmp_path, "a"))
    with pytest.raises(BundleError, match="in production"):
        registry.archive(tmp_path, 1, "why not")


def test_an_unknown_version_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    register(tmp_path, "a")
    with pytest.raises(BundleError, match=r"no version 7; registered: 1\."):
        registry.promote(tmp_path, 7)


def test_an_altered_version_is_not_promoted(tmp_path: Path) -> None:
    registry.promote(tmp_path, register(tmp_path, "a"))
    version = register(tmp_path, "b")
    (registry.version_folder(tmp_path, version) / "encoder.onnx").write_text("")
    with pytest.raises(BundleError, match="cut off"):
        registry.promote(tmp_path, version)
    assert registry.production(tmp_path)[0] == 1


def _register_many(run: Path, writer: int) -> None:
    for number in range(5):
        registry.promote(run, register(run, f"{writer}-{number}"))


def test_two_writers_lose_no_version(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_register_many, args=(tmp_path, writer)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = registry.read_registry(tmp_path)
    assert [v.version for v in found.versions] == list(range(1, 11))
    assert states(tmp_path).count("production") == 1
    assert len({v.content_hash for v in found.versions}) == 10


def test_a_folder_that_was_never_registered_is_not_taken_for_the_next_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        register(tmp_path, "a")
    monkeypatch.undo()
    assert registry.version_folder(tmp_path, 1).is_dir()
    assert register(tmp_path, "b") == 1
    bundle = open_bundle(registry.version_folder(tmp_path, 1))
    assert bundle.path("encoder.onnx").read_text() == "b"
    assert bundle.content_hash == registry.read_registry(tmp_path).version(1).content_hash
