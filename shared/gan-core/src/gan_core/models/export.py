"""Export of networks to ONNX."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from gan_core import draws
from gan_core.errors import GanError, InputError, MissingDependency, writing
from gan_core.nn.spectral import folded_copy
from gan_core.places import expanded
from gan_core.play.exported import Axis, Exported
from gan_core.play.game import Game

TOLERANCE = 1e-3
"""Maximum absolute difference between the outputs of torch and onnxruntime; most outputs are in [-1, 1]."""

FIXED = re.compile(r"You marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)")
"""Pattern of torch's message about a dynamic axis that the network specialises to a fixed size."""


@dataclass(frozen=True)
class Value:
    """An input or output of an ONNX file.

    Attributes:
        type: dtype, such as `float32`.
        shape: sizes of the axes; a name, or an expression of names, for dynamic axes.
        values: description of the values.
    """

    type: str
    shape: tuple[int | str, ...]
    values: str

    def __str__(self) -> str:
        return f"{self.type} [{', '.join(map(str, self.shape))}], {self.values}"


@dataclass(frozen=True)
class OnnxFile:
    """A network exported to ONNX.

    Attributes:
        network: name of the network.
        inputs: inputs by name.
        outputs: outputs by name.
        axes: dynamic axes by name.
        difference: maximum absolute difference between onnxruntime and torch, at sizes other than those of the export.
    """

    network: str
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    axes: Mapping[str, Axis]
    difference: float


def export_onnx(game: Game, path: str | Path, network: str | None = None) -> OnnxFile:
    """Exports a network to ONNX and checks its outputs with onnxruntime at other sizes.

    The file's metadata describe the system, the network, the inputs and outputs, the dynamic axes, the classes, and
    facts of the game such as the sample rate.

    Args:
        game: a game that defines `exports`.
        path: output file; replaced if it exists.
        network: name of the network; optional if the game exports only one.

    Raises:
        MissingDependency: onnx, onnxscript or onnxruntime is not installed.
        InputError: the game does not export the network, it exports several and none is named, or the file cannot be
            written.
        GanError: the network cannot be converted, or the outputs of the exported network differ.
    """
    path = expanded(path)
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MissingDependency(f"ONNX needs {', '.join(missing)}: pip install {' '.join(missing)}")
    name, exported = _chosen(game, network)
    _check_arguments(exported, f"`{name}` of {game.title}")
    plain = folded_copy(exported.network).cpu()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder, torch.no_grad():
            temporary = Path(folder) / "network.onnx"
            program = _converted(exported, plain, _examples(exported, game.device, 1), f"`{name}` of {game.title}")
            inputs, outputs = _described(program, exported)
            metadata = {"system": game.title, "network": name}
            metadata |= {f"input.{key}": str(value) for key, value in inputs.items()}
            metadata |= {f"output.{key}": str(value) for key, value in outputs.items()}
            metadata |= {f"axis.{key}": str(axis) for key, axis in exported.axes.items()}
            classes = None if game.recipe is None else game.recipe.data.classes
            facts = {**exported.facts, **({} if classes is None else {"classes": classes})}
            metadata |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
            program.model.metadata_props.update(metadata)
            program.save(temporary, external_data=False)
            difference = _difference(exported, plain, _examples(exported, game.device, 0), temporary, path)
            temporary.replace(path)
    return OnnxFile(name, inputs, outputs, exported.axes, difference)


def _chosen(game: Game, network: str | None) -> tuple[str, Exported]:
    """Returns the named network, or the only network that can be exported. Networks without weights cannot."""
    offered = {
        name: exported
        for name, exported in game.exports().items()
        if not any(parameter.is_meta for parameter in exported.network.parameters())
    }
    title, names = game.title, " or ".join(offered)
    if not offered:
        raise InputError(f"{title} offers no network for export; override `exports` in {type(game).__name__}")
    if network is None and len(offered) > 1:
        raise InputError(f"{title} offers several networks for export; choose one: --network {names}")
    chosen = next(iter(offered)) if network is None else network
    if chosen not in offered:
        raise InputError(f"`{chosen}` of {title} cannot be exported; choose --network {names}")
    return chosen, offered[chosen]


def _check_arguments(exported: Exported, title: str) -> None:
    """Checks that the network has no required arguments besides the inputs."""
    parameters = list(inspect.signature(exported.network.forward).parameters.values())[len(exported.inputs) :]
    besides = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if besides:
        raise InputError(f"{title} needs {', '.join(besides)} besides {', '.join(exported.inputs)}; override `exports`")


