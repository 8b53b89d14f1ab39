"""The stage around the protocol: what of the run it scores, and in which order."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysl.data import labelled
from raysl.evaluation import suite
from raysl.run import claim_folder
from raysl.run_config import STAGES, RunConfig
from raysl.stage import Stage
from raysl.storage import read_json
from raysl.train.finetune import finetune
from tests.tiny_image_run import make_image_run

SCORE = {"method": "pixels", "labels_per_class": 10, "draw": 0, "macro_f1": 0.5, "accuracy": 0.5}


def jobs_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_run_jobs", lambda config: [SCORE])


def report_of(config: RunConfig) -> dict[str, Any]:
    suite.evaluate(config)
    return read_json(config.folder / "evaluate" / "report.json")


def test_images_without_a_test_split_are_scored_on_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_image_run(tmp_path, evaluate={"split": "validation", "labels_per_class": [10]})
    finetune(config)
    shutil.rmtree(tmp_path / "prepare" / "pixels" / "test")
    jobs_done(monkeypatch)
    report = report_of(config)
    assert (report["split"], report["test_rows"]) == ("validation", 30)
    assert (report["classifier"]["test_rows"], np.sum(report["confusion"]["matrix"])) == (30, 30)


def test_budgets_that_a_class_cannot_fill_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_image_run(tmp_path, finetune=None, evaluate={"labels_per_class": [10, 40]})
    jobs_done(monkeypatch)
    report_of(config)
    said = [line for line in capsys.readouterr().err.splitlines() if "labels_per_class" in line]
    assert len(said) == 1
    assert said[0].startswith("evaluate: 3 of 3 classes have fewer than labels_per_class=40 labelled rows")


def test_settings_that_are_chosen_on_validation_see_no_score_of_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_image_run(tmp_path, evaluate={"split": "validation", "labels_per_class": [10]})
    finetune(config)
    jobs_done(monkeypatch)
    read: list[str] = []
    read_split = labelled.read_split
    monkeypatch.setattr(labelled, "read_split", lambda folder, split: read.append(split) or read_split(folder, split))
    report_of(config)
    assert set(read) == {"train", "validation"}


def test_the_classifier_is_scored_before_the_long_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_image_run(tmp_path)
    finetune(config)
    (tmp_path / "finetune" / "model.safetensors").unlink()
    monkeypatch.setattr(suite, "_run_jobs", lambda config: pytest.fail("hours of work, then lost"))
    with pytest.raises(Exception, match="safetensors"):
        suite.evaluate(config)


def test_a_classifier_that_the_yaml_no_longer_asks_for_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of an earlier encoder, and no command would make it anew."""
    finetune(make_image_run(tmp_path))
    Stage(tmp_path, "pretrain", {}, {}).finish({}, {}, {"model.safetensors": "another"})
    config = make_image_run(tmp_path / "unused", finetune=None).model_copy(update={"run_dir": str(tmp_path)})
    jobs_done(monkeypatch)
    assert "classifier" not in report_of(config)
    claim_folder(config, STAGES[3:], redo=False)
