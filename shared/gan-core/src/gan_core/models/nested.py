"""State dicts within the checkpoints of other projects, which wrap them in mappings and give their keys prefixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from gan_core.errors import CheckpointError, count, printable

DEPTH = 6
"""Maximum number of mappings around a state dict, and of prefixes of its keys."""
FOUND = 64
"""Maximum number of state dicts that are considered in one checkpoint."""
EXPANSION = 4
"""Maximum size of the tensors of a state dict, as a multiple of the memory that they occupy.

Tensors that share memory, or whose strides are 0, are larger than their memory, and are copied when they are loaded.
"""
SMALL = 2**24
"""Size in bytes up to which the tensors of a state dict may be larger than their memory by any factor."""

Tensors = dict[str, Tensor]


def state_dicts(loaded: object) -> dict[str, Tensors]:
    """Returns the mappings of names to tensors in a loaded checkpoint, at any depth up to `DEPTH`.

    Values other than tensors, and mappings whose keys are not text (such as states of optimizers), are left out.

    Args:
        loaded: the content of the file.

    Returns:
        State dicts by their dotted path in the checkpoint, which is empty for the checkpoint itself; outer ones first.
    """
    found: dict[str, Tensors] = {}
    level: list[tuple[str, object]] = [("", loaded)]
    for _ in range(DEPTH):
        inner: list[tuple[str, object]] = []
        for path, value in level:
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                continue
            if tensors := {key: each for key, each in value.items() if isinstance(each, Tensor)}:
                found[path] = tensors
            inner += [(f"{path}.{key}".removeprefix("."), each) for key, each in value.items()]
        level = [(path, each) for path, each in inner if isinstance(each, Mapping)]
        if len(found) + len(level) > FOUND:
            level = level[: max(0, FOUND - len(found))]
    return found


def candidates(path: str, tensors: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Yields the state dicts that the keys of a mapping can be read as, with their paths.

    These are the mapping itself, the mapping without prefixes that all its keys share (`module.`, `generator.module.`),
    and, if its keys then have several first parts, the keys of each part.
    """
    yield from _candidates(path, tensors, DEPTH)


def _candidates(path: str, tensors: Tensors, depth: int) -> Iterator[tuple[str, Tensors]]:
    yield path, tensors
    parts: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        first, _, rest = key.partition(".")
        if rest:
            parts.setdefault(first, {})[rest] = tensor
    if not depth or len(parts) > FOUND:
        return
    shared = len(parts) == 1 and len(next(iter(parts.values()))) == len(tensors)
    further = _candidates if shared else _without_prefixes  # of the parts of parts, there would be too many
    for first, inner in parts.items():
        yield from further(f"{path}.{first}".removeprefix("."), inner, depth - 1)


def _without_prefixes(path: str, tensors: Tensors, depth: int) -> Iterator[tuple[str, Tensors]]:
    """Yields a mapping, and the mapping without the first, the first two … parts of its keys that all keys share."""
    yield path, tensors
    first = next(iter(tensors)).partition(".")[0]
    if depth and all(key.startswith(f"{first}.") for key in tensors):
        inner = {key[len(first) + 1 :]: tensor for key, tensor in tensors.items()}
        yield from _without_prefixes(f"{path}.{first}", inner, depth - 1)


def check_memory(tensors: Mapping[str, Tensor], where: str) -> None:
    """Checks that tensors are not much larger than the memory that they occupy, because they are copied.

    Raises:
        CheckpointError: they are.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    size, held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), sum(storages.values())
    if size > max(SMALL, EXPANSION * held):
        raise CheckpointError(
            f"{where}: its tensors have {size:,} bytes, but occupy only {held:,}; save them without expanded dimensions"
        )


def described(found: Mapping[str, Tensors]) -> str:
    """Returns the names of state dicts and their numbers of tensors, for messages."""
    return ", ".join(f"{quoted(path)} ({count(len(tensors), 'tensor')})" for path, tensors in found.items())


def quoted(path: str) -> str:
    """Returns the path of a state dict in a checkpoint, for messages."""
    return f"`{printable(path)}`" if path else "its top level"
