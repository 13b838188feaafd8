from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import gan_medical


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_entry_point_is_the_domain():
    (point,) = entry_points(group="gan.domains", name="medical")
    assert point.load() is gan_medical.DOMAIN
    assert gan_medical.DOMAIN.name == "medical"


def test_the_domain_offers_what_every_domain_offers():
    assert gan_medical.create == gan_medical.DOMAIN.create
    assert gan_medical.load_reference == gan_medical.DOMAIN.load_reference


def test_importing_the_package_loads_no_torch():
    assert run("-c", "import sys, gan_medical; print('torch' in sys.modules)").strip() == "False"


def test_the_list_of_systems_is_empty():
    assert json.loads(run("-m", "gan_medical", "systems", "--json")) == []
