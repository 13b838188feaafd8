"""What is wrong with a run by measures of its weights and samples that the doctor does not look at (it reads the log).

The bounds were set before any run was measured. Of samples a classifier, or the nearest mode, tells the kind.
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
"""Checkpoints that a run must have kept, evenly."""
SAMPLES = 1000
ALIKE = 0.5
"""Of the data's effective number of kinds (the entropy's exponential): samples that have no more have collapsed."""
CERTAIN, FOOLED = 0.99, 0.1
"""How often a discriminator finds the data more real than samples where it tells them all, and where it is fooled."""
FAR = 0.5
"""Of the data's variance: samples whose Fréchet distance to them is larger are hardly better than the data's mean."""
KNOWN = 0.75
"""How often a discriminator that memorises holds what it was trained on for more real than what it was not."""
HUGE, GROWN, VANISHED = 1e3, 100.0, 0.01
"""A loss that runs away; a gradient's growth over the training that does; and what is left of the generator's highest
where it vanishes."""
TURNED = 0.3
"""Of the samples, the share whose kind is another a tenth later (total variation), where the players circle."""


@dataclass(frozen=True)
class Reference:
    """The data of a run.

    Attributes:
        trained: up to `SAMPLES` items that it is trained on.
        unseen: as many others; None where every item is seen about once.
        key: of the items' values.
        kinds: what tells the kind of values, and how many there are.
    """

    trained: Batch
    unseen: Batch | None
    key: str
    kinds: tuple[Callable[[Tensor], Tensor], int]

    def shares(self, values: Tensor) -> Tensor:
        """How much of them is of each kind."""
        tell, count = self.kinds
        return torch.bincount(tell(values), minlength=count).double() / len(values)


def ailments(run: Run, game: Game, data: Reference) -> dict[str, bool | None]:
    """By symptom, whether a finished run has it; None where that cannot be told.

    Args:
        run: that kept a checkpoint at every tenth.
        game: of its networks, untrained.
        data: that it was trained on.
    """
    steps, shares = run.checkpoints(), []
    real = data.trained[data.key]
    label = None if game.num_classes is None else data.trained["label"]
    assert len(steps) == TENTHS, f"{run.path} has {len(steps)} checkpoints"
    norms = [moves(game, data.trained)[1]]
    for folder in steps:
        files, state = read_checkpoint(folder)
        load_state(game, files["game.safetensors"], state.get("game", {}), folder)
        made = game.generate(len(real), seed=1, label=label)
        shares.append(data.shares(made))
        losses, norm = moves(game, data.trained)
        norms.append(norm)
    kinds, of_data = (float(torch.special.entr(share).sum().exp()) for share in (shares[-1], data.shares(real)))
    batches = (data.trained, {**data.trained, data.key: made}, data.unseen)
    known = [game.realness(batch)["discriminator"] for batch in batches if batch]
    told = rank(known[0], known[1])
    moments = [Moments.of(values.flatten(1).double().numpy()) for values in (real, made)]
    far = frechet_distance(*moments) > FAR * float(np.trace(moments[0].covariance))
    turned = [float((one - other).abs().sum() / 2) for one, other in zip(shares[5:], shares[4:], strict=False)]
    grown = max(norms[-1][name] / norms[0][name] for name in norm)
    left = norm["generator"] / max(one["generator"] for one in norms)
    return {
        "finite": not all(bool(tensor.isfinite().all()) for tensor in game.parameters()),
        "collapse": kinds <= ALIKE * of_data,
        "discriminator": far and (told > CERTAIN or told < FOOLED),
        "memory": rank(known[0], known[2]) > KNOWN if data.unseen else None,
        "gradients": grown > GROWN or left < VANISHED or any(abs(value) > HUGE for value in losses.values()),
        "oscillation": float(np.mean(turned)) > TURNED,
    }


def rank(one: Tensor, other: Tensor) -> float:
    """Returns how often one of the first is higher than one of the others."""
    return float(((one[:, None] > other).float() + (one[:, None] == other).float() / 2).mean())


def moves(game: Game, batch: Batch) -> tuple[dict[str, float], dict[str, float]]:
    """Each player's loss on a batch, and the norm of its gradient."""
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
