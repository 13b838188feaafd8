"""A generator for other runtimes."""

from __future__ import annotations

import inspect
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn.utils import remove_spectral_norm

from gan_core import draws
from gan_core.blocks import spectral_layers
from gan_core.errors import GanError, InputError, MissingDependency, writing
from gan_core.game import Game, evaluating
from gan_core.two_player import latent_dim

TOLERANCE = 1e-3
"""The largest difference between torch and onnxruntime that is accepted; samples span 2."""


def export_onnx(game: Game, path: Path) -> float:
    """Writes the generator as ONNX (inputs `z [B, latent_dim]` and, with classes, `label [B]`) and checks it.

    Args:
        game: with a `generator`.
        path: the file; replaced if it exists.

    Returns:
        The largest difference from torch, measured with onnxruntime on a batch of another size.

    Raises:
        MissingDependency: onnx, onnxscript or onnxruntime is not installed.
        InputError: the game has no generator of a latent alone, or the file cannot be written.
        GanError: the exported network computes something else.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MissingDependency(f"ONNX needs {', '.join(missing)}: pip install 'gan-core[onnx]'")
    generator = _generator(game)
    names = ["z"] if game.num_classes is None else ["z", "label"]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / "generator.onnx"
            torch.onnx.export(
                generator, _inputs(game, generator, 2), temporary, input_names=names, output_names=["samples"],
                dynamo=True, dynamic_shapes=_batches_of_any_size(names), external_data=False, verbose=False,
            )  # fmt: skip
            difference = _difference(game, generator, temporary, names)
            if difference > TOLERANCE:
                raise GanError(f"{path}: differs from torch by {difference:.2g}; nothing was written")
            temporary.replace(path)
    return difference


def _batches_of_any_size(names: list[str]) -> tuple[dict[int, Any], ...]:
    """The first axis of each input; torch finds by itself that all are one, and warns of a second name for it."""
    return tuple({0: torch.export.Dim("batch") if name == "z" else torch.export.Dim.AUTO} for name in names)


def _generator(game: Game) -> nn.Module:
    """A copy of the generator on the CPU, in evaluation mode, its weights spectrally normalised once for all."""
    if "generator" not in dict(game.named_children()):
        raise InputError(f"{type(game).__name__} has no generator that takes a latent; only such can be exported")
    generator = game.get_submodule("generator")
    takes = list(inspect.signature(generator.forward).parameters.values())[1 if game.num_classes is None else 2 :]
    besides = [p.name for p in takes if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if besides:
        told = f"the generator of {type(game).__name__} is told {' and '.join(besides)} besides its latent"
        raise InputError(f"{told}; only one of latents can be exported")
    with evaluating(generator), torch.no_grad():
        for _, layer, hook in spectral_layers(generator):
            hook(layer, ())  # a weight that still has its gradient's history cannot be copied
    copied = deepcopy(generator).cpu().eval()
    for _, layer, hook in list(spectral_layers(copied)):
        remove_spectral_norm(layer, hook.name)
    return copied


def _inputs(game: Game, generator: nn.Module, count: int) -> tuple[torch.Tensor, ...]:
    with draws.drawing(0, torch.device("cpu"), rows=count, total=count):
        z = draws.normal(count, latent_dim(generator), like=torch.empty(0))
    return (z,) if game.num_classes is None else (z, torch.arange(count) % game.num_classes)


@torch.no_grad()
def _difference(game: Game, generator: nn.Module, path: Path, names: list[str]) -> float:
    import onnxruntime

    inputs = _inputs(game, generator, 5)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    return float((torch.from_numpy(ours) - generator(*inputs)).abs().max())
