"""From trained models to the files of a bundle; every export is proven before the next step starts."""

import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import nn

import raysl
from raysl import schema
from raysl.data.config import RedactConfig
from raysl.errors import StageError
from raysl.models.load import load_classifier, load_encoder
from raysl.models.text import Gpt, TextEncoder
from raysl.progress import Progress
from raysl.release import onnx
from raysl.release.bundle import CLASSIFIER, ENCODER, GENERATOR, SEARCH_EMBEDDINGS, TOKENIZER, Bundle, write_bundle
from raysl.release.config import ReleaseConfig
from raysl.release.reference import write_reference
from raysl.release.runtime import Runner, Tokens
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
    tokenizer: Path
    held_out: pa.Table
    """Rows (id, text, label) the models have not seen: parity and the monitor's window."""
    labelled: pa.Table
    """Further labelled ones of them, where few of `held_out` have a label: metrics and calibration."""
    documents: pa.Table | None
    """Rows (id, text, label) to search in; None leaves search out."""
    redact: RedactConfig | None = None
    """What `prepare` replaced in every text; a service does the same."""
    previous: Bundle | None = None
    """A bundle of the same encoder whose documents come first in `documents`: its exports and embeddings are taken over."""


def build_bundle(folder: Path, parts: Ingredients, config: ReleaseConfig) -> Bundle:
    """Makes a sealed bundle in `folder`; BundleError, and no bundle.json, where an export differs from its model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(parts.tokenizer, folder / TOKENIZER)
    runner = Runner(folder, config.max_tokens)
    rows = runner.to_rows(parts.held_out[schema.TEXT].slice(0, PARITY_ROWS).to_pylist())
    encoder, description = load_encoder(parts.encoder)
    if not isinstance(encoder, TextEncoder):
        raise StageError("Only text encoders are released; this one reads images.")
    classifier, classes = load_classifier(parts.classifier) if parts.classifier else (None, [])
    taken = _take_over(folder, parts.previous)
    parity = {**taken, **_export(folder, encoder, classifier, rows, config, skip=set(taken))}
    if parts.documents is not None:
        known = parts.previous.path(SEARCH_EMBEDDINGS) if parts.previous else None
        write_search(folder, runner, parts.documents, np.load(known) if known else None)
    found = write_reference(folder, runner, parts.held_out, parts.labelled, classes)
    return write_bundle(
        folder,
        {
            **found, "classes": classes, "max_tokens": config.max_tokens, "width": encoder.width,
            "context_length": encoder.config.context_length, "objective": description.get("objective"),
            **({} if parts.redact is None else {"redact": parts.redact.model_dump(mode="json")}),
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


def _export(
    folder: Path, encoder: TextEncoder, classifier: nn.Module | None, rows: list[Tokens], config: ReleaseConfig, *,
    skip: set[str],
) -> dict[str, onnx.Parity]:  # fmt: skip
    """Exports and proves every model but those of `skip`."""
    names = [ENCODER] + [CLASSIFIER] * (classifier is not None) + [GENERATOR] * isinstance(encoder, Gpt)
    parity = {}
    with Progress("release: export", total=len(set(names) - skip), unit="models") as progress:
        for name in [name for name in names if name not in skip]:
            path = folder / name
            if name == GENERATOR:
                assert isinstance(encoder, Gpt)
                onnx.export_generator(encoder, path, config.opset)
                parity[name] = onnx.check_generator_parity(encoder, path, rows, config.parity_tolerance)
            else:
                graph = onnx.EmbedGraph(encoder) if name == ENCODER else classifier
                assert graph is not None
                onnx.export_on_tokens(graph, OUTPUTS[name], path, config.opset)
                parity[name] = onnx.check_parity(graph, path, rows, config.max_tokens, config.parity_tolerance)
            progress.advance(1, f"{name} differs by {parity[name].max_difference:.1e}")
    return parity


def versions() -> dict[str, str]:
    """Versions of what made the files."""
    return {
        "raysl": raysl.__version__,
        **{name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "tokenizers")},
    }
