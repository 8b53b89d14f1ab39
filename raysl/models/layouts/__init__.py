"""Weights as other libraries lay them out: a run may start from theirs, and ours can be taken away.

The layout of a model type is one module here with plain functions over state dicts: `sizes` (their config.json -> the
keys of our model config), `description` (an encoder -> their config.json), `to_theirs` and `to_ours` (weights).
"""

import importlib
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raysl import storage
from raysl.errors import DataError

LAYOUTS = {
    "bert": "raysl.models.layouts.bert", "gpt": "raysl.models.layouts.gpt2", "vit": "raysl.models.layouts.vit",
}  # fmt: skip
"""Model type -> module of its layout."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"

State = dict[str, Tensor]


def layout_of(model_type: str) -> Any | None:
    """The layout's module; None where nobody else has this model."""
    return importlib.import_module(LAYOUTS[model_type]) if model_type in LAYOUTS else None


def export(encoder: nn.Module, folder: Path) -> bool:
    """Writes config.json and model.safetensors that `transformers` reads; False where the type has no layout.

    Each file is whole or absent. Tied weights stand once.
    """
    layout = layout_of(cast(Any, encoder).config.type)
    if layout is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    theirs = {name: tensor.contiguous() for name, tensor in layout.to_theirs(encoder.state_dict()).items()}
    with storage.atomic_path(folder / WEIGHTS) as temporary:
        save_file(theirs, temporary, metadata={"format": "pt"})
    storage.write_json(folder / CONFIG, layout.description(encoder))
    return True


def read_sizes(folder: Path, model_type: str) -> dict[str, Any]:
    """Keys of our model config that fit the weights in `folder`; DataError where they are of another kind."""
    layout, path = layout_of(model_type), folder / CONFIG
    if layout is None:
        raise DataError(f"Model '{model_type}' cannot start from weights of others. Choose from {', '.join(LAYOUTS)}.")
    if not (path.is_file() and (folder / WEIGHTS).is_file()):
        raise DataError(f"{folder} needs {CONFIG} and {WEIGHTS}, as `save_pretrained` of transformers writes them.")
    theirs = storage.read_json(path)
    kind = theirs.get("model_type")
    if kind != layout.MODEL_TYPE:
        raise DataError(f"{path} says model_type '{kind}'; model '{model_type}' reads '{layout.MODEL_TYPE}'.")
    return dict(layout.sizes(theirs))


def read_weights(folder: Path, model_type: str) -> State:
    """Weights of `folder` under our names, with their vocabulary."""
    layout = cast(Any, layout_of(model_type))
    return dict(layout.to_ours(load_file(folder / WEIGHTS)))


def renamed(state: State, names: dict[str, str]) -> State:
    """The tensors called `names.keys()` under `names.values()`; others are left out."""
    return {new: state[old] for old, new in names.items() if old in state}
