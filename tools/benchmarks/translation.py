"""Translation by pix2pix and CycleGAN: what held-out images become, and the time of a training step.

Nuclei: pix2pix generates microscopy images from their masks, 64×64, 270 pairs in two folders, of which 54 are held out.
Each run has the preset `small` with the settings recorded with it, and one seed. The figure is the mean PSNR of the
translations. The baselines use only the mask: `class means` gives each pixel the mean level of its class over the
training pairs (the class is 1 where the mask covers at least half of the pixel); `class means, mixed` mixes the two
levels where the resized mask is grey; `best two levels` mixes the two levels with the highest mean PSNR on the training
pairs. The picture shows 16 held-out pairs: mask, translation by the run named `PICTURED`, image. Two earlier runs are
not repeated here: the default λ = 100 with batch norm reached 29.2 dB after 3,000 steps; weights of 0.5 for R1 and R2
reached 30.7 dB after 2,000 steps, but the discriminator stayed at chance level (the penalties differentiate the sum of
the logits of all 196 patches).

Digits: CycleGAN learns to invert scanned digits, 16×16, from two folders: digits, and other digits inverted. The preset
`small`, 400 steps, 3 seeds. 200 digits that are in neither folder are translated. The pairing accuracy is the fraction
whose nearest of the 200 inverted digits (by L2) is their own; chance level is 0.005. L1 is on the scale [-1, 1]. The
picture shows 16 of them for the first seed: digit, translation, truth.

Step: a step of CycleGAN in the trainer (data, replay, logs, Adam) and `set_input` with `optimize_parameters` of the
published code alternate in one process. 128×128, batch size 1, 9 blocks, with the identity term, replay pools of 4
images, which are full before the steps that are counted; one thread, processor times. The ratio is the median over the
steps of our time divided by that of the published code in the same round.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from _alternating import Alternating
from _record import RESULTS, Progress, record
from _tables import markdown
from torch import Tensor
from torch.nn.functional import l1_loss
from torch.utils.data import Dataset

import gan_image
from gan_core.data import Batch, ImageSpec, hold_out, length, read, shuffled
from gan_core.measure.similarity import psnr
from gan_core.play.game import Game
from gan_image.media import write_items, write_samples

SHOWN = 16
QUIET: dict[str, Any] = {"train.sample_every": None, "train.checkpoint_every": None}


def train(system: str, data: Any, *, steps: int, seed: int, changes: Mapping[str, Any]) -> tuple[Game, int]:
    """Trains a system and returns its game and the processor time in seconds; exits if training is interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = gan_image.train(
            system,
            data=data,
            out=Path(folder) / "run",
            steps=steps,
            seed=seed,
            shown=False,
            changes=QUIET | {**changes},
        )
        seconds = time.process_time() - start
        if run.interrupted:
            sys.exit(f"{system}: interrupted; start the benchmark again")
        return gan_image.load(run.path), round(seconds)


def draw(name: str, *, columns: int, **images: Tensor) -> None:
    """Draws the first images of each kind, those of one item side by side."""
    write_samples(
        {kind: each[:SHOWN] for kind, each in images.items()}, RESULTS / f"translation-{name}", columns=columns
    )


# Nuclei.

HELD_OUT = 0.2
NETWORK: dict[str, Any] = {"width": 32, "norm": "instance", "generator": {"depth": 5}, "discriminator": {"layers": 2}}
NUCLEI: dict[str, Any] = {
    "data.held_out": HELD_OUT,
    "data.spec.image_size": 64,
    "data.spec.enlarge": 1.125,
    "data.spec.crop": "random",
    "data.spec.flip": True,
    "network": NETWORK,
    "train.batch_size": 4,
    "train.ema": 0.998,
}
RUNS: dict[str, tuple[int, dict[str, Any]]] = {
    "pix2pix, λ = 300": (2500, {"game.reconstruction_weight": 300.0}),
    "pix2pix, relativistic, R1 and R2": (
        2500,
        {"objective": "relativistic", "regularizers.r1.weight": 0.01, "regularizers.r2.weight": 0.01},
    ),
}
"""Number of steps of each case, and its settings in addition to `NUCLEI`."""
PICTURED = "pix2pix, relativistic, R1 and R2"


