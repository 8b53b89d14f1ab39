"""Weights as other libraries lay them out: a run may start from theirs, and ours can be taken away.

The layout of a model type is one module here with plain functions: `sizes` (their config.json and the shapes of their
weights -> the keys of our model config), `image` (likewise, -> the keys of `prepare.images`; where it reads pictures),
`description` (an encoder -> their config.json), `to_theirs` and `to_ours` (weights). `MODEL_TYPE` is what their config.json
calls the model, None where they have no such file.
"""

import importlib
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raysl import storage
from raysl.errors import DataError
from raysl.models.layouts.files import CONFIG, WEIGHTS, Shapes, read_object, read_shapes, reading

LAYOUTS = {
    "bert": "raysl.models.layouts.bert", "gpt": "raysl.models.layouts.gpt2", "vit": "raysl.models.layouts.vit",
    "resnet": "raysl.models.layouts.torchvision",
}  # fmt: skip
"""Model type -> module of its layout."""

State = dict[str, Tensor]


def layout_of(model_type: str) -> Any | None:
    """The layout's module; None where nobody else has this model."""
    return importlib.import_module(LAYOUTS[model_type]) if model_type in LAYOUTS else None


def export(encoder: nn.Module, folder: Path) -> bool:
    """Writes model.safetensors and, where they have one, config.json; False where the type has no layout.

    `transformers` reads them, or torchvision. Each file is whole or absent. Tied weights stand once.
    """
    layout = layout_of(cast(Any, encoder).config.type)
    if layout is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    theirs = {name: tensor.contiguous() for name, tensor in layout.to_theirs(encoder.state_dict()).items()}
    with storage.atomic_path(folder / WEIGHTS) as temporary:
        save_file(theirs, temporary, metadata={"format": "pt"})
    description = layout.description(encoder)
    if description is not None:
        storage.write_json(folder / CONFIG, description)
    return True


def read_sizes(folder: Path, model_type: str) -> dict[str, Any]:
    """Keys of our model config that fit the weights in `folder`; DataError where they are of another kind."""
    layout = layout_of(model_type)
    if layout is None:
        raise DataError(f"Model '{model_type}' cannot start from weights of others. Choose from {', '.join(LAYOUTS)}.")
    heads = _heads(folder, model_type, layout.MODEL_TYPE)
    with reading(folder / (CONFIG if layout.MODEL_TYPE else WEIGHTS)):
        return dict(layout.sizes(*heads))


def read_names(folder: Path, model_type: str) -> State:
    """The weights of `folder` under our names, of their shapes but without numbers; DataError where one is missing."""
    shapes, layout = read_shapes(folder / WEIGHTS), cast(Any, layout_of(model_type))
    with reading(folder / WEIGHTS):
        return dict(layout.to_ours({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}))


def read_image(folder: Path, model_type: str) -> dict[str, int]:
    """Keys of `prepare.images` that the weights in `folder` ask for; DataError as above."""
    layout = cast(Any, layout_of(model_type))
    return dict(layout.image(*_heads(folder, model_type, layout.MODEL_TYPE)))


def _heads(folder: Path, model_type: str, kind: str | None) -> tuple[dict[str, Any], Shapes]:
    """What config.json says, where the layout has one, and the shapes of the weights."""
    path = folder / CONFIG
    if kind is None:
        if not (folder / WEIGHTS).is_file():
            raise DataError(f"{folder} needs {WEIGHTS}: `safetensors.torch.save_file(model.state_dict(), ...)`.")
        return {}, read_shapes(folder / WEIGHTS)
    if (folder / f"{WEIGHTS}.index.json").is_file() and not (folder / WEIGHTS).is_file():
        raise DataError(
            f"{folder} has its weights in several files. Save them in one: "
            f"`model.save_pretrained(folder, max_shard_size='1TB')` of transformers."
        )
    if not (path.is_file() and (folder / WEIGHTS).is_file()):
        raise DataError(f"{folder} needs {CONFIG} and {WEIGHTS}, as `save_pretrained` of transformers writes them.")
    theirs = read_object(path)
    said = theirs.get("model_type")
    if said != kind:
        raise DataError(f"{path} says model_type '{said}'; model '{model_type}' reads '{kind}'.")
    return theirs, read_shapes(folder / WEIGHTS)


def read_weights(folder: Path, model_type: str) -> State:
    """Weights of `folder` under our names, with their vocabulary."""
    layout = cast(Any, layout_of(model_type))
    return dict(layout.to_ours(load_file(folder / WEIGHTS)))


def renamed(state: State, names: dict[str, str]) -> State:
    """The tensors called `names.keys()` under `names.values()`; others are left out."""
    return {new: state[old] for old, new in names.items() if old in state}
