"""The Inception v3 network of FID: TensorFlow's graph of 2015-12-05 with its published weights.

It differs from torchvision's network (Szegedy et al. 2016, arXiv:1512.00567) in ways that change the figures: average
pooling excludes the padding, the last block uses maximum pooling, there are 1008 outputs, and images are resized as in
TensorFlow 1. The keys of the weights are those of the ports to PyTorch (pytorch-fid, torch-fidelity).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

SIDE = 299
"""Side in pixels to which images are resized."""

average_pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
max_pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class _Pooled(nn.Module):
    """Mixin for a torchvision block that replaces the output of the last branch, to change its pooling."""

    branch_pool: nn.Module

    def pool(self, x: Tensor) -> Tensor:
        return average_pool(x)

    def _forward(self, x: Tensor) -> list[Tensor]:
        *branches, _ = super()._forward(x)  # type: ignore[misc]  # method of the torchvision block
        return [*branches, self.branch_pool(self.pool(x))]


class BlockA(_Pooled, InceptionA):  # type: ignore[misc]
    """Block at 35x35."""


class BlockC(_Pooled, InceptionC):  # type: ignore[misc]
    """Block at 17x17."""


class BlockE(_Pooled, InceptionE):  # type: ignore[misc]
    """First block at 8x8."""


class LastBlockE(_Pooled, InceptionE):  # type: ignore[misc]
    """Last block at 8x8, with maximum pooling instead of the paper's average pooling."""

    def pool(self, x: Tensor) -> Tensor:
        return max_pool(x)


class FIDInception(Inception3):  # type: ignore[misc]
    """The network of FID.

    It maps uint8 RGB images `[B, 3, H, W]` to features `[B, 2048]` (after the last pooling) and logits `[B, 1008]`. The
    logits lack the bias, as in the code that was published with the inception score (Salimans et al. 2016).
    """

    def __init__(self) -> None:
        blocks: list[Any] = [BasicConv2d, BlockA, InceptionB, BlockC, InceptionD, BlockE, InceptionAux]
        super().__init__(1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
        self.Mixed_7c = LastBlockE(2048)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = (resize(pixels.float(), SIDE) - 128) / 128
        for name, stage in self.named_children():  # in the order of the graph
            if name not in ("dropout", "fc"):
                x = stage(x)
        features = x.flatten(1)
        return features, features @ self.fc.weight.T


def resize(images: Tensor, side: int) -> Tensor:
    """Resizes images bilinearly to `side` x `side` as TensorFlow 1 does.

    Output pixel i is read at i · size / side, without a half-pixel offset, and there is no antialiasing.

    Args:
        images: `[B, C, H, W]`.
        side: side of the result in pixels.
    """
    return _resize_axis(_resize_axis(images, 3, side), 2, side)


def _resize_axis(images: Tensor, dim: int, side: int) -> Tensor:
    size = images.shape[dim]
    place = torch.arange(side, dtype=torch.float32, device=images.device) * torch.tensor(size / side)
    low = place.long()
    high = (low + 1).clamp(max=size - 1)
    share = (place - low).reshape([-1 if d == dim else 1 for d in range(4)])
    start = images.index_select(dim, low)
    return start + (images.index_select(dim, high) - start) * share
