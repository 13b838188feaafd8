from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import gan_video


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_entry_point_is_the_domain():
    (point,) = entry_points(group="gan.domains", name="video")
    assert point.load() is gan_video.DOMAIN
    assert gan_video.DOMAIN.name == "video"


def test_the_domain_offers_what_every_domain_offers():
    assert gan_video.create == gan_video.DOMAIN.create
    assert gan_video.load_reference == gan_video.DOMAIN.load_reference


def test_importing_the_package_loads_no_torch():
    assert run("-c", "import sys, gan_video; print('torch' in sys.modules)").strip() == "False"


def test_the_list_of_systems_is_empty():
    assert json.loads(run("-m", "gan_video", "systems", "--json")) == []
