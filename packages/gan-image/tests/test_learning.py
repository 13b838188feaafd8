"""Every system learns: after a short training its samples are nearer to the data than they were before."""

from __future__ import annotations

import math

import pytest
import torch

import gan_image
from gan_core.data import BatchStream
from gan_core.measure.metrics import sliced_wasserstein

STEPS = {
    "gan": 600,
    "cgan": 600,
    "pacgan": 400,
    "unrolled-gan": 200,
    "dcgan": 200,
    "lsgan": 200,
    "ebgan": 60,
    "began": 100,
    "dragan": 50,
    "wgan-gp": 20,
    "sagan": 20,
    "ssgan": 30,
    "infomax-gan": 30,
    "progan": 60,
}
"""Where they are not 40: small networks are fast, and need more."""
SMALLER = {"dcgan": {"image_size": 16}, "lsgan": {"image_size": 16}}


GENERATION = [card.name for card in gan_image.DOMAIN.cards if card.task == "generation"]


@pytest.mark.parametrize("system", [name for name in GENERATION if name != "infogan"])
def test_a_short_training_brings_samples_nearer_to_the_data(system: str, tmp_path) -> None:
    torch.manual_seed(0)
    network = SMALLER.get(system, {})
    data = "gaussian-1d" if system == "gan" else gan_image.DOMAIN.card(system).data
    changes = {f"network.{key}": value for key, value in network.items()}
    run = gan_image.train(
        system,
        data=data,
        out=tmp_path / "run",
        steps=STEPS.get(system, 40),
        ema=0.9,
        shown=False,
        changes={**changes, "optimizer.schedule": {"name": "constant"}, "train.sample_every": None},
    )
    trained = gan_image.load(run.path)
    shape = {"shape": trained.recipe.network["shape"]} if "shape" in trained.recipe.network else {}
    untrained = gan_image.create(system, **(shape or {"channels": 1, **network}))
    source = gan_image.open_data(data)
    batch = next(BatchStream(source.fit(trained.spec), 500, seed=1))
    real = next(value for key, value in batch.items() if key != "label").flatten(1).numpy()
    before, after = (
        sliced_wasserstein(real, game.generate(500, seed=0).flatten(1).numpy()) for game in (untrained, trained)
    )
    assert after < 0.85 * before


def test_infogan_predicts_its_codes(tmp_path) -> None:
    run = gan_image.train("infogan", data="digits", out=tmp_path / "run", steps=150, shown=False)
    assert run.log()[-1]["generator/category"] < 0.5 * math.log(10)  # of what guessing among ten costs


@pytest.mark.parametrize("system", ["ssgan", "infomax-gan", "infogan"])
def test_games_with_auxiliary_terms_can_be_unrolled(system: str, tmp_path) -> None:
    ahead, plain = (
        gan_image.train(
            system,
            data="digits",
            out=tmp_path / name,
            steps=1,
            batch_size=8,
            shown=False,
            changes={"regularizers": regularizers, "train.sample_every": None},
        ).log()[-1]
        for name, regularizers in {"ahead": {"unrolled": {"steps": 2}}, "plain": {}}.items()
    )
    assert ahead["discriminator/adversarial"] == plain["discriminator/adversarial"]
    assert ahead["generator/adversarial"] != plain["generator/adversarial"]


def test_the_logits_of_an_untrained_dcgan_hardly_depend_on_the_class() -> None:
    """One that begins with strong opinions of classes soon tells every sample, and the generator never recovers."""
    torch.manual_seed(0)
    game = gan_image.create("dcgan", channels=1, image_size=16, num_classes=10).eval()
    image = torch.rand(1, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        logits = game.discriminator.network(image.expand(10, -1, -1, -1), torch.arange(10))
    assert logits.std() < 0.1
