"""What sits on an encoder after pretraining."""

from torch import Tensor, nn

from raysl.models.text import TextEncoder


class Classifier(nn.Module):
    """A linear layer on the normalised embedding."""

    def __init__(self, encoder: TextEncoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, num_classes)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, classes) and the embedding (batch, width) they come from."""
        embedding = self.encoder.embed(tokens)
        return self.head(embedding), embedding
