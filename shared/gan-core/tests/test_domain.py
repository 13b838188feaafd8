"""Domains: entry points, cards, presets, and modules that are imported on first use."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

import gan_core.domain
from gan_core.cards import Card
from gan_core.domain import Domain, find_domain, find_domains
from gan_core.errors import InputError, RecipeError


def test_domains_are_found_by_their_entry_points(toy):
    assert find_domains() == {"toy": toy}
    assert find_domain("toy") is toy


def test_the_error_for_a_missing_domain_names_its_package(toy):
    with pytest.raises(InputError, match=r"^the domain `audio` is not installed: pip install gan-audio$"):
        find_domain("audio")


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("gone_entirely", "No module named 'gone_entirely'"),
        ("half_removed", "cannot import name 'x' from 'json'"),
        ("without_domain", "module 'without_domain' has no attribute 'DOMAIN'"),
    ],
)
def test_a_broken_domain_is_named_in_one_line_and_the_others_work(toy, monkeypatch, tmp_path, caplog, package, words):
    (tmp_path / "half_removed.py").write_text("from json import x")
    (tmp_path / "without_domain.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    broken = EntryPoint("broken", f"{package}:DOMAIN", "gan.domains")
    healthy = gan_core.domain.entry_points(group="gan.domains")
    monkeypatch.setattr(
        gan_core.domain,
        "entry_points",
        lambda group, name=None: [point for point in (broken, *healthy) if name in (None, point.name)],
    )
    assert find_domains() == {"toy": toy}
    assert find_domain("toy") is toy
    (said,) = caplog.messages
    assert said.startswith(f"the installed package gan-broken cannot be used ({words}")
    assert said.endswith("install it again, or remove it: pip uninstall gan-broken")
    for look in (lambda: find_domain("broken"), lambda: find_domains(strict=True)):
        with pytest.raises(InputError, match=r"^the installed package gan-broken cannot be used \("):
            look()


def test_domains_are_looked_up_in_their_entry_point_group(monkeypatch):
    asked = []
    monkeypatch.setattr(gan_core.domain, "entry_points", lambda group: asked.append(group) or [])
    assert find_domains() == {}
    assert asked == ["gan.domains"]


def test_unknown_systems_and_presets_suggest_the_nearest_name(toy):
    assert toy.card("plain").title == "Plain"
    assert toy.preset("plain") is toy.presets("plain")["small"]
    with pytest.raises(RecipeError, match=r"^unknown system `plian`; did you mean `plain`\?$"):
        toy.card("plian")
    with pytest.raises(RecipeError, match=r"^unknown preset of plain `papr`; did you mean `paper`\?$"):
        toy.preset("plain", "papr")


def test_a_domain_without_systems_has_no_modules():
    empty = Domain(name="none", title="GANs for nothing", package="gan_none")
    with pytest.raises(InputError, match=r"^gan-none has no systems yet$"):
        _ = empty.media
    with pytest.raises(RecipeError, match=r"^unknown system `x`; there are none$"):
        empty.card("x")


@pytest.mark.parametrize("face", ["data", "media", "metrics", "reference", "tasks"])
def test_the_modules_of_a_domain_are_those_of_its_package(toy, face):
    assert getattr(toy, face) is sys.modules[f"gan_toy.{face}"]


def test_a_recipe_names_its_domain_system_and_preset(toy):
    recipe = toy.recipe("plain", "paper")
    assert (recipe.domain, recipe.system, recipe.preset, recipe.network) == ("toy", "plain", "paper", {"width": 32})


def test_a_broken_package_does_not_affect_other_domains(toy, monkeypatch):
    def broken():
        raise ModuleNotFoundError("No module named 'gan_broken'")

    points = {"toy": SimpleNamespace(name="toy", load=lambda: toy), "broken": SimpleNamespace(load=broken)}
    monkeypatch.setattr(gan_core.domain, "entry_points", lambda group, name: [points[name]])
    assert find_domain("toy") is toy


def test_a_domain_is_created_without_torch():
    card = "Card(name='a', title='A', year=2014, task='x', paper='y', module='nowhere.at_all', data='z')"
    made = f"from gan_core.domain import *; Domain(name='n', title='t', package='p', cards=({card},)).systems"
    code = f"import sys; {made}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_card_is_plain_data():
    card = Card(name="a", title="A", year=2014, task="generation", paper="arXiv:0", module="m", data="x")
    assert card == Card(name="a", title="A", year=2014, task="generation", paper="arXiv:0", module="m", data="x")
    with pytest.raises(AttributeError):
        card.year = 2015
