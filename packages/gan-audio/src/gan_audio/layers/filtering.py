"""Convolutions over time that are fast where a CPU computes for the result alone.

Signals `[B, C, T]` lie in memory with the channels innermost, for which oneDNN has its fastest kernels. Filters that
are long enough over channels that are many enough are computed by minimal filtering (Winograd 1980; Lavin & Gray 2016,
arXiv:1509.09308), with fewer multiplications than there are products of taps and samples.

Other forms did not pay: transposed convolutions as plain ones with more channels, and rectifiers and sums fused into
convolutions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

OUTPUTS = TAPS = 4
"""Of a minimal filter F(4, 4): at so many outputs at once, by so many taps."""
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, -0.5)
"""Where it evaluates polynomials, besides infinity; with hardly any others are the rounding errors smaller."""
LEAST_SIZE, LEAST_CHANNELS = 7, 128
"""Of a convolution that minimal filters pay for: its taps, and the channels on either side."""


def inferring(x: Tensor) -> bool:
    """Whether a CPU computes for the result alone, without a gradient: what is fast there is done then."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def innermost(x: Tensor) -> Tensor:
    """`[B, C, T]` as pictures `[B, C, 1, T]` with the channels innermost in memory, copied where they are not.

    Convolutions need no reordering of them before and after; what they make is laid out alike, and pointwise layers
    keep it.
    """
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class Convolution(nn.Conv1d):
    """Torch's; where a CPU infers, of pictures with the channels innermost, which is faster."""

    def forward(self, x: Tensor) -> Tensor:
        if not inferring(x):
            return super().forward(x)
        x, padding, (dilation,) = innermost(x), int(self.padding[0]), self.dilation
        if self.padding_mode != "zeros":
            x, padding = pad(x, (padding, padding, 0, 0), mode=self.padding_mode), 0
        weight = self.weight.unsqueeze(2)
        return conv2d(x, weight, self.bias, padding=(0, padding), dilation=(1, dilation)).squeeze(2)


class TransposedConvolution(nn.ConvTranspose1d):
    """Torch's; where a CPU infers, of pictures with the channels innermost, which is faster."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not inferring(x):
            return super().forward(x, output_size)
        stride, padding, more = (1, *self.stride), (0, int(self.padding[0])), (0, *self.output_padding)
        weight = self.weight.unsqueeze(2)
        return conv_transpose2d(innermost(x), weight, self.bias, stride, padding, more).squeeze(2)


class MinimalConvolution(nn.Module):
    """A convolution by minimal filters: 7 products for 4 outputs and 4 taps, not 16; for use on a CPU, not training.

    The taps are cut into sections of 4. Windows of 7 inputs and each section are evaluated at 7 points, their products
    are summed over channels and sections, which is a convolution in as many groups as there are points, and that gives
    4 outputs. A dilated convolution is that of every so manyth sample by itself. In single precision the result is a
    few times as far from the exact one as the convolution's.

    Args:
        layer: which it computes; it keeps the length.
    """

    weight: Tensor
    bias: Tensor
    evaluation: Tensor
    interpolation: Tensor

    def __init__(self, layer: nn.Conv1d):
        super().__init__()
        (self.size,), (self.dilation,), self.padding = layer.kernel_size, layer.dilation, int(layer.padding[0])
        self.sections = -(-self.size // TAPS)
        interpolation, filters, evaluation = (matrix.to(layer.weight) for matrix in minimal_filter())
        taps = layer.weight.new_zeros(TAPS, layer.out_channels, self.sections, layer.in_channels)
        for tap in range(self.size):
            taps[tap % TAPS, :, tap // TAPS] = layer.weight.detach()[..., tap]
        weight = (filters @ taps.flatten(1)).view(-1, 1, self.sections, layer.in_channels).permute(0, 3, 1, 2)
        bias = layer.weight.new_zeros(len(evaluation), layer.out_channels)
        if layer.bias is not None:
            bias[POINTS.index(1)] = layer.bias.detach()  # whose share of all outputs is one
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias.flatten())
        self.register_buffer("evaluation", evaluation)
        self.register_buffer("interpolation", interpolation)

    def forward(self, x: Tensor) -> Tensor:
        (batch, channels, length), phases, points = x.shape, self.dilation, len(self.evaluation)
        windows = -(-length // (OUTPUTS * phases)) + self.sections  # of a phase; the last one's outputs are not needed
        rows = windows * OUTPUTS
        inputs = x.new_zeros(batch * phases * rows + points - OUTPUTS, channels)  # the last window lies within, too
        by_phase = inputs[: batch * phases * rows].view(batch, phases, rows, channels)
        for phase in range(phases):
            first = (phase - self.padding) % phases
            part, row = x[..., first::phases].transpose(1, 2), (first + self.padding) // phases
            by_phase[:, phase, row : row + part.shape[1]] = part
        every = inputs.as_strided((batch * phases * windows, points, channels), (OUTPUTS * channels, channels, 1))
        evaluated = torch.bmm(self.evaluation.expand(len(every), -1, -1), every)
        evaluated = evaluated.view(batch * phases, 1, windows, points * channels).permute(0, 3, 1, 2)
        products = conv2d(evaluated, self.weight, self.bias, groups=points).permute(0, 2, 3, 1)
        products = products.reshape(-1, points, self.weight.shape[0] // points)
        outputs = torch.bmm(self.interpolation.expand(len(products), -1, -1), products)
        outputs = outputs.view(batch, phases, -1, outputs.shape[2]).transpose(1, 2).flatten(1, 2)
        return outputs[:, :length].transpose(1, 2)

    def reach(self, span: tuple[int, int]) -> tuple[int, int]:
        first, last = span
        return first - self.padding, last - self.padding + (self.size - 1) * self.dilation


@cache
def minimal_filter() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices A `[outputs, points]`, G `[points, taps]` and B `[points, points]` of F(4, 4), in double precision.

    Outputs `y_i = Σ_k d_{i+k} g_k` of taps g over a window d are A ((G g) ⊙ (B d)). That is Toom's and Cook's product
    of polynomials, transposed: where a product's coefficients are interpolated from its values at the points, B's rows
    have the coefficients of Π (x - b) over the other points b, and G divides by its value at the point.
    """
    points = np.array(POINTS)
    others = [np.delete(points, number) for number in range(len(points))]
    values = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    filters = np.vander(points, TAPS, increasing=True) / np.array(values)[:, None]
    evaluation = [*(np.append(polyfromroots(rest), 0) for rest in others), polyfromroots(points)]
    interpolation = np.vander(points, OUTPUTS, increasing=True)
    at_infinity = np.eye(TAPS)[-1:]  # what is left of a polynomial there is its last coefficient
    matrices = np.vstack([interpolation, at_infinity]).T, np.vstack([filters, at_infinity]), np.stack(evaluation)
    first, second, third = (torch.tensor(matrix, dtype=torch.float64, device="cpu") for matrix in matrices)
    return first, second, third


def pays(layer: Convolution) -> bool:
    """Whether a convolution keeps the length, has the digits, and its minimal filter saves more than it costs."""
    (size,), (dilation,) = layer.kernel_size, layer.dilation
    keeps = layer.padding == (dilation * (size // 2),) and layer.padding_mode == "zeros" and size % 2 == 1
    plain = layer.stride == (1,) and layer.groups == 1 and not (layer._forward_hooks or layer._forward_pre_hooks)
    exact = layer.weight.dtype in (torch.float32, torch.float64)
    wide = min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
    return keeps and plain and exact and wide and size >= LEAST_SIZE
