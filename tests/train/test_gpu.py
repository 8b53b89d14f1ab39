"""One GPU: the same losses, gradients and views as a CPU, and a loop that does not wait for it between steps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raysl.data.pixels import PixelFormat, PixelRows
from raysl.data.rows import Rows
from raysl.data.shards import TokenRows
from raysl.models.config import BertConfig, GptConfig
from raysl.models.resnet import ResNet
from raysl.models.text import Bert, Gpt
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig, VitConfig
from raysl.models.vit import Vit
from raysl.objectives.augment import NUM_UNIFORM, views
from raysl.objectives.base import Objective
from raysl.objectives.bert import Bert as BertObjective
from raysl.objectives.config import BertConfig as BertObjectiveConfig
from raysl.objectives.config import ContrastiveTextConfig
from raysl.objectives.config import GptConfig as GptObjectiveConfig
from raysl.objectives.contrastive_text import ContrastiveText
from raysl.objectives.gpt import Gpt as GptObjective
from raysl.objectives.image_config import AugmentConfig, MaeConfig, SimclrConfig
from raysl.objectives.mae import Mae
from raysl.objectives.simclr import Simclr
from raysl.train.batches import StepBatches
from raysl.train.config import PretrainConfig
from raysl.train.loop import Trainer
from raysl.train.probe import choose
from raysl.train.world import World, autocast, single
from tests import pixel_shards, token_shards

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
KINDS = ["gpt", "bert", "contrastive_text", "simclr", "mae"]
VOCAB, FORM = 50, PixelFormat(size=16, channels=3, patch_size=4)
MODELS = {"gpt": "gpt", "bert": "bert", "contrastive_text": "bert", "simclr": "resnet", "mae": "vit"}
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    token_shards.write_shards(folder / "tokens", [token_shards.random_documents(97, vocab_size=VOCAB)])
    pixel_shards.write_shards(folder / "pixels", 61, FORM)
    return folder


def objective_of(kind: str) -> Objective:
    torch.manual_seed(7)
    size = {"width": 32, "num_heads": 2, "num_layers": 2, "context_length": 64}
    image = ImageFormat(16, 3, 4, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
    if kind == "gpt":
        return GptObjective(GptObjectiveConfig(), Gpt(GptConfig(**size), VOCAB))
    if kind == "bert":
        return BertObjective(BertObjectiveConfig(), Bert(BertConfig(**size), VOCAB))
    if kind == "contrastive_text":
        hidden = ContrastiveTextConfig(span_length=8, hidden_words_weight=0.1, hidden_words_rows=1.0)
        return ContrastiveText(hidden, Bert(BertConfig(**size), VOCAB))
    if kind == "mae":
        encoder = Vit(VitConfig(num_layers=2, width=32, num_heads=2, patch_size=4), image)
        return Mae(MaeConfig(decoder_layers=1, decoder_width=32, decoder_heads=2), encoder)
    return Simclr(
        SimclrConfig(projection_width=16, augment=AugmentConfig(blur_share=0.5)), ResNet(ResNetConfig(width=8), image)
    )


def rows_of(shards: Path, objective: Objective) -> Rows:
    if objective.row_kind == "pixels":
        return PixelRows(shards / "pixels")
    return TokenRows(shards / "tokens", objective.row_kind, objective.row_length, objective.min_tokens)


def trainer_of(
    shards: Path, kind: str, *, held_out: bool = False, checkpoints: Path | None = None, world: World | None = None,
    double: bool = False, **settings: object,
) -> Trainer:  # fmt: skip
    defaults = {
        "objective": kind, "model": MODELS[kind], "max_steps": 6, "global_batch_size": 12, "precision": "fp32",
        "device": "cuda", "log_every_steps": 100, "evaluate_every_steps": 100,
    }  # fmt: skip
    objective = objective_of(kind).double() if double else objective_of(kind)
    rows = rows_of(shards, objective)
    labelled = None
    if held_out and objective.row_kind == "pixels":
        labelled = choose(rows.row, rows.labels, 40)
    config = PretrainConfig.model_validate(defaults | settings)
    return Trainer(
        objective, rows, rows if held_out else None, config, 3, world or single("cuda"),
        checkpoints=checkpoints, labelled=labelled,
    )  # fmt: skip


def batch_of(shards: Path, objective: Objective) -> dict[str, torch.Tensor]:
    return StepBatches(objective, rows_of(shards, objective), 0, 12, 1, 0, 1).build(0).batches[0]


def moved(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(GPU) for name, tensor in batch.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_a_cpu(shards: Path, kind: str) -> None:
    """In double precision, so that neither rounding nor tf32 plays a part."""
    found = []
    for device in (torch.device("cpu"), GPU):
        objective = objective_of(kind).double().to(device)
        batch = {name: tensor.to(device) for name, tensor in batch_of(shards, objective).items()}
        output = objective(batch, objective.targets(batch))
        output.loss.backward()
        gradients = [p.grad.cpu() for p in objective.parameters() if p.grad is not None]
        found.append((output.loss.detach().cpu(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-8, rtol=1e-8)
    for own, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(own, other, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_packed_documents_attend_by_their_borders_as_by_a_mask(shards: Path, kind: str) -> None:
    """bf16 against fp32 with a mask; no gradient comes from another document."""
    objective = objective_of(kind).to(GPU)
    batch = moved(batch_of(shards, objective))
    assert len(batch["borders"]) > 12
    encoder = objective.encoder
    expected = encoder.encode(batch["tokens"], batch["documents"])
    with autocast(GPU, torch.bfloat16):
        found = encoder.encode(batch["tokens"], batch["documents"], borders=batch["borders"])
    assert float((found - expected).norm() / expected.norm()) < 1e-2
    vectors = torch.randn(12, 64, 32, device=GPU, requires_grad=True)
    encoder.tokens.forward = lambda tokens: vectors
    with autocast(GPU, torch.bfloat16):
        out = encoder.encode(batch["tokens"], batch["documents"], borders=batch["borders"])
    row = int((batch["documents"][:, -1] > 0).nonzero()[0, 0])
    chosen = batch["documents"][row] == 1
    (gradient,) = torch.autograd.grad(out[row, chosen].float().square().sum(), vectors)
    assert float(gradient[row, chosen].abs().sum()) > 0
    gradient[row, chosen] = 0
    assert float(gradient.abs().sum()) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_those_of_a_cpu(channels: int) -> None:
    images = torch.from_numpy(pixel_shards.random_images(40, 32, channels)[0].transpose(0, 3, 1, 2).copy())
    numbers = torch.from_numpy(np.random.default_rng(0).random((40, NUM_UNIFORM)))
    config = AugmentConfig(blur_share=0.5)
    on_gpu = views(images.to(GPU), numbers.to(GPU), config)
    torch.testing.assert_close(on_gpu.cpu(), views(images, numbers, config), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_does_not_wait_for_the_gpu(shards: Path, kind: str, compiled: bool) -> None:
    trainer = trainer_of(shards, kind, precision="bf16", compile=compiled, optimizer={"learning_rate": 0.01})
    batches = StepBatches(trainer.objective, trainer.rows, 3, 12, 1, 0, 1, pinned=True)
    losses = [float(trainer._optimizer_step(batches.build(step))["loss"]) for step in range(3)]  # compiles, reserves memory
    torch.cuda.set_sync_debug_mode("error")
    try:
        last = [trainer._optimizer_step(batches.build(step))["loss"] for step in range(3, 40)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(torch.stack(last[-5:]).mean()) < losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_measures_saves_and_goes_on_as_one_in_one_go(shards: Path, tmp_path: Path, kind: str) -> None:
    settings = {"held_out": True, "checkpoint": {"every_steps": 3}, "evaluate_every_steps": 3}
    whole = trainer_of(shards, kind, **settings)
    values = whole.run()
    assert {"held_out_loss", "effective_rank"} <= values.keys()
    assert ("knn_accuracy" in values) == (whole.objective.row_kind == "pixels")
    first = trainer_of(shards, kind, **settings, checkpoints=tmp_path)
    with pytest.raises(RuntimeError, match="stop here"):
        stopped(first, 4).run()
    rest = trainer_of(shards, kind, **settings, checkpoints=tmp_path)
    assert rest.step == 3
    rest.run()
    start, end, other = (weights(objective) for objective in (objective_of(kind).to(GPU), whole.objective, rest.objective))
    assert float((other - end).norm() / (end - start).norm()) < 0.05  # a GPU adds up in another order each time


def weights(objective: Objective) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in objective.parameters()])


def stopped(trainer: Trainer, at: int) -> Trainer:
    def record(step: int, numbers: object) -> None:
        if step == at:
            raise RuntimeError("stop here")

    trainer.record = record
    return trainer
