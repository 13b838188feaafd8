"""Every system keeps the contract of `gan_core.testing`."""

from pathlib import Path

import pytest

from gan_audio import DOMAIN
from gan_core.cards import Card
from gan_core.testing import check_contract


@pytest.mark.parametrize("card", DOMAIN.cards, ids=lambda card: card.name)
def test_contract(card: Card, tmp_path: Path) -> None:
    check_contract(DOMAIN, card, tmp_path)
