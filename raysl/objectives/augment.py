"""Views of images (Chen et al., 2020, appendix A): every image draws its own parameters, the whole batch is done at once.

Plain torch on the device that trains. The parameters come from uniform numbers that are given, so a view is a function of
(seed, step, row). Resizing and blurring are products with small matrices, one for each image: on a CPU about ten times as
many images a second as one by one through PIL.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from raysl.objectives.image_config import AugmentConfig

ATTEMPTS = 10
"""Draws of a crop's shape; the first that fits is taken, as in torchvision. When none fits it is the whole image."""
CROP = 2 * ATTEMPTS + 2
NUM_UNIFORM = CROP + 1 + 6 + 1 + 2
"""Uniform numbers that one view needs: crop, flip, jitter, grayscale, blur."""
MIN_BLUR = 0.1
TINY = 1e-12
CACHED_NUMBERS = 2**20
"""Numbers that a CPU changes at a time, so that they stay in its cache."""
LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601-2), as in torchvision."""


@dataclass(frozen=True)
class Crop:
    """Rectangles of images, in pixels, one of each per image (batch,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def views(images: Tensor, uniform: Tensor, config: AugmentConfig) -> Tensor:
    """One view of each image; `images` (batch, channel, height, width) are bytes or numbers between 0 and 1.

    `uniform` (batch, NUM_UNIFORM) lies in [0, 1). Returns floats between 0 and 1 of the same size.
    """
    if images.device.type == "cpu":
        size = max(1, CACHED_NUMBERS // images[0].numel())
        parts = zip(images.split(size), uniform.split(size), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat([_views_in_order_of_hue(part, numbers, config) for part, numbers in parts])
    return _views(images, uniform, config)


def _views_in_order_of_hue(images: Tensor, uniform: Tensor, config: AugmentConfig) -> Tensor:
    """Images whose hue turns at the same place lie side by side, so that a CPU turns each hue once, on slices."""
    order = hue_place(_parts(uniform)[2]).argsort()
    x = _views(images[order], uniform[order], config)
    out = torch.empty_like(x)
    out[order] = x
    return out


def _parts(uniform: Tensor) -> tuple[Tensor, ...]:
    """Numbers for crop, flip, jitter, grayscale and blur."""
    return torch.split(uniform, [CROP, 1, 6, 1, 2], dim=1)


def _views(images: Tensor, uniform: Tensor, config: AugmentConfig) -> Tensor:
    """A GPU does all images alike, the few that change included: it never waits for a number that it computed."""
    crop, flip, jitter, grey, blur = _parts(uniform)
    mirrored = (flip[:, 0] < 0.5) & config.flip
    x = cut(scaled(images, uniform.dtype), draw_crop(crop, images.shape[-1], config.min_crop_area), mirrored)
    if config.jitter_strength:
        x = change_colours(x, jitter, config)
    if images.shape[1] == 3 and config.grayscale_share:
        x = without_colours(x, grey[:, 0] < config.grayscale_share)
    if config.blur_share:
        x = blurred(x, blur, config)
    return x


def without_colours(x: Tensor, chosen: Tensor) -> Tensor:
    """`x` with the `chosen` images (batch,) grey."""
    if x.device.type == "cpu":
        rows = chosen.nonzero()[:, 0]
        x[rows] = luma(x[rows]).expand(-1, 3, -1, -1)
        return x
    return torch.where(chosen[:, None, None, None], luma(x), x)


def scaled(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)


def draw_crop(uniform: Tensor, size: int, min_area: float) -> Crop:
    """Area uniform in [min_area, 1], ratio of the sides log-uniform in [3/4, 4/3], place uniform: torchvision's draw."""
    area = size**2 * (min_area + (1 - min_area) * uniform[:, :ATTEMPTS])
    ratio = torch.exp(math.log(4 / 3) * (2 * uniform[:, ATTEMPTS : 2 * ATTEMPTS] - 1))
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()  # (batch, attempts)
    fits = (width <= size) & (height <= size) & (width > 0) & (height > 0)
    first = fits.byte().argmax(1, keepdim=True)
    width, height = width.gather(1, first)[:, 0], height.gather(1, first)[:, 0]
    whole = ~fits.any(1)
    width, height = width.masked_fill(whole, size), height.masked_fill(whole, size)
    place = uniform[:, 2 * ATTEMPTS :]
    return Crop((place[:, 0] * (size - height + 1)).floor(), (place[:, 1] * (size - width + 1)).floor(), height, width)


def cut(x: Tensor, crop: Crop, mirrored: Tensor) -> Tensor:
    """Crops of square images, resized to the images' size by bilinear weights and mirrored where asked."""
    size = x.shape[-1]
    rows = resize_weights(crop.top, crop.height, size)
    columns = resize_weights(crop.left, crop.width, size, mirrored)
    return apply_weights(x, rows, columns)


def resize_weights(start: Tensor, length: Tensor, size: int, mirrored: Tensor | None = None) -> Tensor:
    """Weights (batch, size, size) with which `size` numbers mix into `size` others spread over [start, start + length).

    Those of `mirrored` (batch,) come in the other order.
    """
    steps = torch.arange(size, device=start.device, dtype=start.dtype)
    source = (steps + 0.5) * (length / size)[:, None] - 0.5  # (batch, out)
    source = torch.minimum(source.clamp_min(0), (length - 1)[:, None]) + start[:, None]
    if mirrored is not None:
        source = torch.where(mirrored[:, None], source.flip(1), source)
    return (source[..., None] - steps).abs_().neg_().add_(1).clamp_min_(0)  # (batch, out, in)


def apply_weights(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T for every channel, where each image has weights of its own (batch, out, in)."""
    batch, channels, height, width = x.shape
    x = torch.bmm(x.reshape(batch, channels * height, width), columns.transpose(1, 2))
    x = x.reshape(batch, channels, height, -1)
    return rows[:, None] @ x


def hue_place(jitter: Tensor) -> Tensor:
    """How many of brightness, contrast and saturation come before the hue (batch,): 0 to 3, each as likely."""
    return (jitter[:, 4] * 4).long()


def change_colours(x: Tensor, jitter: Tensor, config: AugmentConfig) -> Tensor:
    """Brightness, contrast, saturation and hue, each changed at random and in an order of its own for each image."""
    strength = 0.8 * config.jitter_strength
    factor = 1 + strength * (2 * jitter[:, :3] - 1)  # (batch, 3): brightness, contrast, saturation
    factor = torch.where(jitter[:, 5:] < config.jitter_share, factor, 1.0)
    shift = torch.where(jitter[:, 5] < config.jitter_share, 0.2 * config.jitter_strength * (2 * jitter[:, 3] - 1), 0.0)
    turn_hues = (turn_slices if x.device.type == "cpu" else turn_chosen)(hue_place(jitter), shift)
    order = _permutations(jitter[:, 4])
    for turn in range(4):
        if x.shape[1] == 3:
            x = turn_hues(x, turn)
        if turn < 3:
            x = _blend(x, order[:, turn], factor)
    return x


HueTurn = Callable[[Tensor, int], Tensor]
"""Turns the hue of those of the images whose place is the given one."""


def turn_slices(place: Tensor, shift: Tensor) -> HueTurn:
    """For images sorted by `place`, in place."""
    before = [0, *place.bincount(minlength=4).cumsum(0).tolist()]

    def turn(x: Tensor, at: int) -> Tensor:
        part = slice(before[at], before[at + 1])
        if before[at] < before[at + 1]:
            x[part] = turn_hue(x[part], shift[part])
        return x

    return turn


def turn_chosen(place: Tensor, shift: Tensor) -> HueTurn:
    """For images in any order: four times the work, and no waiting."""
    return lambda x, at: torch.where((place == at)[:, None, None, None], turn_hue(x, shift), x)


def _permutations(uniform: Tensor) -> Tensor:
    """An order of (0, 1, 2) for each image (batch, 3), from what is left of the number that placed the hue."""
    number = (uniform * 4 % 1 * 6).long().clamp_max(5)
    first, second = number // 2, number % 2  # the place of the second among the two that are left, in rising order
    rest = torch.stack([(first == 0).long(), 2 - (first == 2).long()], dim=1)
    return torch.stack([first, rest.gather(1, second[:, None])[:, 0], rest.gather(1, 1 - second[:, None])[:, 0]], dim=1)


def _blend(x: Tensor, which: Tensor, factors: Tensor) -> Tensor:
    """Image i between itself and black (0), its mean grey (1) or its grey (2), by the factor of that change."""
    factor = factors.gather(1, which[:, None])[:, :, None, None]  # (batch, 1, 1, 1)
    grey, kind = luma(x), which[:, None, None, None]  # without colours its grey is the image: saturation leaves it alone
    mean = grey.mean((2, 3), keepdim=True)
    other = (grey * ((1 - factor) * (kind == 2))).add_(mean * (1 - factor) * (kind == 1))
    return torch.addcmul(other, x, factor).clamp_(0, 1)


def luma(x: Tensor) -> Tensor:
    """Grey of each pixel (batch, 1, height, width)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def turn_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Hue moved by `shift` turns (batch,), value and saturation kept (HSV, Smith, 1978)."""
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = chroma.clamp_min(TINY)
    sixths = torch.where(
        value == red, (green - blue) / safe, torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    sixths = sixths.add_(6 * shift[:, None, None]).remainder_(6)[:, None]  # (batch, 1, height, width), 0 to 6
    centres = torch.arange(0, 6, 2, dtype=x.dtype, device=x.device)[:, None, None]
    away = (sixths - centres).abs_().sub_(3).abs_()  # 3 minus how far, round the circle, from red, green, blue
    return torch.addcmul(low[:, None], chroma[:, None], away.sub_(1).clamp_(0, 1))


def blurred(x: Tensor, uniform: Tensor, config: AugmentConfig) -> Tensor:
    """Gaussian blur of a share of the images over about a tenth of their size, mirrored at the edges."""
    size = x.shape[-1]
    deviation = MIN_BLUR + (config.max_blur - MIN_BLUR) * uniform[:, 0]
    weights = blur_weights(deviation, size, radius=max(1, size // 20))
    none = torch.eye(size, dtype=x.dtype, device=x.device)
    weights = torch.where((uniform[:, 1] < config.blur_share)[:, None, None], weights, none)
    return apply_weights(x, weights, weights)


def blur_weights(deviation: Tensor, size: int, radius: int) -> Tensor:
    """Weights (batch, size, size) of a Gaussian of each `deviation`, cut off at `radius` pixels."""
    offsets = torch.arange(-radius, radius + 1, device=deviation.device)
    kernel = torch.exp(-0.5 * (offsets / deviation[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)  # (batch, 2 radius + 1)
    places = torch.arange(size, device=deviation.device)[:, None] + offsets  # (size, 2 radius + 1)
    places = (size - 1) - ((size - 1) - places.abs()).abs()  # mirrored at both edges
    weights = kernel.new_zeros(len(deviation), size, size)
    index = places.expand(len(deviation), -1, -1)
    return weights.scatter_add_(2, index, kernel[:, None, :].expand(-1, size, -1).contiguous())
