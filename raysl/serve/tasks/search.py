"""search: the documents of the bundle that mean what a text says, or its pictures that look like a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field

from raysl.config import PluginConfig
from raysl.serve.tasks import base

if TYPE_CHECKING:
    from raysl.serve.session import BundleSession

MAX_LIMIT = 100


class SearchConfig(PluginConfig):
    """Exact search over the documents released with the model."""

    type: str = "search"
    snippet_chars: int = Field(240, ge=1)
    """Characters of a document's beginning that are shown."""


class SearchRequest(base.TextRequest):
    """What to look for."""

    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    """Documents wanted, the nearest first."""


class ImageSearchRequest(base.ImageRequest):
    """What to look for."""

    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    """Pictures wanted, the nearest first."""


class FoundDocument(BaseModel):
    """One document or picture, with its cosine."""

    id: str
    score: float
    label: str | None
    snippet: str
    """The beginning of a document; empty for a picture, whose id says where it lies."""


class SearchResponse(base.Response):
    """The nearest documents or pictures, best first."""

    documents: list[FoundDocument]


class Search(base.Task):
    """Cosine between the embedding of what is asked about and every document's."""

    name = "search"
    Config = SearchConfig
    requests: ClassVar = {"text": SearchRequest, "image": ImageSearchRequest}
    Response = SearchResponse

    def __init__(self, session: "BundleSession", config: SearchConfig) -> None:
        from raysl.serve.index import SearchIndex

        super().__init__(session, config)
        session.encoder  # noqa: B018  loads now, so that a bundle without an encoder stops the start
        self.index = SearchIndex(session.bundle, config.snippet_chars)

    def predict(self, requests: Sequence[SearchRequest | ImageSearchRequest]) -> list[SearchResponse]:
        queries = self.session.embed([request.content for request in requests])
        found = self.index.nearest(queries, [request.limit for request in requests])
        return [SearchResponse(documents=[FoundDocument(**vars(hit)) for hit in hits]) for hits in found]

    def example(self) -> dict[str, Any]:
        about = super().example() if self.session.reads == "image" else {"text": "read a file line by line"}
        return {**about, "limit": 3}
