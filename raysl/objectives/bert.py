"""Hidden words (Devlin et al., 2019), with the vocabulary head on the hidden positions only: same loss, less work."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from raysl.data.shards import Tokens
from raysl.data.words import Bools, word_starts
from raysl.errors import DataError
from raysl.models.encoder import at_least_float
from raysl.models.text import SEP
from raysl.models.text import Bert as BertModel
from raysl.objectives.base import Batch, Objective, StepOutput, Uniform, as_tensors, document_borders, document_numbers, pad
from raysl.objectives.config import BertConfig
from raysl.objectives.masking import IGNORED, hidden_places, mask_tokens


class Bert(Objective):
    """Predicts the tokens that were hidden; rows are packed documents that do not see each other."""

    Config = BertConfig
    encoder_class: ClassVar[type[BertModel]] = BertModel
    encoder: BertModel

    def __init__(self, config: BertConfig, encoder: BertModel) -> None:
        super().__init__(config, encoder)
        self.leave_out(encoder.pool_weight)
        self.word_starts: Bools | None = None

    def look_up(self, file: Callable[[str], Path]) -> None:
        if self.config.whole_words:
            self.word_starts = word_starts(file("tokenizer.json"))

    def collate(self, rows: Sequence[Tokens], uniform: Uniform) -> Batch:
        tokens = pad(rows, self.row_length)
        if self.config.whole_words and self.word_starts is None:
            raise DataError("whole_words needs the prepared tokenizer; call look_up first.")
        random = uniform(3 * self.row_length)
        inputs, labels = mask_tokens(tokens, self.config.mask_share, self.encoder.vocab_size, random, self.word_starts)
        documents = document_numbers(tokens, SEP)
        borders, hidden = document_borders(documents), hidden_places(labels)
        return as_tensors(tokens=inputs, labels=labels, documents=documents, borders=borders, hidden=hidden)

    def targets(self, batch: Batch) -> Tensor:
        return (batch["labels"] != IGNORED).sum().float()[None]

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        hidden = batch["hidden"]
        vectors = self.encoder.encode(batch["tokens"], batch["documents"], hidden, batch.get("borders"))  # (hidden, width)
        logits = self.encoder.vocabulary_logits(vectors)
        loss = F.cross_entropy(at_least_float(logits), batch["labels"].flatten()[hidden], reduction="sum")
        loss = loss / totals[0].clamp_min(1)
        return StepOutput(loss, {"hidden_words": loss.detach()})
