"""Importers of published checkpoints of image systems; see `gan_core.models.reference`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from gan_core.models.reference import (
    Published,
    StateDict,
    biggan_batch_norms,
    norm_after,
    renamed,
    spectral_norms,
    without_instance_statistics,
)
from gan_image.systems import convolutional, information, progan, residual, translation

EMPTY: Mapping[str, str] = MappingProxyType({})
SN_EPS = 1e-8
"""Smallest divisor of spectral normalization in BigGAN-PyTorch's script for SAGAN.

It cannot be inferred from the shapes, and the results do not depend on it.
"""


def dcgan_generator(state: StateDict) -> Published:
    """Imports Generator of dcgan/main.py, github.com/pytorch/examples; its z is `[B, nz, 1, 1]`."""
    latent_dim, stages = len(state["main.0.weight"]), _stages(state)
    last = state[f"main.{3 * stages}.weight"]
    width, channels = last.shape[:2]
    names = {"main.0": "project.0", "main.1": "project.1", f"main.{3 * stages}": "to_image.0"}
    for stage in range(1, stages):
        names |= {f"main.{3 * stage + part}": f"up.{stage - 1}.{part}" for part in (0, 1)}
    settings = {"image_size": 4 << stages, "channels": channels, "latent_dim": latent_dim, "width": width}
    arguments = {"nz": latent_dim, "ngf": width, "nc": channels}
    return Published(convolutional.Generator, settings, renamed(state, names), arguments)


def dcgan_discriminator(state: StateDict) -> Published:
    """Imports Discriminator of dcgan/main.py, github.com/pytorch/examples; it returns the sigmoid of our logits."""
    width, channels = state["main.0.weight"].shape[:2]
    stages = _stages(state)
    names = {"main.0": "features.0.0", f"main.{3 * stages - 1}": "judge"}
    for stage in range(1, stages):
        names |= {f"main.{3 * stage - 1 + part}": f"features.{stage}.{part}" for part in (0, 1)}
    settings = {"image_size": 4 << stages, "channels": channels, "width": width}
    arguments = {"ndf": width, "nc": channels}
    return Published(convolutional.Discriminator, settings, renamed(state, names), arguments)


def _stages(state: StateDict) -> int:
    """Returns the number of halvings from the image to 4 pixels, which is one less than the number of convolutions."""
    return sum(tensor.ndim == 4 for tensor in state.values()) - 1


def residual_generator(state: StateDict) -> Published:
    """Imports the generators of nets/sngan/sngan_*.py and nets/cgan_pd/cgan_pd_32.py, github.com/kwotsin/mimicry."""
    return _residual_generator(state, "weight")


def sagan_generator(state: StateDict) -> Published:
    """Imports the generator of a SAGAN.

    Two sources are supported: nets/sagan/sagan_*.py of github.com/kwotsin/mimicry, and Generator of BigGAN.py with the
    settings of SAGAN of github.com/ajbrock/BigGAN-PyTorch.
    """
    if "linear.weight" in state:
        return _biggan_generator(state)
    state = spectral_norms(state, "sn_u")
    outputs = [len(state[f"block{n}.c2.weight_orig"]) for n in range(2, 2 + _count_blocks(state))]
    return _residual_generator(state, "weight_orig", _attended(state, outputs))


def _residual_generator(state: StateDict, kind: str, attended: int | None = None) -> Published:
    """Imports a generator of Mimicry.

    Args:
        state: weights under their published names.
        kind: name of the weights in the layers, `weight` or `weight_orig`.
        attended: index of the block that attention follows; None without attention.
    """
    latent_dim, blocks = state[f"l1.{kind}"].shape[1], _count_blocks(state)
    end = blocks + 2
    width = state[f"block2.c1.{kind}"].shape[1]
    channels, last = state[f"c{end}.{kind}"].shape[:2]
    start = {16: 4, 36: 6}[len(state[f"l1.{kind}"]) // width]
    names = _blocks([f"block{n}" for n in range(2, end)], attended)
    names |= {"l1": "project", f"b{end}": "to_image.0", f"c{end}": "to_image.2"}
    settings = {
        "image_size": start << blocks,
        "channels": channels,
        "latent_dim": latent_dim,
        "width": width,
        "tapered": last != width,
    }
    if attended is not None:
        settings |= {"spectral_generator": True, "attention": start << attended + 1}
    arguments = {"nz": latent_dim, "ngf": width}
    classes = state.get("block2.b1.embed.weight")
    if classes is not None:
        settings["num_classes"] = arguments["num_classes"] = len(classes)
    return Published(residual.Generator, settings, renamed(state, names), arguments)


def wgan_gp_discriminator(state: StateDict) -> Published:
    """Imports the discriminator of nets/wgan_gp/wgan_gp_32.py, github.com/kwotsin/mimicry; its logits are `[B, 1]`."""
    return _residual_discriminator(residual.Discriminator, state, spectral=False, pool="mean")


def sngan_discriminator(state: StateDict) -> Published:
    """Imports the discriminators of nets/sngan/sngan_*.py, github.com/kwotsin/mimicry; their logits are `[B, 1]`."""
    return _residual_discriminator(residual.Discriminator, state)


def cgan_pd_discriminator(state: StateDict) -> Published:
    """Imports the discriminator of nets/cgan_pd/cgan_pd_32.py, github.com/kwotsin/mimicry; its logits are `[B, 1]`."""
    classes = len(state["l_y.weight"])
    return _residual_discriminator(residual.Discriminator, state, {"l_y": "embedding"}, num_classes=classes)


def sagan_discriminator(state: StateDict) -> Published:
    """Imports the discriminator of a SAGAN; the sources are those of `sagan_generator`."""
    if "linear.weight" in state:
        return _biggan_discriminator(state)
    state = spectral_norms(state, "sn_u")
    outputs = [len(state[f"block{n}.c2.weight_orig"]) for n in range(1, 1 + _count_blocks(state))]
    classes = len(state["l_y.weight_orig"])
    return _residual_discriminator(
        residual.Discriminator, state, {"l_y": "embedding"}, attended=_attended(state, outputs), num_classes=classes
    )


def ssgan_discriminator(state: StateDict) -> Published:
    """Imports the discriminators of nets/ssgan/ssgan_*.py, github.com/kwotsin/mimicry.

    They return logits `[B, 1]` and logits of the rotation `[B, 4]`.
    """
    return _residual_discriminator(residual.RotationDiscriminator, state, {"l_y": "rotation"})


def infomax_discriminator(state: StateDict) -> Published:
    """Imports the discriminators of nets/infomax_gan/infomax_gan_*.py, github.com/kwotsin/mimicry."""
    local = len({key.split(".")[1] for key in state if key.startswith("local_feat_blocks.")})
    theirs = {"local_feat_blocks.0": "block1"} | {f"local_feat_blocks.{n}": f"block{n + 1}" for n in range(1, local)}
    theirs |= {"global_feat_blocks.0": f"block{local + 1}", "linear": "l5"}
    names = {
        f"{part}_nrkhs_{step}": f"{ours}.{layer}"
        for part, ours in (("local", "local"), ("global", "whole"))
        for step, layer in (("a", "first"), ("b", "second"), ("sc", "shortcut"))
    }
    space_dim = len(state["local_nrkhs_b.weight_orig"])
    published = _residual_discriminator(
        residual.InfoMaxDiscriminator, renamed(state, theirs), names, space_dim=space_dim
    )
    return replace(published, arguments={**published.arguments, "nrkhs": space_dim})


def infogan_generator(state: StateDict) -> Published:
    """Imports Generator of models/mnist_model.py, github.com/Natsu6767/InfoGAN-PyTorch; its images are in [0, 1]."""
    width, channels = state["tconv4.weight"].shape[:2]
    size = state["tconv2.weight"].shape[2]
    names = {f"tconv{n}": f"main.{3 * (n - 1)}" for n in range(1, 5)}
    names |= {f"bn{n}": f"main.{3 * (n - 1) + 1}" for n in range(1, 4)}
    codes = 12  # 10 categories and 2 continuous codes on MNIST; only the sum with the noise follows from the shapes
    settings = {
        "image_size": 4 * size,
        "channels": channels,
        "width": width,
        "noise": len(state["tconv1.weight"]) - codes,
    }
    return Published(information.Generator, settings, renamed(state, names), {"dataset": "MNIST"})


def infogan_discriminator(state: StateDict) -> Published:
    """Imports Discriminator, DHead and QHead of models/mnist_model.py, github.com/Natsu6767/InfoGAN-PyTorch.

    Their keys have the prefixes `discriminator`, `netD` and `netQ`.
    """
    width, channels = state["discriminator.conv1.weight"].shape[:2]
    size = state["discriminator.conv3.weight"].shape[2]
    trunk = {"conv1": 0, "conv2": 2, "bn2": 3, "conv3": 5, "bn3": 6}
    names = {f"discriminator.{theirs}": f"features.{ours}" for theirs, ours in trunk.items()}
    names |= {"netD.conv": "judge", "netQ.conv1": "posterior.main.0", "netQ.bn1": "posterior.main.1"}
    heads = {"disc": "category", "mu": "mean", "var": "log_variance"}
    names |= {f"netQ.conv_{theirs}": f"posterior.{ours}" for theirs, ours in heads.items()}
    categories, continuous = (len(state[f"netQ.conv_{head}.weight"]) for head in ("disc", "mu"))
    settings = {
        "image_size": 4 * size,
        "channels": channels,
        "width": width,
        "categories": categories,
        "continuous": continuous,
    }
    arguments = {"dataset": "MNIST", "key_prefixes": "discriminator., netD., netQ."}
    return Published(information.Discriminator, settings, renamed(state, names), arguments)


def _residual_discriminator(
    network: Callable[..., nn.Module],
    state: StateDict,
    names: Mapping[str, str] = EMPTY,
    *,
    attended: int | None = None,
    **settings: Any,
) -> Published:
    """Imports a discriminator of Mimicry: residual blocks, and a linear layer `l5`, `l6` or `l7`.

    Args:
        network: class of our network.
        state: weights under their published names.
        names: our names of the system's other layers, by published names.
        attended: index of the block that attention follows; None without attention.
        settings: further settings of our network.
    """
    state = spectral_norms(state, "sn_u")
    kind = "weight_orig" if "block1.c1.weight_orig" in state else "weight"
    blocks = _count_blocks(state)
    (judge,) = (key for key in ("l5", "l6", "l7") if f"{key}.{kind}" in state)
    first, channels = state[f"block1.c1.{kind}"].shape[:2]
    width = state[f"{judge}.{kind}"].shape[1]
    shapes = {
        "image_size": {4: 32, 5: 64, 6: 128}[blocks],
        "channels": channels,
        "width": width,
        "tapered": first != width,
    }
    if attended is not None:
        shapes["attention"] = shapes["image_size"] >> attended + 1
    parts = _blocks([f"block{n + 1}" for n in range(blocks)], attended)
    arguments: dict[str, Any] = {"ndf": width}
    arguments |= {key: value for key, value in settings.items() if key == "num_classes"}
    return Published(network, shapes | settings, renamed(state, {**parts, judge: "judge", **names}), arguments)


def _biggan_generator(state: StateDict) -> Published:
    """Imports a generator of BigGAN-PyTorch without `G_shared` and `hier`, where z enters only the first layer."""
    blocks, attended = _count_blocks(state), _place_of_gamma(state)
    width, latent_dim = len(state["linear.weight"]) // 16, state["linear.weight"].shape[1]
    classes, image_size, attention = len(state["blocks.0.0.bn1.gain.weight"]), 4 << blocks, 8 << attended
    names = _blocks([f"blocks.{n}.0" for n in range(blocks)], attended, f"blocks.{attended}.1")
    names |= {"linear": "project", "output_layer": "to_image"}
    settings = {
        "image_size": image_size,
        "channels": len(state["output_layer.2.weight"]),
        "latent_dim": latent_dim,
        "width": width,
        "tapered": True,
        "num_classes": classes,
        "spectral_generator": True,
        "attention": attention,
        "layout": "biggan",
    }
    arguments = {
        "G_ch": width // 16,
        "dim_z": latent_dim,
        "dim_z_effective": latent_dim,
        "resolution": image_size,
        "G_attn": str(attention),
        "n_classes": classes,
        "G_shared": False,
        "hier": False,
        "SN_eps": SN_EPS,
    }
    weights = renamed(biggan_batch_norms(spectral_norms(state, "u0", iterates=True)), names)
    return Published(residual.Generator, settings, weights, arguments)


def _biggan_discriminator(state: StateDict) -> Published:
    """Imports a discriminator of BigGAN-PyTorch for 64 pixels or more, where all blocks but the last halve the size."""
    blocks, attended = _count_blocks(state), _place_of_gamma(state)
    first, channels = state["blocks.0.0.conv1.weight"].shape[:2]
    classes, width = state["embed.weight"].shape
    image_size = 2 << blocks
    attention = image_size >> min(attended + 1, blocks - 1)
    names = _blocks([f"blocks.{n}.0" for n in range(blocks)], attended, f"blocks.{attended}.1")
    names |= {"linear": "judge", "embed": "embedding"}
    settings = {
        "image_size": image_size,
        "channels": channels,
        "width": width,
        "tapered": True,
        "num_classes": classes,
        "attention": attention,
        "layout": "biggan",
    }
    arguments = {
        "D_ch": first,
        "resolution": image_size,
        "D_attn": str(attention),
        "n_classes": classes,
        "SN_eps": SN_EPS,
    }
    return Published(
        residual.Discriminator, settings, renamed(spectral_norms(state, "u0", iterates=True), names), arguments
    )


def _count_blocks(state: StateDict) -> int:
    """Returns the number of residual blocks, counted by their first convolutions."""
    return sum(key.endswith((".c1.bias", ".conv1.bias")) for key in state)


def _attended(state: StateDict, outputs: list[int]) -> int:
    """Returns the index of the block that Mimicry's attention follows, inferred from the channels.

    If all blocks have the same number of channels, it is the second block.

    Args:
        state: weights in torch's spectral normalization.
        outputs: output channels of the blocks.
    """
    return 1 if len(set(outputs)) == 1 else outputs.index(len(state["attn_block.o.weight_orig"]))


def _place_of_gamma(state: StateDict) -> int:
    """Returns the index of the block that BigGAN-PyTorch's attention follows."""
    (place,) = (int(key.split(".")[1]) for key in state if key.endswith(".gamma"))
    return place


