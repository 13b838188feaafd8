"""Differentiable augmentation of images (Zhao et al. 2020, arXiv:2006.10738).

Gradients pass through the transforms to the generator. The transforms are pure functions that take random numbers as
arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gan_core import draws
from gan_core.errors import unknown

SHIFT, CUT = 1 / 8, 1 / 2
"""Maximum shift, and size of the cut-out rectangle, as fractions of the image size."""


def diff_augment(images: Tensor, policy: Iterable[str] = ("color", "translation", "cutout")) -> Tensor:
    """Augments each image of a batch at random.

    Args:
        images: images `[B, C, H, W]` in [-1, 1] with any number of channels, or clips `[B, C, T, H, W]`, all frames of
            which are augmented in the same way.
        policy: transforms in the order in which they are applied: `color`, `translation`, `cutout`.

    Raises:
        RecipeError: a transform is unknown.
    """
    for name in policy:
        if name not in POLICIES:
            raise unknown("transform", name, POLICIES)
        images = POLICIES[name](images)
    return images


def color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Changes brightness, saturation and contrast, in this order.

    Args:
        images: `[B, C, H, W]`.
        brightness: `[B]` in [0, 1); `brightness - 0.5` is added to the image.
        saturation: `[B]` in [0, 1); the difference from gray is multiplied by `2 * saturation`.
        contrast: `[B]` in [0, 1); the difference from the image's mean is multiplied by `contrast + 0.5`.
    """
    ones = [1] * (images.ndim - 1)
    brightness, saturation, contrast = (u.view(-1, *ones) for u in (brightness, saturation, contrast))
    images = images + (brightness - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (2 * saturation)
    mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def translation(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Shifts images: pixel (i, j) becomes pixel (i + rows, j + columns), or 0 outside of the image.

    Args:
        images: `[B, C, H, W]`.
        rows: whole numbers `[B]`.
        columns: whole numbers `[B]`.
    """
    count, *_, height, width = images.shape
    y = torch.arange(height, device=images.device) + rows[:, None]  # [B, H]
    x = torch.arange(width, device=images.device) + columns[:, None]  # [B, W]
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[:, None, None, :]
    sample = torch.arange(count, device=images.device)[:, None, None]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    planes = images.flatten(1, -3).permute(0, 2, 3, 1)  # [B, H, W, C] or [B, H, W, C*T]
    moved = planes[sample, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    return (moved * inside).view_as(images)


def cutout(images: Tensor, rows: Tensor, columns: Tensor, *, height: int, width: int) -> Tensor:
    """Sets a rectangle of `height` × `width` pixels around (rows, columns) `[B]` to 0.

    As in the published code, indices are clamped to the image, so a rectangle outside of the image covers its border.
    """
    covered_rows, covered_columns = (
        _covered(centre, length, size)
        for centre, length, size in zip((rows, columns), (height, width), images.shape[-2:], strict=True)
    )
    covered = covered_rows[:, :, None] & covered_columns[:, None, :]  # [B, H, W]
    return images * ~covered.view(len(images), *[1] * (images.ndim - 3), *images.shape[-2:])


def _covered(centre: Tensor, length: int, size: int) -> Tensor:
    """Returns a mask `[B, size]` of the positions within `length` around the centres, clamped at the ends."""
    first = (centre - length // 2).clamp(0, size - 1)[:, None]
    last = (centre - length // 2 + length - 1).clamp(0, size - 1)[:, None]
    place = torch.arange(size, device=centre.device)
    return (place >= first) & (place <= last)


def reflected(index: Tensor, size: int) -> Tensor:
    """Reflects indices beyond the ends of an axis at its first and last elements, without repeating these."""
    period = max(1, 2 * (size - 1))
    index = index.remainder(period)
    return torch.where(index < size, index, period - index)


def _random_color(images: Tensor) -> Tensor:
    return color(images, *(draws.uniform(len(images), like=images) for _ in range(3)))


def _random_translation(images: Tensor) -> Tensor:
    most = [int(size * SHIFT + 0.5) for size in images.shape[-2:]]
    rows, columns = (draws.integers(2 * shift + 1, len(images), like=images) - shift for shift in most)
    return translation(images, rows, columns)


def _random_cutout(images: Tensor) -> Tensor:
    height, width = (int(size * CUT + 0.5) for size in images.shape[-2:])
    sides = zip(images.shape[-2:], (height, width), strict=True)
    rows, columns = (draws.integers(size + 1 - length % 2, len(images), like=images) for size, length in sides)
    return cutout(images, rows, columns, height=height, width=width)


POLICIES: dict[str, Callable[[Tensor], Tensor]] = {
    "color": _random_color,
    "translation": _random_translation,
    "cutout": _random_cutout,
}
