"""The named datasets of the image package, and the user's own folders and archives.

This module imports no heavy libraries, so that datasets can be listed quickly. The sources are in
`gan_core.data.images` and `gan_image.sources`, which are imported when a dataset is opened.

The points of the toy distributions are not in [-1, 1], so a generator of points needs a linear output layer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.cards import DataCard
from gan_core.data.downloads import data_home, download
from gan_core.errors import DataError, MissingDependency

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.data import Derived, Unpaired
    from gan_core.data.images import ImageSource
    from gan_image.sources import PointSource, StackedSource

DATASETS: tuple[DataCard, ...] = (
    DataCard(
        name="digits",
        title="scanned handwritten digits",
        items="1,797 grey images, 8x8, 10 classes",
        origin="embedded",
        load="gan_image.data:load_digits",
    ),
    DataCard(
        name="gaussian-1d",
        title="normal distribution on a line",
        items="100,000 points, mean 4, std 0.5",
        origin="embedded",
        load="gan_image.data:load_gaussian",
    ),
    DataCard(
        name="ring",
        title="8 normal distributions on a circle",
        items="100,000 points, radius 1, std 0.01",
        origin="embedded",
        load="gan_image.data:load_ring",
    ),
    DataCard(
        name="grid",
        title="25 normal distributions on a grid",
        items="100,000 points, spacing 2, std 0.05",
        origin="embedded",
        load="gan_image.data:load_grid",
    ),
    DataCard(
        name="mnist",
        title="handwritten digits",
        items="60,000 grey images, 28x28, 10 classes",
        origin="download",
        load="gan_image.data:load_mnist",
        parts=("train", "test"),
    ),
    DataCard(
        name="fashion-mnist",
        title="clothes",
        items="60,000 grey images, 28x28, 10 classes",
        origin="download",
        load="gan_image.data:load_fashion_mnist",
        parts=("train", "test"),
    ),
    DataCard(
        name="cifar10",
        title="animals and vehicles",
        items="50,000 colour images, 32x32, 10 classes",
        origin="download",
        load="gan_image.data:load_cifar10",
        parts=("train", "test"),
    ),
    DataCard(
        name="photographs",
        title="crops of 8 photographs (needs gan-image[photographs])",
        items="10,000 colour images, 128x128, 8 classes",
        origin="embedded",
        load="gan_image.data:load_photographs",
    ),
    DataCard(
        name="stl10",
        title="animals and vehicles",
        items="100,000 colour images, 96x96, unlabelled",
        origin="download",
        load="gan_image.data:load_stl10",
    ),
    DataCard(
        name="celeba",
        title="aligned faces of celebrities",
        items="202,599 colour images, 178x218",
        origin="download",
        load="gan_image.data:load_celeba",
    ),
    DataCard(
        name="lsun-bedroom",
        title="bedrooms (needs gan-image[lsun])",
        items="3,033,042 colour images of at least 256 pixels",
        origin="download",
        load="gan_image.data:load_lsun_bedroom",
    ),
    DataCard(
        name="stacked-digits",
        title="three scanned digits as RGB channels",
        items="128,000 images, 8x8, 1000 modes",
        origin="embedded",
        load="gan_image.data:load_stacked_digits",
    ),
    DataCard(
        name="inverted-digits",
        title="scanned digits and inverted ones, unpaired",
        items="899 and 898 grey images, 8x8",
        origin="embedded",
        load="gan_image.data:load_inverted_digits",
    ),
    DataCard(
        name="digit-outlines",
        title="outlines of scanned digits, and the digits",
        items="1,797 pairs of grey images, 8x8",
        origin="embedded",
        load="gan_image.data:load_digit_outlines",
    ),
    DataCard(
        name="stacked-mnist",
        title="three MNIST digits as RGB channels",
        items="128,000 images, 28x28, 1000 modes",
        origin="download",
        load="gan_image.data:load_stacked_mnist",
    ),
)

POINTS = 100_000
"""Number of points in a toy distribution, as in PacGAN (Lin et al. 2018, arXiv:1712.04086, section 4.1)."""
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")
"""Colour photographs that are included in scikit-image; scikit-learn includes two more."""
CROPS, CROP_SIZE = 10_000, 128
"""Number of square crops of the photographs, and their side in pixels."""
STACKED = 128_000
"""Number of images of stacked digits, as in PacGAN (arXiv:1712.04086, section 4.2)."""
HALVES = ("left", "right")
"""Parts of files that show two images side by side."""


def open_folder(path: str | Path, *, strict: bool = False, part: str | None = None) -> ImageSource:
    """Opens the images of a folder, or of a zip or tar archive, which is read in place.

    If all images are in sub-folders, the names of the top-level sub-folders are their classes; otherwise there are no
    labels. Unreadable files are skipped with a warning.

    Args:
        path: a local path or a URL of a folder or archive; or a Hugging Face dataset, `hf:OWNER/NAME:SPLIT`.
        strict: whether an unreadable file is an error.
        part: name of a sub-folder to open instead; or `left` or `right`, one half of files that show two images side by
            side.

    Raises:
        DataError: there is no such folder or archive; or it contains no readable image; or an image is unreadable and
            `strict` is set.
        MissingDependency: a library for the URL or for Hugging Face datasets is not installed.
    """
    from gan_core.data.folders import open_place
    from gan_core.data.images import open_images
    from gan_image.database import open_files

    half = part if part in HALVES else None
    opened = open_place(path, None if half else part, kind="image", open_files=open_files)
    if half is not None:
        opened = opened._replace(name=f"{opened.name}:{half}")
    return open_images(opened, strict=strict, half=half)


def load_digits() -> ImageSource:
    """Loads the UCI handwritten digits (Alpaydin & Kaynak 1998) of scikit-learn, with grey levels from 0 to 255."""
    from torch import as_tensor, uint8

    bunch = import_module("sklearn.datasets").load_digits()
    pixels = as_tensor(bunch.images).unsqueeze(1).mul(255 / 16).round().to(uint8)
    return _labelled("digits", pixels, bunch.target, [str(k) for k in bunch.target_names])


def load_gaussian() -> PointSource:
    """Loads points from N(4, 0.5²), a one-dimensional example that is common in GAN tutorials."""
    from torch import tensor

    return _mixture("gaussian-1d", tensor([[4.0]]), 0.5)


def load_ring() -> PointSource:
    """Loads the ring of VEEGAN and PacGAN (arXiv:1712.04086): 8 modes on the unit circle, standard deviation 0.01."""
    from torch import arange, pi, stack

    angle = 2 * pi * arange(8) / 8
    return _mixture("ring", stack([angle.cos(), angle.sin()], dim=1), 0.01)


def load_grid() -> PointSource:
    """Loads the 2D grid of VEEGAN and PacGAN: 25 modes, standard deviation 0.05 (arXiv:1712.04086)."""
    from torch import arange, cartesian_prod

    side = arange(-4.0, 5.0, 2.0)
    return _mixture("grid", cartesian_prod(side, side), 0.05)


def load_mnist(part: str = "train") -> ImageSource:
    """Loads MNIST (LeCun et al. 1998) through torchvision: its part `train` or `test`.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _torchvision("mnist", "MNIST", part)


