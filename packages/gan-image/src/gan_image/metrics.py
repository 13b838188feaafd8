"""What only images (and toy points) measure. Importing it loads nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gan_core.domain import ExtractorCard, MetricCard
from gan_core.features import FEATURE_METRICS

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from gan_core.data import Source

METRICS = (
    MetricCard("recognition", "share of samples that a classifier of the real data takes for their class",
               "gan_image.metrics:recognition", ("num_classes", "channels"), by_class=True),
    MetricCard("modes", "modes of a toy distribution that are found, and samples that lie on one",
               "gan_image.metrics:modes", ("modes",)),
    MetricCard("stacked_modes", "modes of stacked digits that are found, and their divergence from the data's",
               "gan_image.metrics:stacked_modes", ("stacked",)),
    MetricCard("moments", "mean and standard deviation beside the data's", "gan_image.metrics:moments", ("modes",)),
    MetricCard("similarity", "peak signal-to-noise ratio and structural similarity of pairs",
               "gan_image.metrics:similarity", pairs=True),
    *FEATURE_METRICS,
    MetricCard("sliced_wasserstein", "Wasserstein distance of pixels along 128 random directions",
               "gan_image.metrics:sliced_wasserstein", ("channels",)),
)  # fmt: skip

EXTRACTORS = (
    ExtractorCard("classifier", "a small classifier, learnt in seconds on the data's labels", "embedded",
                  "gan_image.extractors:classifier", ("num_classes", "channels")),
    ExtractorCard("inception", "FID's Inception v3", "download", "gan_image.extractors:inception", ("channels",)),
    ExtractorCard("torchvision", "a classifier of torchvision's: torchvision:NAME", "download",
                  "gan_image.extractors:torchvision", ("channels",)),
    ExtractorCard("transformers", "a vision model of transformers': transformers:REPOSITORY", "download",
                  "gan_image.extractors:transformers", ("channels",)),
)  # fmt: skip

MOST_TRAINING_IMAGES = 4000


def recognition(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float | int]:
    """Whether samples show the class that they were asked for.

    A support-vector classifier with a radial kernel learns three quarters of the real images (at most 4,000 images are
    used) at the samples' own size and is scored on the rest. Sample `i` was asked to be of class `i % num_classes`.

    Returns:
        `accuracy`: the share of samples that it takes for their class; `classes_found`: classes of which at least one
        sample is recognised; `accuracy_on_real`: its own on held-out real images.
    """
    import numpy as np
    from sklearn.svm import SVC

    from gan_core.classification import split

    batch = _real_images(dataset, min(len(dataset), MOST_TRAINING_IMAGES))  # type: ignore[arg-type]
    real, labels = batch["image"].flatten(1).numpy(), batch["label"].numpy()
    learnt, tested = split(batch["label"])
    classifier = SVC(C=10.0, gamma="scale").fit(real[learnt], labels[learnt])
    wanted = np.arange(len(samples)) % facts["num_classes"]
    right = classifier.predict(samples.cpu().flatten(1).numpy()) == wanted
    return {
        "accuracy": float(right.mean()),
        "classes_found": len(set(wanted[right])),
        "accuracy_on_real": float(classifier.score(real[tested], labels[tested])),
    }


def _real_images(dataset: Dataset[Any], count: int) -> dict[str, Tensor]:
    """A batch of real images in [-1, 1], drawn by a fixed shuffle."""
    from gan_core.data import BatchStream

    return next(BatchStream(dataset, count, seed=0))


def modes(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float | int]:
    """Modes found and samples of high quality (Lin et al. 2018, PacGAN, arXiv:1712.04086, section 4.1).

    Returns:
        `modes_found`: modes that are the nearest of at least one sample within 3 standard deviations; `modes`: how many
        there are; `high_quality`: the share of such samples; `kl`: the reverse divergence KL(samples || data) in nats
        of these samples' modes, the data's being even; where there is no such sample, the largest that there is.
    """
    import torch

    centres = torch.as_tensor(facts["modes"], dtype=samples.dtype)
    distance, nearest = torch.cdist(samples.cpu(), centres).min(dim=1)
    good = distance < 3 * facts["std"]
    counts = torch.bincount(nearest[good], minlength=len(centres)).double()
    share = counts / counts.sum().clamp(min=1)
    return {
        "modes_found": int((counts > 0).sum()),
        "modes": len(centres),
        "high_quality": float(good.float().mean()),
        "kl": math.log(len(centres)) + float(torch.xlogy(share, share).sum()),
    }


def stacked_modes(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float | int]:
    """Modes of stacked digits found, and how unevenly (Lin et al. 2018, PacGAN, arXiv:1712.04086, section 4.2).

    A classifier of the single digits at the samples' own size names the digit in each channel; the three name one of
    1000 modes. PacGAN scores 26,000 samples, of which a perfect sampler's divergence is 999 / 52,000 on average: give
    as many to compare with it.

    Returns:
        `modes_found`: modes that at least one sample falls into; `modes`: how many there are; `kl`: the reverse
        divergence KL(samples || data) in nats, the data's being the product of the single digits'
        frequencies, from which the channels are drawn; `accuracy_on_real`: the classifier's on held-out digits.
    """
    import torch

    from gan_image.classifier import recognise

    classes, size = facts["stacked"].facts["num_classes"], samples.shape[-1]
    network, accuracy, frequency = _single_digits(facts["stacked"], size)
    digits = recognise(network, samples.cpu().reshape(-1, 1, size, size)).reshape(-1, 3)
    place = torch.tensor([classes**2, classes, 1])
    share = torch.bincount((digits * place).sum(dim=1), minlength=classes**3).double() / len(samples)
    data = torch.einsum("i,j,k->ijk", frequency, frequency, frequency).flatten()
    return {
        "modes_found": int((share > 0).sum()),
        "modes": classes**3,
        "kl": float((torch.xlogy(share, share) - torch.xlogy(share, data)).sum()),
        "accuracy_on_real": accuracy,
    }


@lru_cache(maxsize=1)
def _single_digits(single: Source, size: int) -> tuple[nn.Module, float, Tensor]:
    """A classifier of the digits at a size, its accuracy on held-out ones, and how often each occurs; learnt once."""
    import torch

    from gan_core.data import ImageSpec
    from gan_image.classifier import learn_classes

    real: Any = single.fit(ImageSpec(image_size=size, channels=1))
    every, classes = real.__getitems__(range(len(real))), single.facts["num_classes"]
    network, accuracy = learn_classes(every["image"], every["label"], num_classes=classes)
    return network, accuracy, torch.bincount(every["label"], minlength=classes).double() / len(real)


def similarity(real: Tensor, made: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """Computes how alike translated images and their targets are, pair by pair (`gan_image.similarity`).

    Returns:
        `psnr`: the mean in dB; `ssim`: the mean, for images of 11 pixels a side or more; `psnr_of_mean`: the mean PSNR
        of the mean target, a translation that ignores its source.
    """
    from gan_image.similarity import WINDOW, psnr, ssim

    mean = real.mean(dim=0, keepdim=True).expand_as(real)
    figures = {"psnr": float(psnr(real, made).mean()), "psnr_of_mean": float(psnr(real, mean).mean())}
    return figures | ({"ssim": float(ssim(real, made).mean())} if min(real.shape[2:]) >= WINDOW else {})


def sliced_wasserstein(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """The mean Wasserstein-1 distance of pixels in [-1, 1] along random directions (`gan_core.metrics`).

    Returns:
        `sliced_wasserstein`: of samples and as many real images (or as there are); `sliced_wasserstein_of_real`: of two
        halves of the real images that are as large together, which chance leaves.
    """
    from gan_core import metrics

    real = _real_images(dataset, min(len(samples), len(dataset)))["image"].flatten(1).numpy()  # type: ignore[arg-type]
    fake = samples.cpu().flatten(1).numpy()[: len(real)]
    half = len(real) // 2
    return {
        "sliced_wasserstein": metrics.sliced_wasserstein(real, fake),
        "sliced_wasserstein_of_real": metrics.sliced_wasserstein(real[:half], real[half : 2 * half]),
    }


def moments(samples: Tensor, dataset: Dataset[Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """Mean and standard deviation over all coordinates, of the samples and of the data."""
    import torch

    from gan_core.data import BatchStream

    real = next(BatchStream(dataset, min(len(dataset), 100_000), seed=0))["points"]  # type: ignore[arg-type]
    named = {"samples": samples.cpu(), "data": real}
    measures: dict[str, Callable[[Tensor], Tensor]] = {"mean": torch.mean, "std": torch.std}
    return {f"{what}_of_{name}": float(of(x)) for name, x in named.items() for what, of in measures.items()}
