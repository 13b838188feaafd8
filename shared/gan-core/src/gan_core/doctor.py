"""The doctor: what is installed and whether it works; what goes wrong in a run and what to try."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from gan_core.domain import find_domains
from gan_core.errors import CheckpointError, GanError
from gan_core.run import Run

WON = 0.1
"""A mean loss of the discriminator (of 2 ln 2 by guessing) below which the generator has little to learn from."""
RUNAWAY = 1e3
"""A mean loss beyond which the players no longer hold each other."""
ALIKE = 0.01
"""Samples whose values differ from sample to sample by less than this share of all their variation are one picture."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    good: bool
    finding: str


def examine_installation() -> list[Check]:
    """Looks at Python, the libraries, the device, compiling, and the domains."""
    return _attempts(LOOKS)


def examine_run(path: Path) -> list[Check]:
    """Looks at a run's recipe, checkpoints, log, losses and samples.

    Raises:
        CheckpointError: it is no run.
    """
    run = Run.open(path)
    return _attempts({name: partial(look, run) for name, look in LOOKS_AT_A_RUN.items()})


def _attempts(looks: Mapping[str, Callable[[], str]]) -> list[Check]:
    return [_attempt(name, look) for name, look in looks.items()]


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except GanError as error:
        return Check(name, False, " ".join(str(error).split()))
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


def _recipe(run: Run) -> str:
    recipe = run.recipe
    return f"{recipe.system} ({recipe.preset or 'put together by hand'}), {recipe.train.steps:,} steps"


def _checkpoints(run: Run) -> str:
    from gan_core.checkpoint import read_checkpoint

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


def _finite(run: Run) -> str:
    rollbacks = run.rollbacks()
    if not rollbacks:
        return "all that was looked at has stayed finite"
    last = rollbacks[-1]
    step, what = last["step"], last["what"]
    if any(line["step"] > step for line in run.log()[-1:]):
        return f"by step {step:,} {what}; the training was rolled back and has gone past it since"
    to = "there was nothing to go back to" if last["to"] is None else f"the run was rolled back to step {last['to']:,}"
    hint = "try half the `optimizer.learning_rate`, `optimizer.clip_norm=1`, or a gradient penalty"
    raise GanError(f"by step {step:,} {what}; {to}; {hint}")


def _losses(run: Run) -> str:
    lines = run.log()
    lines = lines[-max(1, len(lines) // 5) :]
    terms = {name: fmean(line[name] for line in lines if name in line) for name in (lines or [{}])[-1] if "/" in name}
    for name, value in terms.items():
        if not math.isfinite(value) or abs(value) > RUNAWAY:
            raise GanError(f"{name} is {value:.3g}; try a lower `optimizer.learning_rate`, or a gradient penalty")
    judge = terms.get("discriminator/adversarial", math.inf)
    if run.recipe.objective == "non_saturating" and judge < WON:
        raise GanError(
            f"the discriminator tells every sample (its loss is {judge:.2g}), so the generator learns little; try "
            "`regularizers.gradient_penalty.weight=1`, or a lower `players.discriminator.optimizer.learning_rate`"
        )
    return f"{', '.join(f'{name} {value:.3g}' for name, value in terms.items())} at the end of the log"


def _samples(run: Run) -> str:
    from gan_core.api import load
    from gan_core.game import Game

    if run.recipe.domain is None:
        return "not looked at: the game was put together by hand"
    game = load(run.path)
    if type(game).sample is Game.sample:
        return "not looked at: the system makes no samples from nothing"
    samples = game.generate(64, seed=0, label=None if game.num_classes is None else 0).float()
    among, all_of_them = float(samples.std(dim=0).mean()), float(samples.std())
    if not among > ALIKE * all_of_them:
        raise GanError(f"64 samples are alike (they differ by {among:.2g}); try a gradient penalty, or train longer")
    return f"64 samples differ by {among:.2g} of {all_of_them:.2g} in all"


LOOKS_AT_A_RUN: dict[str, Callable[[Run], str]] = {
    "recipe": _recipe,
    "checkpoints": _checkpoints,
    "log": _log,
    "finite": _finite,
    "losses": _losses,
    "samples": _samples,
}
