"""Mel spectrograms: the contract that says how one was made, the analysis, conversions, and files that keep both.

Two mels that look alike are of no use to each other's models where one number of their analysis differs, so the numbers
travel with every mel and every model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from gan_core.errors import DataError, RecipeError, reason_of, unknown
from gan_core.media.writing import replacing
from gan_core.models.checkpoint import write_tensors
from gan_core.nn.precision import full_precision
from gan_core.recipe import Settings

SUFFIX = ".mel.safetensors"
"""Of mel files."""
CONTRACT = "contract"
"""The key of a mel file's metadata under which its contract stands, as JSON."""
MEL_BYTES = 2**30
"""The largest mel file that is read: seven hours of 100 bands at 24 kHz."""
CONTRACT_BYTES = 10_000
"""The longest contract that is read."""
TINY = 1e-30
"""Added to a power where the contract adds nothing: the root of nothing has no derivative."""
FRAMES_AT_ONCE = 512
"""Frames that a stream analyses in one pass."""
DECIBELS = 20 / math.log(10)
"""In one neper: magnitudes' natural logarithms to dB."""

Samples = Annotated[int, Field(ge=1, le=65_536)]
Bands = Annotated[int, Field(ge=1, le=512)]
"""Few enough that their weights of the longest FFT fit in memory."""
Decibels = Annotated[float, Field(ge=-700, le=700)]
"""Levels whose magnitudes float32 can hold."""


