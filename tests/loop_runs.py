"""Small runs of the training loop in this process."""

from pathlib import Path

import torch

from raysl.data.shards import TokenRows
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
from raysl.train.world import World
from tests.token_shards import random_documents, write_shards

VOCAB = 50


def loop_shards(folder: Path) -> Path:
    """97 documents in two shards."""
    documents = random_documents(97, vocab_size=VOCAB)
    return write_shards(folder, [documents[:50], documents[50:]])


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
