"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676, section 3 and appendix B).

Each transform is applied to a sample with probability p. For p below 0.8, different distributions of images remain
different after augmentation, so augmentations do not leak into the generated samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, grid_sample

from gan_core import draws
from gan_core.errors import RecipeError, unknown
from gan_core.nn.augment.differentiable import reflected

GROUPS: dict[str, tuple[str, ...]] = {
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
"""Names of the transforms in each of the paper's groups. The paper's `bgc` is the first three groups."""

SHIFT, SCALE, FRACTION = 0.125, 0.2, 0.125
"""Maximum shift by whole pixels as a fraction of the size; deviation of log₂ of a scale; deviation of other shifts."""
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0
"""Deviation of the added brightness; deviations of log₂ of the factors of contrast and saturation."""
BAND, NOISE, CUT = 1.0, 0.1, 0.5
"""Deviation of log₂ of a band's gain; scale of the noise's deviation; side of the cut-out as a fraction of the side."""

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Low-pass filter of the symlet with 6 vanishing moments, for resampling."""
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
"""Low-pass filter of the symlet with 2 vanishing moments, from which the bands are constructed."""
GRAY = (1.0, 1.0, 1.0, 0.0)
"""Direction of luma in homogeneous RGB coordinates, of length √3."""
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected fraction of an image's power in each band."""


class AugmentPipe(nn.Module):
    """The published augmentation pipeline: applies each transform to each image with probability `p`.

    Maps images `[B, C, H, W]` in [-1, 1], or clips `[B, C, T, H, W]`, to the same shape. All frames of a clip are
    augmented in the same way.

    Computations are in float32 or higher precision even under autocast, because positions in half precision would be
    off by pixels. If geometric transforms are used, all images pass through two low-pass filters, including those that
    are not transformed, as in the published code.

    Attributes:
        p: strength, a scalar in [0, 1].

    Args:
        transforms: names of `GROUPS` or of transforms; they are applied in the published order.
        quantile: for tests; every random number is replaced with this quantile of its distribution, and all transforms
            are applied.

    Raises:
        RecipeError: a transform is unknown, or, when called, the images do not have 1 or 3 channels.
    """

    def __init__(self, transforms: Iterable[str] = ("blit", "geom", "color"), *, quantile: float | None = None):
        super().__init__()
        self.active = {name for given in transforms for name in GROUPS.get(given, (given,))}
        known = {name for group in GROUPS.values() for name in group}
        for name in sorted(self.active - known):
            raise unknown("transform", name, known | {*GROUPS})
        self.quantile = quantile
        self.p: Tensor
        self.lowpass: Tensor
        self.bands: Tensor
        self.power: Tensor
        self.gray: Tensor
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("lowpass", torch.tensor(SYM6) / sum(SYM6), persistent=False)
        self.register_buffer("bands", torch.from_numpy(filter_bank()).float(), persistent=False)
        self.register_buffer("power", torch.tensor(BAND_POWER), persistent=False)
        self.register_buffer("gray", torch.tensor(GRAY)[:, None] * torch.tensor(GRAY) / 3, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            exact = torch.promote_types(images.dtype, torch.float32)
            return self.augmented(images.to(exact)).to(images.dtype)

    def augmented(self, images: Tensor) -> Tensor:
        """Applies the transforms to images in float32 or float64."""
        shape = images.shape
        if shape[1] not in (1, 3):
            raise RecipeError(f"adaptive augmentation needs images of 1 or 3 channels, but these have {shape[1]}")
        planes = images.flatten(1, -3)  # [B, C, T, H, W] -> [B, C*T, H, W]
        if self.active & {*GROUPS["blit"], *GROUPS["geom"]}:
            planes = self.resampled(planes, self.geometry(planes))
        gray = {"hue", "saturation"} if shape[1] == 1 else set()  # gray images have neither
        if self.active & {*GROUPS["color"]} - gray:
            images = planes.view(shape)
            planes = recoloured(images, self.colours(images)).flatten(1, -3)
        if "imgfilter" in self.active:
            planes = self.filtered(planes)
        images = planes.view(shape)
        if "noise" in self.active:
            images = self.noisy(images)
        return self.cut(images) if "cutout" in self.active else images

    # Random numbers.

    def _uniform(self, images: Tensor) -> Tensor:
        """Draws numbers `[B]`, uniform in [0, 1)."""
        if self.quantile is not None:
            return images.new_full((len(images),), self.quantile)
        return draws.uniform(len(images), like=images)

    def _normal(self, images: Tensor) -> Tensor:
        """Draws numbers `[B]`, standard normal (the published quantile lacks a factor of √2)."""
        if self.quantile is not None:
            return torch.erfinv(2 * self._uniform(images) - 1)
        return draws.normal(len(images), like=images)

    def _sometimes(self, images: Tensor, drawn: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """Returns the drawn values with probability `p` (default: the strength), and the neutral value otherwise."""
        if self.quantile is not None:
            return drawn
        happens = draws.uniform(len(images), like=images) < (self.p if p is None else p)
        return torch.where(happens, drawn, neutral)

    # Geometry.

    def geometry(self, images: Tensor) -> Tensor:
        """Draws geometric transforms and returns their inverses, `[B, 3, 3]`, in pixels from the centre."""
        height, width = images.shape[2:]
        inverse = torch.eye(3, device=images.device, dtype=images.dtype).repeat(len(images), 1, 1)
        if "xflip" in self.active:
            flips = self._sometimes(images, (2 * self._uniform(images)).floor(), 0)
            inverse = inverse @ scaling(1 - 2 * flips, torch.ones_like(flips))
        if "rotate90" in self.active:
            quarters = self._sometimes(images, (4 * self._uniform(images)).floor(), 0)
            inverse = inverse @ rotation(math.pi / 2 * quarters)
        if "xint" in self.active:
            x, y = self._sometimes_both(images, [(2 * self._uniform(images) - 1) * SHIFT for _ in range(2)])
            inverse = inverse @ shift(-(x * width).round(), -(y * height).round())
        if "scale" in self.active:
            scale = self._sometimes(images, torch.exp2(self._normal(images) * SCALE), 1)
            inverse = inverse @ scaling(1 / scale, 1 / scale)
        turn = 1 - (1 - self.p.clamp(0, 1)).sqrt()  # two rotations: at least one has probability p
        if "rotate" in self.active:
            angle = self._sometimes(images, (2 * self._uniform(images) - 1) * math.pi, 0, turn)
            inverse = inverse @ rotation(angle)
        if "aniso" in self.active:
            scale = self._sometimes(images, torch.exp2(self._normal(images) * SCALE), 1)
            inverse = inverse @ scaling(1 / scale, scale)
        if "rotate" in self.active and self.quantile is None:
            angle = self._sometimes(images, (2 * self._uniform(images) - 1) * math.pi, 0, turn)
            inverse = inverse @ rotation(angle)
        if "xfrac" in self.active:
            x, y = self._sometimes_both(images, [self._normal(images) * FRACTION for _ in range(2)])
            inverse = inverse @ shift(-x * width, -y * height)
        return inverse

    def _sometimes_both(self, images: Tensor, drawn: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns two values that are either both the drawn ones or both neutral."""
        happens = self._sometimes(images, torch.ones_like(drawn[0]), 0)
        return drawn[0] * happens, drawn[1] * happens

    def resampled(self, images: Tensor, inverse: Tensor) -> Tensor:
        """Resamples images by inverse transforms, at twice the resolution and between two low-pass filters."""
        count, channels, height, width = images.shape
        border = len(self.lowpass) // 4
        left, top, right, bottom = margins(inverse, height, width, 2 * border)
        lowpass = self.lowpass.to(images.dtype)
        doubled = enlarging(lowpass, height, top, bottom) @ images @ enlarging(lowpass, width, left, right).T
        inverse = shift(*_scalars(images, (left - right) / 2, (top - bottom) / 2)) @ inverse
        double, half = (scaling(*_scalars(images, factor, factor)) for factor in (2.0, 0.5))
        back, forth = (shift(*_scalars(images, by, by)) for by in (-0.5, 0.5))
        inverse = back @ double @ inverse @ half @ forth
        rows, columns = 2 * (height + 2 * border), 2 * (width + 2 * border)
        ours = scaling(*_scalars(images, 2 / doubled.shape[3], 2 / doubled.shape[2]))
        theirs = scaling(*_scalars(images, columns / 2, rows / 2))
        grid = affine_grid((ours @ inverse @ theirs)[:, :2], [count, channels, rows, columns], align_corners=False)
        resampled = grid_sample(doubled, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return halving(lowpass, height) @ resampled @ halving(lowpass, width).T

    # Colour, bands, noise, cutout.

    def colours(self, images: Tensor) -> Tensor:
        """Draws colour transforms, `[B, 4, 4]`, in homogeneous coordinates."""
        unit = torch.eye(4, device=images.device, dtype=images.dtype)
        matrix = unit.repeat(len(images), 1, 1)
        gray = self.gray.to(images.dtype)
        if "brightness" in self.active:
            by = self._sometimes(images, self._normal(images) * BRIGHTNESS, 0)
            move = unit.repeat(len(images), 1, 1)
            move[:, :3, 3] = by[:, None]
            matrix = move @ matrix
        if "contrast" in self.active:
            factor = self._sometimes(images, torch.exp2(self._normal(images) * CONTRAST), 1)
            diagonal = torch.stack([factor, factor, factor, torch.ones_like(factor)], dim=1)
            matrix = torch.diag_embed(diagonal) @ matrix
        if "lumaflip" in self.active:
            flips = self._sometimes(images, (2 * self._uniform(images)).floor(), 0)
            matrix = (unit - 2 * gray * flips[:, None, None]) @ matrix
        if "hue" in self.active and images.shape[1] == 3:
            angle = self._sometimes(images, (2 * self._uniform(images) - 1) * math.pi, 0)
            matrix = about_gray(angle) @ matrix
        if "saturation" in self.active and images.shape[1] == 3:
            factor = self._sometimes(images, torch.exp2(self._normal(images) * SATURATION), 1)
            matrix = (gray + (unit - gray) * factor[:, None, None]) @ matrix
        return matrix

    def filtered(self, images: Tensor) -> Tensor:
        """Amplifies or damps frequency bands, keeping the expected power."""
        power = self.power.to(images.dtype)
        gains = images.new_ones(len(images), len(power))
        for band in range(len(power)):
            one = torch.ones_like(gains)
            one[:, band] = self._sometimes(images, torch.exp2(self._normal(images) * BAND), 1)
            gains = gains * one / (power * one.square()).sum(dim=1, keepdim=True).sqrt()
        kernel = gains @ self.bands.to(images.dtype)  # [B, taps]
        count, channels, height, width = images.shape
        kernel = kernel.repeat_interleave(channels, 0)
        side = kernel.shape[1] // 2
        # Reflected repeatedly if needed, because the filter can be longer than an image.
        sides = (torch.arange(-side, size + side, device=images.device) for size in (height, width))
        rows, columns = (reflected(place, size) for place, size in zip(sides, (height, width), strict=True))
        images = images[:, :, rows][:, :, :, columns].reshape(1, count * channels, height + 2 * side, width + 2 * side)
        images = conv2d(images, kernel[:, None, None, :], groups=count * channels)
        images = conv2d(images, kernel[:, None, :, None], groups=count * channels)
        return images.reshape(count, channels, height, width)

    def noisy(self, images: Tensor) -> Tensor:
        """Adds normal noise with a random deviation per sample. All frames of a clip get the same noise."""
        deviation = self._sometimes(images, self._normal(images).abs() * NOISE, 0)
        still = [1] * (images.ndim - 4)
        noise = draws.normal(len(images), images.shape[1], *still, *images.shape[-2:], like=images)
        return images + deviation.view(-1, *[1] * (images.ndim - 1)) * noise

    def cut(self, images: Tensor) -> Tensor:
        """Sets a rectangle of half the size at a random position to 0."""
        size = self._sometimes(images, torch.full_like(self._uniform(images), CUT), 0)[:, None]
        x, y = self._uniform(images)[:, None], self._uniform(images)[:, None]
        height, width = images.shape[-2:]
        rows = (torch.arange(height, device=images.device) + 0.5) / height
        columns = (torch.arange(width, device=images.device) + 0.5) / width
        out = ((rows - y).abs() < size / 2)[:, :, None] & ((columns - x).abs() < size / 2)[:, None, :]  # [B, H, W]
        return images * ~out.view(len(images), *[1] * (images.ndim - 3), height, width)


def _scalars(like: Tensor, *values: float) -> tuple[Tensor, ...]:
    return tuple(like.new_full((1,), value) for value in values)


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """Returns matrices `[B, n, n]` from rows of entries, each `[B]` or a number."""
    entries = [[e if isinstance(e, Tensor) else torch.full_like(like, e) for e in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)


def shift(x: Tensor, y: Tensor) -> Tensor:
    """Returns translations by `[B]` pixels, `[B, 3, 3]`."""
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]], x)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Returns scalings by factors `[B]`, `[B, 3, 3]`."""
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def rotation(angle: Tensor) -> Tensor:
    """Returns rotations by `[B]` radians, `[B, 3, 3]`."""
    cosine, sine = angle.cos(), angle.sin()
    return _matrix([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], angle)


def about_gray(angle: Tensor) -> Tensor:
    """Returns rotations of colours about the gray axis by `[B]` radians, `[B, 4, 4]` (Rodrigues' formula)."""
    cosine, sine = angle.cos(), angle.sin() / math.sqrt(3)
    part = (1 - cosine) / 3
    same, left, right = part + cosine, part - sine, part + sine
    return _matrix([[same, left, right, 0], [right, same, left, 0], [left, right, same, 0], [0, 0, 0, 1]], angle)


def margins(inverse: Tensor, height: int, width: int, border: int) -> tuple[int, int, int, int]:
    """Returns the number of reflected pixels needed beyond the left, top, right and bottom edges, at most size - 1.

    On accelerators, the maximum is returned, because computing the number would synchronise with the device.
    """
    if inverse.device.type != "cpu":
        return width - 1, height - 1, width - 1, height - 1
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]])
    visible = (inverse @ corners.T)[:, :2].transpose(0, 1).flatten(1)  # [2, B · corners]
    beyond = torch.cat([-visible, visible]).amax(dim=1) + inverse.new_tensor([border - x, border - y] * 2)
    most = inverse.new_tensor([width - 1, height - 1] * 2)
    left, top, right, bottom = beyond.clamp(min=0).minimum(most).ceil().int().tolist()
    return left, top, right, bottom


def enlarging(lowpass: Tensor, size: int, before: int, after: int) -> Tensor:
    """Returns a matrix that pads an axis by reflection and doubles its resolution.

    On a CPU, multiplying by it takes less than a quarter of the time of depthwise convolutions, and needs no tensor
    that is larger than the result.

    Returns:
        `[2 (before + size + after), size]`.
    """
    places = torch.arange(-before, size + after, device=lowpass.device)
    reflection = torch.eye(size, device=lowpass.device, dtype=lowpass.dtype)[reflected(places, size)]
    return 2 * toeplitz(lowpass, len(places), 2 * len(places), len(lowpass) // 2 - 1).T @ reflection


def halving(lowpass: Tensor, size: int) -> Tensor:
    """Returns a matrix that low-passes an axis, drops its border and halves its resolution.

    Returns:
        `[size, 2 size + len(lowpass)]`.
    """
    return toeplitz(lowpass, size, 2 * size + len(lowpass), -1)


def toeplitz(taps: Tensor, rows: int, columns: int, before: int) -> Tensor:
    """Returns a matrix whose rows contain the taps, shifted by two columns from one row to the next.

    Args:
        taps: values of a filter.
        rows: number of rows.
        columns: number of columns.
        before: number of taps to the left of column 0 in the first row.
    """
    row = torch.arange(rows, device=taps.device)[:, None]
    tap = torch.arange(columns, device=taps.device) - 2 * row + before
    outside = (tap < 0) | (tap >= len(taps))
    return taps[tap.clamp(0, len(taps) - 1)].masked_fill(outside, 0)


def recoloured(images: Tensor, matrix: Tensor) -> Tensor:
    """Transforms the colours of images by `[B, 4, 4]`; with one channel, by the mean of the matrix's rows."""
    if images.shape[1] == 3:
        return (matrix[:, :3, :3] @ images.flatten(2) + matrix[:, :3, 3:]).view_as(images)
    rows = matrix[:, :3].mean(dim=1)
    ones = [1] * (images.ndim - 1)
    return images * rows[:, :3].sum(dim=1).view(-1, *ones) + rows[:, 3].view(-1, *ones)


def filter_bank() -> np.ndarray:
    """Returns filters `[4, 43]` of four octave bands, which sum to the identity (appendix B.3)."""
    low: np.ndarray = np.array(SYM2)
    high: np.ndarray = low * (-1.0) ** np.arange(len(low))
    low, high = (np.convolve(taps, taps[::-1]) / 2 for taps in (low, high))
    bank = np.eye(4, 1)
    for band in range(1, 4):
        spread = np.zeros((4, 2 * bank.shape[1] - 1))
        spread[:, ::2] = bank
        bank = np.stack([np.convolve(row, low) for row in spread])
        start = (bank.shape[1] - len(high)) // 2
        bank[band, start : start + len(high)] += high
    return bank


class AdaptiveStrength(nn.Module):
    """Adapts the strength p so that r_t, the mean sign of D on real images, approaches its target (section 3.1).

    Args:
        target: target of r_t; above it, the discriminator overfits and p is increased.
        speed: number of real images over which p changes by 1.
        interval: number of turns between changes, over which r_t is averaged.
    """

    def __init__(self, *, target: float = 0.6, speed: int = 500_000, interval: int = 4):
        super().__init__()
        self.target, self.speed, self.interval = target, speed, interval
        self.signs: Tensor
        self.turns: Tensor
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("turns", torch.zeros(()))

    @torch.no_grad()
    def update(self, p: Tensor, sign: Tensor, images: int) -> None:
        """Updates `p` in place, at every `interval`-th turn of the discriminator.

        Args:
            p: strength, at least 0.
            sign: mean sign of D on the turn's real images.
            images: number of real images, over all processes.
        """
        self.signs.add_(sign)
        self.turns.add_(1)
        due = self.turns >= self.interval
        step = (self.signs / self.turns - self.target).sign() * (images * self.interval / self.speed)
        p.copy_(torch.where(due, (p + step).clamp(min=0), p))
        self.signs.mul_(~due)
        self.turns.mul_(~due)
