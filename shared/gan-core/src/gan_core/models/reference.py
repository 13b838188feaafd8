"""Import of published checkpoints.

An importer infers the network's settings from the shapes of the weights and renames the weights. It takes the
checkpoint and, as keywords, settings that cannot be inferred from the shapes.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gan_core.errors import CheckpointError, RecipeError, reason_of, unknown
from gan_core.models.checkpoint import load_published
from gan_core.models.nested import candidates, check_memory, described, quoted, state_dicts
from gan_core.play.preset import on_meta

logger = logging.getLogger("gan_core")

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Published:
    """Conversion of a published checkpoint to a network of this package.

    Attributes:
        network: class of the network.
        settings: keyword arguments of the network, inferred from the checkpoint's shapes.
        weights: the checkpoint's weights under our names; tensors of spectral normalization may have the names of
            `torch.nn.utils.spectral_norm`.
        arguments: arguments of the published constructor, under their published names, inferred from the shapes.
            Arguments that the caller gives must agree with them.
        spec: fields of the data specification (`data.spec` of a recipe) that the published network was trained with,
            where the paper's preset may have other values.
        game: settings that the game needs for this network.
        place: name of the network in the system's game; None if it is the importer's.
        elsewhere: other networks of the game that can load these weights, by name, with the settings that differ.
        path: path of the weights in the checkpoint, such as `state_dict.generator`; empty for the checkpoint itself.
        notes: lines about settings that were read from other files.
    """

    network: Callable[..., nn.Module]
    settings: Mapping[str, Any]
    weights: StateDict
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    game: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    elsewhere: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path: str = ""
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Compares the weights with the network on torch's `meta` device, before memory is allocated.

        Raises:
            CheckpointError: a tensor is missing, does not belong to the network, or has another shape.
        """
        try:
            with on_meta():
                self.network(**self.settings).load_state_dict(dict(self.weights), assign=True)
        except UNFIT as error:
            raise CheckpointError(f"the checkpoint does not fit: {_reason(error)}") from error

    def build(self) -> nn.Module:
        """Builds the network and loads the published weights.

        Raises:
            CheckpointError: see `check`.
        """
        self.check()
        network = self.network(**self.settings)
        network.load_state_dict(dict(self.weights))
        return network


Importers = Mapping[str, Callable[..., Published]]
"""Importers of a domain by name of the published network, `system/network`."""

UNFIT = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError, RecipeError)
"""Exceptions of importers and networks for weights of another network."""
AVERAGED = "ema"
"""Part of the name of averaged weights in published checkpoints."""
CONFIG, CONFIG_BYTES = "config.json", 1_000_000
"""Name and maximum size in bytes of the file with settings that some projects publish beside the weights."""