def _examples(exported: Exported, device: torch.device, extra: int) -> tuple[Tensor, ...]:
    """Returns example inputs. All dynamic axes have different sizes, which also depend on `extra`."""
    sizes = {
        name: axis.multiple * (max(2, -(-axis.least // axis.multiple)) + number + extra)
        for number, (name, axis) in enumerate(exported.axes.items())
    }
    tensors = []
    for one in exported.inputs.values():
        shape = tuple(sizes[size.name] if isinstance(size, Axis) else size for size in one.shape)
        with torch.random.fork_rng([]), draws.drawing(0, device, rows=shape[0], total=shape[0]):
            torch.manual_seed(0)
            tensors.append(one.draw(shape).cpu())
    return tuple(tensors)


def _converted(exported: Exported, network: nn.Module, examples: tuple[Tensor, ...], title: str) -> Any:
    """Returns the network as an ONNX program with named dynamic axes.

    The graph is first captured by `torch.export`, because torch's ONNX exporter silently fixes the size of dynamic axes
    that it cannot keep. Strict mode is used because the default mode treats `len(tensor)` as a constant.
    """
    dims = {
        name: torch.export.Dim(name, min=axis.least)
        if axis.multiple == 1
        else axis.multiple * torch.export.Dim(f"{name}_units", min=-(-axis.least // axis.multiple))
        for name, axis in exported.axes.items()
    }
    shapes = tuple(
        {number: dims[size.name] for number, size in enumerate(one.shape) if isinstance(size, Axis)}
        for one in exported.inputs.values()
    )
    try:
        with _quiet():
            try:
                graph = torch.export.export(network, examples, dynamic_shapes=shapes)
            except GanError:
                raise
            except Exception:  # noqa: BLE001  torch does not document its exceptions
                graph = torch.export.export(network, examples, dynamic_shapes=shapes, strict=True)
            program = torch.onnx.export(
                graph,
                input_names=list(exported.inputs),
                output_names=list(exported.outputs),
                dynamo=True,
                verbose=False,
            )
    except GanError:
        raise
    except Exception as error:
        raise GanError(f"{title} cannot be converted to ONNX ({_reason(error)})") from error
    assert program is not None
    names: dict[str, str] = {}
    for value, one in zip(program.model.graph.inputs, exported.inputs.values(), strict=True):
        assert value.shape is not None
        for symbol, size in zip(value.shape, one.shape, strict=True):
            if isinstance(size, Axis):
                whole = str(getattr(symbol, "value", symbol))
                names[whole] = size.name
                names.setdefault(whole.removeprefix(f"{size.multiple}*"), f"({size.name} / {size.multiple})")
    program.rename_axes(names)  # type: ignore[arg-type]  # a dictionary of names is accepted
    return program


def _reason(error: Exception) -> str:
    """Returns a message about the axis whose size was fixed, or the first line of an error's innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    fixed = FIXED.search(str(error))
    if fixed is not None:
        return f"it only works for the size {fixed[2]} of `{fixed[1]}`"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager that suppresses logging and standard error, to which torch prints graphs it cannot capture."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _described(program: Any, exported: Exported) -> tuple[dict[str, Value], dict[str, Value]]:
    """Returns descriptions of a program's inputs and outputs, by name."""

    def described(value: Any, values: str) -> Value:
        sizes = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
        return Value(value.dtype.numpy().name, sizes, values)

    graph = program.model.graph
    inputs = zip(graph.inputs, exported.inputs.items(), strict=True)
    outputs = zip(graph.outputs, exported.outputs.items(), strict=True)
    return (
        {name: described(value, one.values) for value, (name, one) in inputs},
        {name: described(value, values) for value, (name, values) in outputs},
    )


def import_onnxruntime() -> Any:
    """Returns the module `onnxruntime`, which otherwise reports its use to its developers."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
    import onnxruntime

    return onnxruntime


def _difference(exported: Exported, network: nn.Module, examples: tuple[Tensor, ...], file: Path, path: Path) -> float:
    """Returns the maximum absolute difference between the outputs of onnxruntime and torch.

    Raises:
        GanError: the difference is too large, or onnxruntime cannot run the file.
    """
    onnxruntime = import_onnxruntime()
    expected = network(*examples)
    expected = expected if isinstance(expected, tuple) else (expected,)
    fed = {name: value.numpy() for name, value in zip(exported.inputs, examples, strict=True)}
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        computed = [torch.from_numpy(output) for output in session.run(list(exported.outputs), fed)]
    except Exception as error:
        raise GanError(f"{path}: onnxruntime cannot run it ({_reason(error)}); nothing was written") from error
    pairs = list(zip(computed, expected, strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        shapes = f"{[list(one.shape) for one in computed]} instead of {[list(one.shape) for one in expected]}"
        raise GanError(f"{path}: onnxruntime returns {shapes}; nothing was written")
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    if not difference <= TOLERANCE:  # also if it is NaN
        raise GanError(f"{path}: differs from torch by {difference:.2g}; nothing was written")
    return difference
