"""Groups, schedule and steps of the optimizers (checks 8 and 9 of docs/pretrain.md)."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from raysl.errors import ConfigError
from raysl.models.config import BertConfig, GptConfig
from raysl.models.resnet import ResNet
from raysl.models.text import Bert, Gpt
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig, VitConfig
from raysl.models.vit import Vit
from raysl.objectives.image_config import MaeConfig, SimclrConfig
from raysl.objectives.mae import Mae
from raysl.objectives.simclr import Simclr
from raysl.train.config import OptimizerConfig
from raysl.train.ema import WeightAverage
from raysl.train.lars import LARS
from raysl.train.optimizers import build, decay_groups, hidden_matrices, peak_rate, rate_share

IMAGE = ImageFormat(8, 3, 4, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3))


class SmallNet(nn.Module):
    """A filter, a norm, a learned place and a learned token, as image networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.positions = nn.Parameter(torch.randn(1, 5, 4))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
        self.mask_token = nn.Parameter(torch.randn(1, 1, 4))
        self.block = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)


def bert() -> Bert:
    return Bert(BertConfig(width=16, num_heads=2), 50)


def gpt() -> Gpt:
    return Gpt(GptConfig(width=16, num_heads=2), 50)


def simclr() -> Simclr:
    return Simclr(SimclrConfig(), ResNet(ResNetConfig(width=8), IMAGE))


def mae() -> Mae:
    return Mae(MaeConfig(decoder_layers=1), Vit(VitConfig(num_layers=1, width=16, num_heads=2, patch_size=4), IMAGE))


