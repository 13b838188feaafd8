"""Auxiliary tasks of SSGAN and InfoMax-GAN in closed form, and sizes that the residual networks refuse."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch.testing import assert_close

import gan_image
from gan_core.errors import RecipeError
from gan_image.systems.residual import Discriminator, Generator, info_nce, rotate_quarters


def test_quarters_of_a_batch_are_rotated_counterclockwise() -> None:
    images = torch.arange(8.0 * 9).reshape(8, 1, 3, 3)
    rotated, turns = rotate_quarters(images)
    assert turns.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = [torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(images, turns, strict=True)]
    assert torch.equal(rotated, torch.stack(expected))


def test_a_batch_of_fewer_images_than_angles_is_refused() -> None:
    game = gan_image.create("ssgan", channels=1)
    with pytest.raises(RecipeError) as error:
        game.discriminator_loss({"image": torch.zeros(3, 1, 32, 32)})
    assert str(error.value) == (
        "SSGAN rotates a batch by four angles, but a part of the batch has 3 images; it needs 4 or more: increase "
        "`train.batch_size`, or decrease `train.accumulate`"
    )


def test_the_negatives_of_info_nce_are_the_places_of_other_images() -> None:
    local = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 3.0]]]])  # two images with two places
    whole = torch.tensor([[2.0], [1.0]])
    first = [(2, 0, 6), (4, 0, 6)]  # score of a place, then those of the other image's places
    second = [(0, 1, 2), (3, 1, 2)]
    masked = 2 * exp(-10)  # the image's own places are not negatives
    expected = [log(exp(own) + exp(a) + exp(b) + masked) - own for own, a, b in first + second]
    assert_close(info_nce(local, whole), torch.tensor(sum(expected) / 4))


@pytest.mark.parametrize(("system", "weights"), [("ssgan", (1.0, 0.2)), ("infomax-gan", (0.2, 0.2))])
def test_the_auxiliary_loss_is_weighted_on_real_images_and_on_fakes(system: str, weights: tuple[float, float]) -> None:
    torch.manual_seed(0)
    narrow = {"generator": {"width": 8}, "discriminator": {"width": 8}}
    game = gan_image.create(system, channels=1, image_size=16, latent_dim=4, **narrow).eval()
    network, term = game.discriminator.network, {"ssgan": "rotation", "infomax-gan": "infomax"}[system]
    real, fake = torch.rand(2, 8, 1, 16, 16) * 2 - 1
    expected = [weight * network.auxiliary_loss(images) for weight, images in zip(weights, (real, fake), strict=True)]
    assert_close(game.discriminator_terms(real, fake, {})[term], expected[0])
    assert_close(game.generator_terms(real, fake, {})[term], expected[1])


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (Generator, {"attention": 5}, "`attention` is 5; expected the size of a block's output: 8, 16, 32"),
        (Discriminator, {"attention": 32}, "`attention` is 32; expected the size of a block's output: 16, 8"),
        (Generator, {"width": 4, "tapered": True}, "`width` is 4; it is halved 3 times and must be at least 8"),
        (
            Discriminator,
            {"width": 40, "tapered": True},
            "`width` is 40; a tapered discriminator needs a multiple of 16. Try 32.",
        ),
        (Discriminator, {"pool": "max"}, "`pool` is max; expected sum or mean"),
    ],
)
def test_sizes_that_the_blocks_cannot_have_are_refused(network, settings, message) -> None:
    with pytest.raises(RecipeError) as error:
        network(**settings)
    assert str(error.value) == message
