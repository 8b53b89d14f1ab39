"""`raysl tune`: a search over keys of `pretrain` with Ray Tune, each trial in a run folder of its own.

A trial trains in one process; several workers would end with the same weights up to rounding. Draws are made and checked
before the cluster starts, so that Ray only spreads the trials and stops bad ones early.
"""

import logging
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune as ray_tune

from raysl import cluster, storage
from raysl import config as base
from raysl.errors import ConfigError, RayslError, TrainingError
from raysl.progress import Progress, say
from raysl.run_config import RunConfig, needed
from raysl.stage import Stage, alone, require
from raysl.train.config import TuneConfig
from raysl.train.pretrain import check_earlier, check_mlflow, finish, stage_of
from raysl.train.search import FOLDER, Trial, trials, with_values
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a worker needs to train a trial. The stage knows paths as they were given, the job the absolute ones.

    So that a search goes on from another current folder: that of a submitted job is never the same.
    """

    stage: Stage
    job: TrainJob

    @staticmethod
    def of(trial: Trial) -> "Work":
        """Has to be made in the current folder that the YAML's paths are meant for."""
        return Work(stage_of(trial.config), TrainJob(trial.config.anchored()))


@dataclass(frozen=True)
class TuneResult:
    """The search, best trial first; trials that failed come last without a value."""

    rows: Sequence[tuple[int, dict[str, Any], float | None, str]]
    """Number of the trial, the keys it set, its value, and how it ended."""
    best: Path
    """YAML of the best trial."""


def tune(config: RunConfig) -> TuneResult:
    """Runs all trials, writes tune/trials.jsonl and tune/best.yaml, and says what came out.

    Started again after a kill, finished trials are not trained again and the others go on from their checkpoints.
    """
    needed(config, "pretrain")
    settings = config.tune
    assert settings is not None  # the command has checked
    check_mlflow(config.training)
    with alone(config.folder / FOLDER):
        return _search(config, settings)


def _search(config: RunConfig, settings: TuneConfig) -> TuneResult:
    planned = trials(config, settings)
    for trial in planned:
        if not trial.config.training.feed.shards:
            require(config.folder, "prepare", "prepare")
            _share_prepared(trial)
    works = [Work.of(trial) for trial in planned]
    for work in works:
        check_earlier(work.stage, False, f"To begin anew move {config.folder / FOLDER} away.")
    for trial in planned:
        storage.write_text(trial.config.folder / "config.yaml", base.dump(trial.config))
    cluster.connect()
    with Progress("tune", len(planned), "trials") as progress:
        ended = _run(config, settings, planned, works, progress)
    return _conclude(config, settings, planned, ended)


def _share_prepared(trial: Trial) -> None:
    link = trial.config.folder / "prepare"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / ".." / "prepare", target_is_directory=True)


