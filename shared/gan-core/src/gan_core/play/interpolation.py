"""Interpolation between latents that follows the distribution of a game's latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gan_core.play.game import Game


def interpolate(game: Game, *, rows: int = 8, steps: int = 10, seed: int = 0, **given: Any) -> Tensor:
    """Generates interpolations from one latent to another, in evaluation mode.

    Args:
        game: a game with `latent`, `render` and `between`.
        rows: number of interpolations, at least 1.
        steps: number of samples in each, including both ends.
        seed: random seed of the ends.
        given: conditions, with one value per row (default: those of `generate`), and keywords of `latent` and `render`,
            such as `truncation`.

    Returns:
        `[rows, steps, …]`: samples from `game.render` of the latents that `game.between` returns for two latents drawn
        by `game.latent`.

    Raises:
        RecipeError: the game has no latents, or `given` does not fit; see `Game.generate`.
    """
    samples = torch.cat(list(interpolated(game, rows=rows, steps=steps, seed=seed, **given)))
    return samples.reshape(rows, steps, *samples.shape[1:])


def interpolated(game: Game, *, rows: int, steps: int, seed: int, **given: Any) -> Iterator[Tensor]:
    """Returns an iterator over the samples of `interpolate`, row by row, in parts of `game.at_once`, to save memory."""
    firsts = game.firsts(rows * steps)
    asked, others = game.checked_given(rows, given, (game.latent, game.render))
    of_latent = {name: value for name, value in others.items() if name in game.parameters_of(game.latent)}
    of_render = {name: value for name, value in others.items() if name not in of_latent}
    with torch.no_grad(), game.seeded(seed, start=0, rows=2 * rows, total=2 * rows):
        start, end = game.latent(2 * rows, **of_latent).chunk(2)
        ways = game.between(start, end, torch.linspace(0, 1, steps, device=start.device)).flatten(0, 1)
    each = {
        name: values.repeat_interleave(steps, dim=0)
        if isinstance(values, Tensor)
        else [value for value in values for _ in range(steps)]
        for name, values in asked.items()
    }

    @torch.no_grad()
    def part(first: int) -> Tensor:
        latents = ways[first : first + game.at_once]
        count = len(latents)
        with game.seeded_rows(seed, first, count):
            return game.render(latents, **game.rows_of(each, first, count), **of_render)

    return map(part, firsts)