def load_fashion_mnist(part: str = "train") -> ImageSource:
    """Loads Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) through torchvision: its part `train` or `test`.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _torchvision("fashion-mnist", "FashionMNIST", part)


def load_cifar10(part: str = "train") -> ImageSource:
    """Loads CIFAR-10 (Krizhevsky 2009) through torchvision: its part `train` or `test`.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _torchvision("cifar10", "CIFAR10", part)


def load_photographs() -> ImageSource:
    """Loads 128x128 crops of eight photographs of scikit-image and scikit-learn; the photographs are the classes.

    Each photograph yields the same number of crops, at random positions that are the same in every process.

    Raises:
        MissingDependency: scikit-image is not installed.
    """
    import torch

    from gan_core.data.images import ImageSource
    from gan_image.sources import CroppedImages

    try:
        shipped = import_module("skimage.data")
    except ImportError as error:
        raise MissingDependency("`photographs` need scikit-image: pip install gan-image[photographs]") from error
    pictures = {name: getattr(shipped, name)() for name in PHOTOGRAPHS}
    samples = import_module("sklearn.datasets").load_sample_images()
    pictures |= {
        name.partition(".")[0]: image
        for name, image in zip(map(os.path.basename, samples.filenames), samples.images, strict=True)
    }
    labels = torch.arange(CROPS) % len(pictures)
    images = CroppedImages([torch.tensor(pixels) for pixels in pictures.values()], labels, CROP_SIZE)
    return ImageSource(images, name="photographs", labels=labels, classes=list(pictures), groups=labels)


