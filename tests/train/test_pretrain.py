"""The stage around the training: what is refused before Ray starts, and what is kept."""

from pathlib import Path

import pytest

from raysl.errors import ConfigError, StageError
from raysl.progress import Progress
from raysl.run import claim_folder
from raysl.run_config import STAGES, RunConfig, load
from raysl.stage import Stage, log_metrics, made_from
from raysl.storage import write_json
from raysl.train.config import PretrainConfig
from raysl.train.pretrain import _Shown, check_earlier, pretrain, stage_of
from raysl.train.reporting import Followed, drop_metrics_after
from tests.tiny_run import make_run


def begun(folder: Path) -> RunConfig:
    """A run that was cut off after its fifth step."""
    config = make_run(folder)
    (folder / "pretrain" / "manifest.json").unlink()
    (stage_of(config).begin() / "checkpoints" / "step-000000005").mkdir(parents=True)
    return config


def changed(config: RunConfig, **settings: object) -> RunConfig:
    section = config.model_dump(mode="json")["pretrain"] | settings
    return RunConfig.model_validate(config.model_dump(mode="json") | {"pretrain": section})


def test_checkpoints_of_another_config_are_not_removed_without_a_word(tmp_path: Path) -> None:
    config = begun(tmp_path)
    with pytest.raises(
        ConfigError, match=r"come to step-000000005 with another config \(pretrain.max_steps: 1000 -> 2000\).*--redo"
    ):
        pretrain(changed(config, max_steps=2000))
    assert (tmp_path / "pretrain" / "checkpoints" / "step-000000005").is_dir()


def test_a_run_that_stopped_itself_goes_on_with_other_limits(tmp_path: Path) -> None:
    """Its message says `pretrain.health.patience=0 goes on anyway`."""
    config = begun(tmp_path)
    other = changed(config, health={"patience": 0, "max_data_wait": 1.0})
    assert stage_of(other).fingerprint == stage_of(config).fingerprint
    stage = stage_of(other)
    stage.begin()
    assert (tmp_path / "pretrain" / "checkpoints" / "step-000000005").is_dir()
    stage.finish({}, {}, {})
    for same in (config, other):  # and no later command takes it for another run
        claim_folder(same, (), redo=False)


def test_a_run_goes_on_with_checkpoints_at_other_steps(tmp_path: Path) -> None:
    """They change no weight, and who finds them too many or too few would have to begin anew."""
    config = begun(tmp_path)
    other = changed(config, checkpoint={"every_steps": 50, "keep_last": 1})
    check_earlier(stage_of(other), redo=False)
    stage_of(other).begin()
    assert (tmp_path / "pretrain" / "checkpoints" / "step-000000005").is_dir()
    with pytest.raises(ConfigError, match=r"pretrain\.checkpoint\.save_model: 'last' -> 'best'"):
        check_earlier(stage_of(changed(config, checkpoint={"save_model": "best"})), redo=False)


def test_a_run_that_an_earlier_raysl_finished_with_its_own_checkpoints_is_done(tmp_path: Path) -> None:
    config = changed(make_run(tmp_path), checkpoint={"every_steps": 50})
    stage = stage_of(config)
    given = {**stage.config, "pretrain": {**stage.config["pretrain"], "checkpoint": {
        **stage.config["pretrain"]["checkpoint"], "every_steps": 50,
    }}}  # fmt: skip
    Stage(tmp_path, "pretrain", given, stage.inputs).finish({}, {}, {})
    assert stage.done() is not None
    claim_folder(config, (), redo=False)


def begun_by_an_earlier_raysl(config: RunConfig, **health: object) -> Stage:
    """The same unfinished work as one wrote it whose fingerprints named limits: with their given values."""
    stage = stage_of(config)
    given = {**stage.config, "pretrain": {**stage.config["pretrain"], "health": health}}
    (stage.folder / ".fingerprint").write_text(Stage(stage.run_folder, "pretrain", given, stage.inputs).fingerprint)
    write_json(stage.folder / ".config.json", given)
    return Stage(stage.run_folder, "pretrain", given, stage.inputs)


