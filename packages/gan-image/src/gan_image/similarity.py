"""Comparison of image files by PSNR, SSIM, MS-SSIM and LPIPS (`gan_core.measure.similarity`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from gan_core.data.files import Files, LoneFile, names_ending
from gan_core.data.pictures import SUFFIXES, read_image, to_tensor
from gan_core.errors import DataError, InputError, Unreadable, count, unknown
from gan_core.measure.similarity import K1, K2, SCALES, SIGMA, WINDOW, load_lpips, ms_ssim, psnr, ssim
from gan_core.models.checkpoint import sha256
from gan_image.database import open_files


@dataclass(frozen=True)
class Comparison:
    """Similarity of pairs of images.

    Attributes:
        figures: values by metric and pair.
        protocol: settings of each metric.
    """

    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the pairs."""
        return {name: sum(figures.values()) / len(figures) for name, figures in self.figures.items()}


PROTOCOLS = {
    "psnr": "in dB, on [0, 1], mean squared error over pixels and channels of a pair",
    "ssim": f"on [0, 1], Gaussian window {WINDOW}, sigma {SIGMA}, K1 {K1}, K2 {K2}, no padding, mean over channels",
    "ms_ssim": f"as ssim, five scales with exponents {', '.join(map(str, SCALES))}, negative terms as 0",
    "lpips": "version 0.1, on [-1, 1]",
}
"""Protocol of each metric, by name."""


def compare(a: Path, b: Path, *, measures: Sequence[str], weights: Sequence[Path] = ()) -> Comparison:
    """Compares two images, or the images of two folders or archives in pairs of the same name.

    Args:
        a: an image file, folder or archive.
        b: an image file, folder or archive.
        measures: names of metrics in `PROTOCOLS`.
        weights: files with the weights of LPIPS.

    Raises:
        InputError: a metric is unknown, the images are too small for it, or `weights` would have no effect.
        DataError: an image has no counterpart or cannot be read, or the images of a pair have different sizes.
    """
    metrics = _metrics(measures, weights)
    comparison = Comparison({name: {} for name in metrics}, {name: PROTOCOLS[name] for name in metrics})
    if "lpips" in metrics:
        comparison.protocol["lpips"] += (
            f", weights {', '.join(f'{path.name} ({sha256(path)[:12]})' for path in weights)}"
        )
    for name, first, second in read_pairs(a, b):
        for metric, measure in metrics.items():
            with torch.no_grad():
                comparison.figures[metric][name] = float(measure(first, second))
    return comparison


def _metrics(names: Sequence[str], weights: Sequence[Path]) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    for name in names:
        if name not in PROTOCOLS:
            raise unknown("metric", name, PROTOCOLS, InputError)
    if weights and "lpips" not in names:
        raise InputError(
            "`--weights` has no effect without the metric `lpips`; add it to `--metrics`, or leave out `--weights`"
        )
    known: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
    return {name: load_lpips(weights) if name == "lpips" else known[name] for name in names}


def read_pairs(a: Path, b: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields the name and the two images of each pair, `[1, C, H, W]` in [-1, 1]; suffixes of names are ignored.

    Raises:
        DataError: an image has no counterpart or cannot be read, or the images of a pair have different sizes.
    """
    if missing := [path for path in (a, b) if not path.exists()]:
        raise DataError(f"{missing[0]}: no such file or folder")
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
                    f"{there}: has no counterpart for {count(len(alone), 'image')} of {here} ({has[alone[0]]} …); "
                    "give the images of a pair the same name (suffixes may differ)"
                )
        names = {stem: (of_first[stem], of_second[stem]) for stem in sorted(of_first)}
    for name, (one, other) in names.items():
        yield name, *_pair(_read(first, one, a), _read(second, other, b), name)


def _looks_like_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _by_stem(files: Files, where: Path) -> dict[str, str]:
    names, seen = names_ending(files, SUFFIXES)
    if not names:
        raise DataError(f"{where}: no images among {count(seen, 'file')} (looked for {', '.join(SUFFIXES)})")
    stems = {str(PurePosixPath(name).with_suffix("")): name for name in names}
    if len(stems) < len(names):
        twice = next(name for name in names if stems[str(PurePosixPath(name).with_suffix(""))] != name)
        raise DataError(f"{where}: {twice} and another image differ only in their suffix; rename or remove one of them")
    return stems


def _read(files: Files, name: str, where: Path) -> Tensor:
    try:
        return to_tensor(read_image(files, name))[None]
    except Unreadable as error:
        place = where if where.name == name else where / name
        raise DataError(f"{place}: {error}") from error


def _pair(a: Tensor, b: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Returns both images in [-1, 1] with equal numbers of channels; a grey image is repeated to match a colour one."""
    if a.shape[-2:] != b.shape[-2:]:
        sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (a, b))
        raise DataError(f"{name}: the images are {sizes} pixels; the images of a pair must have the same size")
    channels = max(a.shape[1], b.shape[1])
    a, b = (x.expand(-1, channels, -1, -1) / 127.5 - 1 for x in (a, b))
    return a, b
