"""BEGAN's rules (Berthelot et al. 2017, arXiv:1703.10717, section 3.4), with energies that are known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gan_image.systems.autoencoding import BoundaryEquilibrium, Reconstructor


class Makes(nn.Module):
    """A generator of images whose every pixel is one number."""

    latent_dim, num_classes = 4, None

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, z: Tensor) -> Tensor:
        return self.value.expand(len(z), 1, 2, 2)


class Size(nn.Module):
    """An energy that is the mean of the pixels' absolute values."""

    num_classes, energy = None, True

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.abs().flatten(1).mean(dim=1)


def play(game: BoundaryEquilibrium, real: float) -> dict[str, dict[str, float]]:
    """One round on images of one number, and the terms and notes of each turn."""
    said = {}
    for player in game.players():
        terms = dict(player.loss({"image": torch.full((8, 1, 2, 2), real)}))
        terms |= game.take_notes()
        game.after_turn(player.name, {name: value.detach() for name, value in terms.items()})
        said[player.name] = {name: float(value.detach()) for name, value in terms.items()}
    return said


def test_the_fakes_count_k_times_against_the_discriminator() -> None:
    game = BoundaryEquilibrium(Makes(-0.5), Size())
    game.k.fill_(0.3)
    terms = play(game, real=2.0)["discriminator"]
    assert terms["adversarial"] == pytest.approx(2.0 - 0.3 * 0.5)
    assert (terms["real_logits"], terms["fake_logits"]) == pytest.approx((2.0, 0.5))


@pytest.mark.parametrize(
    ("k", "fake", "expected"), [(0.2, 0.4, 0.2 + 0.1 * (0.5 * 2.0 - 0.4)), (0.2, 5.0, 0.0), (0.99, 0.0, 1.0)]
)
def test_k_keeps_the_energies_in_proportion_between_0_and_1(k: float, fake: float, expected: float) -> None:
    game = BoundaryEquilibrium(Makes(fake), Size(), gamma=0.5, gain=0.1)
    game.k.fill_(k)
    play(game, real=2.0)
    assert float(game.k) == pytest.approx(expected)


def test_the_measure_of_convergence_is_logged() -> None:
    notes = play(BoundaryEquilibrium(Makes(0.4), Size(), gamma=0.5), real=2.0)["generator"]
    assert notes["adversarial"] == pytest.approx(0.4)
    assert notes["convergence"] == pytest.approx(2.0 + abs(0.5 * 2.0 - 0.4))


def test_latents_are_uniform_between_minus_1_and_1() -> None:
    latents = BoundaryEquilibrium(Makes(0.0), Size()).latent(10_000)
    assert latents.abs().max() <= 1
    assert float(latents.mean()) == pytest.approx(0, abs=0.02)
    assert float(latents.std()) == pytest.approx(3**-0.5, abs=0.01)


def test_an_energy_is_the_mean_absolute_error_of_a_reconstruction() -> None:
    network = Reconstructor(image_size=16, channels=1, latent_dim=4, width=4)
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = [(network.decoder(network.encoder(image[None])) - image).abs().mean() for image in images]
        assert torch.allclose(network(images), torch.stack(expected), atol=1e-6)
