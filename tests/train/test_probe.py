"""kNN probe: numbers by hand, and that measuring changes nothing (check 3 and 10 of docs/pretrain.md)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysl.models.config import BertConfig
from raysl.models.text import PAD, Bert
from raysl.objectives.base import Objective
from raysl.objectives.bert import Bert as BertObjective
from raysl.objectives.config import BertConfig as BertObjectiveConfig
from raysl.train.config import ProbeConfig
from raysl.train.probe import LabelledRows, choose, knn_accuracy, probe
from raysl.train.world import World, single
from tests.ranks import in_ranks
from tests.token_shards import random_documents


class Normed(Objective):
    """A network with batch norm and dropout, behind a projection that the probe must not see."""

    unit = "images"

    def __init__(self) -> None:
        super().__init__(None, nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)))  # type: ignore[arg-type]
        self.encoder.width = 8  # type: ignore[assignment]
        self.projection = nn.Linear(8, 2)

    def inputs(self, rows: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack(rows))

    def embed(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs)


def labelled(count: int = 90) -> LabelledRows:
    generator = np.random.default_rng(0)
    targets = np.arange(count) % 3
    rows = (np.eye(4)[targets] + 0.1 * generator.normal(size=(count, 4))).astype(np.float32)
    found = choose(list(rows).__getitem__, [str(t) for t in targets], max_rows=count)
    assert found is not None
    return found


def test_neighbours_vote_by_hand() -> None:
    """Four rows on a line of angles: 0 and 1 of one class lie together, 2 and 3 of another."""
    embeddings = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99]])
    assert knn_accuracy(embeddings, torch.tensor([0, 0, 1, 1]), k=1, temperature=0.1) == 1.0
    assert knn_accuracy(embeddings, torch.tensor([0, 1, 0, 1]), k=1, temperature=0.1) == 0.0
    assert knn_accuracy(embeddings, torch.tensor([0, 0, 1, 1]), k=99, temperature=0.1) == 1.0  # the nearest weighs most


def test_as_many_neighbours_vote_as_sharply_as_the_config_says() -> None:
    """Beside a plain count, row by row."""
    generator = np.random.default_rng(0)
    embeddings, targets = generator.normal(size=(60, 3)), np.arange(60) % 3
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = []
    for k, temperature in ((1, 0.1), (5, 0.1), (40, 0.1), (40, 10.0)):
        right = 0
        for row in range(60):
            others = sorted((place for place in range(60) if place != row), key=lambda p: -unit[p] @ unit[row])[:k]
            votes = [sum(np.exp(unit[p] @ unit[row] / temperature) for p in others if targets[p] == c) for c in range(3)]
            right += int(np.argmax(votes)) == targets[row]
        found.append(knn_accuracy(torch.from_numpy(embeddings), torch.from_numpy(targets), k, temperature))
        assert found[-1] == pytest.approx(right / 60)
    assert len(set(found)) == 4


def test_rows_are_compared_some_at_a_time_with_the_same_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 rows beside 50,000 would be 10 GB on every rank."""
    generator = torch.Generator().manual_seed(0)
    embeddings, targets = torch.randn(90, 3, generator=generator), torch.arange(90) % 3
    at_once = knn_accuracy(embeddings, targets, 5, 0.1)
    monkeypatch.setattr("raysl.train.probe.COMPARED_AT_ONCE", 16)
    shapes: list[tuple[int, ...]] = []
    topk = Tensor.topk
    monkeypatch.setattr(Tensor, "topk", lambda self, *a, **named: shapes.append(self.shape) or topk(self, *a, **named))
    assert knn_accuracy(embeddings, targets, 5, 0.1) == at_once
    assert shapes == [(16, 90)] * 5 + [(10, 90)]


def test_the_probe_reads_whole_rows_as_they_are_in_evaluation_mode() -> None:
    """Check 10: rows of unlike length, a model with dropout; the accuracy is that of the encoder's own embeddings."""
    torch.manual_seed(0)
    model = Bert(BertConfig(width=16, num_heads=2, num_layers=1, context_length=16, dropout=0.5), 50)
    objective = BertObjective(BertObjectiveConfig(mask_share=0.5), model).train()
    documents = [np.array(document, np.int32) for document in random_documents(40)]
    found = choose(documents.__getitem__, [str(place % 5) for place in range(40)], max_rows=40)
    assert found is not None
    read: list[Tensor] = []
    hook = model.tokens.register_forward_hook(lambda module, given, out: read.extend(given[0]))
    values = probe(objective, found, ProbeConfig(k=5), single("cpu"))
    hook.remove()
    assert sorted(row[row != PAD].tolist() for row in read) == sorted(row.tolist() for row in documents)
    model.eval()
    with torch.no_grad():
        embeddings = torch.cat([model.embed(torch.from_numpy(row)[None].long()) for row in found.rows])
    assert values["knn_accuracy"] == knn_accuracy(embeddings, torch.from_numpy(found.targets), 5, 0.07) > 0.5


def probed(world: World, count: int = 91) -> dict[str, float]:
    """What a probe of rows without any likeness says."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    rows = LabelledRows(list(generator.normal(size=(count, 4)).astype(np.float32)), generator.integers(0, 3, count))
    return probe(Normed(), rows, ProbeConfig(k=5), world)


def _rank(rank: int, folder: Path, size: int, count: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.save(probed(World(rank, size, torch.device("cpu")), count), folder / f"{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_probe_each_row_once_as_one_process_does(tmp_path: Path) -> None:
    """Check 10: 91 rows for two ranks; a row that fills up the smaller share would count twice, and be its own neighbour."""
    in_ranks(_rank, 2, tmp_path, 2, 91)
    assert [torch.load(tmp_path / f"{rank}") for rank in range(2)] == [probed(single("cpu"))] * 2


@pytest.mark.slow
def test_a_rank_without_rows_probes_with_the_others(tmp_path: Path) -> None:
    in_ranks(_rank, 5, tmp_path, 5, 4)
    assert [torch.load(tmp_path / f"{rank}") for rank in range(5)] == [probed(single("cpu"), 4)] * 5


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
    found = choose(rows.__getitem__, ["x", "x", None, "y", "y", "alone"], max_rows=10)
    assert found is not None
    assert (list(found.rows), found.targets.tolist()) == (["a", "b", "d", "e"], [0, 0, 1, 1])
    assert choose(rows.__getitem__, [None] * 6, max_rows=10) is None
    assert choose(rows.__getitem__, ["x"] * 6, max_rows=10) is None


def test_only_the_rows_that_the_probe_takes_are_read() -> None:
    asked: list[int] = []
    assert choose(asked.append, ["x", "y"] * 500, max_rows=10) is not None
    assert len(asked) == 10
