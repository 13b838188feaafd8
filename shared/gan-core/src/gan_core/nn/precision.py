"""Where half precision has too few digits: losses, roots near zero, statistics over a batch."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """The tensor in at least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def in_full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Within it, autocast brings nothing to half precision on a tensor's device."""
    return torch.autocast(like.device.type, enabled=False)
