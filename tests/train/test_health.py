"""When a run is stopped, and which key it is told to change."""

import pytest
import torch

from raysl.errors import TrainingError
from raysl.train.config import HealthConfig
from raysl.train.health import Watch, spread_and_rank


def test_collapsed_embeddings_have_no_spread_and_one_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.nn.functional.normalize(torch.randn(500, 32, generator=generator), dim=-1)
    spread, rank = spread_and_rank(healthy)
    assert spread == pytest.approx(1.0, abs=0.05)
    assert rank > 28
    spread, rank = spread_and_rank(torch.ones(500, 32) / 32**0.5 + 1e-9 * healthy[:, :1])
    assert spread < 0.01
    assert rank < 3


def test_collapse_stops_only_after_several_evaluations_in_a_row() -> None:
    watch = Watch(HealthConfig(patience=2), learning_rate=0.1)
    watch.embeddings(10, spread=0.0, effective_rank=1.0)
    watch.embeddings(20, spread=0.5, effective_rank=9.0)
    watch.embeddings(30, spread=0.0, effective_rank=1.0)
    with pytest.raises(TrainingError, match=r"collapsed.*pretrain\.optimizer\.learning_rate"):
        watch.embeddings(40, spread=0.5, effective_rank=1.0)
    off = Watch(HealthConfig(patience=0), learning_rate=0.1)
    for step in range(9):
        off.embeddings(step, 0.0, 1.0)


def test_starvation_stops_only_when_it_lasts() -> None:
    watch = Watch(HealthConfig(max_data_wait=0.5, starved_after_s=60), learning_rate=0.1)
    watch.data_wait(0, share=1.0, seconds=500)  # the first window of rows comes
    watch.data_wait(1, share=0.9, seconds=50)
    watch.data_wait(2, share=0.1, seconds=50)
    watch.data_wait(3, share=0.9, seconds=50)
    with pytest.raises(TrainingError, match=r"starves.*pretrain\.num_workers"):
        watch.data_wait(4, share=0.9, seconds=50)
