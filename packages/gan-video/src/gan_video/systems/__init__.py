"""The systems of gan-video. There are none yet."""

from gan_core.cards import Card

CARDS: tuple[Card, ...] = ()
