"""The doctor: what is installed, and whether it works."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from gan_core.domain import find_domains


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    good: bool
    finding: str


def examine_installation() -> list[Check]:
    """Looks at Python, the libraries, the device, compiling, and the domains."""
    return [_attempt(name, look) for name, look in LOOKS.items()]


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except Exception as error:  # noqa: BLE001  whatever is broken is the finding
        return Check(name, False, " ".join(f"{type(error).__name__}: {error}".split())[:200])


def _libraries() -> str:
    names = ("gan-core", "torch", "accelerate", "safetensors", "pydantic")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _device() -> str:
    import torch

    from gan_core.distributed import Processes

    processes = Processes("auto")
    layer = torch.nn.Conv2d(3, 4, 3).to(processes.device)
    layer(torch.zeros(1, 3, 8, 8, device=processes.device)).sum().backward()
    return f"{processes.device} ({torch.get_num_threads()} threads); a convolution ran forward and backward"


def _compiler() -> str:
    import torch

    double = torch.compile(lambda x: x * 2 + 1)
    assert double(torch.ones(3)).tolist() == [3.0, 3.0, 3.0]
    return "torch.compile works (`--compile` can be used)"


def _domains() -> str:
    found = [f"{name}: {len(domain.cards)} systems" for name, domain in find_domains().items()]
    if not found:
        raise LookupError("no domain package is installed: pip install gan-image")
    return ", ".join(found)


LOOKS: dict[str, Callable[[], str]] = {
    "python": platform.python_version,
    "libraries": _libraries,
    "device": _device,
    "compiler": _compiler,
    "domains": _domains,
}
