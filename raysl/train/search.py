"""The trials of a search, drawn and checked before anything starts."""

import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysl import config as base
from raysl.errors import ConfigError
from raysl.run_config import RunConfig
from raysl.train.config import SpaceConfig, TuneConfig

FOLDER = "tune"


@dataclass(frozen=True)
class Trial:
    """One run of the search: the keys it sets, and its config with a run folder of its own."""

    number: int
    values: dict[str, Any]
    config: RunConfig


def trials(config: RunConfig, settings: TuneConfig) -> list[Trial]:
    """All trials, the same for the same seed. Raises ConfigError with the key that a value does not suit."""
    drawn = draw(settings, config.seed)
    for values in drawn:
        with_values(config, values)  # the best of them is written with the workers of the run
    return [Trial(number, values, _trial_config(config, settings, number, values)) for number, values in enumerate(drawn)]


def draw(settings: TuneConfig, seed: int) -> list[dict[str, Any]]:
    """Keys and values of each trial: every place of the grid, with `num_trials` draws of the other keys."""
    generator = np.random.default_rng((seed, 2))
    grids = {key: space.grid for key, space in settings.search.items() if space.grid is not None}
    drawn_keys = {key: space for key, space in settings.search.items() if space.grid is None}
    repeats = settings.num_trials if drawn_keys else 1
    places = [dict(zip(grids, place, strict=True)) for place in itertools.product(*grids.values())]
    return [
        {**place, **{key: _value(space, generator) for key, space in drawn_keys.items()}}
        for _ in range(repeats)
        for place in places
    ]


def _value(space: SpaceConfig, generator: np.random.Generator) -> Any:
    if space.log_uniform is not None:
        low, high = np.log(space.log_uniform)
        return float(f"{np.exp(generator.uniform(low, high)):.4g}")
    if space.uniform is not None:
        return float(f"{generator.uniform(*space.uniform):.4g}")
    if space.integer is not None:
        return int(generator.integers(space.integer[0], space.integer[1] + 1))
    assert space.choice is not None
    return space.choice[int(generator.integers(len(space.choice)))]


def with_values(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """The config with those keys set; ConfigError where one does not exist or does not take its value."""
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return base.validate(RunConfig, base.apply_overrides(config.model_dump(mode="json"), overrides), "tune.search")


def _trial_config(config: RunConfig, settings: TuneConfig, number: int, values: dict[str, Any]) -> RunConfig:
    """One worker: several train as one process with the whole batch does, and trials fill the cluster instead."""
    steps = {} if settings.max_steps is None else {"pretrain.max_steps": settings.max_steps}
    if "pretrain.num_workers" in values:
        raise ConfigError("tune.search: pretrain.num_workers changes the speed, not the result; a trial has one worker.")
    folder = str(config.folder / FOLDER / f"trial-{number:03d}")
    return with_values(config, {**steps, "pretrain.num_workers": 1, **values, "run_dir": folder})
