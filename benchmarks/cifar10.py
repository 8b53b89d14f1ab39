"""CIFAR-10, 20,000 images without labels, 8 CPU-minutes: few labels and kNN, SimCLR and MAE (needs ../shared, RAYSL_SHARED).

Settings are chosen with RAYSL_BENCH_SPLIT=validation (5,000 other training images); the figures are over all test images.
A run that is stopped goes on from its last checkpoint; its CPU-minutes are then those of all its starts.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from benchmarks import Figure
from benchmarks._cifar10 import CIFAR10, ROOT, config, prepare, voted
from raysl.data.labelled import class_numbers, read_split
from raysl.evaluation import few_label
from raysl.models.load import load_encoder
from raysl.run_config import RunConfig
from raysl.train.classify import embed
from raysl.train.inputs import rows_of
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single

SPLIT = os.environ.get("RAYSL_BENCH_SPLIT", "test")
LABELS, DRAWS, TRAINED_DRAWS = 20, 5, 3
COMMON = {"probe": None, "evaluate_every_steps": 10**9, "log_every_steps": 10, "checkpoint": {"every_steps": 10}}
SETTINGS = {
    "simclr": {"max_steps": 690, "optimizer": {"type": "muon", "learning_rate": 2.4e-2, "warmup_share": 0.1}},
    "mae": {
        "max_steps": 1200,
        "optimizer": {"learning_rate": 2e-3, "warmup_share": 0.1, "weight_decay": 0.05, "betas": (0.9, 0.95)},
    },
}  # fmt: skip
CROPS = {"min_crop_area": 0.4, "jitter_strength": 0, "grayscale_share": 0}
FINETUNE = {"num_classes": 10, "epochs": 30, "learning_rate": 5e-4, "probe_strength": 100, "augment": CROPS}
FROZEN_GOAL, KNN_GOAL = {"simclr": 41.0, "mae": 34.0}, {"simclr": 49.0, "mae": None}


def run() -> Iterator[Figure]:
    if not CIFAR10.is_dir():
        print(f"skipped: {CIFAR10} is not there; set RAYSL_SHARED to the folder that holds data/")
        return
    torch.set_num_threads(1)
    for kind in ("simclr", "mae"):
        yield from objective(kind, run_of(kind))


def run_of(kind: str) -> RunConfig:
    budget = {"labels_per_class": [LABELS], "num_draws": DRAWS, "max_test_rows": 10_000, "split": SPLIT}
    folder = ROOT / "runs" / f"bench-cifar10-{kind}"
    return config(kind, folder, pretrain=COMMON | SETTINGS[kind], finetune=FINETUNE, evaluate=budget)


def objective(kind: str, chosen: RunConfig) -> Iterator[Figure]:
    prepare(chosen.folder)
    yield Figure(f"{kind}: pretraining", pretrain(chosen), "CPU-min", at_most=8)
    yield Figure(f"{kind}: kNN, all labels", knn(chosen), "%", at_least=KNN_GOAL[kind])
    protocol = few_label.build_protocol(chosen)

    def accuracy(job: dict[str, object]) -> list[float]:
        return [100 * row["accuracy"] for row in few_label.run_job(protocol, {"labels_per_class": LABELS, "draw": 0, **job})]

    frozen = accuracy({"method": few_label.FROZEN})
    yield Figure(f"{kind}: frozen + LR, {LABELS} labels a class", fmean(frozen), "%", at_least=FROZEN_GOAL[kind])
    yield Figure(f"{kind}: ... spread over draws", float(np.std(frozen)), "points")
    yield Figure("pixels + LR", fmean(accuracy({"method": few_label.PIXELS})), "%")
    draws = range(TRAINED_DRAWS)
    tuned = [accuracy({"method": few_label.FINETUNED, "draw": draw})[0] for draw in draws]
    scratch = [accuracy({"method": few_label.SCRATCH, "draw": draw})[0] for draw in draws]
    yield Figure(f"{kind}: fine-tuned", fmean(tuned), "%")
    yield Figure(f"{kind}: same network from scratch", fmean(scratch), "%")
    gain = fmean(tuned) - fmean(scratch)
    yield Figure(f"{kind}: fine-tuned over scratch", gain, "points", at_least=5 if kind == "mae" else None)


def pretrain(chosen: RunConfig) -> float:
    """CPU-minutes of the pretraining, made or completed first where it is not there."""
    book = chosen.folder / "cpu_seconds.json"
    spent: list[float] = json.loads(book.read_text()) if book.is_file() else []
    if not (chosen.folder / "pretrain" / "model.safetensors").is_file():
        earlier, started = sum(spent), time.process_time()

        def keep_count(_: object) -> None:
            book.write_text(json.dumps([earlier, time.process_time() - started]))

        train_rank(TrainJob(chosen), single("cpu"), keep_count)
        keep_count(None)
        spent = json.loads(book.read_text())
    return sum(spent) / 60


def knn(chosen: RunConfig) -> float:
    """Percent right when the nearest of all labelled train images vote, each with exp(cosine / temperature)."""
    encoder, _ = load_encoder(chosen.folder / "pretrain")
    prepared: Path = chosen.folder / "prepare"
    train, test = (read_split(prepared, split) for split in ("train", SPLIT))
    names = sorted({str(label) for label in train.labels})
    rows, queries = (torch.from_numpy(embed(encoder, rows_of(part, prepared, 0))) for part in (train, test))
    found = voted(rows, torch.from_numpy(class_numbers(train, names)), queries)
    return 100 * float((found.numpy() == class_numbers(test, names)).mean())