class Tied(nn.Module):
    """An output that is the table of tokens under a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.block, self.head = nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight


@pytest.mark.parametrize("kind", ["adamw", "lars", "muon"])
@pytest.mark.parametrize("make", [bert, gpt, SmallNet, Tied, mae, simclr])
def test_every_trainable_parameter_is_in_one_group_and_only_matrices_decay(make: type[nn.Module], kind: str) -> None:
    model = make()
    groups = build(model, OptimizerConfig(type=kind, weight_decay=0.1)).param_groups
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len({p.data_ptr() for p in grouped}) == len(grouped)  # filters are there as the matrix in their memory
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert {p.data_ptr(): p.numel() for p in grouped} == {p.data_ptr(): p.numel() for p in trainable}
    decaying = {p.data_ptr() for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if p.data_ptr() in decaying}
    assert all(p.ndim >= 2 for p in model.parameters() if p.data_ptr() in decaying)
    assert decaying >= {m.weight.data_ptr() for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert not [n for n in names if "norm" in n or "positions" in n or "token." in n or "pool" in n or n.endswith("_token")]
    assert all(group["weight_decay"] in (0.0, 0.1) for group in groups)


def test_tied_weights_have_one_storage_and_count_once() -> None:
    model = gpt()
    vectors = torch.randn(1, 3, 16)
    torch.testing.assert_close(model.vocabulary_logits(vectors), vectors @ model.tokens.weight.T)
    decays, _ = decay_groups(model, 0.1)
    assert sum(p is model.tokens.weight for p in decays["params"]) == 1


@pytest.mark.parametrize("make", [bert, gpt])
def test_tied_weights_learn_from_both_of_their_ends(make: type[nn.Module]) -> None:
    model = make()
    vectors = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    model.vocabulary_logits(vectors).sum().backward()
    gradient = model.tokens.weight.grad
    assert gradient is not None
    assert (gradient.abs().sum(1) > 0).all()
    if make is gpt:
        torch.testing.assert_close(gradient, vectors.detach().sum((0, 1)).expand(50, 16))


def test_lars_adapts_matrices_and_neither_norms_nor_biases() -> None:
    """Check 9: the first step of a norm or a bias is rate x gradient, that of a matrix rate x trust x |w| / |g| x g."""
    torch.manual_seed(0)
    model = SmallNet()
    settings = {"learning_rate": 2.0, "trust_coefficient": 0.1, "weight_decay": 0.0}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    build(model, OptimizerConfig(type="lars", **settings)).step()
    for name, parameter in model.named_parameters():
        adapted = name in ("conv.weight", "block.weight", "head.weight")
        ratio = 0.1 * before[name].norm() / parameter.grad.norm() if adapted else 1.0
        torch.testing.assert_close(parameter.data, before[name] - 2.0 * ratio * 0.5 * torch.ones_like(parameter), msg=name)


def test_muon_without_anything_inside_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'muon' is for the linear layers and filters .* Use adamw or lars"):
        build(nn.Sequential(nn.Conv2d(3, 4, 3)), OptimizerConfig(type="muon"))


def test_muon_takes_hidden_matrices_only() -> None:
    model = bert()
    names = {name for name, p in model.named_parameters() if any(p is hidden for hidden in hidden_matrices(model))}
    assert names == {
        f"blocks.{n}.{part}.weight" for n in range(2) for part in ("attention.qkv", "attention.out", "up", "down")
    }
    small = SmallNet()
    assert [p is small.block.weight for p in hidden_matrices(small)] == [True]


def test_muon_takes_the_projector_and_all_filters_but_those_that_read_the_picture() -> None:
    model = simclr()
    names = {name for name, p in model.named_parameters() if any(p is hidden for hidden in hidden_matrices(model))}
    filters = {name for name, p in model.named_parameters() if p.ndim == 4}
    assert len(filters) == 20
    assert names == filters - {"encoder.conv1.weight"} | {"projector.0.weight", "projector.2.weight"}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("filter_size", [1, 3])
def test_muon_moves_filters_as_the_matrix_of_their_rows(memory: torch.memory_format, filter_size: int) -> None:
    """Beside torch's own on a matrix (out, in x height x width), two steps with momentum and decay; the state travels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, filter_size)).to(memory_format=memory)
    weight = net[1].weight
    matrix = nn.Parameter(weight.detach().clone().contiguous().flatten(1))
    settings = OptimizerConfig(type="muon", learning_rate=0.1, weight_decay=0.3, momentum=0.8)
    ours = build(net, settings)
    reference = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.3, momentum=0.8, adjust_lr_fn="match_rms_adamw")
    for _ in range(2):
        gradient = torch.randn(weight.shape)
        weight.grad, matrix.grad = gradient.to(memory_format=memory), gradient.flatten(1)
        before = weight.detach().clone()
        fresh = build(net, settings)
        fresh.load_state_dict(ours.state_dict())
        ours = fresh
        ours.step()
        reference.step()
        assert not torch.equal(weight, before)
        torch.testing.assert_close(weight.detach().contiguous().flatten(1), matrix.detach(), rtol=2e-2, atol=2e-3)  # in bf16
        ours.zero_grad()
        assert weight.grad is None


def test_lars_steps_by_hand() -> None:
    """|w| = 5, |g| = 10: the step is rate x trust x 5 / 10 x g; a group that does not adapt takes rate x g."""
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([1.0]))
    groups = [{"params": [weight]}, {"params": [bias], "adapt": False}]
    lars = LARS(groups, lr=2.0, momentum=0.9, trust_coefficient=0.1)
    weight.grad, bias.grad = torch.tensor([[6.0, 8.0]]), torch.tensor([0.5])
    lars.step()
    torch.testing.assert_close(weight.data, torch.tensor([[3.0 - 0.1 * 6, 4.0 - 0.1 * 8]]))
    torch.testing.assert_close(bias.data, torch.tensor([0.0]))
    bias.grad = torch.tensor([0.0])
    lars.step()
    torch.testing.assert_close(bias.data, torch.tensor([-0.9]))  # momentum goes on


@pytest.mark.parametrize("kind", ["adamw", "lars", "muon"])
def test_each_optimizer_fits_a_small_problem_and_its_state_travels(kind: str) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 8)
    targets = inputs @ torch.randn(8, 8)
    rate = {"adamw": 0.02, "lars": 5.0, "muon": 0.02}[kind]

    def train(steps: int, state: dict | None = None) -> tuple[nn.Module, object, float]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 8))
        optimizer = build(model, OptimizerConfig(type=kind, learning_rate=rate, weight_decay=0))
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        for _ in range(steps):
            loss = (model(inputs) - targets).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer, loss.item()

    first = train(1)[2]
    whole, _, last = train(200)
    assert last < 0.3 * first
    half, optimizer, _ = train(100)
    resumed, _, _ = train(100, {"model": half.state_dict(), "optimizer": optimizer.state_dict()})
    assert torch.equal(resumed[0].weight, whole[0].weight)


