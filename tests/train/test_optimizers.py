import pytest
import torch

from raysl.models.config import BertConfig
from raysl.models.text import Bert
from raysl.train.config import OptimizerConfig
from raysl.train.health import spread_and_rank
from raysl.train.optimizers import decay_groups, rate_share


def test_norms_biases_and_pooling_weights_do_not_decay() -> None:
    model = Bert(BertConfig(width=16, num_heads=2), 50)
    decays, others = decay_groups(model, 0.1)
    assert (decays["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 and p.shape[-1] > 1 for p in decays["params"])
    assert any(p is model.pool_weight.weight for p in others["params"])
    counted = sum(p.numel() for group in (decays, others) for p in group["params"])
    assert counted == sum(p.numel() for p in model.parameters())


def test_rate_rises_then_falls_to_its_minimum_exactly_at_the_last_step() -> None:
    config = OptimizerConfig(warmup_share=0.1, min_learning_rate_share=0.05)
    shares = [rate_share(step, 100, config) for step in range(100)]
    assert shares[:10] == sorted(shares[:10])
    assert shares[0] > 0
    assert max(shares) == shares[10] == pytest.approx(1.0)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] == pytest.approx(0.05)


def test_collapsed_embeddings_have_no_spread_and_one_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.nn.functional.normalize(torch.randn(500, 32, generator=generator), dim=-1)
    spread, rank = spread_and_rank(healthy)
    assert spread == pytest.approx(1.0, abs=0.05)
    assert rank > 28
    spread, rank = spread_and_rank(torch.ones(500, 32) / 32**0.5 + 1e-9 * healthy[:, :1])
    assert spread < 0.01
    assert rank < 3
