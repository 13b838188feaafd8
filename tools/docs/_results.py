"""Pages of the results, from `tools/benchmarks/results` and the benchmarks' tables."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from statistics import mean
from types import MappingProxyType
from typing import Any, NamedTuple

from _markdown import ROOT, fence, page, table, toctree

BENCHMARKS = ROOT / "tools" / "benchmarks"


class Benchmark(NamedTuple):
    """A page of results.

    Attributes:
        title: title of the page.
        summary: measurement, protocol and conclusion in a few sentences.
        tables: returns the tables for the recorded figures (default: the benchmark's function `table`).
        media: captions of pictures and sounds, by file name.
        options: options of the command that repeats the benchmark.
    """

    title: str
    summary: str
    tables: Callable[[Any], str] | None = None
    media: Mapping[str, str] = MappingProxyType({})
    options: str = ""


def infogan(figures: Any) -> str:
    """Returns the table of InfoGAN's runs."""
    rows = [
        (
            f"seed {run['seed']}",
            f"{run['clustering_accuracy']:.1%}",
            *(", ".join(f"{codes[name]:.2f}" for codes in run["codes"]) for name in ("slant", "width")),
        )
        for run in figures["runs"]
    ]
    return table(["run", "clustering accuracy", "slant: correlation with each code", "width: correlation"], rows)


def overhead(figures: Any) -> str:
    """Returns the table of the trainer's cost."""
    rows = [
        (
            name,
            f"{1000 * each['bare_seconds_a_step']:,.1f} ms",
            f"{each['ratio_median']:.3f} ({each['ratio_min']:.3f} to {each['ratio_max']:.3f})",
            f"{each['fixed_cost_ms']:.2f} ms",
        )
        for name, each in figures.items()
    ]
    return table(["networks", "step of the bare loop", "trainer / bare loop", "difference"], rows)


def toys(figures: Any) -> str:
    """Returns the table of WGAN-GP on toy distributions."""
    rows = [
        (
            name,
            f"{mean(each['modes_found']):g} of {each['modes']}",
            f"{each['high_quality_mean']:.0%}",
            f"{mean(each['mean_of_samples']):.3f} ({each['mean_of_data']:.3f})",
            f"{mean(each['std_of_samples']):.3f} ({each['std_of_data']:.3f})",
            f"{each['steps']:,}",
        )
        for name, each in figures.items()
    ]
    head = ["data", "modes found", "samples near a mode", "mean (data)", "standard deviation (data)", "steps"]
    return table(head, rows)


def matrix(figures: Any) -> str:
    """Returns the tables of objectives with regularizers, and of systems with regularizers."""
    benchmark = import_module("matrix")
    return f"{benchmark.table(figures)}\n## Regularizers of systems\n\n{SYSTEMS}\n\n{benchmark.table_of_systems()}"


SYSTEMS = """
Regularizers also apply to discriminators of patches, scales or periods. This table uses each system's own objective.
A letter is an error, explained below the table.
""".strip()


def modes(figures: Any) -> str:
    """Returns the tables of modes found."""
    benchmark = import_module("modes")
    return "\n".join(benchmark.table(figures, name) for name in benchmark.TABLES)


PAGES = {
    "fashion": Benchmark(
        "Fashion-MNIST at one budget",
        """
The `small` presets of six systems and the settings of R3GAN, all of width 32, on Fashion-MNIST at 16×16 without
classes. Each model was trained on 256,000 real images. FID and the other figures compare 5,000 samples with 5,000 real
images in the features of the embedded `classifier`, so they are not comparable with figures in Inception features.
There is one seed for each, so small differences are not significant. DiffAugment lowers the quality at this budget; its
benefit for small datasets does not show yet.
""",
        media={"fashion.png": "Samples of each run: one row per run, in the order of the table."},
    ),
    "translation": Benchmark(
        "Translation: pix2pix and CycleGAN",
        """
pix2pix learns microscopy images of nuclei from their masks: 64×64, 216 training pairs and 54 held-out pairs, one
seed. The baselines use the mask and the training pairs, but not the image. CycleGAN learns to invert digits from a
folder of digits and a folder of other, inverted digits. Pairing accuracy is the fraction of 200 new digits whose
translation is nearest to their own inverse (0.005 by chance). The training step is compared with that of the
published code in one process, on one thread.

The settings for nuclei were chosen on these held-out pairs. On 54 other pairs, the PSNR is 31.17 dB for the
relativistic run, 30.16 dB for λ = 300, 28.84 dB for the class means and 31.59 dB for the best two levels. Both runs are
thus better than the class means, but not better than the best two levels. PSNR favours the mean of all images that fit
a mask, and thus a weak discriminator.
""",
        media={
            "translation-nuclei.png": "16 held-out pairs: mask, translation, image.",
            "translation-digits.png": "16 new digits: digit, translation, its inverse.",
        },
        options="--published FOLDER",
    ),
    "modes": Benchmark(
        "Modes found",
        """
The protocols of PacGAN and Unrolled GAN at a small fraction of their budgets: means and standard errors over 5 seeds,
from 2,500 samples, or 25,600 for the stacked digits.

As in the paper, packing finds more modes: all 8 of the ring, 23 of the grid's 25 (plain GAN: 17.6), and more of the
stacked digits with 3 and 4 packed samples. At this budget, the more samples are packed, the fewer samples lie near a
mode. With its authors' networks and learning rates, unrolling finds more modes than a plain GAN: 7.2 of the ring's 8
(plain GAN: 0.6), 17.2 of the grid's 25 (3.2) and four times as many of the stacked digits. With the networks of the
other tables, it finds more on the ring, and fewer on the grid and the stacked digits.
""",
        modes,
    ),
    "toys": Benchmark(
        "Toy distributions",
        "WGAN-GP on a ring of 8 Gaussians, a grid of 25 Gaussians and a normal distribution; 2,500 samples for each of "
        "5 seeds.",
        toys,
    ),
    "infogan": Benchmark(
        "InfoGAN's codes",
        """
The preset `small` on scanned digits, without their labels, with 3 seeds. Clustering accuracy is the fraction of the
real digits whose category agrees with their class, after categories are matched with classes one to one (10.2 % of the
digits belong to the largest class). Correlations are rank correlations of each continuous code with the slant and the
width of the generated digits.
""",
        infogan,
        media={
            "infogan.png": "First seed: one row per category; the code that changes the slant most goes from -2 to 2."
        },
    ),
    "spoken": Benchmark(
        "Spoken digits by WaveGAN",
        """
The preset `small` with classes, trained for 8,000 steps with batch size 16 on the 2,000 recordings of the Free Spoken
Digit Dataset at 8 kHz, with and without phase shuffle, one run each. 2,000 samples are evaluated with a classifier that
was trained on the recordings. Without phase shuffle, every sample contains a tone at 2 kHz, a quarter of the sample
rate: an artefact of the strides, which phase shuffle prevents.
""",
        media={
            "spoken.png": "Spectrograms, one column per digit: with phase shuffle (above) and without (below).",
            "spoken.wav": "The same samples as sound.",
        },
    ),
    "resynthesis": Benchmark(
        "Resynthesis of speech",
        """
MelGAN and HiFi-GAN, presets `small`, trained on 20 clips of LJ Speech (2.3 minutes) and measured on 4 others, compared
with Griffin-Lim from the same mels; and trained and measured on a single clip. One run each. HiFi-GAN surpasses
Griffin-Lim in mel-cepstral distortion and log-spectral distance after 1,000 steps, about 7 minutes on one core.
Published vocoders are trained for a thousand times as many steps. At this budget, speech has rhythm and formants, but
few harmonics.
""",
        media={"resynthesis.png": "A held-out clip: the recording, Griffin-Lim, and each vocoder at the end."},
    ),
    "vocoding": Benchmark(
        "Speed of vocoders",
        """
Seconds of sound generated per second at paper scale: per second of processor time on one thread, and per second of
wall-clock time on the two cores of an idle machine. "Streamed" means 256 frames at a time. The published code ran in
the same process with the same weights. The memory is for 20 seconds of sound, without the model.
""",
        options="--idle --published FOLDER",
    ),
    "overhead": Benchmark(
        "Cost of the trainer",
        """
Time of a training step in the trainer, divided by that in a bare hand-written loop with the same networks. Both
alternate step by step in one process, on one thread. The difference is the fixed cost of a step. The cases with
"glibc's limits" keep the memory allocator's default limits, which the trainer otherwise raises.
""",
        overhead,
    ),
    "regularizers": Benchmark(
        "Cost of regularizers",
        """
Time of a training step with a regularizer, divided by that of a step without one, measured alternately: `dcgan` at
32×32, batch size 64, one thread. The last column is for the steps in which a term with an interval is computed.
""",
    ),
    "layout": Benchmark(
        "Memory layout",
        """
Time of a forward and a backward pass with channels-last weights, divided by that with contiguous weights; and with the
layout that is used, divided by that of the published code. On one thread, with batch size 1 unless stated otherwise.
""",
        options="--published FOLDER",
    ),
    "matrix": Benchmark(
        "Objectives with regularizers",
        """
Sliced Wasserstein distance of pixels after a short training run, divided by that before it, for a convolutional and a
fully connected system (`dcgan` · `gan`), and for `ebgan` with energies. 1 means no improvement; a letter marks a
combination that is not supported, with the reason below the table. One seed and the same settings for all: the table
shows which combinations work, not which is best.
""",
        matrix,
    ),
    "doctor": Benchmark(
        "Accuracy of the doctor",
        """
Findings of `doctor` in 120 runs: 81 that were made to fail, some of which failed in another way or not at all, and 39
healthy ones. Whether a run has a problem is decided by measures of its weights and samples that the doctor does not
use. The doctor's bounds were chosen on runs with other seeds. Findings are rarely wrong, but a problem may be present
without being reported.
""",
    ),
}
"""Pages by the name of the benchmark."""


def pages() -> dict[str, str]:
    """Returns the pages by path.

    Raises:
        ValueError: a recorded result has no page.
    """
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    recorded = {path.stem for path in (BENCHMARKS / "results").glob("*.json")}
    if recorded != PAGES.keys():
        raise ValueError(
            f"{', '.join(sorted(recorded ^ PAGES.keys()))}: expected both a result and a page in _results.py"
        )
    introduction = (
        "All measured figures, each with its protocol. They were measured on two cores of a server; each page ends "
        "with the machine and the date."
    )
    made = {f"results/{name}.md": result(name, benchmark) for name, benchmark in PAGES.items()}
    return made | {"results/index.md": page("Results", introduction, toctree(*PAGES))}


def result(name: str, benchmark: Benchmark) -> str:
    """Returns the page of one benchmark."""
    document = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text("utf-8"))
    module = import_module(name)
    tables = (benchmark.tables or module.table)(document["figures"])
    machine = document["machine"]
    facts = [
        f"Measured on {document['date']} on {machine['cores']} cores of {machine['processor']}, with Python "
        f"{machine['python']} and torch {machine['torch']}. To measure again:",
        fence("sh", f"python3 tools/dev.py bench {name}{f' -- {benchmark.options}' if benchmark.options else ''}"),
    ]
    media = [show(file, caption) for file, caption in benchmark.media.items()]
    return page(benchmark.title, benchmark.summary, tables, *media, "## Protocol", inspect.getdoc(module) or "", *facts)


def show(file: str, caption: str) -> str:
    """Returns a picture with its caption, or a link to a sound."""
    place = f"../../../tools/benchmarks/results/{file}"
    return f"[{caption}](path:{place})" if file.endswith(".wav") else f"![{caption}]({place})\n\n*{caption}*"
