"""Sources for named datasets: square crops of pictures, stacked digits, and mixtures of points."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data import ArraySpec, Batch, ImageSpec, Source, Spec, TensorSource, augmented, collate, expect, fetch
from gan_core.data.images import ImageSource, channels_in
from gan_core.data.pictures import to_channels, to_size
from gan_core.errors import DataError


class CroppedImages:
    """Square crops of pictures at uniformly random positions, which are the same in every process.

    Args:
        pictures: pictures, uint8 `[H, W, 3]`, at least as large as the crops.
        which: index of the picture of each crop, `[N]`.
        side: side of the crops in pixels.
    """

    def __init__(self, pictures: Sequence[Tensor], which: Tensor, side: int):
        self.pictures, self.which, self.side = pictures, which, side
        room = torch.tensor([picture.shape[:2] for picture in pictures])[which] - side + 1
        self.places = (torch.rand(len(which), 2, generator=torch.Generator().manual_seed(0)) * room).long()
        self.shapes = [(3, side, side)] * len(which)

    def __len__(self) -> int:
        return len(self.which)

    def ready(self, spec: ImageSpec) -> Tensor | None:
        return None

    def read(self, index: int, spec: ImageSpec) -> Image.Image:
        top, left = self.places[index].tolist()
        crop = self.pictures[int(self.which[index])][top : top + self.side, left : left + self.side]
        return to_size(to_channels(Image.fromarray(crop.numpy()), channels_in(spec)), spec)


class StackedSource(Source):
    """A source of colour images whose channels are three random grey images, drawn independently with replacement.

    The images are the same in every process. The fact `stacked` is the source of the grey images, for metrics.

    Args:
        single: source of the grey images.
        name: name of the source.
        count: number of stacked images.
    """

    def __init__(self, single: ImageSource, *, name: str, count: int):
        self.single, self.name = single, name
        self.parts = torch.randint(len(single), (count, 3), generator=torch.Generator().manual_seed(0))
        size = single.facts["image_size"]
        self.facts = {"channels": 3, "image_size": size, "shape": (3, size, size), "stacked": single}

    @property
    def keys(self) -> Collection[str]:
        return ("image",)

    def __len__(self) -> int:
        return len(self.parts)

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns items `image` (uint8 `[3, H, W]`), stacked on demand.

        Raises:
            DataError: the specification is not for images, or not for 3 channels.
        """
        wanted = expect(spec, ImageSpec, self.name, "images")
        if wanted.channels not in (None, 3):
            given = f"{self.name} has 3 channels, but the networks have {wanted.channels}"
            raise DataError(f"{given}; set `network.channels` to 3")
        single = self.single.fit(wanted.plain().but({"channels": 1}))
        return augmented(StackedImages(single, self.parts), wanted)


class StackedImages(Dataset[Batch]):
    """Stacks of three single-channel images `[1, H, W]`, given by their indices `parts` `[N, 3]`."""

    def __init__(self, single: Dataset[Batch], parts: Tensor):
        self.single, self.parts = single, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        return {"image": self.__getitems__([index])["image"][0]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        single = collate(fetch(self.single, self.parts[torch.as_tensor(indices)].flatten().tolist()))["image"]
        return {"image": single.reshape(-1, 3, *single.shape[2:])}  # [3 B, 1, H, W] -> [B, 3, H, W]


class PointSource(TensorSource):
    """A source of points `[N, D]` from a known mixture; its facts include `modes` `[M, D]` and `std`, for metrics."""

    def __init__(self, points: Tensor, *, name: str, modes: Tensor, std: float):
        super().__init__({"points": points}, name=name)
        self.facts = {"shape": tuple(points.shape[1:]), "modes": modes, "std": std}

    def fit(self, spec: Spec) -> Dataset[Batch]:
        """Returns the points unchanged.

        Raises:
            DataError: the specification is not for arrays, or its shape is not that of the points.
        """
        holds = f"points of shape {list(self.facts['shape'])}"
        shape = expect(spec, ArraySpec, self.name, holds).shape
        if shape not in (None, self.facts["shape"]):
            raise DataError(f"{self.name} holds {holds}, but `network.shape` is {list(shape)}; set it to the former")
        return self.dataset
