"""Checks of the installation, and diagnosis of a run with settings to try."""

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
    """Checks Python, the libraries, the device, the compiler, and the domains."""
    return [attempt(name, check) for name, check in INSTALLATION_CHECKS.items()]


def examine_run(path: Path) -> list[Check]:
    """Checks the recipe, the checkpoints and the log of a run, and looks for symptoms of failing training.

    Raises:
        CheckpointError: the folder is not a run.
    """
    run = Run.open(path)
    checks = [attempt(name, partial(check, run)) for name, check in RUN_CHECKS.items()]
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
    return f"{processes.device} ({torch.get_num_threads()} threads); a convolution and its gradient were computed"


def _compiler() -> str:
    import torch

    double = torch.compile(lambda x: x * 2 + 1)
    assert double(torch.ones(3)).tolist() == [3.0, 3.0, 3.0]
    return "torch.compile works (`--compile` can be used)"


def _domains() -> str:
    found = [f"{name}: {len(domain.cards)} systems" for name, domain in find_domains(strict=True).items()]
    if not found:
        raise LookupError("no domain package is installed: pip install gan-image")
    return ", ".join(found)


INSTALLATION_CHECKS: dict[str, Callable[[], str]] = {
    "python": platform.python_version,
    "libraries": _libraries,
    "device": _device,
    "compiler": _compiler,
    "domains": _domains,
}
"""Checks of the installation by name: each returns its finding, or raises an error that describes the problem."""


def _recipe(run: Run) -> str:
    recipe = run.recipe
    return f"{recipe.system} ({recipe.preset or 'built by hand'}), {recipe.train.steps:,} steps"


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
            raise CheckpointError(f"{damaged[0]}; `resume` will continue from step {int(folder.name)}")
        return f"the latest, of step {int(folder.name):,}, is valid"
    raise CheckpointError(damaged[0] if damaged else "there are none yet; set `train.checkpoint_every`")


def _log(run: Run) -> str:
    lines = run.log()
    if not lines:
        raise GanError("nothing was logged yet; set a smaller `train.log_every`")
    speeds = [line["samples_per_second"] for line in lines if "samples_per_second" in line]
    return f"{len(lines)} lines up to step {lines[-1]['step']:,}, {fmean(speeds):,.0f} samples per second"


RUN_CHECKS: dict[str, Callable[[Run], str]] = {"recipe": _recipe, "checkpoints": _checkpoints, "log": _log}
"""Checks of a run by name, in the same form as `INSTALLATION_CHECKS`."""
