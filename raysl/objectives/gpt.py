"""Next word (Radford et al., 2019): every token is predicted from those before it in its own document."""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from raysl.data.shards import Tokens
from raysl.models.encoder import at_least_float
from raysl.models.text import PAD, SEP
from raysl.models.text import Gpt as GptModel
from raysl.objectives.base import Batch, Objective, StepOutput, Uniform, as_tensors, document_borders, document_numbers, pad
from raysl.objectives.config import GptConfig
from raysl.objectives.masking import IGNORED


class Gpt(Objective):
    """Rows are packed documents; no attention, no position and no target crosses from one to the next."""

    Config = GptConfig
    encoder_class: ClassVar[type[GptModel]] = GptModel
    encoder: GptModel

    def __init__(self, config: GptConfig, encoder: GptModel) -> None:
        super().__init__(config, encoder)
        self.leave_out(encoder.pool_weight)

    @property
    def row_length(self) -> int:
        """One more than the model reads: inputs and labels are the same tokens, shifted."""
        return self.encoder.config.context_length + 1

    def collate(self, rows: Sequence[Tokens], uniform: Uniform) -> Batch:
        tokens = pad(rows, self.row_length)
        documents = document_numbers(tokens, SEP)
        labels = tokens[:, 1:].copy()
        labels[(documents[:, 1:] != documents[:, :-1]) | (labels == PAD)] = IGNORED
        batch = as_tensors(tokens=tokens[:, :-1].copy(), labels=labels)
        if documents[:, -2].any():  # rows of one document each need no mask
            documents = documents[:, :-1].copy()
            batch |= as_tensors(documents=documents, borders=document_borders(documents))
        return batch

    def targets(self, batch: Batch) -> Tensor:
        return (batch["labels"] != IGNORED).sum().float()[None]

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        logits = self.encoder.vocabulary_logits(self._vectors(batch))
        loss = F.cross_entropy(
            at_least_float(logits.flatten(0, 1)), batch["labels"].flatten(), reduction="sum", ignore_index=IGNORED
        )
        loss = loss / totals[0].clamp_min(1)
        return StepOutput(loss, {"next_word": loss.detach()})

    def _vectors(self, batch: Batch) -> Tensor:
        if "documents" in batch:
            return self.encoder.encode(batch["tokens"], batch["documents"], borders=batch.get("borders"))
        return self.encoder.encode_whole(batch["tokens"])
