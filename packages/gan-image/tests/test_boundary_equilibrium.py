"""BEGAN's losses and balance (Berthelot et al. 2017, arXiv:1703.10717, section 3.4) for known energies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gan_image
from gan_image.systems.autoencoding import BoundaryEquilibrium, Reconstructor


class Constant(nn.Module):
    """A generator of images whose pixels are equal."""

    latent_dim, num_classes = 4, None

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, z: Tensor) -> Tensor:
        return self.value.expand(len(z), 1, 2, 2)


class MeanAbsolute(nn.Module):
    """A discriminator whose energy is the mean absolute value of the pixels."""

    num_classes, energy = None, True

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.abs().flatten(1).mean(dim=1)


def play(game: BoundaryEquilibrium, real: float) -> dict[str, dict[str, float]]:
    """Plays one step on images of one value and returns the terms and notes of each turn."""
    found = {}
    for player in game.players():
        terms = dict(player.loss({"image": torch.full((8, 1, 2, 2), real)}))
        terms |= game.take_notes()
        game.after_turn(player.name, {name: value.detach() for name, value in terms.items()})
        found[player.name] = {name: float(value.detach()) for name, value in terms.items()}
    return found


def test_the_discriminator_weights_the_energy_of_fakes_by_k() -> None:
    game = BoundaryEquilibrium(Constant(-0.5), MeanAbsolute())
    game.k.fill_(0.3)
    terms = play(game, real=2.0)["discriminator"]
    assert terms["adversarial"] == pytest.approx(2.0 - 0.3 * 0.5)
    assert (terms["real_logits"], terms["fake_logits"]) == pytest.approx((2.0, 0.5))


@pytest.mark.parametrize(
    ("k", "fake", "expected"), [(0.2, 0.4, 0.2 + 0.1 * (0.5 * 2.0 - 0.4)), (0.2, 5.0, 0.0), (0.99, 0.0, 1.0)]
)
def test_k_is_updated_by_the_balance_of_energies_and_limited_to_0_to_1(k: float, fake: float, expected: float) -> None:
    game = BoundaryEquilibrium(Constant(fake), MeanAbsolute(), gamma=0.5, gain=0.1)
    game.k.fill_(k)
    play(game, real=2.0)
    assert float(game.k) == pytest.approx(expected)


def test_a_training_updates_k_after_every_turn_of_the_generator(tmp_path: Path) -> None:
    changes = {"network.width": 4, "train.ema": None, "train.log_every": 1, "train.sample_every": None}
    run = gan_image.train(
        "began", data="digits", out=tmp_path / "run", steps=3, batch_size=8, changes=changes, shown=False
    )
    k = 0.0
    for line in run.log():  # γ = 1 and λ = 0.05 in the preset `small`
        k += 0.05 * (line["discriminator/real_logits"] - line["generator/adversarial"])
        k = min(max(k, 0.0), 1.0)
    assert float(gan_image.load(run.path).k) == pytest.approx(k, rel=1e-4)
    assert k > 0


def test_the_measure_of_convergence_is_logged() -> None:
    notes = play(BoundaryEquilibrium(Constant(0.4), MeanAbsolute(), gamma=0.5), real=2.0)["generator"]
    assert notes["adversarial"] == pytest.approx(0.4)
    assert notes["convergence"] == pytest.approx(2.0 + abs(0.5 * 2.0 - 0.4))


def test_latents_are_uniform_between_minus_1_and_1() -> None:
    latents = BoundaryEquilibrium(Constant(0.0), MeanAbsolute()).latent(10_000)
    assert latents.abs().max() <= 1
    assert float(latents.mean()) == pytest.approx(0, abs=0.02)
    assert float(latents.std()) == pytest.approx(3**-0.5, abs=0.01)


def test_an_energy_is_the_mean_absolute_error_of_a_reconstruction() -> None:
    network = Reconstructor(image_size=16, channels=1, latent_dim=4, width=4)
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = [(network.decoder(network.encoder(image[None])) - image).abs().mean() for image in images]
        assert torch.allclose(network(images), torch.stack(expected), atol=1e-6)
