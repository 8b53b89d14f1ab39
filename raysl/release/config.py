"""Settings of `release`."""

from pydantic import Field

from raysl.config import Config

MOST_MB = 1536
"""Weights of a model that is released, MB of 1,048,576 bytes: of a larger one torch writes them into a second file."""


class ReleaseConfig(Config):
    """ONNX export, its proof, and the version's place in the model registry."""

    parity_tolerance: float = Field(1e-4, gt=0)
    """Largest difference allowed between ONNX and PyTorch outputs; a bundle above it is not released."""
    opset: int = Field(20, ge=17)
    """ONNX operator set."""
    max_tokens: int = Field(512, ge=8)
    """Longest text the served model reads, in tokens; longer ones are cut. `finetune.max_tokens` are what its classifier
    was trained on. No meaning for pictures."""
    search_documents: int = Field(50_000, ge=0)
    """Prepared documents or pictures put into the search index, the first ones; 0 leaves search out."""
    reference_rows: int = Field(1000, ge=50)
    """Held-out rows whose inputs, confidences and speed are kept as the window that `monitor` compares with."""
