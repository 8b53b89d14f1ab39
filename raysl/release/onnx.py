"""Models as ONNX files that read any batch and any length, proven equal to PyTorch on real documents or pictures.

One file each, weights inside. What a file says of its shapes is checked, and then tried: exporters have fixed the batch at
the example's size while promising a free one.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from raysl import storage
from raysl.data.pixels import Pixels
from raysl.errors import BundleError
from raysl.models.encoder import Encoder
from raysl.models.load import WEIGHTS
from raysl.models.text import PAD, Gpt
from raysl.models.vision import ImageFormat
from raysl.release.config import MOST_MB
from raysl.release.runtime import Tokens, open_session, padded

Arrays = list[npt.NDArray[np.float32]]
Axes = Mapping[str, Mapping[int, str]]
VACUOUS = 1e-6
"""Outputs that differ by less between documents prove nothing (a zero head gives a perfect parity of 0.0)."""


@dataclass(frozen=True)
class Parity:
    """Largest difference between ONNX and PyTorch over all outputs, and over how many inputs of which length or side."""

    max_difference: float
    num_cases: int
    longest: int


class EmbedGraph(nn.Module):
    """tokens or pixels -> embedding."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encoder.embed(inputs)


class GenerateGraph(nn.Module):
    """tokens, past keys and values -> logits of the last position, keys, values."""

    def __init__(self, model: Gpt) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, past_keys: Tensor, past_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.forward_cached(tokens, past_keys, past_values)


TOKEN_AXES: Axes = {"tokens": {0: "batch", 1: "length"}}
PIXEL_AXES: Axes = {"pixels": {0: "batch"}}
CACHE_AXES: Axes = {**TOKEN_AXES, "past_keys": {1: "batch", 3: "past"}, "past_values": {1: "batch", 3: "past"}}


def check_size(folder: Path) -> None:
    """BundleError where the trained model of a folder is too large for one file; looks at the size of its weights alone."""
    path = folder / WEIGHTS
    size_mb = path.stat().st_size / 2**20 if path.is_file() else 0.0
    if size_mb > MOST_MB:
        raise BundleError(
            f"{path} holds {size_mb:,.0f} MB of weights. At most {MOST_MB:,} MB (402 million parameters) can be released: "
            f"a larger model does not fit into one ONNX file. Choose a smaller pretrain.model, or use this from {folder}."
        )


def export_on_tokens(model: nn.Module, outputs: Sequence[str], path: Path, opset: int) -> None:
    """Exports a module whose forward reads tokens (batch, length) alone; takes some seconds."""
    example = (torch.full((2, 7), PAD + 5),)  # neither axis of length 0 or 1, which torch.export may take for fixed
    _export(model, example, TOKEN_AXES, outputs, path, opset)


def export_on_pixels(model: nn.Module, image: ImageFormat, outputs: Sequence[str], path: Path, opset: int) -> None:
    """Exports a module whose forward reads bytes (batch, channel, height, width) alone; normalisation lies inside."""
    example = (torch.zeros(2, image.channels, image.size, image.size, dtype=torch.uint8),)
    _export(model, example, PIXEL_AXES, outputs, path, opset)


def export_generator(model: Gpt, path: Path, opset: int) -> None:
    """Exports one step of generation with a cache that may be empty."""
    past = torch.zeros(cache_shape(model, batch=2, past=3))
    example = (torch.full((2, 5), PAD + 5), past, past.clone())
    _export(GenerateGraph(model), example, CACHE_AXES, ("logits", "keys", "values"), path, opset)


def cache_shape(model: Gpt, batch: int, past: int) -> tuple[int, int, int, int, int]:
    config = model.config
    return config.num_layers, batch, config.num_heads, past, config.width // config.num_heads


def _export(
    model: nn.Module, example: tuple[Tensor, ...], axes: Axes, outputs: Sequence[str], path: Path, opset: int
) -> None:
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else a line in raysl.log for each node they look at
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals and about axes that share a name
        program: Any = torch.onnx.export(
            model.eval(), example, input_names=list(axes), dynamic_shapes=tuple(dict(a) for a in axes.values()),
            dynamo=True, opset_version=opset, verbose=False,
        )  # fmt: skip
    _name_outputs(program.model.graph, outputs)
    with storage.atomic_path(path) as temporary:
        program.save(str(temporary), external_data=False)  # else the weights lie in a second file that copies lose
    check_free_axes(path, axes)


def _name_outputs(graph: Any, outputs: Sequence[str]) -> None:
    """Names the outputs; torch calls inner values after operators, and `embedding` would be defined twice."""
    for node in graph.all_nodes():
        for value in node.outputs:
            value.name = f"{value.name}_"
    for name, value in zip(outputs, graph.outputs, strict=True):
        value.name = name


