"""What a search does with trials of an earlier one and with trials that fail, without a cluster."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import TuneError

from raysl import run_config
from raysl.errors import ConfigError, StageError, StoreError
from raysl.models.load import load_encoder
from raysl.run_config import RunConfig
from raysl.train import start, tune
from raysl.train.search import Trial, trials, with_values
from tests.train.test_tune import RATE, make_search


class Reached(Exception):
    """The cluster would start now."""


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect() -> None:
        raise Reached

    monkeypatch.setattr(tune.cluster, "connect", connect)


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    return make_search(tmp_path / "run", 25, 10, search={RATE: {"grid": [0.01]}})


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(tune.ray_tune, "report", said.append)
    return said


def search_of(run: RunConfig, *rates: float) -> RunConfig:
    """The same run with a search over these learning rates."""
    return RunConfig.model_validate({**run.model_dump(mode="json"), "tune": {"search": {RATE: {"grid": list(rates)}}}})


def planned_of(config: RunConfig) -> list[Trial]:
    assert config.tune is not None
    return trials(config, config.tune)


def works_of(config: RunConfig) -> list[tune.Work]:
    return [tune.Work.of(trial) for trial in planned_of(config)]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_trial_of_another_config_is_kept_and_the_way_out_is_named(
    run: RunConfig, reports: list[dict[str, Any]]
) -> None:
    with pytest.raises(Reached):
        tune.tune(run)
    tune._trial({"trial": 0}, works_of(run), "held_out_loss")
    assert reports[-1]["ended"] == "done"
    before = contents(run.folder / "tune")
    with pytest.raises(ConfigError, match=r"learning_rate: 0.01 -> 0.02\). To begin anew move .*/tune away") as refused:
        tune.tune(search_of(run, 0.02))
    assert "--redo" not in str(refused.value)
    assert contents(run.folder / "tune") == before
    with pytest.raises(Reached):
        tune.tune(run)


def test_a_half_done_trial_of_another_config_is_kept_if_it_has_checkpoints(run: RunConfig) -> None:
    config, changed = search_of(run, 0.01, 0.02), search_of(run, 0.01, 0.03)
    with pytest.raises(Reached):
        tune.tune(config)
    stage = tune.stage_of(planned_of(config)[1].config)
    stage.begin()
    with pytest.raises(Reached):
        tune.tune(changed)
    (stage.folder / "checkpoints" / "step-00000010").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"step-00000010 with another config \(.*0.02 -> 0.03\). Set it back") as refused:
        tune.tune(changed)
    assert "--redo" not in str(refused.value)


def test_shards_that_lie_elsewhere_need_no_prepare_in_the_run(
    run: RunConfig, tmp_path: Path, reports: list[dict[str, Any]]
) -> None:
    second = run.model_copy(update={"run_dir": str(tmp_path / "second")})
    with pytest.raises(StageError, match="raysl prepare"):
        tune.tune(second)
    fed = with_values(second, {"pretrain.feed.shards": str(run.folder / "prepare")})
    with pytest.raises(Reached):
        tune.tune(fed)
    assert not (second.folder / "tune" / "trial-000" / "prepare").is_symlink()
    tune._trial({"trial": 0}, works_of(fed), "held_out_loss")
    assert reports[-1]["ended"] == "done"


def test_a_search_goes_on_from_another_folder_in_which_its_paths_are_valid(
    run: RunConfig, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_values(run, {"pretrain.init_from": "weights"})
    encoder, _ = load_encoder(run.folder / "pretrain")
    for name, ended in (("first", "done"), ("second", "done before")):
        start.export(encoder, tmp_path / name / "weights", run.folder / "prepare" / "tokenizer.json")
        monkeypatch.chdir(tmp_path / name)
        with pytest.raises(Reached):
            tune.tune(config)
        works = works_of(config)
        monkeypatch.chdir(tmp_path)  # a worker has another current folder
        tune._trial({"trial": 0}, works, "held_out_loss")
        assert reports[-1]["ended"] == ended
    assert config.tune is not None
    best = tune._conclude(config, config.tune, planned_of(config), {0: reports[-1]}).best
    assert run_config.load(best).training.init_from == "weights"


def test_mlflow_is_looked_for_before_anything_starts(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pretrain.mlflow=somewhere needs `pip install 'raysl\[mlflow\]'`"):
        tune.tune(with_values(run, {"pretrain.mlflow": "somewhere"}))
    assert not (run.folder / "tune").exists()


@pytest.mark.parametrize(
    "error", [StoreError("the store does not answer"), OSError("the disk is full"), ValueError("a\n fault")]
)
def test_a_trial_that_cannot_begin_is_a_bad_trial(
    run: RunConfig, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(stage: tune.Stage) -> None:
        raise error

    tune._share_prepared(planned_of(run)[0])
    monkeypatch.setattr(tune.Stage, "begin", refuse)
    tune._trial({"trial": 0}, works_of(run), "held_out_loss")
    (said,) = reports
    assert (said["step"], said["ended"]) == (25, "ValueError: a fault" if isinstance(error, ValueError) else str(error))
    assert "in refuse\n" in said["trace"]
    assert said["held_out_loss"] != said["held_out_loss"]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what Ray Tune returns, and how many trials have ended by then; it leaves its own handler of Ctrl-C behind."""

    def set_to(results: list[Any], ended: int) -> None:
        def tuner(*_: Any, run_config: Any, **__: Any) -> Any:
            (shown,) = run_config.callbacks

            def fit() -> list[Any]:
                signal.signal(signal.SIGINT, lambda *_: None)
                for number in range(ended):
                    trial = SimpleNamespace(
                        trial_id=f"{number}", last_result={}, config={"trial": 1 - number},
                        get_error=lambda: TuneError("Traceback\nWorkerDied: out of memory\n"),
                    )  # fmt: skip
                    shown.on_trial_error(0, [], trial) if number else shown.on_trial_complete(0, [], trial)
                return results

            return SimpleNamespace(fit=fit)

        monkeypatch.setattr(tune.ray_tune, "Tuner", tuner)
        monkeypatch.setattr(tune.cluster, "connect", lambda: None)
        monkeypatch.setattr(tune.cluster, "takes_gpus", lambda device: False)

    return set_to


