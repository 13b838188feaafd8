"""What a run's own records tell of what goes wrong in it: in words, with the evidence, and what to try. Loads no torch.

The bounds lie between what healthy runs show and what runs show that were made to fail in each way
(`tools/benchmarks/doctor.py`, which counts how often each is told from the others).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean, median
from typing import TypeVar

from gan_core.errors import GanError
from gan_core.runs.record import RunRecord

T = TypeVar("T")

UNSEEN = "not looked at"
"""How a finding begins that is none, for want of what it would be made of."""
ENOUGH = 100
"""Steps before which no tendency is looked for: a training begins with everything wrong."""
NEAREST, SPREAD = 0.15, 0.25
"""Of the data's own diversity: samples that have less (`gan_core.training.diagnostics`) are alike."""
WON, LOST = 0.05, 1.5
"""Adversarial loss as a share of what guessing costs, below which a discriminator has won and above which it is fooled.
"""
RECOGNISED = 0.75
"""How often a discriminator may hold what it is trained on for more real than what it is not; 0.5 is by chance."""
HUGE, GROWN = 1e3, 100.0
"""A loss or a gradient beyond it, and a gradient that has grown so many times, run away."""
VANISHED = 0.01
"""Of its early gradient: a generator that has less left hardly learns."""
PLAYERS = ("generator", "discriminator")
"""Of the games whose rates can be told."""
OF_GUESSING = "of_guessing"
"""Term in the log: the unweighted adversarial loss of a discriminator as a share of what guessing costs."""
SWINGS, SWING = 8, 0.15
"""So often a loss that oscillates goes from below guessing to above it or back, and so far, as a share of guessing."""
SWING_SAMPLES = 512
"""Samples that a mean is taken of before it counts, so that it is more than noise."""
CERTAIN = 3.0
"""Standard errors by which neighbouring means must be alike, or they are noise."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    good: bool
    finding: str

    @property
    def seen(self) -> bool:
        """Whether there was something to look at."""
        return not (self.good and self.finding.startswith(UNSEEN))


def attempt(name: str, look: Callable[[], str]) -> Check:
    """What a look found: it returns what is well in words, and raises what is not."""
    try:
        return Check(name, True, look())
    except GanError as error:
        return Check(name, False, " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001  whatever is broken is the finding
        return Check(name, False, " ".join(f"{type(error).__name__}: {error}".split())[:200])


def look_for_symptoms(run: RunRecord) -> list[Check]:
    """What is wrong and what is well in a run, by all that it has written so far."""
    return [attempt(name, partial(look, run)) for name, look in SYMPTOMS.items()]


def trouble(evidence: str, *tries: str) -> GanError:
    """A finding: what is wrong, how it shows, and the settings to try."""
    return GanError(f"{evidence}; try {', '.join(tries[:-1])}, or {tries[-1]}")


def finite(run: RunRecord) -> str:
    """Values that were infinite or not a number, and rollbacks for it."""
    lost = [name for entry in run.training[-1:] for name, value in entry.values.items() if math.isnan(value)]
    tries = lower_rate(run), "`optimizer.clip_norm=1`", penalty(run)
    if lost:
        raise trouble(f"{lost[0]} is no longer finite", *tries)
    if not run.rollbacks:
        return "every value that was logged is finite"
    last = run.rollbacks[-1]
    what = f"by step {last.step:,} {last.what}"
    if run.done > last.step:
        return f"{what}; the run was rolled back, and has gone past it since"
    to = "there was nothing to go back to" if last.to is None else f"the run was rolled back to step {last.to:,}"
    raise trouble(f"{what}; {to}{last.growth}", *tries)


def collapse(run: RunRecord) -> str:
    """Samples that are alike, measured by the data's own diversity."""
    seen = {name: value for entry in run.watched for name, value in entry.values.items() if name.startswith("samples/")}
    if not seen:
        if number(run, "train", "sample_every") > 0:
            return f"{UNSEEN}: no samples were compared yet; only games that make samples from nothing are"
        return f"{UNSEEN}: nothing was seen of the samples yet; set `train.sample_every`"
    if too_short(run):
        return too_short(run)
    nearest, spread = (seen.get(f"samples/{name}", math.nan) for name in ("nearest", "spread"))
    words = f"two samples differ {spread:.2f} times as much as two of the data, and the most alike {nearest:.2f} times"
    if nearest < NEAREST or spread < SPREAD:
        raise trouble(
            f"the generator has collapsed: {words}",
            penalty(run),
            lower_rate(run, "generator"),
            "`regularizers.minibatch_stddev={}`, by which the discriminator sees how alike samples are",
        )
    return words


def discriminator(run: RunRecord) -> str:
    """Looks for discriminators that recognise every sample, or none."""
    found = adversaries(run)
    if not found:
        return f"{UNSEEN}: no adversary's loss was logged"
    if not any(series(run, f"{start}{OF_GUESSING}") for start in found.values()):
        return f"{UNSEEN}: under this objective its loss has no least value"
    return too_short(run) or each(found, lambda name, start: judged(run, name, start))


