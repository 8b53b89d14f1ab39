"""Hidden patches (MAE, He et al., 2021): the encoder sees a quarter of the patches, a light decoder predicts the rest.

Rows are patches already, so nothing is cut while training. Attention does not mind the order of its rows: the decoder reads
[CLS], the visible patches and the hidden places one after the other, and nothing is put back into order.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.data.pixels import Pixels, to_images, to_patches, to_rows
from raysl.data.rows import Row
from raysl.errors import ConfigError
from raysl.models.encoder import at_least_float
from raysl.models.transformer import Block
from raysl.models.vit import VIT_STYLE, Vit, initialize_blocks, sine_positions, take
from raysl.objectives.base import Batch, StepOutput, Uniform, as_tensors
from raysl.objectives.image_config import MaeConfig
from raysl.objectives.images import ImageObjective

EPSILON = 1e-6
"""Added to the variance of a patch before it is divided by."""


class Mae(ImageObjective):
    """Each image hides patches of its own; the loss is over hidden patches only."""

    Config = MaeConfig
    encoder_class: ClassVar[type[Vit]] = Vit
    encoder: Vit

    def __init__(self, config: MaeConfig, encoder: Vit) -> None:
        super().__init__(config, encoder)
        self.leave_out(encoder.positions)  # fixed, as in the paper
        self.num_patches = encoder.grid**2
        if self.num_patches < 2:
            raise ConfigError(
                f"pretrain.objective 'mae' hides some patches of an image and shows the others, but "
                f"pretrain.model.patch_size={encoder.config.patch_size} makes one patch of an image. Choose a smaller one."
            )
        if encoder.patches.in_features == 1 and config.normalize_target:
            raise ConfigError(
                "pretrain.objective 'mae' predicts a patch up to its own mean and deviation, and one grey pixel has none. "
                "Use pretrain.objective.normalize_target=false, or a pretrain.model.patch_size above 1."
            )
        self.num_hidden = min(max(round(self.num_patches * config.mask_ratio), 1), self.num_patches - 1)
        self.decoder = Decoder(config, encoder)

    def collate(self, rows: Sequence[Row], uniform: Uniform) -> Batch:
        random = uniform(self.num_patches + 1)
        order = random[:, 1:].argsort(1)
        hidden, visible = order[:, : self.num_hidden], order[:, self.num_hidden :]
        flipped = (random[:, 0] < 0.5) & self.config.flip
        return as_tensors(
            patches=self._patches(self.stack(rows)), visible=visible.copy(), hidden=hidden.copy(), flipped=flipped
        )

    def inputs(self, rows: Sequence[Row]) -> Tensor:
        return torch.from_numpy(self._patches(self.stack(rows)))

    def _patches(self, rows: Pixels) -> Pixels:
        """Patches (rows, patches, bytes); rows that were prepared with patches of another size are cut anew."""
        form, size = self.pixel_format, self.encoder.config.patch_size
        if form.patch_size != size:
            wanted = replace(form, patch_size=size)
            rows, form = to_rows(to_images(rows, form).transpose(0, 2, 3, 1), wanted), wanted
        return to_patches(rows, form)

    def _mirrored(self, patches: Tensor) -> Tensor:
        grid, size = self.encoder.grid, self.encoder.config.patch_size
        cut = patches.view(len(patches), grid, grid, size, size, -1)
        return cut.flip(2, 4).view(patches.shape)

    def targets(self, batch: Batch) -> Tensor:
        return torch.full((1,), float(batch["hidden"].numel()), device=batch["hidden"].device)

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        patches = batch["patches"]
        if self.config.flip:
            patches = torch.where(batch["flipped"][:, None, None], self._mirrored(patches), patches)
        patches = self.encoder.normalize_patches(patches)
        vectors = self.encoder.encode(patches, batch["visible"])
        predicted = self.decoder(vectors, batch["visible"], batch["hidden"])
        loss = self.patch_errors(predicted, take(patches, batch["hidden"])).sum() / totals[0]
        return StepOutput(loss, {"hidden_patches": loss.detach()})

    def patch_errors(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each patch (batch, patches)."""
        if self.config.normalize_target:
            variance, mean = torch.var_mean(target, -1, keepdim=True)
            target = (target - mean) / (variance + EPSILON).sqrt()
        return (at_least_float(predicted) - target).square().mean(-1)

    def embed(self, inputs: Tensor) -> Tensor:
        """Embedding (batch, width) of patches as `collate` leaves them, all of them visible."""
        vectors = self.encoder.encode(self.encoder.normalize_patches(inputs))
        return F.normalize(at_least_float(self.encoder.pool(vectors)), dim=-1)


class Decoder(nn.Module):
    """Narrow transformer that predicts the numbers of hidden patches; thrown away after pretraining."""

    positions: Tensor

    def __init__(self, config: MaeConfig, encoder: Vit) -> None:
        super().__init__()
        width = config.decoder_width
        self.enter = nn.Linear(encoder.width, width)
        self.hidden_patch = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_heads, 4 * width, 0.0, VIT_STYLE) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(width, eps=VIT_STYLE.norm_eps)
        self.leave = nn.Linear(width, encoder.patches.in_features)
        self.register_buffer("positions", sine_positions(encoder.grid, width), persistent=False)
        initialize_blocks(self)
        nn.init.normal_(self.hidden_patch, std=0.02)

    def forward(self, vectors: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Vectors of [CLS] and the `visible` patches (batch, 1 + visible, width) -> numbers of the `hidden` ones."""
        x = self.enter(vectors)
        places = self.positions.to(x.dtype).expand(len(x), -1, -1)
        seen = x[:, 1:] + take(places, visible)
        unseen = self.hidden_patch.to(x.dtype) + take(places, hidden)
        x = torch.cat([x[:, :1], seen, unseen], dim=1)  # (batch, 1 + patches, width)
        for block in self.blocks:
            x = block(x, None)
        out: Tensor = self.leave(self.norm(x[:, -hidden.shape[1] :]))
        return out
