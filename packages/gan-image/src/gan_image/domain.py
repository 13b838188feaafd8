"""The domain of gan-image: what the package registers with gan-core."""

from gan_core.cards import Demo
from gan_core.domain import Domain
from gan_image.systems import CARDS

DOMAIN = Domain(
    name="image",
    title="GANs for images",
    package="gan_image",
    cards=CARDS,
    demo=Demo(
        system="dcgan",
        data="digits",
        settings={
            "network.image_size": 16,
            "network.num_classes": 10,
            "regularizers.gradient_penalty": {"weight": 1.0, "interval": 4},
            "train.steps": 2000,
            "train.ema": 0.995,
            "train.log_every": 20,
            "train.sample_every": 200,
        },
        metric="recognition",
    ),
)
