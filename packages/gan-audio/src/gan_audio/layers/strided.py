"""Strided convolutions of WaveGAN and SpecGAN, padded as TensorFlow's `SAME`, for sequences and images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from gan_core.nn.blocks import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED
from gan_core.nn.initialization import WEIGHTED

Kernel = Annotated[int, Field(ge=4, le=1024)]
"""Filter size; at least the largest stride."""
Upsampling = Literal["zeros", "nearest"]
"""Method of up-sampling: transposed convolutions ("zeros"), or repeated values followed by a convolution ("nearest").

Both are in the paper (arXiv:1802.04208, appendix A.2). Transposed convolutions produce noise with a pitch, which the
other method reduces.
"""


def initialize(module: nn.Module) -> None:
    """Initialises a layer with TensorFlow's defaults, as in the published code: Glorot uniform weights, zero biases.

    Class embeddings are drawn from N(0, 0.02), because with larger ones the discriminator's logits initially depend
    only on the class.
    """
    if isinstance(module, WEIGHTED):
        nn.init.xavier_uniform_(module.get_parameter("weight"))
        if module.bias is not None:
            nn.init.zeros_(module.get_parameter("bias"))
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)


def batch_norm_if(enabled: bool, channels: int, *, ndim: int = 1, tracked: bool = True) -> nn.Module:
    """Returns batch normalisation with TensorFlow's settings if `enabled`, otherwise an identity.

    Args:
        enabled: whether to normalise.
        channels: channels of the input.
        ndim: 1 for sequences, 2 for images.
        tracked: whether to keep running statistics. Without them, the layer also uses the statistics of the batch in
            evaluation mode, as in the published discriminators.
    """
    if not enabled:
        return nn.Identity()
    return BATCH_NORMS[ndim](channels, eps=1e-3, momentum=0.01, track_running_stats=tracked)


class SameConvolution(nn.Module):
    """Convolution with TensorFlow's `SAME` padding, which divides every side by the stride.

    Maps `[B, inputs, …]`, with sides that are multiples of the stride, to `[B, outputs, …]`. `SAME` adds
    `kernel - stride` zeros, with the smaller half in front. If that number is odd, this layer pads one additional
    stride in front and drops the first output, which is faster than separate padding.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: filter size along every axis, at least the stride.
        stride: stride along every axis.
        ndim: 1 for sequences, 2 for images.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, ndim: int = 1):
        super().__init__()
        front, odd = divmod(kernel - stride, 2)
        self.kept = (..., *[slice(odd, None)] * ndim)
        self.conv = CONVOLUTIONS[ndim](inputs, outputs, kernel, stride, front + odd * stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[self.kept]


class SameTransposed(nn.Module):
    """Transposed convolution that multiplies every side by the stride: the adjoint of `SameConvolution`.

    Maps `[B, inputs, …]` to `[B, outputs, …]`.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: filter size along every axis, at least the stride.
        stride: stride along every axis.
        ndim: 1 for sequences, 2 for images.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, ndim: int = 1):
        super().__init__()
        front, odd = divmod(kernel - stride, 2)
        self.kept = (..., *[slice(-odd or None)] * ndim)
        self.conv = TRANSPOSED[ndim](inputs, outputs, kernel, stride, front)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[self.kept]


def upsampler(
    inputs: int, outputs: int, kernel: int, *, stride: int, upsampling: Upsampling, ndim: int = 1
) -> nn.Module:
    """Returns a layer from `[B, inputs, …]` to `[B, outputs, …]` that multiplies every side by its stride."""
    if upsampling == "zeros":
        return SameTransposed(inputs, outputs, kernel, stride=stride, ndim=ndim)
    repeated = nn.Upsample(scale_factor=stride, mode="nearest")
    return nn.Sequential(repeated, SameConvolution(inputs, outputs, kernel, ndim=ndim))


class Up(nn.Sequential):
    """Up-sampling by the stride, optional batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int,
        upsampling: Upsampling,
        batch_norm: bool,
        ndim: int = 1,
    ):
        layer = upsampler(inputs, outputs, kernel, stride=stride, upsampling=upsampling, ndim=ndim)
        super().__init__(layer, batch_norm_if(batch_norm, outputs, ndim=ndim), nn.ReLU())


class Down(nn.Sequential):
    """Down-sampling by the stride, optional batch normalisation, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, batch_norm: bool, ndim: int = 1):
        layer = SameConvolution(inputs, outputs, kernel, stride=stride, ndim=ndim)
        super().__init__(layer, batch_norm_if(batch_norm, outputs, ndim=ndim, tracked=False), nn.LeakyReLU(0.2))
