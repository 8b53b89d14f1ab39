"""embed: the vector of a text or a picture, of length one, so that a dot product is the cosine."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raysl.config import PluginConfig
from raysl.serve.tasks import base

if TYPE_CHECKING:
    from raysl.serve.session import BundleSession


class EmbedConfig(PluginConfig):
    """The pretrained encoder."""

    type: str = "embed"


class EmbedResponse(base.Response):
    """An embedding."""

    embedding: list[float]
    """`width` numbers, rounded to 7 digits after the point."""


class Embed(base.Task):
    """The encoder's embedding."""

    name = "embed"
    Config = EmbedConfig
    requests = base.REQUESTS
    Response = EmbedResponse

    def __init__(self, session: "BundleSession", config: EmbedConfig) -> None:
        super().__init__(session, config)
        session.encoder  # noqa: B018  loads now, so that a bundle without an encoder stops the start

    def predict(self, requests: Sequence[base.TextRequest | base.ImageRequest]) -> list[EmbedResponse]:
        embeddings = self.session.embed([request.content for request in requests])
        rounded = np.round(embeddings.astype(np.float64), 7)  # (batch, width)
        return [EmbedResponse(embedding=row) for row in rounded.tolist()]

    def answer(self, request: base.Request, response: EmbedResponse) -> base.Answer:
        """Of a picture the embedding, since the picture itself is not kept; that of a text can be made again."""
        if self.session.reads == "text":
            return super().answer(request, response)
        return base.Answer(embedding=np.array(response.embedding, np.float32))
