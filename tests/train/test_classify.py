import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from raysl.data.labelled import read_split
from raysl.models.config import BertConfig
from raysl.models.heads import Classifier
from raysl.models.load import load_classifier, load_encoder
from raysl.models.resnet import ResNet
from raysl.models.text import SEP, Bert
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig
from raysl.objectives.augment import views
from raysl.objectives.image_config import AugmentConfig
from raysl.train import classify
from raysl.train.classify import embed, finetune_classifier, fit_probe, predict
from raysl.train.config import FinetuneConfig
from raysl.train.finetune import finetune
from raysl.train.inputs import batches, batches_by_length, rows_of
from tests.tiny_image_run import make_image_run
from tests.tiny_run import make_run
from tests.token_shards import random_documents

ROWS = [np.array([*document, SEP], np.int32) for document in random_documents(60)]
TARGETS = np.arange(60) % 5


def encoder() -> Bert:
    torch.manual_seed(0)
    return Bert(BertConfig(width=32, num_heads=2, num_layers=1, context_length=16), 50)


def test_every_row_is_in_one_batch_of_like_length() -> None:
    places = np.concatenate(list(batches_by_length(ROWS)))
    assert sorted(places) == list(range(60))
    lengths = [len(ROWS[place]) for place in places]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(("size", "expected"), [(32, [256, 44]), (224, [256, 44]), (448, [64] * 4 + [44])])
def test_batches_of_large_images_are_smaller(size: int, expected: list[int]) -> None:
    model = ResNet(ResNetConfig(width=8), ImageFormat(size, 3, size, (0.4,) * 3, (0.3,) * 3))
    found = list(batches(model, [np.zeros(0, np.uint8)] * 300))
    assert [len(places) for places in found] == expected
    assert np.concatenate(found).tolist() == list(range(300))


def test_batching_does_not_change_an_embedding() -> None:
    model = encoder()
    together = embed(model, ROWS)
    alone = np.concatenate([embed(model, [row]) for row in ROWS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("read", [embed, lambda model, rows: predict(Classifier(model, 3).train(), rows)])
def test_measuring_is_done_in_evaluation_mode_and_changes_nothing(read: Callable[..., object]) -> None:
    """A model with dropout and one with batch norm, both left in training mode."""
    torch.manual_seed(0)
    form = ImageFormat(8, 3, 4, (0.4,) * 3, (0.3,) * 3)
    text = Bert(BertConfig(width=32, num_heads=2, num_layers=1, context_length=16, dropout=0.5), 50)
    images = list(np.random.default_rng(0).integers(0, 256, (20, 8 * 8 * 3), np.uint8))
    for model, rows in ((text, ROWS), (ResNet(ResNetConfig(width=8), form), images)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = []
        for _ in range(2):
            torch.manual_seed(1)  # for the head; dropout goes on from it
            found.append(read(model.train(), rows[: 20 - 7 * len(found)])[:13])
        np.testing.assert_allclose(*found, atol=1e-5)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("num_present", [1, 2, 5])
def test_probe_predicts_its_rows_and_never_an_absent_class(num_present: int) -> None:
    targets = TARGETS % num_present
    embeddings = np.eye(5, dtype=np.float32)[targets]
    weight, bias = fit_probe(embeddings, targets, num_classes=6, strength=10.0)
    assert (embeddings @ weight.T + bias).argmax(1).tolist() == targets.tolist()


def test_fine_tuning_starts_at_the_probe_and_improves_on_it() -> None:
    probe = finetune_classifier(encoder(), ROWS, TARGETS, 5, FinetuneConfig(epochs=0), seed=0)
    weight, bias = fit_probe(embed(encoder(), ROWS), TARGETS, 5, FinetuneConfig().probe_strength)
    np.testing.assert_allclose(predict(probe, ROWS), embed(encoder(), ROWS) @ weight.T + bias, atol=1e-4)
    losses: list[float] = []
    settings = FinetuneConfig(epochs=15, learning_rate=3e-3, batch_size=16)
    tuned = finetune_classifier(encoder(), ROWS, TARGETS, 5, settings, 0, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.5 * losses[0]
    fresh = [np.array([*document, SEP], np.int32) for document in random_documents(50, seed=9)]
    assert (predict(tuned, fresh).argmax(1) == np.arange(50) % 5).mean() > 0.9


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batch_norm_has_no_row_alone(batch_size: int) -> None:
    """At the end of a large stem 32 pixels are one, whose deviation in a single row is none."""
    images = list(np.random.default_rng(0).integers(0, 256, (3, 32 * 32), np.uint8))
    model = ResNet(ResNetConfig(width=8, stem="large"), ImageFormat(32, 1, 32, (0.4,), (0.3,)))
    settings = FinetuneConfig(epochs=1, batch_size=batch_size)
    tuned = finetune_classifier(model, images, np.array([0, 1, 0]), 2, settings, seed=0)
    assert np.isfinite(predict(tuned, images)).all()
    assert [classify._num_batches(model, rows, 8) for rows in (1, 7, 8, 9)] == [1, 1, 1, 2]
    assert classify._num_batches(encoder(), 3, batch_size) == -(-3 // batch_size)


def test_the_stage_fine_tunes_an_encoder_of_images(tmp_path: Path) -> None:
    config = make_image_run(tmp_path)
    manifest = finetune(config)
    assert manifest.counts == {"labelled_rows": 24, "classes": 3}
    assert manifest.metrics["train_accuracy"] > 1 / 3
    classifier, classes = load_classifier(tmp_path / "finetune")
    assert classes == ["bars", "boxes", "dots"]
    test = read_split(tmp_path / "prepare", "test")
    logits = predict(classifier, rows_of(test, tmp_path / "prepare", 0))
    assert logits.shape == (40, 3)


def test_a_class_with_too_few_labels_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_image_run(tmp_path, finetune={"num_classes": 3, "epochs": 0, "labels_per_class": 90})
    assert finetune(config).counts["labelled_rows"] == 90
    assert "finetune: 3 of 3 classes have fewer than labels_per_class=90 labelled rows" in capsys.readouterr().err


def test_nothing_to_validate_on_gives_no_validation_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A 0 would read as total overfitting."""
    config = make_image_run(tmp_path)
    shutil.rmtree(tmp_path / "prepare" / "pixels" / "validation")
    assert set(finetune(config).metrics) == {"train_accuracy", "train_macro_f1"}
    assert "finetune: no validation scores, since the validation split has no row" in capsys.readouterr().err


def test_images_are_augmented_anew_in_each_pass_by_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def watched(images: torch.Tensor, uniform: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
        seen.append(views(images, uniform, config))
        return seen[-1]

    monkeypatch.setattr(classify, "views", watched)
    config = make_image_run(tmp_path)
    train = read_split(tmp_path / "prepare", "train").take(np.arange(8))
    rows, targets = rows_of(train, tmp_path / "prepare", 0), np.arange(8) % 2
    settings = FinetuneConfig(epochs=2, batch_size=8, augment=AugmentConfig(min_crop_area=0.3))
    weights = []
    for seed in (0, 0, 1):
        model, _ = load_encoder(config.folder / "pretrain")
        weights.append(finetune_classifier(model, rows, targets, 2, settings, seed).head.weight)
    assert len(seen) == 3 * 2
    assert not torch.equal(seen[0].sort(0)[0], seen[1].sort(0)[0])  # the same images in each pass, cut otherwise
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_text_is_not_augmented(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"finetune\.augment is for images, not for text"):
        make_run(tmp_path, finetune={"augment": {}})
