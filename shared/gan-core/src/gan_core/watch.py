"""What a training looks at when it shows its samples, for the doctor: how diverse they are, and what is memorised."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data import BatchStream, length
from gan_core.draws import BLOCK, seed_torch
from gan_core.game import Batch, Game

ITEMS = 128
"""That are looked at, of the data and of the samples."""
FEWEST = 16
"""Of fewer, nothing is said."""
VALUES = 4096
"""Of an item that are compared: of larger ones, every second, third …"""


class Watch:
    """A game's samples and its discriminator beside the data of a phase.

    Args:
        game: that is trained.
        training: the phase's data.
        held_out: those that it is not trained on, if there are any.
    """

    def __init__(self, game: Game, training: Dataset[Batch], held_out: Dataset[Batch] | None):
        self.game, self.training, self.held_out = game, training, held_out
        self.real: Batch | None = None

    def figures(self) -> dict[str, float]:
        """Returns the figures that can be computed.

        `samples/nearest` is the median distance of a sample to the one most like it, of its own class where there are
        classes, as a multiple of the same among as many of the data; `samples/spread` is the mean distance of two,
        likewise. `held_out/recognised` is how often the discriminator finds an item that it is trained on more real
        than one that it is not; with several adversaries, `held_out/NAME/recognised`.
        """
        seed_torch(0, self.game.device)  # of items and views that are drawn
        if self.real is None:
            self.real = _some(self.training, self.game.device)
        found: dict[str, float] = {}
        if type(self.game).sample is not Game.sample and len(next(iter(self.real.values()))) >= FEWEST:
            found |= self._diversity(self.real)
        if self.held_out is not None:
            found |= self._recognition(self.real, _some(self.held_out, self.game.device))
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


def _some(dataset: Dataset[Batch], device: torch.device) -> Batch:
    return next(BatchStream(dataset, min(ITEMS, length(dataset)), seed=0, device=device))


def _rows(samples: Tensor) -> Tensor:
    """Samples as rows of numbers, `[N, VALUES]` at most."""
    rows = samples.flatten(1)
    return rows[:, :: -(-rows.shape[1] // VALUES)].float()


def _distances(rows: Tensor, label: Tensor | None) -> tuple[float, float]:
    """The median distance of a row to the nearest other, and the mean distance of two; of one class, where enough are.

    Args:
        rows: `[N, D]`.
        label: of each, `[N]`, if they have classes.
    """
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")  # exact for rows that are nearly alike
    apart.fill_diagonal_(torch.inf)
    if label is not None:
        of_one_class = apart.masked_fill(label[:, None] != label[None], torch.inf)
        if of_one_class.isfinite().any(dim=1).sum() >= FEWEST:
            apart = of_one_class
    nearest = apart.min(dim=1).values
    return float(nearest[nearest.isfinite()].median()), float(apart[apart.isfinite()].mean())
