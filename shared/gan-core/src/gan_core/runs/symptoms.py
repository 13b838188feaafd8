"""Symptoms of failing training runs, found in the log, with evidence and settings to try. Does not import torch.

The thresholds lie between the values of healthy runs and those of runs that were made to fail in each way;
`tools/benchmarks/doctor.py` counts how often each failure is recognised.
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
from gan_core.runs.advice import lower_rates, rate_key
from gan_core.runs.record import RunRecord

T = TypeVar("T")

NOT_CHECKED = "not checked"
"""Prefix of the finding of a check that could not be made, for example because its inputs were not logged."""
ENOUGH_STEPS = 100
"""Minimum number of steps for a finding about a trend; earlier in training, healthy runs have symptoms too."""
MIN_NEAREST, MIN_SPREAD = 0.15, 0.25
"""Minimum nearest-neighbour distance and mean distance of samples, relative to those of the data; see
`gan_core.training.diagnostics`."""
MIN_LOSS, MAX_LOSS = 0.05, 1.5
"""Bounds of a discriminator's adversarial loss, as a fraction of its loss when guessing. Below the lower bound, it
recognises every sample; above the upper bound, it is worse than guessing."""
MAX_RECOGNISED = 0.75
"""Maximum probability that a discriminator scores a training item as more real than a held-out item; chance is 0.5."""
MAX_VALUE = 1e3
"""Maximum absolute value of a loss or a gradient norm."""
MAX_GROWTH = 100.0
"""Maximum ratio of a gradient norm to its value at the start of the phase."""
MIN_GRADIENT = 0.01
"""Minimum ratio of a generator's gradient norm to its largest value at the start of the phase."""
PLAYERS = ("generator", "discriminator")
"""Players for which learning rates are suggested."""
OF_GUESSING = "of_guessing"
"""Name in the log of a discriminator's unweighted adversarial loss as a fraction of its loss when guessing."""
SWINGS, SWING = 8, 0.15
"""Minimum number of swings of an oscillating loss across the loss when guessing, and the minimum amplitude of a swing
as a fraction of that loss."""
SWING_SAMPLES = 512
"""Minimum number of samples over which losses are averaged before swings are counted, to reduce noise."""
CERTAIN = 3.0
"""Maximum correlation of successive means, in standard errors, for which they are considered noise."""


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        name: name of the check.
        good: whether no problem was found.
        finding: description of the result.
    """

    name: str
    good: bool
    finding: str

    @property
    def seen(self) -> bool:
        """Whether the check had the inputs that it needs."""
        return not (self.good and self.finding.startswith(NOT_CHECKED))


def attempt(name: str, check: Callable[[], str]) -> Check:
    """Runs a check: a function that returns its finding, or raises an error with the finding if it is a problem."""
    try:
        return Check(name, True, check())
    except GanError as error:
        return Check(name, False, " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001  any error is a finding
        return Check(name, False, " ".join(f"{type(error).__name__}: {error}".split())[:200])


def find_symptoms(run: RunRecord) -> list[Check]:
    """Runs all checks of `SYMPTOMS` on a run."""
    return [attempt(name, partial(check, run)) for name, check in SYMPTOMS.items()]


def problem(evidence: str, *suggestions: str) -> GanError:
    """Returns the error for a problem, with its evidence and two or more settings to try."""
    return GanError(f"{evidence}; try {', '.join(suggestions[:-1])}, or {suggestions[-1]}")


def finite(run: RunRecord) -> str:
    """Checks for non-finite values, and for rollbacks caused by them."""
    lost = [name for entry in run.training[-1:] for name, value in entry.values.items() if math.isnan(value)]
    suggestions = lower_rate(run), "`optimizer.clip_norm=1`", penalty(run)
    if lost:
        raise problem(f"{lost[0]} is not finite", *suggestions)
    if not run.rollbacks:
        return "all logged values are finite"
    last = run.rollbacks[-1]
    what = f"at step {last.step:,}, {last.what}"
    if run.done > last.step:
        return f"{what}; the run was rolled back and has since trained past that step"
    to = "there was no valid checkpoint" if last.to is None else f"the run was rolled back to step {last.to:,}"
    raise problem(f"{what}; {to}{last.growth}", *suggestions)


def collapse(run: RunRecord) -> str:
    """Checks that samples are not much less diverse than the data."""
    last = last_diagnostics(run, "samples/")
    if not last:
        if number(run, "train", "sample_every") > 0:
            return f"{NOT_CHECKED}: no diagnostics of samples were logged; they require a game that generates samples"
        return f"{NOT_CHECKED}: no diagnostics of samples were logged; set `train.sample_every`"
    if too_short(run):
        return too_short(run)
    nearest, spread = (last.get(f"samples/{name}", math.nan) for name in ("nearest", "spread"))
    finding = f"distance between samples {spread:.2f}× that of the data, nearest-neighbour distance {nearest:.2f}×"
    if nearest < MIN_NEAREST or spread < MIN_SPREAD:
        raise problem(
            f"the generator has collapsed: {finding}",
            penalty(run),
            lower_rate(run, "generator"),
            "`regularizers.minibatch_stddev={}`, which shows the discriminator how similar samples are",
        )
    return finding


def discriminator(run: RunRecord) -> str:
    """Checks that discriminators neither recognise every sample nor do worse than guessing."""
    found = adversaries(run)
    if not found:
        return f"{NOT_CHECKED}: no adversary's loss was logged"
    if not any(series(run, f"{prefix}{OF_GUESSING}") for prefix in found.values()):
        return f"{NOT_CHECKED}: the loss has no minimum under this objective"
    return too_short(run) or each(found, lambda name, prefix: check_loss(run, name, prefix))


def check_loss(run: RunRecord, name: str, prefix: str) -> str:
    """Checks one discriminator's adversarial loss."""
    fractions = recent(series(run, f"{prefix}{OF_GUESSING}"))
    if not fractions:
        return "the loss has no minimum"
    fraction = fmean(fractions)
    real, fake = (recent(series(run, f"{prefix}{side}_logits")) for side in ("real", "fake"))
    logits = f", mean logits {fmean(real):.3g} (real) and {fmean(fake):.3g} (fake)" if real and fake else ""
    finding = f"loss {fraction:.2g}× that of guessing{logits}"
    if fraction < MIN_LOSS:
        raise problem(
            f"{name} recognises every sample, so the generator learns little: {finding}",
            lower_rate(run, "discriminator"),
            fewer_turns(run) or penalty(run),
            "`regularizers.instance_noise={}`",
        )
    if fraction > MAX_LOSS:
        raise problem(
            f"{name} is worse than guessing, so the generator learns nothing about the data: {finding}",
            lower_rate(run, "generator"),
            "`players.discriminator.turns=2`",
            "a higher `players.discriminator.optimizer.learning_rate`",
        )
    return finding


