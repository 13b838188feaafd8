"""Symptoms of a finished run, measured on its weights and samples; the doctor reads only the log.

The thresholds were set before any run was measured. The kind of a sample is its class according to a classifier, or its
nearest mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gan_core.data import Batch
from gan_core.measure.metrics import Moments, frechet_distance
from gan_core.models.checkpoint import load_state, read_checkpoint
from gan_core.play.game import Game
from gan_core.runs.run import Run

TENTHS = 10
"""Number of evenly spaced checkpoints that a run must have."""
SAMPLES = 1000
"""Maximum number of items and samples that are measured."""
ALIKE = 0.5
"""Collapse: maximum effective number of kinds (exponential of the entropy), relative to that of the data."""
CERTAIN, FOOLED = 0.99, 0.1
"""Probabilities that the discriminator ranks an item of the data above a sample: minimum for a nearly perfect
discriminator, and maximum for a reversed one."""
FAR = 0.5
"""Fréchet distance, relative to the data's variance, above which samples are hardly better than the data's mean."""
KNOWN = 0.75
"""Memorisation: probability that the discriminator ranks a training item above an unseen one."""
HUGE, GROWN, VANISHED = 1e3, 100.0, 0.01
"""Thresholds of a diverging loss, of the growth of a diverging gradient norm, and of a vanishing gradient norm of the
generator as a fraction of its maximum."""
TURNED = 0.3
"""Oscillation: total variation between the kinds of samples of two successive checkpoints."""


@dataclass(frozen=True)
class Reference:
    """The data of a run.

    Attributes:
        trained: up to `SAMPLES` items of the training set.
        unseen: the same number of other items; None if each item is trained on about once.
        key: key of the values in a batch.
        kinds: function that returns the kind of each value, and the number of kinds.
    """

    trained: Batch
    unseen: Batch | None
    key: str
    kinds: tuple[Callable[[Tensor], Tensor], int]

    def shares(self, values: Tensor) -> Tensor:
        """Returns the fraction of the values of each kind."""
        kind_of, count = self.kinds
        return torch.bincount(kind_of(values), minlength=count).double() / len(values)


def ailments(run: Run, game: Game, data: Reference) -> dict[str, bool | None]:
    """Returns whether a finished run has each symptom; None if that cannot be determined.

    Args:
        run: the run, with `TENTHS` checkpoints.
        game: its game, untrained.
        data: its data.
    """
    steps, shares = run.checkpoints(), []
    real = data.trained[data.key]
    label = None if game.num_classes is None else data.trained["label"]
    assert len(steps) == TENTHS, f"{run.path} has {len(steps)} checkpoints"
    norms = [losses_and_norms(game, data.trained)[1]]
    for folder in steps:
        files, state = read_checkpoint(folder)
        load_state(game, files["game.safetensors"], state.get("game", {}), folder)
        made = game.generate(len(real), seed=1, label=label)
        shares.append(data.shares(made))
        losses, norm = losses_and_norms(game, data.trained)
        norms.append(norm)
    kinds, of_data = (float(torch.special.entr(share).sum().exp()) for share in (shares[-1], data.shares(real)))
    batches = (data.trained, {**data.trained, data.key: made}, data.unseen)
    known = [game.realness(batch)["discriminator"] for batch in batches if batch]
    ahead = rank(known[0], known[1])
    moments = [Moments.of(values.flatten(1).double().numpy()) for values in (real, made)]
    far = frechet_distance(*moments) > FAR * float(np.trace(moments[0].covariance))
    turned = [float((one - other).abs().sum() / 2) for one, other in zip(shares[5:], shares[4:], strict=False)]
    grown = max(norms[-1][name] / norms[0][name] for name in norm)
    left = norm["generator"] / max(one["generator"] for one in norms)
    return {
        "finite": not all(bool(tensor.isfinite().all()) for tensor in game.parameters()),
        "collapse": kinds <= ALIKE * of_data,
        "discriminator": far and (ahead > CERTAIN or ahead < FOOLED),
        "memory": rank(known[0], known[2]) > KNOWN if data.unseen else None,
        "gradients": grown > GROWN or left < VANISHED or any(abs(value) > HUGE for value in losses.values()),
        "oscillation": float(np.mean(turned)) > TURNED,
    }


def rank(one: Tensor, other: Tensor) -> float:
    """Returns the probability that a value of `one` is larger than a value of `other`; ties count half."""
    return float(((one[:, None] > other).float() + (one[:, None] == other).float() / 2).mean())


def losses_and_norms(game: Game, batch: Batch) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the loss of each player on a batch, and the norm of its gradient."""
    losses, norms = {}, {}
    game.train()
    for player in game.players():
        loss = torch.stack(list(player.loss(batch).values())).sum()
        slopes = torch.autograd.grad(loss, player.parameters(), allow_unused=True)
        losses[player.name] = float(loss.detach())
        norms[player.name] = float(
            torch.cat([slope.flatten() for slope in slopes if slope is not None]).detach().norm()
        )
    game.eval()
    return losses, norms