def test_a_trial_that_never_reported_costs_the_others_nothing(
    run: RunConfig, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"held_out_loss": 1.0, "step": 25, "ended": "done"}
    results = [
        SimpleNamespace(config=None, metrics={}, error=RuntimeError("its worker died")),
        SimpleNamespace(config={"trial": 1}, metrics=good, error=None),
    ]
    fit(results, ended=2)
    result = tune.tune(search_of(run, 0.02, 0.01))
    assert [(row[0], row[2], row[3]) for row in result.rows] == [(1, 1.0, "done"), (0, None, "WorkerDied: out of memory")]
    assert "trial 000 failed:\nTraceback\nWorkerDied: out of memory" in caplog.text
    assert result.best.is_file()
    assert len((run.folder / "tune" / "trials.jsonl").read_text().splitlines()) == 2


def test_a_search_whose_trials_have_not_all_ended_was_interrupted(run: RunConfig, fit: Any) -> None:
    """Ray Tune gives an interrupted trial back like one that has ended."""
    handler = signal.getsignal(signal.SIGINT)
    reported = {"held_out_loss": 1.0, "step": 10, "ended": "stopped early"}
    fit([SimpleNamespace(config={"trial": number}, metrics=reported, error=None) for number in range(2)], ended=1)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(search_of(run, 0.02, 0.01))
    assert not (run.folder / "tune" / "best.yaml").exists()
    assert not (run.folder / "tune" / "trials.jsonl").exists()
    assert signal.getsignal(signal.SIGINT) is handler
