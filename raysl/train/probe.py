"""kNN probe (Wu et al., 2018): are rows of one label neighbours? Watched while pretraining, trained on nothing."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from raysl.objectives.base import Objective
from raysl.objectives.gather import gather_rows
from raysl.train.config import ProbeConfig
from raysl.train.world import World

ROWS_AT_ONCE = 64
COMPARED_AT_ONCE = 1024
"""Rows whose likeness to all others is held at once: 4 kB for each of the others."""


@dataclass(frozen=True)
class LabelledRows:
    """Rows of at least two classes and the number of each row's class."""

    rows: Sequence[Any]
    targets: npt.NDArray[np.int64]

    @property
    def largest_share(self) -> float:
        """What naming the largest class alone gets right."""
        return float(np.bincount(self.targets).max() / len(self.targets))


def choose(row: Callable[[int], Any], labels: Sequence[str | None], max_rows: int) -> LabelledRows | None:
    """At most `max_rows` labelled rows in a seeded order; None where there are not two classes of two rows each.

    `row(place)` is a row; only those that are chosen are asked for.
    """
    counts = Counter(label for label in labels if label is not None)
    places = [place for place, label in enumerate(labels) if label is not None and counts[label] > 1]
    drawn = np.random.default_rng(0).permutation(len(places))[:max_rows]
    places = sorted(places[int(place)] for place in drawn)
    names = sorted({str(labels[place]) for place in places})
    if len(names) < 2:
        return None
    number = {name: index for index, name in enumerate(names)}
    return LabelledRows([row(place) for place in places], np.array([number[str(labels[p])] for p in places], np.int64))


def knn_accuracy(embeddings: Tensor, targets: Tensor, k: int, temperature: float) -> float:
    """Share of rows whose k nearest other rows vote for their class; each votes with exp(cosine / temperature)."""
    embeddings = F.normalize(embeddings.float(), dim=-1)
    right = []
    for start in range(0, len(targets), COMPARED_AT_ONCE):
        own = targets[start : start + COMPARED_AT_ONCE]
        similarity = embeddings[start : start + len(own)] @ embeddings.T  # (some rows, rows)
        similarity.diagonal(start).fill_(float("-inf"))
        nearest = similarity.topk(min(k, len(targets) - 1), dim=1)
        votes = torch.zeros(len(own), int(targets.max()) + 1, device=embeddings.device)
        votes.scatter_add_(1, targets[nearest.indices], (nearest.values / temperature).softmax(1))
        right.append(votes.argmax(1) == own)
    return float(torch.cat(right).float().mean())


@torch.no_grad()
def probe(objective: Objective, labelled: LabelledRows, config: ProbeConfig, world: World) -> dict[str, float]:
    """Accuracy of the encoder's embeddings as they are, in evaluation mode, with what it was measured with.

    Each rank embeds its share of the rows. Nothing of the model changes, statistics of batch norms included.
    """
    was_training = objective.training
    objective.eval()
    share = range(world.rank, len(labelled.rows), world.size)
    by_length = sorted(share, key=lambda place: len(labelled.rows[place]))
    parts = [by_length[start : start + ROWS_AT_ONCE] for start in range(0, len(by_length), ROWS_AT_ONCE)]
    mine = [objective.embed(objective.inputs([labelled.rows[p] for p in part]).to(world.device)).float() for part in parts]
    own = torch.cat(mine) if mine else torch.empty(0, objective.encoder.width, device=world.device)
    embeddings, _ = gather_rows(own)
    places, _ = gather_rows(torch.tensor(by_length, dtype=torch.long, device=world.device))
    objective.train(was_training)
    targets = torch.from_numpy(labelled.targets).to(world.device)[places]
    return {
        "knn_accuracy": knn_accuracy(embeddings, targets, config.k, config.temperature),
        "knn_largest_class": labelled.largest_share,
        "knn_rows": len(labelled.rows), "knn_k": config.k, "knn_temperature": config.temperature,
    }  # fmt: skip
