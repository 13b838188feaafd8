"""Conformance fixtures: outputs of published implementations, as a few kilobytes of numbers.

A fixture lists the tensors of a published checkpoint, the inputs, and the outputs that the published code computed.
Weights and inputs are not stored: they are drawn from numpy's legacy generator (MT19937, whose stream never changes),
seeded with the name of each tensor.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_core.api import Toolkit
from gan_core.domain import Domain

Adapter = Callable[[nn.Module, list[Tensor], Mapping[str, Any]], Sequence[Tensor]]
"""Function `(network, inputs, arguments) -> outputs`, for targets whose outputs are not those of `network(*inputs)`."""

LEAST_SPREAD = 1e-6
"""Minimum standard deviation by which an error is divided."""


@dataclass(frozen=True)
class Fixture:
    """One recorded computation.

    Attributes:
        name: stem of the file.
        target: `domain:system/network`; the part after the colon is the name for `load_reference`.
        state: `[key, shape, dtype, kind]` of every tensor; `kind` is `filled`, `fixed` or `zero`.
        inputs: `[name, shape, kind, extra]` of every input; see `make_input`.
        outputs: `name`, `shape`, `index` and `values` of every output, where `values` are the elements of the flattened
            tensor at `index`, and `std`, its standard deviation.
        arguments: arguments of the published constructor and call.
        fixed: values of the tensors of kind `fixed`.
        mode: `eval` or `train`.
        scale: scale of matrices; see `filled`.
        rtol: maximum error, as a fraction of the standard deviation of the output.
    """

    name: str
    target: str
    state: list[list[Any]]
    inputs: list[list[Any]]
    outputs: list[dict[str, Any]]
    arguments: dict[str, Any]
    fixed: dict[str, Any]
    mode: str = "eval"
    scale: str = "fan_in"
    rtol: float = 1e-4

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Reads a fixture. Returns None if the file contains another kind of record."""
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not record.get("target"):
            return None
        known = {field.name for field in fields(cls)}
        return cls(**{"arguments": {}, "fixed": {}} | {key: value for key, value in record.items() if key in known})

    @property
    def domain(self) -> str:
        """Domain: `image` in `image:dcgan/generator`."""
        return self.target.partition(":")[0]

    @property
    def network(self) -> str:
        """Name for `load_reference`: `dcgan/generator` in `image:dcgan/generator`."""
        return self.target.partition(":")[2]

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors of the published checkpoint."""
        return {
            key: self._tensor(key, tuple(shape), getattr(torch, dtype), kind) for key, shape, dtype, kind in self.state
        }

    def _tensor(self, key: str, shape: tuple[int, ...], dtype: torch.dtype, kind: str) -> Tensor:
        if kind == "fixed":
            return torch.tensor(self.fixed[key], dtype=dtype).reshape(shape)
        if kind == "zero":
            return torch.zeros(shape, dtype=dtype)
        return filled(key, shape, self.scale).to(dtype)

    def make_inputs(self) -> list[Tensor]:
        """Returns the inputs in order."""
        return [make_input(name, tuple(shape), kind, extra) for name, shape, kind, extra in self.inputs]

    def check(self, outputs: Sequence[Tensor]) -> None:
        """Compares outputs with the published ones.

        Raises:
            AssertionError: the number of outputs, a shape or a value differs.
        """
        assert len(outputs) == len(self.outputs), f"{self.name}: {len(outputs)} outputs, expected {len(self.outputs)}"
        for output, expected in zip(outputs, self.outputs, strict=True):
            what = f"{self.name}.{expected['name']}"
            assert list(output.shape) == expected["shape"], (
                f"{what}: shape {list(output.shape)}, expected {expected['shape']}"
            )
            values = output.detach().double().flatten()[torch.tensor(expected["index"])]
            error = (values - torch.tensor(expected["values"], dtype=torch.float64)).abs().max()
            worst = float(error) / max(expected["std"], LEAST_SPREAD)
            assert worst <= self.rtol, (
                f"{what}: error {worst:.3g} of the standard deviation; expected at most {self.rtol:g}"
            )


def filled(key: str, shape: tuple[int, ...], scale: str) -> Tensor:
    """Returns values for a tensor of a checkpoint, scaled so that activations have a magnitude of about 1.

    Matrices and kernels are normal with a variance of 1 / fan-in, or of 1 if `scale` is `unit`. Vectors of spectral
    normalization have unit length, gains are near 1, running variances are above 1, and all other values are near 0.

    Args:
        key: key of the tensor; it determines the seed and the kind of values.
        shape: shape of the tensor.
        scale: `fan_in` or `unit`.
    """
    noise = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    leaf = key.rpartition(".")[2]
    if leaf.endswith(("_u", "_v", "u0", "sv0")) or leaf in ("u", "v"):
        value = noise / max(float(np.linalg.norm(noise)), 1e-12)
    elif len(shape) >= 2:
        value = noise if scale == "unit" else noise / np.sqrt(max(noise.size / shape[0], 1.0))
    elif leaf == "running_var":
        value = 1 + 0.1 * np.abs(noise)
    elif len(shape) == 1 and leaf.endswith(("weight", "gamma", "scale")):
        value = 1 + 0.1 * noise
    else:
        value = 0.1 * noise
    return torch.from_numpy(np.asarray(value, dtype=np.float32)).reshape(shape)


def make_input(name: str, shape: tuple[int, ...], kind: str, extra: Any) -> Tensor:
    """Returns an input.

    Args:
        name: name of the input; it determines the seed.
        shape: shape of the tensor.
        kind: `normal`, `uniform` (in [-1, 1]), `unit` (in [0, 1]), `mask` (0 or 1), `int` (from 0 to `extra` - 1), or
            `onehot`.
        extra: upper limit of `int`, exclusive.

    Raises:
        ValueError: the kind is unknown.
    """
    random = np.random.RandomState(zlib.crc32(f"input:{name}".encode()))
    if kind == "int":
        return torch.from_numpy(random.randint(0, int(extra), shape))
    if kind == "onehot":
        return nn.functional.one_hot(torch.from_numpy(random.randint(0, shape[-1], shape[:-1])), shape[-1]).float()
    makers: dict[str, Callable[[], np.typing.ArrayLike]] = {
        "normal": lambda: random.standard_normal(shape),
        "uniform": lambda: random.uniform(-1, 1, shape),
        "unit": lambda: random.uniform(0, 1, shape),
        "mask": lambda: random.uniform(0, 1, shape) > 0.5,
    }
    if kind not in makers:
        raise ValueError(f"unknown kind of input `{kind}`; known: int, onehot, {', '.join(makers)}")
    return torch.from_numpy(np.asarray(makers[kind](), dtype=np.float32))


def find_fixtures(domain: str, folder: Path) -> list[Any]:
    """Returns a domain's fixtures in a folder and in the folders of `GAN_CONFORMANCE`, as pytest parameters."""
    extra = [Path(name) for name in os.environ.get("GAN_CONFORMANCE", "").split(os.pathsep) if name]
    found: dict[bytes, Any] = {}
    for place in (folder, *extra):
        for path in sorted(place.glob("**/*.json")):
            fixture = Fixture.load(path)
            if fixture is not None and fixture.domain == domain:
                found.setdefault(path.read_bytes(), pytest.param(fixture, id=path.stem))
    return list(found.values())


def run_fixture(domain: Domain, fixture: Fixture, adapters: Mapping[str, Adapter]) -> None:
    """Compares our network with a fixture. The test is skipped if the domain has no card for the system yet."""
    system = fixture.network.partition("/")[0]
    if system not in domain.systems:
        pytest.skip(f"gan-{domain.name} has no system `{system}` yet")
    network = Toolkit(domain).load_reference(fixture.network, fixture.state_dict(), **fixture.arguments)
    network.train(fixture.mode == "train")
    run = adapters.get(fixture.network, _forward)
    fixture.check(run(network, fixture.make_inputs(), fixture.arguments))


def _forward(network: nn.Module, inputs: list[Tensor], arguments: Mapping[str, Any]) -> Sequence[Tensor]:
    return [network(*inputs)]
