"""The core of the GAN toolkits: games of players, objectives, regularizers, the trainer, runs and the command line.

Importing it loads no torch; public names are imported on first use.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Adam": "gan_core.recipe",
    "ArraySpec": "gan_core.data",
    "Card": "gan_core.domain",
    "DataCard": "gan_core.domain",
    "Derived": "gan_core.data",
    "Domain": "gan_core.domain",
    "Game": "gan_core.game",
    "GanError": "gan_core.errors",
    "Adversary": "gan_core.adversary",
    "GradientPenalty": "gan_core.regularizers",
    "ImageSpec": "gan_core.data",
    "Objective": "gan_core.objectives",
    "Paired": "gan_core.data",
    "Phase": "gan_core.game",
    "Player": "gan_core.game",
    "Preset": "gan_core.preset",
    "RMSprop": "gan_core.recipe",
    "Recipe": "gan_core.recipe",
    "Regime": "gan_core.regime",
    "Regularizer": "gan_core.regularizers",
    "ReplayPool": "gan_core.replay",
    "Run": "gan_core.run",
    "SGD": "gan_core.recipe",
    "Size": "gan_core.recipe",
    "Source": "gan_core.data",
    "Spec": "gan_core.data",
    "TensorSource": "gan_core.data",
    "TwoPlayerGame": "gan_core.two_player",
    "Unpaired": "gan_core.data",
    "load": "gan_core.api",
    "resume": "gan_core.api",
    "train": "gan_core.api",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
