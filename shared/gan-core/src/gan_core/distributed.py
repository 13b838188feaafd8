"""Several processes that train as one: who they are, and batch statistics over all of them.

accelerate finds the processes that `torchrun` or `accelerate launch` started; each player's loss is wrapped in torch's
DistributedDataParallel (see `gan_core.training.player_state`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from gan_core.errors import RecipeError


class Processes:
    """The processes of this training, and this one's place among them.

    Attributes:
        count: how many there are.
        rank: this one's number, from 0.
        device: this one's.

    Args:
        device: as recipes say it (`auto`, `cpu`, `cuda:1` …).

    Raises:
        RecipeError: the device is not on this machine.
    """

    def __init__(self, device: str):
        self.state = PartialState(cpu=True) if device == "cpu" else PartialState()
        self.count, self.rank = self.state.num_processes, self.state.process_index
        if self.count > 1:
            self.device = self.state.device
        else:  # accelerate's state outlives a training, so that its device may be that of an earlier one
            self.device = self.state.default_device if device == "auto" else torch.device(device)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(f"`train.device` is {device}, which this machine lacks; use auto or cpu") from error
        self._words: Any = dist.new_group(backend="gloo") if self.count > 1 else None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def highest(self, number: int) -> int:
        """The highest of the processes' numbers. Asked on the CPU: no accelerator waits for it."""
        if self._words is None:
            return number
        highest = torch.tensor(number)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self._words)
        return int(highest)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of a tensor that each has."""
        if self.count > 1:
            dist.all_reduce(values)
            values = values / self.count
        return values

    def wait(self) -> None:
        """Returns when every process has come here."""
        self.state.wait_for_everyone()


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation with the statistics of all processes' rows.

    Torch's own SyncBatchNorm runs on accelerators alone and has no second derivative; this has both.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
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
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Sum(torch.autograd.Function):
    """The sum over the processes. Its gradient is the sum of their gradients, and may be differentiated again."""

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
    """The rows of all processes in the order of the global batch, as constants, and which of them are this one's."""
    mine = rows.detach().contiguous()
    if not (dist.is_available() and dist.is_initialized()):
        return mine, slice(None)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts), slice(dist.get_rank() * len(mine), (dist.get_rank() + 1) * len(mine))


def share_batch_statistics(network: nn.Module) -> None:
    """Makes every batch normalisation in a network one over all processes; weights and their names stay."""
    for module in network.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = GlobalBatchNorm
