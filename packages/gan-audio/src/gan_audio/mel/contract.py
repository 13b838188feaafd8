"""Mel contracts, which define how mels are computed, and computation of mels by a contract.

A model only works with mels that were computed with the same settings as its training data. The contract is therefore
stored with every mel and every model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gan_core.errors import DataError, unknown
from gan_core.nn.precision import full_precision
from gan_core.recipe import Settings

MIN_POWER = 1e-30
"""Power that is added if `magnitude_epsilon` is 0, because the square root has no derivative at 0."""
FRAMES_AT_ONCE = 512
"""Maximum number of frames that `MelSpectrogram.stream` computes at once."""
BANDS_AT_ONCE = 32
"""Number of bands of a filter bank that are computed at once, in float64."""
DECIBELS = 20 / math.log(10)
"""Decibels per neper, the unit of the natural logarithm of a magnitude."""
ANALYSIS = ("sample_rate", "fft_size", "hop", "window", "mels", "low_hz", "high_hz", "filterbank")
"""Settings that cannot change when a mel is converted to another contract."""

Samples = Annotated[int, Field(ge=1, le=65_536)]
"""Length in samples."""
Bands = Annotated[int, Field(ge=1, le=512)]
"""Number of mel bands; the maximum limits the memory of the filter bank of the longest FFT."""
Decibels = Annotated[float, Field(ge=-700, le=700)]
"""Level in dB, in the range of float32 magnitudes."""


class MelContract(Settings):
    """Settings that define how a mel is computed from audio.

    Settings that take a contract also accept its name in `CONTRACTS`.

    Attributes:
        sample_rate: sample rate in Hz.
        fft_size: frame length in samples. A shorter window is centred in the frame.
        hop: distance between frames in samples.
        window: length of the periodic Hann window in samples.
        mels: number of bands.
        low_hz: lower edge of the first band in Hz.
        high_hz: upper edge of the last band in Hz (default: half the sample rate).
        filterbank: mel scale: Slaney's (the default of librosa) or HTK's. With both, bands have an area of 1 over Hz.
        magnitude_epsilon: value added to the power before the square root.
        log_base: base of the logarithm.
        clamp: minimum magnitude of a band before the logarithm.
        decibels: levels in dB that are mapped to 0 and 1; values outside are clipped. None keeps logarithms.
        centred: whether frame n is centred on sample n * hop, with half an FFT of reflection padding at both ends.
            Otherwise it is centred on the middle of hop n.
    """

    sample_rate: int = Field(ge=1, le=1_000_000)
    fft_size: Samples
    hop: Samples
    window: Samples
    mels: Bands
    low_hz: float = Field(default=0.0, ge=0)
    high_hz: float | None = Field(default=None, gt=0)
    filterbank: Literal["slaney", "htk"] = "slaney"
    magnitude_epsilon: float = Field(default=0.0, ge=0)
    log_base: Literal["e", "10"] = "e"
    clamp: float = Field(default=1e-5, gt=0)
    decibels: tuple[Decibels, Decibels] | None = None
    centred: bool = False

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_name(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        if given not in CONTRACTS:
            raise unknown("mel contract", given, CONTRACTS)
        return CONTRACTS[given].model_dump()

    @field_validator("log_base", mode="before")
    @classmethod
    def _as_text(cls, base: Any) -> Any:
        return str(base) if isinstance(base, int) else base  # YAML reads 10 as a number

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        if not self.hop <= self.window <= self.fft_size:
            sizes = f"`hop` is {self.hop}, `window` {self.window} and `fft_size` {self.fft_size}"
            raise ValueError(f"{sizes}; expected `hop` <= `window` <= `fft_size`")
        if not self.low_hz < self.high <= self.sample_rate / 2:
            edges = f"`low_hz` is {self.low_hz:g} and `high_hz` {self.high:g}"
            raise ValueError(
                f"{edges}; expected `low_hz` < `high_hz` <= {self.sample_rate / 2:g}, half the sample rate"
            )
        if self.decibels is not None and not self.decibels[0] < self.decibels[1]:
            raise ValueError(f"`decibels` is {list(self.decibels)}; give the lower level first")
        return self

    def but(self, **changes: Any) -> MelContract:
        """Returns this contract with some settings changed and validated again."""
        return MelContract.model_validate(self.model_dump() | changes)

    @property
    def high(self) -> float:
        """Upper edge of the last band in Hz."""
        return self.sample_rate / 2 if self.high_hz is None else self.high_hz

    @property
    def edge(self) -> int:
        """Length of the reflection padding at each end in samples."""
        return self.fft_size // 2 if self.centred else (self.fft_size - self.hop) // 2

    def padding_for(self, samples: int) -> int:
        """Returns the number of zeros to append to audio of length `samples` so that its mel covers all samples."""
        return -samples % self.hop + (self.fft_size - self.hop) % 2

    @property
    def floor(self) -> float:
        """Smallest magnitude that is not clipped."""
        return self.clamp if self.decibels is None else max(self.clamp, math.exp(self.decibels[0] / DECIBELS))

    @property
    def silence(self) -> float:
        """Magnitude of a band for digital silence, which results from `magnitude_epsilon`.

        The weights of a band sum to 1 divided by the bin width.
        """
        return math.sqrt(self.magnitude_epsilon) * self.fft_size / self.sample_rate

    def describe(self) -> str:
        """Returns all settings in one line."""
        bands = f"{self.mels} mels from {self.low_hz:g} to {self.high:g} Hz ({self.filterbank})"
        scale = f"log base {self.log_base}"
        if self.decibels is not None:
            scale = f"{self.decibels[0]:g} to {self.decibels[1]:g} dB as 0 to 1"
        return (
            f"{self.sample_rate:,} Hz, FFT {self.fft_size}, hop {self.hop}, window {self.window}, {bands}, {scale}, "
            f"clamp {self.clamp:g}, epsilon {self.magnitude_epsilon:g}, {'centred' if self.centred else 'not centred'}"
        )

    @property
    def name(self) -> str | None:
        """Name of this contract in `CONTRACTS`, or None."""
        return next((name for name, contract in CONTRACTS.items() if not contract.differences(self)), None)

    def named(self) -> str:
        """Returns the name, if there is one, and all settings in one line."""
        return self.describe() if self.name is None else f"{self.name} ({self.describe()})"

    def differences(self, other: MelContract) -> list[str]:
        """Returns a phrase for each setting that differs, such as "`hop` 256 instead of 200"."""
        mine, theirs = self._effective(), other._effective()
        return [f"`{name}` {mine[name]} instead of {theirs[name]}" for name in mine if mine[name] != theirs[name]]

    def obstacle(self, to: MelContract) -> str | None:
        """Returns the reason why a mel cannot be converted to another contract, or None if it can."""
        mine, theirs = self._effective(), to._effective()
        if changed := [f"`{name}`" for name in ANALYSIS if mine[name] != theirs[name]]:
            return f"{' and '.join(changed)} {'differs' if len(changed) == 1 else 'differ'}"
        if to.floor < self.floor * (1 - 1e-6):
            return f"magnitudes below {self.floor:g} are clipped, but the other contract keeps them"
        if self.magnitude_epsilon != to.magnitude_epsilon and max(self.silence, to.silence) > to.floor:
            return "`magnitude_epsilon` differs and changes magnitudes above the clamp"
        return None

    def check(self, given: MelContract, where: object) -> None:
        """Checks that a mel has this contract.

        Args:
            given: contract of the mel.
            where: name of the mel, for the message.

        Raises:
            DataError: the contracts differ. The message contains both, and states whether the mel can be converted.
        """
        if not self.differences(given):
            return
        obstacle = given.obstacle(self)
        remedy = "convert it with `--convert`" if obstacle is None else f"it cannot be converted ({obstacle})"
        if obstacle is not None and self.name is not None:
            remedy += f", but can be computed again from the sound with `gan-audio mel --contract {self.name}`"
        contracts = f"its contract is {given.named()}; the model needs {self.named()}"
        raise DataError(f"{where}: the mel does not have the model's contract; {remedy}; {contracts}")

    def convert(self, mel: Tensor, to: MelContract) -> Tensor:
        """Converts a mel of this contract to another contract, if that is possible.

        The base of the logarithm, the range of decibels, a higher clamp, an epsilon below the clamp, and the position
        of the frames can change. Conversion between centred and other frames shifts the sound by half a hop. Values
        that were clipped at the upper end of `decibels` remain clipped.

        Args:
            mel: `[…, mels, frames]`.
            to: the other contract.

        Raises:
            DataError: the mel cannot be converted; the message contains both contracts.
        """
        if not self.differences(to):
            return mel
        if (obstacle := self.obstacle(to)) is not None:
            raise DataError(f"cannot convert a mel from {self.describe()} to {to.describe()}: {obstacle}")
        return to.scaled(self.logarithm(mel).clamp(min=math.log(to.floor)))

    def logarithm(self, mel: Tensor) -> Tensor:
        """Returns the natural logarithm of the magnitudes of a mel."""
        if self.decibels is not None:
            low, high = self.decibels
            return (mel * (high - low) + low) / DECIBELS
        return mel * math.log(10) if self.log_base == "10" else mel

    def scaled(self, logarithm: Tensor) -> Tensor:
        """Converts natural logarithms of magnitudes, which are already clamped, to the scale of the contract."""
        if self.decibels is not None:
            low, high = self.decibels
            return ((logarithm * DECIBELS - low) / (high - low)).clamp(0, 1)
        return logarithm / math.log(10) if self.log_base == "10" else logarithm

    def _effective(self) -> dict[str, Any]:
        """Returns the settings for comparison: `high_hz` is in Hz, and `log_base` is left out if `decibels` is set."""
        unused = {} if self.decibels is None else {"log_base": "10"}
        return self.model_dump() | {"high_hz": self.high} | unused


CONTRACTS = {
    "melgan-22k": MelContract(sample_rate=22_050, fft_size=1024, hop=256, window=1024, mels=80, log_base="10"),
    "hifigan-22k": MelContract(
        sample_rate=22_050, fft_size=1024, hop=256, window=1024, mels=80, high_hz=8000, magnitude_epsilon=1e-9
    ),
    "tacotron2": MelContract(
        sample_rate=22_050, fft_size=1024, hop=256, window=1024, mels=80, high_hz=8000, centred=True
    ),
    "24k": MelContract(sample_rate=24_000, fft_size=1024, hop=256, window=1024, mels=100, magnitude_epsilon=1e-9),
}
"""Contracts by name: MelGAN's, HiFi-GAN's, Tacotron 2's as in NVIDIA's code, and BigVGAN's at 24 kHz."""


