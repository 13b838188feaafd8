"""Similarity of pairs: PSNR, SSIM, MS-SSIM, LPIPS, and the metric `Similarity` of results and their targets.

All take samples in [-1, 1] and return one value per pair, `[B]`. PSNR takes samples `[B, C, …]` with any number of
axes. The others take images `[B, C, H, W]`, or clips and volumes `[B, C, T, H, W]`, for which values are averaged over
frames. The first three convert values to [0, 1], as for pixels divided by 255, because SSIM depends on the offset of
the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_core.errors import CheckpointError, InputError, MissingDependency
from gan_core.measure.measures import PairPart, Subject, copied
from gan_core.models.checkpoint import load_state, read_published

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
"""Side in pixels and standard deviation of SSIM's Gaussian window, and its constants (Wang et al. 2004)."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's scales, finest first (Wang et al. 2003, section 3.2)."""
SMALLEST_MULTISCALE = WINDOW * 2 ** (len(SCALES) - 1)
"""Minimum side in pixels for MS-SSIM, whose window must fit into the coarsest scale."""
SMALLEST_PERCEPTUAL = 32
"""Minimum side in pixels for the backbones of LPIPS."""


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio in dB, -10 log₁₀ of the mean squared error on [0, 1]; infinite if equal.

    Args:
        a: `[B, C, …]` in [-1, 1].
        b: the same.
    """
    return -10 * (_unit(a) - _unit(b)).square().flatten(1).mean(dim=1).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Returns the structural similarity, averaged over channels and window positions (Wang et al. 2004, eq. 13).

    Args:
        a: `[B, C, H, W]` or `[B, C, T, H, W]` in [-1, 1].
        b: the same.

    Raises:
        InputError: the images are smaller than the window.
    """
    _large_enough("ssim", a, WINDOW)
    return _by_frame(lambda a, b: _structure(_unit(a), _unit(b))[0], a, b)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Returns the structural similarity over five scales, each half the size of the last (Wang et al. 2003, eq. 7).

    The luminance term is only used at the coarsest scale. Negative terms are set to 0.

    Args:
        a: `[B, C, H, W]` or `[B, C, T, H, W]` in [-1, 1].
        b: the same.

    Raises:
        InputError: the window does not fit into the coarsest scale.
    """
    _large_enough("ms_ssim", a, SMALLEST_MULTISCALE)

    def of_images(a: Tensor, b: Tensor) -> Tensor:
        a, b = _unit(a), _unit(b)
        product = a.new_ones(len(a))
        for exponent in SCALES[:-1]:
            product = product * _structure(a, b)[1].clamp(min=0) ** exponent
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        return product * _structure(a, b)[0].clamp(min=0) ** SCALES[-1]

    return _by_frame(of_images, a, b)


def _unit(samples: Tensor) -> Tensor:
    return (samples.double() + 1) / 2  # for nearly equal images, float32 variances have no significant digits


