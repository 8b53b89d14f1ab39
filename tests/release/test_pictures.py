"""Pictures that are released: drawn from shards, exported, searched in, and answered as `prepare` would have read them."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_image_run import FORM, add_classifier, make_image_run

from raysl.data.config import ImagesConfig
from raysl.data.decode import Decoding, write_encoded
from raysl.data.image_shards import decoding_of
from raysl.data.images import Resize
from raysl.data.pixels import PixelFormat, PixelRows, to_images, to_rows, write_pixels
from raysl.errors import BundleError, ConfigError, DataError, StageError
from raysl.models.encoder import Encoder
from raysl.release import gate, model_registry, onnx
from raysl.release.build import Ingredients, build_bundle
from raysl.release.bundle import ENCODER, Bundle, open_bundle
from raysl.release.config import ReleaseConfig
from raysl.release.documents import lacking
from raysl.release.pictures import StoredPictures, draw_pictures, first_pictures
from raysl.release.release import _loss_to_production, labelled_rows, release
from raysl.release.runtime import PictureRunner
from raysl.run_config import RunConfig
from raysl.serve.session import BundleSession
from raysl.update import update
from tests.pixel_shards import CLASSES, file_of, random_images, write_shards
from tests.tiny_bundle import make_picture_bundle

HOW = Decoding(size=8, channels=3, patch_size=4, resize="crop", least_side=8, max_pixels=10_000)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("pictures") / "run"
    images = {"size": 16, "patch_size": 4, "resize": "pad", "max_pixels": 99_999}
    config = make_image_run(
        folder, prepare={"source": "digits", "images": images}, release={}, serve={"tasks": ["classify", "embed", "search"]}
    )
    release(add_classifier(config))
    return config


@pytest.fixture
def bundle(released: RunConfig) -> Bundle:
    return open_bundle(released.folder / "release" / "bundle")


def test_a_draw_keeps_the_order_and_is_of_one_split(tmp_path: Path) -> None:
    form = PixelFormat(8, 1, 4)
    write_shards(tmp_path / "pixels" / "test", 20, form)
    write_shards(tmp_path / "pixels" / "train", 9, form)
    drawn = draw_pictures(tmp_path, "test", 5, seed=3)["id"].to_pylist()
    assert drawn == [f"test-{place}" for place in sorted(np.random.default_rng(3).permutation(20)[:5])]
    assert len(draw_pictures(tmp_path, "test", 50, seed=3)) == 20
    with pytest.raises(DataError, match=r"Give prepare\.split\.validation a share above 0"):
        draw_pictures(tmp_path, "validation", 5, seed=3)


def test_pictures_to_search_in_are_those_of_the_train_split_first(tmp_path: Path) -> None:
    form = PixelFormat(8, 1, 4)
    for split, count in {"test": 4, "train": 9}.items():
        write_shards(tmp_path / "pixels" / split, count, form)
    assert first_pictures(tmp_path, 11)["id"].to_pylist() == [*(f"train-{n}" for n in range(9)), "test-0", "test-1"]


@pytest.mark.parametrize("labelled", [True, False])
def test_only_labelled_pictures_are_drawn_where_labels_are_needed(tmp_path: Path, labelled: bool) -> None:
    pictures, labels = random_images(10, 8)
    some = [label if place % 2 else None for place, label in enumerate(labels)]
    folder = tmp_path / "encoded" / "validation"
    write_encoded(folder / "shard-0.arrow", [str(n) for n in range(10)], some, [file_of(p) for p in pictures], HOW)
    drawn = draw_pictures(tmp_path, "validation", 10, seed=0, labelled=labelled)
    assert drawn["id"].to_pylist() == [str(place) for place in range(10) if place % 2 or not labelled]


@pytest.mark.parametrize("stored", ["pixels", "encoded"])
def test_pictures_are_read_as_networks_read_them_whatever_the_shards_hold(tmp_path: Path, stored: str) -> None:
    pictures, labels = random_images(20, 8, seed=2)
    if stored == "pixels":
        write_shards(tmp_path / stored / "train", 20, HOW.form, seed=2)
    else:
        path = tmp_path / stored / "train" / "shard-0.arrow"
        write_encoded(path, [str(n) for n in range(20)], labels, [file_of(p) for p in pictures], HOW)
    found, expected = StoredPictures(first_pictures(tmp_path, 20)), pictures.transpose(0, 3, 1, 2)
    assert len(found) == 20
    assert np.array_equal(np.stack(found), expected)
    assert np.array_equal(np.stack(found[8:15]), expected[8:15])  # over the border of two shards
    assert np.array_equal(np.stack(found[::7]), expected[::7])
    assert np.array_equal(found[-1], expected[-1])
    assert found[20:] == []
    assert np.array_equal(HOW.picture(file_of(pictures[0])), expected[0])


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_a_picture_that_is_sent_becomes_what_prepare_would_have_stored(resize: Resize) -> None:
    how, wide = replace(HOW, resize=resize), file_of(random_images(1, 40)[0][0, :25])
    assert np.array_equal(how.picture(wide), to_images(how.row(wide, "wide")[None], how.form)[0])


def test_of_few_labels_all_of_the_validation_split_are_measured(tmp_path: Path) -> None:
    form = PixelFormat(8, 3, 8)
    labels = ["x" if place % 40 == 0 else None for place in range(400)]
    rows, path = to_rows(random_images(400, 8)[0], form), tmp_path / "prepare" / "pixels" / "validation" / "shard-0.arrow"
    write_pixels(path, [str(place) for place in range(400)], labels, rows, form)
    said = {"name": "few", "run_dir": str(tmp_path), "prepare": {"source": "digits"}, "release": {"reference_rows": 50}}
    assert labelled_rows(RunConfig.model_validate(said))["id"].to_pylist() == [str(place) for place in range(0, 400, 40)]


@pytest.mark.slow
def test_a_release_of_pictures_is_proven_and_in_production(released: RunConfig, bundle: Bundle) -> None:
    assert model_registry.production(released.folder)[0] == 1
    assert bundle.tasks == ("classify", "embed", "search")
    assert set(bundle.manifest["parity"]) == {"encoder.onnx", "classifier.onnx"}
    assert all(parity["max_difference"] < 1e-5 for parity in bundle.manifest["parity"].values())
    assert bundle.manifest["metrics"]["macro_f1"] > 0.9
    assert bundle.manifest["metrics"]["rows"] == 30
    measured = gate.macro_f1(bundle, labelled_rows(released), list(bundle.classes))  # as before another release
    assert measured == pytest.approx(bundle.manifest["metrics"]["macro_f1"])


@pytest.mark.slow
def test_a_bundle_says_how_prepare_read_pictures(bundle: Bundle) -> None:
    assert bundle.decoding == decoding_of(ImagesConfig(size=16, patch_size=4, resize="pad", max_pixels=99_999))


@pytest.mark.slow
def test_an_export_of_other_weights_is_not_released(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(model: torch.nn.Module, image: Any, outputs: Any, path: Path, opset: int) -> None:
        shutil.copyfile(bundle.path(path.name), path)
        for weights in model.parameters():
            torch.nn.init.normal_(weights)

    monkeypatch.setattr(onnx, "export_on_pixels", export)
    config = make_image_run(tmp_path, finetune=None, release={})
    with pytest.raises(BundleError, match=r"encoder\.onnx differs from PyTorch by .*nothing is released"):
        release(config)
    assert not model_registry.read_registry(config.folder).versions


@pytest.mark.slow
def test_a_picture_that_is_sent_finds_itself_among_those_released(released: RunConfig, bundle: Bundle) -> None:
    embeddings = np.load(bundle.path("search/embeddings.npy"))
    ids = pq.read_table(bundle.path("search/documents.parquet"))["id"].to_pylist()
    assert len(ids) == len(embeddings) == 160
    rows = PixelRows(released.folder / "prepare" / "pixels" / "train")
    sent = file_of(to_images(rows.row(77)[None], FORM)[0].transpose(1, 2, 0))
    assert bundle.decoding is not None
    (query,) = BundleSession.open(bundle.folder).embed([bundle.decoding.picture(sent)])
    assert np.abs(embeddings[77] - query).max() < 1e-5
    assert ids[int((embeddings @ query).argmax())] == "train-77"


@pytest.mark.slow
def test_pictures_of_another_size_than_the_encoder_was_trained_on_are_refused(tmp_path: Path) -> None:
    config = make_image_run(tmp_path, prepare={"source": "digits", "images": {"size": 32}}, finetune=None, release={})
    with pytest.raises(StageError, match=r"says 32 pixels and 3 channels, .*trained on 16 and 3\. Set prepare\.images"):
        release(config)
    assert not model_registry.read_registry(config.folder).versions


def test_equal_pictures_prove_no_parity() -> None:
    with pytest.raises(BundleError, match="two different held-out pictures"):
        onnx.picture_cases([np.zeros((1, 8, 8), np.uint8)] * 9)


@pytest.mark.parametrize("count", [1, 16, 33])
def test_every_picture_is_answered_in_its_place(tmp_path: Path, count: int) -> None:
    runner = PictureRunner(make_picture_bundle(tmp_path))
    pictures = list(random_images(count, 4, 1)[0].transpose(0, 3, 1, 2))
    done: list[int] = []
    found = runner.embed(pictures, done.append)
    alone = np.concatenate([runner.answer_one(ENCODER, picture) for picture in pictures])
    assert np.allclose(found, alone, atol=1e-6)
    assert sum(done) == count


def test_an_export_is_compared_alone_in_pairs_and_in_sevens_from_the_first_to_the_last() -> None:
    pictures = [np.full((1, 8, 8), place, np.uint8) for place in range(30)]
    cases = onnx.picture_cases(pictures)
    assert sorted(len(case) for case in cases) == [1, 1, 2, 2, 7]
    assert cases[-1][[0, -1], 0, 0, 0].tolist() == [0, 29]


def test_an_update_is_refused_since_pictures_are_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this run reads images, which are not recorded\. Put new labelled rows beside"):
        update(make_image_run(tmp_path, release={}))


def test_versions_that_read_another_form_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Bundle] = []
    monkeypatch.setattr("raysl.release.release.macro_f1", lambda bundle, rows, classes: compared.append(bundle) or 0.0)
    config, said = make_image_run(tmp_path, release={}), {"classes": list(CLASSES)}
    production = Bundle(tmp_path, {**said, "decoding": asdict(HOW)})
    forms = [replace(HOW, size=16), replace(HOW, channels=1), replace(HOW, resize="pad")]
    for other in (Bundle(tmp_path, said), *(Bundle(tmp_path, {**said, "decoding": asdict(how)}) for how in forms)):
        assert _loss_to_production(config, other, production) == 0.0
    assert not compared
    alike = Bundle(tmp_path, {**said, "decoding": asdict(replace(HOW, max_pixels=9, patch_size=8))})
    _loss_to_production(config, alike, production)
    assert compared == [production, alike]


@pytest.mark.parametrize(("size", "batches"), [(32, [4, 16]), (512, [2, *[3] * 6]), (1024, [1] * 20)])
def test_of_large_pictures_fewer_are_read_at_a_time(tmp_path: Path, size: int, batches: list[int]) -> None:
    class Counting:
        found: ClassVar[list[int]] = []

        def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            self.found.append(len(feed["pixels"]))
            return [np.zeros((len(feed["pixels"]), 2), np.float32)]

    runner, session = PictureRunner(tmp_path), Counting()
    runner._sessions[ENCODER] = session
    assert runner.embed([np.zeros((3, size, size), np.uint8)] * 20).shape == (20, 2)
    assert sorted(session.found) == batches


@pytest.mark.parametrize("stored", ["pixels", "encoded"])
def test_a_draw_leaves_the_pictures_where_they_lie(tmp_path: Path, stored: str) -> None:
    pictures, labels = random_images(60, 64, 3, seed=0)
    how, folder = replace(HOW, size=64, channels=3, patch_size=64), tmp_path / stored / "validation"
    if stored == "pixels":
        write_shards(folder, 60, how.form)
    else:
        names = [f"validation-{number}" for number in range(60)]
        write_encoded(folder / "shard-0.arrow", names, labels, [file_of(p) for p in pictures], how)
    before = pa.total_allocated_bytes()
    drawn = draw_pictures(tmp_path, "validation", 20, seed=3)
    others = lacking(drawn, draw_pictures(tmp_path, "validation", 60, seed=3))
    assert pa.total_allocated_bytes() - before < 3 * 64 * 64 * 3
    assert (len(drawn), len(others)) == (20, 40)
    for rows in (drawn, others):
        places = [int(name.removeprefix("validation-")) for name in rows["id"].to_pylist()]
        assert places == sorted(places)
        assert np.array_equal(np.stack(StoredPictures(rows)), pictures[places].transpose(0, 3, 1, 2))


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.table({"id": ["a"], "text": ["b"], "label": ["c"]})
    monkeypatch.setattr("raysl.release.build.load_encoder", lambda folder: (Encoder(), {}))
    with pytest.raises(StageError, match=r"Encoder \(raysl\.models\.encoder\) derives from neither TextEncoder nor Vision"):
        build_bundle(tmp_path / "bundle", Ingredients(tmp_path, None, rows, rows, None), ReleaseConfig())
