"""generate: a text, continued token by token with a KV cache."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysl.config import PluginConfig
from raysl.serve.tasks import base

if TYPE_CHECKING:
    from raysl.serve.session import TextSession

MAX_NEW_TOKENS = 512


class GenerateConfig(PluginConfig):
    """The pretrained decoder."""

    type: str = "generate"


class GenerateRequest(base.Request):
    """The beginning of a text and how to go on."""

    text: base.Beginning
    """The text; of a long one the end is read, at least half of the model's context."""
    max_tokens: int = Field(64, ge=1, le=MAX_NEW_TOKENS)
    """Tokens to add at most; with the text they fit the context of the model."""
    temperature: float = Field(0.8, ge=0, le=10)
    """0 takes the most probable token each time; 1 draws as the model says."""
    top_k: int = Field(50, ge=0)
    """Most probable tokens that are drawn from; 0 draws from all."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """Equal seeds give equal texts."""


class GenerateResponse(base.Response):
    """What follows the text."""

    text: str
    num_tokens: int
    """Tokens that were added."""


class Generate(base.Task):
    """One request at a time: each new token costs one pass of the model over one token."""

    name = "generate"
    Config = GenerateConfig
    Request = GenerateRequest
    Response = GenerateResponse
    max_batch_size = 1
    session: "TextSession"

    def __init__(self, session: "TextSession", config: GenerateConfig) -> None:
        super().__init__(session, config)
        shapes = {value.name: value.shape for value in session.generator.get_inputs()}
        layers, _, heads, _, head_width = shapes["past_keys"]
        self.empty = np.zeros((layers, 1, heads, 0, head_width), np.float32)  # (layers, batch, heads, past, head width)

    def predict(self, requests: Sequence[GenerateRequest]) -> list[GenerateResponse]:
        return [self._continue(request) for request in requests]

    def _continue(self, request: GenerateRequest) -> GenerateResponse:
        context = self.session.context_length
        prompt = self.session.last_ids(request.text, context - min(request.max_tokens, context // 2))
        new = self._ids(prompt, min(request.max_tokens, context - len(prompt)), request)
        return GenerateResponse(text=self.session.decode(new), num_tokens=len(new))

    def _ids(self, prompt: list[int], num_new: int, request: GenerateRequest) -> list[int]:
        from raysl.release.runtime import SEP

        random = np.random.default_rng(request.seed)
        tokens, keys, values = np.array([prompt], np.int64), self.empty, self.empty
        new: list[int] = []
        while len(new) < num_new:
            past = {"tokens": tokens, "past_keys": keys, "past_values": values}
            logits, keys, values = self.session.generator.run(["logits", "keys", "values"], past)
            choice = choose(logits[0], request.temperature, request.top_k, random)
            if choice == SEP:  # the document ends here
                break
            new.append(choice)
            tokens = np.array([[choice]], np.int64)
        return new

    def example(self) -> dict[str, Any]:
        return {"text": "Return the", "max_tokens": 16}


def choose(logits: NDArray[np.float32], temperature: float, top_k: int, random: np.random.Generator) -> int:
    """The next token (vocab,) -> id: the most probable one at temperature 0, else drawn from the `top_k`."""
    if temperature == 0:
        return int(np.argmax(logits))
    from raysl.release.runtime import softmax

    kept = np.argsort(-logits, kind="stable")[: top_k or len(logits)]
    probabilities = softmax(logits[kept] - logits[kept[0]], max(temperature, 1e-6))
    return int(random.choice(kept, p=probabilities))
