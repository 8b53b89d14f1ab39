"""Transformer blocks (Vaswani et al., 2017), in the two arrangements that BERT and GPT-2 use.

Parameter names and shapes map one to one on Hugging Face's, so weights travel both ways.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.models.gelu import gelu
from raysl.models.spans import Spans, attend_within


@dataclass(frozen=True)
class BlockStyle:
    """What differs between the two families."""

    pre_norm: bool
    """Normalize before each layer (GPT-2) or after each sum (BERT)."""
    gelu: str
    """Form of GELU: `tanh` (GPT-2) or `none` (exact, BERT)."""
    norm_eps: float


BERT_STYLE = BlockStyle(pre_norm=False, gelu="none", norm_eps=1e-12)
GPT_STYLE = BlockStyle(pre_norm=True, gelu="tanh", norm_eps=1e-5)


SHORT = 128
"""Row length up to which plain matrix products train faster in bf16 on a CPU than torch's fused attention."""


def short_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention in plain products; `mask` is added to the scores.

    Forward and backward of torch's fused attention on CPU take 3 to 6 times as long in bf16 (torch 2.13); in fp32 it is
    the faster one.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (batch, heads, queries, keys)
    if mask is not None:
        scores = scores + mask
    return F.dropout(scores.softmax(-1), dropout) @ v


def as_bias(visible: Tensor, like: Tensor) -> Tensor:
    """0 where a query may look and -inf elsewhere, in the type that products of `like` have: built once for all layers."""
    device = like.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype
    return torch.zeros(visible.shape, dtype=dtype, device=like.device).masked_fill(~visible, float("-inf"))


Visible = Tensor | Spans | None
"""What a query may look at: True or added to the scores (batch, 1, queries, keys), documents, or everything."""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, self.num_heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return q, k, v  # (batch, heads, length, head width)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Visible, causal: bool = False) -> Tensor:
        """What each query takes from the values, heads side by side (batch, queries, width), before the output layer."""
        dropout = self.dropout if self.training else 0.0
        if isinstance(mask, Spans):
            return attend_within(q, k, v, mask, causal)
        if q.device.type == "cpu" and q.requires_grad and q.dtype == torch.bfloat16 and q.shape[2] <= SHORT:
            mask = as_bias(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(), q) if causal else mask
            y = short_attention(q, k, v, mask, dropout)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, mask: Visible, causal: bool = False) -> Tensor:
        out: Tensor = self.out(self.attend(*self.split(x), mask, causal))
        return out


class Block(nn.Module):
    """Attention and feed-forward layer, each with a residual connection."""

    def __init__(self, width: int, num_heads: int, feedforward_width: int, dropout: float, style: BlockStyle) -> None:
        super().__init__()
        self.style = style
        self.attention = Attention(width, num_heads, dropout)
        self.norm1 = nn.LayerNorm(width, eps=style.norm_eps)
        self.up = nn.Linear(width, feedforward_width)
        self.down = nn.Linear(feedforward_width, width)
        self.norm2 = nn.LayerNorm(width, eps=style.norm_eps)
        self.dropout = nn.Dropout(dropout)

    def feedforward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.down(gelu(self.up(x), self.style.gelu)))
        return out

    def forward(self, x: Tensor, mask: Visible, causal: bool = False, at: Tensor | None = None) -> Tensor:
        """Vectors (batch, length, width); with `at` (places,) only those, counted through row after row (places, width).

        Every place is still attended to, so the vectors are the same; output and feed-forward layers do less work.
        """
        pre = self.style.pre_norm
        y = self.attention.attend(*self.attention.split(self.norm1(x) if pre else x), mask, causal)
        if at is not None:
            x, y = x.flatten(0, 1)[at], y.flatten(0, 1)[at]
        x = x + self.dropout(self.attention.out(y))
        if pre:
            return x + self.feedforward(self.norm2(x))
        x = self.norm1(x)
        out: Tensor = self.norm2(x + self.feedforward(x))
        return out

    def forward_cached(self, x: Tensor, past_key: Tensor, past_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of generation (pre-norm only): new positions see all past ones and themselves in order."""
        q, k, v = self.attention.split(self.norm1(x))
        keys, values = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
        new, total = q.shape[2], keys.shape[2]
        steps = torch.arange(total, device=x.device)
        mask = steps[None, :] <= (steps[total - new :])[:, None]  # (new, total)
        x = x + self.attention.out(self.attention.attend(q, keys, values, mask))
        return x + self.feedforward(self.norm2(x)), keys, values


def initialize(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights of `std`, zero biases, unit norms: what BERT and GPT-2 start from."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
