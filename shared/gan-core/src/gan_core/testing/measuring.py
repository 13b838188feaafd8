"""Computation of a metric on given samples, as in an evaluation of a game."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.data import Batch
from gan_core.measure.features import Extractor, Extractors
from gan_core.measure.measures import Measure, Part, Subject
from gan_core.play.game import Game
from gan_core.play.player import Player


class _Nobody(Game):
    """A game without networks and players."""

    def players(self) -> tuple[Player, ...]:
        return ()


def measured(
    measure: Callable[[Subject], Measure[Part]],
    samples: Tensor,
    dataset: Dataset[Batch],
    facts: Mapping[str, Any],
    *,
    extractors: Callable[[str], Extractor] | None = None,
    memory: dict[Hashable, Any] | None = None,
    asked: Mapping[str, Any] | None = None,
    at_once: int = 64,
) -> dict[str, float]:
    """Returns the figures of a metric for given samples.

    Args:
        measure: class or function of a metric's card.
        samples: `[N, …]`.
        dataset: the real items; the samples are compared with their first key.
        facts: facts of the data.
        extractors: returns an extractor by name (default: there are none).
        memory: values that several evaluations share (default: none); see `Subject.once`.
        asked: conditions of the samples by name (default: all classes in turn, if the facts include classes).
        at_once: number of samples in a part.
    """
    if asked is None:
        classes = facts.get("num_classes")
        asked = {} if classes is None else {"label": torch.arange(len(samples)) % classes}
    key = next(key for key in dataset[0] if key != "label")
    subject = Subject(
        game=_Nobody(),
        dataset=dataset,
        facts=facts,
        extractors=extractors or Extractors((), dataset, facts, key),
        count=len(samples),
        seed=0,
        key=key,
        memory={} if memory is None else memory,
    )
    taken = measure(subject)
    with torch.no_grad():
        for start in range(0, len(samples), at_once):
            rows = slice(start, start + at_once)
            taken.update(Part(start, samples[rows], {name: values[rows] for name, values in asked.items()}))
        return dict(taken.figures())
