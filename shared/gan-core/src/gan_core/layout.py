"""Memory layouts of weights.

Most convolutional networks run fastest with the channels last in memory, so games are trained in that layout. A network
that runs faster otherwise has an attribute `memory_format = torch.contiguous_format`. `tools/dev.py bench layout`
compares the layouts.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Memory formats by the number of a weight's axes."""


def lay_out(game: nn.Module) -> None:
    """Puts the channels of all weights of images and volumes last in memory, in place.

    A module whose attribute `memory_format` is `torch.contiguous_format` keeps its weights, and those of the modules in
    it, as they are.
    """
    kept = {
        id(parameter)
        for module in game.modules()
        if getattr(module, "memory_format", None) is torch.contiguous_format
        for parameter in module.parameters()
    }
    channels_last(parameter for parameter in game.parameters() if id(parameter) not in kept)


def channels_last(parameters: Iterable[nn.Parameter]) -> None:
    """Puts the channels of 4-D and 5-D parameters last in memory, in place."""
    for parameter in parameters:
        if (
            parameter.ndim in CHANNELS_LAST
        ):  # not by `contiguous`: it leaves the strides of a single channel as they are
            parameter.data = parameter.data.to(memory_format=CHANNELS_LAST[parameter.ndim])