def test_a_refused_start_leaves_the_config_of_the_unfinished_training(tmp_path: Path) -> None:
    config = changed(begun(tmp_path), num_workers=1)
    claim_folder(config, (), redo=False)
    with pytest.raises(ConfigError, match=r"max_steps: 1000 -> 2000\)\. Set it back to go on"):
        claim_folder(changed(config, max_steps=2000), STAGES[1:], redo=False)
    assert load(tmp_path / "config.yaml") == config
    claim_folder(changed(config, max_steps=2000), STAGES[1:], redo=True)


def test_a_training_on_other_shards_is_not_removed_when_the_setting_is_left_out(tmp_path: Path) -> None:
    config, big = make_run(tmp_path / "run"), make_run(tmp_path / "big", seed=1)
    (big.folder / "prepare" / "more").touch()
    Stage(big.folder, "prepare", {}, {}).finish({}, {}, {"more": "rows"})
    fed = changed(config, feed={"shards": str(big.folder / "prepare")})
    (config.folder / "pretrain" / "manifest.json").unlink()
    (stage_of(fed).begin() / "checkpoints" / "step-000000005").mkdir(parents=True)
    check_earlier(stage_of(fed), redo=False)
    setting = rf"Give pretrain\.feed\.shards={tmp_path}/big/prepare"
    with pytest.raises(ConfigError, match=rf"come to step-000000005 from other inputs: .*{setting} to keep it"):
        pretrain(config)
    stage_of(fed).finish({}, {}, {})
    with pytest.raises(ConfigError, match=rf"was made from other inputs: .*{setting} to keep it"):
        pretrain(config)
    with pytest.raises(StageError, match=rf"{setting} here too"):
        made_from(config.folder, ("prepare", "pretrain"), config.free_stages)
    own = changed(config, feed={"shards": str(config.folder / "prepare")})
    assert (stage_of(own).places, stage_of(own).inputs) == ({}, stage_of(config).inputs)


@pytest.mark.parametrize("patience", [0, 5])
def test_limits_that_an_earlier_raysl_wrote_down_are_no_other_config(tmp_path: Path, patience: int) -> None:
    config = changed(begun(tmp_path), health={"patience": 0})
    earlier = begun_by_an_earlier_raysl(config, patience=patience)
    check_earlier(stage_of(config), redo=False)
    stage_of(config).begin()
    assert (tmp_path / "pretrain" / "checkpoints" / "step-000000005").is_dir()
    earlier.finish({}, {}, {})
    assert stage_of(config).done() is not None
    claim_folder(config, (), redo=False)
    with pytest.raises(ConfigError, match=r"another config \(pretrain.max_steps: 1000 -> 2000\)"):
        pretrain(changed(config, max_steps=2000))


def test_checkpoints_that_nothing_says_the_config_of_are_not_removed(tmp_path: Path) -> None:
    config = begun(tmp_path)
    for name in (".config.json", ".inputs.json"):
        (tmp_path / "pretrain" / name).unlink()
    with pytest.raises(ConfigError, match=r"step-000000005 with another config or from .* an earlier raysl.*--redo"):
        pretrain(changed(config, max_steps=2000))
    assert (tmp_path / "pretrain" / "checkpoints" / "step-000000005").is_dir()
    check_earlier(stage_of(config), redo=False)  # its own config may go on, and says from then on which it is
    stage_of(config).begin()
    with pytest.raises(ConfigError, match=r"pretrain.max_steps: 1000 -> 2000"):
        pretrain(changed(config, max_steps=2000))


def test_mlflow_is_looked_for_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = make_run(tmp_path)
    (tmp_path / "pretrain" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"pretrain.mlflow=somewhere needs `pip install 'raysl\[mlflow\]'`"):
        pretrain(changed(config, mlflow="somewhere"))


