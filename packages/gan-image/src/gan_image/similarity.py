"""Measures of pairs of images: PSNR, SSIM, MS-SSIM and LPIPS.

All take images `[B, C, H, W]` in [-1, 1] and give one figure a pair, `[B]`. The first three work on [0, 1], as on
pixels of 0 … 255 over 255: SSIM is not the same on numbers that are shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_core.checkpoint import load_state, read_published
from gan_core.errors import CheckpointError, DataError, InputError, unknown
from gan_core.files import Files, LoneFile, Unreadable, count
from gan_image.files import SUFFIXES, image_names, open_files, read_image
from gan_image.sources import to_tensor

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
"""Of SSIM: pixels a side and standard deviation of its Gaussian window, and its constants (Wang et al. 2004)."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of MS-SSIM's scales, the finest first (Wang et al. 2003, section 3.2)."""
SMALLEST_MULTISCALE = WINDOW * 2 ** (len(SCALES) - 1)
"""Pixels a side below which the window does not fit into the coarsest scale."""
SMALLEST_PERCEPTUAL = 32
"""Pixels a side below which the backbones of LPIPS run out of pixels."""


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB, -10 log₁₀ of the mean squared error on [0, 1]; infinite where equal."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(_unit(a), _unit(b), data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity, the mean over the places where the window fits, and channels (Wang et al. 2004, eq. 13).

    Raises:
        InputError: the images are smaller than the window.
    """
    _large_enough("ssim", a, WINDOW)
    return _structure(_unit(a), _unit(b))


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity over five scales, each half the one before (Wang et al. 2003, eq. 7).

    The coarsest scale is compared in full, the others without their luminance. A negative term counts as 0.

    Raises:
        InputError: the window does not fit into the coarsest scale.
    """
    _large_enough("ms_ssim", a, SMALLEST_MULTISCALE)
    a, b = _unit(a), _unit(b)
    product = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for exponent in SCALES[:-1]:
        product = product * _structure(a, b, luminance=False).clamp(min=0) ** exponent
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product * _structure(a, b).clamp(min=0) ** SCALES[-1]


def _unit(images: Tensor) -> Tensor:
    return (images.double() + 1) / 2  # where images are nearly equal, float32 has no digits left for variances


def _structure(a: Tensor, b: Tensor, *, luminance: bool = True) -> Tensor:
    """SSIM, or its factor of contrast and structure alone, of images in [0, 1], by pair."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, found = structural_similarity_index_measure(
        a, b, sigma=SIGMA, kernel_size=WINDOW, data_range=1.0, k1=K1, k2=K2, reduction="none",
        return_full_image=luminance, return_contrast_sensitivity=not luminance,
    )  # fmt: skip
    if not luminance:  # the library's mean is over the places where the window fits
        return found
    edge = WINDOW // 2  # and here it is over all, with images that are mirrored at their borders
    return found[..., edge:-edge, edge:-edge].mean(dim=(1, 2, 3))


def _large_enough(measure: str, images: Tensor, smallest: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise InputError(
            f"`{measure}` needs images of at least {smallest}x{smallest} pixels; these are {width}x{height}. "
            "Compare larger ones, or leave the measure out"
        )


# --- LPIPS


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision's whose activations LPIPS compares, after five of its ReLUs.

    `stages` are the ends of the slices of its `features`, `widths` the channels there.
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
    channel, summed, averaged over places, and added up over the stages. Grey is repeated to RGB.

    Args:
        features: the backbone's layers.
        stages: the ends of its slices.
        heads: a weight a channel, for each stage.
    """

    SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    """The published scaling of images in [-1, 1]; ImageNet's mean and deviation, rounded."""
    FLOOR = 1e-10
    """Added to a length before it divides."""

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
    """LPIPS of published weights: its linear heads, and the backbone that they were learnt for.

    Args:
        files: one with the heads (`lin0.model.1.weight` …), one with torchvision's AlexNet or VGG-16; or one with both.

    Raises:
        CheckpointError: heads or backbone are missing, or are not of each other.
    """
    import torchvision

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
            f"{where}: the heads are of {backbone.name}, whose weights are missing; give torchvision's "
            f"{backbone.name} (`features.0.weight` …) as a second `--weights`"
        )
    with torch.device("meta"):  # only the features are wanted, and they are loaded
        features: nn.Sequential = torchvision.models.get_model(backbone.name, weights=None).features
    load_state(features.to_empty(device="cpu"), layers, {}, f"{where} as {backbone.name}")
    return LPIPS(features, backbone.stages, found)


# --- comparing files


