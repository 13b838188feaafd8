"""Advice on a run: lower learning rates, and the command that continues the run. Does not import torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path


def rate_key(player: str | None) -> str:
    """Returns the recipe's key of a player's learning rate, or of all players' (None)."""
    return "optimizer.learning_rate" if player is None else f"players.{player}.optimizer.learning_rate"


def lower_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """Returns half of each learning rate, by key."""
    return {key: rate / 2 for key, rate in rates.items()}


def resume_command(
    program: str | None, folder: Path, *, changes: Mapping[str, object] | None = None, steps: int | None = None
) -> str:
    """Returns the command that continues a run, or the Python call if its game was built by hand.

    Args:
        program: command-line program (`gan-image`); None for a game that cannot be built from the command line.
        folder: the run.
        changes: changes to the recipe by dotted key.
        steps: new total number of steps.
    """
    changed = change_options(program, changes) if changes else None
    if program is None:
        more = [f"steps={steps}"] if steps is not None else []
        arguments = [repr(str(folder)), "game=game", "data=data", *more, *([changed] if changed else [])]
        return f"gan_core.resume({', '.join(arguments)})"
    more = [f"--steps {steps}"] if steps is not None else []
    return " ".join([program, "resume", shlex.quote(str(folder)), *more, *([changed] if changed else [])])


def change_options(program: str | None, changes: Mapping[str, object]) -> str:
    """Returns the options (or the argument, in Python) that change a recipe, given by dotted key."""
    if program is None:
        return f"changes={dict(changes)}"
    values = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in changes.items()}
    return " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in values.items())
