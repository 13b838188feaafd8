"""Outputs of networks with published weights equal those of the published code.

Fixtures are read from `conformance/` and from the folders listed in `GAN_CONFORMANCE`.
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
    projected = network.local(local), network.whole(whole)
    loss = info_nce(*projected)
    return [network.judge(whole), local, whole, *projected, torch.stack([loss, 2 * loss])]


def with_codes(network, inputs, arguments):
    features = network.trunk(2 * inputs[0] - 1)  # published images are in [0, 1]
    return [network.judge(features).flatten().sigmoid(), *network.posterior(features)]


def first_in_training(network, inputs, arguments):
    """Returns the outputs; for a network in training mode, also those in evaluation mode afterwards."""
    outputs = [network(*inputs)]
    return [*outputs, network.eval()(*inputs)] if network.training else outputs


def faded(network, inputs, arguments):
    """Returns an output for each published alpha, the weight of the smaller image."""
    outputs = []
    for alpha in arguments["alphas"]:
        network.moment.progress = FADING * (1 - alpha)
        outputs.append(network(*inputs))
    return outputs


def faded_logits(network, inputs, arguments):
    """Returns logits for each alpha, which the published discriminator ignores if there is one added scale."""
    alphas = arguments["alphas"] if len(arguments["added_scales"]) > 1 else [0.0] * len(arguments["alphas"])
    return [logits[:, None] for logits in faded(network, inputs, {"alphas": alphas})]


def logits_with_penalty(network, inputs, arguments):
    (logits,) = faded_logits(network, inputs[:1], {"alphas": [arguments["alpha"]], **arguments})
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
    "progan/discriminator": faded_logits,
    "progan/gradient_penalty": logits_with_penalty,
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
