"""classify: the label of a text or a picture, with how sure the model is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PrivateAttr

from raysl.config import PluginConfig
from raysl.serve.tasks import base

if TYPE_CHECKING:
    from raysl.serve.session import BundleSession


class ClassifyConfig(PluginConfig):
    """The classifier that `finetune` trained."""

    type: str = "classify"
    num_scores: int = Field(5, ge=1)
    """Classes listed with their probabilities, the most probable first."""


class Score(BaseModel):
    """One class and its probability."""

    label: str
    score: float


class ClassifyResponse(base.Response):
    """The most probable class and those next to it."""

    label: str
    confidence: float
    """Probability of the label, calibrated on held-out rows where the release fitted a temperature."""
    scores: list[Score]
    _embedding: NDArray[np.float32] | None = PrivateAttr(None)


class Classify(base.Task):
    """Softmax over the classifier's logits."""

    name = "classify"
    Config = ClassifyConfig
    requests = base.REQUESTS
    Response = ClassifyResponse

    def __init__(self, session: "BundleSession", config: ClassifyConfig) -> None:
        super().__init__(session, config)
        session.classifier  # noqa: B018  loads now, so that a bundle without a classifier stops the start
        self.num_scores = min(config.num_scores, len(session.classes))

    def predict(self, requests: Sequence[base.TextRequest | base.ImageRequest]) -> list[ClassifyResponse]:
        from raysl.release.runtime import softmax

        result = self.session.classify([request.content for request in requests])
        probabilities = softmax(result.logits, self.session.temperature)  # (batch, classes)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.num_scores]
        rows = zip(order, np.take_along_axis(probabilities, order, axis=1), result.embeddings, strict=True)
        return [self._response(*row) for row in rows]

    def _response(self, places: Any, values: Any, embedding: NDArray[np.float32]) -> ClassifyResponse:
        classes = self.session.classes
        scores = [Score(label=classes[place], score=float(value)) for place, value in zip(places, values, strict=True)]
        response = ClassifyResponse(label=scores[0].label, confidence=scores[0].score, scores=scores)
        response._embedding = embedding
        return response

    def answer(self, request: base.Request, response: ClassifyResponse) -> base.Answer:
        return base.Answer(base.text_of(request), response.label, response.confidence, response._embedding)
