"""Networks that translate a signal to another signal of the same size, and discriminators of patches.

- `UNetTranslator`, `PatchDiscriminator`: pix2pix (Isola et al. 2017, arXiv:1611.07004).
- `ResNetTranslator`: the transformer network of Johnson et al. 2016 (arXiv:1603.08155) with the changes of CycleGAN
  (Zhu et al. 2017, arXiv:1703.10593): reflection padding in all blocks, instance normalization, transposed
  convolutions.

All support sequences, images and volumes (`ndim` 1, 2 or 3). Where the papers and the authors' code differ, these
networks follow the code (github.com/junyanz/pytorch-CycleGAN-and-pix2pix): dropout follows the second to fourth
upsampling of the U-Net instead of the first to third, and a layer before a norm has a bias only if the norm is
`instance`, where the bias has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gan_core.errors import DataError
from gan_core.nn.blocks import CONVOLUTIONS, TRANSPOSED
from gan_core.nn.blocks import norm as norm_layer
from gan_core.nn.initialization import initialize_normal
from gan_core.recipe import Size

Axes = Literal[1, 2, 3]
"""Number of axes of a sample, without the channels: 1 for sequences, 2 for images, 3 for volumes."""
Probability = Annotated[float, Field(ge=0, lt=1)]
"""Probability that dropout zeroes a value."""
GROWTH = 8
"""Maximum number of channels of a U-Net or a PatchGAN, as a multiple of its width."""


def check_sides(sides: Sequence[int], network: str, *, multiple: int = 1, least: int = 1, remedy: str) -> None:
    """Checks that a network accepts samples of a size.

    Args:
        sides: sides of a sample, without batch and channels.
        network: name of the network, for the message.
        multiple: number by which every side must be divisible.
        least: minimum side.
        remedy: advice for the error message.

    Raises:
        DataError: a side is too short or not a multiple.
    """
    if any(side % multiple or side < least for side in sides):
        size = "x".join(str(side) for side in sides)
        wanted = f"multiples of {multiple}, at least {least}" if multiple > 1 else f"{least} or more"
        raise DataError(f"the sample's size is {size}; {network} needs sides of {wanted}. {remedy}.")


def initialize(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02²) and gains from N(1, 0.02²), and sets biases to 0 (Isola et al. 2017)."""
    initialize_normal(module)
    if isinstance(module, (*CONVOLUTIONS.values(), *TRANSPOSED.values())) and module.bias is not None:
        nn.init.zeros_(module.get_parameter("bias"))


LOCAL_NORMS = frozenset({"batch", "none"})
"""Norms that do not use statistics of the sample in evaluation mode."""


def fastest_layout(norm: str, ndim: int) -> torch.memory_format | None:
    """Returns the fastest memory layout for a network's weights: contiguous for images with instance normalization.

    Instance normalization needs a contiguous input, so in channels-last every layer would convert the layout twice. For
    volumes, channels-last speeds up the convolutions by more than these conversions take. None stands for
    channels-last; see `gan_core.training.layout`.
    """
    return torch.contiguous_format if norm == "instance" and ndim == 2 else None


class Stage(nn.Sequential):
    """A layer, a norm and an activation.

    Args:
        layer: a convolution.
        kind: name of the norm.
        channels: channels after the layer.
        activation: the activation.
        ndim: number of axes.
    """

    def __init__(self, layer: nn.Module, kind: str, channels: int, activation: nn.Module, ndim: int):
        super().__init__(layer, norm_layer(kind, channels, ndim=ndim), activation)


class ResidualBlock(nn.Module):
    """Residual block of two convolutions of size 3 with reflection padding; `[B, width, …]` to the same shape.

    Args:
        width: channels.
        kind: name of the norm.
        dropout: dropout probability between the convolutions.
        ndim: number of axes.
    """

    def __init__(self, width: int, kind: str, dropout: float, ndim: int):
        super().__init__()

        def conv() -> nn.Module:
            return CONVOLUTIONS[ndim](width, width, 3, padding=1, padding_mode="reflect", bias=kind == "instance")

        self.conv1, self.norm1 = conv(), norm_layer(kind, width, ndim=ndim)
        self.conv2, self.norm2 = conv(), norm_layer(kind, width, ndim=ndim)
        self.activation, self.dropout = nn.ReLU(inplace=True), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.norm1(self.conv1(x))))
        return x + self.norm2(self.conv2(hidden))


