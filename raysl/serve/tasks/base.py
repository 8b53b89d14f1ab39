"""What a served task is: a class that turns a list of validated requests into a list of responses.

An ordinary class, tested without HTTP. Its name is the last part of its address: `classify` answers at /v1/classify.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from raysl.config import PluginConfig

if TYPE_CHECKING:  # the driver reads configs without onnxruntime
    from raysl.serve.session import BundleSession

MAX_TEXT_CHARS = "max_text_chars"
"""Key of the validation context that holds serve.max_text_chars."""
REDACT = "redact"
"""Key of the validation context that holds the bundle's RedactConfig, if any."""
DECODING = "decoding"
"""Key of the validation context that holds the bundle's Decoding, where it reads pictures."""


END = "."
"""Stands behind a beginning while it is normalized, so that blanks at its end stay."""


def _check_text(text: str, info: ValidationInfo) -> str:
    """In the form that `prepare` gives every text: line ends, tabs and odd blanks make other tokens.

    Personal data is neither read nor recorded where the model was trained without it.
    """
    return _checked(text, info, "")


def _check_beginning(text: str, info: ValidationInfo) -> str:
    return _checked(text, info, END).removesuffix(END)


def _checked(text: str, info: ValidationInfo, end: str) -> str:
    from raysl.data.redact import redact
    from raysl.data.text import normalize

    context = info.context or {}
    limit, without = context.get(MAX_TEXT_CHARS), context.get(REDACT)
    if limit is not None and len(text) > limit:
        raise PydanticCustomError("long_text", "has more characters than the {limit} allowed", {"limit": limit})
    normal = normalize(text + end)
    if normal == end:
        raise PydanticCustomError("blank_text", "must not be empty or blank")
    return normal if without is None else redact(normal, without)


def _check_image(data: str, info: ValidationInfo) -> NDArray[np.uint8]:
    """(channel, height, width), decoded and resized as `prepare` does it."""
    from raysl.data.images import BadImage

    try:
        file = base64.b64decode(data, validate=True)
    except ValueError:  # binascii.Error, or letters beyond ASCII
        raise PydanticCustomError("no_base64", "must be the bytes of a picture file in base64") from None
    try:
        pixels: NDArray[np.uint8] = (info.context or {})[DECODING].picture(file)
    except BadImage as error:
        raise PydanticCustomError(
            "bad_image", "is no picture that can be read: {reason}", {"reason": error.reason}
        ) from None
    return pixels


Image = Annotated[str, AfterValidator(_check_image), Field(json_schema_extra={"contentEncoding": "base64"})]
"""A picture in base64; once it is validated, its pixels."""
Text = Annotated[str, AfterValidator(_check_text)]
"""A text that is not blank and not longer than serve.max_text_chars."""
Beginning = Annotated[str, AfterValidator(_check_beginning)]
"""The same for a text that goes on: a line end or a blank that it ends with counts."""


class Request(BaseModel):
    """Base of requests: strict types, no unknown fields, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class TextRequest(Request):
    """A request about one text."""

    text: Text
    """The text; what goes beyond the model's max_tokens is not read."""

    @property
    def content(self) -> str:
        """What the model reads."""
        return self.text


class ImageRequest(Request):
    """A request about one picture."""

    image: Image
    """The bytes of a picture file (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or AVIF) in base64."""

    @property
    def content(self) -> Any:
        """What the model reads: pixels (channel, height, width)."""
        return self.image


def text_of(request: Request) -> str:
    """What is recorded of a request in words; of a picture nothing."""
    return str(getattr(request, "text", ""))


ByContent = Mapping[str, type[Request]]
"""What a session reads -> the request."""
REQUESTS: ByContent = {"text": TextRequest, "image": ImageRequest}
"""`Requests` of a task that asks for nothing else."""


class Response(BaseModel):
    """Base of responses."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    request_id: str = ""
    """Names this request in the records; send it back with a label at /v1/feedback."""


@dataclass(frozen=True)
class Answer:
    """What the recorder keeps of a request and its response."""

    text: str = ""
    prediction: str | None = None
    confidence: float | None = None
    embedding: NDArray[np.float32] | None = None


class Task:
    """Base of served tasks. A subclass has `name`, `Config`, `Request` (or `Requests`), `Response` and `predict`."""

    name: ClassVar[str]
    Config: ClassVar[type[PluginConfig]]
    Request: type[Request]
    Requests: ClassVar[ByContent]
    """`Request` by what a session reads, for a task that answers texts and pictures."""
    Response: ClassVar[type[Response]]
    max_batch_size: ClassVar[int | None] = None
    """Requests that one `predict` answers at most, where that is less than serve.max_batch_size."""

    def __init__(self, session: "BundleSession", config: Any) -> None:
        self.session, self.config = session, config
        if not hasattr(self, "Request"):
            self.Request = self.Requests[session.reads]

    def predict(self, requests: Sequence[Any]) -> Sequence[Any]:
        """One response for each request, in their order. Called from one thread at a time."""
        raise NotImplementedError

    def answer(self, request: Any, response: Any) -> Answer:
        """What is recorded; by default the text alone."""
        return Answer(text_of(request))

    def example(self) -> dict[str, Any]:
        """A request that a healthy service answers: the readiness check sends it and `serve` prints it."""
        return example_image() if self.session.reads == "image" else {"text": "Return the absolute value of a number."}


def example_image() -> dict[str, Any]:
    """A small picture of a dark and a bright half."""
    from PIL import Image as Pictures

    file = io.BytesIO()
    Pictures.fromarray(np.kron([[40, 215]], np.ones((8, 4))).astype(np.uint8)).save(file, "PNG")
    return {"image": base64.b64encode(file.getvalue()).decode()}