def nuclei_folders() -> dict[str, str]:
    """Returns the folders of masks and images."""
    folder = Path(os.environ["GAN_TEST_DATA"]) / "nuclei_pairs"
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder; set GAN_TEST_DATA to where nuclei_pairs/masks and nuclei_pairs/images are")
    return {"source": str(folder / "masks"), "target": str(folder / "images")}


def nuclei() -> tuple[Batch, Batch]:
    """Returns the pairs that are trained on and those held out, without augmentation."""
    pairs = gan_image.open_data(nuclei_folders()).fit(ImageSpec(image_size=64, channels=1))
    trained, held_out = hold_out(pairs, HELD_OUT)
    assert held_out is not None
    return whole(trained), whole(held_out)


def whole(dataset: Dataset[Batch]) -> Batch:
    """Returns all items of a dataset as one batch."""
    return next(read(dataset, range(length(dataset)), length(dataset)))


def translate(game: Game, source: Tensor, name: str) -> Tensor:
    """Returns the named result of a game for source images."""
    with torch.no_grad():
        made: Tensor = game.eval().apply({"source": source})[name]
    return made


def mean_psnr(made: Tensor, real: Tensor) -> float:
    """Returns the mean over images of the PSNR in dB."""
    return round(psnr(made, real).mean().item(), 2)


def class_means(mask: Tensor, image: Tensor) -> Tensor:
    """Returns the mean levels of background and nuclei, `[2]`."""
    return torch.stack([image[mask < 0].mean(), image[mask >= 0].mean()])


def best_levels(mask: Tensor, image: Tensor, rounds: int = 50) -> Tensor:
    """Returns the levels of background and nuclei, `[2]`, with the highest mean PSNR.

    The mean PSNR is that of the logarithms of the squared errors, so each round solves the least squares problem with
    the images weighted by the reciprocals of their errors.
    """
    shares = torch.stack([1 - mask, 1 + mask], dim=-1).flatten(1, -2).double() / 2  # [N, pixels, 2]
    pixels = image.flatten(1)[..., None].double()
    products, projections = shares.mT @ shares, shares.mT @ pixels
    weights = torch.ones(len(mask), 1, 1, dtype=torch.float64)
    for _ in range(rounds):
        levels = torch.linalg.solve((weights * products).sum(dim=0), (weights * projections).sum(dim=0))
        weights = 1 / (shares @ levels - pixels).square().mean(dim=1, keepdim=True)
    return levels[:, 0].float()


def paint(levels: Tensor, mask: Tensor) -> Tensor:
    """Returns images with one level for the background and one for the nuclei, mixed where the mask is grey."""
    return torch.lerp(levels[0], levels[1], (mask + 1) / 2)


def measure_baselines() -> dict[str, dict[str, float]]:
    """Measures the baselines."""
    pairs = dict(zip(("trained", "held_out"), nuclei(), strict=True))
    means, best = (find(pairs["trained"]["source"], pairs["trained"]["target"]) for find in (class_means, best_levels))
    torch.manual_seed(0)
    untrained = gan_image.create("pix2pix", source_channels=1, target_channels=1, **NETWORK)

    def figures(batch: Batch) -> dict[str, float]:
        mask, image = batch["source"], batch["target"]
        return {
            "untrained": mean_psnr(translate(untrained, mask, "translated"), image),
            "class means": mean_psnr(paint(means, torch.where(mask < 0, -1.0, 1.0)), image),
            "class means, mixed": mean_psnr(paint(means, mask), image),
            "best two levels": mean_psnr(paint(best, mask), image),
        }

    found = {part: figures(batch) for part, batch in pairs.items()}
    return {name: {part: found[part][name] for part in found} for name in found["held_out"]}


