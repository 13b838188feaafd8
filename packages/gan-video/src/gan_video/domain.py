"""The domain of gan-video: what the package registers with gan-core."""

from gan_core.domain import Domain
from gan_video.systems import CARDS

DOMAIN = Domain(name="video", title="GANs for video", package="gan_video", cards=CARDS)
