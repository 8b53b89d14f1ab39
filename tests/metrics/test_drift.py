"""The tests are exact: worked by hand, right under ties, and alarming as often as asked on windows without drift."""

import numpy as np
import pytest

from raysl.metrics import drift

SHIFTED = np.zeros(128)
SHIFTED[:13] = 1.0


def embeddings(rows: int, seed: int, shift: float | np.ndarray = 0.0) -> np.ndarray:
    """Correlated embeddings of width 128, as those of a network are."""
    mixing = np.random.default_rng(0).normal(size=(128, 128)) / np.sqrt(128) * 0.7 + np.eye(128) * 0.5
    return np.random.default_rng(seed).normal(size=(rows, 128)) @ mixing + shift


def test_dealing_keeps_the_sizes_and_the_first_column_as_it_was() -> None:
    dealt = drift.deal(num_reference=5, num_window=3, num_deals=10, seed=0)
    assert dealt[:, 0].tolist() == [False] * 5 + [True] * 3
    assert dealt.sum(0).tolist() == [3] * 11
    assert len({tuple(column) for column in dealt.T}) > 5


def test_auc_counts_pairs_in_order() -> None:
    scores = np.array([[0.1], [0.4], [0.35], [0.8]])
    positive = np.array([[False], [False], [True], [True]])
    assert drift.auc(scores, positive).tolist() == [0.75]


def test_auc_counts_a_tie_half() -> None:
    scores = np.array([[1.0], [2.0], [2.0], [2.0]])
    positive = np.array([[False], [False], [True], [True]])
    assert drift.auc(scores, positive).tolist() == [0.75]


def test_ks_distance_by_hand_with_ties() -> None:
    dealt = drift.deal(4, 2, 50, seed=0)
    result = drift.distribution_test(np.array([1.0, 1.0, 2.0, 2.0]), np.array([2.0, 2.0]), dealt)
    assert result.statistic == pytest.approx(0.5)


def test_equal_values_never_differ() -> None:
    dealt = drift.deal(30, 20, 100, seed=0)
    assert drift.distribution_test(np.ones(30), np.ones(20), dealt).p_value == 1.0
    assert drift.category_test(["a"] * 30, ["a"] * 20, dealt).p_value == 1.0


@pytest.mark.parametrize("noise", [0.0, 1e-8], ids=["constant", "constant but for rounding"])
def test_equal_embeddings_never_differ(noise: float) -> None:
    """Those of texts that were not kept, or of an encoder that collapsed."""
    one = np.random.default_rng(0).normal(size=64) / 8
    result = drift.classifier_test(np.tile(one, (60, 1)), np.tile(one + noise, (40, 1)), drift.deal(60, 40, 100, seed=0))
    assert (result.statistic, result.p_value) == (0.5, 1.0)


def test_few_distinct_embeddings_in_equal_shares_are_no_drift() -> None:
    kinds = np.random.default_rng(0).normal(size=(3, 64))
    reference, window = kinds[np.arange(300) % 3], kinds[np.arange(150) % 3]
    assert drift.classifier_test(reference, window, drift.deal(300, 150, 100, seed=0)).p_value > 0.2


def test_category_statistic_is_one_for_nothing_in_common() -> None:
    result = drift.category_test(["a"] * 30, ["b"] * 20, drift.deal(30, 20, 100, seed=0))
    assert result.statistic == pytest.approx(1.0)
    assert result.p_value == pytest.approx(1 / 101)


def test_mean_test_looks_down_only() -> None:
    low, high, dealt = np.zeros(30), np.ones(30), drift.deal(30, 30, 100, seed=0)
    assert drift.mean_test(high, low, dealt).p_value == pytest.approx(1 / 101)
    assert drift.mean_test(low, high, dealt).p_value == 1.0


def test_false_alarms_come_as_often_as_asked() -> None:
    rng = np.random.default_rng(1)
    p_values: dict[str, list[float]] = {"inputs": [], "length": [], "classes": []}
    for seed in range(300):
        dealt = drift.deal(80, 40, 100, seed)
        p_values["inputs"].append(drift.classifier_test(rng.normal(size=(80, 8)), rng.normal(size=(40, 8)), dealt).p_value)
        p_values["length"].append(drift.distribution_test(rng.poisson(3, 80), rng.poisson(3, 40), dealt).p_value)
        p_values["classes"].append(
            drift.category_test(rng.choice(list("abc"), 80), rng.choice(list("abc"), 40), dealt).p_value
        )
    for name, found in p_values.items():
        assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.055), name  # three standard deviations


@pytest.mark.parametrize(
    "shift", [0.1, 0.25, 0.5 * SHIFTED, 1.0 * SHIFTED], ids=[".1 all", ".25 all", ".5 in 10%", "1 in 10%"]
)
def test_each_of_the_four_shifts_is_found(shift: float | np.ndarray) -> None:
    for seed in range(3):
        dealt = drift.deal(500, 500, 500, seed)
        result = drift.classifier_test(embeddings(500, 2 * seed + 1), embeddings(500, 2 * seed + 2, shift), dealt)
        assert result.p_value <= 0.002
