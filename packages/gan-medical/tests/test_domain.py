from gan_core.testing import check_domain
from gan_medical import DOMAIN


def test_domain():
    check_domain(DOMAIN, systems=[])
