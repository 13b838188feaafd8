"""Mel files: one mel as safetensors, with its contract in the metadata; and mels of other tools as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gan_audio.mel.contract import CONTRACTS, MelContract
from gan_core.errors import DataError, RecipeError, reason_of
from gan_core.media.writing import replacing
from gan_core.models.checkpoint import write_tensors

SUFFIX = ".mel.safetensors"
"""File name suffix of mel files."""
CONTRACT = "contract"
"""Metadata key of the contract, which is stored as JSON."""
MEL_BYTES = 2**30
"""Maximum size of a mel file in bytes, enough for seven hours with 100 bands at 24 kHz."""
VERSIONS = ((1, 0), (2, 0), (3, 0))
"""Supported versions of the NumPy format."""
HEADER_BYTES = 10_000
"""Maximum length of the header of a NumPy file, in characters."""
CONTRACT_BYTES = 10_000
"""Maximum length of a mel contract as JSON, in characters."""
ARRAY = ".npy"
"""File name suffix of mels as NumPy arrays, which have no contract."""
OTHERS = (".npz", ".pt", ".pth", ".pkl", ".txt", ".csv", ".h5", ".hdf5", ".mat")
"""File name suffixes of arrays that cannot be read as mels."""
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


def read_array(path: Path, contract: MelContract) -> tuple[Tensor, bool]:
    """Reads a mel of another tool from a NumPy file.

    Args:
        path: file with an array `[mels, frames]`, `[1, mels, frames]`, or with these axes exchanged.
        contract: contract of the mel.

    Returns:
        The mel `[1, mels, frames]` in float32, and whether the axes in the file are exchanged.

    Raises:
        DataError: the file is missing, too large, damaged, or not an array of that shape.
    """
    try:
        with path.open("rb") as file:
            shape, kind, columns_first = _array_header(file)
            size = math.prod(shape) * kind.itemsize
            if kind.kind != "f":
                raise DataError(f"{path}: the array has the data type {kind}; expected floating-point numbers")
            if size > MEL_BYTES:
                raise DataError(f"{path}: larger than {MEL_BYTES // 2**20:,} MiB, the maximum; split it into parts")
            if path.stat().st_size - file.tell() != size:
                raise DataError(f"{path}: damaged (its size does not match its shape, {list(shape)})")
            flat = len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)
            if not flat or contract.mels not in shape[-2:] or not size:
                found = f"the array has the shape {list(shape)}"
                raise DataError(f"{path}: {found}; the contract needs [{contract.mels}, frames]")
            numbers = np.fromfile(file, kind, math.prod(shape)).reshape(shape, order="F" if columns_first else "C")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a NumPy array, or damaged ({reason_of(error)})") from error
    with np.errstate(over="ignore"):
        mel = torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32)).reshape(shape[-2:])
    if not mel.isfinite().all():
        raise DataError(f"{path}: contains values that are not finite")
    exchanged = len(mel) != contract.mels
    return (mel.T.contiguous() if exchanged else mel)[None], exchanged


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Returns the shape and the data type of an array from the header of its file, and whether columns come first.

    Raises:
        ValueError: the header is invalid.
    """
    version = np.lib.format.read_magic(file)
    if version not in VERSIONS:
        raise ValueError(f"its format has the version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, kind = read(file, max_header_size=HEADER_BYTES)
    return shape, kind, columns_first


def refuse_array(path: Path) -> None:
    """Checks that a file is not an array, which has no mel contract.

    Raises:
        DataError: it is; the message says how it can be read.
    """
    suffix = path.suffix.lower()
    if suffix == ARRAY:
        names = ", ".join(CONTRACTS)
        raise DataError(f"{path}: an array has no mel settings; `vocode --contract NAME` reads it as a mel ({names})")
    if suffix in OTHERS:
        raise DataError(
            f"{path}: {suffix} files are not read as mels; in Python, save the array [mels, frames] with "
            "`numpy.save`, then use `vocode --contract NAME` on the .npy file"
        )


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
