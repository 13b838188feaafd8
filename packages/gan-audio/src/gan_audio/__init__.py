"""GANs for audio: what this package plugs into gan-core."""

from __future__ import annotations

from gan_audio.systems import CARDS
from gan_core.domain import Domain, public_names

DOMAIN = Domain(name="audio", title="GANs for audio", package="gan_audio", cards=CARDS)

__getattr__ = public_names(DOMAIN, {})
