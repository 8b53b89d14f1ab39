"""The shipped smoke YAMLs on a small corpus with few steps: every stage they name, then every task they serve."""

import json
import socket
from pathlib import Path

import pytest

from raysl import run, run_config
from raysl.run_config import STAGES, RunConfig
from raysl.serve.app import ask, start
from tests.tiny_run import make_documents

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[1]
SMALL = {
    "prepare.filters": "[]", "prepare.tokenizer.vocab_size": "500", "prepare.split": "{validation: 0.2, test: 0.2}",
    "pretrain.max_steps": "6", "pretrain.global_batch_size": "16",
}  # fmt: skip
SMALLER = {
    "bert": {
        "finetune.num_classes": "3", "finetune.epochs": "1", "evaluate.labels_per_class": "[5]", "evaluate.num_draws": "1",
        "evaluate.baselines": "[tfidf]", "release.reference_rows": "60",
    },
    "gpt": {"release.reference_rows": "60", "pretrain.model.num_layers": "1", "pretrain.num_workers": "1"},
    "mae": {"pretrain.model.num_layers": "1", "pretrain.num_workers": "1", "evaluate.baselines": "[pixels]"},
    "simclr": {"pretrain.model.width": "8", "pretrain.num_workers": "1"},
}  # fmt: skip
"""Two workers once: each takes seconds to start, and that they train as one is for tests/train."""
BASELINES = {"mae": {"pixels + LR"}, "simclr": {"pixels + LR", "same network from scratch"}}
"""The same network trained from nothing once is enough: it takes longest."""
SERVED = ("simclr",)
"""One service of pictures is enough."""
SMALL_IMAGES = {
    "pretrain.max_steps": "4", "pretrain.global_batch_size": "16", "finetune.epochs": "1",
    "evaluate.labels_per_class": "[2]", "evaluate.num_draws": "1", "evaluate.scratch_epochs": "1",
    "evaluate.max_test_rows": "50",
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("name", sorted({path.stem for path in (ROOT / "configs" / "smoke").glob("*.yaml")} - {*BASELINES}))
def test_smoke_config_runs_and_every_task_answers(name: str, ray_cluster: Path) -> None:
    corpus = ray_cluster / "corpus.jsonl"
    rows = [{"text": f"{text} {number}", "label": label} for number, (text, label) in enumerate(make_documents(400, seed=1))]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"prepare.source={{type: files, path: {corpus}, label_column: label}}"
    small = [f"{key}={value}" for key, value in (SMALL | SMALLER[name]).items()]
    config = run_config.load(
        ROOT / "configs" / "smoke" / f"{name}.yaml",
        [source, *small, f"run_dir={ray_cluster / name}", f"serve.port={free_port()}"],
    )
    made = run.run(config)
    assert [manifest.stage for manifest in made] == [stage for stage in STAGES if getattr(config, stage) is not None]
    _ask_every_task(config)


def _ask_every_task(config: RunConfig) -> None:
    assert config.serve is not None
    with start(config) as service:
        for task in config.serve.tasks:
            answer = ask(service.url, f"/v1/{task.type}", service.examples[task.type])
            assert answer["request_id"]


@pytest.mark.parametrize("name", BASELINES)
def test_smoke_config_on_images_runs_to_the_service(name: str, ray_cluster: Path) -> None:
    small = [f"{key}={value}" for key, value in (SMALL_IMAGES | SMALLER[name]).items()]
    own = [f"run_dir={ray_cluster / name}", f"serve.port={free_port()}"]
    config = run_config.load(ROOT / "configs" / "smoke" / f"{name}.yaml", [*small, *own])
    made = run.run(config)
    assert [manifest.stage for manifest in made] == list(STAGES)
    report = json.loads((config.folder / "evaluate" / "report.json").read_text())
    methods = {entry["method"] for entry in report["few_label"]}
    assert methods == {"pretrained, fine-tuned", "pretrained, frozen + LR", *BASELINES[name]}
    assert len(report["classifier"]["f1"]) == 10
    if name in SERVED:
        _ask_every_task(config)
