from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import gan_audio


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_entry_point_is_the_domain():
    (point,) = entry_points(group="gan.domains", name="audio")
    assert point.load() is gan_audio.DOMAIN
    assert gan_audio.DOMAIN.name == "audio"


def test_the_domain_offers_what_every_domain_offers():
    assert gan_audio.create == gan_audio.DOMAIN.create
    assert gan_audio.load_reference == gan_audio.DOMAIN.load_reference


def test_importing_the_package_loads_no_torch():
    assert run("-c", "import sys, gan_audio; print('torch' in sys.modules)").strip() == "False"


def test_the_systems_are_listed():
    names = [card["name"] for card in json.loads(run("-m", "gan_audio", "systems", "--json"))]
    assert names == ["wavegan", "specgan", "melspec", "melgan", "hifigan", "bigvgan", "midinet"]
