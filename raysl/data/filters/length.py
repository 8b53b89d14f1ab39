"""Documents that are too short or too long, in characters."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.schema import TEXT


class LengthConfig(PluginConfig):
    """Bounds of a document's length."""

    type: str = "length"
    min_chars: int = Field(1, ge=0)
    """Characters a document needs."""
    max_chars: int = Field(1_000_000, ge=1)
    """Characters a document may have."""

    @model_validator(mode="after")
    def _leave_room(self) -> "LengthConfig":
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars must not exceed max_chars, got {self.min_chars} > {self.max_chars}")
        return self


class Length(Filter):
    """Counts code points after normalization."""

    Config: ClassVar[type[PluginConfig]] = LengthConfig
    config: LengthConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        chars = np.asarray(pc.utf8_length(batch[TEXT]))
        return {"too_short": chars >= self.config.min_chars, "too_long": chars <= self.config.max_chars}
