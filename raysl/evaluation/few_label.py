"""The few-label protocol: the same draws of labels for every method, scored on the same test rows.

Plain functions of one process; `suite` spreads the jobs over the cluster.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raysl.data import labelled
from raysl.data.labelled import Documents, Labelled
from raysl.data.rows import Row
from raysl.errors import DataError
from raysl.evaluation import baselines
from raysl.metrics import classification
from raysl.models import load as models
from raysl.run_config import RunConfig
from raysl.train.classify import embed, finetune_classifier, predict
from raysl.train.config import FinetuneConfig
from raysl.train.inputs import rows_of

FINETUNED, FROZEN, SCRATCH = "pretrained, fine-tuned", "pretrained, frozen + LR", "same network from scratch"
TFIDF, LSA, PIXELS = "TF-IDF + LR", "LSA + LR", "pixels + LR"
CPU = torch.device("cpu")
UNLABELLED_MB = 256.0
"""Unlabelled text that TF-IDF and LSA are fitted on: about as much, drawn at random, where the train split holds more."""
YARDSTICKS = {"lsa": LSA, "tfidf": TFIDF, "pixels": PIXELS}
"""Name in the config -> method that is fitted once on features without a network."""


@dataclass(frozen=True)
class Protocol:
    """What all methods share: classes, labelled pool, test rows, and the draws."""

    config: RunConfig
    classes: list[str]
    pool: Labelled
    targets: npt.NDArray[np.int64]
    test: Labelled
    truth: npt.NDArray[np.int64]
    device: torch.device = CPU
    """Where networks run."""

    @cached_property
    def test_rows(self) -> Sequence[Row]:
        return _rows(self.config, self.test)

    def draw(self, per_class: int, number: int) -> npt.NDArray[np.int64]:
        """Places in the pool of draw `number`; every method gets the same."""
        return labelled.draw_per_class(self.targets, per_class, (self.config.seed, per_class, number))

    def score(self, method: str, per_class: int, number: int, predicted: npt.NDArray[np.int64]) -> dict[str, Any]:
        scores = classification.summary(self.truth, predicted, self.classes)
        return {"method": method, "labels_per_class": per_class, "draw": number,
                "macro_f1": scores["macro_f1"], "accuracy": scores["accuracy"]}  # fmt: skip


def build_protocol(config: RunConfig, device: torch.device = CPU) -> Protocol:
    """Reads the prepared rows; networks run on `device`.

    The rows to be scored are the first `max_test_rows` of `evaluate.split` and the chosen classes, in a seeded order.
    """
    assert config.evaluate is not None
    settings = config.finetune or FinetuneConfig()
    prepared = config.folder / "prepare"
    train = labelled.read_split(prepared, "train")
    classes = labelled.largest_classes(train, settings.num_classes)
    pool = train.of_classes(classes)
    test = labelled.read_split(prepared, config.evaluate.split).of_classes(classes)
    if not len(test):
        raise DataError(
            f"The {config.evaluate.split} split has no row of the {len(classes)} labels that are scored. Give more labelled "
            f"rows, or a larger prepare.split.{config.evaluate.split}."
        )
    order = np.random.default_rng((config.seed, 4)).permutation(len(test))[: config.evaluate.max_test_rows]
    test = test.take(np.sort(order))
    targets, truth = labelled.class_numbers(pool, classes), labelled.class_numbers(test, classes)
    return Protocol(config, classes, pool, targets, test, truth, device)


def jobs(config: RunConfig) -> list[dict[str, Any]]:
    """Independent pieces of work, the dearest first."""
    assert config.evaluate is not None
    settings = config.evaluate
    yardsticks = config.yardsticks
    trained = [FINETUNED] + ([SCRATCH] if "scratch" in yardsticks else [])
    draws = [(n, d) for n in sorted(settings.labels_per_class, reverse=True) for d in range(settings.num_draws)]
    single = [{"method": m, "labels_per_class": n, "draw": d} for m in trained for n, d in draws]
    fitted_once = [method for name, method in YARDSTICKS.items() if name in yardsticks] + [FROZEN]
    return [{"method": m, "labels_per_class": 0, "draw": 0} for m in fitted_once] + single


def num_scores(config: RunConfig) -> int:
    """Scores that all jobs give together."""
    assert config.evaluate is not None
    methods = {job["method"] for job in jobs(config)}
    return len(methods) * len(config.evaluate.labels_per_class) * config.evaluate.num_draws


def runs_network(job: dict[str, Any]) -> bool:
    return job["method"] in (FINETUNED, SCRATCH, FROZEN)


def run_job(protocol: Protocol, job: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """One row of scores for each (labels, draw) that the job covers."""
    if job["method"] in (FINETUNED, SCRATCH):
        yield _finetuned(protocol, job["method"], int(job["labels_per_class"]), int(job["draw"]))
    else:
        yield from _fitted_once(protocol, job["method"])


def _fitted_once(protocol: Protocol, method: str) -> Iterable[dict[str, Any]]:
    config = protocol.config
    assert config.evaluate is not None
    strength = (config.finetune or FinetuneConfig()).probe_strength if method == FROZEN else baselines.STRENGTH
    chosen = _drawn_places(protocol)
    fit = baselines.regression_predict(*_features(protocol, method, protocol.pool.take(chosen)), strength)
    for per_class in config.evaluate.labels_per_class:
        for number in range(config.evaluate.num_draws):
            places = protocol.draw(per_class, number)
            predicted = fit(np.searchsorted(chosen, places), protocol.targets[places])
            yield protocol.score(method, per_class, number, predicted)


def _features(protocol: Protocol, method: str, drawn: Labelled) -> tuple[Any, Any]:
    """Of the rows that are drawn for some budget, and of the test rows."""
    config = protocol.config
    assert config.evaluate is not None
    if method == FROZEN:
        encoder = models.load_encoder(config.folder / "pretrain")[0].to(protocol.device)
        return embed(encoder, _rows(config, drawn)), embed(encoder, protocol.test_rows)
    if method == PIXELS:
        return baselines.pixels(_rows(config, drawn)), baselines.pixels(protocol.test_rows)
    assert isinstance(drawn, Documents)
    assert isinstance(protocol.test, Documents)
    unlabelled = labelled.draw_texts(config.folder / "prepare", "train", UNLABELLED_MB, config.seed)
    texts = (unlabelled, drawn.texts, protocol.test.texts)
    return baselines.tfidf(*texts) if method == TFIDF else baselines.lsa(*texts, config.evaluate.lsa_width, config.seed)


def _drawn_places(protocol: Protocol) -> npt.NDArray[np.int64]:
    settings = protocol.config.evaluate
    assert settings is not None
    draws = [protocol.draw(n, d) for n in settings.labels_per_class for d in range(settings.num_draws)]
    return np.unique(np.concatenate(draws))


def _finetuned(protocol: Protocol, method: str, per_class: int, number: int) -> dict[str, Any]:
    config = protocol.config
    settings = config.finetune or FinetuneConfig()
    encoder, description = models.load_encoder(config.folder / "pretrain")
    if method == SCRATCH:
        assert config.evaluate is not None
        torch.manual_seed(config.seed + number)
        encoder = models.fresh(description)
        settings = settings.model_copy(
            update={"learning_rate": config.evaluate.scratch_learning_rate, "epochs": config.evaluate.scratch_epochs}
        )
    places = protocol.draw(per_class, number)
    rows = _rows(config, protocol.pool.take(places))
    classifier = finetune_classifier(
        encoder.to(protocol.device), rows, protocol.targets[places], len(protocol.classes), settings, config.seed + number
    )
    predicted = predict(classifier, protocol.test_rows).argmax(1)
    return protocol.score(method, per_class, number, np.asarray(predicted, np.int64))


def _rows(config: RunConfig, rows: Labelled) -> Sequence[Row]:
    return rows_of(rows, config.folder / "prepare", (config.finetune or FinetuneConfig()).max_tokens)
