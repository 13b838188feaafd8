"""The domain of gan-medical: what the package registers with gan-core."""

from gan_core.domain import Domain
from gan_medical.systems import CARDS

DOMAIN = Domain(name="medical", title="GANs for medical images", package="gan_medical", cards=CARDS)
