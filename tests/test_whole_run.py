"""`raysl run` as a user types it, on a tiny corpus: every stage, killed in every stage, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from raysl import stage
from raysl.models import load as models
from raysl.release.bundle import open_bundle
from raysl.release.model_registry import production

pytestmark = pytest.mark.ray

TOPICS = {"net": "socket packet port server", "math": "matrix vector sum product", "file": "folder path read write"}
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "release")


def write_run(folder: Path, stages: Sequence[str] = STAGES) -> Path:
    """A corpus of three topics and a YAML with `stages` over it."""
    generator = np.random.default_rng(0)
    filler = [f"word{number}" for number in range(400)]
    rows = []
    for number in range(450):
        label = list(TOPICS)[number % 3]
        words = generator.choice([*(TOPICS[label].split() * 30), *filler], size=60)
        rows.append({"id": f"d{number}", "text": " ".join(words), "label": label})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "corpus.jsonl", (0, 0))  # one corpus, wherever it lies
    config = {
        "name": "tiny", "run_dir": "run", "seed": 1,
        "prepare": {
            "source": {
                "type": "files", "path": str(folder / "corpus.jsonl"), "label_column": "label", "id_column": "id",
            },
            "tokenizer": {"vocab_size": 600}, "split": {"validation": 0.2, "test": 0.2}, "partition_mb": 0.02,
        },
        "pretrain": {
            "objective": {"type": "contrastive_text", "span_length": 16, "hidden_words_weight": 0.1},
            "model": {"type": "bert", "num_layers": 1, "width": 32, "num_heads": 2, "context_length": 16},
            "optimizer": {"learning_rate": 0.003}, "global_batch_size": 32, "max_steps": 30, "num_workers": 2,
            "checkpoint": {"every_steps": 5}, "evaluate_every_steps": 15, "log_every_steps": 5,
        },
        "finetune": {"num_classes": 3, "labels_per_class": 10, "epochs": 2},
        "evaluate": {"labels_per_class": [4], "num_draws": 2, "lsa_width": 8},
        "release": {"max_tokens": 64, "reference_rows": 60},
        "serve": {"tasks": ["classify", "embed", "search"]},
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({key: config[key] for key in config if key not in STAGES or key in stages}))
    return path


def start(path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raysl.cli", "run", str(path), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=path.parent,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-3000:]
    return errors


def hashes(run: Path) -> dict[str, str]:
    return {name: manifest.content_hash for name in STAGES if (manifest := stage.read_manifest(run, name))}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """The two longest stages of the same run, which nothing interrupts: it is at work while the other is killed."""
    folder = tmp_path_factory.mktemp("one_go")
    process = start(write_run(folder, ("prepare", "pretrain")))
    yield folder / "run", process
    process.kill()


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, uninterrupted: tuple[Path, subprocess.Popen[str]]
) -> tuple[Path, str]:
    """A run that was killed in every stage by SIGKILL of the driver, so that no handler ran; what its starts said."""
    folder = tmp_path_factory.mktemp("run")
    path, run, said = write_run(folder), folder / "run", ""
    for moment in (
        run / "prepare" / "work", run / "pretrain" / "checkpoints" / "step-000000010", run / "finetune",
        run / "evaluate", run / "release",
    ):  # fmt: skip
        process = start(path)
        wait_for(moment, process)
        os.kill(process.pid, signal.SIGKILL)
        said += process.communicate(timeout=60)[1]
    return run, said + finish(start(path))


@pytest.fixture(scope="module")
def in_one_go(uninterrupted: tuple[Path, subprocess.Popen[str]]) -> Path:
    run, process = uninterrupted
    finish(process)
    return run


def test_every_stage_leaves_a_manifest_and_the_run_its_four_files(finished: tuple[Path, str]) -> None:
    run, output = finished
    assert set(hashes(run)) == set(STAGES)
    assert {"config.yaml", "manifest.json", "metrics.jsonl", "report.html"} <= {path.name for path in run.iterdir()}
    assert str(run / "raysl.log") in output or "raysl.log" in output
    assert "steps" in output
    assert not [line for line in output.splitlines() if "WARNING" in line or "pid=" in line]
    assert "onnxscript" not in (run / "raysl.log").read_text()
    page = (run / "report.html").read_text(encoding="utf-8")
    for heading in ("Documents", "Loss: pretrain", "Few labels", "Confusion on the test split", "Release"):
        assert f"<h2>{heading}</h2>" in page


def test_metrics_have_each_step_once_and_the_loss_falls(finished: tuple[Path, str]) -> None:
    lines = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["stage"] == "pretrain" and "loss" in line}
    assert list(losses) == [5, 10, 15, 20, 25, 30]
    assert losses[30] < losses[5]


def test_evaluation_puts_every_method_on_the_same_draws(finished: tuple[Path, str]) -> None:
    report = json.loads((finished[0] / "evaluate" / "report.json").read_text())
    methods = {entry["method"] for entry in report["few_label"]}
    assert methods == {
        "pretrained, fine-tuned", "pretrained, frozen + LR", "same network from scratch", "TF-IDF + LR", "LSA + LR",
    }  # fmt: skip
    assert all(len(entry["macro_f1"]) == 2 for entry in report["few_label"])
    assert np.trace(report["confusion"]["matrix"]) / np.sum(report["confusion"]["matrix"]) > 0.6


def test_the_released_bundle_is_in_production_and_answers_as_the_model(finished: tuple[Path, str]) -> None:
    version, folder = production(finished[0])
    assert version == 1
    assert open_bundle(folder).manifest["classes"] == sorted(TOPICS)
    assert models.load_classifier(finished[0] / "finetune")[1] == sorted(TOPICS)


def test_a_second_run_skips_everything_and_starts_no_cluster(finished: tuple[Path, str]) -> None:
    run, _ = finished
    before = hashes(run)
    errors = finish(start(run.parent / "run.yaml"))
    assert errors.count("done already") == len(STAGES)
    assert hashes(run) == before


def test_another_config_is_refused_and_nothing_is_lost(finished: tuple[Path, str]) -> None:
    run, _ = finished
    before = hashes(run)
    process = start(run.parent / "run.yaml", "pretrain.max_steps=31")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "max_steps: 30 -> 31" in errors
    assert "--redo" in errors
    assert hashes(run) == before


def test_killed_in_every_stage_it_went_on_and_prepared_the_same_bytes(finished: tuple[Path, str], in_one_go: Path) -> None:
    run, output = finished
    assert "prepare: done already" in output
    ours, theirs = stage.read_manifest(run, "prepare"), stage.read_manifest(in_one_go, "prepare")
    assert ours is not None
    assert theirs is not None
    assert ours.files == theirs.files
    assert hashes(run)["pretrain"] == hashes(in_one_go)["pretrain"], "resumed weights differ from those of one go"
    steps = [json.loads(line).get("step") for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert [step for step in steps if step in (5, 10, 15, 20, 25, 30)].count(15) == 1


def raysl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raysl.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=Path(str(arguments[1])).parent)


def test_a_later_stage_is_made_again_without_the_earlier_ones(finished: tuple[Path, str]) -> None:
    run, before = finished[0], hashes(finished[0])
    path = run.parent / "run.yaml"
    refused = raysl("finetune", path, "finetune.epochs=1")
    assert refused.returncode == 2
    assert "finetune.epochs: 2 -> 1" in refused.stderr
    assert hashes(run) == before
    assert raysl("finetune", path, "finetune.epochs=1", "--redo").returncode == 0
    assert hashes(run)["prepare"] == before["prepare"]
    assert hashes(run)["finetune"] != before["finetune"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prepare.source.path={}/absent", "{}/absent"),
        ("prepare.source.path={}/empty", "{}/empty"),
        ("prepare.filters=[{{type: length, min_chars: 100000}}]", "nothing is left of 450 documents"),
    ],
)
def test_a_source_that_gives_nothing_is_one_clear_error(finished: tuple[Path, str], override: str, message: str) -> None:
    folder = finished[0].parent
    (folder / "empty").mkdir(exist_ok=True)
    done = raysl("prepare", folder / "run.yaml", f"run_dir={folder / 'nothing'}", override.format(folder))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message.format(folder) in errors[0]


def wait_for(moment: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not moment.exists():
        assert process.poll() is None, f"over before {moment}: {process.communicate()[1][-2000:]}"
        assert time.monotonic() < deadline, f"{moment} never came"
        time.sleep(0.05)
