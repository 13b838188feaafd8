"""The vocoder game, shared by MelGAN, HiFi-GAN and BigVGAN: a generator of audio from mels, and its discriminators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import l1_loss, pad

from gan_audio.layers.blocks import normalise_weights
from gan_audio.layers.convolution import is_cpu_inference
from gan_audio.layers.inference import fold, inference_copy
from gan_audio.layers.losses import multi_resolution_stft
from gan_audio.layers.streaming import input_span, upsample_in_pieces
from gan_audio.mel.contract import MelContract, MelSpectrogram
from gan_audio.sound.spec import Peak, SoundSpec
from gan_core import draws
from gan_core.data import Batch
from gan_core.errors import DataError, RecipeError
from gan_core.nn.blocks import evaluating
from gan_core.play.adversary import Adversary, prefixed, weighted
from gan_core.play.exported import BATCH, Axis, Exported, Input
from gan_core.play.game import Game
from gan_core.play.judgement import Judgement
from gan_core.play.objectives import Terms
from gan_core.play.player import Player

PEAK = 0.95
"""Peak to which every recording is scaled for training, as in the published code of MelGAN and HiFi-GAN.

The first version of BigVGAN's code did the same; the current version scales every excerpt.
"""
FRAMES_AT_ONCE = 256
"""Maximum number of mel frames that `Vocoder.stream` converts at once."""
MIN_FILTERED_FRAMES = 128
"""Minimum number of frames for minimal filters. For fewer frames, computing the filters takes longer than it saves."""


Block = TypeVar("Block", Tensor, NDArray[np.floating[Any]])
"""Samples `[n]`."""


class MelGenerator(nn.Module):
    """Base class of vocoder generators: mels `[B, mels, frames]` to audio `[B, 1, frames * hop]` in [-1, 1].

    Attributes:
        contract: contract of the mels.
        context: numbers of mel frames before and after a frame on which its samples depend.
        min_frames: minimum number of frames of a mel.

    Args:
        mel: mel contract, its settings, or its name.
        rates: up-sampling factors of the stages, whose product is the hop.
        layers: layers from mels to audio.
        folded: whether the weights are plain, as after `Vocoder.fold`, instead of normalised.

    Raises:
        RecipeError: the product of the rates is not the hop of the contract.
    """

    min_frames = 1

    def __init__(self, mel: MelContract, rates: Sequence[int], layers: Sequence[nn.Module], folded: bool) -> None:
        super().__init__()
        self.contract = mel
        if math.prod(rates) != mel.hop:
            raise RecipeError(f"the product of `rates` is {math.prod(rates)}; expected {mel.hop}, the hop of the mel")
        self.layers = nn.Sequential(*layers)
        first, last = input_span(self.layers, (0, mel.hop - 1))
        self.context = (-first, last)
        if not folded:
            normalise_weights(self)

    def forward(self, mel: Tensor) -> Tensor:
        return upsample_in_pieces(self.layers, mel) if is_cpu_inference(mel) else self.layers(mel)


class Discriminators(nn.Module):
    """Several discriminators of the same audio `[B, 1, T]`, which together return one `Judgement`.

    Args:
        discriminators: modules that map audio to logits `[B, …]` and a list of the features of each layer.
        between: module applied to the audio from one discriminator to the next, such as pooling (default: none).
    """

    def __init__(self, discriminators: Iterable[nn.Module], *, between: nn.Module | None = None):
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        self.between = nn.Identity() if between is None else between

    def forward(self, audio: Tensor) -> Judgement:
        judgement = Judgement([], [])
        for number, discriminator in enumerate(self.discriminators):
            audio = self.between(audio) if number else audio
            logits, features = discriminator(audio)
            judgement.logits.append(logits)
            judgement.features.append(features)
        return judgement


class Vocoder(Game):
    """A generator of audio from mels and discriminators of audio. The players of a step share the generated audio.

    A batch contains `audio` `[B, 1, T]`; samples after the last whole hop are not used. Subclasses assign the
    adversaries. If there are several, their terms are logged with their names.

    Args:
        generator: maps mels `[B, mels, frames]` to audio `[B, 1, T]`.
        adversarial_weight: weight of the adversarial terms of both players.
        mel_weight: weight of the L1 distance between mels up to half the sample rate; 0 disables it.
        stft_weight: weight of the multi-resolution STFT loss (Yamamoto et al. 2020, arXiv:1910.11480); 0 disables it.
        quietest: lower bound of the random gain of each real sample, which is uniform in [quietest, 1].
    """

    images: ClassVar[bool] = False
    results: ClassVar[Mapping[str, str]] = {"resynthesised": "audio"}
    compared: ClassVar[Mapping[str, str]] = {"resynthesised": "audio"}
    example: ClassVar[str] = "audio = game.vocode(mel)  # [B, 1, frames · hop], of mels [B, mels, frames]"

    def __init__(
        self,
        generator: MelGenerator,
        *,
        adversarial_weight: float = 1.0,
        mel_weight: float = 0.0,
        stft_weight: float = 0.0,
        quietest: Peak = 1.0,
    ) -> None:
        super().__init__()
        self.generator, self.quietest = generator, quietest
        self.adversarial_weight, self.mel_weight, self.stft_weight = adversarial_weight, mel_weight, stft_weight
        self.mel = MelSpectrogram(generator.contract)
        self.full_band_mel = MelSpectrogram(generator.contract.but(high_hz=None))

    @property
    def contract(self) -> MelContract:
        """Contract of the input mels."""
        return self.generator.contract

    def data_spec(self) -> SoundSpec:
        return SoundSpec(sample_rate=self.contract.sample_rate, channels=1)

    def spec_with(self, changes: Mapping[str, Any]) -> SoundSpec:
        """Returns the data specification of the game with changes; see `Game.spec_with`.

        Raises:
            RecipeError: the length of the excerpts does not fit the mels.
        """
        spec, mel = cast(SoundSpec, super().spec_with(changes)), self.contract
        if spec.samples is not None and spec.samples != (nearest := nearest_length(spec.samples, mel)):
            expected = f"a multiple of the hop, {mel.hop}, of at least the FFT size, {mel.fft_size}"
            raise RecipeError(f"`data.spec.samples` is {spec.samples}; expected {expected}. Try {nearest}.")
        return spec

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", tuple(self.adversaries.values()), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def stage(self, batch: Batch) -> Batch:
        audio = batch["audio"]
        if self.quietest < 1:
            audio = audio * (1 - (1 - self.quietest) * draws.uniform(len(audio), 1, 1, like=audio))
        mel = self.mel(audio)
        hops = min(audio.shape[-1] // self.contract.hop, mel.shape[2])  # centred mels have one frame more
        length = hops * self.contract.hop
        return batch | {"audio": audio[..., :length], "fake": self.generator(mel)[..., :length]}

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self._over_adversaries(lambda adversary: adversary.discriminator_terms(batch["audio"], batch["fake"]))

    def generator_loss(self, batch: Batch) -> Terms:
        real, fake = batch["audio"], batch["fake"]
        terms = self._over_adversaries(lambda adversary: adversary.generator_terms(fake, real))
        if self.mel_weight:
            terms["mel"] = self.mel_weight * l1_loss(self.full_band_mel(fake), self.full_band_mel(real))
        if self.stft_weight:
            terms["stft"] = self.stft_weight * multi_resolution_stft(real, fake).sum()
        return terms

    def _over_adversaries(self, compute: Callable[[Adversary], Terms]) -> Terms:
        """Returns the terms of all adversaries with weighted adversarial terms, and with names if there are several."""
        terms: Terms = {}
        adversaries = self.adversaries
        for name, adversary in adversaries.items():
            own = weighted(compute(adversary), self.adversarial_weight)
            terms |= prefixed(name, own) if len(adversaries) > 1 else own
        return terms

    def realness(self, batch: Batch) -> dict[str, Tensor]:
        return {name: adversary.realness(batch["audio"]) for name, adversary in self.adversaries.items()}

    def apply(self, batch: Batch) -> dict[str, Tensor]:  # type: ignore[override]
        return {"resynthesised": self.resynthesize(batch["audio"])}

    def exports(self) -> dict[str, Exported]:
        """Returns the generator without weight normalisation, for mels of any number of frames."""
        frames = Axis("frames", least=self.generator.min_frames)
        mel = {"mel": Input((BATCH, self.contract.mels, frames), self.contract.describe())}
        facts = {"sample_rate": self.contract.sample_rate, "mel": self.contract.model_dump(mode="json")}
        return {
            "generator": Exported(inference_copy(self.generator, filtering=False), mel, {"audio": "[-1, 1]"}, facts)
        }

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        return {"real": batch["audio"]} | self.apply(batch)

    # Inference.

    @torch.no_grad()
    def vocode(self, mel: Tensor | NDArray[Any]) -> Tensor:
        """Converts mels `[B, mels, frames]` of the model's contract to audio `[B, 1, frames * hop]`.

        The generator runs in evaluation mode.

        Args:
            mel: tensor or NumPy array `[B, mels, frames]` or `[mels, frames]`.

        Raises:
            DataError: the mels have the wrong number of bands, or too few frames.
        """
        mel = self._as_mel(mel)
        filtering = mel.shape[2] >= MIN_FILTERED_FRAMES and self._can_filter()
        generator = inference_copy(self.generator, filtering=True) if filtering else self.generator
        return self._audio_of(generator, mel, 0, mel.shape[2])

    @torch.no_grad()
    def resynthesize(self, audio: Tensor | NDArray[Any]) -> Tensor:
        """Converts audio `[B, 1, T]` to mels and back to audio `[B, 1, T]`, in evaluation mode.

        The last hop is padded with zeros.

        Args:
            audio: tensor or NumPy array `[B, 1, T]` or `[T]` in [-1, 1].

        Raises:
            DataError: the audio has another shape, or is too short for a mel.
        """
        audio = _as_tensor(audio, "the audio")
        audio = audio[None, None] if audio.ndim == 1 else audio
        if audio.ndim != 3:
            raise DataError(f"the audio has the shape {list(audio.shape)}; expected [B, 1, samples] or [samples]")
        length = audio.shape[-1]
        padded = pad(audio.to(self.device), (0, self.contract.padding_for(length)))
        return self.vocode(self.mel(padded))[..., :length]

    @torch.no_grad()
    def stream(self, mels: Iterable[Tensor | NDArray[Any]]) -> Iterator[Tensor]:
        """Converts one mel that arrives in chunks to audio.

        The generator's weights are read when the first chunk arrives; later changes have no effect. The audio is
        delayed by `generator.context[1]` frames. Only the frames of the context and one chunk are held in memory.

        Args:
            mels: tensors or NumPy arrays `[1, mels, frames]` or `[mels, frames]` of the model's contract, with any
                number of frames each.

        Yields:
            Audio `[1, 1, samples]` as soon as it can be computed. The concatenation equals `vocode` of the whole mel,
            up to rounding.

        Raises:
            DataError: a chunk has the wrong number of bands, or the mel has too few frames in total.
        """
        generator, filtering = inference_copy(self.generator, filtering=False), self._can_filter()
        before, after = self.generator.context
        held: Tensor | None = None
        done = 0  # frames in `held` whose audio has been returned
        received = 0
        for chunk in map(self._as_mel, mels):
            received += chunk.shape[2]
            if filtering and received >= MIN_FILTERED_FRAMES:
                generator, filtering = inference_copy(generator, filtering=True), False
            for part in torch.split(chunk, FRAMES_AT_ONCE, dim=2):
                held = part if held is None else torch.cat([held, part], dim=2)
                ready = held.shape[2] - after
                if ready > done:
                    yield self._audio_of(generator, held, done, ready)
                    dropped = max(0, ready - before)
                    held, done = held[:, :, dropped:], ready - dropped
        if held is not None and held.shape[2] > done:
            yield self._audio_of(generator, held, done, held.shape[2])

    @property
    def latency_ms(self) -> float:
        """Delay of `stream_audio` in milliseconds: a sample is returned this long after it was received.

        The time for computing and for collecting a block comes in addition.
        """
        contract, after = self.contract, self.generator.context[1]
        samples = max(after * contract.hop + contract.fft_size - contract.edge, (after + 1) * contract.hop + 1)
        return 1000 * samples / contract.sample_rate

    @torch.no_grad()
    def stream_audio(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Resynthesizes one sound that arrives in blocks, such as from a microphone; see `resynthesize`.

        Args:
            blocks: samples `[n]` in [-1, 1] at the model's sample rate, as float tensors or NumPy arrays of any length.

        Yields:
            Samples `[n]` of the same kind (float32) as soon as they can be computed, after `latency_ms`. The total
            length is that of the input.

        Raises:
            DataError: a block is not a one-dimensional array of floating-point numbers, or the sound is too short.
        """
        received = returned = 0
        arrays = False  # whether the latest block is a NumPy array

        def padded() -> Iterator[Tensor]:
            nonlocal received, arrays
            for block in blocks:
                arrays = isinstance(block, np.ndarray)
                samples = _samples_of(block)
                received += len(samples)
                if len(samples):
                    yield samples[None, None]
            if padding := self.contract.padding_for(received):
                yield torch.zeros(1, 1, padding)

        held = torch.zeros(0)
        for chunk in self.stream(self.mel.stream(padded())):
            held = torch.cat([held, chunk[0, 0].to(held)])
            ready = min(len(held), received - returned)  # not beyond the input so far, since it may end there
            part, held, returned = held[:ready], held[ready:], returned + ready
            yield cast(Block, part.numpy() if arrays else part)

    def fold(self) -> Self:
        """Removes weight normalisation from the generator, in place, for faster inference with the same output."""
        fold(self.generator)
        if self.recipe is not None:
            self.recipe = self.recipe.but({"network.folded": True})
        return self

    def _can_filter(self) -> bool:
        """Returns whether minimal filters may be used for long mels: on a CPU, in full precision."""
        return self.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _audio_of(self, generator: nn.Module, mel: Tensor, start: int, end: int) -> Tensor:
        """Returns the audio of frames `start` to `end` of a mel, computed from the whole mel."""
        self._check_length(mel)
        hop = self.contract.hop
        with evaluating(generator):
            audio: Tensor = generator(mel.to(next(generator.parameters())))
        return audio[..., start * hop : end * hop].clone()

    def _as_mel(self, given: Tensor | NDArray[Any]) -> Tensor:
        """Returns mels as a tensor `[B, mels, frames]`.

        Raises:
            DataError: the shape does not fit the contract.
        """
        mel, bands = _as_tensor(given, "the mel"), self.contract.mels
        mel = mel[None] if mel.ndim == 2 else mel
        if mel.ndim != 3 or mel.shape[1] != bands:
            remedy = "; transpose it" if mel.ndim == 3 and mel.shape[2] == bands else ""
            raise DataError(
                f"the mel has the shape {list(given.shape)}; expected [B, {bands}, frames] or [{bands}, frames]{remedy}"
            )
        return mel

    def _check_length(self, mel: Tensor) -> None:
        if mel.shape[2] < self.generator.min_frames:
            raise DataError(f"the mel has {mel.shape[2]} frames; this model needs {self.generator.min_frames} or more")


