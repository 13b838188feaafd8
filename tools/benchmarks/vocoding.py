"""Speed of vocoders at paper scale with random weights, in seconds of sound per second, and their memory.

Each vocoder is timed unfolded, folded (`vocode` of the whole mel) and streamed (folded; the mel is one chunk, which is
processed 256 frames at a time). With `--published`, the published code is timed as well, folded and with the same
weights; the sounds must agree to 1e-4. The variants alternate round by round. Times are processor times of one thread,
which depend less on other load than wall-clock time; with `--idle`, wall-clock time on all cores is also measured. The
speed is that of the median pass; the ratio to the published code is the median over the rounds. The memory is the
increase of the peak resident set of a new process (as reported by Linux) while it generates the longer sound with one
thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import torch
from _record import Progress, record
from _tables import markdown
from torch import Tensor, nn

import gan_audio
from gan_audio.systems.vocoder import Vocoder

CASES = {
    "MelGAN": ("melgan", "paper"),
    "HiFi-GAN v1": ("hifigan", "v1"),
    "HiFi-GAN v2": ("hifigan", "v2"),
    "HiFi-GAN v3": ("hifigan", "v3"),
    "BigVGAN base": ("bigvgan", "base"),
}
"""System and preset of each case."""
SECONDS, LONGER = 5.0, 20.0
"""Duration of the sound for the timing and for the memory, in seconds."""
WAYS = ("unfolded", "folded", "streamed")
FOLDERS = {"melgan": "melgan-neurips", "hifigan": "hifi-gan"}
"""Folder of the published code, the name of its repository, by system."""
CLOCKS = {"one thread": time.process_time, "all cores": time.perf_counter}


def vocoder(case: str) -> Vocoder:
    """Returns the vocoder of a case with random weights."""
    torch.manual_seed(0)
    system, preset = CASES[case]
    return cast(Vocoder, gan_audio.create(system, preset=preset).eval())


def mel_of(game: Vocoder, seconds: float) -> Tensor:
    """Returns noise in the shape of a mel."""
    contract = game.contract
    frames = round(seconds * contract.sample_rate / contract.hop)
    return torch.randn(1, contract.mels, frames, generator=torch.Generator().manual_seed(0))


def ways(game: Vocoder) -> dict[str, Callable[[Tensor], Tensor]]:
    """Returns the variants of vocoding that are timed, by name."""
    folded = deepcopy(game).fold()

    def streamed(mel: Tensor) -> Tensor:
        return torch.cat(list(folded.stream([mel])), dim=2)

    return dict(zip(WAYS, (game.vocode, folded.vocode, streamed), strict=True))


# The published code.


def published(case: str, folder: Path) -> nn.Module | None:
    """Returns the published generator of a case; None if its code is missing."""
    system, preset = CASES[case]
    home = folder / FOLDERS.get(system, system)
    if not home.is_dir():
        return None
    for name in ("matplotlib", "matplotlib.pylab"):  # imported by the published code for plots
        sys.modules.setdefault(name, MagicMock())
    if system == "melgan":
        return module(home / "mel2wav" / "modules.py").Generator(80, 32, 3)
    sys.path.insert(0, str(home))
    settings = json.loads((home / f"config_{preset}.json").read_text(encoding="utf-8"))
    return module(home / "models.py").Generator(SimpleNamespace(**settings))


def module(path: Path) -> ModuleType:
    """Imports a Python file."""
    spec = importlib.util.spec_from_file_location(f"published_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def share_weights(theirs: nn.Module, case: str, game: Vocoder) -> Callable[[Tensor], Tensor]:
    """Loads the published generator's weights into the game, and returns the generator without weight normalisation."""
    imported = gan_audio.load_reference(f"{CASES[case][0]}/generator", theirs.state_dict())
    game.generator.load_state_dict(imported.state_dict())
    for layer in theirs.eval().modules():
        if hasattr(layer, "weight_g"):
            nn.utils.remove_weight_norm(layer)
    return torch.no_grad()(theirs)


# What is measured.


def speeds(case: str, rounds: int, folder: Path | None, clocks: Sequence[str]) -> dict[str, Any]:
    """Returns the speeds of a case by clock and variant, and the ratio to the published code."""
    game, theirs = vocoder(case), None
    if folder is not None and (network := published(case, folder)) is not None:
        theirs = share_weights(network, case, game)
    timed, mel = ways(game), mel_of(game, SECONDS)
    if theirs is not None:
        timed["published"] = theirs
    sounds = {way: make(mel) for way, make in timed.items()}
    for way, sound in sounds.items():
        apart = float((sound - sounds["unfolded"]).abs().max())
        assert apart < 1e-4, f"{case}: {way} differs by {apart}"
    length, figures = mel.shape[2] * game.contract.hop / game.contract.sample_rate, dict[str, Any]()
    for name in clocks:
        clock = CLOCKS[name]
        torch.set_num_threads(1 if name == "one thread" else os.cpu_count() or 1)
        taken: dict[str, list[float]] = {way: [] for way in timed}
        for _ in range(rounds):
            for way, make in timed.items():
                start = clock()
                make(mel)
                taken[way].append(clock() - start)
        figures[name] = {way: round(length / median(seconds), 2) for way, seconds in taken.items()}
        if theirs is not None:
            ratios = [other / ours for other, ours in zip(taken["published"], taken["folded"], strict=True)]
            figures[name]["times as fast"] = round(median(ratios), 2)
    return figures


def peak(case: str, way: str, folder: Path | None) -> float:
    """Returns the increase of this process's peak memory while the longer sound is generated, in MiB."""
    torch.set_num_threads(1)
    game = vocoder(case)
    if way == "published":
        assert folder is not None
        theirs = published(case, folder)
        assert theirs is not None
        make = share_weights(theirs, case, game)
    else:
        make = ways(game)[way]
    make(mel_of(game, 0.5))
    before = peak_memory()
    make(mel_of(game, LONGER))
    return round(peak_memory() - before)


def peak_memory() -> float:
    """Returns the peak resident set of this process, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def memory(case: str, folder: Path | None) -> dict[str, float]:
    """Returns the increase of the peak memory in MiB, by variant, each measured in a new process."""
    there = folder is not None and published(case, folder) is not None
    rises = {}
    for way in ("folded", "streamed", *(["published"] if there else [])):
        with get_context("spawn").Pool(1) as pool:
            rises[way] = pool.apply(peak, (case, way, folder))
    return rises


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""

    def row(case: str, found: Mapping[str, Any]) -> list[str]:
        def cell(way: str, digits: int = 1) -> str:
            return ", ".join(f"{found[name][way]:.{digits}f}" for name in CLOCKS if way in found.get(name, {}))

        rises = ", ".join(f"{rise:,.0f}" for rise in found["MiB"].values())
        return [case, *(cell(way) for way in (*WAYS, "published")), cell("times as fast", 2), rises]

    head = ["system", *WAYS, "published", "times as fast", "MiB: whole, streamed, published"]
    return markdown(head, [row(case, found) for case, found in figures.items()])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures each case and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--idle", action="store_true", help="also measure with all cores, on an idle machine")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FOLDER",
        help="where descriptinc/melgan-neurips and jik876/hifi-gan are cloned, in folders of their own names",
    )
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    options = parser.parse_args(arguments)
    progress, clocks = Progress(options.progress), list(CLOCKS)[: 1 + options.idle]

    def measure(case: str) -> dict[str, Any]:
        return speeds(case, options.rounds, options.published, clocks) | {"MiB": memory(case, options.published)}

    figures = {case: progress.take(case, partial(measure, case)) for case in CASES}
    record("vocoding", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