def load_stl10() -> ImageSource:
    """Loads the unlabelled part of STL-10 (Coates et al. 2011) through torchvision; it needs 2.8 GB of memory.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    import torch

    from gan_core.data.images import ImageSource, TensorImages

    data = _download("stl10", _torchvision_class("STL10"), split="unlabeled")
    return ImageSource(TensorImages(torch.as_tensor(data.data)), name="stl10")


def load_celeba() -> ImageSource:
    """Loads the aligned and cropped faces of CelebA (Liu et al. 2015, arXiv:1411.7766), all parts, through torchvision.

    If `GAN_DATA_HOME/celeba` contains the folder or the zip archive `img_align_celeba`, nothing is downloaded.

    Raises:
        DataError: the dataset is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    folder = data_home() / "celeba"
    kept = [path for path in (folder / "img_align_celeba", folder / "img_align_celeba.zip") if path.exists()]
    if not kept:
        _download("celeba", _torchvision_class("CelebA"), split="all")
    return _of_one_shape("celeba", kept[0] if kept else folder / "img_align_celeba", (3, 218, 178))


def load_lsun_bedroom() -> ImageSource:
    """Loads the training split of LSUN's bedrooms (Yu et al. 2015, arXiv:1506.03365) from its database, in place.

    The shorter side of its images is 256 pixels.

    Raises:
        DataError: the database is not in `GAN_DATA_HOME`; the published archive must be unpacked by hand.
        MissingDependency: `lmdb` is not installed.
    """
    folder = data_home() / "lsun" / "bedroom_train_lmdb"
    if not folder.is_dir():
        raise DataError(f"lsun-bedroom: unpack the published bedroom_train_lmdb.zip to {folder}")
    return _of_one_shape("lsun-bedroom", folder, (3, 256, 256))


def load_inverted_digits() -> Unpaired:
    """Loads unpaired digits: half of the scanned digits as `source`, and the other half, inverted, as `target`."""
    from gan_core.data import Unpaired
    from gan_core.data.images import ImageSource, TensorImages

    pixels = load_digits().images.pixels  # type: ignore[attr-defined]
    source, target = pixels[::2], 255 - pixels[1::2]
    return Unpaired(
        name="inverted-digits",
        source=ImageSource(TensorImages(source), name="digits"),
        target=ImageSource(TensorImages(target), name="inverted digits"),
    )


def load_digit_outlines() -> Derived:
    """Loads pairs of the scanned digits (`target`) and their outlines, white on black (`source`); see `outlined`."""
    from gan_core.data import Derived

    return Derived(load_digits(), outlined, name="digit-outlines")


