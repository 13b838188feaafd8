"""Checkpoints: written atomically, without pickle, and verified by SHA-256 when they are read.

A checkpoint is a folder with safetensors files, a folder `files` with a game's other files (`Game.save_files`), and
`state.json`, which contains all plain values, the SHA-256 of each file, and its own SHA-256.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_core.errors import CheckpointError, GanError
from gan_core.media.writing import partial_folder
from gan_core.models.nested import state_dicts

STATE = "state.json"
STATE_BYTES = 64_000_000
"""Maximum size of a `state.json`, in bytes."""

GAME, OPTIMIZERS, AVERAGE = "game.safetensors", "optimizers.safetensors", "average.safetensors"
"""Tensor files of a training checkpoint."""
EXTRA = "files"
"""Name of a checkpoint's folder for the game's own files."""
PICKLE_BYTES, PICKLE_SHARE = 2**20, 64
"""Maximum size of the pickle in a torch file: so many bytes, or the file's size divided by the second number if larger.

Torch's reader for untrusted pickles takes seconds for a million objects.
"""

Tensors = dict[str, Tensor]


def split_state(module: nn.Module, *, model: bool = False) -> tuple[Tensors, dict[str, Any]]:
    """Returns a module's state: tensors by name, and other values by name (`get_extra_state`).

    Networks on torch's `meta` device have no values and are left out.

    Args:
        module: the module.
        model: whether to omit training state, that is, modules whose attribute `of_training` is true.
    """
    left_out = tuple(state_of_training(module)) if model else ()
    state = {key: value for key, value in module.state_dict().items() if not key.startswith(left_out)}
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    plain = {key: value for key, value in state.items() if key not in tensors}
    return {key: value for key, value in tensors.items() if not value.is_meta}, plain


def state_of_training(module: nn.Module) -> Iterator[str]:
    """Yields the name prefixes of training state, such as replay pools, which is not part of a model.

    A module whose state is training state has the attribute `of_training = True`.
    """
    parts = module.named_modules(remove_duplicate=False)
    return (f"{name}." for name, part in parts if name and getattr(part, "of_training", False))


def load_state(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
    where: object,
    *,
    optional: Collection[str] = (),
) -> None:
    """Loads a state that `split_state` returned.

    Args:
        module: the module.
        tensors: its tensors by name.
        plain: its other values by name.
        where: origin of the state, for messages.
        optional: prefixes of names that may be missing; missing tensors keep their values.

    Raises:
        CheckpointError: the names or shapes do not match the module.
    """
    given = {**tensors, **plain}
    kept = (
        {}
        if not optional
        else {
            key: value
            for key, value in module.state_dict().items()
            if key.startswith(tuple(optional)) and key not in given
        }
    )
    try:
        module.load_state_dict(kept | given)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"{where}: does not fit {type(module).__name__}: {detail[:300]}") from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns the first 12 hexadecimal digits of the SHA-256 of names, shapes and values, sorted by name."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:12]


def write_checkpoint(
    folder: Path,
    files: Mapping[str, Tensors],
    state: Mapping[str, Any],
    *,
    save_files: Callable[[Path], None] | None = None,
) -> None:
    """Writes a checkpoint under a temporary name, flushes it, verifies its SHA-256 sums, and renames it.

    Args:
        folder: the checkpoint; replaced if it exists.
        files: tensors by file name.
        state: plain values.
        save_files: writes further files into an empty folder (`Game.save_files`).

    Raises:
        GanError: it could not be written, for example because the disk is full. An existing checkpoint is unchanged.
    """
    temporary = partial_folder(folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, tensors in files.items():
            write_tensors(temporary / name, tensors)
        sums = {name: sha256(temporary / name) for name in files}
        extra: dict[str, str] = {}
        if save_files is not None:
            (temporary / EXTRA).mkdir()
            save_files(temporary / EXTRA)
            extra = sums_of(temporary / EXTRA)
            if not extra:
                shutil.rmtree(temporary / EXTRA)
        sealed = _sealed({**state, "files": sums, "extra": extra})
        if len(sealed) > STATE_BYTES:
            raise GanError(
                f"{folder}: the game's extra state would make {STATE} {len(sealed):,} characters long; the maximum is "
                f"{STATE_BYTES:,}. Keep it in buffers, or write it to a file in `save_files`"
            )
        (temporary / STATE).write_text(sealed, encoding="utf-8")
        for path in (*temporary.rglob("*"), temporary):
            flush(path)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        flush(folder.parent)
    except (OSError, TypeError) as error:  # TypeError: a game's extra state is not JSON-serialisable
        raise GanError(
            f"{folder}: the checkpoint could not be written ({error}); earlier ones are untouched"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_checkpoint(folder: Path, names: Collection[str] | None = None) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Reads a checkpoint, verifies its SHA-256 sums, and returns its tensors by file name and its plain values.

    Args:
        folder: the checkpoint.
        names: tensor files to read and verify, if they exist (default: all).

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    state = _unsealed(folder)
    wanted = {name: total for name, total in state["files"].items() if names is None or name in names}
    files = {}
    for name, total in wanted.items():
        check_sum(folder / Path(name).name, total, STATE)
        files[name] = read_tensors(folder / Path(name).name)
    check_sums(folder / EXTRA, state["extra"], STATE)
    return files, state


def sums_of(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file in a folder, by path relative to it.

    Raises:
        GanError: an entry is neither a file nor a folder, or has a name that `read_checkpoint` would reject.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise GanError(f"{path}: `save_files` may only write regular files and folders")
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    for name in names:
        if not _is_inside(name):
            raise GanError(f"{folder}: `save_files` writes {name!r}; choose a file name without `:` and `\\`")
    return {name: sha256(path) for name, path in names.items()}


def check_sums(folder: Path, sums: Mapping[str, str], where: str) -> None:
    """Verifies the files of a folder against recorded sums.

    Args:
        folder: folder of the files.
        sums: SHA-256 by path relative to it.
        where: file that records the sums, for messages.

    Raises:
        CheckpointError: a path points outside of the folder, or a file is missing or damaged.
    """
    for name, total in sums.items():
        check_sum(folder / inside(name, where), total, where)


def inside(name: str, where: str) -> str:
    """Returns the path of a recorded file.

    Raises:
        CheckpointError: the path points outside of the folder.
    """
    if not _is_inside(name):
        raise CheckpointError(f"{where}: lists the file {name!r}, which is outside its folder; it is damaged")
    return name


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(name) & set("\\\0:")


def check_sum(path: Path, total: str, where: str) -> None:
    """Verifies a file against its recorded SHA-256.

    Raises:
        CheckpointError: the file is missing or has another SHA-256.
    """
    if not path.is_file() or sha256(path) != total:
        raise CheckpointError(f"{path}: missing or damaged (its SHA-256 is not the one in {where})")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as safetensors, from any device and memory format. Tensors that share memory are duplicated.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        memory = here.untyped_storage().data_ptr()
        plain[name] = here.clone() if memory in seen else here
        seen.add(memory)
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(plain, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # its class for file errors too
        number = re.search(r"\(os error (\d+)\)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(mode)  # safetensors creates files readable only by the owner


def read_tensors(path: Path) -> Tensors:
    """Returns the tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or is not safetensors.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error


