"""What sits on an encoder after pretraining."""

from torch import Tensor, nn

from raysl.models.encoder import Encoder


class Classifier(nn.Module):
    """A linear layer on the normalised embedding."""

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, num_classes)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, classes) and the embedding (batch, width) they come from."""
        embedding = self.encoder.embed(inputs)
        return self.head(embedding), embedding
