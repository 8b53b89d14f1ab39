"""Two spans of one document find each other in the batch (DeCLUTR, Giorgi et al., 2021), optionally with hidden words.

The embedding it trains is the one that search and few-label classification use, so seconds of it go a long way.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from raysl.data.shards import RowKind, Tokens
from raysl.errors import ConfigError
from raysl.models.encoder import at_least_float
from raysl.models.text import PAD, TextEncoder
from raysl.models.text import Bert as BertModel
from raysl.objectives.base import Batch, Objective, StepOutput, Uniform, as_tensors
from raysl.objectives.config import ContrastiveTextConfig
from raysl.objectives.contrast import nt_xent_sum, send_views
from raysl.objectives.masking import hidden_places, mask_tokens
from raysl.objectives.views import title_and_span, two_spans


class ContrastiveText(Objective):
    """Rows are whole documents; negatives are all other spans of the global batch."""

    Config = ContrastiveTextConfig
    row_kind: RowKind = "documents"
    encoder_class: ClassVar[type[TextEncoder]] = TextEncoder
    encoder: TextEncoder

    def __init__(self, config: ContrastiveTextConfig, encoder: TextEncoder) -> None:
        super().__init__(config, encoder)
        if config.views == "title":
            self.row_kind = "titled"
        if not isinstance(encoder, BertModel):
            if config.hidden_words_weight:
                raise ConfigError(
                    f"pretrain.objective.hidden_words_weight={config.hidden_words_weight} needs a model that sees both "
                    f"sides of a word, got {type(encoder).__name__}. Choose pretrain.model 'bert', or hidden_words_weight=0."
                )
        elif not config.hidden_words_weight:
            self.leave_out(encoder.head, encoder.head_norm, encoder.head_bias)

    @property
    def min_tokens(self) -> int:
        return 2 * min(8, int(self.config.span_length))

    def collate(self, rows: Sequence[Tokens], uniform: Uniform) -> Batch:
        views = title_and_span if self.row_kind == "titled" else two_spans
        first, second = views(rows, self.config.span_length, uniform(3))
        batch = as_tensors(first=first, second=second) | uniform.together()
        if self.config.hidden_words_weight:
            chosen = max(1, round(uniform.num_rows * self.config.hidden_words_rows))  # the first ones of the global batch
            own = int((uniform.places < chosen).sum())
            masked = first[: max(1, own)]  # of a rank without any a row with nothing hidden: others wait for its gradients
            random = uniform(3 * masked.shape[1])[: len(masked)]
            inputs, labels = mask_tokens(masked, 0.15 if own else 0.0, self.encoder.vocab_size, random)
            batch |= as_tensors(masked=inputs, labels=labels, hidden=hidden_places(labels))
        return batch

    def units(self, batch: Batch) -> int:
        return sum(int((batch[name] != PAD).sum()) for name in ("first", "second", "masked") if name in batch)

    def targets(self, batch: Batch) -> Tensor:
        counts = (2 * len(batch["first"]), len(batch["hidden"]) if "hidden" in batch else 0)
        device = batch["first"].device
        return torch.cat([torch.full((1,), float(count), device=device) for count in counts])  # a list would be copied there

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        views = self.encoder.embed(torch.cat([batch["first"], batch["second"]]))
        first, second = views.chunk(2)
        sent = send_views(first, second, len(batch["together"]))
        words = self._hidden_words(batch) / totals[1].clamp_min(1) if "labels" in batch else None  # meanwhile
        contrast = nt_xent_sum(first, second, sent, self.config.temperature) / totals[0]
        if words is None:
            return StepOutput(contrast, {"contrast": contrast.detach()})
        loss = contrast + self.config.hidden_words_weight * words
        return StepOutput(loss, {"contrast": contrast.detach(), "hidden_words": words.detach()})

    def _hidden_words(self, batch: Batch) -> Tensor:
        encoder = self.encoder
        assert isinstance(encoder, BertModel)  # checked when it was built
        hidden = batch["hidden"]
        logits = encoder.vocabulary_logits(encoder.encode(batch["masked"], at=hidden))
        return F.cross_entropy(at_least_float(logits), batch["labels"].flatten()[hidden], reduction="sum")
