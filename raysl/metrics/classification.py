"""Numbers of a classifier: arrays of class numbers in, plain floats out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def confusion_matrix(truth: Numbers, predicted: Numbers, num_classes: int) -> Numbers:
    """Counts (true class, predicted class)."""
    return np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(truth: Numbers, predicted: Numbers) -> float:
    return float((truth == predicted).mean()) if len(truth) else 0.0


def f1_per_class(truth: Numbers, predicted: Numbers, num_classes: int) -> npt.NDArray[np.float64]:
    """Harmonic mean of precision and recall of each class; 0 for a class that neither occurs nor is predicted."""
    matrix = confusion_matrix(truth, predicted, num_classes)
    hits = np.diag(matrix).astype(np.float64)
    return np.asarray(2 * hits / np.maximum(matrix.sum(0) + matrix.sum(1), 1), np.float64)


def macro_f1(truth: Numbers, predicted: Numbers, num_classes: int) -> float:
    """Mean F1 of the classes that occur in `truth`."""
    present = np.unique(truth)
    return float(f1_per_class(truth, predicted, num_classes)[present].mean()) if len(present) else 0.0


def summary(truth: Numbers, predicted: Numbers, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1 and F1 of each class by name."""
    per_class = f1_per_class(truth, predicted, len(classes))
    return {
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted, len(classes)),
        "f1": {name: float(value) for name, value in zip(classes, per_class, strict=True)},
    }
