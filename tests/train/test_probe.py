"""kNN probe: numbers by hand, and that measuring changes nothing (check 3 and 10 of docs/pretrain.md)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysl.objectives.base import Objective
from raysl.train.config import ProbeConfig
from raysl.train.probe import LabelledRows, choose, knn_accuracy, probe
from raysl.train.world import single


class Normed(Objective):
    """A network with batch norm and dropout, behind a projection that the probe must not see."""

    unit = "images"

    def __init__(self) -> None:
        super().__init__(None, nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)))  # type: ignore[arg-type]
        self.projection = nn.Linear(8, 2)

    def inputs(self, rows: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack(rows))

    def embed(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs)


def labelled(count: int = 90) -> LabelledRows:
    generator = np.random.default_rng(0)
    targets = np.arange(count) % 3
    rows = (np.eye(4)[targets] + 0.1 * generator.normal(size=(count, 4))).astype(np.float32)
    found = choose(list(rows), [str(t) for t in targets], max_rows=count)
    assert found is not None
    return found


def test_neighbours_vote_by_hand() -> None:
    """Four rows on a line of angles: 0 and 1 of one class lie together, 2 and 3 of another."""
    embeddings = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99]])
    assert knn_accuracy(embeddings, torch.tensor([0, 0, 1, 1]), k=1, temperature=0.1) == 1.0
    assert knn_accuracy(embeddings, torch.tensor([0, 1, 0, 1]), k=1, temperature=0.1) == 0.0
    assert knn_accuracy(embeddings, torch.tensor([0, 0, 1, 1]), k=99, temperature=0.1) == 1.0  # the nearest weighs most


def test_the_probe_changes_nothing_and_says_what_it_was_measured_with() -> None:
    torch.manual_seed(0)
    objective = Normed().train()
    objective.encoder(torch.randn(32, 4))  # statistics that are not the initial ones
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    first = probe(objective, labelled(), ProbeConfig(k=5, temperature=0.2), single("cpu"))
    assert objective.training
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())
    assert first == probe(objective, labelled(), ProbeConfig(k=5, temperature=0.2), single("cpu"))
    assert (first["knn_k"], first["knn_temperature"], first["knn_rows"]) == (5, 0.2, 90)
    assert first["knn_largest_class"] == pytest.approx(1 / 3)
    assert first["knn_accuracy"] > 0.9


def test_rows_without_a_label_or_alone_in_their_class_are_left_out() -> None:
    rows = ["a", "b", "c", "d", "e", "f"]
    found = choose(rows, ["x", "x", None, "y", "y", "alone"], max_rows=10)
    assert found is not None
    assert (list(found.rows), found.targets.tolist()) == (["a", "b", "d", "e"], [0, 0, 1, 1])
    assert choose(rows, [None] * 6, max_rows=10) is None
    assert choose(rows, ["x"] * 6, max_rows=10) is None
