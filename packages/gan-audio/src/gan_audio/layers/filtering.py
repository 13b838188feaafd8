"""Minimal filtering: convolutions over time with fewer multiplications (Winograd 1980; Lavin & Gray, arXiv:1509.09308).

Used for inference on a CPU, for filters with enough taps and channels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn
from torch.nn.functional import conv2d

from gan_audio.layers.streaming import Span

OUTPUTS = TAPS = 4
"""Number of outputs and of taps of a minimal filter F(4, 4)."""
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, -0.5)
"""Interpolation points besides infinity, chosen for small rounding errors."""
MIN_SIZE, MIN_CHANNELS = 7, 128
"""Minimum number of taps, and of input and output channels, for which minimal filters are faster than a convolution."""


class MinimalConvolution(nn.Module):
    """A convolution computed by minimal filters: 7 products for 4 outputs and 4 taps, instead of 16.

    The taps are split into sections of 4. Windows of 7 inputs and all sections are evaluated at 7 points. Their
    products are summed over channels and sections, which is a grouped convolution with one group per point, and
    interpolated to 4 outputs. A convolution with dilation d is computed separately for each of the d phases of the
    input. In float32, rounding errors are a few times larger than those of `nn.Conv1d`.

    The module has no parameters and is for inference only.

    Args:
        layer: convolution to compute; its output must have the length of its input.
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
        original = layer.weight.detach()
        taps = original.new_zeros(TAPS, layer.out_channels, self.sections, layer.in_channels)
        for tap in range(self.size):
            taps[tap % TAPS, :, tap // TAPS] = original[..., tap]
        weight = (filters @ taps.flatten(1)).view(-1, 1, self.sections, layer.in_channels).permute(0, 3, 1, 2)
        bias = original.new_zeros(len(evaluation), layer.out_channels)
        if layer.bias is not None:
            bias[POINTS.index(1)] = layer.bias.detach()  # the value at point 1 is added to every output once
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias.flatten())
        self.register_buffer("evaluation", evaluation)
        self.register_buffer("interpolation", interpolation)

    def forward(self, x: Tensor) -> Tensor:
        windows = self._windows(x)  # [N, points, C], where N = B * phases * windows of a phase
        points, channels = windows.shape[1:]
        evaluated = torch.bmm(self.evaluation.expand(len(windows), -1, -1), windows)
        evaluated = evaluated.view(len(x) * self.dilation, 1, -1, points * channels).permute(0, 3, 1, 2)
        products = conv2d(evaluated, self.weight, self.bias, groups=points).permute(0, 2, 3, 1)
        products = products.reshape(-1, points, self.weight.shape[0] // points)
        outputs = torch.bmm(self.interpolation.expand(len(products), -1, -1), products)
        outputs = outputs.view(len(x), self.dilation, -1, outputs.shape[2]).transpose(1, 2).flatten(1, 2)
        return outputs[:, : x.shape[2]].transpose(1, 2)

    def _windows(self, x: Tensor) -> Tensor:
        """Returns overlapping windows `[B * phases * windows, points, C]` of the padded input's phases."""
        (batch, channels, length), phases, points = x.shape, self.dilation, len(self.evaluation)
        count = -(-length // (OUTPUTS * phases)) + self.sections  # per phase; outputs of the last one are not used
        rows = count * OUTPUTS
        inputs = x.new_zeros(batch * phases * rows + points - OUTPUTS, channels)  # room for the end of the last window
        by_phase = inputs[: batch * phases * rows].view(batch, phases, rows, channels)
        for phase in range(phases):
            first = (phase - self.padding) % phases
            part, row = x[..., first::phases].transpose(1, 2), (first + self.padding) // phases
            by_phase[:, phase, row : row + part.shape[1]] = part
        return inputs.as_strided((batch * phases * count, points, channels), (OUTPUTS * channels, channels, 1))

    def input_span(self, span: Span) -> Span:
        """See `gan_audio.layers.streaming.input_span`."""
        first, last = span
        return first - self.padding, last - self.padding + (self.size - 1) * self.dilation


@cache
def minimal_filter() -> tuple[Tensor, Tensor, Tensor]:
    """Returns the matrices A `[outputs, points]`, G `[points, taps]` and B `[points, points]` of F(4, 4), in float64.

    The outputs `y_i = Σ_k d_{i+k} g_k` of taps g over a window d are A ((G g) ⊙ (B d)). This is the transpose of
    Toom-Cook multiplication of polynomials, where the coefficients of a product are interpolated from its values at the
    points. The rows of B are the coefficients of Π (x - b) over the other points b, and G divides by its value at the
    point.
    """
    points = np.array(POINTS)
    others = [np.delete(points, number) for number in range(len(points))]
    values = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    filters = np.vander(points, TAPS, increasing=True) / np.array(values)[:, None]
    evaluation = [*(np.append(polyfromroots(rest), 0) for rest in others), polyfromroots(points)]
    interpolation = np.vander(points, OUTPUTS, increasing=True)
    at_infinity = np.eye(TAPS)[-1:]  # the value of a polynomial at infinity is its leading coefficient
    matrices = np.vstack([interpolation, at_infinity]).T, np.vstack([filters, at_infinity]), np.stack(evaluation)
    first, second, third = (torch.tensor(matrix, dtype=torch.float64, device="cpu") for matrix in matrices)
    return first, second, third


def is_faster_filtered(layer: nn.Conv1d) -> bool:
    """Returns whether a minimal filter can replace a convolution with sufficient precision and is faster on a CPU."""
    (size,), (dilation,) = layer.kernel_size, layer.dilation
    keeps_length = layer.padding == (dilation * (size // 2),) and layer.padding_mode == "zeros" and size % 2 == 1
    plain = layer.stride == (1,) and layer.groups == 1
    precise = layer.weight.dtype in (torch.float32, torch.float64)
    large = size >= MIN_SIZE and min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS
    return keeps_length and plain and precise and large
