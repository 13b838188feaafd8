"""Descriptions of networks that can be exported from a game; see `gan_core.models.export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Axis:
    """A dynamic axis of an input.

    Attributes:
        name: name of the axis; axes of the same name have the same size.
        multiple: number by which the size must be divisible.
        least: minimum size.
    """

    name: str
    multiple: int = 1
    least: int = 1

    def __str__(self) -> str:
        wanted = [f"a multiple of {self.multiple}"] if self.multiple > 1 else []
        wanted += [f"at least {self.least}"] if self.least > self.multiple else []
        return ", ".join(wanted) or "any size"


BATCH = Axis("batch")
"""Batch axis, the first of every input."""


def signals(shape: tuple[int, ...]) -> Tensor:
    """Returns example values, uniform in [-1, 1), with the given shape."""
    return 2 * torch.rand(shape) - 1


@dataclass(frozen=True)
class Input:
    """An input of an exported network.

    Attributes:
        shape: sizes of the axes; an `Axis` if it is dynamic.
        values: description of the values, such as "[-1, 1]".
        draw: returns example values with a given shape, which are used to check the export.
    """

    shape: tuple[int | Axis, ...]
    values: str
    draw: Callable[[tuple[int, ...]], Tensor] = signals


@dataclass(frozen=True)
class Exported:
    """A network that can be exported from a game.

    Attributes:
        network: maps the inputs, in their order, to the outputs.
        inputs: inputs by name.
        outputs: descriptions of the outputs' values, by name.
        facts: additional metadata of the file, such as the sample rate.
    """

    network: nn.Module
    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> dict[str, Axis]:
        """The dynamic axes by name."""
        sizes = (size for one in self.inputs.values() for size in one.shape)
        return {size.name: size for size in sizes if isinstance(size, Axis)}
