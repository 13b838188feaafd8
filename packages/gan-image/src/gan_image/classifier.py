"""A small convolutional classifier, for measures that need to know what a picture shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_core.data import BatchStream, TensorDataset, to_device
from gan_core.measure.classification import learn, split

STEPS, BATCH = 600, 128
RATE = 4e-3
"""The highest of the cycle."""


def learn_classes(images: Tensor, labels: Tensor, *, num_classes: int) -> tuple[Classifier, float]:
    """A network that tells the classes of images, learnt on three quarters of them; the same for the same images.

    It sees each image moved by at most a pixel, as samples are not placed as exactly as data.

    Args:
        images: uint8 `[N, C, S, S]`.
        labels: `[N]`.
        num_classes: how many there are.

    Returns:
        What takes `[B, C, S, S]` in [-1, 1] to logits `[B, num_classes]`, and its accuracy on the last quarter.
    """
    rows = split(labels)
    train, test = (TensorDataset({"image": images[part], "label": labels[part]}) for part in rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(images.shape[1], images.shape[-1], num_classes)
        batches = BatchStream(train, BATCH, seed=0)

        def draw() -> tuple[Tensor, Tensor]:
            batch = next(batches)
            return _moved(batch["image"]), batch["label"]

        learn(network, draw, steps=STEPS, rate=RATE)
    held_out = to_device(test.tensors, torch.device("cpu"))
    right = recognise(network, held_out["image"]) == held_out["label"]
    return network, float(right.float().mean())


def recognise(network: nn.Module, images: Tensor) -> Tensor:
    """The classes `[N]` that a network takes images `[N, C, S, S]` in [-1, 1] for."""
    with torch.no_grad():
        return torch.cat([network(part).argmax(dim=1) for part in torch.split(images, 1024)])


class Classifier(nn.Module):
    """Convolutions until the side is 4; all but the first of a small image's halve it.

    Args:
        channels: of the images.
        size: their side in pixels.
        num_classes: how many there are.
        width: channels of the first convolution; the others have twice as many.
    """

    def __init__(self, channels: int, size: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        layers: list[nn.Module] = []
        wide, side, stride = width, size, 1 if size <= 16 else 2
        while side > 4 or not layers:
            layers += [nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            side = -(-side // stride)
            channels, wide, stride = wide, 2 * width, 2
        self.convolutions = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(channels * side * side, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, C, S, S]` in [-1, 1] to logits `[B, num_classes]`."""
        logits: Tensor = self.judge(self.convolutions(images))
        return logits

    def features_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The means over places of the last convolution `[B, 2 width]`, and the logits."""
        maps = self.convolutions(images)
        return maps.mean(dim=(2, 3)), self.judge(maps)


def _moved(images: Tensor) -> Tensor:
    """Each image moved by at most one pixel, its edge repeated."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    down, right = torch.randint(3, (2, len(images), 1))
    side = torch.arange(images.shape[-1])
    item = torch.arange(len(images))[:, None, None]
    return padded[item, :, (down + side)[:, :, None], (right + side)[:, None, :]].permute(0, 3, 1, 2)
