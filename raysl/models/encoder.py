"""What an encoder is: rows of one modality in, one embedding a row out. It is what remains after pretraining."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Base of all encoders. A subclass is built from (its config, what the data says of itself)."""

    config: Any

    @property
    def width(self) -> int:
        """Numbers of one embedding."""
        raise NotImplementedError

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the data says of itself (`vocab_size`, or `image`), as plain values for model.json."""
        raise NotImplementedError

    def embed(self, inputs: Tensor) -> Tensor:
        """L2-normalised embedding (batch, width) of each row."""
        raise NotImplementedError


def exact(x: Tensor) -> AbstractContextManager[object]:
    """Products of float32 inside are products of float32, under autocast too, which would round them to half precision."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def at_least_float(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x if x.dtype == torch.float64 else x.float()
