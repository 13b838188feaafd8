"""Parts shared by vocoders: layers, the game that trains them, and inference.

A generator is made of few kinds of layers, so that it can be told from them which mels a sample of its audio comes
from: what a stream of mels must keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, pad
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from gan_audio.layers.filtering import Convolution, MinimalConvolution, inferring, pays
from gan_audio.layers.losses import multi_resolution_stft
from gan_audio.mel.contract import MelContract, MelSpectrogram
from gan_audio.specs import Peak, SoundSpec
from gan_core import draws
from gan_core.errors import DataError, RecipeError
from gan_core.play.adversary import Adversary, prefixed, weighted
from gan_core.play.exported import BATCH, Axis, Exported, Input
from gan_core.play.game import Batch, Game, Player, Terms, evaluating
from gan_core.play.judgement import Judgement

FRAMES_AT_ONCE = 256
"""Mel frames that a stream turns into audio in one pass; longer chunks are taken in several."""
LONG = 128
"""Mel frames of a sound for which minimal filters are worked out; for fewer, that takes longer than they save."""
VALUES_AT_ONCE = 1 << 19
"""Values of a stage's output that a core computes at once, 2 MiB: they stay in its caches, and memory is used again."""
PEAK = 0.95
"""Of every recording in a training: the published code of MelGAN and HiFi-GAN scales them so, and BigVGAN's at first
(today it scales every excerpt)."""
Span = tuple[int, int]
"""The first and the last of some samples in a row."""
NORMALISED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)
"""Layers that are under weight normalisation."""
POINTWISE = (nn.Identity, nn.LeakyReLU, nn.Tanh, nn.Hardtanh)
"""Layers whose outputs are computed from the input at their own place."""


# --- layers


class Sum(nn.Module):
    """Sum of the outputs of branches for one input."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        total = first(x)
        for branch in others:
            total = branch(x).add_(total)  # a branch's result is nobody else's; the first may be x itself
        return total

    def reach(self, span: Span) -> Span:
        firsts, lasts = zip(*(reach(branch, span) for branch in self.branches), strict=True)
        return min(firsts), max(lasts)


class Mean(Sum):
    """Mean of the outputs of branches for one input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).div_(len(self.branches))


