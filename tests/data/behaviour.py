"""Behaviour prepared in this process: the recipe as it stands, its tasks called one after the other."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysl import schema
from raysl.data.behaviour_recipe import BehaviourRecipe
from raysl.data.shards import open_shard
from raysl.data.sources.interactions import Interactions
from raysl.run_config import RunConfig

Row = Mapping[str, object]


class LocalStep:
    """Stands where a step would start Ray."""

    def __enter__(self) -> "LocalStep":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run_calls(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], counted: object) -> None:
        for call in calls:
            json.dumps(function(*call))


class LocalRecipe(BehaviourRecipe):
    def step(self, name: str, total: int, left: int) -> Any:
        return LocalStep()


def write_rows(folder: Path, rows: Sequence[Row], num_files: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_files):
        lines = [json.dumps(row) + "\n" for row in rows[number::num_files]]
        (folder / f"part{number}.jsonl").write_text("".join(lines))
    return folder


def make_config(path: Path, run_dir: Path, partition_mb: float = 2.0, **behaviour: Any) -> RunConfig:
    source = {"type": "interactions", "path": str(path), "time_format": "s", "group_column": "group", "text_column": "text"}
    prepare = {"source": source, "behaviour": behaviour, "partition_mb": partition_mb}
    data = {"name": "tiny", "run_dir": str(run_dir), "seed": 3, "prepare": prepare}
    return RunConfig.model_validate(data)


def prepare_locally(config: RunConfig) -> dict[str, Any]:
    """The counts of the manifest; files lie in <run>/prepare."""
    source = Interactions(config.prepare.source)
    recipe = LocalRecipe(config.folder / "prepare", config.prepare, config.seed)
    return recipe.run(source.partitions(config.prepare.partition_mb))[0]


def sequences(prepared: Path, split: str) -> dict[str, list[int]]:
    """User -> tokens with their closing [SEP]."""
    rows = [
        row for path in sorted((prepared / "tokens" / split).glob("*.arrow")) for row in open_shard(path).batch.to_pylist()
    ]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["tokens"] for row in rows}


def held_out(prepared: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted((prepared / "held_out").glob("*.parquet"))]
    assert all(table.schema.equals(schema.HELD_OUT) for table in tables)
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def tokens_of(prepared: Path) -> dict[str, int]:
    return {row["item"]: row["token"] for row in pq.read_table(prepared / "items.parquet").to_pylist()}


class Stopped(Exception):
    """Stands for a kill between two tasks."""


class StoppedRecipe(LocalRecipe):
    """Stops before its task number `tasks_left`; the files of those before it are there."""

    tasks_left = 0

    def step(self, name: str, total: int, left: int) -> Any:
        recipe = self

        class Step(LocalStep):
            def run_calls(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], counted: object) -> None:
                for call in calls:
                    if not recipe.tasks_left:
                        raise Stopped
                    recipe.tasks_left -= 1
                    function(*call)

        return Step()


def prepare_in_pieces(config: RunConfig, tasks_a_start: int) -> int:
    """Starts again and again, each start stopped after so many tasks; returns how many starts it took."""
    source = Interactions(config.prepare.source)
    for start in range(1, 100):
        recipe = StoppedRecipe(config.folder / "prepare", config.prepare, config.seed)
        recipe.tasks_left = tasks_a_start
        try:
            recipe.run(source.partitions(config.prepare.partition_mb))
        except Stopped:
            continue
        return start
    raise AssertionError("it never ends")
