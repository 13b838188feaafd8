"""Walks between latents."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_core import draws
from gan_core.errors import InputError
from gan_core.game import Game, evaluating
from gan_core.two_player import latent_dim

ON_ONE_LINE = 1e-4
"""The sine of an angle below which an arc has no digits left in float32."""


def great_circle(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Points on the arc from `start` to `end` (White 2016, arXiv:1609.04468, section 2.1).

    Args:
        start: `[B, latent_dim]`.
        end: `[B, latent_dim]`.
        share: of the way, `[S]` in [0, 1].

    Returns:
        `[B, S, latent_dim]`.
    """
    unit_start, unit_end = (x / x.norm(dim=1, keepdim=True) for x in (start, end))
    angle = (unit_start * unit_end).sum(dim=1).clamp(-1, 1).acos()[:, None, None]
    share = share[None, :, None]
    arc = torch.sin((1 - share) * angle) * start[:, None] + torch.sin(share * angle) * end[:, None]
    line = torch.lerp(start[:, None], end[:, None], share)  # there is no one arc between latents on one line
    return torch.where(torch.sin(angle) < ON_ONE_LINE, line, arc / torch.sin(angle))


@torch.no_grad()
def strips(game: Game, *, rows: int, steps: int, label: int | None, seed: int) -> Tensor:
    """Images `[rows * steps, C, H, W]`, each row a walk from one latent to another in one class.

    Raises:
        InputError: the game has no generator that takes a latent, or no such class.
    """
    if "generator" not in dict(game.named_children()):
        raise InputError(f"{type(game).__name__} has no generator that takes a latent")
    classes = game.num_classes
    if label is not None and classes is None:
        raise InputError("the model was trained without classes; leave `label` out")
    if label is not None and classes is not None and not 0 <= label < classes:
        raise InputError(f"`label` is {label}; it must be from 0 to {classes - 1}")
    generator = game.get_submodule("generator")
    with draws.drawing(seed, game.device, rows=2 * rows, total=2 * rows):
        ends = draws.normal(2 * rows, latent_dim(generator), like=next(generator.parameters()))
    start, end = ends.chunk(2)
    z = great_circle(start, end, torch.linspace(0, 1, steps, device=ends.device)).flatten(0, 1)
    with evaluating(game):
        if classes is None:
            return generator(z)
        labels = torch.arange(rows) % classes if label is None else torch.full((rows,), label)
        return generator(z, label=labels.repeat_interleave(steps).to(z.device))
