"""The loop: what it learns, and that neither workers, micro-batches nor a stop in between change it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raysl.data.shards import TokenRows
from raysl.errors import TrainingError
from raysl.models.config import BertConfig, GptConfig
from raysl.models.text import Bert, Gpt
from raysl.objectives.bert import Bert as BertObjective
from raysl.objectives.config import BertConfig as BertObjectiveConfig
from raysl.objectives.config import ContrastiveTextConfig
from raysl.objectives.config import GptConfig as GptObjectiveConfig
from raysl.objectives.contrastive_text import ContrastiveText
from raysl.objectives.gpt import Gpt as GptObjective
from raysl.train.config import PretrainConfig
from raysl.train.loop import Trainer
from raysl.train.world import World, single
from tests.token_shards import random_documents, write_shards

VOCAB = 50


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = random_documents(97, vocab_size=VOCAB)
    return write_shards(tmp_path_factory.mktemp("shards"), [documents[:50], documents[50:]])


def objective_of(kind: str, dropout: float = 0.0):
    torch.manual_seed(7)
    size = {"width": 16, "num_heads": 2, "num_layers": 1, "context_length": 16, "dropout": dropout}
    if kind == "gpt":
        return GptObjective(GptObjectiveConfig(), Gpt(GptConfig(**size), VOCAB))
    if kind == "bert":
        return BertObjective(BertObjectiveConfig(), Bert(BertConfig(**size), VOCAB))
    return ContrastiveText(ContrastiveTextConfig(span_length=8), Bert(BertConfig(**size), VOCAB))


def config_of(kind: str, **settings: object) -> PretrainConfig:
    model = "gpt" if kind == "gpt" else "bert"
    defaults = {
        "max_steps": 6,
        "global_batch_size": 12,
        "precision": "fp32",
        "log_every_steps": 1,
        "evaluate_every_steps": 100,
    }
    return PretrainConfig.model_validate({"objective": kind, "model": model, **defaults, **settings})


def trainer_of(
    shards: Path, kind: str, config: PretrainConfig, world: World, dropout: float = 0.0, **more: object
) -> Trainer:
    objective = objective_of(kind, dropout)
    rows = TokenRows(shards, objective.row_kind, objective.row_length, objective.min_tokens)
    return Trainer(objective, rows, None, config, seed=3, world=world, **more)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in trainer.objective.parameters()])


@pytest.mark.parametrize("kind", ["gpt", "bert", "contrastive_text"])
def test_loss_falls(shards: Path, kind: str) -> None:
    losses: list[float] = []
    config = config_of(kind, max_steps=150, global_batch_size=32, optimizer={"learning_rate": 0.01})
    trainer_of(shards, kind, config, single("cpu"), report=lambda m: losses.append(m["loss"])).run()
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(shards: Path, kind: str) -> None:
    """Target counts differ between micro-batches, so a mean of means would be wrong."""
    one = trainer_of(shards, kind, config_of(kind, max_steps=1), single("cpu"))
    four = trainer_of(shards, kind, config_of(kind, max_steps=1, accumulation_steps=5), single("cpu"))
    for trainer in (one, four):
        trainer.optimizer.zero_grad = lambda set_to_none=True: None  # keep the gradients of the step
        trainer.run()
    for first, second in zip(one.objective.parameters(), four.objective.parameters(), strict=True):
        if first.grad is not None:
            torch.testing.assert_close(first.grad, second.grad, atol=1e-6, rtol=1e-4)


def _rank(rank: int, size: int, kind: str, shards: str, port: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{port}", rank=rank, world_size=size)
    trainer = trainer_of(Path(shards), kind, config_of(kind), World(rank, size, torch.device("cpu")))
    losses: list[float] = []
    trainer.report = lambda m: losses.append(m["loss"])
    trainer.run()
    if rank == 0:
        torch.save({"weights": weights(trainer), "losses": losses}, out)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("contrastive_text", 2), ("contrastive_text", 3), ("bert", 2)])
def test_several_ranks_train_as_one_process_with_the_whole_batch(shards: Path, kind: str, size: int, tmp_path: Path) -> None:
    """Six steps: same losses and same weights. A gather without gradient keeps the loss and fails the weights."""
    alone_losses: list[float] = []
    alone = trainer_of(shards, kind, config_of(kind), single("cpu"), report=lambda m: alone_losses.append(m["loss"]))
    alone.run()
    out = tmp_path / "rank0.pt"
    mp.start_processes(
        _rank, args=(size, kind, str(shards), str(tmp_path / "store"), str(out)), nprocs=size, start_method="spawn"
    )
    together = torch.load(out)
    assert together["losses"] == pytest.approx(alone_losses, abs=2e-5)
    torch.testing.assert_close(together["weights"], weights(alone), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "contrastive_text"])
def test_a_resumed_run_ends_bit_equal(shards: Path, kind: str, tmp_path: Path) -> None:
    """Dropout, masks and views included: everything is drawn from (seed, step)."""
    settings = {"max_steps": 7, "checkpoint": {"every_steps": 4}}
    whole = trainer_of(shards, kind, config_of(kind, **settings), single("cpu"), dropout=0.1, checkpoints=tmp_path / "whole")
    whole.run()
    cut = trainer_of(shards, kind, config_of(kind, **settings), single("cpu"), dropout=0.1, checkpoints=tmp_path / "cut")
    cut.report = _stop_at(6)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = trainer_of(shards, kind, config_of(kind, **settings), single("cpu"), dropout=0.1, checkpoints=tmp_path / "cut")
    assert again.step == 4
    again.run()
    assert torch.equal(weights(whole), weights(again))


def _stop_at(step: int):
    def report(metrics: dict[str, float]) -> None:
        if metrics["step"] == step:
            raise KeyboardInterrupt

    return report


def test_a_loss_that_is_no_number_stops_and_names_the_key(shards: Path) -> None:
    trainer = trainer_of(shards, "bert", config_of("bert", max_steps=3), single("cpu"))
    with torch.no_grad():
        trainer.objective.encoder.tokens.weight[:] = float("nan")
    with pytest.raises(TrainingError, match=r"pretrain\.optimizer\.learning_rate"):
        trainer.run()