class MelContract(Settings):
    """How mels are made of audio. Two are the same where all of it is.

    A name in the place of the settings means those of `CONTRACTS`.

    Attributes:
        sample_rate: in Hz.
        fft_size: samples of a frame, which the window is centred in.
        hop: samples from frame to frame.
        window: samples of the periodic Hann window.
        mels: how many bands.
        low_hz: where the first band begins.
        high_hz: where the last band ends; None is half the sample rate.
        filterbank: the mel scale, Slaney's (librosa's default) or HTK's; the bands' areas are 1 with both.
        magnitude_epsilon: added to the power before its root is taken.
        log_base: of the logarithm.
        clamp: the magnitude in a band that lower ones are raised to before the logarithm.
        decibels: the levels that become 0 and 1, where values are normalised so, and cut there; None leaves logarithms.
        centred: whether frame n is centred on sample n · hop, with half a frame more of reflection at both ends; else
            it is centred on the middle of its hop.
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
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        if given not in CONTRACTS:
            raise unknown("mel contract", given, CONTRACTS)
        return CONTRACTS[given].model_dump()

    @field_validator("log_base", mode="before")
    @classmethod
    def _as_text(cls, base: Any) -> Any:
        return str(base) if isinstance(base, int) else base  # YAML's 10

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.hop <= self.window <= self.fft_size:
            sizes = f"`hop` is {self.hop}, `window` {self.window} and `fft_size` {self.fft_size}"
            raise ValueError(f"{sizes}; none may be larger than the next")
        if not self.low_hz < self.high <= self.sample_rate / 2:
            bands = f"the bands go from `low_hz` {self.low_hz:g} to `high_hz` {self.high:g}"
            raise ValueError(f"{bands}; they must rise, up to half the sample rate, {self.sample_rate / 2:g}")
        if self.decibels is not None and not self.decibels[0] < self.decibels[1]:
            raise ValueError(f"`decibels` is {list(self.decibels)}; give the lower level first")
        return self

    def but(self, **changes: Any) -> MelContract:
        """This contract with some settings changed, validated again."""
        return MelContract.model_validate(self.model_dump() | changes)

    @property
    def high(self) -> float:
        """Where the last band ends, in Hz."""
        return self.sample_rate / 2 if self.high_hz is None else self.high_hz

    @property
    def edge(self) -> int:
        """Samples of reflection at each end."""
        return self.fft_size // 2 if self.centred else (self.fft_size - self.hop) // 2

    def rest(self, samples: int) -> int:
        """Samples of silence after which the mel of so many reaches their end."""
        return -samples % self.hop + (self.fft_size - self.hop) % 2

    @property
    def floor(self) -> float:
        """The magnitude that lower ones cannot be told from."""
        return self.clamp if self.decibels is None else max(self.clamp, math.exp(self.decibels[0] / DECIBELS))

    @property
    def silence(self) -> float:
        """The magnitude in a band that `magnitude_epsilon` makes of silence: a band's weights sum to 1 / bin width."""
        return math.sqrt(self.magnitude_epsilon) * self.fft_size / self.sample_rate

    def describe(self) -> str:
        """The contract in one line."""
        bands = f"{self.mels} mels from {self.low_hz:g} to {self.high:g} Hz ({self.filterbank})"
        base = f"log base {self.log_base}"
        if self.decibels is not None:
            base = f"{self.decibels[0]:g} to {self.decibels[1]:g} dB as 0 to 1"
        return (
            f"{self.sample_rate:,} Hz, FFT {self.fft_size}, hop {self.hop}, window {self.window}, {bands}, {base}, "
            f"clamp {self.clamp:g}, epsilon {self.magnitude_epsilon:g}, {'centred' if self.centred else 'not centred'}"
        )

    @property
    def name(self) -> str | None:
        """That it has in `CONTRACTS`; None if it is none of them."""
        return next((name for name, contract in CONTRACTS.items() if not contract.differences(self)), None)

    def named(self) -> str:
        """Its name, where it has one, and the contract in one line."""
        return self.describe() if self.name is None else f"{self.name} ({self.describe()})"

    def differences(self, other: MelContract) -> list[str]:
        """What differs, each as one phrase: "`hop` 256 against 200"."""
        mine, theirs = self._settled(), other._settled()
        return [f"`{name}` {mine[name]} against {theirs[name]}" for name in mine if mine[name] != theirs[name]]

    def obstacle(self, to: MelContract) -> str | None:
        """Why a mel cannot be converted to another contract; None where it can."""
        analysis = ("sample_rate", "fft_size", "hop", "window", "mels", "low_hz", "high_hz", "filterbank")
        mine, theirs = self._settled(), to._settled()
        if changed := [f"`{name}`" for name in analysis if mine[name] != theirs[name]]:
            return f"{' and '.join(changed)} cannot be changed afterwards"
        if to.floor < self.floor * (1 - 1e-6):
            return f"it does not tell magnitudes below {self.floor:g} apart, and the other does"
        if self.magnitude_epsilon != to.magnitude_epsilon and max(self.silence, to.silence) > to.floor:
            return "`magnitude_epsilon` shows above the clamp"
        return None

    def check(self, given: MelContract, where: object) -> None:
        """Makes sure that a mel is of this contract.

        Args:
            given: the mel's contract.
            where: its name, for the message.

        Raises:
            DataError: it is of another; the message shows both, and whether `--convert` would convert it.
        """
        if not self.differences(given):
            return
        obstacle = given.obstacle(self)
        remedy = "`--convert` converts it" if obstacle is None else f"it cannot be converted ({obstacle})"
        if obstacle is not None and self.name is not None:
            remedy += f", but made anew by `gan-audio mel --contract {self.name}`"
        contracts = f"its contract is {given.named()}; the model's is {self.named()}"
        raise DataError(f"{where}: is not a mel of the model's contract; {remedy}; {contracts}")

    def convert(self, mel: Tensor, to: MelContract) -> Tensor:
        """A mel of this contract as one of another, where that is sound.

        The base of the logarithm, a clamp that rises, the range of decibels, an epsilon that shows in neither, and the
        place of frames can change. Between centred frames and others all of the sound is moved by half a hop. What was
        cut above a range of decibels stays cut.

        Args:
            mel: `[…, mels, frames]`.
            to: the other contract.

        Raises:
            DataError: it is not; the message shows both contracts.
        """
        if not self.differences(to):
            return mel
        if (obstacle := self.obstacle(to)) is not None:
            raise DataError(f"no mel of {self.describe()} becomes one of {to.describe()}: {obstacle}")
        return to.scaled(self.logarithm(mel).clamp(min=math.log(to.floor)))

    def logarithm(self, mel: Tensor) -> Tensor:
        """The natural logarithm of magnitudes, of a mel of this contract."""
        if self.decibels is not None:
            low, high = self.decibels
            return (mel * (high - low) + low) / DECIBELS
        return mel * math.log(10) if self.log_base == "10" else mel

    def scaled(self, logarithm: Tensor) -> Tensor:
        """A mel of this contract, of the natural logarithm of magnitudes that are clamped already."""
        if self.decibels is not None:
            low, high = self.decibels
            return ((logarithm * DECIBELS - low) / (high - low)).clamp(0, 1)
        return logarithm / math.log(10) if self.log_base == "10" else logarithm

    def _settled(self) -> dict[str, Any]:
        """The settings that count: half the sample rate is named, and a base that decibels hide is not."""
        hidden = {} if self.decibels is None else {"log_base": "10"}
        return self.model_dump() | {"high_hz": self.high} | hidden


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
"""Contracts by name: MelGAN's, HiFi-GAN's, Tacotron 2's in NVIDIA's code, and BigVGAN's at 24 kHz."""


