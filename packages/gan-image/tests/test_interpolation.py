"""Interpolation between latents that are normal, uniform, or contain a category."""

import pytest
import torch
from torch.testing import assert_close

import gan_image
from gan_core import draws
from gan_core.play.interpolation import interpolate

SMALL = {
    "dcgan": {"image_size": 16, "width": 4, "latent_dim": 8, "num_classes": 3},
    "began": {"image_size": 16, "width": 4, "latent_dim": 8},
    "infogan": {"image_size": 16, "width": 4, "noise": 6},
}
ROWS, STEPS = 5, 7


@pytest.fixture(params=SMALL)
def game(request):
    torch.manual_seed(0)
    return gan_image.create(request.param, **SMALL[request.param]).eval()


def ends(game):
    with draws.drawing(3, game.device, rows=2 * ROWS, total=2 * ROWS):
        return game.latent(2 * ROWS).chunk(2)


def interpolated(game):
    start, end = ends(game)
    return game.between(start, end, torch.linspace(0, 1, STEPS))


@torch.no_grad()
def test_samples_are_rendered_from_interpolated_latents(game):
    made = interpolate(game, rows=ROWS, steps=STEPS, seed=3)
    label = {} if game.num_classes is None else {"label": torch.arange(ROWS) % 3}
    start, end = ends(game)
    assert_close(made[:, 0], game.render(start, **label))
    latents = interpolated(game)
    if not hasattr(game, "categories"):
        assert_close(latents[:, -1], end)
    assert_close(made[:, -1], game.render(latents[:, -1], **label))
    assert not torch.isclose(made[:, 0], made[:, -1]).all()


def test_latents_stay_in_the_distribution(game):
    latents, (start, end) = interpolated(game), ends(game)
    if type(game).__name__ == "TwoPlayerGame":  # normal: no shorter than the ends
        lengths = torch.stack([start.norm(dim=1), end.norm(dim=1)]).sort(dim=0).values
        assert (latents.norm(dim=2) >= lengths[0, :, None] - 1e-4).all()
    else:
        assert latents.min() >= -1
        assert latents.max() <= 1


def test_infogan_interpolates_all_codes_but_the_category():
    torch.manual_seed(0)
    game = gan_image.create("infogan", **SMALL["infogan"]).eval()
    latents, (start, end) = interpolated(game), ends(game)
    noise, category, continuous = latents.split([game.noise, game.categories, game.continuous], dim=2)
    assert torch.equal(category, start[:, None, game.noise : -game.continuous].expand_as(category))
    assert (category.sum(dim=2) == 1).all()
    assert (category[:, -1] != end[:, game.noise : -game.continuous]).any()  # some ends have another category
    assert_close(noise[:, -1], end[:, : game.noise])
    assert_close(continuous[:, -1], end[:, -game.continuous :])
