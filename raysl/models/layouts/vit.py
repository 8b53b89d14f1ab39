"""Hugging Face's layout of ViT (`ViTModel`), without its pooler.

Their first layer is a convolution over (channel, row, column), ours a matrix over (row, column, channel).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raysl.errors import DataError
from raysl.models.layouts.files import Shapes
from raysl.models.vit import VIT_STYLE, Vit

MODEL_TYPE = "vit"
PROJECTION = "embeddings.patch_embeddings.projection"
CLS, POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"
BLOCK = {
    "attention.out": "attention.output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after",
    "up": "intermediate.dense", "down": "output.dense",
}  # fmt: skip
QKV = ("query", "key", "value")
KINDS = ("weight", "bias")


def sizes(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Keys of our `vit` model; DataError where the network computes something else."""
    if config.get("hidden_act", "gelu") != "gelu" or config.get("layer_norm_eps", 1e-12) != VIT_STYLE.norm_eps:
        raise DataError("ViT is read with hidden_act gelu and layer_norm_eps 1e-12 only.")
    if not config.get("qkv_bias", True):
        raise DataError("ViT is read with qkv_bias only.")
    return {
        "num_layers": config["num_hidden_layers"], "width": config["hidden_size"],
        "num_heads": config["num_attention_heads"], "patch_size": config["patch_size"],
        "feedforward_ratio": config["intermediate_size"] / config["hidden_size"],
    }  # fmt: skip


def image(config: Mapping[str, Any], shapes: Shapes) -> dict[str, int]:
    """Keys of `prepare.images` that the weights ask for."""
    return {"size": config.get("image_size", 224), "channels": config.get("num_channels", 3)}


def description(encoder: Vit) -> dict[str, Any]:
    """config.json of `encoder`."""
    config, image = encoder.config, encoder.image
    return {
        "architectures": ["ViTModel"], "model_type": MODEL_TYPE, "image_size": image.size, "num_channels": image.channels,
        "patch_size": config.patch_size, "num_hidden_layers": config.num_layers, "hidden_size": config.width,
        "num_attention_heads": config.num_heads, "intermediate_size": config.feedforward_width, "hidden_act": "gelu",
        "layer_norm_eps": VIT_STYLE.norm_eps, "qkv_bias": True, "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout, "dtype": "float32",
    }  # fmt: skip


def to_theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    theirs = {
        f"{PROJECTION}.weight": _as_convolution(state["patches.weight"]), f"{PROJECTION}.bias": state["patches.bias"],
        CLS: state["cls"][None, None], POSITIONS: state["positions"][None],
        **{f"layernorm.{kind}": state[f"norm.{kind}"] for kind in KINDS},
    }  # fmt: skip
    for layer in range(_num_layers(state, "blocks.")):
        theirs |= {new: state[old] for old, new in _names(layer).items()}
        for kind in KINDS:
            parts = state[f"blocks.{layer}.attention.qkv.{kind}"].chunk(3)
            theirs |= dict(zip(_qkv_names(layer, kind), parts, strict=True))
    return theirs


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Heads and poolers stay behind."""
    state = {name.removeprefix("vit."): tensor for name, tensor in state.items()}
    ours = {
        "patches.weight": state[f"{PROJECTION}.weight"].permute(0, 2, 3, 1).flatten(1),
        "patches.bias": state[f"{PROJECTION}.bias"], "cls": state[CLS][0, 0], "positions": state[POSITIONS][0],
        **{f"norm.{kind}": state[f"layernorm.{kind}"] for kind in KINDS},
    }  # fmt: skip
    for layer in range(_num_layers(state, "encoder.layer.")):
        ours |= {old: state[new] for old, new in _names(layer).items()}
        for kind in KINDS:
            ours[f"blocks.{layer}.attention.qkv.{kind}"] = torch.cat([state[name] for name in _qkv_names(layer, kind)])
    return ours


def _as_convolution(weight: Tensor) -> Tensor:
    """(width, row x column x channel) -> (width, channel, row, column); a patch of 1 or 3 channels is a square."""
    numbers = weight.shape[1]
    channels = 3 if int((numbers / 3) ** 0.5) ** 2 * 3 == numbers else 1
    side = round((numbers / channels) ** 0.5)
    return weight.reshape(len(weight), side, side, channels).permute(0, 3, 1, 2).contiguous()


def _names(layer: int) -> dict[str, str]:
    return {f"blocks.{layer}.{a}.{kind}": f"encoder.layer.{layer}.{b}.{kind}" for a, b in BLOCK.items() for kind in KINDS}


def _qkv_names(layer: int, kind: str) -> list[str]:
    return [f"encoder.layer.{layer}.attention.attention.{part}.{kind}" for part in QKV]


def _num_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
