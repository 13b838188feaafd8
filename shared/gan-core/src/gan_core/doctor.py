"""The doctor: what is installed and whether it works; what goes wrong in a run and what to try."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from gan_core.domain import find_domains
from gan_core.errors import CheckpointError, GanError
from gan_core.runs.record import read_run
from gan_core.runs.run import Run
from gan_core.runs.symptoms import Check, attempt, find_symptoms


def examine_installation() -> list[Check]:
    """Looks at Python, the libraries, the device, compiling, and the domains."""
    return [attempt(name, look) for name, look in LOOKS.items()]


def examine_run(path: Path) -> list[Check]:
    """Looks at a run's recipe, checkpoints and log, and for symptoms of what goes wrong in it.

    Raises:
        CheckpointError: it is no run.
    """
    run = Run.open(path)
    checks = [attempt(name, partial(look, run)) for name, look in LOOKS_AT_A_RUN.items()]
    return checks + find_symptoms(read_run(path))


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


def _recipe(run: Run) -> str:
    recipe = run.recipe
    return f"{recipe.system} ({recipe.preset or 'put together by hand'}), {recipe.train.steps:,} steps"


def _checkpoints(run: Run) -> str:
    from gan_core.models.checkpoint import read_checkpoint

    damaged = []
    for folder in reversed(run.checkpoints()):
        try:
            read_checkpoint(folder)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        if damaged:
            raise CheckpointError(f"{damaged[0]}; `resume` goes on from step {int(folder.name)}")
        return f"the newest, of step {int(folder.name):,}, is whole"
    raise CheckpointError(damaged[0] if damaged else "there is none yet; set `train.checkpoint_every`")


def _log(run: Run) -> str:
    lines = run.log()
    if not lines:
        raise GanError("nothing was logged yet; set a smaller `train.log_every`")
    speeds = [line["samples_per_second"] for line in lines if "samples_per_second" in line]
    return f"{len(lines)} lines until step {lines[-1]['step']:,}, {fmean(speeds):,.0f} samples a second"


LOOKS_AT_A_RUN: dict[str, Callable[[Run], str]] = {"recipe": _recipe, "checkpoints": _checkpoints, "log": _log}
