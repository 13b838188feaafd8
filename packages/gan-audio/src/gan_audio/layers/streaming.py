"""Computation of a network's output in pieces, each from the part of the input on which it depends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

VALUES_AT_ONCE = 1 << 19
"""Maximum number of values, 2 MiB, of a stage's output that each CPU core computes at once.

They fit in the core's caches, and their memory is reused for the next piece.
"""
POINTWISE = (nn.Identity, nn.LeakyReLU, nn.Tanh, nn.Hardtanh)
"""Layers whose outputs depend only on the input at the same position."""

Span = tuple[int, int]
"""First and last index of a range of samples, both included."""


def input_span(layer: nn.Module, span: Span) -> Span:
    """Returns the span of inputs from which a span of a layer's outputs is computed.

    It may extend beyond the ends of the input, into the padding. The inputs that are reflected by reflection padding
    must also be within the span.

    Args:
        layer: a convolution, a pointwise layer, a sequence of layers, or a layer with a method `input_span`.
        span: span of outputs.
    """
    first, last = span
    if isinstance(layer, nn.Sequential):
        for part in reversed(layer):
            span = input_span(part, span)
        return span
    if isinstance(layer, nn.ConvTranspose1d):  # output t sums the inputs i with 0 <= t + padding - i * stride < size
        (size,), (stride,), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
        return -((size - 1 - first - padding) // stride), (last + padding) // stride
    if isinstance(layer, nn.Conv1d):
        (size,), (dilation,), padding = layer.kernel_size, layer.dilation, int(layer.padding[0])
        return first - padding, last - padding + (size - 1) * dilation
    if isinstance(layer, POINTWISE):
        return span
    return layer.input_span(span)  # type: ignore[operator]  # a method of our own layers


def upsample_in_pieces(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Computes a generator's layers stage by stage, each in pieces that fit in the CPU's caches.

    Args:
        layers: layers from mels to audio. A stage starts with each transposed convolution.
        x: input `[B, C, frames]`.

    Returns:
        The output of the layers, up to rounding.
    """
    ups = {number: layer for number, layer in enumerate(layers) if isinstance(layer, nn.ConvTranspose1d)}
    bounds = [*ups, len(layers)]
    x = layers[: bounds[0]](x)
    for (start, up), end in zip(ups.items(), bounds[1:], strict=True):
        size = VALUES_AT_ONCE * torch.get_num_threads() // up.out_channels
        x = apply_in_pieces(layers[start:end], x, rate=up.stride[0], size=size)
    return x


def apply_in_pieces(layers: nn.Sequential, x: Tensor, *, rate: int, size: int) -> Tensor:
    """Applies layers to `[B, C, T]` in pieces, each computed from all the inputs that it depends on.

    Args:
        layers: layers that `input_span` supports.
        x: input.
        rate: factor by which the layers lengthen their input.
        size: maximum length of a piece in output samples. It should be much longer than the layers' context.
    """
    length, pieces = x.shape[2] * rate, list[Tensor]()
    size = -(-length // -(-length // size))  # pieces of nearly equal length
    for start in range(0, length, size):
        end = min(start + size, length)
        first, last = input_span(layers, (start, end - 1))
        first = max(first, 0)
        made = layers(x[..., first : last + 1])[..., start - first * rate : end - first * rate]
        pieces.append(made.transpose(1, 2))
    return torch.cat(pieces, dim=1).transpose(1, 2)  # channels stay innermost in memory