@runtime_checkable
class HasContract(Protocol):
    """Games that make or read mels."""

    @property
    def contract(self) -> MelContract:
        """Contract of the mels."""


class MelSpectrogram(nn.Module):
    """Audio `[B, 1, T]` in [-1, 1] to mels `[B, mels, T // hop]` of a contract (one frame more where it is centred).

    Where `fft_size - hop` is odd, reflection is a sample short, as in the published code: `(T - 1) // hop` frames.
    It is computed in float32 at least, whatever the precision around it. It has no state.

    Args:
        contract: how.
    """

    filterbank: Tensor
    window: Tensor

    def __init__(self, contract: MelContract):
        super().__init__()
        self.contract = contract
        self.register_buffer("filterbank", filterbank(contract), persistent=False)
        self.register_buffer("window", torch.hann_window(contract.window), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """The mels of whole recordings.

        Raises:
            DataError: the audio has several channels, or is too short to be reflected at its ends.
        """
        self._check_channels(audio)
        self._long_enough(audio.shape[-1])
        edge = self.contract.edge
        with torch.autocast(audio.device.type, enabled=False):
            return self.frames(F.pad(full_precision(audio), (edge, edge), mode="reflect").squeeze(1))

    def frames(self, samples: Tensor) -> Tensor:
        """The mels of the frames that lie wholly within samples `[B, n]`: from every hop on, one."""
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
        magnitude = (power + (contract.magnitude_epsilon or TINY)).sqrt()
        return contract.scaled((self.filterbank.to(samples) @ magnitude).clamp(min=contract.floor).log())

    @torch.no_grad()
    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The mels of a recording that comes in parts, as they can be told: together, those of the whole.

        Args:
            chunks: audio `[1, 1, n]`, of any sizes.

        Raises:
            DataError: it has several channels, or all of it together is too short to be reflected at its ends.
        """
        contract, edge = self.contract, self.contract.edge
        held: Tensor | None = None  # from the next frame's first sample on
        length, begun = 0, False
        for chunk in chunks:
            self._check_channels(chunk)
            for part in torch.split(full_precision(chunk).squeeze(1), FRAMES_AT_ONCE * contract.hop, dim=1):
                held = part if held is None else torch.cat([held, part], dim=1)
                length += part.shape[1]
                if not begun:
                    if length <= edge:
                        continue
                    held, begun = torch.cat([held[:, 1 : edge + 1].flip(1), held], dim=1), True
                whole = (held.shape[1] - contract.fft_size) // contract.hop + 1
                count = min(whole, (held.shape[1] - edge - 1) // contract.hop)  # the rest is reflected at the end
                if count > 0:
                    yield self.frames(held[:, : contract.fft_size + (count - 1) * contract.hop])
                    held = held[:, count * contract.hop :]
        self._long_enough(length)
        assert held is not None
        if held.shape[1] + edge >= contract.fft_size:
            yield self.frames(torch.cat([held, held[:, -edge - 1 : -1].flip(1)], dim=1))

    def _check_channels(self, audio: Tensor) -> None:
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise DataError(
                f"the audio has the shape {list(audio.shape)}; a mel is of one channel, [B, 1, T]: mix it down"
            )

    def _long_enough(self, length: int) -> None:
        contract = self.contract
        least = max(contract.edge + 1, contract.fft_size - 2 * contract.edge)
        if length < least:
            given = f"the audio is {length} samples long"
            raise DataError(f"{given}; one frame of a mel of {contract.describe()} needs {least} or more")


def filterbank(contract: MelContract) -> Tensor:
    """The bands' weights of an FFT's bins, `[mels, fft_size // 2 + 1]`: triangles of area 1 over Hz, even on the scale.

    Slaney's scale (Auditory Toolbox, 1998) is linear to 1 kHz and logarithmic above, HTK's is 2595 log₁₀(1 + f / 700).
    """
    to_mel, to_hz = SCALES[contract.filterbank]
    low_mel, high_mel = to_mel(contract.low_hz), to_mel(contract.high)
    corners = to_hz(torch.linspace(low_mel, high_mel, contract.mels + 2, dtype=torch.float64))
    bins = torch.arange(contract.fft_size // 2 + 1, dtype=torch.float64) * (contract.sample_rate / contract.fft_size)
    low, middle, high = (corners[k : contract.mels + k, None] for k in range(3))
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


LINEAR_TO = 1000.0
"""Hz, up to which Slaney's scale is linear, with 3 mels to 200 Hz; above, 27 mels multiply by 6.4."""


def slaney_mel(hz: float) -> float:
    """Hz to mels of Slaney's scale."""
    return 3 * hz / 200 if hz < LINEAR_TO else 15 + 27 * math.log(hz / LINEAR_TO) / math.log(6.4)


def slaney_hz(mel: Tensor) -> Tensor:
    """Mels of Slaney's scale to Hz."""
    return torch.where(mel < 15, 200 * mel / 3, LINEAR_TO * 6.4 ** ((mel - 15) / 27))


def htk_mel(hz: float) -> float:
    """Hz to mels of HTK's scale."""
    return 2595 * math.log10(1 + hz / 700)


def htk_hz(mel: Tensor) -> Tensor:
    """Mels of HTK's scale to Hz."""
    return 700 * (10 ** (mel / 2595) - 1)


SCALES = {"slaney": (slaney_mel, slaney_hz), "htk": (htk_mel, htk_hz)}


# --- files


def write_mel(path: Path, mel: Tensor, contract: MelContract) -> None:
    """Writes one mel as safetensors, whole or not at all, with its contract in the metadata.

    Args:
        path: the file; replaced if it exists.
        mel: `[mels, frames]` or `[1, mels, frames]`.
        contract: of the mel.

    Raises:
        DataError: it is not one mel of that contract.
        InputError: nothing can be written there.
    """
    bands = mel.detach().reshape(mel.shape[-2:]) if mel.ndim == 3 and len(mel) == 1 else mel.detach()
    _check_shape(path, list(bands.shape), contract)
    with replacing(path) as partial:
        write_tensors(partial, {"mel": bands.float()}, metadata={CONTRACT: contract.model_dump_json()})


def read_mel(path: Path) -> tuple[Tensor, MelContract]:
    """The mel `[1, mels, frames]` (float32) of a file, and its contract.

    Raises:
        DataError: the file is missing, too large, damaged, no mel of ours, or without a contract.
    """
    try:
        if path.stat().st_size > MEL_BYTES:
            raise DataError(f"{path}: larger than {MEL_BYTES // 2**20:,} MiB, which no mel is; cut it into parts")
        with safe_open(path, framework="pt") as file:
            contract = _contract(path, file.metadata())
            if list(file.keys()) != ["mel"]:
                raise DataError(f"{path}: holds {len(list(file.keys()))} tensors; a mel file holds one, `mel`")
            found = file.get_slice("mel")
            _check_shape(path, found.get_shape(), contract)
            if found.get_dtype() not in ("F32", "F16", "BF16"):
                raise DataError(f"{path}: its `mel` is of the type {found.get_dtype()}; expected F32")
            mel: Tensor = file.get_tensor("mel").float()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: is no mel file, or damaged ({reason_of(error)}); `gan-audio mel` writes them"
        ) from error
    if not mel.isfinite().all():
        raise DataError(f"{path}: the mel holds values that are not finite")
    return mel[None], contract


def _contract(path: Path, metadata: Mapping[str, str] | None) -> MelContract:
    text = (metadata or {}).get(CONTRACT)
    if text is None:
        raise DataError(f"{path}: says nothing of how its mel was made (no `{CONTRACT}` in the metadata)")
    try:
        if len(text) > CONTRACT_BYTES:
            raise DataError(f"{path}: its contract is longer than {CONTRACT_BYTES:,} characters")
        return MelContract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"`{part}`: " for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: its contract is none ({place}{reason})") from error
    except RecipeError as error:
        raise DataError(f"{path}: its contract is none ({error})") from error


def _check_shape(path: Path, shape: list[int], contract: MelContract) -> None:
    if len(shape) != 2 or shape[0] != contract.mels or shape[1] < 1:
        raise DataError(f"{path}: the mel is {shape}; expected [{contract.mels}, frames], as its contract says")