def _blocks(theirs: Sequence[str], attended: int | None = None, attention: str = "attn_block") -> dict[str, str]:
    """Returns our names of the layers of residual blocks and of attention, by the names in Mimicry and BigGAN-PyTorch.

    Args:
        theirs: published names of the blocks.
        attended: index of the block that attention follows; None without attention.
        attention: published name of the attention.
    """
    parts = {"c1": "conv1", "c2": "conv2", "c_sc": "shortcut"}
    parts |= {"conv1": "conv1", "conv2": "conv2", "conv_sc": "shortcut", "bn1": "norm1", "bn2": "norm2"}
    parts |= {f"b{n}": f"norm{n}" for n in (1, 2)}
    parts |= {
        f"b{n}.{part}": f"norm{n}.{ours}" for n in (1, 2) for part, ours in (("bn", "norm"), ("embed", "embedding"))
    }
    ours = [f"blocks.{n + (attended is not None and n > attended)}" for n in range(len(theirs))]
    names = {
        f"{old}.{part}": f"{new}.{name}" for old, new in zip(theirs, ours, strict=True) for part, name in parts.items()
    }
    if attended is None:
        return names
    layers = {"gamma": "gamma", "theta": "query", "phi": "key", "g": "value", "o": "output"}
    return names | {f"{attention}.{part}": f"blocks.{attended + 1}.{name}" for part, name in layers.items()}


