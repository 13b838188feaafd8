#!/usr/bin/env python3
"""Makes the sample pictures of the system pages: each system's preset `small`, trained on its default data.

    python tools/docs/samples.py                        # the systems that have no picture yet
    python tools/docs/samples.py dcgan hifigan

Each training run takes minutes on an idle core. Use the environment that `python3 tools/dev.py docs` creates.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from _markdown import DOCS, domains
from PIL import Image

from gan_core.api import Toolkit
from gan_core.domain import Domain

FOLDER = DOCS / "systems" / "samples"
"""Folder of the pictures."""
BYTES = 40_000
"""Maximum size of a picture."""


def make(domain: Domain, system: str) -> Path:
    """Trains a system's preset `small` and writes a picture of its samples."""
    with tempfile.TemporaryDirectory() as folder:
        data, out = domain.card(system).data, Path(folder) / "run"
        run = Toolkit(domain).train(system, data=data, out=out)
        return write(Image.open(run.samples()[-1].with_suffix(".png")), FOLDER / f"{system}.webp")


def write(picture: Image.Image, path: Path) -> Path:
    """Writes a picture as WebP of at most `BYTES`: lossless, or with the highest quality that fits."""
    path.parent.mkdir(exist_ok=True)
    picture.convert("RGB").save(path, lossless=True, method=6)
    for quality in range(95, 0, -5):
        if path.stat().st_size <= BYTES:
            break
        picture.convert("RGB").save(path, quality=quality, method=6)
    return path


def main() -> None:
    """Makes the pictures of the named systems, or those that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", help="systems (default: those without a picture)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for domain in domains():
        for card in domain.cards:
            if card.name in options.systems or not (options.systems or (FOLDER / f"{card.name}.webp").exists()):
                path = make(domain, card.name)
                print(f"{path.relative_to(DOCS)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
