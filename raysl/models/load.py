"""Models on disk: weights in safetensors, the rest in model.json beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raysl import storage
from raysl.catalog import MODELS
from raysl.config import PluginConfig
from raysl.errors import DataError, StageError
from raysl.models.encoder import Encoder
from raysl.models.heads import Classifier
from raysl.models.vision import ImageFormat

WEIGHTS, DESCRIPTION, CLASSES = "model.safetensors", "model.json", "classes.json"


def build(model: PluginConfig, data: int | ImageFormat) -> Encoder:
    """The network a config describes, with fresh weights drawn from torch's current seed.

    `data` is the number of tokens of a text encoder, or the format of an image encoder's pixels.
    """
    return cast(Encoder, MODELS.load(model.type)(model, data))


def save(model: nn.Module, folder: Path, description: dict[str, Any]) -> None:
    """Writes weights and description; each file is whole or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    with storage.atomic_path(folder / WEIGHTS) as temporary:
        save_file(apart(model.state_dict()), temporary)
    storage.write_json(folder / DESCRIPTION, description)


def apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each in memory of its own: tied weights under two names are two in a file, which safetensors refuses otherwise."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in weights.items():
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in taken else tensor.contiguous()
        taken.add(memory)
    return found


def describe(encoder: Encoder, **more: Any) -> dict[str, Any]:
    """What model.json holds."""
    return {"model": encoder.config.model_dump(mode="json"), **encoder.facts, **more}


def load_encoder(folder: str | Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a pretrain or finetune folder, in evaluation mode, and its model.json."""
    description = _description(Path(folder))
    encoder = fresh(description)
    weights = load_file(Path(folder) / WEIGHTS)
    if (Path(folder) / CLASSES).is_file():
        weights = {name.removeprefix("encoder."): w for name, w in weights.items() if name.startswith("encoder.")}
    encoder.load_state_dict(weights)
    return encoder.eval(), description


def load_classifier(folder: str | Path) -> tuple[Classifier, list[str]]:
    """The fine-tuned classifier of a folder, in evaluation mode, and its class names in the order of the logits."""
    path = Path(folder) / CLASSES
    if not path.is_file():
        raise StageError(f"{folder} holds no classifier. Run `raysl finetune` first.")
    classes = list(storage.read_json(path)["classes"])
    classifier = Classifier(fresh(_description(Path(folder))), len(classes))
    classifier.load_state_dict(load_file(Path(folder) / WEIGHTS))
    return classifier.eval(), classes


def _description(folder: Path) -> dict[str, Any]:
    if not (folder / WEIGHTS).is_file():
        raise DataError(f"{folder} holds no model ({WEIGHTS} is missing). Run `raysl pretrain` first.")
    return storage.read_json(folder / DESCRIPTION)


def fresh(description: Mapping[str, Any]) -> Encoder:
    """A network of the described shape with weights drawn from torch's current seed."""
    config = MODELS.config(description["model"]["type"]).model_validate(description["model"])
    image = description.get("image")
    return build(config, int(description["vocab_size"]) if image is None else ImageFormat.of(image))
