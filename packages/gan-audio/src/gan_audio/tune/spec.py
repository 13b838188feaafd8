"""Data specification of tunes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gan_core.data import Spec

Bars = Annotated[int, Field(ge=1, le=256)]
"""Number of bars of a tune."""


class TuneSpec(Spec):
    """Tunes `[2, 16 * bars]`: pitch of the melody and chord, per step (`gan_audio.tune.midi`).

    Attributes:
        bars: length of an item in bars of 16 steps.
        transposed: whether each tune is used in all twelve keys.
    """

    key: ClassVar[str | None] = "tune"
    thing: ClassVar[str] = "tunes"
    bars: Bars | None = None
    transposed: bool = False
