"""Importers of published checkpoints, by system and network: their keys to ours, our settings from their shapes."""

from __future__ import annotations

from gan_core.reference import Published, StateDict, renamed
from gan_image.systems import convolutional, residual


def dcgan_generator(state: StateDict) -> Published:
    """github.com/pytorch/examples, dcgan/main.py, Generator; its z is `[B, nz, 1, 1]`."""
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
    """github.com/pytorch/examples, dcgan/main.py, Discriminator; its output is the sigmoid of these logits."""
    width, channels = state["main.0.weight"].shape[:2]
    stages = _stages(state)
    names = {"main.0": "features.0.0", f"main.{3 * stages - 1}": "judge"}
    for stage in range(1, stages):
        names |= {f"main.{3 * stage - 1 + part}": f"features.{stage}.{part}" for part in (0, 1)}
    settings = {"image_size": 4 << stages, "channels": channels, "width": width}
    arguments = {"ndf": width, "nc": channels}
    return Published(convolutional.Discriminator, settings, renamed(state, names), arguments)


def _stages(state: StateDict) -> int:
    """Halvings between the image and 4 pixels: the convolutions but one."""
    return sum(tensor.ndim == 4 for tensor in state.values()) - 1


def residual_discriminator(state: StateDict) -> Published:
    """github.com/kwotsin/mimicry, nets/wgan_gp/wgan_gp_32.py; its logits are `[B, 1]`."""
    width, channels = state["block1.c1.weight"].shape[:2]
    names = {f"block{n}.{theirs}": f"blocks.{n - 1}.{ours}" for n in range(1, 5) for theirs, ours in _BLOCK.items()}
    settings = {"image_size": 32, "channels": channels, "width": width}
    return Published(residual.Discriminator, settings, renamed(state, names | {"l5": "judge"}), {"ndf": width})


def residual_generator(state: StateDict) -> Published:
    """github.com/kwotsin/mimicry, nets/sngan/sngan_32.py (WGAN-GP's generator is the same)."""
    latent_dim = state["l1.weight"].shape[1]
    channels, width = state["c5.weight"].shape[:2]
    names = {f"block{n}.{theirs}": f"blocks.{n - 2}.{ours}" for n in range(2, 5) for theirs, ours in _BLOCK.items()}
    names |= {"l1": "project", "b5": "to_image.0", "c5": "to_image.2"}
    settings = {"image_size": 32, "channels": channels, "latent_dim": latent_dim, "width": width}
    return Published(residual.Generator, settings, renamed(state, names), {"nz": latent_dim, "ngf": width})


_BLOCK = {"c1": "conv1", "c2": "conv2", "b1": "norm1", "b2": "norm2", "c_sc": "shortcut"}

IMPORTERS = {
    "dcgan/generator": dcgan_generator,
    "dcgan/discriminator": dcgan_discriminator,
    "wgan-gp/generator": residual_generator,
    "wgan-gp/discriminator": residual_discriminator,
}
