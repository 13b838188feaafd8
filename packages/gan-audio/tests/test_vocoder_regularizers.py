"""Regularizers of a recipe in games with several discriminators: each has its closed form, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gan_audio.mel.contract import CONTRACTS
from gan_audio.systems import hifigan
from gan_audio.systems.hifigan import HiFiGAN
from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.play.judgement import (
    discriminator_adversarial,
    feature_distance,
    generator_adversarial,
    joined,
    judgement_of,
)
from gan_core.play.objectives import least_squares
from gan_core.play.regularizers import REGULARIZERS, dragan_penalty, gradient_penalty, zero_centred_penalty
from gan_core.play.replay import ReplayPool

CPU = torch.device("cpu")
SEED = draws.mix(0, 1)  # one by which some of few uniform numbers are above ½ and some below
NAMES = ("mpd", "msd")
WEIGHT = 2.0
"""Weight of the adversarial terms of HiFi-GAN."""
SHAPES = {
    "mel": CONTRACTS["hifigan-22k"].but(mels=5, hop=8, fft_size=32, window=32, high_hz=None).model_dump(),
    "rates": (4, 2),
    "up_sizes": (8, 4),
    "sizes": (3, 5),
    "dilations": ((1, 2), (3,)),
    "generator": {"width": 8},
    "mpd": {"periods": (2, 3), "width": 1},
    "msd": {"scales": 2, "width": 16},
}
PLAIN = hifigan.V1.but(network=SHAPES, regularizers=[])


def build(**changes: Any) -> HiFiGAN:
    """Returns a game with the same weights for all recipes, in evaluation mode, which keeps spectral norms."""
    torch.manual_seed(0)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    game = PLAIN.build(PLAIN.recipe().but(dotted)).eval()
    assert isinstance(game, HiFiGAN)
    return game


def audio(seed: int) -> Tensor:
    return torch.rand(4, 1, 64, generator=torch.Generator().manual_seed(seed)) - 0.5


REAL, FAKE = audio(0), audio(1)


def losses(game: HiFiGAN, fake: Tensor = FAKE) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    found = []
    for loss in (game.discriminator_loss, game.generator_loss):
        with draws.drawing(SEED, CPU, rows=4, total=4):
            found.append(loss({"audio": REAL, "fake": fake}))
    return found[0], found[1]


def apart(game: HiFiGAN, name: str, real: Tensor, fake: Tensor) -> Tensor:
    network = game.get_submodule(name).network
    return WEIGHT * discriminator_adversarial(least_squares, judgement_of(network(real)), judgement_of(network(fake)))


def test_without_regularizers_the_terms_are_those_of_least_squares() -> None:
    game = build()
    discriminator, generator = losses(game)
    assert_close(discriminator, {f"{name}/adversarial": apart(game, name, REAL, FAKE) for name in NAMES})
    fooled = {
        f"{name}/adversarial": WEIGHT
        * generator_adversarial(least_squares, judgement_of(game.get_submodule(name).network(FAKE)))
        for name in NAMES
    }
    assert_close({name: term for name, term in generator.items() if name != "mel"}, fooled)


@pytest.mark.parametrize(
    ("name", "penalty"),
    [
        ("r1", lambda network: zero_centred_penalty(network, REAL)),
        ("r2", lambda network: zero_centred_penalty(network, FAKE)),
        ("gradient_penalty", lambda network: gradient_penalty(network, REAL, FAKE)),
        ("dragan", lambda network: dragan_penalty(network, REAL)),
    ],
)
def test_penalties_differentiate_the_sum_of_all_logits(name: str, penalty: Any) -> None:
    game = build(**{f"regularizers__{name}__weight": 3.0})
    discriminator, generator = losses(game)
    with draws.drawing(SEED, CPU, rows=4, total=4):
        expected = {
            f"{which}/{name}": 3 * penalty(lambda x, which=which: joined(game.get_submodule(which).network(x)))
            for which in NAMES
        }
    adversarial = losses(build())
    assert_close(discriminator, {**adversarial[0], **expected}, rtol=1e-4, atol=1e-5)
    assert_close(generator, adversarial[1])


def test_instance_noise_is_added_to_real_and_generated_audio() -> None:
    game = build(regularizers__instance_noise__deviation=0.2)
    discriminator, _ = losses(game)
    with draws.drawing(SEED, CPU, rows=4, total=4):
        for name in NAMES:
            noisy = [x + 0.2 * draws.normal(4, 1, 64, like=x) for x in (REAL, FAKE)]
            assert_close(discriminator[f"{name}/adversarial"], apart(game, name, *noisy))


def test_each_discriminator_has_its_own_replay_pool() -> None:
    game = build(regularizers__replay__size=4)
    assert_close(losses(game)[0], losses(build())[0])  # until the pools are full
    later = losses(game, fake=audio(2))[0]
    swapped = []
    with draws.drawing(SEED, CPU, rows=4, total=4):
        for name in NAMES:
            pool = ReplayPool(4)
            pool.pool = FAKE.clone()
            seen = pool(audio(2))
            swapped.append(not torch.equal(seen, audio(2)))
            assert_close(later[f"{name}/adversarial"], apart(game, name, REAL, seen))
            assert torch.equal(game.get_submodule(name).memory["replay"].pool, pool.pool)
    assert any(swapped)


def test_features_are_matched_over_all_layers_and_discriminators() -> None:
    game = build(regularizers__feature_matching__weight=3.0)
    _, generator = losses(game)
    for name in NAMES:
        network = game.get_submodule(name).network
        assert_close(generator[f"{name}/feature_matching"], 3 * feature_distance(network(REAL), network(FAKE)))
    preset = hifigan.V1.but(network=SHAPES)
    assert preset.recipe().regularizers == {"feature_matching": {"weight": 2.0, "interval": 1}}


def test_a_regularizer_of_one_discriminator_does_not_affect_the_other() -> None:
    game = build(**{"adversaries__msd__regularizers__r1__weight": 1.0, "adversaries__msd__objective": "hinge"})
    discriminator, _ = losses(game)
    assert set(discriminator) == {"mpd/adversarial", "msd/adversarial", "msd/r1"}
    plain = losses(build())[0]
    assert_close(discriminator["mpd/adversarial"], plain["mpd/adversarial"])
    assert not torch.isclose(discriminator["msd/adversarial"], plain["msd/adversarial"])


REFUSED = {
    "minibatch_stddev": "the input of the discriminator's layer `judge`, but MultiPeriodDiscriminator has no such",
    "minibatch_discrimination": "the input of the discriminator's layer `judge`",
    "pull_away": "the input of the discriminator's layer `judge`",
    "spectral_norm": "this discriminator's weights are parametrized; leave it out",
    "weight_clipping": "this discriminator's weights are parametrized; leave it out",
    "path_length": "needs a generator of latents, but this adversary has none",
    "consistency": "needs images, but the axes of this game's samples are not height and width; leave it out",
    "diffaugment": "needs images, but the axes of this game's samples are not height and width; leave it out",
    "ada": "needs images, but the axes of this game's samples are not height and width; leave it out",
    "label_smoothing": "the objective `least_squares` has no probabilities; use non_saturating or minimax",
}
SETTINGS = {"ada": {"target": None}, "unrolled": {"learning_rate": 0.01, "steps": 1}}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_runs_or_is_refused_with_the_reason(name: str) -> None:
    changes = {f"regularizers__{name}": SETTINGS.get(name, {})}
    if name not in REFUSED:
        for found in losses(build(**changes)):
            assert all(bool(term.isfinite()) for term in found.values())
        return
    with pytest.raises(RecipeError) as error:
        losses(build(**changes))
    assert str(error.value).startswith(f"mpd: `regularizers.{name}`")
    assert REFUSED[name] in str(error.value)
