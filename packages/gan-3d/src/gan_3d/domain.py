"""The domain of gan-3d: what the package registers with gan-core."""

from gan_3d.systems import CARDS
from gan_core.domain import Domain

DOMAIN = Domain(name="3d", title="GANs for voxels, point clouds and terrain", package="gan_3d", cards=CARDS)