def _run(
    config: RunConfig, settings: TuneConfig, planned: Sequence[Trial], works: Sequence[Work], progress: Progress
) -> dict[int, dict[str, Any]]:
    """Number of a trial -> its last reported numbers, or {"error": ...}. KeyboardInterrupt where some have not ended."""
    shown = _Shown(progress, settings)
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(_trial, works=list(works), metric=settings.metric),
        {"cpu": 1, "gpu": 1} if cluster.takes_gpus(config.training.device) else {"cpu": 1},
    )
    tuner = ray_tune.Tuner(
        trainable,
        param_space={"trial": ray_tune.grid_search([trial.number for trial in planned])},
        tune_config=ray_tune.TuneConfig(
            metric=settings.metric, mode=settings.direction, max_concurrent_trials=settings.max_concurrent,
            scheduler=_scheduler(settings, planned), trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray_tune.RunConfig(
            name="ray", storage_path=str(config.folder / FOLDER / ".ray"), verbose=0, callbacks=[shown]
        ),
    )  # fmt: skip
    with cluster.same_interrupt_handler():
        results = tuner.fit()
    storage.remove(config.folder / FOLDER / ".ray")
    if len(shown.ended) < len(planned):
        raise KeyboardInterrupt  # Ray Tune took it, stopped the trials and returned what they had reported
    ended: dict[int, dict[str, Any]] = {}
    for result in results:
        if result.config is None:  # it ended before its first report
            continue
        ended[int(result.config["trial"])] = dict(result.metrics or {})
    for number, trace in shown.traces.items():
        ended[number] = {"error": "failed", "ended": trace.strip().splitlines()[-1], "trace": trace}
    for number, found in ended.items():
        if "trace" in found:
            logger.error("trial %03d failed:\n%s", number, found["trace"])
    return ended


def _scheduler(settings: TuneConfig, planned: Sequence[Trial]) -> Any:
    if settings.scheduler == "none":
        return None
    runs = [trial.config.training for trial in planned]
    return ray_tune.schedulers.ASHAScheduler(
        time_attr="step", max_t=max(run.max_steps for run in runs),
        grace_period=min(min(run.evaluate_every_steps, run.max_steps) for run in runs), reduction_factor=2,
        stop_last_trials=False,  # they end by themselves; and a resumed trial is not compared at steps it has passed
    )  # fmt: skip


def _trial(given: dict[str, Any], works: Sequence[Work], metric: str) -> None:
    """One trial in this process; Tune hears of each evaluation. A run that goes wrong is a bad trial, not a fault."""
    work = works[given["trial"]]
    try:
        ended = _train(work, metric)
    except Exception as error:
        kind = "" if isinstance(error, RayslError | OSError) else f"{type(error).__name__}: "
        ended = {metric: float("nan"), "ended": kind + " ".join(str(error).split()), "trace": traceback.format_exc()}
    ray_tune.report({**ended, "step": work.job.config.training.max_steps})


def _train(work: Work, metric: str) -> dict[str, Any]:
    """What the trial measured at its end, and how it ended."""
    stage, settings = work.stage, work.job.config.training
    done = stage.done()
    if done is not None:
        return {**done.metrics, "ended": "done before"}
    stage.begin()

    def hear(message: dict[str, Any]) -> None:
        if "held_out_loss" in message and metric not in message:
            raise ConfigError(_not_measured(metric, message))
        if metric in message and message["step"] < settings.max_steps:
            ray_tune.report({**message, "ended": "stopped early"})

    result = train_rank(work.job, single(settings.device), hear)
    if metric not in result:  # without held-out rows nothing is heard
        raise ConfigError(_not_measured(metric, result))
    finish(stage, result, settings)
    return {**result, "ended": "done"}


def _not_measured(metric: str, measured: dict[str, Any]) -> str:
    known = ", ".join(sorted(name for name, value in measured.items() if isinstance(value, float)))
    return f"no '{metric}' among what was measured: {known}"


class _Shown(ray_tune.Callback):  # type: ignore[misc]
    """Counts trials that have ended, with the best value so far."""

    def __init__(self, progress: Progress, settings: TuneConfig) -> None:
        self.progress, self.settings = progress, settings
        self.best: float | None = None
        self.ended: set[str] = set()
        self.traces: dict[int, str] = {}
        """Number of a trial whose process ended -> what Ray says of it."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended.add(trial.trial_id)
        value = (trial.last_result or {}).get(self.settings.metric)
        if value is not None and value == value:
            choose = min if self.settings.direction == "min" else max
            self.best = value if self.best is None else choose(self.best, value)
        self.progress.advance(1, f"best {self.settings.metric} {self.best:.4f}" if self.best is not None else "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended.add(trial.trial_id)
        self.traces[int(trial.config["trial"])] = str(trial.get_error() or "").strip() or "failed"
        self.progress.advance(1)


def _conclude(
    config: RunConfig, settings: TuneConfig, planned: Sequence[Trial], ended: dict[int, dict[str, Any]]
) -> TuneResult:
    rows: list[tuple[int, dict[str, Any], float | None, str]] = []
    for trial in planned:
        found = ended.get(trial.number, {})
        value = float(found.get(settings.metric, "nan"))
        good = value == value and "error" not in found
        rows.append((trial.number, trial.values, value if good else None, str(found.get("ended", "failed"))))
    sign = 1 if settings.direction == "min" else -1
    rows.sort(key=lambda row: (row[2] is None, sign * (row[2] or 0.0), row[0]))
    lines = [{"trial": row[0], "values": row[1], settings.metric: row[2], "ended": row[3]} for row in rows]
    storage.write_jsonl(config.folder / FOLDER / "trials.jsonl", lines)
    if rows[0][2] is None:
        raise TrainingError(f"No trial gave a {settings.metric}. The first ended with: {rows[0][3]}")
    best = config.folder / FOLDER / "best.yaml"
    storage.write_text(best, base.dump(with_values(config, rows[0][1])))
    for line in table(rows, settings.metric):
        say(line)
    say(f"next:   raysl pretrain {shlex.quote(str(best))}")
    return TuneResult(rows, best)


def table(rows: Sequence[tuple[int, dict[str, Any], float | None, str]], metric: str) -> list[str]:
    """One line for each trial, best first."""
    keys = list(rows[0][1])
    head = ["trial", metric, *(key.removeprefix("pretrain.") for key in keys), "ended"]
    body = [
        [f"{number:03d}", "-" if value is None else f"{value:.4f}", *(str(values[key]) for key in keys), how[:60]]
        for number, values, value, how in rows
    ]
    widths = [max(len(row[place]) for row in [head, *body]) for place in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *body]]
