"""Image encoders beside the originals: the same features and gradients, both directions."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

import tests.torchvision_operators  # noqa: F401  (before torchvision and transformers)
from raysl.errors import ConfigError, DataError
from raysl.models import layouts, load
from raysl.models.layouts import torchvision
from raysl.models.layouts.files import WEIGHTS
from raysl.models.resnet import ResNet
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig, VitConfig
from raysl.models.vit import Vit, patchify

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed (raysl[test])"
)
PLAIN = ImageFormat(32, 3, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
OWN = ImageFormat(32, 3, 4, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
SIZES = {"num_layers": 2, "width": 32, "num_heads": 4, "patch_size": 4, "feedforward_ratio": 3.0}


def images(count: int = 4, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def shaken(model: nn.Module) -> nn.Module:
    """Biases and norms random too, so that none can be forgotten."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def vit() -> Vit:
    torch.manual_seed(1)
    return shaken(Vit(VitConfig(**SIZES), PLAIN))


def check_vit(ours: Vit, theirs: nn.Module) -> None:
    x = images()
    mine, other = ours.encode(ours.cut(x)), theirs(pixel_values=x).last_hidden_state
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    mine.square().mean().backward()
    other.square().mean().backward()
    layout = layouts.layout_of("vit")
    names = dict(theirs.named_parameters())
    found = layout.to_theirs({name: p.grad for name, p in ours.named_parameters()})
    back = {name: p.grad for name, p in _saved_names(theirs, names).items() if not name.startswith("pooler")}
    assert set(found) == set(back)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, back[name], atol=1e-4, rtol=1e-4)


