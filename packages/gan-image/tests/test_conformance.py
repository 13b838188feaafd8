"""Our networks compute what the published ones compute.

The fixtures of this package's systems are in `conformance/`; those in the folders that `GAN_CONFORMANCE` names run too.
"""

from pathlib import Path

import pytest
import torch

from gan_core.play.regularizers import gradient_norm
from gan_core.testing import Fixture, find_fixtures, run_fixture
from gan_image import DOMAIN
from gan_image.systems.progan import FADING
from gan_image.systems.residual import info_nce


def with_rotations(network, inputs, arguments):
    (images,) = inputs
    features = network.pooled(network.blocks(images))
    outputs = [network.judge(features), network.rotation(features)]
    loss = network.auxiliary_loss(images)  # a second pass
    return [*outputs, torch.stack([loss, 2 * loss])]


def with_contrast(network, inputs, arguments):
    local, whole = network.features(*inputs)
    brought = network.local(local), network.whole(whole)
    loss = info_nce(*brought)
    return [network.judge(whole), local, whole, *brought, torch.stack([loss, 2 * loss])]


def with_codes(network, inputs, arguments):
    features = network.trunk(2 * inputs[0] - 1)  # published images are in [0, 1]
    return [network.judge(features).flatten().sigmoid(), *network.posterior(features)]


def first_in_training(network, inputs, arguments):
    """Where the fixture is in training mode, the outputs in that mode and then in evaluation mode."""
    outputs = [network(*inputs)]
    return [*outputs, network.eval()(*inputs)] if network.training else outputs


def faded(network, inputs, arguments):
    """One output for each of the published alphas, which are the weights of the smaller image."""
    outputs = []
    for alpha in arguments["alphas"]:
        network.moment.progress = FADING * (1 - alpha)
        outputs.append(network(*inputs))
    return outputs


def judged_faded(network, inputs, arguments):
    """The published discriminator does not fade from 4 to 8 pixels."""
    alphas = arguments["alphas"] if len(arguments["added_scales"]) > 1 else [0.0] * len(arguments["alphas"])
    return [logits[:, None] for logits in faded(network, inputs, {"alphas": alphas})]


def judged_with_penalty(network, inputs, arguments):
    (logits,) = judged_faded(network, inputs[:1], {"alphas": [arguments["alpha"]], **arguments})
    return [logits, (gradient_norm(network, inputs[1]) - 1).square()]


TRANSLATORS = (
    "cyclegan/resnet_generator",
    "cyclegan/patchgan_discriminator",
    "pix2pix/unet_generator",
    "pix2pix/patchgan_discriminator",
    "pix2pix/pixel_discriminator",
)
ADAPTERS = dict.fromkeys(TRANSLATORS, first_in_training) | {
    "sngan/discriminator": lambda network, inputs, arguments: [network(*inputs)[:, None]],
    "cgan-pd/discriminator": lambda network, inputs, arguments: [network(*inputs)[:, None]],
    "sagan/discriminator": lambda network, inputs, arguments: [network(*inputs)[:, None]],
    "infogan/generator": lambda network, inputs, arguments: [(network(*inputs) + 1) / 2],
    "infogan/discriminator_q": with_codes,
    "ssgan/discriminator": with_rotations,
    "infomax-gan/discriminator": with_contrast,
    "progan/generator": faded,
    "progan/discriminator": judged_faded,
    "progan/gradient_penalty": judged_with_penalty,
    "dcgan/discriminator": lambda network, inputs, arguments: [network(*inputs).sigmoid()],
    "wgan-gp/discriminator": lambda network, inputs, arguments: [
        network(inputs[0])[:, None],
        (gradient_norm(network, inputs[1]) - 1).square(),
    ],
}


FIXTURES = find_fixtures("image", Path(__file__).parent / "conformance")


@pytest.mark.parametrize("fixture", FIXTURES)
def test_conformance(fixture: Fixture) -> None:
    run_fixture(DOMAIN, fixture, ADAPTERS)
