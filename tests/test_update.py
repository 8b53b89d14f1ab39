"""An update makes a better version from new rows, refuses a worse one, and makes none of too few."""

import fcntl
import functools
import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tiny_run import TOPICS, copy_run, make_documents, released_run

from raysl.data.dedup import add_to_index
from raysl.errors import ConfigError, StageError
from raysl.monitor.recorder import Label, Record, Recorder
from raysl.release import gate, model_registry
from raysl.release.bundle import BUNDLE, ENCODER, SEARCH_DOCUMENTS, SEARCH_EMBEDDINGS, open_bundle, write_bundle
from raysl.release.release import release
from raysl.run_config import RunConfig
from raysl.stage import Stage
from raysl.storage import hash_folder
from raysl.update import update

pytestmark = pytest.mark.slow

NEW_TOPICS = {**TOPICS, "sound": "wave note pitch tempo chord volume melody"}


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> RunConfig:
    return copy_run(released_run(tmp_path_factory.getbasetemp()), tmp_path / "run")


@pytest.fixture
def updated(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> RunConfig:
    """A run whose version 2 an update made of the rows of a source."""
    return copy_run(updated_run(tmp_path_factory.getbasetemp()), tmp_path / "updated")


@functools.cache
def updated_run(base: Path) -> RunConfig:
    config = copy_run(released_run(base), base / "updated_run")
    assert update(with_source(config, base / "first.jsonl", make_documents(120, seed=5, topics=NEW_TOPICS))).promoted
    return config


def give_feedback(config: RunConfig, rows: list[tuple[str, str]]) -> None:
    recorder = Recorder(config.folder, "writer", flush_seconds=60)
    for number, (text, label) in enumerate(rows):
        recorder.record(Record(f"r{number}", number, "classify", text, 2.0, 1.0, 1, "files", 0.5))
        recorder.record(Label(f"r{number}", number + 0.5, label))
    recorder.record(Record("unlabelled", 0, "classify", "some text without feedback", 2.0, 1.0, 1, "files", 0.5))
    recorder.close()


def test_better_rows_make_version_two_with_a_new_class(run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_documents(120, seed=5, topics=NEW_TOPICS)
    give_feedback(run, rows)
    result = update(run)
    assert result.promoted
    version, folder = model_registry.production(run.folder)
    bundle = open_bundle(folder)
    assert (version, bundle.classes) == (2, ("files", "network", "numbers", "sound"))
    assert "version 2 is promoted: it gains" in capsys.readouterr().err
    assert json.loads((run.folder / "update" / "latest.json").read_text())["version"] == 2
    requests = {text for text, _ in rows}
    assert requests.isdisjoint(pq.read_table(bundle.path("search/documents.parquet"))["text"].to_pylist())
    assert not requests.isdisjoint(pq.read_table(bundle.path("reference.parquet"))["text"].to_pylist())

    again = update(run)  # the same feedback is no news
    assert (again.version, again.kept) == (None, 0)
    assert again.dropped["exact_duplicate"] + again.dropped.get("near_duplicate", 0) == 120
    assert model_registry.production(run.folder)[0] == 2


def with_source(run: RunConfig, path: Path, rows: list[tuple[str, str]]) -> RunConfig:
    """The same run whose update reads these rows."""
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    source = {"type": "files", "path": str(path), "label_column": "label"}
    limits = {**run.update.model_dump(mode="json"), "source": source}
    return RunConfig.model_validate({**run.model_dump(mode="json"), "update": limits})


def searched(run: RunConfig, version: int) -> list[str]:
    return pq.read_table(model_registry.version_folder(run.folder, version) / SEARCH_DOCUMENTS)["text"].to_pylist()


def test_after_a_roll_back_rows_of_the_earlier_update_are_trained_on_and_found(updated: RunConfig, tmp_path: Path) -> None:
    assert model_registry.roll_back(updated.folder) == 1
    result = update(with_source(updated, tmp_path / "second.jsonl", make_documents(120, seed=8)))
    assert (result.production, result.version) == (1, 3)
    bundle = open_bundle(model_registry.version_folder(updated.folder, 3))
    assert bundle.classes == ("files", "network", "numbers", "sound")
    first, second = (pq.read_table(updated.folder / "update" / number / "added.parquet") for number in "23")
    assert searched(updated, 3) == [*searched(updated, 2), *second["text"].to_pylist()]
    assert len(np.load(bundle.path(SEARCH_EMBEDDINGS))) == len(searched(updated, 3))
    added = pa.concat_tables([first, second])
    held_out = added.filter(added["held_out"])["text"].to_pylist()
    assert pq.read_table(bundle.path("reference.parquet"))["text"].to_pylist()[: len(held_out)] == held_out


def given_to(function: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """The arguments that an update calls one of its functions with; it ends there."""
    given: list[tuple[Any, ...]] = []

    def stop(*arguments: Any, **_: object) -> None:
        given.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"raysl.update.{function}", stop)
    with pytest.raises(KeyboardInterrupt):
        update(config)
    return given[0]


def test_rows_of_an_earlier_update_that_production_has_are_not_added_again(
    updated: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_source(updated, tmp_path / "second.jsonl", make_documents(120, seed=8))
    _, parts, _ = given_to("build_bundle", config, monkeypatch)
    for texts in (parts.documents["text"].to_pylist(), parts.held_out["text"].to_pylist()):
        assert len(texts) == len(set(texts))


def test_rows_of_an_earlier_update_that_prepare_has_by_now_are_not_trained_on(
    updated: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    added = pq.read_table(updated.folder / "update" / "2" / "added.parquet")
    added = added.filter(pc.invert(added["held_out"]))
    prepared = set(added["text"].to_pylist()[:30])
    add_to_index(updated.folder / "prepare" / "dedup_index", added.slice(0, 30).select(["id", "text", "label"]))
    config = with_source(updated, tmp_path / "new.jsonl", make_documents(120, seed=8))
    documents = given_to("finetune_rows", config, monkeypatch)[2]
    assert prepared.isdisjoint(documents.texts)
    assert set(added["text"].to_pylist()[30:]) <= set(documents.texts)
    assert "left out 30 rows of earlier updates" in capsys.readouterr().err


def test_after_a_release_with_fewer_classes_the_labelled_rows_of_finetune_are_trained_on(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = open_bundle(model_registry.production(run.folder)[1]).classes
    fewer = tuple(name for name in classes if name != "files")
    monkeypatch.setattr("raysl.release.bundle.Bundle.classes", property(lambda bundle: fewer))
    rows = [row for row in make_documents(150, seed=8) if row[1] != "files"]
    _, _, documents, _, trained = given_to("finetune_rows", with_source(run, tmp_path / "new.jsonl", rows), monkeypatch)
    assert set(documents.labels) == set(trained) == set(classes)


def test_of_few_labels_the_gate_reads_labelled_rows_alone(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (run.folder / "prepare" / "documents").glob("*.parquet"):
        table = pq.read_table(path)
        rows = zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True)
        labels = [None if split == "test" and place % 2 else label for place, (label, split) in enumerate(rows)]
        pq.write_table(table.set_column(2, "label", pa.array(labels, pa.string())), path)
    monkeypatch.setattr("raysl.update.OLD_TEST_ROWS", 4)
    monkeypatch.setattr("raysl.update.finetune_rows", lambda *_, **__: None)
    monkeypatch.setattr("raysl.update.build_bundle", lambda *_: None)
    old = given_to("judge", with_source(run, tmp_path / "new.jsonl", make_documents(120, seed=8)), monkeypatch)[2]
    assert (len(old), old["label"].null_count) == (4, 0)  # of all rows a draw of four had some without a label


def test_a_second_update_at_the_same_time_is_refused(run: RunConfig) -> None:
    (run.folder / "update" / "work").mkdir(parents=True)
    with open(run.folder / "update" / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StageError, match=r"Another command is at work in .*update"):
            update(run)
    assert (run.folder / "update" / "work").is_dir()
    assert update(run).kept == 0
    assert update(run).kept == 0


def test_a_version_that_comes_while_an_update_runs_stays_in_production(
    updated: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = gate.judge

    def roll_back_meanwhile(*arguments: object) -> gate.Decision:
        model_registry.roll_back(updated.folder)
        return replace(judge(*arguments), accepted=True)  # type: ignore[arg-type]

    monkeypatch.setattr("raysl.update.judge", roll_back_meanwhile)
    result = update(with_source(updated, tmp_path / "second.jsonl", make_documents(120, seed=8)))
    assert (result.promoted, result.version, result.overtaken_by) == (False, 3, 1)
    assert model_registry.production(updated.folder)[0] == 1
    assert "version 3 is archived: production changed to version 1 meanwhile" in capsys.readouterr().err


def test_shuffled_labels_are_refused_and_the_reason_is_kept(run: RunConfig) -> None:
    rows = make_documents(120, seed=6)
    labels = np.random.default_rng(0).permutation([label for _, label in rows])
    give_feedback(run, [(text, str(label)) for (text, _), label in zip(rows, labels, strict=True)])
    result = update(run)
    assert not result.promoted
    assert model_registry.production(run.folder)[0] == 1
    archived = model_registry.read_registry(run.folder).version(2)
    assert archived.state == "archived"
    assert "macro-F1" in archived.reason


def test_rows_of_a_version_that_was_refused_are_no_news_until_something_changes(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Called by a timer, it made the same version again at every call, a copy of the whole bundle each."""
    rows = make_documents(160, seed=6)
    config = with_source(run, tmp_path / "new.jsonl", rows[:100])
    refused = gate.Decision(False, "loses", gate.Scores(1, 1, 1), gate.Scores(0, 0, 0))
    monkeypatch.setattr("raysl.update.judge", lambda *_: refused)
    monkeypatch.setattr("raysl.update.finetune_rows", lambda config, encoder, rows, folder, *_, **__: copytree(
        config.folder / "finetune", folder))  # fmt: skip
    first, again = update(config), update(config)
    assert first.version == 2
    assert (again.version, again.judged, again.judged_in, again.kept) == (None, first.kept, 2, first.kept)
    line = f"no update: 0 new labelled rows, needed are 40; {first.kept} more are those of version 2, which was refused"
    assert line in capsys.readouterr().err
    assert len(model_registry.read_registry(run.folder).versions) == 2

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raysl.update._make_version", stop)
    with pytest.raises(KeyboardInterrupt):
        update(with_source(run, tmp_path / "more.jsonl", rows))
    less = config.update.model_copy(update={"max_loss_on_old": 1.0})
    with pytest.raises(KeyboardInterrupt):
        update(config.model_copy(update={"update": less}))


def test_too_few_rows_make_no_version(run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    give_feedback(run, make_documents(20, seed=7))
    result = update(run)
    assert (result.version, result.decision) == (None, None)
    assert f"no update: {result.kept} new labelled rows, needed are 40" in capsys.readouterr().err
    assert len(model_registry.read_registry(run.folder).versions) == 1


def test_only_new_labelled_clean_rows_are_kept(run: RunConfig, tmp_path: Path) -> None:
    old = pq.read_table(run.folder / "prepare" / "documents")["text"][4].as_py()
    rows = [
        {"text": old, "label": "files"},
        {"text": " \n ", "label": "files"},
        {"text": "nobody said what this one is about at all", "label": None},
        {"text": "a label that a single row has makes no class of its own", "label": "single"},
        {"text": "open the folder and read the path before you rename the file", "label": "files"},
    ]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"type": "files", "path": str(tmp_path / "new.jsonl"), "label_column": "label"}
    changed = RunConfig.model_validate({**run.model_dump(mode="json"), "update": {"source": source}})
    result = update(changed)
    assert result.gathered == {"feedback": 0, "source": 5}
    assert result.kept == 1
    assert result.dropped == {"exact_duplicate": 1, "missing_text": 1, "no_label": 1, "rare_new_class": 1}


def test_models_made_anew_without_a_release_are_refused(run: RunConfig) -> None:
    (run.folder / "pretrain" / "another_width").write_text("64")
    Stage(run.folder, "pretrain", {}, {}).finish({}, {}, hash_folder(run.folder / "pretrain"))
    with pytest.raises(StageError, match=r"`release` was made from an earlier `pretrain`.*Run `raysl release` first"):
        update(run)


def test_an_encoder_other_than_that_of_production_is_refused(run: RunConfig) -> None:
    folder = run.folder / "release" / "bundle"
    (folder / ENCODER).write_bytes(b"an encoder of another pretraining")
    facts = json.loads((folder / BUNDLE).read_text())
    made = ("tasks", "files", "sizes", "content_hash", "created")
    write_bundle(folder, {name: fact for name, fact in facts.items() if name not in made})
    (run.folder / "release" / "manifest.json").unlink()
    release(run)
    assert model_registry.production(run.folder)[0] == 2
    assert update(run).production == 2
    model_registry.roll_back(run.folder)
    with pytest.raises(StageError, match=r"Version 1, in production, has another encoder.*version 2.*Promote version 2"):
        update(run)


def test_a_run_without_a_classifier_is_refused(run: RunConfig) -> None:
    with pytest.raises(ConfigError, match="finetune"):
        update(run.model_copy(update={"finetune": None}))
