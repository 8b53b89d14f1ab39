"""Attention among packed documents on a GPU by FlashAttention-2 (Dao, 2023): nothing is computed between two documents.

Elsewhere, in fp32 and with dropout a mask says the same.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor

HEAD_WIDTHS = range(8, 257, 8)
"""Head widths that FlashAttention-2 takes."""
AMPERE = (8, 0)


class Spans(NamedTuple):
    """Documents packed into rows, whose places are counted through, row after row."""

    borders: Tensor
    """Where each document starts, and the number of places at the end (documents + 1,), int32."""
    longest: int
    """Places of the longest document at most."""


def takes_spans(x: Tensor, head_width: int) -> bool:
    """Whether it runs here: a GPU from Ampere on, in half precision."""
    return (
        x.device.type == "cuda" and torch.is_autocast_enabled("cuda") and head_width in HEAD_WIDTHS
        and torch.get_autocast_dtype("cuda") in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(x.device) >= AMPERE
    )  # fmt: skip


def attend_within(q: Tensor, k: Tensor, v: Tensor, spans: Spans, causal: bool) -> Tensor:
    """What each query (batch, heads, length, head width) takes from its own document: (batch, length, width)."""
    from torch.nn.attention.varlen import varlen_attn

    batch, _, length, _ = q.shape
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (q, k, v))  # (places, heads, head width)
    borders, longest = spans
    window = (-1, 0) if causal else (-1, -1)
    y = varlen_attn(query, key, value, borders, borders, longest, longest, window_size=window)
    return cast(Tensor, y).view(batch, length, -1)
