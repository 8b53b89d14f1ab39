"""A stage is done, to be made, or in conflict with what is there."""

import errno
import fcntl
import json
from pathlib import Path

import pytest

from raysl import stage as stages
from raysl import storage
from raysl.errors import ConfigError, StageError
from raysl.stage import Stage


def make(folder: Path, config: dict[str, object], inputs: dict[str, str] | None = None) -> Stage:
    stage = Stage(folder, "prepare", config, inputs or {})
    (stage.begin() / "out.txt").write_text("made")
    stage.finish({"kept": 3}, {"loss": 0.5}, {"out.txt": "hash"})
    return stage


def test_finished_stage_is_done_until_config_or_inputs_change(tmp_path: Path) -> None:
    make(tmp_path, {"a": 1}, {"source": "x"})
    done = Stage(tmp_path, "prepare", {"a": 1}, {"source": "x"}).done()
    assert done is not None
    assert done.counts == {"kept": 3}
    assert Stage(tmp_path, "prepare", {"a": 2}, {"source": "x"}).done() is None
    assert Stage(tmp_path, "prepare", {"a": 1}, {"source": "y"}).done() is None


def test_stage_that_lost_a_file_is_not_done(tmp_path: Path) -> None:
    stage = make(tmp_path, {"a": 1})
    (stage.folder / "out.txt").unlink()
    assert stage.done() is None


def test_stage_without_its_last_write_is_not_done(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "prepare", {"a": 1}, {})
    (stage.begin() / "out.txt").write_text("half")
    assert stage.done() is None


def test_unfinished_work_is_kept_for_the_same_config_only(tmp_path: Path) -> None:
    (Stage(tmp_path, "prepare", {"a": 1}, {}).begin() / "half").write_text("")
    assert (Stage(tmp_path, "prepare", {"a": 1}, {}).begin() / "half").exists()
    assert not (Stage(tmp_path, "prepare", {"a": 2}, {}).begin() / "half").exists()


def test_unfinished_work_is_kept_for_the_same_units_only(tmp_path: Path) -> None:
    """The same files can be cut otherwise: unit 1 of the work would then hold other rows."""
    stage = Stage(tmp_path, "prepare", {"a": 1}, {})
    (stage.begin([[("a.parquet", 0, 1)], [("a.parquet", 1, 2)]]) / "half").write_text("")
    assert (stage.begin([[("a.parquet", 0, 1)], [("a.parquet", 1, 2)]]) / "half").exists()
    assert not (stage.begin([[("a.parquet", 0, -1)]]) / "half").exists()


def test_work_is_not_marked_before_it_says_what_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(storage, "write_text", lambda path, text: written.append(Path(path).name))
    Stage(tmp_path, "prepare", {"a": 1}, {}).begin()
    assert written == [".inputs.json", ".config.json", ".fingerprint"]


def test_other_config_is_refused_by_the_key_that_differs(tmp_path: Path) -> None:
    make(tmp_path, {"prepare": {"filters": [1], "seed": 1}, "same": 0})
    other = Stage(tmp_path, "prepare", {"prepare": {"filters": [1], "seed": 2}, "same": 0}, {})
    with pytest.raises(ConfigError, match=r"another config \(prepare\.seed: 1 -> 2\)"):
        stages.check_same_config(other, redo=False)
    stages.check_same_config(other, redo=True)


def test_unfinished_work_of_another_config_is_refused_where_it_is_dear(tmp_path: Path) -> None:
    begun, other = (Stage(tmp_path, "pretrain", {"lr": (1, value)}, {"prepare": "a"}) for value in (2, 3))
    (begun.begin() / "half").write_text("")
    stages.check_same_config(other, redo=False)  # no checkpoint yet
    (begun.folder / "checkpoints" / "step-000000005").mkdir(parents=True)
    stages.check_same_config(begun, redo=False)
    with pytest.raises(ConfigError, match=r"to step-000000005 with another config \(lr: \[1, 2\] -> \[1, 3\]\).*add --redo"):
        stages.check_same_config(other, redo=False)
    stages.check_same_config(other, redo=True)


def test_work_from_inputs_outside_the_run_is_refused_where_these_change(tmp_path: Path) -> None:
    def of(content: str, place: str | None) -> Stage:
        places = {"prepare": f"feed={place}"} if place else {}
        return Stage(tmp_path, "pretrain", {}, {"prepare": content}, places=places)

    begun = of("a", "/big")
    (begun.begin() / "checkpoints" / "step-000000005").mkdir(parents=True)
    for _ in range(2):  # unfinished, then finished
        stages.check_same_inputs(of("a", "/moved"), redo=False)
        with pytest.raises(ConfigError, match=r"feed=/big then, the run's own `prepare` now\. Give feed=/big to keep it"):
            stages.check_same_inputs(of("own", None), redo=False)
        with pytest.raises(ConfigError, match=r"what feed=/big names has changed since\. Put it back.*--redo"):
            stages.check_same_inputs(of("b", "/big"), redo=False)
        stages.check_same_inputs(of("own", None), redo=True)
        begun.finish({}, {}, {})


