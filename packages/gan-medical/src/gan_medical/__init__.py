"""GANs for medical images: what this package plugs into gan-core. It has no systems yet."""

from __future__ import annotations

from gan_core.domain import Domain, public_names
from gan_medical.systems import CARDS

DOMAIN = Domain(name="medical", title="GANs for medical images", package="gan_medical", cards=CARDS)

__getattr__ = public_names(DOMAIN, {})
