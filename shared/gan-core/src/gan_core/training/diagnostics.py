"""Diagnostics of samples during training, for the doctor: diversity, and memorisation of the training data."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data import Batch, some
from gan_core.draws import BLOCK, seed_torch
from gan_core.play.game import Game

ITEMS = 128
"""Maximum number of real items and of samples that are compared."""
FEWEST = 16
"""Minimum number of items from which a figure is computed."""
VALUES = 4096
"""Maximum number of values per item that are compared; larger items are subsampled with a stride."""


class SampleDiagnostics:
    """Diagnostics of a game during a phase, compared with the data of that phase.

    Args:
        game: game that is trained.
        training: training items of the phase.
        held_out: held-out items; None if there are none.
    """

    def __init__(self, game: Game, training: Dataset[Batch], held_out: Dataset[Batch] | None):
        self.game, self.training, self.held_out = game, training, held_out
        self.real: Batch | None = None

    def figures(self) -> dict[str, float]:
        """Returns the figures that can be computed.

        - `samples/nearest`: median distance from a sample to its nearest neighbour (of its own class, if there are
          classes), divided by the same distance for an equal number of real items.
        - `samples/spread`: mean distance between two samples, divided by that between two real items.
        - `held_out/recognised`, or `held_out/NAME/recognised` with several adversaries: probability that the
          discriminator scores a training item as more real than a held-out item.
        """
        seed_torch(0, self.game.device)  # for random crops and views of the items
        if self.real is None:
            self.real = some(self.training, ITEMS, self.game.device)
        found: dict[str, float] = {}
        if type(self.game).sample is not Game.sample and len(next(iter(self.real.values()))) >= FEWEST:
            found |= self._diversity(self.real)
        if self.held_out is not None:
            found |= self._recognition(self.real, some(self.held_out, ITEMS, self.game.device))
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _diversity(self, real: Batch) -> dict[str, float]:
        given, count, chunks = self.game.conditions_in(real), len(next(iter(real.values()))), []
        if any(kind.required for name, kind in self.game.conditions.items() if name not in given):
            return {}
        for number, start in enumerate(range(0, count, BLOCK)):
            rows = min(BLOCK, count - start)
            made = self.game.generate(rows, seed=number, **self.game.rows_of(given, start, rows))
            shape = made.shape[1:]
            chunks.append(_rows(made))
        alike = [value for key, value in real.items() if key != "label" and value.shape[1:] == shape]
        if not alike:
            return {}
        (nearest, spread), (real_nearest, real_spread) = (
            _distances(rows, given.get("label")) for rows in (torch.cat(chunks), _rows(alike[0]))
        )
        found = {} if real_nearest == 0 else {"samples/nearest": nearest / real_nearest}
        return found if real_spread == 0 else found | {"samples/spread": spread / real_spread}

    def _recognition(self, seen: Batch, unseen: Batch) -> dict[str, float]:
        trained, others = self.game.realness(seen), self.game.realness(unseen)
        found: dict[str, float] = {}
        for name, one in trained.items():
            other = others[name]
            if min(len(one), len(other)) >= FEWEST:
                higher = (one[:, None] > other).float() + (one[:, None] == other).float() / 2
                key = f"held_out/{name}/recognised" if len(trained) > 1 else "held_out/recognised"
                found[key] = float(higher.mean())
        return found


def _rows(samples: Tensor) -> Tensor:
    """Returns samples as rows `[N, D]`, where D is at most `VALUES`."""
    rows = samples.flatten(1)
    return rows[:, :: -(-rows.shape[1] // VALUES)].float()


def _distances(rows: Tensor, label: Tensor | None) -> tuple[float, float]:
    """Returns the median distance of a row to its nearest neighbour, and the mean distance between two rows.

    Args:
        rows: `[N, D]`.
        label: class of each row, `[N]`. If enough rows share their class with another row, only rows of the same class
            are compared.
    """
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")  # exact for rows that are nearly alike
    apart.fill_diagonal_(torch.inf)
    if label is not None:
        of_one_class = apart.masked_fill(label[:, None] != label[None], torch.inf)
        if of_one_class.isfinite().any(dim=1).sum() >= FEWEST:
            apart = of_one_class
    nearest = apart.min(dim=1).values
    return float(nearest[nearest.isfinite()].median()), float(apart[apart.isfinite()].mean())
