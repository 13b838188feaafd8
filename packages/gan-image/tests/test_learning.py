"""Each system learns: a short training brings its samples closer to the data than those of the untrained game."""

from __future__ import annotations

import math

import pytest
import torch

import gan_image
from gan_core.data import BatchStream
from gan_core.measure.metrics import sliced_wasserstein

STEPS = {
    "gan": 300,
    "cgan": 300,
    "pacgan": 300,
    "unrolled-gan": 200,
    "dcgan": 150,
    "lsgan": 150,
    "ebgan": 60,
    "wgan": 30,
    "began": 50,
    "dragan": 30,
    "wgan-gp": 15,
    "progan": 30,
}
"""Number of steps, if it is not 20; small networks are fast, but need more."""
BATCH_SIZES = {"pacgan": 32}
"""Batch size, if it is not 16."""
NETWORKS = {"dcgan": {"image_size": 16}, "lsgan": {"image_size": 16}}
"""Changes to the networks of the preset `small`."""
COUNT = 256
"""Number of samples that are compared with as many items."""
SYSTEMS = [card.name for card in gan_image.DOMAIN.cards if card.task == "generation" and card.name != "infogan"]


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_short_training_brings_samples_closer_to_the_data(system: str, tmp_path) -> None:
    torch.manual_seed(0)
    network = NETWORKS.get(system, {})
    data = "gaussian-1d" if system == "gan" else gan_image.DOMAIN.card(system).data
    changes = {f"network.{key}": value for key, value in network.items()}
    run = gan_image.train(
        system,
        data=data,
        out=tmp_path / "run",
        steps=STEPS.get(system, 20),
        batch_size=BATCH_SIZES.get(system, 16),
        ema=0.9,
        shown=False,
        changes={**changes, "optimizer.schedule": {"name": "constant"}, "train.sample_every": None},
    )
    trained = gan_image.load(run.path)
    shape = {"shape": trained.recipe.network["shape"]} if "shape" in trained.recipe.network else {}
    untrained = gan_image.create(system, **(shape or {"channels": 1, **network}))
    batch = next(BatchStream(gan_image.open_data(data).fit(trained.spec), COUNT, seed=1))
    real = next(value for key, value in batch.items() if key != "label").flatten(1).numpy()
    before, after = (
        sliced_wasserstein(real, game.generate(COUNT, seed=0).flatten(1).numpy()) for game in (untrained, trained)
    )
    assert after < 0.85 * before


@pytest.mark.slow
def test_infogan_predicts_its_codes(tmp_path) -> None:
    run = gan_image.train("infogan", data="digits", out=tmp_path / "run", steps=150, shown=False)
    assert run.log()[-1]["generator/category"] < 0.5 * math.log(10)  # log(10): guessing among ten categories


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
    """With large initial class embeddings the discriminator soon rejects every sample, and training fails."""
    torch.manual_seed(0)
    game = gan_image.create("dcgan", channels=1, image_size=16, num_classes=10).eval()
    image = torch.rand(1, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        logits = game.discriminator.network(image.expand(10, -1, -1, -1), torch.arange(10))
    assert logits.std() < 0.1