def judged(run: RunRecord, name: str, start: str) -> str:
    """Describes one discriminator's adversarial loss; raises if it has won or is fooled."""
    shares = recent(series(run, f"{start}{OF_GUESSING}"))
    if not shares:
        return "its loss has no least value"
    share = fmean(shares)
    real, fake = (recent(series(run, f"{start}{side}_logits")) for side in ("real", "fake"))
    logits = f", with logits of {fmean(real):.3g} for real and {fmean(fake):.3g} for fake" if real and fake else ""
    words = f"its loss is {share:.2g} times what guessing costs{logits}"
    if share < WON:
        raise trouble(
            f"{name} recognises every sample, so that the generator learns little: {words}",
            lower_rate(run, "discriminator"),
            fewer_turns(run) or penalty(run),
            "`regularizers.instance_noise={}`",
        )
    if share > LOST:
        raise trouble(
            f"{name} is fooled, so that the generator learns nothing of the data: {words}",
            lower_rate(run, "generator"),
            "`players.discriminator.turns=2`",
            "a higher `players.discriminator.optimizer.learning_rate`",
        )
    return words


def memory(run: RunRecord) -> str:
    """Looks for discriminators that know the training data by heart, by data that were held out."""
    last = {name: value for entry in run.watched for name, value in entry.values.items()}
    shares = {
        name.removeprefix("held_out").removesuffix("recognised").strip("/"): share
        for name, share in last.items()
        if name.startswith("held_out/") and name.endswith("/recognised")
    }
    if not shares:
        if number(run, "data", "held_out") > 0:
            return (
                f"{UNSEEN}: no `realness` of held-out items was logged; games define it, `train.sample_every` logs it"
            )
        return f"{UNSEEN}: no data were held out; train with `data.held_out=0.1`"
    return each(shares, lambda name, share: remembered(run, name, share))


def remembered(run: RunRecord, name: str, share: float) -> str:
    """Describes how often one discriminator prefers training data to held-out data; raises if it memorises."""
    words = f"it finds an item that it is trained on more real than one held out {share:.0%} of the time"
    if share > RECOGNISED:
        raise trouble(
            f"{name} memorises the data: {words} (by chance: 50%)",
            "more data",
            "`regularizers.diffaugment={}`, for images",
            "`regularizers.instance_noise={}`",
            penalty(run),
        )
    return words


