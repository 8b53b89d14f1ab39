"""torchvision's layout of ResNet, which timm shares: our names are theirs, and the weights' shapes say all.

Their last layer, `fc`, stays behind and is not written. There is no config.json.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raysl.errors import DataError
from raysl.models.layouts.files import Shapes
from raysl.models.resnet import NUM_BLOCKS, ResNet

MODEL_TYPE = None
DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {(depth == 50, blocks): depth for depth, blocks in NUM_BLOCKS.items()}
STEMS = {3: "small", 7: "large"}
HEAD = "fc."


def sizes(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Keys of our `resnet` model; DataError where the network computes something else."""
    if "conv1.weight" not in shapes or "layer1.0.conv1.weight" not in shapes:
        raise DataError("It holds no ResNet under torchvision's names (conv1.weight, layer1.0.conv1.weight and so on).")
    width, _, side, _ = shapes["conv1.weight"]
    blocks = tuple(len({name.split(".")[1] for name in shapes if name.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4))
    depth = DEPTHS.get(("layer1.0.conv3.weight" in shapes, blocks))
    inner, grouped = shapes["layer1.0.conv1.weight"][0], shapes["layer1.0.conv2.weight"][1]
    if depth is None or side not in STEMS or not inner == grouped == width:
        raise DataError(
            "ResNet is read with depth 18, 34 or 50 and a stem of 3x3 or 7x7; Wide ResNet and ResNeXt are other networks."
        )
    return {"depth": depth, "width": width, "stem": STEMS[side]}


def image(config: Mapping[str, Any], shapes: Shapes) -> dict[str, int]:
    """Keys of `prepare.images` that the weights ask for: the size is free."""
    return {"channels": shapes["conv1.weight"][1]}


def description(encoder: ResNet) -> None:
    """They have none."""


def to_theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The oldest files do not say over how many batches their statistics are."""
    norms = [name.removesuffix("running_mean") for name in state if name.endswith(".running_mean")]
    counts = {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
    return counts | {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
