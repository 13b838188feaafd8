"""GANs for audio. Importing it loads no torch; public names are imported on first use."""

from gan_audio.systems import CARDS
from gan_core.cards import Demo
from gan_core.domain import Domain, public_names

__all__ = ["DOMAIN"]

DOMAIN = Domain(
    name="audio",
    title="GANs for audio",
    package="gan_audio",
    cards=CARDS,
    demo=Demo(
        system="specgan",
        data="drums",
        settings={"network.num_classes": 5, "train.steps": 1500, "train.log_every": 20, "train.sample_every": 250},
        metric="recognition",
    ),
)

__getattr__ = public_names(DOMAIN, {})
