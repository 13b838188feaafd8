"""The cards: this package's table of contents. A system is written when it has networks, a preset and a proof."""

from __future__ import annotations

from gan_core.cards import Card

CARDS: tuple[Card, ...] = ()
