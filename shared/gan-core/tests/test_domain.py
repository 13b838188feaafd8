"""What a package plugs in: found at the entry points, loaded when it is used."""

import subprocess
import sys

import pytest

import gan_core.domain
from gan_core.cards import Card
from gan_core.domain import Domain, find_domain, find_domains, public_names
from gan_core.errors import InputError, RecipeError


def test_domains_are_found_by_their_entry_points(toy):
    assert find_domains() == {"toy": toy}
    assert find_domain("toy") is toy


def test_a_domain_that_is_not_installed_says_how_to_get_it(toy):
    with pytest.raises(InputError, match=r"^the domain `audio` is not installed: pip install gan-audio$"):
        find_domain("audio")


def test_only_the_group_of_domains_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(gan_core.domain, "entry_points", lambda group: asked.append(group) or [])
    assert find_domains() == {}
    assert asked == ["gan.domains"]


def test_cards_and_presets_are_found_by_name_and_the_nearest_is_shown(toy):
    assert toy.card("plain").title == "Plain"
    assert toy.preset("plain") is toy.presets("plain")["small"]
    with pytest.raises(RecipeError, match=r"^unknown system `plian`; did you mean `plain`\?$"):
        toy.card("plian")
    with pytest.raises(RecipeError, match=r"^unknown preset of plain `papr`; did you mean `paper`\?$"):
        toy.preset("plain", "papr")


def test_a_domain_without_systems_has_none_of_the_modules_that_serve_them():
    empty = Domain("none", "GANs for nothing", "gan_none")
    with pytest.raises(InputError, match=r"^gan-none has no systems yet$"):
        empty.module("media")
    with pytest.raises(RecipeError, match=r"^unknown system `x`; there are none$"):
        empty.card("x")


def test_the_modules_of_a_domain_are_its_packages(toy):
    assert toy.module("media").__name__ == "gan_toy.media"


def test_a_package_offers_its_domains_methods_and_its_public_names(toy):
    get = public_names(toy, {"Preset": "gan_core.play.preset"})
    assert get("create") == toy.create
    assert get("load_reference") == toy.load_reference
    assert get("Preset").__name__ == "Preset"
    with pytest.raises(AttributeError, match=r"^module 'gan_toy' has no attribute 'Prest'$"):
        get("Prest")


def test_a_domain_is_made_without_torch():
    card = "Card('a', 'A', 2014, 'generation', 'arXiv:0', 'nowhere.at_all', 'x')"
    made = f"from gan_core.domain import *; Domain('n', 't', 'p', ({card},)).systems"
    code = f"import sys; {made}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_card_is_plain_data():
    card = Card("a", "A", 2014, "generation", "arXiv:0", "m", "x")
    assert card == Card("a", "A", 2014, "generation", "arXiv:0", "m", "x")
    with pytest.raises(AttributeError):
        card.year = 2015
