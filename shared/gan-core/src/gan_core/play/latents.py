"""Paths between latents: the arc of a great circle, and the straight line."""

from __future__ import annotations

import torch
from torch import Tensor

ON_ONE_LINE = 1e-4
"""Minimum sine of the angle between latents; for smaller angles, the arc is inaccurate in float32."""


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
