"""The Inception v3 that FID is defined with: TensorFlow's graph of 2015-12-05 with its published weights.

Torchvision's network (Szegedy et al. 2016, arXiv:1512.00567) with these differences, which change the figures:
average pooling does not count its padding; the last block pools by maximum; there are 1008 outputs; batches are
resized as TensorFlow 1 resizes. Keys are those of the ports (pytorch-fid, torch-fidelity).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

SIDE = 299
"""Pixels a side that images are resized to."""

average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class _Pooled(nn.Module):
    """A block of torchvision's whose last branch pools otherwise; what that branch gave is replaced."""

    branch_pool: nn.Module

    def pool(self, x: Tensor) -> Tensor:
        return average(x)

    def _forward(self, x: Tensor) -> list[Tensor]:
        *branches, _ = super()._forward(x)  # type: ignore[misc]  # the block's
        return [*branches, self.branch_pool(self.pool(x))]


class BlockA(_Pooled, InceptionA):  # type: ignore[misc]
    """At 35x35."""


class BlockC(_Pooled, InceptionC):  # type: ignore[misc]
    """At 17x17."""


class BlockE(_Pooled, InceptionE):  # type: ignore[misc]
    """The first at 8x8."""


class LastBlockE(_Pooled, InceptionE):  # type: ignore[misc]
    """The last at 8x8, which takes the maximum where the paper's takes the average."""

    def pool(self, x: Tensor) -> Tensor:
        return maximum(x)


class FIDInception(Inception3):  # type: ignore[misc]
    """The network: uint8 RGB `[B, 3, H, W]` to features `[B, 2048]` (after the last pooling) and logits `[B, 1008]`.

    The logits lack the bias, as in the code that the inception score was published with (Salimans et al. 2016).
    """

    def __init__(self) -> None:
        from torchvision.models.inception import BasicConv2d, InceptionAux, InceptionB, InceptionD

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
    """Bilinear to `side` x `side` as TensorFlow 1 does it: output pixel i looks at i · size / side, no half pixel."""
    return _along(_along(images, 3, side), 2, side)


def _along(images: Tensor, dim: int, side: int) -> Tensor:
    size = images.shape[dim]
    place = torch.arange(side, dtype=torch.float32, device=images.device) * torch.tensor(size / side)
    low = place.long()
    high = (low + 1).clamp(max=size - 1)
    share = (place - low).reshape([-1 if d == dim else 1 for d in range(4)])
    start = images.index_select(dim, low)
    return start + (images.index_select(dim, high) - start) * share
