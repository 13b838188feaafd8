"""Each objective with each regularizer: a short training run of two systems, or the reason why it is not possible.

Trained on the digits at 16×16 with batch size 64: `dcgan`, width 16, 200 steps; `gan`, width 128, 400 steps; and
`ebgan` for energies, with the settings of dcgan. Adam with betas 0 and 0.9 and a learning rate of 1e-3 (2e-3 for the
discriminators of dcgan and ebgan) that decays linearly to 0; averaged weights with decay 0.99; default settings of the
regularizer. The figure is the sliced Wasserstein distance between 512 samples and 512 real items after training,
divided by that before it; below 1, training has improved the samples. If it has not, the training is repeated with
three times as many steps.
"""

from __future__ import annotations

import argparse
import string
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from _record import Progress, record
from _tables import markdown
from regularizers import CASES

import gan_image
from gan_core.data import BatchStream, Source
from gan_core.domain import find_domain
from gan_core.errors import RecipeError
from gan_core.measure.metrics import sliced_wasserstein
from gan_core.play.game import Game
from gan_core.play.objectives import OBJECTIVES
from gan_core.play.regularizers import REGULARIZERS
from gan_core.recipe import Recipe

SAMPLES, LONGER = 512, 3
COMMON: dict[str, Any] = {
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "betas": [0.0, 0.9], "schedule": {"name": "linear"}},
    "train.batch_size": 64,
    "train.ema": 0.99,
    "train.sample_every": None,
    "train.checkpoint_every": None,
}
CONVOLUTIONAL: dict[str, Any] = {
    "network.image_size": 16,
    "network.width": 16,
    "network.latent_dim": 32,
    "train.steps": 200,
    "players.discriminator.optimizer.learning_rate": 2e-3,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "dcgan": CONVOLUTIONAL,
    "gan": {"network.shape": [1, 16, 16], "network.width": 128, "train.steps": 400},
    "ebgan": CONVOLUTIONAL,
}
"""Changes to the preset `small` of each system."""


def cells() -> Iterator[tuple[str, str, str]]:
    """Yields system, objective and case; a system with energies has only its own objective."""
    for system in SYSTEMS:
        for objective in OBJECTIVES:
            if system != "ebgan" or objective == "energy":
                yield from ((system, objective, case) for case in CASES)


@cache
def digits() -> Source:
    """Returns the data."""
    return gan_image.open_data("digits")


def recipe_of(system: str, objective: str, case: str) -> Recipe:
    """Returns the recipe of a cell.

    Raises:
        RecipeError: a setting is not supported.
    """
    preset, changes = gan_image.DOMAIN.preset(system, "small"), COMMON | SYSTEMS[system]
    recipe = preset.recipe(domain="image", system=system, preset="small").but(changes)
    recipe = recipe.model_copy(update={"regularizers": {}}).but(CASES[case])
    if system != "ebgan":
        recipe = recipe.but({"objective": objective})
    return preset.complete(recipe, digits().facts)


def game_of(system: str, objective: str, case: str) -> Game:
    """Returns the untrained game of a cell.

    Raises:
        RecipeError: the combination is not supported.
    """
    torch.manual_seed(0)
    return gan_image.DOMAIN.preset(system, "small").build(recipe_of(system, objective, case))


def refusal(system: str, objective: str, case: str) -> str | None:
    """Returns the reason why the combination of a cell is not supported; None if it is."""
    try:
        game_of(system, objective, case)
    except RecipeError as error:
        return str(error)
    return None


def distance(game: Game) -> float:
    """Returns the distance between samples and real items, which are the same for all cells of a system."""
    assert game.recipe is not None
    dataset = digits().fit(game.spec)
    batch = next(BatchStream(dataset, SAMPLES, seed=0))
    real = next(value for key, value in batch.items() if key != "label")
    fake = game.generate(SAMPLES, seed=0)
    return sliced_wasserstein(real.flatten(1).numpy(), fake.flatten(1).numpy())


def measure(system: str, objective: str, case: str) -> dict[str, Any]:
    """Measures a cell."""
    if reason := refusal(system, objective, case):
        return {"refused": reason}
    before = distance(game_of(system, objective, case))
    for times in (1, LONGER):
        game = game_of(system, objective, case)
        assert game.recipe is not None
        with tempfile.TemporaryDirectory() as folder:
            run, steps = Path(folder) / "run", times * game.recipe.train.steps
            gan_image.train(game, data=digits(), out=run, steps=steps, shown=False)
        after = distance(game)
        if after < before:
            break
    figures = {"before": round(before, 4), "after": round(after, 4), "ratio": round(after / before, 3)}
    return figures if times == 1 else figures | {"times": times}


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page: cells `dcgan · gan` (`ebgan` for energies), with the reasons below it."""
    letters: dict[str, str] = {}

    def shown(cell: Mapping[str, Any]) -> str:
        if "refused" in cell:
            return letters.setdefault(cell["refused"], string.ascii_letters[len(letters)])
        return f"{cell['ratio']:.2f}" + ("*" if "times" in cell else "")

    rows = []
    for case in CASES:
        row = [case if case == "none" else f"`{case}`"]
        for objective in OBJECTIVES:
            systems = ("ebgan",) if objective == "energy" else ("dcgan", "gan")
            row.append(" · ".join(shown(figures[f"{system} {objective} {case}"]) for system in systems))
        rows.append(row)
    notes = f"- *: after {LONGER} times as many steps; it had not improved before\n"
    notes += "".join(f"- {letter}: {reason}\n" for reason, letter in letters.items())
    return markdown(["with", *(f"`{objective}`" for objective in OBJECTIVES)], rows) + "\n" + notes


TRANSLATORS_AND_VOCODERS = {
    "pix2pix": "image",
    "cyclegan": "image",
    "melgan": "audio",
    "hifigan": "audio",
    "bigvgan": "audio",
}
"""Systems whose discriminators judge patches, at several scales, or in several ways, and their domains."""


def refusal_by(system: str, regularizer: str) -> str | None:
    """Returns the reason why a system with its own objective does not support a regularizer; None if it does."""
    preset = find_domain(TRANSLATORS_AND_VOCODERS[system]).preset(system, "small")
    recipe = preset.recipe(system=system).but({f"regularizers.{regularizer}": {}})
    try:
        with torch.device("meta"):
            preset.build(recipe)
    except RecipeError as error:
        return str(error).partition(": ")[2] if str(error).partition(":")[0].isidentifier() else str(error)
    return None


def table_of_systems() -> str:
    """Returns the table of the regularizers that these systems support, with the reasons for the others below it."""
    letters: dict[str, str] = {}

    def shown(reason: str | None) -> str:
        return "yes" if reason is None else letters.setdefault(reason, string.ascii_letters[len(letters)])

    systems = list(TRANSLATORS_AND_VOCODERS)
    rows = [[f"`{name}`", *(shown(refusal_by(system, name)) for system in systems)] for name in REGULARIZERS]
    reasons = "".join(f"- {letter}: {reason}\n" for reason, letter in letters.items())
    return markdown(["with", *(f"`{system}`" for system in systems)], rows) + "\n" + reasons


def main() -> None:
    """Measures each cell and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    figures = {" ".join(cell): progress.take(" ".join(cell), partial(measure, *cell)) for cell in cells()}
    record("matrix", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
