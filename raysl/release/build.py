"""From trained models to the files of a bundle; every export is proven before the next step starts."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

import raysl
from raysl.data.config import RedactConfig
from raysl.data.decode import Decoding
from raysl.data.pixels import Pixels
from raysl.errors import StageError
from raysl.models.encoder import Encoder
from raysl.models.load import load_classifier, load_encoder
from raysl.models.text import Gpt, TextEncoder
from raysl.models.vision import ImageFormat, VisionEncoder
from raysl.progress import Progress
from raysl.release import onnx
from raysl.release.bundle import CLASSIFIER, ENCODER, GENERATOR, SEARCH_EMBEDDINGS, TOKENIZER, Bundle, write_bundle
from raysl.release.config import ReleaseConfig
from raysl.release.reference import write_reference
from raysl.release.runtime import PictureRunner, Runner, TextRunner, Tokens
from raysl.release.search import write_search

PARITY_ROWS = 200
OUTPUTS = {ENCODER: ("embedding",), CLASSIFIER: ("logits", "embedding")}


@dataclass(frozen=True)
class Ingredients:
    """What a bundle is made of."""

    encoder: Path
    """Folder of the pretrained model; what `embed` and `search` answer with."""
    classifier: Path | None
    """Folder of the fine-tuned model, if there is one."""
    held_out: pa.Table
    """Rows (id, label, text or picture) the models have not seen: parity and the monitor's window."""
    labelled: pa.Table
    """Further labelled ones of them, where few of `held_out` have a label: metrics and calibration."""
    documents: pa.Table | None
    """Rows to search in; None leaves search out."""
    tokenizer: Path | None = None
    """The tokenizer of models that read texts."""
    decoding: Decoding | None = None
    """How a picture becomes what models of pictures read."""
    redact: RedactConfig | None = None
    """What `prepare` replaced in every text; a service does the same."""
    previous: Bundle | None = None
    """A bundle of the same encoder whose documents come first in `documents`: its exports and embeddings are taken over."""


def build_bundle(folder: Path, parts: Ingredients, config: ReleaseConfig) -> Bundle:
    """Makes a sealed bundle in `folder`; BundleError, and no bundle.json, where an export differs from its model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    encoder, description = load_encoder(parts.encoder)
    classifier, classes = load_classifier(parts.classifier) if parts.classifier else (None, [])
    taken = _take_over(folder, parts.previous)
    models = _models(encoder, classifier, without=set(taken))
    compared = parts.held_out.slice(0, PARITY_ROWS)
    runner: Runner
    facts: dict[str, Any]
    if isinstance(encoder, VisionEncoder):
        runner, facts = PictureRunner(folder), _facts_of_pictures(parts, encoder)
        parity = _export_on_pixels(folder, models, encoder.image, runner.contents(compared), config)
    else:
        if not isinstance(encoder, TextEncoder):
            kind = type(encoder)
            raise StageError(
                f"{kind.__name__} ({kind.__module__}) derives from neither TextEncoder nor VisionEncoder, and only "
                "those are released."
            )
        assert parts.tokenizer is not None
        shutil.copyfile(parts.tokenizer, folder / TOKENIZER)
        runner, facts = TextRunner(folder, config.max_tokens), _facts_of_texts(parts, encoder, config)
        parity = _export_on_tokens(folder, models, runner.to_rows(runner.contents(compared)), config)
    parity = {**taken, **parity}
    if parts.documents is not None:
        known = parts.previous.path(SEARCH_EMBEDDINGS) if parts.previous else None
        write_search(folder, runner, parts.documents, np.load(known) if known else None)
    found = write_reference(folder, runner, parts.held_out, parts.labelled, classes)
    return write_bundle(
        folder,
        {
            **found, **facts, "classes": classes, "width": encoder.width, "objective": description.get("objective"),
            "parity": {name: asdict(result) for name, result in parity.items()}, "versions": versions(),
        },
    )  # fmt: skip


def _take_over(folder: Path, previous: Bundle | None) -> dict[str, onnx.Parity]:
    """Copies the exports of an encoder that has not changed, with what was proven of them."""
    names = [name for name in (ENCODER, GENERATOR) if previous is not None and previous.has(name)]
    for name in names:
        assert previous is not None
        shutil.copyfile(previous.path(name), folder / name)
    return {name: onnx.Parity(**previous.manifest["parity"][name]) for name in names if previous is not None}


def _facts_of_texts(parts: Ingredients, encoder: TextEncoder, config: ReleaseConfig) -> dict[str, Any]:
    redact = {} if parts.redact is None else {"redact": parts.redact.model_dump(mode="json")}
    return {"max_tokens": config.max_tokens, "context_length": encoder.config.context_length, **redact}


def _facts_of_pictures(parts: Ingredients, encoder: VisionEncoder) -> dict[str, Any]:
    """Raises StageError where requests would be brought to another form than the one that was trained on."""
    how, trained = parts.decoding, encoder.image
    assert how is not None
    if (how.size, how.channels) != (trained.size, trained.channels):
        raise StageError(
            f"prepare.images says {how.size} pixels and {how.channels} channels, and the encoder was trained on "
            f"{trained.size} and {trained.channels}. Set prepare.images as it was for the shards of pretrain.feed.shards."
        )
    return {"decoding": asdict(how)}


def _models(encoder: Encoder, classifier: nn.Module | None, without: set[str]) -> dict[str, nn.Module]:
    """File name -> what is exported into it."""
    models: dict[str, nn.Module] = {ENCODER: onnx.EmbedGraph(encoder)}
    if classifier is not None:
        models[CLASSIFIER] = classifier
    if isinstance(encoder, Gpt):
        models[GENERATOR] = encoder
    return {name: model for name, model in models.items() if name not in without}


def _export_on_tokens(
    folder: Path, models: Mapping[str, nn.Module], rows: list[Tokens], config: ReleaseConfig
) -> dict[str, onnx.Parity]:
    def export(name: str, model: nn.Module) -> onnx.Parity:
        path = folder / name
        if isinstance(model, Gpt):
            onnx.export_generator(model, path, config.opset)
            return onnx.check_generator_parity(model, path, rows, config.parity_tolerance)
        onnx.export_on_tokens(model, OUTPUTS[name], path, config.opset)
        return onnx.check_parity(model, path, onnx.token_cases(rows, config.max_tokens), config.parity_tolerance)

    return _each(models, export)


def _export_on_pixels(
    folder: Path, models: Mapping[str, nn.Module], image: ImageFormat, pictures: Sequence[Pixels], config: ReleaseConfig
) -> dict[str, onnx.Parity]:
    def export(name: str, model: nn.Module) -> onnx.Parity:
        onnx.export_on_pixels(model, image, OUTPUTS[name], folder / name, config.opset)
        return onnx.check_parity(model, folder / name, onnx.picture_cases(pictures), config.parity_tolerance)

    return _each(models, export)


def _each(models: Mapping[str, nn.Module], export: Callable[[str, nn.Module], onnx.Parity]) -> dict[str, onnx.Parity]:
    """Exports and proves every model."""
    parity = {}
    with Progress("release: export", total=len(models), unit="models") as progress:
        for name, model in models.items():
            parity[name] = export(name, model)
            progress.advance(1, f"{name} differs by {parity[name].max_difference:.1e}")
    return parity


def versions() -> dict[str, str]:
    """Versions of what made the files."""
    return {
        "raysl": raysl.__version__,
        **{name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "tokenizers")},
    }