class ResNetTranslator(nn.Module):
    """Residual blocks at a quarter of the resolution (Zhu et al. 2017, arXiv:1703.10593, section 4).

    `[B, in_channels, …]` to `[B, out_channels, …]` of the same size, in [-1, 1].

    Args:
        in_channels: channels of the source.
        out_channels: channels of the target.
        width: channels at full resolution; the residual blocks have `4 * width`.
        blocks: number of residual blocks. The paper has 6 for images of 128 pixels and 9 for 256 and more.
        norm: `instance`, `batch`, `layer` or `none`.
        dropout: dropout probability in the residual blocks.
        ndim: number of axes.

    Attributes:
        multiple: number by which the sides of a sample must be divisible.
        least: minimum side; reflection padding at a quarter of the resolution needs at least two values.
        receptive_radius: largest distance from an input to an output that depends on it, in evaluation mode; None if
            outputs depend on the whole sample, through the statistics of `instance` or `layer`.
    """

    multiple, least = 4, 8
    receptive_radius: int | None

    def __init__(
        self,
        *,
        in_channels: Size = 3,
        out_channels: Size = 3,
        width: Size = 64,
        blocks: Size = 9,
        norm: str = "instance",
        dropout: Probability = 0.0,
        ndim: Axes = 2,
    ):
        super().__init__()
        conv, widths = CONVOLUTIONS[ndim], (width, 2 * width, 4 * width)

        def stage(layer: nn.Module, channels: int) -> nn.Module:
            return Stage(layer, norm, channels, nn.ReLU(inplace=True), ndim)

        self.memory_format = fastest_layout(norm, ndim)
        ends, halvings, block = 3 + 3, 1 + 2 + 2 + 1, 4 * 2  # a block's two convolutions are at a quarter
        self.receptive_radius = ends + halvings + block * blocks if norm in LOCAL_NORMS else None
        bias = norm == "instance"
        wide = {"kernel_size": 7, "padding": 3, "padding_mode": "reflect"}
        self.enter = stage(conv(in_channels, width, bias=bias, **wide), width)
        self.down = nn.Sequential(
            *[stage(conv(a, b, 3, stride=2, padding=1, bias=bias), b) for a, b in pairwise(widths)]
        )
        self.blocks = nn.Sequential(*[ResidualBlock(4 * width, norm, dropout, ndim) for _ in range(blocks)])
        self.up = nn.Sequential(
            *[
                stage(TRANSPOSED[ndim](a, b, 3, stride=2, padding=1, output_padding=1, bias=bias), b)
                for a, b in pairwise(reversed(widths))
            ]
        )
        self.leave = nn.Sequential(conv(width, out_channels, **wide), nn.Tanh())
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        check_sides(
            source.shape[2:],
            "a ResNet translator",
            multiple=self.multiple,
            least=self.least,
            remedy="Resize, crop or pad it",
        )
        return self.leave(self.up(self.blocks(self.down(self.enter(source)))))


