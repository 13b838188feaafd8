"""The domain of gan-text: what the package registers with gan-core."""

from gan_core.domain import Domain
from gan_text.systems import CARDS

DOMAIN = Domain(name="text", title="GANs for text", package="gan_text", cards=CARDS)