def outlined(image: Tensor, numbers: Sequence[float] = ()) -> Tensor:
    """Returns the outlines of an image: 255 where values within 3×3 pixels differ by more than 64, else 0.

    Args:
        image: uint8 `[C, H, W]`.
        numbers: not used; `Derived` passes random numbers.
    """
    from torch.nn.functional import max_pool2d

    levels = image.float()
    contrast = max_pool2d(levels, 3, 1, 1) + max_pool2d(-levels, 3, 1, 1)  # maximum minus minimum
    return (contrast > 64).byte() * 255


def load_stacked_digits() -> StackedSource:
    """Loads images whose channels are three random scanned digits, like `load_stacked_mnist` but without a download."""
    return _stacked("stacked-digits", load_digits())


def load_stacked_mnist() -> StackedSource:
    """Loads stacked MNIST: images whose channels are three random digits (Metz et al. 2017, arXiv:1611.02163).

    It has 1000 modes and 128,000 images, as in VEEGAN (arXiv:1705.07761) and PacGAN (arXiv:1712.04086, section 4.2).

    Raises:
        DataError: MNIST is not in `GAN_DATA_HOME` and cannot be downloaded.
    """
    return _stacked("stacked-mnist", load_mnist())


def _mixture(name: str, modes: Tensor, std: float) -> PointSource:
    """Returns points of a uniform mixture of normal distributions, the same in every process."""
    import torch

    from gan_image.sources import PointSource

    generator = torch.Generator().manual_seed(0)
    mode = torch.randint(len(modes), (POINTS,), generator=generator)
    noise = torch.randn(POINTS, modes.shape[1], generator=generator)
    return PointSource(modes[mode] + std * noise, name=name, modes=modes, std=std)


def _stacked(name: str, digits: ImageSource) -> StackedSource:
    from gan_image.sources import StackedSource

    return StackedSource(digits, name=name, count=STACKED)


def _torchvision(name: str, loader: str, part: str) -> ImageSource:
    import torch

    data = _download(name, _torchvision_class(loader), train=part == "train")
    pixels = torch.as_tensor(data.data)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)  # [N, H, W(, C)] -> [N, C, H, W]
    return _labelled(name if part == "train" else f"{name}:{part}", pixels, data.targets, data.classes)


def _torchvision_class(name: str) -> Callable[..., Any]:
    kind: Callable[..., Any] = getattr(import_module("torchvision.datasets"), name)
    return kind


def _download(name: str, kind: Callable[..., Any], **part: Any) -> Any:
    """Returns a torchvision dataset, and downloads it if it is missing."""
    home = data_home()
    files, folder = _by_hand(kind, home)
    return download(name, lambda: kind(root=str(home), download=True, **part), files=files, folder=folder)


def _by_hand(kind: Any, home: Path) -> tuple[str, Path]:
    """Returns the names of the files that torchvision looks for before it downloads them, and their folder."""
    if hasattr(kind, "resources"):
        return ", ".join(file for file, _ in kind.resources), home / kind.__name__ / "raw"
    if hasattr(kind, "file_list"):  # of CelebA, only the images are used
        return str(kind.file_list[0][-1]), home / kind.base_folder
    return str(kind.filename), home


def _of_one_shape(name: str, path: Path, shape: tuple[int, int, int]) -> ImageSource:
    """Opens a published dataset of image files of one shape `(C, H, W)`, whose headers need not be read."""
    from gan_core.data.files import names_ending
    from gan_core.data.images import FileImages, ImageSource
    from gan_core.data.pictures import SUFFIXES
    from gan_image.database import open_files

    files = open_files(path)
    names, _ = names_ending(files, SUFFIXES)
    if not names:
        raise DataError(f"{path}: contains no images; delete it, and put the published {path.name} there")
    return ImageSource(FileImages(files, names, [shape] * len(names)), name=name)


def _labelled(name: str, pixels: Tensor, labels: Any, classes: list[str]) -> ImageSource:
    from gan_core.data.images import ImageSource, TensorImages

    return ImageSource(TensorImages(pixels), name=name, labels=labels, classes=classes)
