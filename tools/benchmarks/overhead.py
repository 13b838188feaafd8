"""Cost of a training step in the trainer, compared with a hand-written loop of the same networks.

The bare loop generates fakes as often, and has the trainer's memory layout (channels last for images) and fused Adam.
Both alternate in one process: the dataset of the training runs a bare step before each round. One thread; processor
times, which other load on the machine affects little. The ratio of a step is the trainer's time, including logging,
divided by that of the preceding bare step; its fixed cost is the difference. The figures of a run are medians over its
steps, and each run has its own process. The trainer makes glibc keep freed memory, which makes both loops faster. With
"glibc's limits", the environment prevents this, and either loop has page faults that depend on the end of the heap.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _alternating import Alternating
from _record import record
from torch import Tensor
from torch.nn.functional import softplus

import gan_audio
import gan_image
from gan_core.play.two_player import TwoPlayerGame, latent_dim

CASES: dict[str, dict[str, Any]] = {
    "dense 8x8, width 32, batch 16": {
        "system": "gan",
        "preset": "small",
        "batch": 16,
        "steps": 2000,
        "network": {"shape": (1, 8, 8), "width": 32, "latent_dim": 8},
    },
    "dcgan 64x64, width 64, batch 64": {"system": "dcgan", "preset": "paper", "batch": 64, "steps": 24, "network": {}},
    "dcgan 16x16, width 32, batch 288": {
        "system": "dcgan",
        "preset": "small",
        "batch": 288,
        "steps": 120,
        "network": {"image_size": 16, "channels": 1},
    },
    "dcgan 16x16, width 32, batch 64": {
        "system": "dcgan",
        "preset": "small",
        "batch": 64,
        "steps": 400,
        "network": {"image_size": 16, "channels": 1},
    },
    "wavegan 4096 samples, width 16, batch 8": {
        "system": "wavegan",
        "preset": "paper",
        "batch": 8,
        "steps": 60,
        "network": {"samples": 4096, "width": 16},
    },
}
ALLOCATORS = {"": {}, ", glibc's limits": {"GLIBC_TUNABLES": ""}}
"""Environment variables of the processes, by suffix of the case's name."""
WARM = 4
"""Number of warm-up steps, which are not counted."""


def bare_images(game: TwoPlayerGame, pixels: Tensor, batch: int) -> Iterator[float]:
    """Yields the seconds of each step of a hand-written loop with one discriminator step and one generator step."""
    game.train().to(memory_format=torch.channels_last)
    generator, discriminator = game.generator, game.discriminator.network
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
        for network in (generator, discriminator)
    )
    backward: Any = torch.autograd.backward
    size = latent_dim(generator)

    def real() -> Tensor:
        return pixels[torch.randint(len(pixels), (batch,))].float().div_(127.5).sub_(1.0)

    while True:
        start = time.process_time()
        with torch.no_grad():
            fake = generator(torch.randn(batch, size))
        loss = softplus(-discriminator(real())).mean() + softplus(discriminator(fake)).mean()
        adam_d.zero_grad()
        backward(loss)
        adam_d.step()
        discriminator.requires_grad_(False)
        loss = softplus(-discriminator(generator(torch.randn(batch, size)))).mean()
        adam_g.zero_grad()
        backward(loss)
        adam_g.step()
        discriminator.requires_grad_(True)
        yield time.process_time() - start


def bare_wavegan(game: TwoPlayerGame, sounds: Tensor, batch: int, turns: int) -> Iterator[float]:
    """Yields the seconds of each step of a hand-written loop for WGAN-GP, with `turns` discriminator steps."""
    game.train()
    generator, discriminator = game.generator, game.discriminator.network
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9), fused=True)
        for network in (generator, discriminator)
    )
    backward: Any = torch.autograd.backward
    size = latent_dim(generator)

    def latents() -> Tensor:
        return torch.rand(batch, size).mul_(2).sub_(1)

    while True:
        start = time.process_time()
        for _ in range(turns):
            real = sounds[torch.randint(len(sounds), (batch,))]
            with torch.no_grad():
                fake = generator(latents())
            between = torch.lerp(real, fake, torch.rand(batch, 1, 1)).requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
            penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
            loss = discriminator(fake).mean() - discriminator(real).mean() + 10 * penalty
            adam_d.zero_grad()
            backward(loss)
            adam_d.step()
        discriminator.requires_grad_(False)
        loss = -discriminator(generator(latents())).mean()
        adam_g.zero_grad()
        backward(loss)
        adam_g.step()
        discriminator.requires_grad_(True)
        yield time.process_time() - start


def compare(case: dict[str, Any]) -> tuple[float, float, float]:
    """Returns medians over steps: ratio to the bare loop, difference in seconds, and seconds of the bare loop."""
    torch.set_num_threads(1)
    system, network, batch = case["system"], case["network"], case["batch"]
    package: Any = gan_audio if system == "wavegan" else gan_image
    ours, theirs = (package.create(system, preset=case["preset"], **network) for _ in range(2))
    if system != "wavegan":
        size, turns = network.get("image_size", 64), 1
        shape = network.get("shape", (network.get("channels", 3), size, size))
        samples = {"image": torch.randint(256, (512, *shape)).byte()}
        loop = bare_images(theirs, samples["image"], batch)
    else:
        turns = ours.recipe.players["discriminator"].turns or 1
        samples = {"audio": torch.rand(512, 1, ours.recipe.network["samples"]).mul_(2).sub_(1)}
        loop = bare_wavegan(theirs, samples["audio"], batch, turns)
    data = Alternating(samples, loop, turns + 1)
    with tempfile.TemporaryDirectory() as folder:
        package.train(
            ours,
            data=data,
            out=Path(folder) / "run",
            steps=case["steps"],
            batch_size=batch,
            log_every=10,
            show=2,
            ema=None,
            shown=False,
            changes={"train.sample_every": None, "train.checkpoint_every": None},
        )
    pairs = data.pairs(WARM)
    return median(a / b for a, b in pairs), median(a - b for a, b in pairs), median(b for _, b in pairs)


def alone(case: dict[str, Any], environment: dict[str, str]) -> tuple[float, float, float]:
    """Runs `compare(case)` in a new process, since glibc reads its environment at the start."""
    os.environ.update(environment)
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(compare, (case,))
    finally:
        for name in environment:
            del os.environ[name]


def main() -> None:
    """Measures each case several times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the names of the cases to measure; nothing is recorded")
    options = parser.parse_args()
    figures = {}
    cases = {name: case for name, case in CASES.items() if options.only in name}
    for (name, case), (suffix, environment) in product(cases.items(), ALLOCATORS.items()):
        ratios, costs, seconds = zip(*sorted(alone(case, environment) for _ in range(options.times)), strict=True)
        figures[name + suffix] = {
            "ratio_median": round(median(ratios), 4),
            "ratio_min": round(ratios[0], 4),
            "ratio_max": round(ratios[-1], 4),
            "fixed_cost_ms": round(1000 * median(costs), 3),
            "times": options.times,
            "steps_each": case["steps"] - WARM - 1,
            "bare_seconds_a_step": round(median(seconds), 5),
        }
    if options.only:
        print(json.dumps(figures, indent=2))
    else:
        record("overhead", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
