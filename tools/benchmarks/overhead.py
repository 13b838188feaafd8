"""The trainer's cost a step, against a bare hand-written loop of the same networks that makes its fakes as often.

The bare loop has the trainer's memory layout (channels last) and its fused Adam. Both run in one process, in turn
(A B A B …); a pair's ratio is the median seconds a step of the trainer over that of the bare loop, and the figure is
the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _record import record
from torch.nn.functional import softplus

import gan_image
from gan_core.two_player import TwoPlayerGame, latent_dim

CASES: dict[str, dict[str, Any]] = {
    "dcgan 64x64, width 64, batch 64": {"preset": "paper", "batch": 64, "network": {}},
    "dcgan 16x16, width 32, batch 64": {"preset": "small", "batch": 64, "network": {"image_size": 16, "channels": 1}},
}


def images(network: dict[str, Any]) -> torch.Tensor:
    """As many random pictures as a few batches need, uint8."""
    size, channels = network.get("image_size", 64), network.get("channels", 3)
    return torch.randint(256, (512, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


def bare(game: TwoPlayerGame, pixels: torch.Tensor, batch: int, steps: int) -> Iterator[float]:
    """Seconds of each step of the loop that one would write by hand: a discriminator's step, a generator's step."""
    game.train().to(memory_format=torch.channels_last)
    generator, discriminator = game.generator, game.discriminator
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
        for network in (generator, discriminator)
    )
    backward: Any = torch.autograd.backward
    size = latent_dim(generator)

    def real() -> torch.Tensor:
        return pixels[torch.randint(len(pixels), (batch,))].float().div_(127.5).sub_(1.0)

    for _ in range(steps):
        start = time.perf_counter()
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
        yield time.perf_counter() - start


def trained(game: TwoPlayerGame, pixels: torch.Tensor, batch: int, steps: int, every: int) -> list[float]:
    """Seconds of the trainer's steps, by its own log: everything that a step does, logging included."""
    with tempfile.TemporaryDirectory() as folder:
        run = gan_image.train(
            game, data={"image": pixels}, out=Path(folder) / "run", steps=steps, batch_size=batch, log_every=every,
            show=1, ema=None, shown=False, changes={"train.sample_every": None, "train.checkpoint_every": None},
        )  # fmt: skip
        return [batch * 2 / line["samples_per_second"] for line in run.log()]


def compare(case: dict[str, Any], pairs: int, steps: int, every: int) -> dict[str, Any]:
    """Ratios of the trainer to the bare loop, pair by pair."""
    pixels = images(case["network"])
    ratios, seconds = [], []
    for _ in range(pairs):
        game = gan_image.create("dcgan", preset=case["preset"], **case["network"])
        ours = median(trained(game, pixels, case["batch"], steps, every)[1:])
        game = gan_image.create("dcgan", preset=case["preset"], **case["network"])
        theirs = median(list(bare(game, pixels, case["batch"], steps))[every:])
        ratios.append(ours / theirs)
        seconds.append(theirs)
    ratios.sort()
    return {
        "ratio_median": round(median(ratios), 4), "ratio_min": round(ratios[0], 4), "ratio_max": round(ratios[-1], 4),
        "pairs": pairs, "steps_each": steps, "bare_seconds_a_step": round(median(seconds), 5),
    }  # fmt: skip


def main() -> None:
    """Measures every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    plans = zip(CASES.items(), ((8, 1), (200, 10)), strict=True)
    figures = {name: compare(case, options.pairs, *plan) for (name, case), plan in plans}
    record("overhead", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
