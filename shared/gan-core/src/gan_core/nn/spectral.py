"""Spectral normalization of weights (Miyato et al. 2018, arXiv:1802.05957)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrizations, remove_spectral_norm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized, register_parametrization

FIRST_ITERATIONS = 15
"""Number of power iterations for the singular vectors of a new layer."""
SMALLEST_NORM = 1e-12
"""Lower bound of the norms by which vectors are divided."""
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weight has its outputs on axis 1 instead of axis 0."""


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value σ = uᵀWv (arXiv:1802.05957, eq. 8), as a parametrization.

    In training mode, one power iteration updates the vectors whenever the weight is used, v before u as in algorithm 1
    of the paper. `torch.nn.utils.parametrizations.spectral_norm` updates u before v, so further training of a published
    checkpoint would differ from training with the authors' code.

    Args:
        weight: the layer's weight. W is its matrix with one row for each index of axis `dim`.
        dim: axis of the outputs.

    Attributes:
        u: left singular vector, of unit length.
        v: right singular vector, of unit length.
    """

    def __init__(self, weight: Tensor, dim: int = 0):
        super().__init__()
        self.dim = dim
        self.u: Tensor
        self.v: Tensor
        with torch.no_grad():
            matrix = self._matrix(weight)
            for name, size in zip("uv", matrix.shape, strict=True):
                vector = matrix.new_empty(size).normal_(0, 1)
                self.register_buffer(name, normalize(vector, dim=0, eps=SMALLEST_NORM))
            if not matrix.is_meta:
                self._iterate(matrix, FIRST_ITERATIONS)

    def forward(self, weight: Tensor) -> Tensor:
        matrix = self._matrix(weight)
        u, v = self.u, self.v
        if self.training:
            self._iterate(matrix, 1)
            u, v = u.clone(), v.clone()  # the next use changes the buffers, and autograd needs these values
        return weight / torch.dot(u, torch.mv(matrix, v))

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).reshape(weight.shape[self.dim], -1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor, count: int) -> None:
        """Runs `count` power iterations, which update u and v in place."""
        for _ in range(count):
            normalize(torch.mv(matrix.t(), self.u), dim=0, eps=SMALLEST_NORM, out=self.v)
            normalize(torch.mv(matrix, self.v), dim=0, eps=SMALLEST_NORM, out=self.u)


def spectrally_normalised(layer: nn.Module) -> nn.Module:
    """Adds spectral normalization to the weight of a linear, embedding or convolution layer, in place."""
    weight = layer.get_parameter("weight")
    dim = 1 if isinstance(layer, TRANSPOSED) else 0
    # `unsafe` skips a check that would use the weight, and so make a power iteration.
    register_parametrization(layer, "weight", SpectralNorm(weight, dim), unsafe=True)
    return layer


def singular_vectors(network: nn.Module) -> Iterator[str]:
    """Yields the names, in the network's state, of the singular vectors of spectral normalization.

    Both of torch's implementations are included.
    """
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, _parametrizations()):
            yield from (prefix + vector for vector, _ in module.named_buffers())
        yield from (f"{prefix}{tensor}_{side}" for tensor in _normalised_by_hook(module) for side in "uv")


def is_spectral(network: nn.Module) -> bool:
    """Returns whether any layer of a network is spectrally normalised, by this module or by torch."""
    return any(True for _ in singular_vectors(network))


def unnormalised_weight(layer: nn.Module) -> Tensor:
    """Returns a layer's weight before spectral normalization, without running a power iteration."""
    if "weight" in _normalised_by_hook(layer):
        return layer.get_parameter("weight_orig")
    if is_parametrized(layer, "weight") and _has_spectral_part(layer.get_submodule("parametrizations.weight")):
        return layer.get_parameter("parametrizations.weight.original")
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight


@torch.no_grad()
def folded_copy(network: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode whose parameters are the spectrally normalised weights."""
    for layer in network.modules():
        for name in _normalised_by_hook(layer):
            setattr(layer, name, getattr(layer, name).detach())  # deepcopy does not support gradient histories
    copied = deepcopy(network).eval()
    for layer in list(copied.modules()):
        for name in _normalised_by_hook(layer):
            remove_spectral_norm(layer, name)
        if isinstance(layer, ParametrizationList) and _has_spectral_part(layer):
            layer.get_parameter("original").copy_(layer())
            for index in range(len(layer)):
                # Not `remove_parametrizations`: copies share their class with the original, which it would change too.
                layer[index] = nn.Identity()
    return copied


@cache
def _parametrizations() -> tuple[type[nn.Module], ...]:
    """Returns the classes of spectral parametrizations: `SpectralNorm` and torch's, which has no public name."""
    layer = parametrizations.spectral_norm(nn.Linear(1, 1, device="meta"))
    (torchs,) = layer.get_submodule("parametrizations.weight").children()
    return SpectralNorm, type(torchs)


def _normalised_by_hook(layer: nn.Module) -> list[str]:
    """Returns the names of a layer's weights that `torch.nn.utils.spectral_norm` normalises."""
    names = (name.removesuffix("_orig") for name, _ in layer.named_parameters(recurse=False) if name.endswith("_orig"))
    buffers = {name for name, _ in layer.named_buffers(recurse=False)}
    return [name for name in names if f"{name}_u" in buffers]


def _has_spectral_part(chain: nn.Module) -> bool:
    """Returns whether the parametrizations of a tensor include spectral normalization."""
    return any(isinstance(part, _parametrizations()) for part in chain.children())
