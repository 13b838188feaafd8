from gan_audio import DOMAIN
from gan_core.testing import check_domain

SYSTEMS = "wavegan specgan melspec melgan hifigan bigvgan midinet"


def test_domain():
    check_domain(DOMAIN, SYSTEMS.split())
