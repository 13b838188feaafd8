"""The systems of gan-3d. There are none yet."""

from gan_core.cards import Card

CARDS: tuple[Card, ...] = ()