def read_reference(
    importers: Importers, name: str, checkpoint: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Published:
    """Reads a published checkpoint with the importer of a network.

    The weights may be within other mappings, and their names may have prefixes; see `gan_core.models.nested`. If
    several parts of the checkpoint fit the network, its own name and averaged weights of generators have priority.

    Args:
        importers: importers by name.
        name: name of the published network, `system/network`.
        checkpoint: the checkpoint.
        arguments: keywords of the importer, or arguments of the published constructor, which are compared with those
            inferred from the shapes.

    Raises:
        CheckpointError: there is no importer of that name, the checkpoint is of another network, or an argument is
            unknown or differs from the checkpoint's.
    """
    importer = find_importer(importers, name)
    given = {key: value for key, value in arguments.items() if key in inspect.signature(importer).parameters}
    found = state_dicts(checkpoint) or {"": {}}
    fitting: dict[str, Published] = {}
    refused: list[CheckpointError] = []
    for outer, state in sorted(found.items(), key=lambda item: _priority(item[0], name)):
        whole: list[str] = []  # parts of a network that fits are not read as networks of their own
        for path, tensors in candidates(outer, state):
            if any(path.startswith(f"{each}.") or each == outer for each in whole):
                continue
            try:
                fitting[path] = _read(name, importer, tensors, given)
                whole.append(path)
            except CheckpointError as error:
                refused.append(error)
    if not fitting:
        raise _refusal(refused, found)
    chosen = min(fitting, key=lambda path: _priority(path, name))
    published = replace(fitting[chosen], path=chosen)
    if len(fitting) > 1:
        others = ", ".join(quoted(path) for path in fitting if path != chosen)
        logger.warning("%s: using %s of the checkpoint, which also has %s", name, quoted(chosen), others)
    for key, value in arguments.items():
        if key in given:
            continue
        if key not in published.arguments:
            raise unknown(f"argument of {name}", key, published.arguments, CheckpointError)
        if published.arguments[key] != value:
            found = published.arguments[key]
            raise CheckpointError(f"{name}: `{key}` is {value!r}, but {found!r} in the checkpoint; omit it")
    return published


def find_importer(importers: Importers, name: str) -> Callable[..., Published]:
    """Returns the importer of a network.

    Raises:
        CheckpointError: there is none of that name; the message names similar ones, or those of the system.
    """
    if name in importers:
        return importers[name]
    if own := [each for each in importers if each.partition("/")[0] == name]:
        raise CheckpointError(f"`{name}` is a system; name the network in the file: {', '.join(own)}")
    raise unknown("published network", name, importers, CheckpointError)


def read_published_file(importers: Importers, name: str, file: Path, arguments: Mapping[str, Any]) -> Published:
    """Reads a published file with the importer of a network; see `read_reference`.

    If the importer takes the published settings (`config`), they are read from a `config.json` beside the file.

    Raises:
        CheckpointError: see `read_reference`; or one of the files is missing or cannot be read.
    """
    taken = inspect.signature(find_importer(importers, name)).parameters
    beside = file.parent / CONFIG
    loaded = load_published(file)
    if "config" not in taken or "config" in arguments or not beside.is_file():
        return read_reference(importers, name, loaded, arguments)
    try:
        return read_reference(importers, name, loaded, {"config": read_settings(beside), **arguments})
    except CheckpointError as error:
        raise CheckpointError(f"{file}, with {beside}: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the content of a published `config.json`.

    Raises:
        CheckpointError: it is too large, or is not a JSON object.
    """
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise CheckpointError(f"{path}: larger than {CONFIG_BYTES:,} bytes, the maximum for settings")
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({reason_of(error)}); repair or remove it") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: is not a JSON object; repair or remove it")
    return settings


def _read(name: str, importer: Callable[..., Published], state: StateDict, given: Mapping[str, Any]) -> Published:
    """Reads one state dict.

    Raises:
        CheckpointError: it is of another network.
    """
    for key, tensor in state.items():
        if tensor.numel() == 0:
            raise CheckpointError(f"{name}: the checkpoint's `{key}` is empty")
    try:
        check_memory(state, name)
        published = importer(state, **given)
    except UNFIT as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else _reason(error)
        raise CheckpointError(f"{name}: the checkpoint is of another network ({reason})") from error
    published = replace(published, weights=_with_our_spectral_names(published.weights))
    published.check()
    return published


def _reason(error: BaseException) -> str:
    """Returns an exception's message in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _priority(path: str, name: str) -> tuple[bool, bool]:
    """Returns a sort key of a part of a checkpoint: parts with the name of the network come first.

    Args:
        path: path of the part in the checkpoint, such as `models.netG` or `g_ema`.
        name: name of the published network, `system/network`.
    """
    network = name.partition("/")[2]
    kind = network.rpartition("_")[2]
    words = [word for word in re.split(r"[^a-z0-9]+", path.lower()) if word]
    initial = kind[0] if kind in ("generator", "discriminator") else kind
    names = {network, kind, initial, f"net{initial}"}
    averaged, wanted = AVERAGED in words, kind == "generator"
    return not (names & {*words} or (wanted and averaged)), averaged is not wanted


def _refusal(refused: list[CheckpointError], found: Mapping[str, dict[str, Tensor]]) -> CheckpointError:
    """Returns the error for a checkpoint of which no part fits: the first that is not about a missing name, if any."""
    error = next((each for each in refused if "is of another network" not in str(each)), refused[0])
    if len(found) == 1:
        return error
    return CheckpointError(f"{error}; the checkpoint has {described(found)}")


def load_reference(importers: Importers, name: str, state_dict: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """Returns a published network with the weights of a checkpoint; see `read_reference` for the arguments."""
    return read_reference(importers, name, state_dict, arguments).build()


def spectral_norms(state_dict: StateDict, vector: str, *, iterates: bool = False) -> dict[str, Tensor]:
    """Converts layers with another implementation of spectral normalization to that of `torch.nn.utils.spectral_norm`.

    Its tensors are `weight_orig`, `weight_u` and `weight_v`; torch divides the weight by `u · W v`. Biases and tensors
    of other layers are unchanged. Other state of the converted layers is dropped.

    Args:
        state_dict: the checkpoint; a converted layer has the tensors `weight` and `vector`.
        vector: name of the left singular vector u, `[rows]` or `[1, rows]`; `sn_u` in Mimicry.
        iterates: whether the published layer also runs a power iteration in evaluation mode, as in BigGAN-PyTorch; u is
            then the vector after that iteration.
    """
    layers = {key.removesuffix(f".{vector}") for key in state_dict if key.endswith(f".{vector}")}
    ours = {key: value for key, value in state_dict.items() if _layer_of(key) not in layers or key.endswith(".bias")}
    for layer in layers:
        weight, u = state_dict[f"{layer}.weight"], state_dict[f"{layer}.{vector}"].flatten()
        v = normalize(weight.flatten(1).T @ u, dim=0)
        if iterates:
            u = normalize(weight.flatten(1) @ v, dim=0)
        ours |= {f"{layer}.weight_orig": weight, f"{layer}.weight_u": u, f"{layer}.weight_v": v}
    return ours


def biggan_batch_norms(state_dict: StateDict) -> dict[str, Tensor]:
    """Converts the batch normalization of BigGAN-PyTorch to that of torch and to `ConditionalBatchNorm`.

    Layers with the tensors `stored_mean` and `stored_var` are converted. Their `gain` and `bias` are vectors, or tables
    with a row per class; the published code adds 1 to the gains of classes. Tensors of other layers are unchanged.
    """
    layers = {key.removesuffix(".stored_mean") for key in state_dict if key.endswith(".stored_mean")}
    parts = tuple(f"{layer}." for layer in layers)
    ours = {key: value for key, value in state_dict.items() if not key.startswith(parts)}
    for layer in layers:
        conditional = f"{layer}.gain.weight" in state_dict
        norm = f"{layer}.norm" if conditional else layer
        ours |= {
            f"{norm}.running_mean": state_dict[f"{layer}.stored_mean"],
            f"{norm}.running_var": state_dict[f"{layer}.stored_var"],
            f"{norm}.num_batches_tracked": torch.tensor(0),
        }
        if conditional:
            gain, bias = state_dict[f"{layer}.gain.weight"], state_dict[f"{layer}.bias.weight"]
            ours[f"{layer}.embedding.weight"] = torch.cat([1 + gain, bias], dim=1)
        else:
            ours |= {f"{layer}.weight": state_dict[f"{layer}.gain"], f"{layer}.bias": state_dict[f"{layer}.bias"]}
    return ours


def norm_after(state_dict: StateDict, layer: str) -> str:
    """Returns the kind of norm in a published network: `batch`, `instance` or `none`.

    Only batch normalization has gains, and only a layer before instance normalization has a bias.

    Args:
        state_dict: the checkpoint.
        layer: name of a layer that is followed by a norm.
    """
    if _norms(state_dict, with_gains=True):
        return "batch"
    return "instance" if f"{layer}.bias" in state_dict else "none"


def without_instance_statistics(state_dict: StateDict) -> dict[str, Tensor]:
    """Removes the running statistics of instance normalization (norms without gains) from a checkpoint.

    Networks saved before torch 0.4 may have them; the published code does not use them either.
    """
    parts = ("running_mean", "running_var", "num_batches_tracked")
    unused = {f"{norm}.{part}" for norm in _norms(state_dict, with_gains=False) for part in parts}
    return {key: tensor for key, tensor in state_dict.items() if key not in unused}


def _norms(state_dict: StateDict, *, with_gains: bool) -> list[str]:
    """Returns the names of the norms that have running statistics, either with or without gains."""
    norms = [_layer_of(key) for key in state_dict if key.endswith(".running_mean")]
    return [norm for norm in norms if (f"{norm}.weight" in state_dict) == with_gains]


def _layer_of(key: str) -> str:
    """Returns the name of the layer that has a tensor."""
    return key.rpartition(".")[0]


def renamed(state_dict: StateDict, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Returns a checkpoint whose keys have other prefixes.

    Args:
        state_dict: the checkpoint.
        names: new prefixes by old ones, such as `{"main.0": "stem.conv"}`; the longest prefix of a key is replaced, and
            keys without one are unchanged.
    """
    prefixes = sorted(names, key=len, reverse=True)

    def rename(key: str) -> str:
        for prefix in prefixes:
            if key == prefix or key.startswith(f"{prefix}."):
                return names[prefix] + key[len(prefix) :]
        return key

    return {rename(key): value for key, value in state_dict.items()}


SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0.u",
    "weight_v": "parametrizations.weight.0.v",
}
"""Names of the tensors of `gan_core.nn.spectral`, by those of `torch.nn.utils.spectral_norm`."""


def _with_our_spectral_names(state_dict: StateDict) -> dict[str, Tensor]:
    """Renames the tensors of `torch.nn.utils.spectral_norm` in a checkpoint to our names."""

    def rename(key: str) -> str:
        layer, _, tensor = key.rpartition(".")
        spectral = f"{layer}.weight_orig" in state_dict  # weight normalization has a `weight_v` too
        return f"{layer}.{SPECTRAL[tensor]}" if spectral and tensor in SPECTRAL else key

    return {rename(key): value for key, value in state_dict.items()}