@pytest.mark.parametrize("done", [False, True])
def test_work_from_an_output_of_the_run_goes_with_it(tmp_path: Path, done: bool) -> None:
    begun = Stage(tmp_path, "pretrain", {}, {"prepare": "a"})
    (begun.begin() / "checkpoints" / "step-000000005").mkdir(parents=True)
    if done:
        begun.finish({}, {}, {})
    stages.check_same_inputs(Stage(tmp_path, "pretrain", {}, {"prepare": "made anew"}), redo=False)
    with pytest.raises(ConfigError, match=r"the run's own `prepare` then, feed=/big now\. Leave feed=/big out to keep it"):
        stages.check_same_inputs(Stage(tmp_path, "pretrain", {}, {"prepare": "b"}, places={"prepare": "feed=/big"}), False)


def test_stages_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    """An encoder of another split has seen its test rows; one of another tokenizer reads other tokens."""

    def finish(name: str, text: str, inputs: dict[str, str]) -> str:
        stage = Stage(tmp_path, name, {}, inputs)
        (stage.begin() / "out").write_text(text)
        return stage.finish({}, {}, {"out": text}).content_hash

    prepared = finish("prepare", "split one", {})
    inputs = {"prepare": prepared, "pretrain": finish("pretrain", "weights", {"prepare": prepared})}
    assert stages.made_from(tmp_path, ("prepare", "pretrain")) == inputs
    finish("prepare", "split two", {})
    with pytest.raises(StageError, match=r"`pretrain` was made from an earlier `prepare`.*Run `raysl pretrain` first"):
        stages.made_from(tmp_path, ("prepare", "pretrain"))
    assert stages.made_from(tmp_path, ("prepare", "pretrain"), free=("pretrain",))["pretrain"] == inputs["pretrain"]


def test_an_encoder_from_elsewhere_has_to_read_the_tokens_of_the_run(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "pretrain" / "export" / "tokenizer.json", tmp_path / "prepare" / "tokenizer.json"
    for path, inputs in ((ours, {}), (theirs, {"prepare": "of another run"})):
        stage = Stage(tmp_path, path.relative_to(tmp_path).parts[0], {}, inputs)
        stage.begin()
        storage.write_json(path, {"model": {"vocab": {"a": 5}}})
        stage.finish({}, {}, {})
    assert len(stages.made_from(tmp_path, ("prepare", "pretrain"), free=("pretrain",))) == 2
    storage.write_json(theirs, {"model": {"vocab": {"a": 6}}})
    with pytest.raises(StageError, match=rf"other tokenizer \({theirs}\).*\({ours}\).*prepare.tokenizer.path={theirs}"):
        stages.made_from(tmp_path, ("prepare", "pretrain"), free=("pretrain",))
    theirs.unlink()  # a model that is ours alone is not exported
    assert len(stages.made_from(tmp_path, ("prepare", "pretrain"), free=("pretrain",))) == 2


def test_equal_config_is_no_conflict_whatever_its_python_types(tmp_path: Path) -> None:
    make(tmp_path, {"budgets": (5, 20)})
    stages.check_same_config(Stage(tmp_path, "prepare", {"budgets": (5, 20)}, {}), redo=False)


def test_content_hash_names_outputs_not_time(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", {"x": 1}), make(tmp_path / "b", {"x": 1})
    manifests = [stages.read_manifest(stage.run_folder, "prepare") for stage in (first, second)]
    assert manifests[0] is not None
    assert manifests[1] is not None
    assert manifests[0].content_hash == manifests[1].content_hash


def test_run_manifest_lists_finished_stages(tmp_path: Path) -> None:
    make(tmp_path, {"x": 1})
    index = json.loads((tmp_path / "manifest.json").read_text())
    assert index["stages"]["prepare"]["counts"] == {"kept": 3}


def test_stage_that_is_needed_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"Run `raysl prepare x\.yaml` first"):
        stages.require(tmp_path, "prepare", "prepare x.yaml")


def test_metrics_are_lines_with_stage_and_time(tmp_path: Path) -> None:
    stages.log_metrics(tmp_path, "pretrain", step=3, loss=1.5)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["stage"], line["step"], line["loss"]) == ("pretrain", 3, 1.5)
    assert line["time"] > 0


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with stages.alone(tmp_path / "run"), pytest.raises(StageError, match="Another command is at work in"):
        stages.alone(tmp_path / "run").__enter__()
    with stages.alone(tmp_path / "run"):
        pass


def test_a_disk_without_locks_is_worked_on_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with stages.alone(tmp_path / "run"):
        pass
