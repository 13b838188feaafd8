"""A small convolutional classifier of images, trained on the data's labels in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_core.measure.classification import learn_classes
from gan_core.measure.features import Features

STEPS, BATCH_SIZE = 600, 128
"""Number of training steps, and batch size."""
LEARNING_RATE = 4e-3
"""Highest learning rate of the cycle."""


class ImageClassifier(nn.Module):
    """3x3 convolutions that reduce images to about 4x4 pixels, and a linear layer.

    Every convolution halves the side, except the first one for images of at most 16 pixels.

    Args:
        channels: number of channels of the images.
        size: side of the images in pixels.
        num_classes: number of classes.
        width: number of channels of the first convolution; the others have `2 * width`.
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
        """Returns the logits `[B, num_classes]` of images `[B, C, S, S]` in [-1, 1]."""
        logits: Tensor = self.judge(self.convolutions(images))
        return logits

    def features(self, images: Tensor) -> Features:
        """Returns the spatial means of the last convolution, `[B, 2 width]`, and the logits."""
        maps = self.convolutions(images)
        return Features(maps.mean(dim=(2, 3)), self.judge(maps))


def learn_image_classes(images: Tensor, labels: Tensor, *, num_classes: int) -> tuple[ImageClassifier, float]:
    """Trains a classifier of images; equal images give equal weights.

    Training images are shifted by at most one pixel, because generated images are not centred as precisely as the data.

    Args:
        images: uint8 `[N, C, S, S]`.
        labels: classes `[N]`.
        num_classes: number of classes.

    Returns:
        The classifier in evaluation mode, and its accuracy on a held-out quarter of the images.

    Raises:
        InputError: there are too few images, or a class has only one.
    """
    return learn_classes(
        lambda: ImageClassifier(images.shape[1], images.shape[-1], num_classes),
        images,
        labels,
        augment=_shifted,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
    )


def _shifted(images: Tensor) -> Tensor:
    """Returns images that are each shifted by -1, 0 or 1 pixels along both axes; border pixels are repeated."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    down, right = torch.randint(3, (2, len(images), 1))
    side = torch.arange(images.shape[-1])
    item = torch.arange(len(images))[:, None, None]
    return padded[item, :, (down + side)[:, :, None], (right + side)[:, None, :]].permute(0, 3, 1, 2)
