"""Published networks from published checkpoints: keys and shapes in, our network with those weights out.

An importer takes the checkpoint, and as keywords what no shape tells.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gan_core.errors import CheckpointError, RecipeError, unknown

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Published:
    """Conversion of a published checkpoint to a network of this package.

    Attributes:
        network: class of the network.
        settings: its keywords, inferred from the checkpoint's shapes.
        weights: the checkpoint's weights under our names.
        arguments: arguments of the published constructor, by its own names, inferred from the shapes; an argument that
            the caller gives must agree with them.
        spec: fields of the data specification (`data.spec` of a recipe) that the published network was trained with,
            where the paper's preset may have other values.
        game: settings that the game needs for this network.
        place: name of the network in the system's game; None if it is the importer's.
        elsewhere: other networks of the game that can have these weights, by name, with the settings that differ.
    """

    network: Callable[..., nn.Module]
    settings: Mapping[str, Any]
    weights: StateDict
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    game: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    elsewhere: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Our network with the published weights.

        Raises:
            CheckpointError: the checkpoint lacks a tensor, has one too many, or one of another shape.
        """
        try:
            with torch.device("meta"):  # compares all shapes before a network that may be larger is allocated
                self.network(**self.settings).load_state_dict(dict(self.weights), assign=True)
            network = self.network(**self.settings)
            network.load_state_dict(dict(self.weights))
        except (RuntimeError, RecipeError) as error:
            raise CheckpointError(f"the checkpoint does not fit: {' '.join(str(error).split())[:300]}") from error
        return network


Importers = Mapping[str, Callable[..., Published]]
"""A domain's importers of published checkpoints, by `system/network`."""


def read_reference(importers: Importers, name: str, state_dict: StateDict, arguments: Mapping[str, Any]) -> Published:
    """Reads a published checkpoint with the importer of that name.

    Raises:
        CheckpointError: there is no importer of that name, or the checkpoint or an argument does not fit it.
    """
    if name not in importers:
        raise unknown("published network", name, importers, CheckpointError)
    for key, tensor in state_dict.items():
        if isinstance(tensor, Tensor) and tensor.numel() == 0:
            raise CheckpointError(f"{name}: the checkpoint's `{key}` is empty")
    importer = importers[name]
    told = {key: value for key, value in arguments.items() if key in inspect.signature(importer).parameters}
    try:
        published = importer(state_dict, **told)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, RecipeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{name}: the checkpoint is of another network ({reason})") from error
    for key, value in arguments.items():
        if key in told:
            continue
        if key not in published.arguments:
            raise unknown(f"argument of {name}", key, published.arguments, CheckpointError)
        if published.arguments[key] != value:
            raise CheckpointError(f"{name}: `{key}` is {value!r}, and the checkpoint's is {published.arguments[key]!r}")
    return published


def load_reference(importers: Importers, name: str, state_dict: StateDict, **arguments: Any) -> nn.Module:
    """A published network with a published checkpoint's weights; see `gan_core.api.Toolkit.load_reference`."""
    return read_reference(importers, name, state_dict, arguments).build()


def renamed(state_dict: StateDict, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A checkpoint with the prefixes of its keys replaced: `{"main.0": "stem.conv"}`; other keys stay."""
    prefixes = sorted(names, key=len, reverse=True)

    def rename(key: str) -> str:
        for prefix in prefixes:
            if key == prefix or key.startswith(f"{prefix}."):
                return names[prefix] + key[len(prefix) :]
        return key

    return {rename(key): value for key, value in state_dict.items()}