def resnet_translator(state: StateDict) -> Published:
    """Imports ResnetGenerator of models/networks.py, github.com/junyanz/pytorch-CycleGAN-and-pix2pix."""
    norm, state = norm_after(state, "model.1"), without_instance_statistics(state)
    width, in_channels = state["model.1.weight"].shape[:2]
    convolutions = [key for key, tensor in state.items() if ".conv_block." in key and tensor.ndim == 4]
    blocks, dropout = len(convolutions) // 2, any(key.endswith(".conv_block.6.weight") for key in convolutions)
    after = 10 + blocks
    layers = {1: "enter", 4: "down.0", 7: "down.1", after: "up.0", after + 3: "up.1"}
    names = {f"model.{theirs + part}": f"{ours}.{part}" for theirs, ours in layers.items() for part in (0, 1)}
    second = 6 if dropout else 5
    residual_parts = {1: "conv1", 2: "norm1", second: "conv2", second + 1: "norm2"}
    names |= {
        f"model.{10 + block}.conv_block.{theirs}": f"blocks.{block}.{ours}"
        for block in range(blocks)
        for theirs, ours in residual_parts.items()
    }
    names[f"model.{after + 7}"] = "leave.0"
    out_channels = len(state[f"model.{after + 7}.weight"])
    settings = {
        "source_channels": in_channels,
        "target_channels": out_channels,
        "width": width,
        "blocks": blocks,
        "norm": norm,
        "dropout": 0.5 if dropout else 0.0,
    }
    arguments = {
        "input_nc": in_channels,
        "output_nc": out_channels,
        "ngf": width,
        "norm": norm,
        "n_blocks": blocks,
        "use_dropout": dropout,
        "padding_type": "reflect",
    }
    back = {"b_to_a": {"source_channels": out_channels, "target_channels": in_channels}}
    rules = {} if in_channels == out_channels else {"identity_weight": 0.0}
    return Published(
        translation.SourceToTarget,
        settings,
        renamed(state, names),
        arguments,
        game=rules,
        place="a_to_b",
        elsewhere=back,
    )


