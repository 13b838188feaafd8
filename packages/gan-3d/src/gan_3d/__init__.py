"""GANs for voxels, point clouds and terrain: what this package plugs into gan-core. It has no systems yet."""

from __future__ import annotations

from gan_3d.systems import CARDS
from gan_core.domain import Domain, public_names

DOMAIN = Domain(name="3d", title="GANs for voxels, point clouds and terrain", package="gan_3d", cards=CARDS)

__getattr__ = public_names(DOMAIN, {})
