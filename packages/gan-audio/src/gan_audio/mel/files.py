"""Mel files: one mel as safetensors, with its contract in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gan_audio.mel.contract import MelContract
from gan_core.errors import DataError, RecipeError, reason_of
from gan_core.media.writing import replacing
from gan_core.models.checkpoint import write_tensors

SUFFIX = ".mel.safetensors"
"""File name suffix of mel files."""
CONTRACT = "contract"
"""Metadata key of the contract, which is stored as JSON."""
MEL_BYTES = 2**30
"""Maximum size of a mel file in bytes, enough for seven hours with 100 bands at 24 kHz."""
CONTRACT_BYTES = 10_000
"""Maximum length of a mel contract as JSON, in characters."""
TYPES = ("F32", "F16", "BF16")
"""Supported data types of mels in files."""


def write_mel(path: Path, mel: Tensor, contract: MelContract) -> None:
    """Writes one mel and its contract to a file, atomically.

    Args:
        path: output file, which is replaced if it exists.
        mel: `[mels, frames]` or `[1, mels, frames]`.
        contract: contract of the mel.

    Raises:
        DataError: the shape does not fit the contract.
        InputError: the file cannot be written.
    """
    bands = mel.detach().reshape(mel.shape[-2:]) if mel.ndim == 3 and len(mel) == 1 else mel.detach()
    _check_shape(path, list(bands.shape), contract)
    with replacing(path) as partial:
        write_tensors(partial, {"mel": bands.float()}, metadata={CONTRACT: contract.model_dump_json()})


def read_mel(path: Path) -> tuple[Tensor, MelContract]:
    """Reads a mel file.

    Returns:
        The mel `[1, mels, frames]` in float32, and its contract.

    Raises:
        DataError: the file is missing, too large, damaged, not a mel file, or has no contract.
    """
    try:
        if path.stat().st_size > MEL_BYTES:
            raise DataError(f"{path}: larger than {MEL_BYTES // 2**20:,} MiB, the maximum; split it into parts")
        with safe_open(path, framework="pt") as file:
            contract = _contract(path, file.metadata())
            if list(file.keys()) != ["mel"]:
                raise DataError(f"{path}: contains {len(list(file.keys()))} tensors; expected one, `mel`")
            found = file.get_slice("mel")
            _check_shape(path, found.get_shape(), contract)
            if found.get_dtype() not in TYPES:
                raise DataError(f"{path}: `mel` has the data type {found.get_dtype()}; expected {', '.join(TYPES)}")
            mel: Tensor = file.get_tensor("mel").float()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: not a mel file, or damaged ({reason_of(error)}); `gan-audio mel` writes mel files"
        ) from error
    if not mel.isfinite().all():
        raise DataError(f"{path}: contains values that are not finite")
    return mel[None], contract


def _contract(path: Path, metadata: Mapping[str, str] | None) -> MelContract:
    """Returns the contract in a file's metadata.

    Raises:
        DataError: the contract is missing, too long or invalid.
    """
    text = (metadata or {}).get(CONTRACT)
    if text is None:
        raise DataError(f"{path}: has no mel contract (`{CONTRACT}` is missing from the metadata)")
    if len(text) > CONTRACT_BYTES:
        raise DataError(f"{path}: its mel contract is longer than {CONTRACT_BYTES:,} characters")
    try:
        return MelContract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"`{part}`: " for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: its mel contract is invalid ({place}{reason})") from error
    except RecipeError as error:
        raise DataError(f"{path}: its mel contract is invalid ({error})") from error


def _check_shape(path: Path, shape: list[int], contract: MelContract) -> None:
    if len(shape) != 2 or shape[0] != contract.mels or shape[1] < 1:
        raise DataError(f"{path}: the mel has the shape {shape}; its contract needs [{contract.mels}, frames]")
