from gan_3d import DOMAIN
from gan_core.testing import check_domain


def test_domain():
    check_domain(DOMAIN, systems=[])
