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
The `small` presets of six systems and the settings of R3GAN, all 32 wide, on Fashion-MNIST at 16×16 without classes.
Each model trained on 256,000 real images; FID and the other figures compare 5,000 samples with 5,000 real images, by
features of the embedded `classifier`. They are therefore not comparable with FID by Inception features. One seed
each, so small differences mean nothing. At this budget DiffAugment lowers quality; its benefit on little data does
not show yet.
""",
        media={"fashion.png": "Samples of each run: one row per run, in the order of the table."},
    ),
    "translation": Benchmark(
        "Translation: pix2pix and CycleGAN",
        """
pix2pix learns microscopy images of nuclei from their masks: 64×64, 216 training pairs and 54 held-out pairs, one
seed. The baselines know the mask and the training pairs, but not the image. CycleGAN learns to invert digits from a
folder of digits and a folder of other digits, inverted; pairing accuracy is the fraction of 200 new digits whose
translation is nearest to their own inverse (0.005 by chance). The training step is compared with that of the
published code in one process, on one thread.

The settings for nuclei were chosen on these held-out pairs. On 54 other pairs, the relativistic run reaches 31.17 dB,
λ = 300 30.16 dB, the class means 28.84 dB and the best two levels 31.59 dB: above the class means, but not above the
best two levels. PSNR rewards the mean of all images that fit a mask, and thus a weak discriminator.
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
The protocols of PacGAN and Unrolled GAN at a small part of their budgets: means and standard errors of 5 seeds, by
2,500 samples, and by 25,600 for the stacked digits.

As published, packing finds more modes: all 8 of the ring, 23 of the grid's 25 (plain GAN: 17.6), and more of the
stacked digits with 3 and 4 packed samples. The more samples are packed, the fewer lie near a mode at this budget.
Unrolling finds more modes than plain GAN with its authors' networks and learning rates: 7.2 of the ring's 8 (plain
GAN: 0.6), 17.2 of the grid's 25 (3.2) and four times as many of the stacked digits. With the networks of the other
tables it finds more on the ring, and fewer on the grid and the stacked digits.
""",
        modes,
    ),
    "toys": Benchmark(
        "Toy distributions",
        "WGAN-GP on a ring of 8 Gaussians, a grid of 25 and a normal distribution, 5 seeds with 2,500 samples each.",
        toys,
    ),
    "infogan": Benchmark(
        "InfoGAN's codes",
        """
The preset `small` on scanned digits, without their labels, 3 seeds. Clustering accuracy is the fraction of the real
digits whose category agrees with their class, after categories are matched with classes one to one (the largest
class: 10.2 %). Correlations are rank correlations of each continuous code with the slant and the width of the
generated digits.
""",
        infogan,
        media={
            "infogan.png": "The first seed: one row per category, along the code that changes the slant most, -2 to 2."
        },
    ),
    "spoken": Benchmark(
        "Spoken digits by WaveGAN",
        """
The preset `small` with classes, 8,000 steps of 16 on the 2,000 recordings of the Free Spoken Digit Dataset at 8 kHz,
with and without phase shuffle, one run each. A classifier that was trained on the recordings' digits measures 2,000
samples. Without phase shuffle, every sample contains a tone at 2 kHz, a quarter of the sample rate: an artefact of
the strides that phase shuffle prevents.
""",
        media={
            "spoken.png": "Spectrograms, one column per digit: above with phase shuffle, below without.",
            "spoken.wav": "The same samples as sound.",
        },
    ),
    "resynthesis": Benchmark(
        "Resynthesis of speech",
        """
MelGAN and HiFi-GAN, presets `small`, trained on 20 clips of LJ Speech (2.3 minutes) and measured on 4 others, against
Griffin-Lim from the same mels; and trained and measured on one clip. One run each. HiFi-GAN passes Griffin-Lim in
mel-cepstral distortion and log-spectral distance after 1,000 steps, about 7 minutes on one core. Published vocoders
train for a thousand times as many steps; at this budget speech has rhythm and formants, but few harmonics.
""",
        media={"resynthesis.png": "A held-out clip: the recording, Griffin-Lim, and each vocoder at the end."},
    ),
    "vocoding": Benchmark(
        "Speed of vocoders",
        """
Seconds of sound generated per second at paper scale: on one thread per second of processor time, and on the two cores
of an idle machine by the clock. Streamed means 256 frames at a time. The published code ran in the same process with
the same weights. The memory is for 20 seconds of sound, beyond the model.
""",
        options="--idle --published FOLDER",
    ),
    "overhead": Benchmark(
        "Cost of the trainer",
        """
Time of a training step in the trainer over that of a bare hand-written loop of the same networks, both step by step
in one process, on one thread. The difference is the fixed cost of a step. "glibc's limits" keeps the memory
allocator's own limits, which the trainer raises.
""",
        overhead,
    ),
    "regularizers": Benchmark(
        "Cost of regularizers",
        """
Time of a training step with a regularizer over that of a step without, measured alternately: `dcgan` at 32×32, batch
size 64, one thread. The last column is for the steps in which a term with an interval is computed.
""",
    ),
    "layout": Benchmark(
        "Memory layout",
        """
Time of a forward and a backward pass with channels-last over contiguous weights, and over the published code, on one
thread, with batch size 1 unless stated otherwise.
""",
        options="--published FOLDER",
    ),
    "matrix": Benchmark(
        "Objectives with regularizers",
        """
Sliced Wasserstein distance of pixels after a short training over that before it, for a convolutional and a fully
connected system (`dcgan` · `gan`), and for `ebgan` with energies. 1 is untrained; a letter is a refusal, with the
reason below the table. One seed and the same settings for all: it shows which combinations work, not which is best.
""",
        matrix,
    ),
    "doctor": Benchmark(
        "Accuracy of the doctor",
        """
Findings of `doctor` in 120 runs: 81 that were made to fail, of which some failed in another way or not at all, and 39
healthy ones. Whether a run has a problem is decided by measures of its weights and samples that the doctor does not
use. The doctor's bounds were chosen on runs with other seeds. A finding is rarely wrong; a problem that is not
reported can still be present.
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
        "All measured figures, each with its protocol. They were measured on two cores of a server; the machine and "
        "the date are at the end of each page."
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
