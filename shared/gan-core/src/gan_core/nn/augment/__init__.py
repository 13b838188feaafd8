"""Differentiable augmentation of the discriminator's inputs, real and fake."""

from gan_core.nn.augment.adaptive import AdaptiveStrength, AugmentPipe
from gan_core.nn.augment.differentiable import color, cutout, diff_augment, reflected, translation

__all__ = ["AdaptiveStrength", "AugmentPipe", "color", "cutout", "diff_augment", "reflected", "translation"]