@dataclass(frozen=True)
class Comparison:
    """Figures of pairs by measure and pair, with how they were measured."""

    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Each measure's mean over the pairs."""
        return {name: sum(figures.values()) / len(figures) for name, figures in self.figures.items()}


PROTOCOLS = {
    "psnr": "in dB, on [0, 1], mean squared error over pixels and channels of a pair",
    "ssim": f"on [0, 1], Gaussian window {WINDOW}, sigma {SIGMA}, K1 {K1}, K2 {K2}, no padding, mean over channels",
    "ms_ssim": f"as ssim, five scales with exponents {', '.join(map(str, SCALES))}, negative terms as 0",
    "lpips": "version 0.1, on [-1, 1]",
}
"""How each measure is taken, by its name."""


def compare(a: Path, b: Path, *, measures: Sequence[str], weights: Sequence[Path] = ()) -> Comparison:
    """Measures two images, or the images of two folders or archives that have the same names.

    Args:
        a: an image file, folder or archive.
        b: the same.
        measures: names of `PROTOCOLS`.
        weights: LPIPS's files.

    Raises:
        InputError: a measure is unknown, does not fit the images' size, or `weights` would have no effect.
        DataError: the images have no partners, cannot be read, or differ in size.
    """
    taken = _measures(measures, weights)
    comparison = Comparison({name: {} for name in taken}, {name: PROTOCOLS[name] for name in taken})
    if "lpips" in taken:
        comparison.protocol["lpips"] += f", weights {', '.join(f'{path.name} ({sha256(path)})' for path in weights)}"
    for name, first, second in read_pairs(a, b):
        for measure, take in taken.items():
            with torch.no_grad():
                comparison.figures[measure][name] = float(take(first, second))
    return comparison


def _measures(names: Sequence[str], weights: Sequence[Path]) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    for name in names:
        if name not in PROTOCOLS:
            raise unknown("measure", name, PROTOCOLS, InputError)
    if weights and "lpips" not in names:
        raise InputError("`--weights` have no effect without `lpips` among the metrics; name it, or leave them out")
    known: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
    return {name: load_lpips(weights) if name == "lpips" else known[name] for name in names}


def read_pairs(a: Path, b: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The pairs of images of the same name (its suffix left out), `[1, C, H, W]` in [-1, 1].

    Raises:
        DataError: an image has no partner or cannot be read, or the sizes of a pair differ.
    """
    if missing := [path for path in (a, b) if not path.exists()]:
        raise DataError(f"{missing[0]}: there is no such file or folder")
    lone = [_looks_like_image(path) for path in (a, b)]
    if lone[0] != lone[1]:
        raise DataError(f"{a} and {b}: give two image files, or two folders")
    first, second = (LoneFile(path) if all(lone) else open_files(path) for path in (a, b))
    of_first, of_second = _by_stem(first, a), _by_stem(second, b)
    if all(lone):
        names = {a.name: (a.name, b.name)}
    else:
        for has, lacks, here, there in ((of_first, of_second, a, b), (of_second, of_first, b, a)):
            if alone := sorted(has.keys() - lacks.keys()):
                raise DataError(
                    f"{there}: has no partner for {count(len(alone), 'image')} of {here} ({has[alone[0]]} …); "
                    "pairs have the same name, apart from the suffix"
                )
        names = {stem: (of_first[stem], of_second[stem]) for stem in sorted(of_first)}
    for name, (one, other) in names.items():
        yield name, *_pair(_read(first, one, a), _read(second, other, b), name)


def _looks_like_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _by_stem(files: Files, where: Path) -> dict[str, str]:
    names, seen = image_names(files)
    if not names:
        raise DataError(f"{where}: no images among {count(seen, 'file')} (looked for {', '.join(SUFFIXES)})")
    stems = {str(PurePosixPath(name).with_suffix("")): name for name in names}
    if len(stems) < len(names):
        twice = next(name for name in names if stems[str(PurePosixPath(name).with_suffix(""))] != name)
        raise DataError(f"{where}: {twice} and another differ only in their suffix, so their partner is not known")
    return stems


def _read(files: Files, name: str, where: Path) -> Tensor:
    try:
        return to_tensor(read_image(files, name))[None]
    except Unreadable as error:
        place = where if where.name == name else where / name
        raise DataError(f"{place}: {error}") from error


def _pair(a: Tensor, b: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Both in [-1, 1]; where one is grey and one in colour, the grey one repeated."""
    if a.shape[-2:] != b.shape[-2:]:
        sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (a, b))
        raise DataError(f"{name}: the two images are {sizes} pixels; a pair must have one size")
    channels = max(a.shape[1], b.shape[1])
    a, b = (x.expand(-1, channels, -1, -1) / 127.5 - 1 for x in (a, b))
    return a, b


def sha256(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
