"""What asha is told of a trial and what it decides, without a cluster."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raysl.train import tune
from raysl.train.search import Trial, trials
from tests.train.test_search import config_of
from tests.train.test_tune import RATE, make_search

EVERY = "pretrain.evaluate_every_steps"


class Asha:
    """The scheduler of a search, given one report after the other."""

    def __init__(self, planned: list[Trial], settings: Any) -> None:
        self.scheduler = tune._scheduler(settings, planned)
        self.scheduler.set_search_properties("held_out_loss", "min")
        self.trials: dict[str, Any] = {}

    def stops(self, name: str, step: int, loss: float) -> bool:
        if name not in self.trials:
            self.trials[name] = SimpleNamespace(trial_id=name, reports=0)
            self.scheduler.on_trial_add(None, self.trials[name])
        self.trials[name].reports += 1
        report = {"training_iteration": self.trials[name].reports, "step": step, "held_out_loss": loss}
        return bool(self.scheduler.on_trial_result(None, self.trials[name], report) == "STOP")

    def ends(self, name: str, step: int, loss: float) -> None:
        self.scheduler.on_trial_complete(None, self.trials[name], {"step": step, "held_out_loss": loss})


def asha_of(path: Path, every: int, *max_steps: int) -> Asha:
    """That of a search with a trial for each of `max_steps`."""
    search = {EVERY: {"grid": [every]}, "pretrain.max_steps": {"grid": list(max_steps)}}
    config = config_of(path, search=search, scheduler="asha")
    assert config.tune is not None
    return Asha(trials(config, config.tune), config.tune)


@pytest.mark.parametrize(("max_steps", "every"), [(500, 200), (300, 200), (400, 100), (10, 200), (7, 1)])
def test_a_trial_without_a_better_one_is_never_stopped(smallest_yaml: Path, max_steps: int, every: int) -> None:
    asha = asha_of(smallest_yaml, every, max_steps)
    assert not any(asha.stops("alone", step, 1.0) for step in [*range(every, max_steps, every), max_steps])


def test_the_longest_of_trials_of_different_lengths_is_not_cut(smallest_yaml: Path) -> None:
    asha = asha_of(smallest_yaml, 100, 100, 300)
    assert not any(asha.stops("long", step, 1.0) for step in (100, 200, 300))


def test_a_worse_trial_is_stopped_at_its_first_evaluation(smallest_yaml: Path) -> None:
    asha = asha_of(smallest_yaml, 200, 500)
    assert not asha.stops("good", 200, 1.0)
    assert asha.stops("bad", 200, 2.0)


def test_what_a_trial_reaches_later_is_not_held_against_others_at_earlier_steps(smallest_yaml: Path) -> None:
    asha = asha_of(smallest_yaml, 100, 500)
    assert not any(asha.stops("resumed", step, 400 / step) for step in (400, 500))
    asha.ends("resumed", 500, 0.8)
    assert not asha.stops("done before", 500, 0.7)
    asha.ends("done before", 500, 0.7)
    assert not asha.stops("new", 100, 4.0)
    assert not asha.stops("new", 200, 2.0)
    assert asha.stops("new", 400, 1.1)


def test_each_report_says_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_search(tmp_path, 25, 10, search={RATE: {"grid": [0.01, 1e30, 0.001]}})
    planned = trials(config, config.tune)  # type: ignore[arg-type]
    reports: list[tuple[int, str]] = []
    monkeypatch.setattr(tune.ray_tune, "report", lambda said: reports.append((said["step"], said["ended"])))
    for trial in planned:
        tune._share_prepared(trial)
    works = [tune.Work.of(trial) for trial in planned]
    for _ in range(2):
        tune._trial({"trial": 0}, works, "held_out_loss")
    assert reports == [(10, "stopped early"), (20, "stopped early"), (25, "done"), (25, "done before")]
    tune._trial({"trial": 1}, works, "held_out_loss")
    tune._trial({"trial": 2}, works, "knn_accuracy")
    (wrong, why), (unknown, names) = reports[4:]
    assert (wrong, unknown) == (25, 25)
    assert RATE in why
    assert "no 'knn_accuracy' among what was measured" in names
