"""Importers of MidiNet's published networks, which translate keys and infer settings from shapes.

The published code uses TensorFlow. Tensors are expected in torch's layouts, convolutions `[out, in, …]`, transposed
convolutions `[in, out, …]` and matrices `[out, in]`, with the names of its variables (`g_h0_lin.weight`,
`d_bn1.running_mean`).
"""

from __future__ import annotations

from gan_audio.systems import midinet
from gan_audio.systems.midinet import CHORD
from gan_core.models.reference import Importers, Published, StateDict, renamed


def generator(state: StateDict) -> Published:
    """Imports `generator` of github.com/RichardYang40148/MidiNet, v1/model.py, whose bars are `[B, 16, 128, 1]`."""
    names = {"g_h0_lin": "hidden.0", "g_bn0": "hidden.1", "g_h1_lin": "start.0", "g_bn1": "start.1", "g_h5": "to_bar.0"}
    for layer in range(4):
        names |= {f"g_h{layer}_prev_conv": f"conditioner.{layer}.0", f"g_prev_bn{layer}": f"conditioner.{layer}.1"}
    for layer in range(3):
        names |= {f"g_h{layer + 2}": f"up.{layer}.0", f"g_bn{layer + 2}": f"up.{layer}.1"}
    hidden, inputs = state["g_h0_lin.weight"].shape
    width, latent_dim = state["g_h1_lin.weight"].shape[0] // 4, inputs - CHORD
    return Published(
        midinet.Generator,
        {"latent_dim": latent_dim, "width": width, "hidden": hidden},
        renamed(state, names),
        {"z_dim": latent_dim, "y_dim": CHORD, "gf_dim": width, "gfc_dim": hidden},
    )


def discriminator(state: StateDict) -> Published:
    """Imports `discriminator` of the same file, without the running statistics, which it does not use."""
    names = {
        "d_h0_conv": "first",
        "d_h1_conv": "second.0",
        "d_bn1": "second.1",
        "d_h2_lin": "hidden.0",
        "d_bn2": "hidden.1",
        "d_h3_lin": "judge",
    }
    kept = {key: value for key, value in state.items() if "running_" not in key and "num_batches" not in key}
    width, hidden = len(state["d_h1_conv.weight"]) - CHORD, len(state["d_h2_lin.weight"])
    return Published(
        midinet.Discriminator,
        {"width": width, "hidden": hidden},
        renamed(kept, names),
        {"y_dim": CHORD, "df_dim": width, "dfc_dim": hidden},
    )


IMPORTERS: Importers = {"midinet/generator": generator, "midinet/discriminator": discriminator}
"""Importers by system and network."""
