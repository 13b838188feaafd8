"""Memory layouts of weights.

Most convolutional networks run fastest in channels-last memory format, so it is the default for training. A network
that runs faster with contiguous weights has an attribute `memory_format = torch.contiguous_format`. The benchmark
`tools/dev.py bench layout` compares the layouts.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels-last memory format by number of axes of a weight."""


def lay_out(game: nn.Module) -> None:
    """Converts all 4-D and 5-D weights of a game to channels-last memory format, in place.

    The weights of a module whose attribute `memory_format` is `torch.contiguous_format`, and of its submodules, are not
    converted.
    """
    kept = {
        id(parameter)
        for module in game.modules()
        if getattr(module, "memory_format", None) is torch.contiguous_format
        for parameter in module.parameters()
    }
    channels_last(parameter for parameter in game.parameters() if id(parameter) not in kept)


def channels_last(parameters: Iterable[nn.Parameter]) -> None:
    """Converts 4-D and 5-D parameters to channels-last memory format, in place."""
    for parameter in parameters:
        if (
            parameter.ndim in CHANNELS_LAST
        ):  # not by `contiguous`: it leaves the strides of a single channel as they are
            parameter.data = parameter.data.to(memory_format=CHANNELS_LAST[parameter.ndim])
