"""Vision transformer (Dosovitskiy et al., 2020), plain: the blocks that text uses, on patches."""

import numpy as np
import torch
from torch import Tensor, nn

from raysl.errors import ConfigError
from raysl.models.encoder import at_least_float
from raysl.models.transformer import Block, BlockStyle
from raysl.models.vision import ImageFormat, VisionEncoder
from raysl.models.vision_config import VitConfig

VIT_STYLE = BlockStyle(pre_norm=True, gelu="none", norm_eps=1e-12)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (batch, channel, height, width) -> patches (batch, patches, row x column x channel), as shards hold them."""
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch_size**2 * channels)


def initialize_blocks(module: nn.Module) -> None:
    """Weights that keep the size of what passes through (Glorot & Bengio, 2010), zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


def sine_positions(grid: int, width: int) -> Tensor:
    """Fixed positions of a square of patches (grid x grid, width): half of the numbers tell the row, half the column."""
    frequency = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
    angle = np.arange(grid)[:, None] * frequency  # (grid, width / 4)
    one = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)  # (grid, width / 2)
    rows, columns = np.repeat(one, grid, axis=0), np.tile(one, (grid, 1))
    return torch.from_numpy(np.concatenate([columns, rows], axis=1)).float()


class Vit(VisionEncoder):
    """[CLS] and patches through transformer blocks; features are the mean of the patches' last vectors."""

    config: VitConfig

    def __init__(self, config: VitConfig, image: ImageFormat) -> None:
        super().__init__(config, image)
        if image.size % config.patch_size:
            raise ConfigError(f"pretrain.model.patch_size={config.patch_size} must divide the image size {image.size}.")
        self.grid = image.size // config.patch_size
        self.patches = nn.Linear(config.patch_size**2 * image.channels, config.width)
        self.cls = nn.Parameter(torch.zeros(config.width))
        self.positions = nn.Parameter(torch.zeros(self.grid**2 + 1, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.feedforward_width, config.dropout, VIT_STYLE)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=VIT_STYLE.norm_eps)
        initialize_blocks(self)
        nn.init.normal_(self.cls, std=0.02)
        with torch.no_grad():
            self.positions[1:] = sine_positions(self.grid, config.width)

    @property
    def width(self) -> int:
        return self.config.width

    def cut(self, images: Tensor) -> Tensor:
        """Bytes, or numbers between 0 and 1 -> normalised patches (batch, patches, numbers of a patch)."""
        return patchify(self.normalize(images), self.config.patch_size)

    def normalize_patches(self, patches: Tensor) -> Tensor:
        """The same for patches of bytes as shards hold them."""
        pixels = patches.to(self.mean.dtype).reshape(*patches.shape[:2], -1, self.image.channels) / 255
        return ((pixels - self.mean.flatten()) / self.std.flatten()).flatten(2)

    def encode(self, patches: Tensor, visible: Tensor | None = None) -> Tensor:
        """Vectors of [CLS] and of the patches at the places `visible` (batch, visible), in that order; None shows all.

        `patches` (batch, patches, numbers of a patch) -> (batch, 1 + visible, width). Hidden patches cost nothing.
        """
        places = self.positions[1:].expand(len(patches), -1, -1)
        if visible is not None:
            patches, places = take(patches, visible), take(places, visible)
        x = self.patches(patches) + places
        start = (self.cls + self.positions[0]).to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([start, x], dim=1)
        for block in self.blocks:
            x = block(x, None)
        out: Tensor = self.norm(x)
        return out

    def features(self, images: Tensor) -> Tensor:
        return self.pool(self.encode(self.cut(images)))

    def pool(self, vectors: Tensor) -> Tensor:
        """One vector of each image (batch, width): the mean over its patches."""
        return at_least_float(vectors)[:, 1:].mean(1)


def take(x: Tensor, places: Tensor) -> Tensor:
    """Rows of x (batch, rows, width) at `places` (batch, chosen) -> (batch, chosen, width)."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
