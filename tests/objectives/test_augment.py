"""Views: what each change does to an image, worked by hand, and that they are drawn as torchvision's are."""

import contextlib
import importlib
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from raysl.objectives import augment
from raysl.objectives.augment import NUM_UNIFORM, Crop, views
from raysl.objectives.image_config import AugmentConfig

PLAIN = AugmentConfig(min_crop_area=1.0, flip=False, jitter_strength=0, grayscale_share=0)
OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def uniform(rows: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((rows, NUM_UNIFORM))).float()


def photographs(count: int, size: int = 32) -> Tensor:
    """Smooth random colours as bytes (count, 3, size, size)."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return (fine * 255).byte()


def test_without_changes_an_image_stays() -> None:
    images = photographs(3)
    torch.testing.assert_close(views(images, torch.full((3, NUM_UNIFORM), 0.5), PLAIN), images / 255)


def test_a_crop_is_resized_as_by_interpolation() -> None:
    x = photographs(2) / 255
    crop = Crop(*(torch.tensor(pair, dtype=torch.float32) for pair in ([3, 0], [5, 0], [20, 32], [17, 32])))
    out = augment.cut(x, crop, torch.tensor([False, False]))
    expected = torch.nn.functional.interpolate(x[:1, :, 3:23, 5:22], size=32, mode="bilinear", align_corners=False)
    torch.testing.assert_close(out[:1], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[1], x[1])
    torch.testing.assert_close(augment.cut(x, crop, torch.tensor([True, False]))[:1], expected.flip(3), atol=1e-5, rtol=1e-5)


def test_hue_of_red_turned_by_a_third_is_green() -> None:
    red = torch.tensor([1.0, 0.2, 0.2])[None, :, None, None]
    turned = augment.turn_hue(red, torch.tensor([1 / 3]))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.2, 1.0, 0.2]))


def test_hues_turn_alike_in_slices_and_among_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images, shift = torch.rand(20, 3, 4, 4, generator=generator), torch.rand(20, generator=generator) - 0.5
    place = torch.randint(0, 4, (20,), generator=generator).sort().values
    for at in range(4):
        chosen = augment.turn_chosen(place, shift)(images, at)
        assert torch.equal(augment.turn_slices(place, shift)(images.clone(), at), chosen)
        assert torch.equal((chosen != images).flatten(1).any(1), place == at)


def test_changes_of_colour_come_in_all_orders_alike() -> None:
    orders = augment._permutations((torch.arange(2400) + 0.5) / 2400)
    found, counts = orders.unique(dim=0, return_counts=True)
    assert found.tolist() == [list(order) for order in permutations(range(3))]
    assert counts.tolist() == [400] * 6


def test_a_blur_keeps_the_sum_of_its_weights_and_mirrors_at_the_edge() -> None:
    weights = augment.blur_weights(torch.tensor([1.0]), size=6, radius=1)[0]
    side, middle = np.exp(-0.5) / (1 + 2 * np.exp(-0.5)), 1 / (1 + 2 * np.exp(-0.5))
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    torch.testing.assert_close(weights[0, :3], torch.tensor([middle, 2 * side, 0.0], dtype=torch.float32))


def test_each_image_draws_for_itself_and_a_view_does_not_depend_on_its_neighbours() -> None:
    same = photographs(1).expand(300, -1, -1, -1)
    random = uniform(300)
    made = views(same, random, AugmentConfig(blur_share=0.5))
    assert len(torch.unique(made.flatten(1), dim=0)) == 300
    alone = views(same[:1], random[170:171], AugmentConfig(blur_share=0.5))
    torch.testing.assert_close(made[170:171], alone, atol=1e-5, rtol=1e-5)
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1 + 1e-5


def test_grey_images_keep_their_one_channel() -> None:
    grey = photographs(4)[:, :1]
    assert views(grey, uniform(4), AugmentConfig()).shape == grey.shape


def _torchvision() -> object:
    """torchvision's transforms; one of another build than torch lacks two operators."""
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.transforms.v2")


def statistics(made: Tensor) -> dict[str, Tensor]:
    """Numbers of each view that its changes move."""
    grey = augment.luma(made)
    found = {
        "brightness": grey.mean((1, 2, 3)), "contrast": grey.flatten(1).std(1),
        "saturation": (made.amax(1) - made.amin(1)).mean((1, 2)),
        "red against blue": (made[:, 0] - made[:, 2]).mean((1, 2)),
        "left against right": (grey - grey.flip(3))[..., :16].mean((1, 2, 3)),
        "roughness": grey.diff(dim=3).abs().mean((1, 2, 3)),
    }  # fmt: skip
    return {name: value.round(decimals=4) for name, value in found.items()}  # views that stay differ by rounding only


@pytest.mark.slow
@pytest.mark.parametrize("part", ["crop and flip", "jitter", "all"])
def test_views_are_distributed_as_torchvision_s(part: str) -> None:
    """Two-sample Kolmogorov-Smirnov tests of what is seen in 3,000 views of one image."""
    v2, count = _torchvision(), 3000
    image = photographs(1)
    cut = [v2.RandomResizedCrop(32, scale=(0.2, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    jitter = [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)]
    whole, theirs = AugmentConfig(), [*cut, *jitter, v2.RandomGrayscale(0.2)]
    if part == "crop and flip":
        whole, theirs = AugmentConfig(jitter_strength=0, grayscale_share=0), cut
    if part == "jitter":
        whole, theirs = AugmentConfig(min_crop_area=1, flip=False, grayscale_share=0), jitter
    torch.manual_seed(0)
    chain = v2.Compose([v2.ToDtype(torch.float32, scale=True), *theirs])
    expected = statistics(torch.stack([chain(image[0]) for _ in range(count)]))
    found = statistics(views(image.expand(count, -1, -1, -1), uniform(count, seed=1), whole))
    p_values = {name: ks_2samp(found[name].numpy(), expected[name].numpy()).pvalue for name in expected}
    assert {name: p for name, p in p_values.items() if p < 0.003} == {}
