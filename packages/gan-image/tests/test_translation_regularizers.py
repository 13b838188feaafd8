"""Regularizers in translation systems: each equals its closed form, or is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.augment import diff_augment
from gan_core.play.adversary import Adversary
from gan_core.play.game import Game
from gan_core.play.regularizers import REGULARIZERS, gradient_penalty, zero_centred_penalty
from gan_core.play.replay import ReplayPool
from gan_image.systems.translation import PRESETS

CPU = torch.device("cpu")
SEED = draws.mix(0, 1)
SMALL = {
    "pix2pix": PRESETS["pix2pix"]["small"].but(network={"width": 4}),
    "cyclegan": PRESETS["cyclegan"]["small"].but(network={"width": 4, "blocks": 1}, regularizers=[]),
}
SIDES = {"pix2pix": {"discriminator": ""}, "cyclegan": {"discriminator_a": "_a", "discriminator_b": "_b"}}
"""Suffix of the keys of an adversary's fakes, by system and adversary."""


def build(system: str, **changes: Any) -> Game:
    torch.manual_seed(0)
    dotted = {f"regularizers.{name}": fields for name, fields in changes.items()}
    return SMALL[system].build(SMALL[system].recipe().but(dotted)).eval()


def batch(seed: int = 0) -> dict[str, Tensor]:
    keys = ("source", "target", "fake", "fake_a", "fake_b")
    random = torch.Generator().manual_seed(seed)
    return {key: torch.rand(4, 3, 32, 32, generator=random) * 2 - 1 for key in keys}


def samples_of(system: str, name: str, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the real and fake samples of an adversary."""
    if system == "pix2pix":
        return tuple(torch.cat([given["source"], given[key]], dim=1) for key in ("target", "fake"))  # type: ignore[return-value]
    side = SIDES[system][name]
    return given[{"_a": "source", "_b": "target"}[side]], given[f"fake{side}"]


def losses(game: Game, given: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found = {}
    for player in game.players():
        with draws.drawing(SEED, CPU, rows=4, total=4):
            found[player.name] = player.loss(given)
    return found


def key(system: str, name: str, term: str) -> str:
    return term if system == "pix2pix" else f"{name}/{term}"


def adversarial(one: Adversary, real: Tensor, fake: Tensor) -> Tensor:
    return one.objective.discriminator(one.network(real), one.network(fake))


@pytest.mark.parametrize("system", SMALL)
@pytest.mark.parametrize("name", ["r1", "gradient_penalty", "instance_noise", "replay", "diffaugment"])
def test_a_regularizer_changes_the_terms_by_its_closed_form(system: str, name: str) -> None:
    game = build(system, **{name: {"size": 4} if name == "replay" else {}})
    if name == "replay":
        losses(game, batch(1))  # the pool is full
    given = batch()
    found = losses(game, given)["discriminator"]
    with draws.drawing(SEED, CPU, rows=4, total=4):
        for which, one in game.adversaries.items():
            real, fake = samples_of(system, which, given)
            if name == "r1":
                assert_close(found[key(system, which, name)], 10 * zero_centred_penalty(one.network, real))
            elif name == "gradient_penalty":
                assert_close(found[key(system, which, name)], 10 * gradient_penalty(one.network, real, fake))
            elif name == "instance_noise":
                real, fake = (x + 0.1 * draws.normal(4, *x.shape[1:], like=x) for x in (real, fake))
            elif name == "diffaugment":
                real, fake = diff_augment(real), diff_augment(fake)
            else:
                pool = ReplayPool(4)
                pool.pool = samples_of(system, which, batch(1))[1]
                fake = pool(fake)
            assert_close(found[key(system, which, "adversarial")], adversarial(one, real, fake))


@pytest.mark.parametrize("system", SMALL)
def test_features_of_the_last_layer_are_matched(system: str) -> None:
    game, given = build(system, feature_matching={"weight": 2.0}), batch()
    found = losses(game, given)["generator"]
    for which, one in game.adversaries.items():
        seen: list[Tensor] = []
        handle = one.network.judge.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        for samples in samples_of(system, which, given):
            one.network(samples)
        handle.remove()
        real, fake = (features.flatten(1).mean(dim=0) for features in seen)
        assert_close(found[key(system, which, "feature_matching")], 2 * (real - fake).square().sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("system", SMALL)
def test_spectral_norms_are_one(system: str) -> None:
    game = build(system, spectral_norm={})
    game.train()
    for _ in range(20):
        losses(game, batch())
    for one in game.adversaries.values():
        weight = one.network.judge.weight.detach().flatten(1)
        assert_close(
            normalize(weight, dim=1), weight, rtol=1e-3, atol=1e-4
        )  # one filter: its norm is the spectral norm


REFUSED = {
    "path_length": "needs a generator of latents, but this adversary has none",
    "minibatch_discrimination": "needs an example to determine the size of its layer, but this adversary has none",
    "label_smoothing": "the objective `least_squares` has no probabilities",
    "ada": "needs 1 or 3 channels, but this game's samples have 6",
}
ONLY = {"label_smoothing": "cyclegan", "ada": "pix2pix"}
"""The only system that refuses a regularizer, if the other does not."""
SETTINGS = {"unrolled": {"learning_rate": 0.01, "steps": 1}, "ada": {"target": None}}


@pytest.mark.parametrize("system", SMALL)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_runs_or_is_refused_with_the_reason(system: str, name: str) -> None:
    settings = {name: SETTINGS.get(name, {})}
    if name in REFUSED and ONLY.get(name, system) == system:
        with pytest.raises(RecipeError) as error:
            losses(build(system, **settings), batch())
        assert REFUSED[name] in str(error.value)
        return
    for terms in losses(build(system, **settings), batch()).values():
        assert all(bool(term.isfinite()) for term in terms.values())
