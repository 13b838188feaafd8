"""Initial weights that several families of networks share."""

from __future__ import annotations

from torch import nn

from gan_core.nn.blocks import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED

WEIGHTED: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS.values(), *TRANSPOSED.values())
"""Linear layers and convolutions."""


def initialize_weights(module: nn.Module, deviation: float = 0.02) -> None:
    """Draws weights of linear layers and convolutions from N(0, `deviation`²) and sets their biases to 0.

    For `Module.apply`. Norms and embeddings are unchanged.
    """
    if isinstance(module, WEIGHTED):
        nn.init.normal_(module.get_parameter("weight"), 0.0, deviation)
        if module.bias is not None:
            nn.init.zeros_(module.get_parameter("bias"))


def initialize_normal(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02²) and gains of norms from N(1, 0.02²); for `Module.apply`.

    The initialization of DCGAN (Radford et al. 2016, arXiv:1511.06434, section 4), which many image networks share.
    """
    if isinstance(module, (*CONVOLUTIONS.values(), *TRANSPOSED.values(), nn.Embedding)):
        nn.init.normal_(module.get_parameter("weight"), 0.0, 0.02)
    elif isinstance(module, (*BATCH_NORMS.values(), nn.GroupNorm)) and module.affine:
        nn.init.normal_(module.get_parameter("weight"), 1.0, 0.02)
