"""ResNet-18, 34 and 50 (He et al., 2015) under torchvision's names, so that weights travel both ways as they are.

Weights and activations are channels-last, which is what convolutions want on CPUs with bf16 and on GPUs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.models.avx2 import Convolution
from raysl.models.batch_norm import BatchNorm2d
from raysl.models.vision import ImageFormat, VisionEncoder
from raysl.models.vision_config import ResNetConfig

NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Block(nn.Module):
    """Two or three convolutions and a shortcut past them."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.build(channels, width, stride)
        out = width * self.expansion
        self.downsample = nn.Sequential()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(Convolution(channels, out, 1, stride), BatchNorm2d(out))

    def build(self, channels: int, width: int, stride: int) -> None:
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.downsample(x))


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    def build(self, channels: int, width: int, stride: int) -> None:
        self.conv1, self.bn1 = Convolution(channels, width, 3, stride), BatchNorm2d(width)
        self.conv2, self.bn2 = Convolution(width, width, 3), BatchNorm2d(width)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.bn2(self.conv2(x))
        return out


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions, the stride at the 3x3 (torchvision's choice)."""

    expansion = 4

    def build(self, channels: int, width: int, stride: int) -> None:
        self.conv1, self.bn1 = Convolution(channels, width, 1), BatchNorm2d(width)
        self.conv2, self.bn2 = Convolution(width, width, 3, stride), BatchNorm2d(width)
        self.conv3, self.bn3 = Convolution(width, width * 4, 1), BatchNorm2d(width * 4)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.bn3(self.conv3(x))
        return out


class ResNet(VisionEncoder):
    """Stem, four stages and the mean over the last map."""

    config: ResNetConfig

    def __init__(self, config: ResNetConfig, image: ImageFormat) -> None:
        super().__init__(config, image)
        self.block: type[Block] = Bottleneck if config.depth == 50 else BasicBlock
        small = config.stem == "small"
        self.conv1 = Convolution(image.channels, config.width, 3 if small else 7, 1 if small else 2)
        self.bn1 = BatchNorm2d(config.width)
        self._channels = config.width
        sizes = [config.width * 2**stage for stage in range(4)]
        stages = [self._stage(*a) for a in zip(sizes, NUM_BLOCKS[config.depth], (1, 2, 2, 2), strict=True)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _stage(self, width: int, num_blocks: int, stride: int) -> nn.Sequential:
        blocks = []
        for number in range(num_blocks):
            blocks.append(self.block(self._channels, width, stride if number == 0 else 1))
            self._channels = width * self.block.expansion
        return nn.Sequential(*blocks)

    @property
    def width(self) -> int:
        return self._channels

    def features(self, images: Tensor) -> Tensor:
        x = self.normalize(images).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(self.conv1(x)))
        if self.config.stem == "large":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3))  # (batch, width)
