"""A release leaves a bundle that answers, registered and in production, or nothing at all."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import copy_run, make_gpt_run, released_gpt_run, released_run

from raysl.errors import BundleError, ConfigError, StageError
from raysl.release import model_registry
from raysl.release.bundle import BUNDLE, REFERENCE, open_bundle, write_bundle
from raysl.release.reference import SCHEMA, figures, fit_temperature, write_reference
from raysl.release.release import _ingredients, _loss_to_production, release
from raysl.release.runtime import Runner, softmax
from raysl.run_config import RunConfig
from raysl.serve.session import BundleSession
from raysl.serve.tasks.generate import Generate, GenerateConfig, GenerateRequest
from raysl.storage import read_json

pytestmark = pytest.mark.slow


@pytest.fixture
def released(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return released_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def copied(released: RunConfig, tmp_path: Path) -> RunConfig:
    """A released run whose files a test may spoil."""
    return copy_run(released, tmp_path / "run")


def test_the_first_release_is_in_production(released: RunConfig) -> None:
    version, folder = model_registry.production(released.folder)
    assert version == 1
    assert open_bundle(folder).tasks == ("classify", "embed", "search")


def test_the_bundle_says_how_good_it_is(released: RunConfig) -> None:
    manifest = open_bundle(released.folder / "release" / "bundle").manifest
    assert manifest["metrics"]["macro_f1"] > 0.8
    assert manifest["parity"]["classifier.onnx"]["max_difference"] < 1e-4
    assert manifest["latency"]["p50_ms"] > 0
    assert 0.05 < manifest["temperature"] < 20


def test_the_search_index_finds_a_document_by_its_own_text(released: RunConfig) -> None:
    folder = released.folder / "release" / "bundle"
    embeddings, documents = np.load(folder / "search/embeddings.npy"), pq.read_table(folder / "search/documents.parquet")
    assert embeddings.shape == (120, 16)
    query = Runner.of(open_bundle(folder)).embed([documents["text"][77].as_py()])
    assert documents["text"][int((embeddings @ query[0]).argmax())] == documents["text"][77]


def test_the_reference_holds_answers_to_held_out_rows(released: RunConfig) -> None:
    reference = pq.read_table(released.folder / "release" / "bundle" / "reference.parquet")
    documents = pq.read_table(released.folder / "prepare" / "documents")
    split = dict(zip(documents["id"].to_pylist(), documents["split"].to_pylist(), strict=True))
    assert reference.schema.equals(SCHEMA)
    assert {split[name] for name in reference["id"].to_pylist()} == {"validation"}
    assert all(1 / 3 <= confidence <= 1 for confidence in reference["confidence"].to_pylist())


def test_a_second_call_does_nothing(released: RunConfig) -> None:
    before = (released.folder / "release" / "bundle" / "bundle.json").read_bytes()
    release(released)
    assert (released.folder / "release" / "bundle" / "bundle.json").read_bytes() == before
    assert len(model_registry.read_registry(released.folder).versions) == 1


def test_a_spoilt_bundle_is_made_again(copied: RunConfig) -> None:
    encoder = copied.folder / "release" / "bundle" / "encoder.onnx"
    encoder.write_bytes(encoder.read_bytes()[:100])
    release(copied)
    assert "encoder.onnx" in open_bundle(copied.folder / "release" / "bundle").manifest["files"]
    assert model_registry.production(copied.folder)[0] == 2


def test_a_release_killed_before_its_manifest_goes_on_without_a_second_version(copied: RunConfig) -> None:
    (copied.folder / "release" / "manifest.json").unlink()
    release(copied)
    assert [v.state for v in model_registry.read_registry(copied.folder).versions] == ["production"]


def test_a_registry_that_was_lost_is_made_again(copied: RunConfig) -> None:
    shutil.rmtree(copied.folder / "registry")
    release(copied)
    assert model_registry.production(copied.folder)[0] == 1


@pytest.mark.parametrize(("redo", "version"), [(False, 1), (True, 2)])
def test_a_version_in_production_that_cannot_be_opened_is_mended_or_followed(
    copied: RunConfig, redo: bool, version: int
) -> None:
    """Every error that names it says `raysl release`."""
    (model_registry.version_folder(copied.folder, 1) / "encoder.onnx").write_bytes(b"damaged")
    release(copied, redo=redo)
    number, folder = model_registry.production(copied.folder)
    assert (number, open_bundle(folder).tasks) == (version, ("classify", "embed", "search"))


def test_an_export_that_differs_is_not_released(released: RunConfig, tmp_path: Path) -> None:
    strict = released.release.model_copy(update={"parity_tolerance": 1e-12})  # type: ignore[union-attr]
    shutil.copytree(released.folder, tmp_path / "run", ignore=shutil.ignore_patterns("release", "registry"))
    config = released.model_copy(update={"run_dir": str(tmp_path / "run"), "release": strict})
    with pytest.raises(BundleError, match=r"differs from PyTorch by .*release.parity_tolerance"):
        release(config)
    assert not (tmp_path / "run" / "registry").exists()
    assert not (tmp_path / "run" / "release" / "bundle" / "bundle.json").exists()


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_a_model_too_large_for_one_file_is_refused_before_any_work(copied: RunConfig, name: str) -> None:
    bundle = copied.folder / "release" / "bundle" / "bundle.json"
    with open(copied.folder / name / "model.safetensors", "ab") as file:
        file.truncate(2_000 * 2**20)  # takes no room on disk
    with pytest.raises(BundleError, match=rf"{name}/model.safetensors holds 2,000 MB of weights. At most 1,536 MB"):
        release(copied, redo=True)
    assert bundle.is_file()


def test_another_config_is_refused(copied: RunConfig) -> None:
    shorter = copied.release.model_copy(update={"max_tokens": 23})  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="max_tokens: 24 -> 23"):
        release(copied.model_copy(update={"release": shorter}))


def test_a_worse_release_is_archived(copied: RunConfig) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(copied.folder / "finetune" / "model.safetensors")
    weights["head.weight"] = -weights["head.weight"]
    save_file(weights, copied.folder / "finetune" / "model.safetensors")
    release(copied, redo=True)
    states = [version.state for version in model_registry.read_registry(copied.folder).versions]
    assert states == ["production", "archived"]
    assert "macro-F1" in model_registry.read_registry(copied.folder).versions[1].reason


def test_classes_that_a_release_takes_away_are_told(copied: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """An update had learnt them; on rows of the other classes alone the release was no worse."""
    folder = copied.folder / "release" / "bundle"
    said = read_json(folder / BUNDLE)
    facts = {name: said[name] for name in said if name not in ("tasks", "files", "sizes", "content_hash", "created")}
    version = model_registry.register(
        copied.folder, write_bundle(folder, {**facts, "classes": [*said["classes"], "sound"]}).folder, {}
    )
    model_registry.promote(copied.folder, version)
    write_bundle(folder, {**facts, "number": 3})
    (copied.folder / "release" / "manifest.json").unlink()
    release(copied)
    assert "version 3 lacks classes that version 2 has: sound. " in capsys.readouterr().err


def test_a_missing_stage_is_named(released: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="raysl prepare"):
        release(released.model_copy(update={"run_dir": str(tmp_path / "empty")}))


def test_a_gpt_without_a_classifier_generates_and_embeds(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = released_gpt_run(tmp_path_factory.getbasetemp())
    bundle = open_bundle(model_registry.production(config.folder)[1])
    assert bundle.tasks == ("embed", "generate")
    assert bundle.manifest["parity"]["generator.onnx"]["max_difference"] < 1e-4
    reference = pq.read_table(bundle.path("reference.parquet"))
    assert set(reference["prediction"].to_pylist()) == {None}
    assert len(reference["embedding"][0]) == 16


def test_a_gpt_generates_within_its_context_where_longer_texts_are_read(tmp_path: Path) -> None:
    config = make_gpt_run(tmp_path / "run")
    release(config.model_copy(update={"release": config.release.model_copy(update={"max_tokens": 64})}))  # type: ignore[union-attr]
    session = BundleSession.open(config.folder / "release" / "bundle")
    assert (session.max_tokens, session.context_length) == (64, 16)
    long = "socket packet port " * 50
    (response,) = Generate(session, GenerateConfig()).predict([GenerateRequest(text=long, max_tokens=60)])
    assert response.num_tokens <= 15
    (response,) = Generate(session, GenerateConfig()).predict([GenerateRequest(text=long, max_tokens=1)])
    assert response.num_tokens <= 1
    assert session.tokenize([long]).shape == (1, 64)
    assert np.isfinite(session.embed([long])).all()


def test_macro_f1_is_over_the_known_classes_alone() -> None:
    labels, predictions = ["a", "a", "b", "other", None], ["a", "b", "b", "a", "a"]
    assert figures(labels, predictions, ["a", "b", "c"]) == {
        "macro_f1": pytest.approx(2 / 3), "accuracy": pytest.approx(2 / 3), "rows": 3,
    }  # fmt: skip


def few_labels(config: RunConfig) -> None:
    """Leaves one label in ten to the prepared documents."""
    for path in (config.folder / "prepare" / "documents").glob("*.parquet"):
        table = pq.read_table(path)
        labels = [label if place % 10 == 0 else None for place, label in enumerate(table["label"].to_pylist())]
        pq.write_table(table.set_column(2, "label", pa.array(labels, pa.string())), path)


def test_of_few_labels_a_release_is_measured_and_compared_on_all_that_it_may_read(
    copied: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_labels(copied)
    rows = {"release": copied.release.model_copy(update={"reference_rows": 4})}  # type: ignore[union-attr]
    parts = _ingredients(copied.model_copy(update=rows))
    labels = [*parts.held_out["label"].to_pylist(), *parts.labelled["label"].to_pylist()]
    assert len(parts.held_out) == sum(label is not None for label in labels) == 4
    compared: list[pa.Table] = []
    monkeypatch.setattr("raysl.release.release.macro_f1", lambda bundle, table, classes: compared.append(table) or 0.0)
    bundle = open_bundle(copied.folder / "release" / "bundle")
    assert _loss_to_production(copied.model_copy(update=rows), bundle, bundle) == 0.0
    assert [(len(table), table["label"].null_count) for table in compared] == [(4, 0)] * 2


def test_metrics_and_temperature_are_of_labelled_rows_beyond_the_window_too(copied: RunConfig) -> None:
    bundle = open_bundle(copied.folder / "release" / "bundle")
    rows = pq.read_table(bundle.path(REFERENCE), columns=["id", "text", "label"])
    bare = rows.set_column(2, "label", pa.nulls(len(rows), pa.string()))
    found = write_reference(bundle.folder, Runner.of(bundle), bare, rows, bundle.classes)
    assert found["metrics"] == bundle.manifest["metrics"]
    assert found["temperature"] == bundle.manifest["temperature"]
    assert pq.read_table(bundle.folder / REFERENCE)["label"].null_count == len(rows)


def test_forty_rows_that_are_all_right_do_not_make_a_model_sure_of_everything() -> None:
    """Their likelihood grows with the sharpness without end, and the smallest temperature was taken."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 40)
    logits = rng.uniform(0, 1, (40, 3)) + 2.0 * np.eye(3)[truth]
    temperature = fit_temperature(logits.astype(np.float32), [str(number) for number in truth], ["0", "1", "2"])
    assert softmax(logits.astype(np.float32), temperature).max(1).mean() == pytest.approx(1 - 1 / 42, abs=0.01)


def test_overconfident_logits_get_a_temperature_above_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    noisy = np.where(rng.random(400) < 0.7, truth, 1 - truth)  # right 70 % of the time, sure 99.99 %
    logits = np.where(noisy[:, None] == np.arange(2), 10.0, 0.0).astype(np.float32)
    temperature = fit_temperature(logits, [("a", "b")[t] for t in truth], ["a", "b"])
    assert 1 / (1 + np.exp(-10 / temperature)) == pytest.approx((noisy == truth).mean(), abs=0.02)
