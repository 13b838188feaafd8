"""GANs for text: what this package plugs into gan-core. It has no systems yet."""

from __future__ import annotations

from gan_core.domain import Domain, public_names
from gan_text.systems import CARDS

DOMAIN = Domain(name="text", title="GANs for text", package="gan_text", cards=CARDS)

__getattr__ = public_names(DOMAIN, {})
