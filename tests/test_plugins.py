"""The three blocks of CONTRIBUTING.md, as they stand there, in modules outside the package."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
import yaml

from raysl import run_config, schema
from raysl.catalog import FILTERS, OBJECTIVES, TASKS
from raysl.data.filters.base import apply_filters
from raysl.data.shards import TokenRows
from raysl.models import load
from raysl.run_config import RunConfig
from raysl.serve.session import BundleSession
from raysl.train.config import OptimizerConfig
from raysl.train.loop import Trainer
from raysl.train.world import World, single
from tests.tiny_bundle import make_bundle

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the Python path with every module of the page."""
    for name, code in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.S):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def config(modules: Path, smallest_yaml: Path) -> RunConfig:
    """The smallest run with all three YAML snippets of the page in it."""
    data = yaml.safe_load(smallest_yaml.read_text())
    for snippet in re.findall(r"```yaml\n(.*?)```", TEXT, re.S):
        for section, values in yaml.safe_load(snippet).items():
            data[section] |= values
    data["pretrain"]["model"] |= {"width": 16, "context_length": 24}
    smallest_yaml.write_text(yaml.safe_dump(data))
    return run_config.load(smallest_yaml)


def test_page_holds_the_three_blocks(modules: Path) -> None:
    assert sorted(path.stem for path in modules.glob("my_*.py")) == ["my_filter", "my_objective", "my_task"]


def test_filter_drops_under_its_own_reason(config: RunConfig) -> None:
    filters = [FILTERS.load(one.type)(one) for one in config.prepare.filters]
    texts = ["too short", "long enough and plain English", "ein längerer Text ist äöü ÄÖÜ ßßß"]
    batch = pa.table([["a", "b", "c"], texts, [None] * 3], schema=schema.RAW_DOCUMENT)
    kept, reasons = apply_filters(filters, batch)
    assert kept.tolist() == [False, True, False]
    assert reasons == ["too_short", None, "other_script"]
    assert filters[1].dropped == {"other_script": 1}


def write_shard(folder: Path) -> None:
    """Sixty documents that count upwards: the order of their tokens can be learned."""
    folder.mkdir(parents=True)
    rows = [[*range(5 + start % 20, 28 + start % 20), 3] for start in range(60)]
    batch = pa.record_batch([[str(i) for i in range(60)], [None] * 60, rows], schema=schema.TOKENIZED)
    with pa.OSFile(str(folder / "shard-00000.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def test_objective_trains_in_the_one_loop(config: RunConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "tokens")
    torch.manual_seed(0)
    fast = OptimizerConfig(learning_rate=2e-2)
    settings = config.pretrain.model_copy(
        update={"max_steps": 20, "global_batch_size": 8, "log_every_steps": 1, "optimizer": fast}
    )
    objective = OBJECTIVES.load(settings.objective.type)(settings.objective, load.build(settings.model, 60))
    rows = TokenRows(tmp_path / "tokens", objective.row_kind, objective.row_length)
    lines: list[dict[str, Any]] = []
    Trainer(objective, rows, None, settings, seed=0, world=single("cpu"), report=lines.append).run()
    losses = [line["loss"] for line in lines]
    assert losses[0] == pytest.approx(np.log(60), rel=0.1)  # nothing is known at first
    assert losses[-1] < 0.8 * losses[0]


def test_objective_reaches_all_that_several_workers_wait_for(config: RunConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "tokens")
    settings = config.training.model_copy(update={"max_steps": 2, "global_batch_size": 8})
    objective = OBJECTIVES.load(settings.objective.type)(settings.objective, load.build(settings.model, 60))
    rows = TokenRows(tmp_path / "tokens", objective.row_kind, objective.row_length)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        Trainer(objective, rows, None, settings, seed=0, world=World(0, 2, torch.device("cpu"))).run()
    finally:
        dist.destroy_process_group()


def test_a_model_that_it_does_not_train_is_told_when_the_yaml_is_read(config: RunConfig) -> None:
    said = (
        r"objective 'my_objective:WordOrder' trains a model of class Bert \(raysl\.models\.text\), and model 'gpt' is none"
    )
    with pytest.raises(ValueError, match=said):
        config.training.model_validate({**config.training.model_dump(), "model": {"type": "gpt"}})


def test_task_answers_from_a_bundle(config: RunConfig, tmp_path: Path) -> None:
    session = BundleSession.open(make_bundle(tmp_path / "bundle"))
    assert config.serve is not None
    task = TASKS.load(config.serve.tasks[1].type)(session, config.serve.tasks[1])
    pairs = [("apple", "banana"), ("apple", "hammer")]
    requests = [task.Request.model_validate({"text": text, "other": other}) for text, other in pairs]
    same, different = task.predict(requests)
    assert same.similarity > 0.99
    assert different.similarity < 0.1
    assert task.Request.model_validate(task.example())
