"""Full precision for computations in which half precision is not accurate enough, such as losses and statistics."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Converts half-precision tensors to float32; other tensors are returned unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def in_full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Returns a context manager that disables autocast on a tensor's device."""
    return torch.autocast(like.device.type, enabled=False)
