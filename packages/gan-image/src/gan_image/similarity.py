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
"""Protocol of each measure, by name."""


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
        comparison.protocol["lpips"] += (
            f", weights {', '.join(f'{path.name} ({sha256(path)[:12]})' for path in weights)}"
        )
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
    names, seen = names_ending(files, SUFFIXES)
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
