"""Text encoders: BERT (Devlin et al., 2019) and GPT-2 (Radford et al., 2019), with one way to an embedding."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.models.config import BertConfig, GptConfig, TransformerConfig
from raysl.models.encoder import Encoder, at_least_float, exact
from raysl.models.gelu import gelu
from raysl.models.spans import Spans, takes_spans
from raysl.models.transformer import BERT_STYLE, GPT_STYLE, Block, BlockStyle, Visible, as_bias, initialize

PAD, UNK, CLS, SEP, MASK = range(5)
"""Ids of the special tokens in every tokenizer that `prepare` trains."""


class TextEncoder(Encoder):
    """Shared by BERT and GPT: token and position embeddings, blocks, and the pooled embedding."""

    config: TransformerConfig
    style: BlockStyle
    causal: bool

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.tokens = nn.Embedding(vocab_size, config.width)
        self.positions = nn.Embedding(config.context_length, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.feedforward_width, config.dropout, self.style)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=self.style.norm_eps)  # after the embeddings (BERT) or the blocks (GPT)
        self.pool_weight = nn.Embedding(vocab_size, 1)  # log weight of each token in the pooled embedding
        initialize(self)
        nn.init.zeros_(self.pool_weight.weight)

    def weigh_tokens(self, document_share: npt.NDArray[np.float64]) -> None:
        """Starts the pooling weights at inverse document frequencies; `document_share` is (vocab,) between 0 and 1."""
        inverse = -np.log(np.maximum(document_share, 1e-6))
        weights = torch.from_numpy(np.log(np.maximum(inverse, 0.1)))
        self.pool_weight.weight.data[:, 0] = weights.to(self.pool_weight.weight)

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def facts(self) -> Mapping[str, int]:
        return {"vocab_size": self.vocab_size}

    def encode(
        self, tokens: Tensor, documents: Tensor | None = None, at: Tensor | None = None, borders: Tensor | None = None
    ) -> Tensor:
        """Contextual vectors (batch, length, width); with `at` (places,) only those, counted row after row (places, width).

        `documents` (batch, length) numbers the documents packed into a row: no token attends to another document and
        positions restart at each. `borders` says the same as Spans does; a GPU attends by them. Without `documents` a row is
        one document, PAD is not attended to, and a document longer than `context_length` is read in windows of that length.
        """
        x = self.tokens(tokens) + self.positions(self._places(tokens, documents))
        if borders is not None and self._takes_spans(x):
            return self._through_blocks(x, Spans(borders, tokens.shape[1]), self.causal, at)
        mask = self._visible(tokens, documents)
        return self._through_blocks(x, as_bias(mask, x) if torch.is_grad_enabled() else mask, False, at)

    def _takes_spans(self, x: Tensor) -> bool:
        """FlashAttention of documents has no dropout."""
        config = self.config
        return not (self.training and config.dropout) and takes_spans(x, config.width // config.num_heads)

    def encode_whole(self, tokens: Tensor) -> Tensor:
        """The same for rows that are one document of at most `context_length` tokens each, none of them PAD: needs no mask.

        A causal model may have PAD at the end of a row, whose vectors then mean nothing.
        """
        return self._through_blocks(self.tokens(tokens) + self.positions.weight[: tokens.shape[1]], None, self.causal)

    def _through_blocks(self, x: Tensor, mask: Visible, causal: bool, at: Tensor | None = None) -> Tensor:
        if not self.style.pre_norm:
            x = self.norm(x)
        for place, block in enumerate(self.blocks, 1):
            x = block(x, mask, causal, at if place == len(self.blocks) else None)
        if at is not None and not len(self.blocks):
            x = x.flatten(0, 1)[at]
        return self.norm(x) if self.style.pre_norm else x

    def _places(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        """The place of each token in its document, or in its window of `context_length` (batch, length)."""
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        if documents is None:
            return (steps % self.config.context_length)[None, :].expand_as(tokens)
        first = torch.ones_like(documents, dtype=torch.bool)
        first[:, 1:] = documents[:, 1:] != documents[:, :-1]
        return steps - torch.where(first, steps, 0).cummax(dim=1).values

    def _visible(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        """Where a query may look (batch, 1, queries, keys)."""
        length = tokens.shape[1]
        steps = torch.arange(length, device=tokens.device)
        if documents is None:
            window = steps // self.config.context_length
            visible = (tokens != PAD)[:, None, None, :] & (window[:, None] == window[None, :])
            visible = visible | torch.eye(length, dtype=torch.bool, device=tokens.device)  # a row of PAD sees itself
        else:
            visible = documents[:, None, :, None] == documents[:, None, None, :]
        if self.causal:
            visible = visible & (steps[:, None] >= steps[None, :])
        return visible

    def embed(self, inputs: Tensor) -> Tensor:
        """L2-normalised embedding of rows of tokens (batch, width): a mean of its vectors, each token with a learned weight.

        The weights play the part of inverse frequencies in SIF (Arora et al., 2017).
        """
        weight = torch.exp(self.pool_weight(inputs)) * (inputs != PAD)[..., None]  # (batch, length, 1)
        vectors = at_least_float(self.encode(inputs))
        with exact(vectors):
            pooled = (weight.transpose(1, 2) @ vectors)[:, 0]  # (batch, width)
        return F.normalize(pooled, dim=-1)


class Bert(TextEncoder):
    """Encoder that sees both sides of a token, with the head that predicts hidden words."""

    style, causal = BERT_STYLE, False

    def __init__(self, config: BertConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.head = nn.Linear(config.width, config.width)
        self.head_norm = nn.LayerNorm(config.width, eps=self.style.norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def vocabulary_logits(self, vectors: Tensor) -> Tensor:
        """Scores of every token (..., vocab) for the given contextual vectors; weights are tied to the embeddings."""
        return F.linear(self.head_norm(gelu(self.head(vectors), "none")), self.tokens.weight, self.head_bias)


class Gpt(TextEncoder):
    """Decoder that predicts the next token; weights of the output are tied to the embeddings."""

    style, causal = GPT_STYLE, True

    def __init__(self, config: GptConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        for block in self.blocks:  # residual layers start smaller the more of them there are (Radford et al., 2019)
            assert isinstance(block, Block)
            for layer in (block.attention.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / (2 * config.num_layers) ** 0.5)

    def vocabulary_logits(self, vectors: Tensor) -> Tensor:
        return F.linear(vectors, self.tokens.weight)

    def forward_cached(self, tokens: Tensor, past_keys: Tensor, past_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of generation: logits of the last position (batch, vocab) and the grown keys and values.

        `past_keys`, `past_values` are (layers, batch, heads, past, head width); past may be 0.
        """
        past = past_keys.shape[3]
        positions = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(positions)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            x, key, value = block.forward_cached(x, past_keys[layer], past_values[layer])  # type: ignore[operator]
            keys.append(key)
            values.append(value)
        return self.vocabulary_logits(self.norm(x[:, -1])), torch.stack(keys), torch.stack(values)
