"""Interpolation between latents that follows the distribution of a game's latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gan_core.game import Game

ON_ONE_LINE = 1e-4
"""Minimum sine of the angle between latents; for smaller ones, the arc is not accurate in float32."""


def interpolate(game: Game, *, rows: int = 8, steps: int = 10, seed: int = 0, **given: Any) -> Tensor:
    """Generates interpolations from one latent to another, in evaluation mode.

    Args:
        game: a game with `latent`, `render` and `between`.
        rows: number of interpolations, at least 1.
        steps: number of samples in each, including both ends.
        seed: random seed of the ends.
        given: conditions, one value for each row (default: those of `generate`), and keywords of `latent` and `render`
            (`truncation`).

    Returns:
        `[rows, steps, …]`: samples of `game.render` from latents of `game.between` for two draws of `game.latent`.

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
        if isinstance(values, Tensor) else [value for value in values for _ in range(steps)]
        for name, values in asked.items()
    }  # fmt: skip

    @torch.no_grad()
    def part(first: int) -> Tensor:
        latents = ways[first : first + game.at_once]
        count = len(latents)
        with game.seeded_rows(seed, first, count):
            return game.render(latents, **game.rows_of(each, first, count), **of_render)

    return map(part, firsts)


def great_circle(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Returns points on the arc from `start` to `end` (White 2016, arXiv:1609.04468, section 2.1).

    Latents with several axes are treated as vectors.

    Args:
        start: `[B, …]`.
        end: `[B, …]`.
        share: positions between them, `[S]` in [0, 1].

    Returns:
        `[B, S, …]`.
    """
    shape, (start, end) = start.shape[1:], (x.flatten(1) for x in (start, end))
    unit_start, unit_end = (x / x.norm(dim=1, keepdim=True) for x in (start, end))
    angle = (unit_start * unit_end).sum(dim=1).clamp(-1, 1).acos()[:, None, None]
    share = share[None, :, None]
    arc = torch.sin((1 - share) * angle) * start[:, None] + torch.sin(share * angle) * end[:, None]
    line = torch.lerp(start[:, None], end[:, None], share)  # collinear latents: the arc is not unique
    way = torch.where(torch.sin(angle) < ON_ONE_LINE, line, arc / torch.sin(angle))
    return way.reshape(*way.shape[:2], *shape)


def straight_line(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Returns points on the line from `start` to `end`, for latents that are uniform in a cube; see `great_circle`."""
    share = share.view(1, -1, *[1] * (start.ndim - 1))
    return torch.lerp(start[:, None], end[:, None], share)