def _saved_names(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Parameters under the names that files have; some versions of transformers call them otherwise in memory."""
    renamed = {
        "attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    out = {}
    for name, parameter in parameters.items():
        for new, old in renamed.items():
            name = name.replace(new, old)
        out[name if not name.startswith("layers.") else f"encoder.layer.{name.removeprefix('layers.')}"] = parameter
    return out


@pytest.mark.slow  # importing transformers takes seconds
@needs_transformers
def test_our_vit_computes_the_same_in_transformers(tmp_path: Path) -> None:
    import transformers

    ours = vit()
    assert layouts.export(ours, tmp_path)
    theirs, notes = transformers.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert {name: found for name, found in notes.items() if found} == {}
    check_vit(ours, theirs.eval())


@pytest.mark.slow  # importing transformers takes seconds
@needs_transformers
def test_their_vit_computes_the_same_here(tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=4
    )
    theirs = shaken(transformers.ViTModel(config))
    theirs.save_pretrained(tmp_path)
    ours = Vit(VitConfig(**layouts.read_sizes(tmp_path, "vit")), PLAIN)
    ours.load_state_dict(layouts.read_weights(tmp_path, "vit"))
    check_vit(ours.eval(), theirs)


def test_weights_of_a_vit_come_back_as_they_went(tmp_path: Path) -> None:
    encoder = vit()
    layouts.export(encoder, tmp_path)
    assert layouts.read_sizes(tmp_path, "vit") == SIZES
    back, state = layouts.read_weights(tmp_path, "vit"), encoder.state_dict()
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_is_torchvision_s_both_ways(depth: int) -> None:
    """Same names, shapes, features and gradients; theirs has a last layer more."""
    models = importlib.import_module("torchvision.models")
    theirs = getattr(models, f"resnet{depth}")()
    theirs.fc = nn.Identity()
    torch.manual_seed(1)
    ours = ResNet(ResNetConfig(preset=f"resnet{depth}"), PLAIN)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    ours, theirs, x = ours.double(), theirs.double(), images(3, size=64).double()  # deep norms of few rows enlarge rounding
    torch.testing.assert_close(ours.eval().features(x), theirs.eval()(x), atol=1e-9, rtol=1e-9)
    left, right = ours.train().features(x), theirs.train()(x)
    torch.testing.assert_close(left, right, atol=1e-9, rtol=1e-9)
    left.square().mean().backward()
    right.square().mean().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-7, rtol=1e-6)


@pytest.mark.slow  # importing torchvision takes seconds
def test_torchvision_s_weights_come_in_and_ours_go_out(tmp_path: Path) -> None:
    theirs = shaken(importlib.import_module("torchvision.models").resnet18())
    save_file(theirs.state_dict(), tmp_path / WEIGHTS)
    assert layouts.read_image(tmp_path, "resnet") == {"channels": 3}
    ours = ResNet(ResNetConfig(**layouts.read_sizes(tmp_path, "resnet")), PLAIN)
    ours.load_state_dict(layouts.read_weights(tmp_path, "resnet"))
    x, head = images(3, size=64).double(), theirs.fc
    theirs.fc = nn.Identity()
    torch.testing.assert_close(ours.double().eval().features(x), theirs.double()(x), atol=1e-9, rtol=1e-9)
    theirs.fc = head
    assert layouts.export(shaken(ours.float()), tmp_path / "export")
    assert [path.name for path in (tmp_path / "export").iterdir()] == [WEIGHTS]
    missing, unexpected = theirs.load_state_dict(load_file(tmp_path / "export" / WEIGHTS), strict=False)
    assert (set(missing), unexpected) == ({"fc.weight", "fc.bias"}, [])
    theirs.fc = nn.Identity()
    torch.testing.assert_close(ours.double().features(x), theirs(x), atol=1e-9, rtol=1e-9)


@pytest.mark.slow
def test_the_shapes_of_weights_tell_which_resnet_it_is() -> None:
    models = importlib.import_module("torchvision.models")

    def sizes(name: str) -> dict[str, object]:
        with torch.device("meta"):
            state = getattr(models, name)().state_dict()
        return torchvision.sizes({}, {name: tuple(tensor.shape) for name, tensor in state.items()})

    for depth in (18, 34, 50):
        assert sizes(f"resnet{depth}") == {"depth": depth, "width": 64, "stem": "large"}
    for other in ("resnet101", "wide_resnet50_2", "resnext50_32x4d"):
        with pytest.raises(DataError, match="ResNet is read with depth 18, 34 or 50"):
            sizes(other)
    with pytest.raises(DataError, match=r"no ResNet under torchvision's names"):
        sizes("vgg11")


def test_weights_without_a_count_of_batches_start_at_none(tmp_path: Path) -> None:
    """torchvision's oldest files lack it."""
    model = ResNet(ResNetConfig(preset="resnet-tiny"), PLAIN)
    state = {name: w for name, w in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file({name: w.contiguous() for name, w in state.items()}, tmp_path / WEIGHTS)
    assert layouts.read_sizes(tmp_path, "resnet") == {"depth": 18, "width": 8, "stem": "small"}
    model.load_state_dict(layouts.read_weights(tmp_path, "resnet"))
    assert int(model.bn1.num_batches_tracked) == 0


def test_small_stem_keeps_the_resolution() -> None:
    model = ResNet(ResNetConfig(preset="resnet-tiny"), PLAIN)
    assert model.width == 64
    assert model.conv1(images(1)).shape[-1] == 32
    assert model.features(images(2)).shape == (2, 64)


def test_patches_are_laid_out_as_in_the_shards() -> None:
    from raysl.data.pixels import PixelFormat, to_patches, to_rows

    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    form = PixelFormat(32, 3, 4)
    tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    assert (patchify(tensor, 4).numpy() == to_patches(to_rows(pixels, form), form)).all()


def test_patches_have_to_divide_the_image() -> None:
    with pytest.raises(ConfigError, match=r"patch_size=5 must divide the image size 32"):
        Vit(VitConfig(patch_size=5), PLAIN)


@pytest.mark.parametrize(("kind", "config"), [(Vit, VitConfig(**SIZES)), (ResNet, ResNetConfig(preset="resnet-tiny"))])
def test_an_image_encoder_comes_back_with_its_statistics(kind: type, config: object, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = shaken(kind(config, OWN))
    load.save(model, tmp_path, load.describe(model, step=3))
    loaded, description = load.load_encoder(tmp_path)
    assert loaded.image == model.image == OWN
    assert description["step"] == 3
    torch.testing.assert_close(loaded.embed(images()), model.embed(images()))


@pytest.mark.parametrize("width", [4, 12])
def test_widths_at_which_a_cpu_crashes_are_refused(width: int) -> None:
    with pytest.raises(ValidationError, match="multiple of 8"):
        ResNetConfig(width=width)
