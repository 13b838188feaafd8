"""Copies of trained networks for inference: without weight normalisation, and with minimal filters on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import parametrize, skip_init

from gan_audio.layers.blocks import NORMALISED
from gan_audio.layers.convolution import Convolution
from gan_audio.layers.filtering import MinimalConvolution, is_faster_filtered


def fold(network: nn.Module) -> nn.Module:
    """Removes weight normalisation in place: convolutions are replaced by plain ones with the effective weights.

    Unlike with `torch.nn.utils.parametrize.remove_parametrizations`, which changes the class that a layer shares with
    its copies, copies of the network are not affected.
    """
    folded: dict[nn.Module, nn.Module] = {}  # a layer may be used in several places
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if isinstance(layer, NORMALISED) and parametrize.is_parametrized(layer):
            if layer not in folded:
                folded[layer] = plain_copy(layer)
            network.set_submodule(name, folded[layer])
    return network


def inference_copy(network: nn.Module, *, filtering: bool) -> nn.Module:
    """Returns an independent copy of a network without weight normalisation, with the same outputs.

    The copy is not compiled, even if the network is. Forward hooks of convolutions are not copied.

    Args:
        network: network to copy; it is not changed.
        filtering: whether convolutions are replaced by minimal filters if these are faster on a CPU.
    """
    copies: dict[int, nn.Module] = {}
    for layer in network.modules():
        if isinstance(layer, NORMALISED):
            if filtering and isinstance(layer, Convolution) and is_faster_filtered(layer):
                copies[id(layer)] = MinimalConvolution(layer)
            else:
                copies[id(layer)] = plain_copy(layer)
    return deepcopy(network, copies)  # copies all other layers, and takes these


def plain_copy(layer: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d) -> nn.Module:
    """Returns a convolution with the effective weights of another one, without parametrizations."""
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    settings = {name: getattr(layer, name) for name in names}
    if isinstance(layer, nn.ConvTranspose1d):
        settings["output_padding"] = layer.output_padding
    build: Callable[..., nn.Module] = skip_init  # draws no random numbers
    copy = build(
        parametrize.type_before_parametrizations(layer),
        layer.in_channels,
        layer.out_channels,
        bias=layer.bias is not None,
        **settings,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    with torch.no_grad():
        copy.weight.copy_(layer.weight)  # type: ignore[operator]
        if layer.bias is not None:
            copy.bias.copy_(layer.bias)  # type: ignore[operator]
    return copy.train(layer.training)