def memory(run: RunRecord) -> str:
    """Checks with held-out data that discriminators do not memorise the training data."""
    probabilities = {
        name.removeprefix("held_out").removesuffix("recognised").strip("/"): probability
        for name, probability in last_diagnostics(run, "held_out/").items()
        if name.endswith("/recognised")
    }
    if not probabilities:
        if number(run, "data", "held_out") > 0:
            return (
                f"{NOT_CHECKED}: no scores of held-out items were logged; a game defines them as `realness`, "
                "and `train.sample_every` logs them"
            )
        return f"{NOT_CHECKED}: no data were held out; train with `data.held_out=0.1`"
    return each(probabilities, lambda name, probability: check_memory(run, name, probability))


def check_memory(run: RunRecord, name: str, probability: float) -> str:
    """Checks how often one discriminator scores training items higher than held-out items."""
    finding = f"training items are scored as more real than held-out items {probability:.0%} of the time"
    if probability > MAX_RECOGNISED:
        raise problem(
            f"{name} memorises the data: {finding} (chance: 50%)",
            "more data",
            "`regularizers.diffaugment={}`, for images",
            "`regularizers.instance_noise={}`",
            penalty(run),
        )
    return finding


def gradients(run: RunRecord) -> str:
    """Checks for diverging losses, exploding gradients, and vanishing gradients of generators."""
    # Gradient norms are only in lines that end an interval; the last line may not.
    names = sorted({name for entry in run.training[-2:] for name in entry.values if "/" in name})
    for name in names:
        values = recent(series(run, name))
        if values and not name.endswith("_logits") and abs(fmean(values)) > MAX_VALUE:
            raise problem(
                f"training diverges: {name} is {fmean(values):.3g}",
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
        found.append(f"{player} {late:.2g}")
        if late > MAX_GROWTH * median(early):
            raise problem(
                f"the gradient of `{player}` explodes: its norm has grown from {median(early):.2g} to {late:.2g}",
                lower_rate(run),
                "`optimizer.clip_norm=1`",
                penalty(run),
            )
        if player != "discriminator" and late < MIN_GRADIENT * max(early):
            raise problem(
                f"the gradient of `{player}` vanishes: its norm has fallen from {max(early):.2g} to {late:.2g}",
                "`objective=non_saturating`" if run.setting("objective") == "minimax" else penalty(run),
                lower_rate(run, "discriminator"),
                "`regularizers.instance_noise={}`",
            )
    if found:
        return f"gradient norms at the end: {', '.join(found)}"
    return too_short(run) or f"{NOT_CHECKED}: {'the log is too short' if measured else 'no gradient norms were logged'}"


def oscillation(run: RunRecord) -> str:
    """Checks that discriminators do not alternate between far better and far worse than guessing."""
    found = adversaries(run)
    if not found:
        return f"{NOT_CHECKED}: no adversary's loss was logged"
    return each(found, lambda name, prefix: check_swings(run, name, prefix))


def check_swings(run: RunRecord, name: str, prefix: str) -> str:
    """Checks how often one discriminator's loss swings across its loss when guessing by a large amount."""
    fractions = series(run, f"{prefix}{OF_GUESSING}")
    values, level = (fractions, 1.0) if fractions else (series(run, f"{prefix}adversarial"), 0.0)
    per_line = number(run, "train", "log_every") * number(run, "train", "batch_size")  # samples
    values = means(values[len(values) // 4 :], max(1, math.ceil(SWING_SAMPLES / per_line)) if per_line >= 1 else 1)
    if len(values) < 3 * SWINGS:
        return f"{NOT_CHECKED}: the log is too short"
    deviations = [value - level for value in values]
    size = math.sqrt(fmean(value * value for value in deviations))
    above = [value > 0 for value in deviations if abs(value) > max(SWING * level, size / 2)]
    swings = sum(one != other for one, other in pairwise(above))
    finding = f"the loss of {name} swung {swings} times between far below and far above guessing"
    if swings >= SWINGS and (level > 0 or not is_noise(values)):  # around 0, there is no scale for noise
        unit = "× that of guessing" if fractions else ""
        raise problem(
            f"the players oscillate: {finding} ({min(values):.2g} to {max(values):.2g}{unit})",
            lower_rate(run),
            penalty(run),
            "`optimizer.betas=[0,0.9]` (no momentum)",
        )
    return finding


SYMPTOMS: Mapping[str, Callable[[RunRecord], str]] = {
    "finite": finite,
    "collapse": collapse,
    "discriminator": discriminator,
    "memory": memory,
    "gradients": gradients,
    "oscillation": oscillation,
}


# Values from the log.


def adversaries(run: RunRecord) -> dict[str, str]:
    """Returns the prefix of each adversary's terms in the last phase, by adversary name (empty for a single one)."""
    phase = run.training[-1].phase if run.training else ""
    names = {name for entry in run.training if entry.phase == phase for name in entry.values}
    prefixes = sorted(name.removesuffix("real_logits") for name in names if name.endswith("/real_logits"))
    found = [prefix for prefix in prefixes if {f"{prefix}{OF_GUESSING}", f"{prefix}adversarial"} & names]
    return {prefix.strip("/").partition("/")[2]: prefix for prefix in found}


def last_diagnostics(run: RunRecord, prefix: str) -> dict[str, float]:
    """Returns the last logged value of each diagnostic whose name begins with `prefix`."""
    values = {name: value for entry in run.diagnostics for name, value in entry.values.items()}
    return {name: value for name, value in values.items() if name.startswith(prefix)}


def each(adversaries: Mapping[str, T], check: Callable[[str, T], str]) -> str:
    """Checks each adversary and returns the findings, or raises one error with all problems."""
    findings: dict[str, str] = {}
    problems: list[str] = []
    for name, value in adversaries.items():
        try:
            findings[name] = check(f"the discriminator `{name}`" if name else "the discriminator", value)
        except GanError as error:
            problems.append(str(error))
    if problems:
        raise GanError("; ".join(problems))
    checked = {name: finding for name, finding in findings.items() if not finding.startswith(NOT_CHECKED)}
    if not checked:
        return next(iter(findings.values()))
    return "; ".join(f"`{name}`: {finding}" if name else finding for name, finding in checked.items())


def series(run: RunRecord, name: str) -> list[float]:
    """Returns a term's finite values in the last phase, in the order of the log."""
    phase = run.training[-1].phase if run.training else ""
    values = [entry.values.get(name, math.nan) for entry in run.training if entry.phase == phase]
    return [value for value in values if math.isfinite(value)]


def recent(values: Sequence[float]) -> Sequence[float]:
    """Returns the last fifth of the values."""
    return values[-max(1, len(values) // 5) :]


def means(values: Sequence[float], size: int) -> list[float]:
    """Returns the means of consecutive groups of `size` values, without an incomplete last group."""
    return [fmean(values[start : start + size]) for start in range(0, len(values) - size + 1, size)]


def is_noise(values: Sequence[float]) -> bool:
    """Returns whether neighbouring values are not significantly correlated (for noise, the correlation is 0 ± 1/√n)."""
    mean = fmean(values)
    variance = fmean((value - mean) ** 2 for value in values)
    covariance = fmean((one - mean) * (other - mean) for one, other in pairwise(values))
    return covariance * math.sqrt(len(values)) <= CERTAIN * variance


def too_short(run: RunRecord) -> str:
    """Returns the finding that the run is too short to be checked; an empty string if it is long enough."""
    few = run.done < ENOUGH_STEPS
    return f"{NOT_CHECKED}: the run has {run.done} steps; at least {ENOUGH_STEPS} are needed" if few else ""


# Suggestions.


def number(run: RunRecord, *keys: str) -> float:
    """Returns a numeric setting of the recipe, or NaN if it is not set."""
    try:
        return float(run.setting(*keys))
    except ValueError:
        return math.nan


def lower_rate(run: RunRecord, player: str | None = None) -> str:
    """Suggests to halve the learning rate of a player, or of all players (None), including those with their own."""
    own = {key: number(run, *key.split(".")) for key in map(rate_key, PLAYERS)}
    shared = number(run, *rate_key(None).split("."))
    if player is not None:
        own_rate = own[rate_key(player)]
        rates = {rate_key(player): shared if math.isnan(own_rate) else own_rate}
    else:
        rates = {rate_key(None): shared} if any(map(math.isnan, own.values())) else own
    return " with ".join(
        f"a lower `{key}`" if math.isnan(rate) else f"`{key}={rate:g}` (half the current value)"
        for key, rate in lower_rates(rates).items()
    )


def fewer_turns(run: RunRecord) -> str:
    """Suggests fewer turns of the discriminator, if it has several."""
    turns = number(run, "players", "discriminator", "turns")
    return f"`players.discriminator.turns={turns / 2:.0f}` (currently {turns:.0f})" if turns > 1 else ""


def penalty(run: RunRecord) -> str:
    """Suggests a gradient penalty, or twice its weight if the recipe already has one."""
    for name in ("gradient_penalty", "r1", "dragan", "r2"):
        weight = number(run, "regularizers", name, "weight")
        if weight > 0:
            return f"`regularizers.{name}.weight={2 * weight:g}` (twice the current value)"
    return "`regularizers.gradient_penalty.weight=1`"
