"""The domain of gan-audio: what the package registers with gan-core."""

from gan_audio.systems import CARDS
from gan_core.cards import Demo
from gan_core.domain import Domain

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
