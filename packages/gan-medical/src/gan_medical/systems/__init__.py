"""The systems of gan-medical. There are none yet."""

from gan_core.cards import Card

CARDS: tuple[Card, ...] = ()