def check_free_axes(path: Path, axes: Axes) -> None:
    """BundleError where the file fixes an axis that has to be free, or keeps its weights elsewhere."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in graph.initializer):
        raise BundleError(f"{path.name} keeps its weights in a second file. Release one below {MOST_MB:,} MB.")
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    for name, free in axes.items():
        for axis, label in free.items():
            if not shapes[name][axis].dim_param:
                raise BundleError(
                    f"{path.name} fixes the {label} of input {name} at {shapes[name][axis].dim_value}. "
                    f"The model branches on its {label}; write it without."
                )


def check_parity(model: nn.Module, path: Path, cases: Sequence[npt.NDArray[Any]], tolerance: float) -> Parity:
    """Compares the file with the module on `cases`, batches of real rows; BundleError above `tolerance`."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    found, expected = [], []
    for batch in cases:
        found.append(session.run(None, {name: batch}))
        with torch.no_grad():
            results = model(torch.from_numpy(batch))
        expected.append([r.numpy() for r in (results if isinstance(results, tuple) else (results,))])
    _check_not_vacuous(path, expected[-1])
    return _judge(path, found, expected, tolerance, max(batch.shape[-1] for batch in cases))


def picture_cases(pictures: Sequence[Pixels]) -> list[Pixels]:
    """Batches (batch, channel, height, width): alone, pairs, and seven spread over all."""
    if len({picture.tobytes() for picture in pictures}) < 2:
        raise BundleError(
            "An export is compared on two different held-out pictures or more. Give prepare.split.validation a larger share."
        )
    spread = [pictures[int(i)] for i in np.linspace(0, len(pictures) - 1, 7)]
    return [np.stack(batch) for batch in ([spread[0]], [spread[3]], spread[2:4], spread[::6], spread)]


def token_cases(rows: Sequence[Tokens], max_tokens: int) -> list[Tokens]:
    """Padded batches: alone, pairs, sevens of mixed lengths, the longest input alone and beside the shortest."""
    ordered = sorted((row[:max_tokens] for row in rows if len(row)), key=len)
    if not ordered:
        raise BundleError("There are no held-out documents to compare on. Give prepare.split.validation a larger share.")
    if len({row.tobytes() for row in ordered}) < 2:
        raise BundleError(
            f"All held-out documents are the same in their first {max_tokens} tokens, so an answer that is the same to all "
            f"would pass for a right one; two different ones are needed. Give prepare.split.validation a larger share."
        )
    longest = np.resize(np.concatenate(ordered), max_tokens)
    spread = [ordered[int(i)] for i in np.linspace(0, len(ordered) - 1, 7)]
    alone = [[ordered[0]], [ordered[len(ordered) // 2]], [ordered[-1]], [longest]]
    return [padded(batch) for batch in [*alone, spread[2:4], spread[::6], [longest, ordered[0]], spread]]


def check_generator_parity(model: Gpt, path: Path, rows: Sequence[Tokens], tolerance: float) -> Parity:
    """Compares one long reading with PyTorch, then the same tokens read in two steps through the cache."""
    session = open_session(path)
    length = model.config.context_length
    text = np.resize(np.concatenate([row for row in rows if len(row)]), 7 * length).reshape(7, length)
    found, expected = [], []
    for batch, first in ((1, 1), (2, length // 2), (7, length - 1), (1, length)):
        past = np.zeros(cache_shape(model, batch, 0), np.float32)
        begin = session.run(None, {"tokens": text[:batch, :first], "past_keys": past, "past_values": past})
        found.append(begin[:1])
        expected.append([_reread(model, text[:batch, :first])])
        if first < length:
            rest = {"tokens": text[:batch, first:], "past_keys": begin[1], "past_values": begin[2]}
            found.append(session.run(None, rest)[:1])
            expected.append([_reread(model, text[:batch])])
    _check_not_vacuous(path, [expected[-1][0].T])
    return _judge(path, found, expected, tolerance, length)


def _reread(model: Gpt, tokens: Tokens) -> npt.NDArray[np.float32]:
    """Logits of the last position, the whole text read at once without a cache."""
    with torch.no_grad():
        vectors = model.encode(torch.from_numpy(np.ascontiguousarray(tokens)))
        return np.asarray(model.vocabulary_logits(vectors[:, -1]).numpy())


def _check_not_vacuous(path: Path, outputs: Arrays) -> None:
    if any(len(output) > 1 and float(np.ptp(output, axis=0).max()) < VACUOUS for output in outputs):
        raise BundleError(
            f"{path.name}: the model answers the same to everything it reads, so its parity proves nothing. Train it."
        )


def _judge(path: Path, found: Sequence[Arrays], expected: Sequence[Arrays], tolerance: float, longest: int) -> Parity:
    pairs = [pair for case in zip(found, expected, strict=True) for pair in zip(*case, strict=True)]
    for output, truth in pairs:
        if output.shape != truth.shape:
            raise BundleError(f"{path.name} answers with shape {output.shape} where PyTorch answers with {truth.shape}.")
    worst = float(np.max([np.abs(output - truth).max() for output, truth in pairs]))
    if not worst <= tolerance:  # so that NaN fails too
        raise BundleError(
            f"{path.name} differs from PyTorch by {worst:.2g}, allowed is release.parity_tolerance={tolerance:g}; "
            f"nothing is released. Try another release.opset, or raise the tolerance if that is good enough."
        )
    return Parity(worst, len(found), longest)