def unet_translator(state: StateDict, use_dropout: bool = True) -> Published:
    """Imports UnetGenerator of models/networks.py, github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    Whether the network has dropout is not stored in the checkpoint; pix2pix is trained with it.
    """
    norm, state = norm_after(state, "model.model.0"), without_instance_statistics(state)
    width, in_channels = state["model.model.0.weight"].shape[:2]
    out_channels = state["model.model.3.weight"].shape[1]
    names, level, prefix = {"model.model.0": "down.0.0", "model.model.3": "up.0.1"}, 0, "model.model.1.model"
    while f"{prefix}.1.weight" in state:
        level += 1
        innermost = f"{prefix}.3.weight" in state
        up = 3 if innermost else 5
        names |= {
            f"{prefix}.1": f"down.{level}.1",
            f"{prefix}.{up}": f"up.{level}.1",
            f"{prefix}.{up + 1}": f"up.{level}.2",
        }
        if innermost:
            break
        names[f"{prefix}.2"] = f"down.{level}.2"
        prefix += ".3.model"
    settings = {
        "source_channels": in_channels,
        "target_channels": out_channels,
        "width": width,
        "depth": level + 1,
        "norm": norm,
        "dropout": 0.5 if use_dropout else 0.0,
    }
    arguments = {"input_nc": in_channels, "output_nc": out_channels, "ngf": width, "norm": norm, "num_downs": level + 1}
    return Published(translation.PairTranslator, settings, renamed(state, names), arguments, place="generator")


