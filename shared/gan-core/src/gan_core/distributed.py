"""Training in several processes: their ranks and devices, and batch statistics over all of them.

accelerate finds the processes that `torchrun` or `accelerate launch` started. Each player's loss is wrapped in torch's
DistributedDataParallel (see `gan_core.training.player_state`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import get_int_from_env
from torch import Tensor, nn

from gan_core.errors import GanError, InputError, RecipeError

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Environment variables in which launchers give the rank of a process, as accelerate reads them."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Layers that are replaced to use statistics over all processes. Subclasses, which may behave differently, are not."""

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Environment variables in which launchers give the number of processes; the first that is set counts."""
PATIENCE = timedelta(days=30)
"""Longest time for which processes wait for the first one, which evaluates and writes files. If a process ends, the
others notice at once, however long this is."""


class ProcessLost(GanError):
    """Another process of the training run has ended."""


def is_first() -> bool:
    """Returns whether this is the first of the processes that a launcher started, before `Processes` connects them."""
    return get_int_from_env(RANKS, 0) == 0


class Processes:
    """The processes of a training run.

    Attributes:
        count: number of processes.
        rank: rank of this process, from 0.
        device: device of this process.

    Args:
        device: device as in recipes: `auto`, `cpu`, `cuda:1` …

    Raises:
        RecipeError: this machine does not have the device.
        InputError: the processes that a launcher started cannot be connected.
    """

    def __init__(self, device: str):
        # accelerate ignores the other processes of a machine without accelerators unless it is set to the CPU.
        cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
        _check_launch(cpu)
        self.state = PartialState(cpu=True) if cpu else PartialState()
        self.count, self.rank = self.state.num_processes, self.state.process_index
        if self.count != (asked := asked_processes()):
            raise InputError(
                f"{asked} processes were started, but they are not connected (accelerate reports {self.count}); start "
                "them with `torchrun`, and create no accelerate objects before the training"
            )
        if self.count > 1:
            self.device = self.state.device
        else:  # accelerate's state outlives a run and may have the device of an earlier one
            self.device = self.state.default_device if device == "auto" else torch.device(device)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(f"`train.device` is {device}, which this machine lacks; use auto or cpu") from error
        self._gloo: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def highest(self, number: int) -> int:
        """Returns the maximum of a number over all processes, exchanged on the CPU to avoid device synchronisation."""
        if self._gloo is None:
            return number
        highest = torch.tensor(number)
        with self.connected():
            dist.all_reduce(highest, dist.ReduceOp.MAX, group=self._gloo)
        return int(highest)

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of a tensor over the processes."""
        if self.count > 1:
            with self.connected():
                dist.all_reduce(values)
            values = values / self.count
        return values

    def wait(self) -> None:
        """Blocks until all processes have called it.

        The first process may evaluate and write files meanwhile, however long that takes.
        """
        if self._gloo is not None:
            with self.connected():
                dist.barrier(group=self._gloo)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Context manager under which the processes exchange data.

        Raises:
            ProcessLost: another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise ProcessLost("another process of this run has ended (killed, or out of memory?)") from error
            raise


def asked_processes() -> int:
    """Returns the number of processes that the launcher of this process started."""
    return int(next((os.environ[name] for name in SIZES if name in os.environ), "1"))


def _check_launch(cpu: bool) -> None:
    """Checks that the launcher's processes can train together on this machine.

    Args:
        cpu: whether they use the CPU.

    Raises:
        InputError: `accelerate launch` started a single process for several, or there are too few accelerators.
    """
    launched_alone = all(name in os.environ for name in ("ACCELERATE_USE_CPU", "MASTER_ADDR", "MASTER_PORT"))
    if launched_alone and not any(name in os.environ for name in SIZES):
        raise InputError(
            "`accelerate launch` was asked for several processes and started one, as it does on a CPU; use "
            "`torchrun --nproc-per-node N` instead"
        )
    local, accelerators = int(os.environ.get("LOCAL_RANK", "0")), 0 if cpu else torch.accelerator.device_count()
    if asked_processes() > 1 and not cpu and local >= accelerators:
        raise InputError(
            f"process {local + 1} on this machine has no device, because the machine has {accelerators}; start at most "
            f"{accelerators}, or set `train.device` to cpu"
        )


class GlobalBatchNorm(nn.SyncBatchNorm):
    """Batch normalisation with statistics over the batches of all processes.

    Torch's `SyncBatchNorm` runs only on accelerators and has no second derivative; this one has both.
    """

    @classmethod
    def replacing(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> GlobalBatchNorm:
        """Returns a layer with the settings, parameters and buffers of a batch normalisation."""
        layer = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters():
            layer.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers():
            layer.register_buffer(name, buffer)
        return layer.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            own = self.running_mean is None or self.running_var is None
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=own, eps=self.eps
            )
        axes = [axis for axis in range(input.ndim) if axis != 1]
        count = input.numel() // input.shape[1] * dist.get_world_size()
        full = input.to(torch.promote_types(input.dtype, torch.float32))  # bf16 has too few digits for sums
        mean = _sum(full.sum(axes)) / count
        shape = [1, -1] + [1] * (input.ndim - 2)
        centred = full - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        return (normal * self.weight.view(shape) + self.bias.view(shape) if self.affine else normal).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Updates the running statistics; without a momentum, they are means over all batches."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Sum(torch.autograd.Function):
    """Sum over the processes. Its gradient is the sum of their gradients and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(values: Tensor) -> Tensor:
    return _Sum.apply(values)


def rows_of_all(rows: Tensor) -> tuple[Tensor, slice]:
    """Returns the rows of all processes in the order of the global batch, detached, and the slice of this process."""
    mine = rows.detach().contiguous()
    if not (dist.is_available() and dist.is_initialized()):
        return mine, slice(None)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts), slice(dist.get_rank() * len(mine), (dist.get_rank() + 1) * len(mine))


def share_batch_statistics(network: nn.Module) -> None:
    """Replaces each batch normalisation in a network with one over all processes. Names and tensors are kept."""
    replaced: dict[nn.Module, nn.Module] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, BATCH_NORMS) and type(module) in BATCH_NORMS:
            if module not in replaced:
                replaced[module] = GlobalBatchNorm.replacing(module)
            network.set_submodule(name, replaced[module])