def named_contract(name: str) -> MelContract:
    """Returns a contract of `CONTRACTS`.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in CONTRACTS:
        raise unknown("mel contract", name, CONTRACTS)
    return CONTRACTS[name]


@runtime_checkable
class HasContract(Protocol):
    """Interface of games that generate mels or take them as input."""

    @property
    def contract(self) -> MelContract:
        """Contract of the mels."""


class MelSpectrogram(nn.Module):
    """Mel spectrogram of a contract: audio `[B, 1, T]` in [-1, 1] to mels `[B, mels, T // hop]`.

    Centred contracts give one more frame. If `fft_size - hop` is odd, the padding is one sample shorter, as in the
    published code, which gives `(T - 1) // hop` frames. Mels are computed in float32 or float64 even under autocast.
    The module has no state.

    Args:
        contract: mel contract.
    """

    filterbank: Tensor
    window: Tensor

    def __init__(self, contract: MelContract):
        super().__init__()
        self.contract = contract
        self.register_buffer("filterbank", filterbank(contract), persistent=False)
        on_meta = torch.get_default_device().type == "meta"
        window = torch.empty(contract.window) if on_meta else torch.hann_window(contract.window)
        self.register_buffer("window", window, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Computes the mels of whole recordings.

        Raises:
            DataError: the audio has several channels, or is too short for the reflection padding.
        """
        self._check_channels(audio)
        self._check_length(audio.shape[-1])
        edge = self.contract.edge
        with torch.autocast(audio.device.type, enabled=False):
            return self.frames(F.pad(full_precision(audio), (edge, edge), mode="reflect").squeeze(1))

    def frames(self, samples: Tensor) -> Tensor:
        """Computes the mels of all frames that lie completely within samples `[B, n]`, without padding."""
        contract = self.contract
        spectrum = torch.stft(
            samples,
            contract.fft_size,
            contract.hop,
            contract.window,
            self.window.to(samples),
            center=False,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(dim=-1)
        magnitude = (power + (contract.magnitude_epsilon or MIN_POWER)).sqrt()
        return contract.scaled((self.filterbank.to(samples) @ magnitude).clamp(min=contract.floor).log())

    @torch.no_grad()
    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Computes the mel of one recording that arrives in chunks.

        Args:
            chunks: audio `[1, 1, n]`, with any n.

        Yields:
            Mels `[1, mels, frames]` as soon as they can be computed. Their concatenation is the mel of the recording.

        Raises:
            DataError: the audio has several channels, or its total length is too short for the reflection padding.
        """
        hop, fft_size, edge = self.contract.hop, self.contract.fft_size, self.contract.edge
        start, length = list[Tensor](), 0  # samples before the first frame can be computed
        held: Tensor | None = None  # samples from the start of the next frame
        for part in self._parts(chunks):
            length += part.shape[1]
            if held is None:
                start.append(part)
                if length <= edge:
                    continue
                samples = torch.cat(start, dim=1)
                held = torch.cat([samples[:, 1 : edge + 1].flip(1), samples], dim=1)
            else:
                held = torch.cat([held, part], dim=1)
            complete = (held.shape[1] - fft_size) // hop + 1
            count = min(complete, (held.shape[1] - edge - 1) // hop)  # the last `edge` + 1 are needed for the padding
            if count > 0:
                yield self.frames(held[:, : fft_size + (count - 1) * hop])
                held = held[:, count * hop :]
        self._check_length(length)
        assert held is not None
        if held.shape[1] + edge >= fft_size:
            yield self.frames(torch.cat([held, held[:, -edge - 1 : -1].flip(1)], dim=1))

    def _parts(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the chunks as samples `[1, n]`, split if they are longer than `FRAMES_AT_ONCE` frames."""
        for chunk in chunks:
            self._check_channels(chunk)
            yield from torch.split(full_precision(chunk).squeeze(1), FRAMES_AT_ONCE * self.contract.hop, dim=1)

    def _check_channels(self, audio: Tensor) -> None:
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise DataError(f"the audio has the shape {list(audio.shape)}; expected one channel, [B, 1, T]")

    def _check_length(self, length: int) -> None:
        contract = self.contract
        least = max(contract.edge + 1, contract.fft_size - 2 * contract.edge)
        if length < least:
            raise DataError(f"the audio has {length} samples; a mel needs {least} or more ({contract.describe()})")


def filterbank(contract: MelContract) -> Tensor:
    """Returns the weights of FFT bins in mel bands, `[mels, fft_size // 2 + 1]`: triangles of area 1 over Hz.

    The edges of the bands are evenly spaced on the mel scale. Slaney's scale (Auditory Toolbox, 1998) is linear up to
    1 kHz and logarithmic above; HTK's is 2595 log₁₀(1 + f / 700).

    Computed in float64, as in librosa, and equal to librosa's to 1e-7 of a band's peak.
    `torchaudio.functional.melscale_fbanks` computes in float32, which differs by 1e-5, and rounds half the sample rate
    to whole Hz, which differs by 5e-3 at 11,025 Hz.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(contract.mels, contract.fft_size // 2 + 1)
    to_mel, to_hz = SCALES[contract.filterbank]
    low_mel, high_mel = to_mel(contract.low_hz), to_mel(contract.high)
    corners = to_hz(torch.linspace(low_mel, high_mel, contract.mels + 2, dtype=torch.float64))
    bins = torch.arange(contract.fft_size // 2 + 1, dtype=torch.float64) * (contract.sample_rate / contract.fft_size)
    edges = (torch.split(corners[k : contract.mels + k, None], BANDS_AT_ONCE) for k in range(3))
    return torch.cat([_triangles(bins, *three) for three in zip(*edges, strict=True)])


def _triangles(bins: Tensor, low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    """Returns the weights of FFT bins at frequencies `bins` in bands with corners `[bands, 1]`, all in Hz."""
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


LINEAR_TO = 1000.0
"""Frequency in Hz up to which Slaney's scale is linear, with 3 mels per 200 Hz; above, 27 mels are a factor of 6.4."""


def slaney_mel(hz: float) -> float:
    """Converts Hz to mels of Slaney's scale."""
    return 3 * hz / 200 if hz < LINEAR_TO else 15 + 27 * math.log(hz / LINEAR_TO) / math.log(6.4)


def slaney_hz(mel: Tensor) -> Tensor:
    """Converts mels of Slaney's scale to Hz."""
    return torch.where(mel < 15, 200 * mel / 3, LINEAR_TO * 6.4 ** ((mel - 15) / 27))


def htk_mel(hz: float) -> float:
    """Converts Hz to mels of HTK's scale."""
    return 2595 * math.log10(1 + hz / 700)


def htk_hz(mel: Tensor) -> Tensor:
    """Converts mels of HTK's scale to Hz."""
    return 700 * (10 ** (mel / 2595) - 1)


SCALES = {"slaney": (slaney_mel, slaney_hz), "htk": (htk_mel, htk_hz)}
"""Conversions from Hz to mels and back, by mel scale."""
