"""The systems of gan-image: its table of contents. Networks, games and presets load when a system is used."""

from gan_core.domain import Card

CARDS = (
    Card("gan", "Generative adversarial nets (multilayer perceptrons)", 2014, "generation", "arXiv:1406.2661",
         "gan_image.systems.dense", "digits"),
    Card("dcgan", "Deep convolutional GAN", 2016, "generation", "arXiv:1511.06434",
         "gan_image.systems.convolutional", "digits"),
    Card("wgan-gp", "Wasserstein GAN with gradient penalty (residual networks)", 2017, "generation",
         "arXiv:1704.00028", "gan_image.systems.residual", "digits"),
)  # fmt: skip