def measure_nuclei(name: str) -> dict[str, Any]:
    """Trains a run and measures it; the run named `PICTURED` is drawn."""
    steps, changes = RUNS[name]
    trained, held_out = nuclei()
    game, seconds = train("pix2pix", nuclei_folders(), steps=steps, seed=0, changes=NUCLEI | changes)
    made = translate(game, held_out["source"], "translated")
    if name == PICTURED:
        draw("nuclei", columns=2, mask=held_out["source"], made=made, real=held_out["target"])
    return {
        "steps": steps,
        "processor_seconds": seconds,
        "settings": NUCLEI | changes,
        "held_out": mean_psnr(made, held_out["target"]),
        "trained": mean_psnr(translate(game, trained["source"], "translated"), trained["target"]),
    }


# Digits.

SEEDS, STEPS, TESTED = 3, 400, 200


def digits() -> tuple[Tensor, Tensor]:
    """Returns the scanned digits for testing, enlarged to 16×16, and those for training, in their original 8×8."""
    small, large = (whole(gan_image.open_data("digits").fit(ImageSpec(image_size=size)))["image"] for size in (8, 16))
    order = shuffled(len(small))
    return large[order[:TESTED]], small[order[TESTED:]]


def measure_digits(seed: int) -> dict[str, Any]:
    """Trains on two folders and measures the translation of digits in neither; seed 0 also writes a picture."""
    tested, others = digits()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_items(others[::2], folder / "digits")
        write_items(-others[1::2], folder / "inverted")
        sets = {"source": folder / "digits", "target": folder / "inverted"}
        game, seconds = train("cyclegan", sets, steps=STEPS, seed=seed, changes={})
    made = translate(game, tested, "to_target")
    if seed == 0:
        draw("digits", columns=4, digit=tested, made=made, real=-tested)
    nearest = torch.cdist(made.flatten(1), -tested.flatten(1)).argmin(dim=1)
    return {
        "processor_seconds": seconds,
        "pairing_accuracy": round((nearest == torch.arange(TESTED)).double().mean().item(), 3),
        "l1": round(l1_loss(made, -tested).item(), 3),
        "l1_blank": round(l1_loss(torch.ones_like(tested), -tested).item(), 3),
        "l1_source": round(l1_loss(tested, -tested).item(), 3),
    }


# Step.

SIZE, POOL, WARM = 128, 4, 5
"""Side of the images in pixels, size of the replay pools, and number of warm-up rounds, which are not counted."""
WIDTHS = (64, 16)
STEP: dict[str, Any] = {
    "data.spec": {"image_size": SIZE, "resize": "cover", "enlarge": 1.0, "crop": "centre", "flip": False},
    "regularizers.replay.size": POOL,
    "train.log_every": 10,
    "train.show": 1,
}


def published_steps(folder: Path, width: int, samples: Mapping[str, Tensor]) -> Iterator[float]:
    """Yields the processor time of each step of the published code."""
    if not (folder / "models" / "cycle_gan_model.py").is_file():
        sys.exit(f"{folder}: no models/cycle_gan_model.py there; give a clone of junyanz/pytorch-CycleGAN-and-pix2pix")
    sys.path.insert(0, str(folder))
    model = importlib.import_module("models.cycle_gan_model").CycleGANModel(
        Namespace(
            isTrain=True,
            gpu_ids=[],
            checkpoints_dir="",
            name="",
            preprocess="none",
            direction="AtoB",
            input_nc=3,
            output_nc=3,
            ngf=width,
            ndf=width,
            netG="resnet_9blocks",
            netD="basic",
            n_layers_D=3,
            norm="instance",
            no_dropout=True,
            init_type="normal",
            init_gain=0.02,
            gan_mode="lsgan",
            pool_size=POOL,
            lambda_A=10.0,
            lambda_B=10.0,
            lambda_identity=0.5,
            lr=2e-4,
            beta1=0.5,
        )
    )
    real = {key: tensor.float().div(127.5).sub(1) for key, tensor in samples.items()}
    for index in range(1_000_000):
        row = index % len(real["source"])
        batch = {
            "A": real["source"][row : row + 1],
            "B": real["target"][row : row + 1],
            "A_paths": [""],
            "B_paths": [""],
        }
        start = time.process_time()
        model.set_input(batch)
        model.optimize_parameters()
        yield time.process_time() - start