@pytest.mark.parametrize("max_steps", [100, 37])
def test_rate_rises_then_falls_to_its_minimum_exactly_at_the_last_step(max_steps: int) -> None:
    config = OptimizerConfig(warmup_share=0.1, min_learning_rate_share=0.05)
    shares = [rate_share(step, max_steps, config) for step in range(max_steps)]
    peak = round(max_steps * 0.1)
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[0] > 0
    assert max(shares) == shares[peak] == pytest.approx(1.0)
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[-1] == pytest.approx(0.05)


@pytest.mark.parametrize(("scale", "rate"), [("none", 0.3), ("linear", 1.2), ("sqrt", 0.6)])
def test_rate_grows_with_the_global_batch_as_the_config_says(scale: str, rate: float) -> None:
    assert peak_rate(OptimizerConfig(learning_rate=0.3, scale=scale), 1024) == pytest.approx(rate)
    assert peak_rate(OptimizerConfig(learning_rate=0.3, scale=scale), 256) == pytest.approx(0.3)


def test_a_value_without_effect_is_refused() -> None:
    with pytest.raises(ValidationError, match="momentum has no effect with type=adamw"):
        OptimizerConfig(momentum=0.5)
    with pytest.raises(ValidationError, match="betas has no effect with type=lars"):
        OptimizerConfig(type="lars", betas=(0.9, 0.95))
    with pytest.raises(ValidationError, match="reference_batch_size has no effect with scale=none"):
        OptimizerConfig(reference_batch_size=1024)


def test_average_of_weights_by_hand_and_applied_only_inside_the_block() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data[:] = 1.0
    average = WeightAverage(model, decay=0.5)
    model.weight.data[:] = 3.0
    average.update(0)  # decay (1 + 0) / (10 + 0): 0.1 x 1 + 0.9 x 3
    assert float(average.weights["weight"]) == pytest.approx(2.8)
    average.update(100)  # decay 0.5
    assert float(average.weights["weight"]) == pytest.approx(2.9)
    with average.applied():
        assert model.weight.item() == pytest.approx(2.9)
    assert model.weight.item() == 3.0


def test_adamw_steps_as_torch_s_own() -> None:
    ours, theirs = SmallNet(), SmallNet()
    theirs.load_state_dict(ours.state_dict())
    settings = OptimizerConfig(weight_decay=0.1)
    optimizer = build(ours, settings)
    reference = torch.optim.AdamW(decay_groups(theirs, 0.1), lr=settings.learning_rate, betas=settings.betas, fused=True)
    for number in range(4):
        for model, steps in ((ours, optimizer), (theirs, reference)):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.1 * (number - 1.5))
            steps.step()
            steps.zero_grad()
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, other)


@pytest.mark.parametrize("kind", ["adamw", "muon", "lars"])
def test_no_optimizer_imports_the_compiler(kind: str) -> None:
    script = f"""
import sys, torch
from raysl.train.config import OptimizerConfig
from raysl.train.optimizers import build
model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
optimizer = build(model, OptimizerConfig(type={kind!r}))
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("compiles", [False, True])
def test_ddp_imports_the_compiler_only_for_a_compiled_model(compiles: bool, tmp_path: Path) -> None:
    script = f"""
import sys, torch
from raysl.train.eager import data_parallel
torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/meet", rank=0, world_size=1)
model = torch.nn.Linear(2, 3)
parallel = data_parallel(torch.compile(model, backend="eager") if {compiles} else model)
with parallel.no_sync():
    parallel(torch.ones(1, 2)).sum().backward()
parallel(torch.ones(1, 2)).sum().backward()
assert torch.equal(model.weight.grad, torch.full((3, 2), 2.0))
assert parallel._use_python_reducer is False
torch.distributed.destroy_process_group()
sys.exit(("torch._dynamo" in sys.modules) != {compiles})
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