def read_published(path: Path) -> Tensors:
    """Returns the tensors of a published file: its largest mapping of names to tensors; see `load_published`.

    Raises:
        CheckpointError: see `load_published`; or the file has no mapping of tensors.
    """
    found = state_dicts(load_published(path))
    return max(found.values(), key=len)  # a step or an accuracy next to the weights may be a tensor too


def load_published(path: Path) -> Mapping[str, Any]:
    """Returns the content of a published checkpoint: safetensors, or a torch file, whose code is never run.

    Raises:
        CheckpointError: the file is missing, contains objects other than tensors and plain values, is compressed, has
            too many plain values, or has no mapping of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        loaded = _load_torch(path)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files raise undocumented exceptions in torch's reader
        raise CheckpointError(
            f"{path}: not a torch file, or it has objects besides tensors and plain values"
        ) from error
    if not state_dicts(loaded):
        raise CheckpointError(f"{path}: contains no mapping from names to tensors, such as a state dict")
    return cast(Mapping[str, Any], loaded)


def _load_torch(path: Path) -> object:
    """Returns the content of a torch file without running code, with limits on memory and time.

    Raises:
        CheckpointError: the file is compressed, or has too many plain values.
    """
    limit = max(PICKLE_BYTES, path.stat().st_size // PICKLE_SHARE)
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            _check_archive(path, limit)
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  tensors only
        file.seek(0)
        return torch.load(Metered(path, file, limit), map_location="cpu", weights_only=True)  # noqa: TID251


def _check_archive(path: Path, limit: int) -> None:
    """Checks the directory of a torch file, which is a zip archive, before its records are read.

    Raises:
        CheckpointError: a record is compressed, which torch never does, the records are larger than the file, or the
            plain values are larger than `limit`.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(f"{path}: has compressed records, which torch does not write; save it again with torch")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise CheckpointError(f"{path}: damaged (its records are larger than the file)")
    if sum(record.file_size for record in records if record.filename.endswith(".pkl")) > limit:
        raise _too_many_values(path, limit)


class Metered:
    """A file in torch's old format, whose pickle may take a limited number of reads.

    Args:
        path: path of the file, for messages.
        file: the file.
        limit: maximum number of reads.
    """

    def __init__(self, path: Path, file: IO[bytes], limit: int):
        self.path, self.file, self.limit, self.reads = path, file, limit, 0

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes.

        Raises:
            CheckpointError: the limit is reached.
        """
        self.reads += 1
        if self.reads > self.limit:
            raise _too_many_values(self.path, self.limit)
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _too_many_values(path: Path, limit: int) -> CheckpointError:
    return CheckpointError(
        f"{path}: has more than {limit:,} bytes of values besides tensors; save the weights alone "
        "(`torch.save(network.state_dict(), FILE)`)"
    )


def _sealed(state: Mapping[str, Any]) -> str:
    body = json.dumps(state, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "state": json.loads(body)}, sort_keys=True)


def _unsealed(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    try:
        if path.stat().st_size > STATE_BYTES:
            raise CheckpointError(f"{path}: larger than the maximum of {STATE_BYTES:,} bytes")
        sealed = json.loads(path.read_text(encoding="utf-8"))
        body = json.dumps(sealed["state"], sort_keys=True)
        whole = hashlib.sha256(body.encode()).hexdigest() == sealed["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error})") from error
    if not whole:
        raise CheckpointError(f"{path}: damaged (its SHA-256 does not match)")
    state: dict[str, Any] = sealed["state"]
    if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in ("files", "extra")):
        raise CheckpointError(f"{path}: is not the state of a checkpoint (it lists no files)")
    return state


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Flushes the system's buffers of a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
