"""The systems of gan-text. There are none yet."""

from gan_core.cards import Card

CARDS: tuple[Card, ...] = ()
