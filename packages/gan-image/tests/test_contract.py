"""Every system fulfils the contract of `gan_core.testing`."""

from pathlib import Path

import pytest

from gan_core.cards import Card
from gan_core.testing import check_contract
from gan_image import DOMAIN


@pytest.mark.parametrize("card", DOMAIN.cards, ids=lambda card: card.name)
def test_contract(card: Card, tmp_path: Path) -> None:
    check_contract(DOMAIN, card, tmp_path)
