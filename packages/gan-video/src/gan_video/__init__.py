"""GANs for video: what this package plugs into gan-core. It has no systems yet."""

from __future__ import annotations

from gan_core.domain import Domain, public_names
from gan_video.systems import CARDS

DOMAIN = Domain(name="video", title="GANs for video", package="gan_video", cards=CARDS)

__getattr__ = public_names(DOMAIN, {})