class UNetTranslator(nn.Module):
    """An encoder and a decoder, connected at every resolution (Isola et al. 2017, arXiv:1611.07004, section 3.2).

    `[B, in_channels, …]` to `[B, out_channels, …]` of the same size, in [-1, 1].

    Args:
        in_channels: channels of the source.
        out_channels: channels of the target.
        width: channels at half the resolution; doubled at each of the next three, then constant.
        depth: number of layers that halve the sides. The paper has 8 for images of 256 pixels.
        norm: `batch`, `instance`, `layer` or `none`.
        dropout: dropout probability in the decoder, at the `depth - 5` resolutions next to the innermost. It is the
            only source of noise; the authors also apply it at test time.
        ndim: number of axes.

    Attributes:
        multiple: number by which the sides of a sample must be divisible, `2 ** depth`.
        least: minimum side, also `2 ** depth`.
        receptive_radius: largest distance from an input to an output that depends on it, in evaluation mode; None if
            outputs depend on the whole sample, through the statistics of `instance` or `layer`.
        memory_format: contiguous for images; the paper's network is 10 % slower or more in channels-last on a CPU.
    """

    def __init__(
        self,
        *,
        in_channels: Size = 3,
        out_channels: Size = 3,
        width: Size = 64,
        depth: Size = 8,
        norm: str = "batch",
        dropout: Probability = 0.5,
        ndim: Axes = 2,
    ):
        super().__init__()
        self.memory_format = torch.contiguous_format if ndim == 2 else None
        self.multiple = self.least = 2**depth
        self.receptive_radius = 3 * (2**depth - 1) if norm in LOCAL_NORMS else None  # 1.5 values at each level, twice
        bias, innermost = norm == "instance", depth - 1
        halving = {"kernel_size": 4, "stride": 2, "padding": 1}
        widths = [in_channels, *[width * min(2**level, GROWTH) for level in range(depth)]]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()  # by level: 0 is the full resolution
        for level, (above, below) in enumerate(pairwise(widths)):
            down: list[nn.Module] = [CONVOLUTIONS[ndim](above, below, bias=bias, **halving)]
            if level:
                down.insert(0, nn.LeakyReLU(0.2, inplace=True))
            if 0 < level < innermost:
                down.append(norm_layer(norm, below, ndim=ndim))
            joined = below if level == innermost else 2 * below
            target = above if level else out_channels
            up = [nn.ReLU(inplace=True), TRANSPOSED[ndim](joined, target, bias=bias or level == 0, **halving)]
            up.append(norm_layer(norm, target, ndim=ndim) if level else nn.Tanh())
            if 3 < level < innermost:
                up.append(nn.Dropout(dropout))
            self.down.append(nn.Sequential(*down))
            self.up.append(nn.Sequential(*up))
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        check_sides(
            source.shape[2:],
            f"a U-Net of depth {len(self.down)}",
            multiple=self.multiple,
            least=self.least,
            remedy="Resize, crop or pad it, or lower `depth`",
        )
        x, skips = source, []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.up[-1](skips.pop())
        for up in reversed(self.up[:-1]):
            x = up(torch.cat([skips.pop(), x], dim=1))
        return x


class PatchDiscriminator(nn.Module):
    """PatchGAN, a discriminator of overlapping patches (Isola et al. 2017, arXiv:1611.07004, section 3.3).

    `[B, in_channels, …]` to logits `[B, 1, …]`, one for each patch. A patch has 16, 34, 70, 142 or 286 values along
    each axis with 1 to 5 layers. With 0 layers it is a single value: the paper's PixelGAN, whose layers have size 1.

    Args:
        in_channels: channels of the samples, or of source and target together if both are judged.
        width: channels after the first layer, doubled by each of the next three.
        layers: number of layers that halve the sides.
        norm: norm of all layers but the first and the last: `batch`, `instance`, `layer` or `none`.
        ndim: number of axes.

    Attributes:
        least: minimum side of a sample, for which there is one logit.
    """

    def __init__(
        self,
        *,
        in_channels: Size = 3,
        width: Size = 64,
        layers: Annotated[int, Field(ge=0, le=16)] = 3,
        norm: str = "batch",
        ndim: Axes = 2,
    ):
        super().__init__()
        self.memory_format = fastest_layout(norm, ndim)
        self.layers, self.least = layers, 3 * 2**layers if layers else 1
        conv, bias = CONVOLUTIONS[ndim], norm == "instance"
        halving = {"kernel_size": 4, "stride": 2, "padding": 1}
        keeping = {"kernel_size": 4, "padding": 1} if layers else {"kernel_size": 1}
        widths = [width * min(2**level, GROWTH) for level in range(max(layers, 1) + 1)]
        first = conv(in_channels, width, **(halving if layers else keeping))
        stages = [nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True))]
        for level, (a, b) in enumerate(pairwise(widths), start=1):
            layer = conv(a, b, bias=bias, **(halving if level < layers else keeping))
            stages.append(Stage(layer, norm, b, nn.LeakyReLU(0.2, inplace=True), ndim))
        self.features = nn.Sequential(*stages)
        self.judge = conv(widths[-1], 1, bias=bias or layers > 0, **keeping)  # the published PixelGAN has no bias here
        self.apply(initialize)

    def forward(self, samples: Tensor) -> Tensor:
        check_sides(
            samples.shape[2:],
            f"a PatchGAN of {self.layers} layers",
            least=self.least,
            remedy="Enlarge it or lower `layers`",
        )
        return self.judge(self.features(samples))