def measure_step(width: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Times rounds of our training and steps of the published code, which alternate."""
    torch.manual_seed(0)
    samples = {key: torch.randint(256, (16, 3, SIZE, SIZE)).byte() for key in ("source", "target")}
    data = Alternating(samples, published_steps(folder, width, samples), reads=1, clock=time.process_time)
    with tempfile.TemporaryDirectory() as name:
        gan_image.train(
            "cyclegan",
            preset="paper",
            data=data,
            out=Path(name) / "run",
            batch_size=1,
            shown=False,
            steps=rounds + WARM,
            changes=QUIET | STEP | {"network.width": width},
        )
    pairs = data.pairs(WARM)
    return {
        "rounds": len(pairs),
        "ours_seconds": round(median(ours for ours, _ in pairs), 3),
        "published_seconds": round(median(theirs for _, theirs in pairs), 3),
        "ratio": round(median(ours / theirs for ours, theirs in pairs), 3),
        "ratios": [round(ours / theirs, 3) for ours, theirs in pairs],
    }


# Results.


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results pages."""
    nuclei, digits, step = (figures[part] for part in ("nuclei", "digits", "step"))
    compared = [*nuclei["baselines"].items(), *nuclei["runs"].items()]
    by_seed = list(digits.values())
    blank, source = (mean(each[key] for each in by_seed) for key in ("l1_blank", "l1_source"))
    return "\n".join(
        (
            markdown(
                ["nuclei: masks to images, pix2pix", "PSNR, held-out pairs", "PSNR, training pairs", "steps"],
                [
                    [name, f"{each['held_out']:.2f} dB", f"{each['trained']:.2f} dB", f"{each.get('steps', '')}"]
                    for name, each in compared
                ],
            ),
            markdown(
                ["digits to inverted digits, CycleGAN", "pairing accuracy", "L1 to the truth"],
                [
                    *(
                        [f"seed {seed}", f"{each['pairing_accuracy']:.3f}", f"{each['l1']:.3f}"]
                        for seed, each in digits.items()
                    ),
                    ["blank page", "", f"{blank:.3f}"],
                    ["the digit itself", "", f"{source:.3f}"],
                ],
            ),
            markdown(
                ["CycleGAN, one training step at 128×128", "here", "published code", "ratio"],
                [
                    [
                        f"width {width}",
                        f"{each['ours_seconds']:.2f} s",
                        f"{each['published_seconds']:.2f} s",
                        f"{each['ratio']:.2f}",
                    ]
                    for width, each in step.items()
                ],
            ),
        )
    )


def main() -> None:
    """Trains, measures and times, and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of training steps that are counted (default: 9)")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FOLDER",
        required=True,
        help="where junyanz/pytorch-CycleGAN-and-pix2pix or a fork of it is cloned",
    )
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    steps = {
        str(width): progress.take(f"width {width}", partial(measure_step, width, options.rounds, options.published))
        for width in WIDTHS
    }
    inverted = {str(seed): progress.take(f"seed {seed}", partial(measure_digits, seed)) for seed in range(SEEDS)}
    baselines = progress.take("baselines", measure_baselines)
    runs = {name: progress.take(name, partial(measure_nuclei, name)) for name in RUNS}
    figures = {"nuclei": {"baselines": baselines, "runs": runs}, "digits": inverted, "step": steps}
    record("translation", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