def gradients(run: RunRecord) -> str:
    """Losses and gradients that run away, and a generator's that vanish."""
    # Norms are in the lines that end an interval, and the last one may not.
    names = sorted({name for entry in run.training[-2:] for name in entry.values if "/" in name})
    for name in names:
        values = recent(series(run, name))
        if values and not name.endswith("_logits") and abs(fmean(values)) > HUGE:
            raise trouble(
                f"the players no longer hold each other: {name} is {fmean(values):.3g}",
                lower_rate(run),
                penalty(run),
                "`optimizer.clip_norm=1`",
            )
    found, measured = [], [name for name in names if name.endswith("/gradient_norm")]
    for name in measured:
        player, values = name.partition("/")[0], series(run, name)
        if too_short(run) or len(values) < 10:
            continue
        early, late = values[: len(values) // 5], median(recent(values))
        found.append(f"{player}'s {late:.2g}")
        if late > GROWN * median(early):
            raise trouble(
                f"the gradient of `{player}` explodes: its norm has grown from {median(early):.2g} to {late:.2g}",
                lower_rate(run),
                "`optimizer.clip_norm=1`",
                penalty(run),
            )
        if player != "discriminator" and late < VANISHED * max(early):
            raise trouble(
                f"the gradient of `{player}` vanishes: its norm has fallen from {max(early):.2g} to {late:.2g}",
                "`objective=non_saturating`" if run.setting("objective") == "minimax" else penalty(run),
                lower_rate(run, "discriminator"),
                "`regularizers.instance_noise={}`",
            )
    if found:
        return f"norms at the end: {', '.join(found)}"
    return too_short(run) or f"{UNSEEN}: {'the log is too short for it' if measured else 'none were logged'}"


def oscillation(run: RunRecord) -> str:
    """Looks for discriminators that are by turns far better and far worse than guessing: players in a cycle."""
    found = adversaries(run)
    if not found:
        return f"{UNSEEN}: no adversary's loss was logged"
    return each(found, lambda name, start: swinging(run, name, start))


def swinging(run: RunRecord, name: str, start: str) -> str:
    """Counts how often one discriminator's loss passes from far below guessing to far above; raises if it is often."""
    shares = series(run, f"{start}{OF_GUESSING}")
    values, level = (shares, 1.0) if shares else (series(run, f"{start}adversarial"), 0.0)
    of_line = number(run, "train", "log_every") * number(run, "train", "batch_size")
    values = means(values[len(values) // 4 :], max(1, math.ceil(SWING_SAMPLES / of_line)) if of_line >= 1 else 1)
    if len(values) < 3 * SWINGS:
        return f"{UNSEEN}: the log is too short for it"
    aside = [value - level for value in values]
    size = math.sqrt(fmean(value * value for value in aside))
    sides = [value > 0 for value in aside if abs(value) > max(SWING * level, size / 2)]
    swings = sum(one != other for one, other in pairwise(sides))
    words = f"the loss of {name} goes {swings} times from far below guessing to far above or back"
    if swings >= SWINGS and (level > 0 or not is_noise(values)):  # around 0 nothing else tells how large noise is
        unit = " times what guessing costs" if shares else ""
        raise trouble(
            f"the players oscillate: {words} ({min(values):.2g} to {max(values):.2g}{unit})",
            lower_rate(run),
            penalty(run),
            "`optimizer.betas=[0,0.9]`, without momentum",
        )
    return words


SYMPTOMS: Mapping[str, Callable[[RunRecord], str]] = {
    "finite": finite,
    "collapse": collapse,
    "discriminator": discriminator,
    "memory": memory,
    "gradients": gradients,
    "oscillation": oscillation,
}


# What the looks look at.


def adversaries(run: RunRecord) -> dict[str, str]:
    """Returns the start of each adversary's terms in the log's last phase, by its name (empty for a single one)."""
    phase = run.training[-1].phase if run.training else ""
    names = {name for entry in run.training if entry.phase == phase for name in entry.values}
    starts = sorted(name.removesuffix("real_logits") for name in names if name.endswith("/real_logits"))
    judging = [start for start in starts if {f"{start}{OF_GUESSING}", f"{start}adversarial"} & names]
    return {start.strip("/").partition("/")[2]: start for start in judging}


def each(found: Mapping[str, T], look: Callable[[str, T], str]) -> str:
    """Looks at each adversary, and returns all findings, after its name where it has one; raises all that are wrong."""
    words: dict[str, str] = {}
    wrong: list[str] = []
    for name, what in found.items():
        try:
            words[name] = look(f"the discriminator `{name}`" if name else "the discriminator", what)
        except GanError as error:
            wrong.append(str(error))
    if wrong:
        raise GanError("; ".join(wrong))
    seen = {name: finding for name, finding in words.items() if not finding.startswith(UNSEEN)}
    if not seen:
        return next(iter(words.values()))
    return "; ".join(f"`{name}`: {finding}" if name else finding for name, finding in seen.items())


def series(run: RunRecord, name: str) -> list[float]:
    """A term's finite values in the last phase, in the order of the log."""
    phase = run.training[-1].phase if run.training else ""
    values = [entry.values.get(name, math.nan) for entry in run.training if entry.phase == phase]
    return [value for value in values if math.isfinite(value)]


def recent(values: Sequence[float]) -> Sequence[float]:
    """The last fifth."""
    return values[-max(1, len(values) // 5) :]


def means(values: Sequence[float], size: int) -> list[float]:
    """Means of so many neighbours each; what is left over at the end is left out."""
    return [fmean(values[start : start + size]) for start in range(0, len(values) - size + 1, size)]


def is_noise(values: Sequence[float]) -> bool:
    """Whether it cannot be seen that neighbours are correlated (by chance 0 ± 1/√n)."""
    centre = fmean(values)
    variance = fmean((value - centre) ** 2 for value in values)
    together = fmean((one - centre) * (other - centre) for one, other in pairwise(values))
    return together * math.sqrt(len(values)) <= CERTAIN * variance


def too_short(run: RunRecord) -> str:
    """That nothing can be said yet, if nothing can."""
    return f"{UNSEEN}: {run.done} steps are too few to tell" if run.done < ENOUGH else ""


# What to try.


def number(run: RunRecord, *keys: str) -> float:
    """A number in the recipe, or NaN."""
    try:
        return float(run.setting(*keys))
    except ValueError:
        return math.nan


def lower_rate(run: RunRecord, player: str | None = None) -> str:
    """Half the learning rate, of all players or of one; of each where all have their own."""
    own = [name for name in PLAYERS if not math.isnan(number(run, "players", name, "optimizer", "learning_rate"))]
    if player is None and len(own) == len(PLAYERS):
        return " with ".join(lower_rate(run, name) for name in own)
    key = "optimizer.learning_rate" if player is None else f"players.{player}.optimizer.learning_rate"
    rate = number(run, *key.split("."))
    rate = number(run, "optimizer", "learning_rate") if math.isnan(rate) else rate
    return f"a lower `{key}`" if math.isnan(rate) else f"`{key}={rate / 2:g}`, half of now"


def fewer_turns(run: RunRecord) -> str:
    """Fewer turns of the discriminator, if it has several."""
    turns = number(run, "players", "discriminator", "turns")
    return f"`players.discriminator.turns={turns / 2:.0f}`, {turns:.0f} now" if turns > 1 else ""


def penalty(run: RunRecord) -> str:
    """A gradient penalty, or more of the one that there is."""
    for name in ("gradient_penalty", "r1", "dragan", "r2"):
        weight = number(run, "regularizers", name, "weight")
        if weight > 0:
            return f"`regularizers.{name}.weight={2 * weight:g}`, twice of now"
    return "`regularizers.gradient_penalty.weight=1`"
