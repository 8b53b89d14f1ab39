"""What the pretext tasks on images hide, predict and start from."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysl.data.pixels import PixelFormat, PixelRows, to_images, to_rows
from raysl.errors import ConfigError
from raysl.models.resnet import ResNet
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig, VitConfig
from raysl.models.vit import Vit, patchify
from raysl.objectives.base import Objective, Uniform
from raysl.objectives.image_config import MaeConfig, SimclrConfig
from raysl.objectives.mae import Mae
from raysl.objectives.simclr import Simclr
from tests.pixel_shards import random_images, write_shards

IMAGE = ImageFormat(size=16, channels=3, patch_size=4, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
FORM = PixelFormat(16, 3, 4)


def uniform_of(rows: int, seed: int = 0) -> Uniform:
    return Uniform(np.random.default_rng(seed), rows, np.arange(rows))


def vit(**settings: object) -> Vit:
    torch.manual_seed(0)
    return Vit(VitConfig(num_layers=2, width=32, num_heads=4, patch_size=4, **settings), IMAGE)


def resnet(depth: int = 18) -> ResNet:
    torch.manual_seed(0)
    return ResNet(ResNetConfig(depth=depth, width=8), IMAGE)


def mae(**settings: object) -> Mae:
    return Mae(MaeConfig(**{"decoder_layers": 1, "decoder_width": 32, "flip": False, **settings}), vit())


def rows_of(count: int) -> list[np.ndarray]:
    return list(to_rows(random_images(count)[0], FORM))


def batch_of(objective: Objective, count: int) -> dict[str, torch.Tensor]:
    return objective.collate(rows_of(count), uniform_of(count))


def test_mae_hides_three_quarters_of_each_image_and_others_in_each() -> None:
    batch = batch_of(mae(), 32)
    assert (batch["hidden"].shape, batch["visible"].shape) == ((32, 12), (32, 4))
    both = torch.cat([batch["hidden"], batch["visible"]], 1).sort(1).values
    assert (both == torch.arange(16)).all()
    assert len(torch.unique(batch["hidden"].sort(1).values, dim=0)) > 25
    counts = torch.bincount(batch_of(mae(), 400)["hidden"].flatten(), minlength=16)
    assert (counts / 400 - 0.75).abs().max() < 0.1


def test_mae_reads_visible_patches_only_and_scores_hidden_ones_only() -> None:
    objective = mae().eval()
    batch = batch_of(objective, 4)
    with torch.no_grad():
        before = objective.encoder.encode(objective.encoder.normalize_patches(batch["patches"]), batch["visible"])
        places = batch["hidden"][..., None].expand(-1, -1, 48)
        changed = batch["patches"].scatter(1, places, 255 - batch["patches"].gather(1, places))
        after = objective.encoder.encode(objective.encoder.normalize_patches(changed), batch["visible"])
    assert torch.equal(before, after)
    patches = objective.encoder.normalize_patches(batch["patches"]).requires_grad_()
    errors = objective.patch_errors(torch.zeros(4, 12, 48), patches.gather(1, places))
    errors.sum().backward()
    seen = patches.grad.abs().sum(2).gather(1, batch["visible"])
    assert float(seen.max()) == 0


def test_mae_predicts_from_visible_patches_and_its_loss_is_over_hidden_ones_alone() -> None:
    """Check 10 through the whole loss, in double precision, by hand."""
    objective = mae(normalize_target=False).eval().double()
    predicted: list[torch.Tensor] = []
    objective.decoder.register_forward_hook(lambda module, given, out: predicted.append(out))
    batch = batch_of(objective, 4)
    places = batch["hidden"][..., None].expand(-1, -1, 48)
    with torch.no_grad():
        loss = objective(batch, objective.targets(batch)).loss
        hidden = objective.encoder.normalize_patches(batch["patches"]).gather(1, places)
        changed = batch["patches"].scatter(1, places, 255 - batch["patches"].gather(1, places))
        objective(batch | {"patches": changed}, objective.targets(batch))
    assert predicted[0].shape == hidden.shape
    assert float((loss - (predicted[0] - hidden).square().mean()).abs()) < 1e-9
    assert torch.equal(predicted[0], predicted[1])


@pytest.mark.parametrize("kind", ["simclr", "mae"])
def test_what_is_embedded_is_the_image_as_it_is_by_the_encoder_alone(kind: str) -> None:
    """Check 10: nothing mirrored, cut or coloured, and no projection head."""
    objective = (Simclr(SimclrConfig(), resnet()) if kind == "simclr" else Mae(MaeConfig(decoder_width=32), vit())).eval()
    rows = rows_of(6)
    images = torch.from_numpy(random_images(6)[0].transpose(0, 3, 1, 2).copy())
    inputs = objective.inputs(rows)
    assert torch.equal(inputs, images if kind == "simclr" else patchify(images, 4))
    with torch.no_grad():
        expected = F.normalize(objective.encoder.features(images), dim=-1)
        torch.testing.assert_close(objective.embed(inputs), expected, atol=1e-6, rtol=1e-5)


def test_a_target_is_normalised_for_each_patch_by_itself() -> None:
    target = torch.tensor([[[1.0, 3.0], [10.0, 30.0]]])
    errors = mae().patch_errors(torch.zeros(1, 2, 2), target)
    assert errors.flatten().tolist() == pytest.approx([0.5, 0.5], abs=1e-5)  # deviations of +-0.7071 of each patch
    plain = mae(normalize_target=False).patch_errors(torch.zeros(1, 2, 2), target)
    assert plain.flatten().tolist() == [5.0, 500.0]


def test_patches_of_another_size_on_disk_are_cut_anew() -> None:
    images = random_images(3)[0]
    objective = mae()
    whole = Mae(objective.config, Vit(objective.encoder.config, ImageFormat(16, 3, 16, IMAGE.mean, IMAGE.std)))
    cut = objective.collate(list(to_rows(images, FORM)), uniform_of(3))
    anew = whole.collate(list(to_rows(images, PixelFormat(16, 3, 16))), uniform_of(3))
    assert torch.equal(cut["patches"], anew["patches"])


def test_patches_and_images_have_one_embedding() -> None:
    objective = mae().eval()
    rows = rows_of(5)
    images = torch.from_numpy(to_images(np.stack(rows), FORM))
    with torch.no_grad():
        torch.testing.assert_close(
            objective.embed(objective.collate(rows, uniform_of(5))["patches"]), objective.encoder.embed(images),
            atol=1e-6, rtol=1e-5,
        )  # fmt: skip


def test_a_mirrored_image_is_mirrored_pixel_by_pixel() -> None:
    objective = Mae(MaeConfig(decoder_width=32), vit())
    rows = np.stack(rows_of(2))
    mirrored = objective._mirrored(objective.inputs(list(rows))).reshape(2, -1).numpy()
    assert (to_images(mirrored, FORM) == to_images(rows, FORM)[..., ::-1]).all()


def test_mae_learns_from_the_mirrored_images_of_those_that_flip() -> None:
    objective = mae(flip=True).eval()
    batch = batch_of(objective, 64)
    assert 16 < int(batch["flipped"].sum()) < 48
    plain = batch | {"patches": objective._mirrored(batch["patches"]), "flipped": torch.zeros(64, dtype=torch.bool)}
    mixed = torch.where(batch["flipped"][:, None, None], plain["patches"], batch["patches"])
    with torch.no_grad():
        losses = [objective(b, objective.targets(b)).loss for b in (batch, plain | {"patches": mixed}, plain)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    assert not batch_of(mae(flip=False), 64)["flipped"].any()


def test_untrained_mae_loss_is_one() -> None:
    objective = mae()
    batch = batch_of(objective, 64)
    with torch.no_grad():
        torch.nn.init.zeros_(objective.decoder.leave.weight)
        loss = float(objective(batch, objective.targets(batch)).loss)
    assert loss == pytest.approx(47 / 48, abs=0.01)


def test_untrained_contrast_is_that_of_guessing() -> None:
    """ln(2N - 1) when no view is like another; views of untrained networks are alike all the same, so the bound is loose."""
    objective = Simclr(SimclrConfig(temperature=10.0), resnet())
    batch = batch_of(objective, 64)
    with torch.no_grad():
        loss = float(objective(batch, objective.targets(batch)).loss)
    assert loss == pytest.approx(math.log(2 * 64 - 1), rel=0.01)


def test_two_views_of_a_row_are_drawn_apart() -> None:
    objective = Simclr(SimclrConfig(), resnet())
    first, second = objective._views(batch_of(objective, 8)).chunk(2)
    assert not torch.equal(first, second)
    again = objective._views(batch_of(objective, 8)).chunk(2)
    assert torch.equal(first, again[0])


def test_the_same_image_twice_in_a_batch_has_views_of_its_own() -> None:
    """Check 7: rows of a batch draw their own random numbers, for views and for hidden patches."""
    objective, row = Simclr(SimclrConfig(), resnet()), rows_of(1)[0]
    drawn = objective._views(objective.collate([row] * 4, uniform_of(4)))
    assert len(torch.unique(drawn.flatten(1), dim=0)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["simclr", "mae"])
def test_one_batch_is_learnt_by_heart(kind: str) -> None:
    objective = Simclr(SimclrConfig(temperature=0.1), resnet()) if kind == "simclr" else mae()
    batch = batch_of(objective, 16)
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(150 if kind == "simclr" else 300):
        loss = objective(batch, objective.targets(batch)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < (0.05 if kind == "simclr" else 0.25) * losses[0]


def test_mae_needs_a_vit() -> None:
    with pytest.raises(ConfigError, match=r"'mae' trains a model of class Vit .*, got ResNet"):
        Mae(MaeConfig(), resnet())


def test_mae_needs_two_patches() -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.model\.patch_size=8 makes one patch"):
        Mae(MaeConfig(), Vit(VitConfig(num_layers=1, width=16, patch_size=8), ImageFormat(8, 3, 8, (0.5,) * 3, (0.2,) * 3)))


def test_mae_needs_two_numbers_in_a_patch_that_it_normalises() -> None:
    """One has a deviation that is no number."""
    with pytest.raises(ConfigError, match=r"one grey pixel has none\. Use pretrain\.objective\.normalize_target=false"):
        Mae(MaeConfig(), Vit(VitConfig(num_layers=1, width=16, patch_size=1), ImageFormat(8, 1, 8, (0.5,), (0.2,))))


def test_parts_that_the_loss_does_not_reach_are_left_out_of_training() -> None:
    for objective in (mae(), Simclr(SimclrConfig(), resnet()), Simclr(SimclrConfig(), vit())):
        batch = batch_of(objective, 4)
        output = objective(batch, objective.targets(batch))
        output.loss.backward()
        assert tuple(output.metrics) == objective.config.parts
        assert [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None] == []


def test_statistics_of_channels_are_those_of_the_pixels(tmp_path: Path) -> None:
    from raysl.data.pixels import channel_statistics

    mean, std = channel_statistics(PixelRows(write_shards(tmp_path / "train", 40, FORM)))
    pixels = random_images(40)[0] / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), atol=1e-9)


def test_normalisation_travels_with_the_network() -> None:
    model = resnet()
    images = torch.from_numpy(random_images(4)[0].transpose(0, 3, 1, 2).copy())
    torch.testing.assert_close(model.normalize(images), (images / 255 - 0.4) / 0.3)
    torch.testing.assert_close(model.normalize(images / 255), (images / 255 - 0.4) / 0.3)
    assert F.cosine_similarity(model.eval().embed(images), model.embed(images / 255)).min() > 0.9999
