"""Building blocks of vocoders: sums and means of branches, and weight normalisation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gan_audio.layers.streaming import Span, input_span

NORMALISED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)
"""Layers to which `normalise_weights` applies weight normalisation."""


class Sum(nn.Module):
    """Sum of the outputs of several branches with the same input."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        total = first(x)
        for branch in others:
            total = branch(x).add_(total)  # in place on the branch's own result: `total` may be `x` itself
        return total

    def input_span(self, span: Span) -> Span:
        """See `gan_audio.layers.streaming.input_span`."""
        firsts, lasts = zip(*(input_span(branch, span) for branch in self.branches), strict=True)
        return min(firsts), max(lasts)


class Mean(Sum):
    """Mean of the outputs of several branches with the same input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).div_(len(self.branches))


def normalise_weights(network: nn.Module) -> None:
    """Applies weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868) to every convolution, in place.

    As in the published code, transposed convolutions are also normalised over axis 0, their input channels.
    """
    for layer in list(network.modules()):
        if isinstance(layer, NORMALISED):
            weight_norm(layer)
