"""Importers of WaveGAN's and SpecGAN's published networks, which translate keys and infer settings from shapes.

The published code uses TensorFlow. Tensors are expected in torch's layouts, convolutions `[out, in, …]`, transposed
convolutions `[in, out, …]` and matrices `[out, in]`, with the names of its scopes (`upconv_0.weight`,
`bn_0.running_mean`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gan_audio.systems import specgan, wavegan
from gan_core.models.reference import Importers, Published, StateDict, renamed

PLACES = 16
"""Number of positions of the smallest features: 16 samples, or 4 frames of 4 frequencies."""
Parts = tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]
"""Our settings, the weights by our names, and the published arguments."""


def wavegan_generator(state: StateDict, *, slice_len: int | None = None) -> Published:
    """Imports `WaveGANGenerator` of github.com/chrisdonahue/wavegan, wavegan.py, whose audio is `[B, samples, nch]`.

    Args:
        state: checkpoint.
        slice_len: number of samples (default: inferred from the shapes). Checkpoints for 32,768 and for 65,536 samples
            have the same shapes; 65,536 is assumed.
    """
    settings, weights, arguments = _generator(state, "to_audio")
    settings["samples"] = slice_len or settings["samples"]
    return Published(wavegan.Generator, settings, weights, arguments)


def wavegan_discriminator(
    state: StateDict, *, slice_len: int | None = None, phases: Sequence[int] | None = None
) -> Published:
    """Imports `WaveGANDiscriminator` of the same file, whose audio is `[B, samples, nch]`.

    Args:
        state: checkpoint.
        slice_len: number of samples, see `wavegan_generator`.
        phases: shifts of a recorded call; ignored, because every call draws new shifts.
    """
    settings, weights, arguments = _discriminator(state)
    settings["samples"] = slice_len or settings["samples"]
    return Published(wavegan.Discriminator, settings, weights, arguments)


def wavegan_phase_shuffle(state: StateDict) -> Published:
    """Imports `apply_phaseshuffle` of the same file, whose features are `[B, time, channels]`."""
    return Published(wavegan.PhaseShuffle, {}, state)


def specgan_generator(state: StateDict) -> Published:
    """Imports `SpecGANGenerator` of specgan.py, whose spectrograms are `[B, frames, frequencies, 1]`."""
    return Published(specgan.Generator, *_generator(state, "to_spectrogram"))


def specgan_discriminator(state: StateDict) -> Published:
    """Imports `SpecGANDiscriminator` of specgan.py, whose spectrograms are `[B, frames, frequencies, 1]`."""
    return Published(specgan.Discriminator, *_discriminator(state))


def _generator(state: StateDict, end: str) -> Parts:
    """Returns the parts of either generator; `end` is our name of the last layer."""
    layers, (rows, latent_dim) = _layers(state, "upconv"), state["z_project.weight"].shape
    first, last = state["upconv_0.weight"], state[f"upconv_{layers - 1}.weight"]
    transposed = len(first) == rows // PLACES
    width, channels = rows // PLACES >> layers - 1, last.shape[1] if transposed else len(last)
    layer = "0.conv" if transposed else "0.1.conv"
    names = {"z_project": "project", "bn_0": "start.0", f"upconv_{layers - 1}": f"{end}.{layer}"}
    for place in range(layers - 1):
        names |= {f"upconv_{place}": f"up.{place}.{layer}", f"bn_{place + 1}": f"up.{place}.1"}
    weights = renamed(state, names)
    for part in ("project.weight", "project.bias"):  # our features have the channels first
        weights[part] = weights[part].reshape(PLACES, rows // PLACES, -1).transpose(0, 1).reshape_as(weights[part])
    normal = "bn_0.weight" in state
    settings = {
        "samples": PLACES << 2 * layers,
        "channels": channels,
        "latent_dim": latent_dim,
        "width": width,
        "kernel": first.shape[2],
        "upsampling": "zeros" if transposed else "nearest",
        "batch_norm": normal,
    }
    arguments = {
        "nch": channels,
        "kernel_len": first.shape[2],
        "dim": width,
        "use_batchnorm": normal,
        "upsample": "zeros" if transposed else "nn",
    }
    return settings, weights, arguments


def _discriminator(state: StateDict) -> Parts:
    """Returns the parts of either discriminator; drops running statistics, which it does not use."""
    layers, (width, channels, kernel) = _layers(state, "downconv"), state["downconv_0.weight"].shape[:3]
    names = {"output": "judge"}
    for place in range(layers):
        names |= {f"downconv_{place}": f"down.{place}.0.conv", f"bn_{place}": f"down.{place}.1"}
    kept = {key: value for key, value in state.items() if "running_" not in key and "num_batches" not in key}
    weights = renamed(kept, names)
    weights["judge.weight"] = weights["judge.weight"].reshape(1, PLACES, -1).transpose(1, 2).flatten(1)
    normal = "bn_1.weight" in state
    settings = {
        "samples": PLACES << 2 * layers,
        "channels": channels,
        "width": width,
        "kernel": kernel,
        "batch_norm": normal,
    }
    arguments = {"nch": channels, "kernel_len": kernel, "dim": width, "use_batchnorm": normal}
    return settings, weights, arguments


def _layers(state: StateDict, name: str) -> int:
    """Returns the number of layers whose names start with `name`."""
    return sum(key.startswith(f"{name}_") and key.endswith(".weight") for key in state)


IMPORTERS: Importers = {
    "wavegan/generator": wavegan_generator,
    "wavegan/discriminator": wavegan_discriminator,
    "wavegan/phase_shuffle": wavegan_phase_shuffle,
    "specgan/generator": specgan_generator,
    "specgan/discriminator": specgan_discriminator,
}
"""Importers by system and network."""
