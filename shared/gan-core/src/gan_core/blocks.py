"""Building blocks that do not depend on the modality: the same layers over sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gan_core.errors import RecipeError, unknown

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": lambda channels, ndim: BATCH_NORMS[ndim](channels),
    "layer": lambda channels, ndim: nn.GroupNorm(1, channels),
    "none": lambda channels, ndim: nn.Identity(),
}


def norm(kind: str, channels: int, *, ndim: int = 2) -> nn.Module:
    """A normalisation by name: `batch`, `layer` (of each sample: no batch statistics under a penalty) or `none`.

    Args:
        kind: its name.
        channels: of the input, its axis 1.
        ndim: 1 for sequences, 2 for images, 3 for volumes.

    Raises:
        RecipeError: there is no normalisation of that name.
    """
    if kind not in NORMS:
        raise unknown("norm", kind, NORMS)
    return NORMS[kind](channels, ndim)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gain and bias are the class's (Dumoulin et al. 2017, arXiv:1610.07629, section 2.2).

    `x [B, C, …]` and `label [B]` to `[B, C, …]`. One table holds gains, which begin near 1, and biases, at first 0.

    Args:
        channels: C.
        num_classes: of the labels.
        ndim: 1 for sequences, 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, num_classes: int, *, ndim: int = 2):
        super().__init__()
        self.norm = BATCH_NORMS[ndim](channels, affine=False)
        self.embedding = nn.Embedding(num_classes, 2 * channels)
        nn.init.normal_(self.embedding.weight[:, :channels], 1.0, 0.02)
        nn.init.zeros_(self.embedding.weight[:, channels:])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gain, bias = self.embedding(label).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return gain * self.norm(x) + bias


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Classes `[B]` as rows of an identity matrix, `[B, num_classes]` float32."""
    return torch.nn.functional.one_hot(label, num_classes).float()


def pack(samples: Tensor, count: int) -> Tensor:
    """`count` samples at a time joined along their axis 1: `[B, C, …]` to `[B / count, count · C, …]`.

    Raises:
        RecipeError: the samples cannot be shared out evenly.
    """
    if len(samples) % count:
        raise RecipeError(f"a batch of {len(samples)} cannot be packed by {count}; use a multiple")
    return samples if count == 1 else samples.reshape(-1, count * samples.shape[1], *samples.shape[2:])


def unpack(samples: Tensor, count: int) -> Tensor:
    """What `pack` joined, apart."""
    return samples if count == 1 else samples.reshape(-1, samples.shape[1] // count, *samples.shape[2:])


def doublings(size: int, start: int, *, least: int = 1, what: str = "image_size") -> int:
    """How often `start` doubles to become `size`.

    Raises:
        RecipeError: it never does, or less often than `least`.
    """
    count = (size // start).bit_length() - 1
    if size != start << max(count, 0) or count < least:
        nearest = start << max(least, round(size / start).bit_length() - 1)
        raise RecipeError(f"`{what}` is {size}; it must be {start} doubled {least} times or more. Try {nearest}.")
    return count
