"""Draws of a search, and that a mistake in its keys is told before anything starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raysl import run_config
from raysl.cli import main
from raysl.errors import ConfigError
from raysl.run_config import RunConfig
from raysl.train.config import TuneConfig
from raysl.train.search import draw, trials
from raysl.train.session import TrainJob
from raysl.train.tune import Work, _train

RATE = "pretrain.optimizer.learning_rate"


def config_of(path: Path, **tune: Any) -> RunConfig:
    text = path.read_text(encoding="utf-8")
    import yaml

    data = {**yaml.safe_load(text), "tune": tune}
    return run_config.RunConfig.model_validate(data)


def test_draws_are_seeded_and_lie_where_they_should() -> None:
    search = {
        RATE: {"log_uniform": [1e-4, 1e-2]},
        "pretrain.optimizer.weight_decay": {"uniform": [0.0, 0.2]},
        "pretrain.model.num_layers": {"integer": [1, 2]},
        "pretrain.objective.mask_share": {"choice": [0.15, 0.3]},
        "pretrain.global_batch_size": {"grid": [32, 64]},
    }
    settings = TuneConfig(search=search, num_trials=50)
    drawn = draw(settings, seed=1)
    assert drawn == draw(settings, seed=1) != draw(settings, seed=2)
    assert len(drawn) == 100
    rates = [values[RATE] for values in drawn]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 20 < sum(rate < 1e-3 for rate in rates) < 80
    assert {values["pretrain.model.num_layers"] for values in drawn} == {1, 2}
    assert sum(values["pretrain.global_batch_size"] == 32 for values in drawn) == 50
    grid = TuneConfig(search={RATE: {"grid": [1, 2, 3]}, "pretrain.max_steps": {"grid": [5, 6]}}, num_trials=9)
    assert len(draw(grid, 0)) == 6


def test_each_trial_has_a_folder_and_its_values(smallest_yaml: Path) -> None:
    planned = trials(config := config_of(smallest_yaml, search={RATE: {"grid": [0.1, 0.2]}}, max_steps=7), config.tune)
    assert [trial.config.training.optimizer.learning_rate for trial in planned] == [0.1, 0.2]
    assert {trial.config.training.max_steps for trial in planned} == {7}
    assert [trial.config.folder for trial in planned] == [config.folder / "tune" / f"trial-{n:03d}" for n in range(2)]


def test_each_trial_has_the_sizes_of_its_preset(smallest_yaml: Path) -> None:
    smallest_yaml.write_text(smallest_yaml.read_text().replace("width: 16", "preset: bert-tiny"), encoding="utf-8")
    config = config_of(smallest_yaml, search={"pretrain.model.preset": {"grid": ["bert-tiny", "bert-mini", "bert-base"]}})
    assert [vars(trial.config.training.model)["width"] for trial in trials(config, config.tune)] == [128, 256, 768]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"pretrain.optimizer.learning_ratee": {"grid": [1]}}, "learning_ratee: unknown key. Did you mean 'learning_rate'"),
        ({"pretrain.optimizer.learning_rate": {"grid": ["fast"]}}, "learning_rate: .*got 'fast'"),
        ({"pretrain.max_steps": {"uniform": [1.0, 9.0]}}, "max_steps: .*integer"),
        ({"pretrain.num_workers": {"grid": [1, 2]}}, "num_workers changes the speed"),
        ({"pretrain.accumulation_steps": {"grid": [1, 33]}}, "accumulation_steps without a row"),  # with eight workers
    ],
)
def test_a_key_that_does_not_exist_or_does_not_take_the_value_is_refused(
    smallest_yaml: Path, search: dict[str, Any], message: str
) -> None:
    smallest_yaml.write_text(smallest_yaml.read_text().replace("  objective:", "  num_workers: 8\n  objective:"))
    config = config_of(smallest_yaml, search=search)
    with pytest.raises(ConfigError, match=message):
        trials(config, config.tune)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.search={prepare.source.path: {grid: [a]}}", "trials share what `prepare` made"),
        ("tune.search={pretrain.max_steps: {grid: [1], choice: [2]}}", "exactly one of"),
        ("tune.search={pretrain.max_steps: {integer: [9, 1]}}", "from the lower to the higher"),
        ("tune={search: {pretrain.max_steps: {grid: [1]}}, metric: accuracy}", "tune.metric"),
        ("seed=1", "no section `tune:`"),
    ],
)
def test_a_mistake_in_the_section_is_one_line(
    smallest_yaml: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(smallest_yaml), override]) == 2
    assert message in capsys.readouterr().err


def test_a_number_that_is_not_measured_ends_a_trial_at_its_first_evaluation(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(smallest_yaml, search={RATE: {"grid": [0.1]}}, metric="knn_accuracy")
    stage: Any = SimpleNamespace(done=lambda: None, begin=lambda: None)

    def evaluates_twice(job: Any, world: Any, hear: Any) -> dict[str, Any]:
        hear({"step": 1, "held_out_loss": 2.0})
        pytest.fail("it trained on")

    monkeypatch.setattr("raysl.train.tune.train_rank", evaluates_twice)
    with pytest.raises(ConfigError, match="no 'knn_accuracy' among what was measured: held_out_loss"):
        _train(Work(stage, TrainJob(config)), "knn_accuracy")