def _structure(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns SSIM and its contrast-structure factor for images `[B, C, H, W]` in [0, 1]."""
    place = torch.arange(WINDOW, device=a.device, dtype=a.dtype) - WINDOW // 2
    window = torch.exp(-place.square() / (2 * SIGMA**2))
    window = (window / window.sum()).expand(a.shape[1], 1, 1, WINDOW)

    def mean(x: Tensor) -> Tensor:
        """Returns the weighted mean at each position where the window fits."""
        rows = F.conv2d(x, window, groups=x.shape[1])
        return F.conv2d(rows, window.mT, groups=x.shape[1])

    mean_a, mean_b, c1, c2 = mean(a), mean(b), K1**2, K2**2
    covariance = mean(a * b) - mean_a * mean_b
    variances = mean(a * a) - mean_a.square() + mean(b * b) - mean_b.square()
    structure = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return (luminance * structure).mean(dim=(1, 2, 3)), structure.mean(dim=(1, 2, 3))


def _by_frame(measure: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Applies a measure to images, or to the frames of clips `[B, C, T, H, W]`, averaged over each clip."""
    frames = [x.movedim(1, -3).flatten(0, -4) for x in (a, b)]
    return measure(*frames).view(len(a), -1).mean(dim=1)


def _large_enough(measure: str, images: Tensor, smallest: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise InputError(
            f"`{measure}` needs images of at least {smallest}x{smallest} pixels; these are {width}x{height}. "
            "Compare larger images, or omit the measure"
        )


class Similarity:
    """Similarity of results and their targets, with baselines that need no model.

    Figures are means over the pairs: `psnr` in dB; `ssim`, if sides are at least 11 pixels; `psnr_of_mean`, for the
    mean of all targets; and `psnr_of_SOURCE` and `ssim_of_SOURCE`, for a copy of the input, where `SOURCE` is the
    input's key in the data. The last two need an input of the target's shape (a single channel is repeated).

    Args:
        subject: evaluated game and data; the targets are read an additional time to compute their mean.
    """

    def __init__(self, subject: Subject):
        self.source = None if subject.source == subject.key else subject.source
        self.sums: dict[str, float] = {}
        self.count, sums = 0, torch.zeros(())
        for batch in subject.real():
            sums = sums + batch[subject.key].double().sum(dim=0)
            self.count += len(batch[subject.key])
        self.mean = (sums / self.count).float()

    def update(self, part: PairPart) -> None:
        real = part.real
        self._add("psnr", psnr(real, part.made))
        structured = real.ndim > 3 and min(real.shape[-2:]) >= WINDOW
        if structured:
            self._add("ssim", ssim(real, part.made))
        self._add("psnr_of_mean", psnr(real, self.mean.expand_as(real)))
        copy = None if self.source is None else copied(part.batch[self.source], real.shape[1:])
        if copy is not None:
            self._add(f"psnr_of_{self.source}", psnr(real, copy))
            if structured:
                self._add(f"ssim_of_{self.source}", ssim(real, copy))

    def _add(self, name: str, values: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(values.sum())

    def figures(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


# LPIPS.


@dataclass(frozen=True)
class Backbone:
    """A torchvision network for LPIPS, which compares its activations after five ReLUs.

    Attributes:
        name: name in torchvision.
        stages: ends of the slices of its `features`.
        widths: number of channels at the end of each slice.
    """

    name: str
    stages: tuple[int, ...]
    widths: tuple[int, ...]


BACKBONES = (
    Backbone("alexnet", (2, 5, 8, 10, 12), (64, 192, 384, 256, 256)),
    Backbone("vgg16", (4, 9, 16, 23, 30), (64, 128, 256, 512, 512)),
)


class LPIPS(nn.Module):
    """The learned perceptual distance, version 0.1 (Zhang et al. 2018, arXiv:1801.03924, eq. 1).

    Activations of both images are normalised to unit length across channels; their squared differences are weighted by
    channel, summed over channels, averaged over positions, and summed over stages. Grey is repeated to RGB.

    Args:
        features: layers of the backbone.
        stages: ends of its slices.
        heads: weights by channel, for each stage.
    """

    SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    """The published scaling of images in [-1, 1]: ImageNet's mean and standard deviation, rounded."""
    FLOOR = 1e-10
    """Constant that is added to the norm before the division."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: nn.Sequential, stages: Sequence[int], heads: Sequence[Tensor]):
        super().__init__()
        starts = (0, *stages[:-1])
        self.slices = nn.ModuleList(features[start:end] for start, end in zip(starts, stages, strict=True))
        self.heads = nn.ParameterList(nn.Parameter(head.flatten(), requires_grad=False) for head in heads)
        self.register_buffer("shift", torch.tensor(self.SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(self.SCALE)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        _large_enough("lpips", a, SMALLEST_PERCEPTUAL)
        return _by_frame(self._distances, a, b)

    def _distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the distances of images `[B, C, H, W]`."""
        a, b = ((images.expand(-1, 3, -1, -1) - self.shift) / self.scale for images in (a, b))
        distance = torch.zeros(len(a), device=a.device)
        for stage, head in zip(self.slices, self.heads, strict=True):
            a, b = stage(a), stage(b)
            apart = (self._unit_length(a) - self._unit_length(b)).square()  # [B, C, H, W]
            distance = distance + (apart * head[:, None, None]).sum(dim=1).mean(dim=(1, 2))
        return distance

    def _unit_length(self, features: Tensor) -> Tensor:
        return features / (features.norm(dim=1, keepdim=True) + self.FLOOR)


def load_lpips(files: Sequence[Path]) -> LPIPS:
    """Loads LPIPS with published weights: linear heads, and the backbone that they were trained on.

    Args:
        files: a file with the heads (`lin0.model.1.weight` …) and one with torchvision's AlexNet or VGG-16; or one file
            with both.

    Raises:
        CheckpointError: heads or backbone are missing or do not belong together.
        MissingDependency: torchvision is not installed.
    """
    try:
        import torchvision
    except ImportError as error:
        raise MissingDependency("`lpips` needs torchvision for its backbone: pip install gan-core[pictures]") from error

    where = ", ".join(map(str, files)) or "no `--weights`"
    weights = {key: tensor for file in files for key, tensor in read_published(file).items()}
    heads = [weights.get(f"lin{k}.model.1.weight") for k in range(5)]
    found = [head for head in heads if head is not None]
    if len(found) < len(heads):
        raise CheckpointError(
            f"{where}: lpips needs its linear heads (`lin0.model.1.weight` … `lin4.model.1.weight`, the files alex.pth "
            "and vgg.pth of version 0.1 of the authors' package) and a backbone; give `--weights` for each"
        )
    widths = tuple(head.numel() for head in found)
    backbone = next((backbone for backbone in BACKBONES if backbone.widths == widths), None)
    if backbone is None:
        known = " or ".join(f"{backbone.name} {list(backbone.widths)}" for backbone in BACKBONES)
        raise CheckpointError(f"{where}: the heads have the widths {list(widths)}; expected those of {known}")
    layers = {key.removeprefix("features."): value for key, value in weights.items() if key.startswith("features.")}
    if not layers:
        raise CheckpointError(
            f"{where}: the heads belong to {backbone.name}, whose weights are missing; give torchvision's "
            f"{backbone.name} (`features.0.weight` …) as a second `--weights`"
        )
    with torch.device("meta"):  # only the features are used; their weights are loaded below
        features: nn.Sequential = torchvision.models.get_model(backbone.name, weights=None).features
    load_state(features.to_empty(device="cpu"), layers, {}, f"{where} as {backbone.name}")
    return LPIPS(features, backbone.stages, found)
