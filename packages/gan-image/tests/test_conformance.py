"""Our networks compute what the published ones compute.

The fixtures of this package's systems are in `conformance/`; those in the folders that `GAN_CONFORMANCE` names run too.
"""

from pathlib import Path

import pytest

from gan_core.regularizers import gradient_norm
from gan_core.testing import Fixture, find_fixtures, run_fixture
from gan_image import DOMAIN

ADAPTERS = {
    "dcgan/discriminator": lambda network, inputs, arguments: [network(*inputs).sigmoid()],
    "wgan-gp/discriminator": lambda network, inputs, arguments: [
        network(inputs[0])[:, None],
        (gradient_norm(network, inputs[1]) - 1).square(),
    ],
}


@pytest.mark.parametrize("fixture", find_fixtures("image", Path(__file__).parent / "conformance"))
def test_conformance(fixture: Fixture) -> None:
    run_fixture(DOMAIN, fixture, ADAPTERS)
