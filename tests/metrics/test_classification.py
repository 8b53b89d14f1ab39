import numpy as np
import pytest
from sklearn.metrics import f1_score

from raysl.metrics.classification import accuracy, confusion_matrix, f1_per_class, macro_f1, summary

TRUTH, PREDICTED = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2])


def test_hand_worked_values() -> None:
    assert confusion_matrix(TRUTH, PREDICTED, 3).tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 1]]
    assert accuracy(TRUTH, PREDICTED) == pytest.approx(4 / 6)
    assert f1_per_class(TRUTH, PREDICTED, 3) == pytest.approx([1 / 2, 2 / 3, 1.0])


def test_macro_f1_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 7, 300), generator.integers(0, 7, 300)
    assert macro_f1(truth, predicted, 7) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_a_class_without_rows_does_not_count() -> None:
    assert macro_f1(TRUTH, PREDICTED, 5) == macro_f1(TRUTH, PREDICTED, 3)
    assert summary(TRUTH, PREDICTED, ["a", "b", "c"])["f1"]["c"] == 1.0
