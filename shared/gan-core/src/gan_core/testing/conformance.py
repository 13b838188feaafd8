"""Conformance fixtures: what a published implementation computes, as a few kilobytes of numbers.

A fixture names the tensors of a published checkpoint and how each is filled, the inputs, and the outputs that the
published code gave. Weights and inputs are drawn from numpy's legacy generator (MT19937, frozen for good) seeded with
the tensor's own name, so none are stored.
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
"""`(our network, the inputs, the arguments) -> outputs`, for a target that is more than `network(*inputs)`."""

LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Fixture:
    """One recorded computation.

    Attributes:
        name: the file's stem.
        target: `domain:system/network`, the name for `load_reference`.
        state: `[key, shape, dtype, kind]` of every tensor; `kind` is `filled`, `fixed` or `zero`.
        fixed: the values of the `fixed` ones.
        inputs: `[name, shape, kind, extra]` of every input.
        outputs: per output its `name` and `shape`, some elements (`index` into the flat tensor and `values`), and the
            `std` of all.
        arguments: of the published constructor and call.
        mode: `eval` or `train`.
        scale: how matrices are filled: `fan_in` or `unit`.
        rtol: the largest error, as a share of the output's standard deviation.
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
        """The fixture in a file; None where the file is another kind of record."""
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not record.get("target"):
            return None
        known = {field.name for field in fields(cls)}
        return cls(**{"arguments": {}, "fixed": {}} | {key: value for key, value in record.items() if key in known})

    @property
    def domain(self) -> str:
        """`image` in `image:dcgan/generator`."""
        return self.target.partition(":")[0]

    @property
    def network(self) -> str:
        """`dcgan/generator` in `image:dcgan/generator`."""
        return self.target.partition(":")[2]

    def state_dict(self) -> dict[str, Tensor]:
        """The published checkpoint, by its own keys."""
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
        """The inputs, in order."""
        return [make_input(name, tuple(shape), kind, extra) for name, shape, kind, extra in self.inputs]

    def check(self, outputs: Sequence[Tensor]) -> None:
        """Compares outputs with the published ones, in their order.

        Raises:
            AssertionError: their number, a shape or a value differs; the worst is named.
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
            assert worst <= self.rtol, f"{what}: off by {worst:.3g} of its deviation, allowed are {self.rtol:g}"


def filled(key: str, shape: tuple[int, ...], scale: str) -> Tensor:
    """The value of the checkpoint tensor `key`, of a size that keeps activations near one.

    Matrices and kernels are normal with variance one over the fan-in (one, where `scale` is `unit`), vectors of
    spectral normalisation have unit length, gains are near 1, running variances above 1, all else near 0.
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
    """The input `name`: `normal`, `uniform` in [-1, 1], `unit` in [0, 1], `mask`, `int` below `extra`, or `onehot`.

    Raises:
        ValueError: there is no such kind.
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
    """A domain's fixtures in a folder and in those that `GAN_CONFORMANCE` names, as pytest parameters with ids."""
    extra = [Path(name) for name in os.environ.get("GAN_CONFORMANCE", "").split(os.pathsep) if name]
    found: dict[bytes, Any] = {}
    for place in (folder, *extra):
        for path in sorted(place.glob("**/*.json")):
            fixture = Fixture.load(path)
            if fixture is not None and fixture.domain == domain:
                found.setdefault(path.read_bytes(), pytest.param(fixture, id=path.stem))
    return list(found.values())


def run_fixture(domain: Domain, fixture: Fixture, adapters: Mapping[str, Adapter]) -> None:
    """Runs our network with a fixture's weights and compares; skips, by name, a system that has no card yet."""
    system = fixture.network.partition("/")[0]
    if system not in domain.systems:
        pytest.skip(f"gan-{domain.name} has no system `{system}` yet")
    network = Toolkit(domain).load_reference(fixture.network, fixture.state_dict(), **fixture.arguments)
    network.train(fixture.mode == "train")
    run = adapters.get(fixture.network, _forward)
    fixture.check(run(network, fixture.make_inputs(), fixture.arguments))


def _forward(network: nn.Module, inputs: list[Tensor], arguments: Mapping[str, Any]) -> Sequence[Tensor]:
    return [network(*inputs)]
