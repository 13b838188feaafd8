"""Initial weights that several families of networks share."""

from __future__ import annotations

from torch import nn


def initialize_weights(module: nn.Module, deviation: float = 0.02) -> None:
    """Draws weights of linear layers and convolutions from N(0, `deviation`²) and sets their biases to 0.

    For `Module.apply`. Norms and embeddings are unchanged.
    """
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        nn.init.normal_(module.weight, 0.0, deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