def target_discriminator(state: StateDict) -> Published:
    """Imports NLayerDiscriminator (images) of models/networks.py, github.com/junyanz/pytorch-CycleGAN-and-pix2pix."""
    channels, settings, weights, arguments = _patchgan(state)
    network, place = translation.TargetDiscriminator, "discriminator_b"
    other = {"discriminator_a": {"source_channels": channels}}
    own = {"target_channels": channels, **settings}
    return Published(network, own, weights, arguments, place=place, elsewhere=other)


def pair_discriminator(state: StateDict) -> Published:
    """Imports NLayerDiscriminator (pairs) of models/networks.py, github.com/junyanz/pytorch-CycleGAN-and-pix2pix."""
    channels, settings, weights, arguments = _patchgan(state)
    network, place = translation.PairDiscriminator, "discriminator"
    return Published(network, _pair(channels) | settings, weights, arguments, place=place)


def _patchgan(state: StateDict) -> tuple[int, dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Returns the input channels, our settings, the weights under our names, and the published arguments."""
    norm, state = norm_after(state, "model.2"), without_instance_statistics(state)
    width, channels = state["model.0.weight"].shape[:2]
    *places, last = sorted(int(key.split(".")[1]) for key, tensor in state.items() if tensor.ndim == 4)
    layers = len(places) - 1
    names = {f"model.{last}": "judge"}
    for number, place in enumerate(places):
        names |= {f"model.{place + part}": f"features.{number}.{part}" for part in (0, 1)}
    arguments = {"input_nc": channels, "ndf": width, "n_layers": layers, "norm": norm}
    return channels, {"width": width, "layers": layers, "norm": norm}, renamed(state, names), arguments


def pixel_discriminator(state: StateDict) -> Published:
    """Imports PixelDiscriminator (pairs) of models/networks.py, github.com/junyanz/pytorch-CycleGAN-and-pix2pix."""
    norm, state = norm_after(state, "net.2"), without_instance_statistics(state)
    width, channels = state["net.0.weight"].shape[:2]
    names = {"net.0": "features.0.0", "net.2": "features.1.0", "net.3": "features.1.1", "net.5": "judge"}
    settings = {"width": width, "layers": 0, "norm": norm}
    arguments = {"input_nc": channels, "ndf": width, "norm": norm}
    network = translation.PairDiscriminator
    return Published(network, _pair(channels) | settings, renamed(state, names), arguments, place="discriminator")


def _pair(channels: int) -> dict[str, int]:
    """Splits a number of channels into source and target; the target has 3 if the number allows it, otherwise 1."""
    target = 3 if channels > 3 else 1
    return {"source_channels": channels - target, "target_channels": target}


def progan_generator(state: StateDict, alpha: float = 0.0, alphas: Sequence[float] = ()) -> Published:
    """Imports GNet of models/networks/progressive_conv_net.py, github.com/facebookresearch/pytorch_GAN_zoo.

    `alpha`, the weight of the smaller image, is not stored in the checkpoint but set at run time. The imported network
    is fully grown; `network.moment.progress` can be set to fade out the last block.
    """
    widths, scales = _widths_of_scales(state, "groupScale0.0")
    channels, latent_dim = len(state["toRGBLayers.0.module.weight"]), state["formatLayer.module.weight"].shape[1]
    names = {"formatLayer.module": "blocks.0.1", "groupScale0.0.module": "blocks.0.5"}
    for scale in range(scales + 1):
        names[f"toRGBLayers.{scale}.module"] = f"rgb.{scale}"
    for scale in range(scales):
        names |= {f"scaleLayers.{scale}.{part}.module": f"blocks.{scale + 1}.{1 + 3 * part}" for part in (0, 1)}
    gains = dict.fromkeys([f"rgb.{scale}" for scale in range(scales + 1)], 1.0) | {"blocks.0.1": math.sqrt(2) / 4}
    settings = {"image_size": 4 << scales, "channels": channels, "latent_dim": latent_dim, "widths": widths}
    arguments = {"dimLatent": latent_dim, "dimOutput": channels, "normalization": True, **_scale_arguments(widths)}
    return Published(progan.Generator, settings, _equalized(renamed(state, names), gains), arguments)


def progan_discriminator(state: StateDict, alpha: float = 0.0, alphas: Sequence[float] = ()) -> Published:
    """Imports DNet of models/networks/progressive_conv_net.py, github.com/facebookresearch/pytorch_GAN_zoo.

    For `alpha`, see `progan_generator`; the published code ignores it if only one scale is added. The published
    standard deviation is unbiased, and its groups are consecutive samples; for batches of 4, it equals ours times
    √(4/3).
    """
    widths, scales = _widths_of_scales(state, "groupScaleZero.0")
    channels = state["fromRGBLayers.0.module.weight"].shape[1]
    names = {
        "groupScaleZero.0.module": "blocks.0.1",
        "groupScaleZero.1.module": "blocks.0.4",
        "decisionLayer.module": "judge",
    }
    for scale in range(scales + 1):
        names[f"fromRGBLayers.{scale}.module"] = f"rgb.{scale}.0"
    for scale in range(scales):
        names |= {f"scaleLayers.{scale}.{part}.module": f"blocks.{scale + 1}.{2 * part}" for part in (0, 1)}
    factors = torch.ones(widths[0] + 1, 1, 1)
    factors[-1] = math.sqrt(4 / 3)
    weights = renamed(state, names)
    weights["blocks.0.1.weight"] = weights["blocks.0.1.weight"] * factors
    settings = {"image_size": 4 << scales, "channels": channels, "widths": widths}
    arguments = {"dimInput": channels, "miniBatchNormalization": True, **_scale_arguments(widths)}
    network, weights = progan.Discriminator, _equalized(weights, {"judge": 1.0})
    return Published(network, settings, weights, arguments, place="discriminator")


def _widths_of_scales(state: StateDict, first: str) -> tuple[tuple[int, ...], int]:
    """Returns the channels at 4, 8, … pixels, and the number of scales above 4 pixels.

    Args:
        state: weights under their published names.
        first: name of the convolution at 4 pixels.
    """
    scales = sum(key.startswith("scaleLayers.") and key.endswith(".0.module.bias") for key in state)
    layers = [first, *(f"scaleLayers.{scale}.0" for scale in range(scales))]
    return tuple(len(state[f"{layer}.module.bias"]) for layer in layers), scales


def _scale_arguments(widths: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments shared by both published networks."""
    first, *added = widths
    return {"depthScale0": first, "added_scales": added, "equalizedlR": True}


def _equalized(state: StateDict, gains: Mapping[str, float]) -> dict[str, Tensor]:
    """Converts weights and biases of equalized layers.

    The published code multiplies all of them, including biases, by √(2 / fan-in) at run time.

    Args:
        state: weights under our names.
        gains: our gains by layer, for layers whose gain is not √2.
    """
    ours = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if kind == "weight":
            ours[f"{layer}.parametrizations.weight.original"] = tensor * (math.sqrt(2) / gains.get(layer, math.sqrt(2)))
        else:
            ours[key] = tensor * math.sqrt(2 / state[f"{layer}.weight"][0].numel())
    return ours


IMPORTERS = {
    "cyclegan/resnet_generator": resnet_translator,
    "cyclegan/patchgan_discriminator": target_discriminator,
    "pix2pix/unet_generator": unet_translator,
    "pix2pix/patchgan_discriminator": pair_discriminator,
    "pix2pix/pixel_discriminator": pixel_discriminator,
    "dcgan/generator": dcgan_generator,
    "dcgan/discriminator": dcgan_discriminator,
    "wgan-gp/generator": residual_generator,
    "wgan-gp/discriminator": wgan_gp_discriminator,
    "sngan/generator": residual_generator,
    "sngan/discriminator": sngan_discriminator,
    "cgan-pd/generator": residual_generator,
    "cgan-pd/discriminator": cgan_pd_discriminator,
    "sagan/generator": sagan_generator,
    "sagan/discriminator": sagan_discriminator,
    "ssgan/generator": residual_generator,
    "ssgan/discriminator": ssgan_discriminator,
    "progan/generator": progan_generator,
    "progan/discriminator": progan_discriminator,
    "progan/gradient_penalty": progan_discriminator,
    "infogan/generator": infogan_generator,
    "infogan/discriminator_q": infogan_discriminator,
    "infomax-gan/generator": residual_generator,
    "infomax-gan/discriminator": infomax_discriminator,
}
