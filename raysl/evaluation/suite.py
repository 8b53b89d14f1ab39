"""The stage `evaluate`: the few-label curve with its baselines, and the released classifier, on the split it names."""

from collections import defaultdict
from typing import Any

import numpy as np

from raysl import storage
from raysl.data import labelled
from raysl.evaluation import few_label
from raysl.evaluation.few_label import Protocol
from raysl.metrics import classification
from raysl.models import load as models
from raysl.progress import Progress, say
from raysl.run_config import RunConfig, needed
from raysl.stage import Manifest, Stage, check_same_config, log_metrics, made_from, read_manifest, section
from raysl.train.classify import predict
from raysl.train.config import FinetuneConfig
from raysl.train.inputs import rows_of
from raysl.train.world import resolve_device

REPORT = "report.json"
SHARING_BYTES = 100 << 20
"""Weights of a network up to which it shares a GPU: 26 million parameters, about ResNet-50."""


def evaluate(config: RunConfig, redo: bool = False) -> Manifest:
    """Scores every method at every label budget on `evaluate.split`; writes evaluate/report.json."""
    needed(config, "evaluate")
    assert config.evaluate is not None
    finetuned = config.finetune is not None and read_manifest(config.folder, "finetune") is not None
    inputs = made_from(config.folder, ["prepare", "pretrain"] + (["finetune"] if finetuned else []), config.free_stages)
    stage = Stage(config.folder, "evaluate", {"seed": config.seed, **section(config, "evaluate", "finetune")}, inputs)
    done = stage.done()
    if done is not None:
        say(f"evaluate: done already  {stage.folder}")
        return done
    check_same_config(stage, redo)
    folder = stage.begin()
    protocol = few_label.build_protocol(config)
    for per_class in sorted(config.evaluate.labels_per_class):
        labelled.tell_small_classes("evaluate", protocol.targets, per_class, protocol.classes)
    report: dict[str, Any] = {
        "split": config.evaluate.split, "classes": protocol.classes, "test_rows": len(protocol.test),
    }  # fmt: skip
    if finetuned:
        report |= _released_classifier(config)  # first: what is wrong there shows before the long jobs
    report["few_label"] = _by_method(_run_jobs(config))
    storage.write_json(folder / REPORT, report)
    metrics = {f"{r['method']} at {r['labels_per_class']}": float(np.mean(r["macro_f1"])) for r in report["few_label"]}
    log_metrics(config.folder, "evaluate", **metrics)
    return stage.finish({"test_rows": len(protocol.test)}, metrics, {REPORT: storage.hash_file(folder / REPORT)})


class _Worker:
    """Runs jobs in a Ray worker; the protocol is read once for each process and device."""

    protocol: Protocol | None = None

    @staticmethod
    def run(job: dict[str, Any], config: RunConfig, device: str) -> list[dict[str, Any]]:
        import torch

        torch.set_num_threads(1)
        found, kept = resolve_device(device), _Worker.protocol
        if kept is None or (kept.config, kept.device) != (config, found):
            kept = _Worker.protocol = few_label.build_protocol(config, found)
        return list(few_label.run_job(kept, job))


def _run_jobs(config: RunConfig) -> list[dict[str, Any]]:
    """All jobs as Ray tasks, a list of scores each; those with a network get a GPU, or a share, where there is one."""
    from raysl import cluster

    cluster.connect()
    anchored, device = config.anchored(), (config.finetune or FinetuneConfig()).device
    share = _share_of_gpu(config) if cluster.takes_gpus(device) else 0
    rows: list[dict[str, Any]] = []
    with Progress("evaluate: few labels", few_label.num_scores(config), "scores") as progress:
        for scores in cluster.tasks(_Worker.run, [
            ((job, anchored, device), share) if share and few_label.runs_network(job) else ((job, anchored, "cpu"), 0)
            for job in few_label.jobs(config)
        ]):  # fmt: skip
            for row in scores:
                rows.append(row)
                progress.advance(note=f"{row['method']}, {row['labels_per_class']} labels a class: {row['macro_f1']:.3f}")
    return sorted(rows, key=lambda r: (r["method"], r["labels_per_class"], r["draw"]))


def _share_of_gpu(config: RunConfig) -> float:
    """What one network takes: a small one leaves a GPU idle most of the time, so four of them share it."""
    return 0.25 if (config.folder / "pretrain" / models.WEIGHTS).stat().st_size <= SHARING_BYTES else 1


def _by_method(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, int], dict[str, Any]] = defaultdict(lambda: {"macro_f1": [], "accuracy": []})
    for row in rows:
        entry = grouped[row["method"], int(row["labels_per_class"])]
        entry["macro_f1"].append(float(row["macro_f1"]))
        entry["accuracy"].append(float(row["accuracy"]))
    return [{"method": m, "labels_per_class": n, **scores} for (m, n), scores in grouped.items()]


def _released_classifier(config: RunConfig) -> dict[str, Any]:
    """The fine-tuned classifier on all rows of `evaluate.split`: scores, confusion matrix. Nothing without any row."""
    assert config.evaluate is not None
    classifier, classes = models.load_classifier(config.folder / "finetune")
    prepared = config.folder / "prepare"
    test = labelled.read_split(prepared, config.evaluate.split).of_classes(classes)
    if not len(test):
        return {}
    settings = config.finetune or FinetuneConfig()
    truth = labelled.class_numbers(test, classes)
    predicted = predict(classifier, rows_of(test, prepared, settings.max_tokens)).argmax(1)
    matrix = classification.confusion_matrix(truth, predicted, len(classes))
    return {
        "classifier": classification.summary(truth, predicted, classes) | {"test_rows": len(test)},
        "confusion": {"classes": classes, "matrix": matrix.tolist()},
    }
