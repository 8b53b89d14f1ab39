"""The files of a folder of weights."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

CONFIG, WEIGHTS = "config.json", "model.safetensors"

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors of a file, by their names."""


def read_shapes(path: Path) -> Shapes:
    """From the head of the file; no weights are read."""
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (not a dict)
