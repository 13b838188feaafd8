"""MelSpec: mels from noise, for a vocoder to convert to sound.

- `melspec`: SpecGAN's game and layers (Donahue et al. 2019, arXiv:1802.04208) on the mels of a contract. The paper
  reconstructs phases with the Griffin-Lim algorithm; here, a vocoder of the same contract generates the sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import pad

from gan_audio.layers.strided import Kernel, Upsampling
from gan_audio.mel.contract import CONTRACTS, MelContract, MelSpectrogram
from gan_audio.sound.spec import SoundSpec
from gan_audio.systems import specgan
from gan_audio.systems.specgan import (
    SPECGAN,
    SpectrogramDiscriminator,
    SpectrogramGAN,
    SpectrogramGenerator,
    Standardised,
)
from gan_core.errors import RecipeError
from gan_core.play.exported import Exported
from gan_core.play.objectives import Objective, non_saturating
from gan_core.play.preset import Preset
from gan_core.play.regularizers import Regularizer
from gan_core.recipe import Size

LAYERS = 4
"""Number of layers, each of which doubles or halves frames and bands."""
STEP = 1 << LAYERS
"""Factor by which all layers together enlarge or reduce frames and bands."""


def sides(samples: int, mel: MelContract) -> tuple[int, int]:
    """Returns the number of frames and bands of the generator's first and the discriminator's last features.

    Bands are rounded up: the generator's excess bands are dropped, and the discriminator's are padded with zeros.

    Raises:
        RecipeError: the number of frames is not a multiple of `STEP`.
    """
    least = STEP * mel.hop
    if samples < 1 or samples % least:
        nearest = least * max(1, round(samples / least))
        raise RecipeError(
            f"`samples` is {samples}; expected a multiple of {least}, {STEP} hops of the mel. Try {nearest}."
        )
    return samples // least, -(-mel.mels // STEP)


class Mels(Standardised):
    """Standardised mels `[B, 1, frames, mels]` in [-1, 1] of audio `[B, 1, samples]`.

    Args:
        contract: mel contract.
    """

    def __init__(self, contract: MelContract):
        super().__init__(contract.mels)
        self.contract, self.mel = contract, MelSpectrogram(contract)

    def logarithms(self, audio: Tensor) -> Tensor:
        frames = audio.shape[-1] // self.contract.hop  # centred contracts give one frame more
        return self.mel(audio)[..., :frames].transpose(1, 2).unsqueeze(1)

    def forward(self, audio: Tensor) -> Tensor:
        return self.standard(self.logarithms(audio))

    def inverse(self, mels: Tensor) -> Tensor:
        """Returns mels `[B, mels, frames]` of the contract, clamped to its floor, from standardised ones."""
        logarithms = self.contract.logarithm(self.original(mels).squeeze(1).transpose(1, 2))
        return self.contract.scaled(logarithms.clamp(min=math.log(self.contract.floor)))


class Generator(SpectrogramGenerator):
    """`z [B, latent_dim]` in [-1, 1] and a class to standardised mels `[B, 1, frames, mels]`.

    Args:
        mel: mel contract, its settings, or its name.
        samples: length in samples of the sound that a mel represents, a multiple of 16 hops.
        latent_dim: see `SpectrogramGenerator` for this and all other settings.
    """

    def __init__(
        self,
        *,
        mel: MelContract = CONTRACTS["hifigan-22k"],
        samples: Size = 16_384,
        latent_dim: Size = 100,
        width: Size = 64,
        kernel: Kernel = 5,
        upsampling: Upsampling = "zeros",
        num_classes: Size | None = None,
        batch_norm: bool = False,
    ):
        contract = MelContract.model_validate(mel)
        super().__init__(
            sides(samples, contract),
            LAYERS,
            channels=1,
            latent_dim=latent_dim,
            width=width,
            kernel=kernel,
            upsampling=upsampling,
            num_classes=num_classes,
            batch_norm=batch_norm,
        )
        self.contract = contract
        self.data_spec = SoundSpec(samples=samples, sample_rate=contract.sample_rate, channels=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(z, label)[..., : self.contract.mels]


class Discriminator(SpectrogramDiscriminator):
    """Standardised mels `[B, 1, frames, mels]` and a class to logits `[B]`.

    Args:
        mel: mel contract, its settings, or its name.
        samples: length in samples of the sound that a mel represents, a multiple of 16 hops.
        width: see `SpectrogramDiscriminator` for this and all other settings.
    """

    def __init__(
        self,
        *,
        mel: MelContract = CONTRACTS["hifigan-22k"],
        samples: Size = 16_384,
        width: Size = 64,
        kernel: Kernel = 5,
        num_classes: Size | None = None,
        batch_norm: bool = False,
    ):
        contract = MelContract.model_validate(mel)
        super().__init__(
            sides(samples, contract),
            LAYERS,
            channels=1,
            width=width,
            kernel=kernel,
            num_classes=num_classes,
            batch_norm=batch_norm,
        )

    def forward(self, spectrograms: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(pad(spectrograms, (0, -spectrograms.shape[-1] % STEP)), label)


class MelSource(nn.Module):
    """Generator for export: `z [B, latent_dim]` and a class to mels `[B, mels, frames]` of the contract.

    Args:
        generator: generator of standardised mels.
        mels: standardisation of the mels.
    """

    def __init__(self, generator: nn.Module, mels: Mels):
        super().__init__()
        self.generator, self.mels = generator, mels

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.mels.inverse(self.generator(z, label))


class MelSpec(SpectrogramGAN):
    """SpecGAN's game on mels, whose samples are mels `[N, mels, frames]` of the generator's contract.

    Args:
        generator: generator of standardised mels.
        discriminator: discriminator of standardised mels.
        objective: adversarial losses of both players.
        regularizers: regularizers, which are applied to standardised mels.
    """

    unmeasured = "measures sounds, but this model generates mels; convert them with `gan-audio vocode`"
    spectrogram: Mels

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        objective: Objective = non_saturating,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        mels = Mels(generator.contract)
        super().__init__(generator, discriminator, mels, objective=objective, regularizers=regularizers)

    @property
    def contract(self) -> MelContract:
        """Contract of the generated mels."""
        return self.spectrogram.contract

    def exports(self) -> dict[str, Exported]:
        """Returns the generator, followed by the inverse of the standardisation."""
        made = super().exports()["generator"]
        facts = {**made.facts, "mel": self.contract.model_dump(mode="json")}
        network = MelSource(made.network, self.spectrogram)
        return {"generator": replace(made, network=network, outputs={"mel": self.contract.describe()}, facts=facts)}

    def finish(self, fakes: Tensor) -> Tensor:
        return self.spectrogram.inverse(fakes)


MELSPEC = Preset(
    MelSpec,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper=SPECGAN.paper,
    objective=SPECGAN.objective,
    regularizers=SPECGAN.regularizers,
    network={"mel": CONTRACTS["hifigan-22k"].model_dump(), "samples": 16_384, "latent_dim": 100, "width": 64},
    optimizer=SPECGAN.optimizer,
    players=SPECGAN.players,
    train=SPECGAN.train,
)
SMALL = MELSPEC.but(
    objective=specgan.SMALL.objective,
    regularizers=specgan.SMALL.regularizers,
    network={"latent_dim": 32, "width": 16},
    optimizer=specgan.SMALL.optimizer,
    players=specgan.SMALL.players,
    train=specgan.SMALL.train,
)

PRESETS = {"melspec": {"paper": MELSPEC, "small": SMALL}}