def _as_tensor(given: Tensor | NDArray[Any], name: str) -> Tensor:
    """Returns a tensor, or a NumPy array as a tensor.

    Raises:
        DataError: it is neither, or is not an array of floating-point numbers.
    """
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("=")))
    if isinstance(given, Tensor) and given.is_floating_point():
        return given
    found = f"{type(given).__name__}{f' of {given.dtype}' if hasattr(given, 'dtype') else ''}"
    raise DataError(f"{name} is a {found}; expected a tensor or a NumPy array of floating-point numbers")


def _samples_of(block: Tensor | NDArray[Any]) -> Tensor:
    """Returns a block of samples `[n]` as a float32 tensor."""
    tensor = torch.from_numpy(np.array(block)) if isinstance(block, np.ndarray) else block
    if not isinstance(tensor, Tensor) or tensor.ndim != 1 or not tensor.is_floating_point():
        found = f"{list(block.shape)} of {block.dtype}" if hasattr(block, "dtype") else type(block).__name__
        raise DataError(f"a block is {found}; expected samples [n] as floating-point numbers in [-1, 1]")
    return tensor.float().cpu()


def nearest_length(samples: int, mel: MelContract) -> int:
    """Returns the multiple of the hop that is nearest to a length in samples and not shorter than an FFT."""
    return mel.hop * max(-(-mel.fft_size // mel.hop), round(samples / mel.hop))
