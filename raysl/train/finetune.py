"""The stage `finetune`: the pretrained encoder and a few labelled rows in, a classifier out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from raysl import cluster, storage
from raysl.data import labelled
from raysl.data.labelled import Labelled
from raysl.errors import DataError
from raysl.metrics import classification
from raysl.models import load as models
from raysl.progress import Progress, say
from raysl.run_config import RunConfig, needed
from raysl.stage import Manifest, Stage, check_same_config, log_metrics, made_from, section
from raysl.train.classify import finetune_classifier, predict
from raysl.train.config import FinetuneConfig
from raysl.train.inputs import rows_of
from raysl.train.world import resolve_device

OUTPUTS = (models.WEIGHTS, models.DESCRIPTION, models.CLASSES)


def finetune(config: RunConfig, redo: bool = False) -> Manifest:
    """Trains the classifier on `labels_per_class` drawn rows of the train split and scores it on the validation split."""
    needed(config, "finetune")
    assert config.finetune is not None
    inputs = made_from(config.folder, ("prepare", "pretrain"), config.free_stages)
    stage = Stage(config.folder, "finetune", {"seed": config.seed, **section(config, "finetune")}, inputs)
    done = stage.done()
    if done is not None:
        say(f"finetune: done already  {stage.folder}")
        return done
    check_same_config(stage, redo)
    folder = stage.begin()
    train = labelled.read_split(config.folder / "prepare", "train")
    classes = labelled.largest_classes(train, config.finetune.num_classes)
    train = train.of_classes(classes)
    targets = labelled.class_numbers(train, classes)
    labelled.tell_small_classes("finetune", targets, config.finetune.labels_per_class, classes)
    chosen = labelled.draw_per_class(targets, config.finetune.labels_per_class, (config.seed, 3))
    rows = train.take(chosen)
    metrics = finetune_rows(config, config.folder / "pretrain", rows, folder, classes)
    storage.write_json(folder / "labelled_rows.json", {"ids": rows.ids})
    files = {name: storage.hash_file(folder / name) for name in (*OUTPUTS, "labelled_rows.json")}
    return stage.finish({"labelled_rows": len(rows), "classes": len(classes)}, metrics, files)


def finetune_rows(
    config: RunConfig, encoder_folder: Path, labelled_rows: Labelled, output_folder: Path,
    classes: Sequence[str] | None = None, logged_as: str = "finetune",
) -> dict[str, Any]:  # fmt: skip
    """Fine-tunes the encoder of `encoder_folder` on labelled rows and writes a classifier to `output_folder`.

    Returns train and validation accuracy and macro-F1; the gap between the two is the overfitting to watch. Those of
    validation are left out where its split has no row of the classes.
    """
    settings = config.finetune or FinetuneConfig()
    if _has_cluster_with_gpus(settings):
        say("finetune: on a GPU of the cluster")
        folders = encoder_folder.absolute(), output_folder.absolute()
        given = (config.anchored(), folders[0], labelled_rows, folders[1], classes, logged_as)
        return next(cluster.tasks(_finetune_rows, [(given, 1)]))
    return _finetune_rows(config, encoder_folder, labelled_rows, output_folder, classes, logged_as)


def _has_cluster_with_gpus(settings: FinetuneConfig) -> bool:
    """A GPU of a shared cluster has to be asked for, even where this process sees one."""
    if settings.device == "cpu" or not cluster.joins():
        return False
    cluster.connect()
    return cluster.takes_gpus(settings.device)


def _finetune_rows(
    config: RunConfig, encoder_folder: Path, labelled_rows: Labelled, output_folder: Path,
    classes: Sequence[str] | None, logged_as: str,
) -> dict[str, Any]:  # fmt: skip
    settings = config.finetune or FinetuneConfig()
    names = sorted(classes or {label for label in labelled_rows.labels if label is not None})
    if not labelled_rows:
        raise DataError("No labelled rows to fine-tune on. Name the label column of the source, or give more rows.")
    targets = labelled.class_numbers(labelled_rows, names)
    rows = rows_of(labelled_rows, config.folder / "prepare", settings.max_tokens)
    device = resolve_device(settings.device)
    encoder, description = models.load_encoder(encoder_folder)
    torch.set_num_threads(1)  # two threads on two busy cores are many times slower than one
    with Progress("finetune", max(settings.epochs, 1), "epochs") as progress:

        def on_epoch(epoch: int, loss: float) -> None:
            log_metrics(config.folder, logged_as, step=epoch + 1, loss=loss)
            progress.set(epoch + 1, f"loss {loss:.3f}")

        classifier = finetune_classifier(encoder.to(device), rows, targets, len(names), settings, config.seed, on_epoch)
    models.save(classifier, output_folder, description)
    storage.write_json(output_folder / models.CLASSES, {"classes": names})
    fit = classification.summary(targets, predict(classifier, rows).argmax(1), names)
    held_out = _validation_scores(config, classifier, names, settings)
    return {"train_accuracy": fit["accuracy"], "train_macro_f1": fit["macro_f1"], **held_out}


def _validation_scores(
    config: RunConfig, classifier: Any, names: Sequence[str], settings: FinetuneConfig
) -> dict[str, float]:
    prepared = config.folder / "prepare"
    held_out = labelled.read_split(prepared, "validation").of_classes(names)
    if not len(held_out):
        say(
            "finetune: no validation scores, since the validation split has no row of the classes (prepare.split.validation)"
        )
        return {}
    rows = rows_of(held_out, prepared, settings.max_tokens)
    truth = labelled.class_numbers(held_out, names)
    scores = classification.summary(truth, predict(classifier, rows).argmax(1), names)
    return {"validation_accuracy": scores["accuracy"], "validation_macro_f1": scores["macro_f1"]}