def reach(layer: nn.Module, span: Span) -> Span:
    """The inputs that a span of a layer's outputs is computed from, beyond the ends of its input too.

    At an end, padding takes the place of inputs; reflections lie within the reach of the other side.
    """
    first, last = span
    if isinstance(layer, nn.Sequential):
        for part in reversed(layer):
            span = reach(part, span)
        return span
    if isinstance(layer, nn.ConvTranspose1d):  # output t sums inputs i with 0 <= t + padding - i · stride < size
        (size,), (stride,), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
        return -((size - 1 - first - padding) // stride), (last + padding) // stride
    if isinstance(layer, nn.Conv1d):
        (size,), (dilation,), padding = layer.kernel_size, layer.dilation, int(layer.padding[0])
        return first - padding, last - padding + (size - 1) * dilation
    if isinstance(layer, POINTWISE):
        return span
    return layer.reach(span)  # type: ignore[operator]  # a layer of ours says it itself


def same(
    inputs: int,
    outputs: int,
    size: int,
    *,
    dilation: int = 1,
    bias: bool = True,
    mode: Literal["zeros", "reflect"] = "zeros",
) -> nn.Conv1d:
    """A convolution of an odd size that keeps the length."""
    padding = dilation * (size // 2)
    return Convolution(inputs, outputs, size, dilation=dilation, padding=padding, padding_mode=mode, bias=bias)


def in_pieces(layers: nn.Sequential, x: Tensor, *, rate: int, size: int) -> Tensor:
    """What layers make of `[B, C, T]`, computed some samples at a time, each piece with all that it depends on.

    Args:
        layers: that `reach` knows.
        x: their input.
        rate: by which they lengthen it.
        size: of the pieces at most, in samples of the output; far more than the layers reach.
    """
    length, pieces = x.shape[2] * rate, list[Tensor]()
    size = -(-length // -(-length // size))  # all about alike
    for start in range(0, length, size):
        end = min(start + size, length)
        first, last = reach(layers, (start, end - 1))
        first = max(first, 0)
        made = layers(x[..., first : last + 1])[..., start - first * rate : end - first * rate]
        pieces.append(made.transpose(1, 2))
    return torch.cat(pieces, dim=1).transpose(1, 2)  # channels stay innermost


def normalise_weights(network: nn.Module) -> None:
    """Weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868) of every convolution, in place.

    As in the published code, transposed convolutions too are normalised over axis 0, their input channels.
    """
    for layer in list(network.modules()):
        if isinstance(layer, NORMALISED):
            weight_norm(layer)


def fold(network: nn.Module) -> nn.Module:
    """Takes weight normalisation out, in place: the weights become what it made of them, and the sound stays."""
    for layer in list(network.modules()):
        if isinstance(layer, NORMALISED) and parametrize.is_parametrized(layer):
            made = {name: getattr(layer, name).detach() for name in cast(nn.ModuleDict, layer.parametrizations)}
            del layer.parametrizations
            # Not by torch's remove_parametrizations: it changes the layer's class, which copies of the layer share.
            layer.__class__ = type(layer).__bases__[0]
            for name, value in made.items():
                setattr(layer, name, nn.Parameter(value))
    return network


def worked_out(network: nn.Module, *, filtering: bool) -> nn.Module:
    """A network of its own that computes the same, with what can be worked out from the weights once and for all.

    Args:
        network: which stays as it is; what it is compiled to is left behind.
        filtering: whether convolutions become minimal filters where these pay, for use on a CPU.
    """
    known: dict[nn.Module, nn.Module] = {}  # a layer may have several places

    def twin_of(layer: nn.Module) -> nn.Module:
        if layer not in known:
            twin = type(layer).__new__(type(layer))
            vars(twin).update(vars(layer))
            twin._compiled_call_impl = None  # it calls the other one
            twin._modules = {name: None if part is None else twin_of(part) for name, part in layer._modules.items()}
            twin._buffers = {name: None if value is None else value.clone() for name, value in layer._buffers.items()}
            twin._parameters = dict(layer._parameters)
            if isinstance(twin, NORMALISED):
                fold(twin)
            if filtering and isinstance(twin, Convolution) and pays(twin):
                twin = MinimalConvolution(twin)
            else:
                for name, value in twin._parameters.items():
                    twin._parameters[name] = None if value is None else nn.Parameter(value.detach().clone())
            known[layer] = twin
        return known[layer]

    return twin_of(network)


def fitting(samples: int, mel: MelContract) -> int:
    """Returns the length nearest to a number of samples that is a whole number of hops and at least an FFT long."""
    return mel.hop * max(-(-mel.fft_size // mel.hop), round(samples / mel.hop))


class MelGenerator(nn.Module):
    """Mels `[B, mels, frames]` to audio `[B, 1, frames · hop]` in [-1, 1]: what the vocoders' generators are.

    Attributes:
        contract: of the mels.
        context: mel frames before and after a frame that its samples are computed from.
        least: the shortest mel, in frames.

    Args:
        mel: the contract, its settings, or its name.
        rates: by which the stages lengthen; together they make the hop.
        layers: from mels to audio.
        folded: whether the weights are plain, as `fold` leaves them, and not normalised.

    Raises:
        RecipeError: the rates do not lengthen by the hop of the contract.
    """

    least = 1

    def __init__(self, mel: MelContract, rates: Sequence[int], layers: Sequence[nn.Module], folded: bool) -> None:
        super().__init__()
        self.contract = mel
        if math.prod(rates) != mel.hop:
            raise RecipeError(f"`rates` lengthen by {math.prod(rates)}; the mel's hop is {mel.hop} samples")
        self.layers = nn.Sequential(*layers)
        first, last = reach(self.layers, (0, mel.hop - 1))
        self.context = (-first, last)
        if not folded:
            normalise_weights(self)

    def forward(self, mel: Tensor) -> Tensor:
        if not inferring(mel):
            return self.layers(mel)
        ups = {number: layer for number, layer in enumerate(self.layers) if isinstance(layer, nn.ConvTranspose1d)}
        bounds = [*ups, len(self.layers)]
        x: Tensor = self.layers[: bounds[0]](mel)
        for (start, up), end in zip(ups.items(), bounds[1:], strict=True):
            size = VALUES_AT_ONCE * torch.get_num_threads() // up.out_channels
            x = in_pieces(self.layers[start:end], x, rate=up.stride[0], size=size)
        return x


class Discriminators(nn.Module):
    """Several discriminators of the same audio, each with its own view of it: audio `[B, 1, T]` to a judgement.

    Args:
        discriminators: audio to logits `[B, …]` and the features of each layer.
        between: what happens to the audio from one to the next; None shows all of them the same.
    """

    def __init__(self, discriminators: Iterable[nn.Module], *, between: nn.Module | None = None):
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        self.between = nn.Identity() if between is None else between

    def forward(self, audio: Tensor) -> Judgement:
        judgement = Judgement([], [])
        for number, judge in enumerate(self.discriminators):
            audio = self.between(audio) if number else audio
            logits, features = judge(audio)
            judgement.logits.append(logits)
            judgement.features.append(features)
        return judgement


# --- the game


class Vocoder(Game):
    """A generator of audio from mels, and discriminators of audio; the players of a round share the generated audio.

    A batch holds `audio` `[B, 1, T]`. Audio beyond the last whole hop is left out. A subclass assigns its adversaries;
    their terms are logged under their names where there are several.

    Args:
        generator: maps mels `[B, mels, frames]` to audio `[B, 1, T]`.
        adversarial_weight: weight of the adversarial terms of both players.
        mel_weight: weight of the L1 distance between mels up to half the sample rate; 0 leaves it out.
        stft_weight: weight of the multi-resolution STFT loss (Yamamoto et al. 2020, arXiv:1910.11480); 0 leaves it out.
        quietest: lower bound of the random gain of each real sample, uniform in [quietest, 1].
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
        """Returns what the game needs of the data; see `Game.spec_with`.

        Raises:
            RecipeError: the length of the excerpts does not fit the mels.
        """
        spec, mel = cast(SoundSpec, super().spec_with(changes)), self.contract
        if spec.samples is not None and spec.samples != fitting(spec.samples, mel):
            what = f"a multiple of the hop, {mel.hop}, and no less than the FFT, {mel.fft_size}"
            raise RecipeError(
                f"`data.spec.samples` is {spec.samples}; it must be {what}. Try {fitting(spec.samples, mel)}."
            )
        return spec

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", tuple(self.adversaries.values()), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def stage(self, batch: Batch) -> Batch:
        audio = batch["audio"]
        if self.quietest < 1:
            audio = audio * (1 - (1 - self.quietest) * draws.uniform(len(audio), 1, 1, like=audio))
        mel = self.mel(audio)
        hops = min(audio.shape[-1] // self.contract.hop, mel.shape[2])  # where frames are centred, there is one more
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
        """Returns the terms of all adversaries with the adversarial ones weighted, under their names if several."""
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
        frames = Axis("frames", least=self.generator.least)
        mel = {"mel": Input((BATCH, self.contract.mels, frames), self.contract.describe())}
        facts = {"sample_rate": self.contract.sample_rate, "mel": self.contract.model_dump(mode="json")}
        return {"generator": Exported(worked_out(self.generator, filtering=False), mel, {"audio": "[-1, 1]"}, facts)}

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        return {"real": batch["audio"]} | self.apply(batch)

    # For users.

    @torch.no_grad()
    def vocode(self, mel: Tensor) -> Tensor:
        """Audio `[B, 1, frames · hop]` of mels `[B, mels, frames]` of the model's contract, in evaluation mode.

        Raises:
            DataError: the mels have another number of bands, or too few frames.
        """
        self._check_bands(mel)
        filters = mel.shape[2] >= LONG and self._filters()
        generator = worked_out(self.generator, filtering=True) if filters else self.generator
        return self._told(generator, mel, 0, mel.shape[2])

    @torch.no_grad()
    def resynthesize(self, audio: Tensor) -> Tensor:
        """Audio `[B, 1, T]` to its mels and back, `[B, 1, T]`, in evaluation mode.

        The last hop is filled up with silence before it is analysed.

        Raises:
            DataError: the audio is no tensor of that shape, or too short for a mel.
        """
        if not isinstance(audio, Tensor) or audio.ndim != 3:
            found = list(audio.shape) if isinstance(audio, Tensor) else type(audio).__name__
            raise DataError(f"the audio is {found}; expected a tensor [B, 1, samples]")
        length = audio.shape[-1]
        whole = pad(audio.to(self.device), (0, self.contract.rest(length)))
        return self.vocode(self.mel(whole))[..., :length]

    @torch.no_grad()
    def stream(self, mels: Iterable[Tensor]) -> Iterator[Tensor]:
        """Audio of one mel that comes in chunks, as soon as it can be told; together, the audio of the whole.

        The weights are those that the generator has when the first chunk comes, whatever becomes of it. The audio lags
        behind by as many frames as the last sample of a frame is computed from (`generator.context`); those are held,
        and as many before.

        Args:
            mels: `[1, mels, frames]` of the model's contract, of any numbers of frames.

        Yields:
            `[1, 1, samples]`, equal to `vocode` of all chunks together, to the rounding.

        Raises:
            DataError: a chunk has another number of bands, or all together have too few frames.
        """
        generator, filters = worked_out(self.generator, filtering=False), self._filters()
        before, after = self.generator.context
        held: Tensor | None = None
        known = 0  # frames held whose audio is told already
        frames = 0  # that came so far
        for chunk in mels:
            self._check_bands(chunk)
            frames += chunk.shape[2]
            if filters and frames >= LONG:
                generator, filters = worked_out(generator, filtering=True), False
            for part in torch.split(chunk, FRAMES_AT_ONCE, dim=2):
                held = part if held is None else torch.cat([held, part], dim=2)
                ready = held.shape[2] - after
                if ready > known:
                    yield self._told(generator, held, known, ready)
                    dropped = max(0, ready - before)
                    held, known = held[:, :, dropped:], ready - dropped
        if held is not None and held.shape[2] > known:
            yield self._told(generator, held, known, held.shape[2])

    def fold(self) -> Self:
        """Takes weight normalisation out of the generator, in place: the same sound, faster; for use, not training."""
        fold(self.generator)
        if self.recipe is not None:
            self.recipe = self.recipe.but({"network.folded": True})
        return self

    def _filters(self) -> bool:
        """Whether long sounds are made by minimal filters: not on a GPU, nor with fewer digits."""
        return self.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _told(self, generator: nn.Module, mel: Tensor, start: int, end: int) -> Tensor:
        """The audio of some frames of a mel, which are computed with all of it."""
        self._check_length(mel)
        hop = self.contract.hop
        with evaluating(generator):
            audio: Tensor = generator(mel.to(next(generator.parameters())))
        return audio[..., start * hop : end * hop].clone()

    def _check_bands(self, mel: Tensor) -> None:
        if mel.ndim != 3 or mel.shape[1] != self.contract.mels:
            raise DataError(f"the mel has the shape {list(mel.shape)}; expected [B, {self.contract.mels}, frames]")

    def _check_length(self, mel: Tensor) -> None:
        if mel.shape[2] < self.generator.least:
            raise DataError(f"the mel has {mel.shape[2]} frames; this model needs {self.generator.least} or more")
