"""From trained models to the files of a bundle; every export is proven before the next step starts."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

import raysl
from raysl import schema
from raysl.models.load import load_classifier, load_encoder
from raysl.models.text import Gpt, TextEncoder
from raysl.progress import Progress
from raysl.release import onnx
from raysl.release.bundle import CLASSIFIER, ENCODER, GENERATOR, TOKENIZER, Bundle, write_bundle
from raysl.release.config import ReleaseConfig
from raysl.release.reference import write_reference
from raysl.release.runtime import Floats, Runner, Tokens
from raysl.release.search import write_search

PARITY_ROWS = 200


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
    documents: pa.Table | None
    """Rows (id, text, label) to search in; None leaves search out."""
    embedded: Floats | None = None
    """Embeddings of the first documents, where this encoder has made them before."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Anything else bundle.json shall say."""


def build_bundle(folder: Path, parts: Ingredients, config: ReleaseConfig) -> Bundle:
    """Makes a sealed bundle in `folder`; BundleError, and no bundle.json, where an export differs from its model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(parts.tokenizer, folder / TOKENIZER)
    runner = Runner(folder, config.max_tokens)
    rows = runner.to_rows(parts.held_out[schema.TEXT].slice(0, PARITY_ROWS).to_pylist())
    encoder, description = load_encoder(parts.encoder)
    classifier, classes = load_classifier(parts.classifier) if parts.classifier else (None, [])
    parity = _export_all(folder, encoder, classifier, rows, config)
    if parts.documents is not None:
        write_search(folder, runner, parts.documents, parts.embedded)
    found = write_reference(folder, runner, parts.held_out, classes)
    return write_bundle(
        folder,
        {
            **parts.facts, **found, "classes": classes, "max_tokens": config.max_tokens, "width": encoder.width,
            "context_length": encoder.config.context_length, "objective": description.get("objective"),
            "parity": {name: asdict(result) for name, result in parity.items()}, "versions": versions(),
        },
    )  # fmt: skip


def _export_all(
    folder: Path, encoder: TextEncoder, classifier: nn.Module | None, rows: list[Tokens], config: ReleaseConfig
) -> dict[str, onnx.Parity]:
    graphs: dict[str, tuple[nn.Module, list[str]]] = {ENCODER: (onnx.EmbedGraph(encoder), ["embedding"])}
    if classifier is not None:
        graphs[CLASSIFIER] = (classifier, ["logits", "embedding"])
    total = len(graphs) + isinstance(encoder, Gpt)
    parity = {}
    with Progress("release: export", total=total, unit="models") as progress:
        for name, (graph, outputs) in graphs.items():
            onnx.export_on_tokens(graph, outputs, folder / name, config.opset)
            parity[name] = onnx.check_parity(graph, folder / name, rows, config.max_tokens, config.parity_tolerance)
            progress.advance(1, f"{name} differs by {parity[name].max_difference:.1e}")
        if isinstance(encoder, Gpt):
            onnx.export_generator(encoder, folder / GENERATOR, config.opset)
            parity[GENERATOR] = onnx.check_generator_parity(encoder, folder / GENERATOR, rows, config.parity_tolerance)
            progress.advance(1, f"{GENERATOR} differs by {parity[GENERATOR].max_difference:.1e}")
    return parity


def versions() -> dict[str, str]:
    """Versions of what made the files."""
    return {
        "raysl": raysl.__version__,
        **{name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "tokenizers")},
    }
