"""1-D convolutions with the parameters and results of torch's, which are faster for inference on a CPU.

For inference on a CPU, signals `[B, C, T]` are processed as images `[B, C, 1, T]` with the channels innermost in
memory, the layout of oneDNN's fastest kernels. Two alternatives were measured and are not faster: transposed
convolutions computed as plain ones with more channels, and activations and sums fused into the convolutions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad


def is_cpu_inference(x: Tensor) -> bool:
    """Returns whether `x` is on the CPU, gradients are disabled, and the caller is not being compiled."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def as_image(x: Tensor) -> Tensor:
    """Returns `[B, C, T]` as `[B, C, 1, T]` in `channels_last` memory format, copied if it has another layout.

    Convolutions and pointwise layers keep this layout, so a sequence of layers copies at most once.
    """
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class Convolution(nn.Conv1d):
    """`nn.Conv1d` with a faster forward pass in inference on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not is_cpu_inference(x):
            return super().forward(x)
        x, padding, (dilation,) = as_image(x), int(self.padding[0]), self.dilation
        if self.padding_mode != "zeros":
            x, padding = pad(x, (padding, padding, 0, 0), mode=self.padding_mode), 0
        weight = self.weight.unsqueeze(2)
        return conv2d(x, weight, self.bias, padding=(0, padding), dilation=(1, dilation)).squeeze(2)


class TransposedConvolution(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with a faster forward pass in inference on a CPU."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not is_cpu_inference(x):
            return super().forward(x, output_size)
        stride, padding, extra = (1, *self.stride), (0, int(self.padding[0])), (0, *self.output_padding)
        weight = self.weight.unsqueeze(2)
        return conv_transpose2d(as_image(x), weight, self.bias, stride, padding, extra).squeeze(2)


def same_convolution(
    inputs: int,
    outputs: int,
    size: int,
    *,
    dilation: int = 1,
    bias: bool = True,
    mode: Literal["zeros", "reflect"] = "zeros",
) -> nn.Conv1d:
    """Builds a convolution of odd kernel size whose output has the length of its input."""
    padding = dilation * (size // 2)
    return Convolution(inputs, outputs, size, dilation=dilation, padding=padding, padding_mode=mode, bias=bias)
