"""Metrics of images and toy points; see `gan_core.measure.measures`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gan_core.data import ImageSpec, Source, some
from gan_core.measure.classification import recognise
from gan_core.measure.image_classifier import learn_image_classes
from gan_core.measure.measures import Part, Subject

MOST_POINTS = 100_000
"""Maximum number of real points from which moments are computed."""


class Modes:
    """Modes found, and samples of high quality (Lin et al. 2018, PacGAN, arXiv:1712.04086, section 4.1).

    A sample is of high quality if it is within 3 standard deviations of its nearest mode. Figures: `modes_found`, the
    number of modes with at least one such sample; `modes`, the number of modes; `high_quality`, the fraction of such
    samples; `kl`, the reverse divergence KL(samples || data) in nats between the distribution of such samples over the
    modes and a uniform distribution, or its maximum if there are no such samples.
    """

    def __init__(self, subject: Subject):
        self.centres, self.std = torch.as_tensor(subject.facts["modes"]), subject.facts["std"]
        self.count, self.counts = 0, torch.zeros(len(self.centres), dtype=torch.long)

    def update(self, part: Part) -> None:
        distance, nearest = torch.cdist(part.samples, self.centres.to(part.samples)).min(dim=1)
        self.counts += nearest[distance < 3 * self.std].bincount(minlength=len(self.counts))
        self.count += len(nearest)

    def figures(self) -> dict[str, float]:
        good = int(self.counts.sum())
        share = self.counts.double() / max(1, good)
        return {
            "modes_found": int((self.counts > 0).sum()),
            "modes": len(self.counts),
            "high_quality": good / self.count,
            "kl": math.log(len(self.counts)) + float(torch.xlogy(share, share).sum()),
        }


class StackedModes:
    """Modes of stacked digits found, and their divergence (Lin et al. 2018, PacGAN, arXiv:1712.04086, section 4.2).

    Each channel is classified by a classifier of single digits at the size of the samples; three digits give one of
    1000 modes. PacGAN uses 26,000 samples, for which the divergence of a perfect sampler is 999 / 52,000 on average.
    Use the same number to compare with its figures.

    Figures: `modes_found`, the number of modes with at least one sample; `modes`, the number of modes; `kl`, the
    reverse divergence KL(samples || data) in nats, where the distribution of the data is the product of the digits'
    frequencies; `accuracy_on_real`, the classifier's accuracy on held-out digits.
    """

    def __init__(self, subject: Subject):
        single, size = subject.facts["stacked"], next(subject.real(1))[subject.key].shape[-1]
        self.network, self.accuracy, self.frequency = subject.once("digits", lambda: _single_digits(single, size))
        self.count, self.counts = 0, torch.zeros(len(self.frequency) ** 3, dtype=torch.long)

    def update(self, part: Part) -> None:
        classes = len(self.frequency)
        digits = recognise(self.network, part.samples.flatten(0, 1)[:, None]).reshape(-1, 3)
        place = torch.tensor([classes**2, classes, 1])
        self.counts += (digits * place).sum(dim=1).bincount(minlength=len(self.counts))
        self.count += len(digits)

    def figures(self) -> dict[str, float]:
        share = self.counts.double() / self.count
        data = torch.einsum("i,j,k->ijk", *[self.frequency] * 3).flatten()
        return {
            "modes_found": int((share > 0).sum()),
            "modes": len(share),
            "kl": float((torch.xlogy(share, share) - torch.xlogy(share, data)).sum()),
            "accuracy_on_real": self.accuracy,
        }


def _single_digits(single: Source, size: int) -> tuple[nn.Module, float, Tensor]:
    """Returns a classifier of single digits, its accuracy on held-out digits, and the frequencies of the digits."""
    real: Any = single.fit(ImageSpec(image_size=size, channels=1))
    every, classes = real.__getitems__(range(len(real))), single.facts["num_classes"]
    network, accuracy = learn_image_classes(every["image"], every["label"], num_classes=classes)
    return network, accuracy, torch.bincount(every["label"], minlength=classes).double() / len(real)


class Moments:
    """Mean and standard deviation over all coordinates.

    Figures: `mean_of_samples`, `std_of_samples`, `mean_of_data` and `std_of_data`.
    """

    def __init__(self, subject: Subject):
        real = some(subject.dataset, MOST_POINTS)[subject.key].double()
        self.real = {"mean_of_data": float(real.mean()), "std_of_data": float(real.std())}
        self.count, self.mean, self.scatter = 0, 0.0, 0.0

    def update(self, part: Part) -> None:
        values = part.samples.double()
        count, mean = values.numel(), float(values.mean())
        scatter, apart = float((values - mean).square().sum()), mean - self.mean
        total = self.count + count  # Chan et al. 1983, eq. 2.1
        self.scatter += scatter + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    def figures(self) -> dict[str, float]:
        return {"mean_of_samples": self.mean, "std_of_samples": math.sqrt(self.scatter / (self.count - 1)), **self.real}