def test_paths_that_travel_to_workers_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(
        make_run(tmp_path),
        init_from="weights",
        mlflow="numbers",
        feed={"cache_dir": "cache", "shards": "s3://bucket/a"},
        probe={"source": {"type": "files", "path": "labelled/*.jsonl"}},
    )
    monkeypatch.chdir(tmp_path)
    there = config.anchored().training
    assert (there.init_from, there.mlflow) == (f"{tmp_path}/weights", f"{tmp_path}/numbers")
    assert (there.feed.cache_dir, there.feed.shards) == (f"{tmp_path}/cache", "s3://bucket/a")
    assert there.probe is not None
    assert there.probe.source is not None
    assert there.probe.source.path == f"{tmp_path}/labelled/*.jsonl"
    away = changed(config, init_from=None, probe=None, mlflow="http://tracking:5000", feed={})
    assert away.anchored().training == away.training


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ("mlruns", "{here}/mlruns"), ("./mlruns", "{here}/mlruns"), ("/srv/mlruns", "/srv/mlruns"),
        ("file:mlruns", "file:{here}/mlruns"), ("file:./mlruns", "file:{here}/mlruns"), ("file:/srv/mlruns",) * 2,
        ("file:///srv/mlruns",) * 2, ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:////srv/mlflow.db",) * 2, ("databricks",) * 2, ("databricks://profile",) * 2,
        ("uc:profile",) * 2, ("https://tracking:5000",) * 2,
        ("postgresql+psycopg2://host/base",) * 2, (None, None), ("", ""),
    ],
)  # fmt: skip
def test_where_mlflow_tracks_is_the_same_place_on_a_worker(
    given: str | None, there: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = PretrainConfig.model_validate({"objective": "bert", "model": "bert", "mlflow": given})
    assert config.anchored().mlflow == (there and there.format(here=tmp_path))


def test_every_evaluation_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pretrain: gpt", 100, "steps") as progress:
        show = _Shown(progress, Stage(tmp_path, "pretrain", {}, {}))
        for step in range(1, 5):
            logged = {"loss": 2.0, "tokens_per_second": 9.0, "data_wait": 0.0, "learning_rate": 0.1, "gradient_norm": 1.0}
            show({"step": step, **logged})
            show({"step": step, "held_out_loss": 3.0 + step, "knn_accuracy": 0.5})
    said = capsys.readouterr().err
    assert all(f"pretrain: gpt  step {step}  held-out loss {3 + step}.000  kNN 0.500" in said for step in range(1, 5))


def test_a_warning_of_the_training_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pretrain: gpt", 100, "steps") as progress:
        show = _Shown(progress, Stage(tmp_path, "pretrain", {}, {}))
        for _ in range(2):  # a start after a worker has died writes it again
            show({"stage": "pretrain", "warning": "MLflow is away."})
    assert capsys.readouterr().err.count("warning: MLflow is away.") == 1


def test_a_start_does_not_tell_the_evaluations_of_earlier_ones_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = begun(tmp_path)
    log_metrics(tmp_path, "pretrain", step=5, held_out_loss=1.0)
    with Progress("pretrain: bert", 100, "steps") as progress:
        show, followed = _Shown(progress, stage_of(config)), Followed(tmp_path)
        for restart in range(2):  # the resumed start, then one after a worker has died
            drop_metrics_after(tmp_path, 5 + restart)
            log_metrics(tmp_path, "pretrain", start=5 + restart)
            log_metrics(tmp_path, "pretrain", step=6 + restart, held_out_loss=1.0)
            for message in followed.lines():
                show(message)
    said = capsys.readouterr().err
    assert [said.count(f"step {step}  held-out loss") for step in (5, 6, 7)] == [0, 1, 1]


def test_a_best_that_nobody_measures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best_by=knn_accuracy needs the probe"):
        changed(make_run(tmp_path), checkpoint={"best_by": "knn_accuracy"}, probe=None)
