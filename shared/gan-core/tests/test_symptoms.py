"""What the log tells: each symptom is seen where it is, and not where it is not."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gan_core.play.regularizers import REGULARIZERS
from gan_core.recipe import parse, parse_value
from gan_core.runs.lines import DIAGNOSTICS
from gan_core.runs.record import read_run
from gan_core.runs.symptoms import ENOUGH_STEPS, SYMPTOMS, find_symptoms

HEALTHY = {
    "discriminator/adversarial": 1.2,
    "discriminator/of_guessing": 0.87,
    "discriminator/real_logits": 0.5,
    "discriminator/fake_logits": -0.4,
    "generator/adversarial": 0.8,
    "discriminator/gradient_norm": 2.0,
    "generator/gradient_norm": 1.0,
}
RECIPE = {
    "system": "gan",
    "objective": "non_saturating",
    "optimizer": {"name": "adam", "learning_rate": 0.002},
    "train": {"steps": 1000, "batch_size": 64, "log_every": 10},
}
SEEN = {"samples/nearest": 0.9, "samples/spread": 0.8, "held_out/recognised": 0.52}


class Made:
    """A run that somebody made up."""

    def __init__(self, folder: Path):
        self.folder, self.alone = folder, False  # alone: the log has the given discriminators' terms only
        self.write()

    def write(
        self, count: int = 100, recipe: dict[str, Any] | None = None, seen: dict[str, Any] = SEEN, **terms: Any
    ) -> Made:
        """A log of so many lines; a term is a value, or a function of the line's number."""
        (self.folder / "recipe.yaml").write_text(yaml.dump(RECIPE | (recipe or {})))
        known = {
            name: value for name, value in HEALTHY.items() if not (self.alone and name.startswith("discriminator"))
        }
        named = known | {name.replace("__", "/"): value for name, value in terms.items()}
        lines = [
            {"step": 10 * (n + 1), "phase": "adversarial"}
            | {name: value(n) if callable(value) else value for name, value in named.items() if value is not None}
            for n in range(count)
        ]
        lines.append({"step": 10 * count, "phase": DIAGNOSTICS, **seen})
        (self.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return self

    def roll_back(self, step: int, to: int | None, *lines: dict[str, Any]) -> Made:
        event = {"step": step, "to": to, "what": "generator/adversarial is nan", "log": list(lines)}
        with (self.folder / "rollbacks.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")
        return self

    def checks(self, *, good: bool) -> dict[str, str]:
        return {check.name: check.finding for check in find_symptoms(read_run(self.folder)) if check.good is good}

    @property
    def wrong(self) -> dict[str, str]:
        return self.checks(good=False)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_a_healthy_run_has_findings_and_no_problems(made):
    assert made.wrong == {}
    assert made.checks(good=True) == {
        "finite": "all logged values are finite",
        "collapse": "distance between samples 0.80× that of the data, nearest-neighbour distance 0.90×",
        "discriminator": "loss 0.87× that of guessing, mean logits 0.5 (real) and -0.4 (fake)",
        "memory": "training items are scored as more real than held-out items 52% of the time",
        "gradients": "gradient norms at the end: discriminator 2, generator 1",
        "oscillation": "the loss of the discriminator swung 0 times between far below and far above guessing",
    }


# Each symptom.


def test_a_run_that_was_rolled_back_is_found_until_it_has_gone_past_it(made):
    made.write(50).roll_back(610, 500)
    assert made.wrong["finite"] == (
        "at step 610, generator/adversarial is nan; the run was rolled back to step 500; try "
        "`optimizer.learning_rate=0.001` (half the current value), `optimizer.clip_norm=1`, or "
        "`regularizers.gradient_penalty.weight=1`"
    )
    made.write(62)
    assert made.checks(good=True)["finite"].endswith("; the run was rolled back and has since trained past that step")


def test_growth_before_a_rollback_is_reported(made):
    grown = [{"step": 510 + 10 * n, "phase": "x", "d/loss": 1.0, "g/loss": 2.0 * 50**n} for n in range(3)]
    assert "(g/loss had grown from 2 to 5e+03 before)" in made.write(50).roll_back(610, 500, *grown).wrong["finite"]


def test_a_run_that_had_nothing_to_go_back_to_says_so(made):
    assert "; there was no valid checkpoint; try " in made.write(5).roll_back(60, None).wrong["finite"]


def test_a_log_that_ends_not_finite_is_found(made):
    made.write(generator__adversarial=math.nan)
    assert made.wrong["finite"].startswith("generator/adversarial is not finite; try ")


@pytest.mark.parametrize("seen", [{"samples/nearest": 0.1}, {"samples/spread": 0.1}])
def test_samples_that_are_alike_are_found(made, seen):
    made.write(seen=SEEN | seen)
    assert made.wrong.keys() == {"collapse"}
    assert made.wrong["collapse"].startswith("the generator has collapsed: distance between samples ")
    assert "`players.generator.optimizer.learning_rate=0.001` (half the current value)" in made.wrong["collapse"]


def test_only_the_last_diagnostics_count(made):
    made.write(seen=SEEN | {"samples/spread": 0.1})
    with (made.folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1000, "phase": DIAGNOSTICS, **SEEN}) + "\n")
    assert made.wrong == {}


def test_a_discriminator_that_recognises_every_sample_or_none_is_found(made):
    made.write(discriminator__of_guessing=1.0)
    assert made.wrong == {}
    made.write(discriminator__of_guessing=0.02)
    assert made.wrong["discriminator"].startswith("the discriminator recognises every sample, so the generator learns")
    made.write(discriminator__of_guessing=2.0)
    assert made.wrong["discriminator"].startswith(
        "the discriminator is worse than guessing, so the generator learns nothing"
    )


def test_a_weighted_loss_is_judged_by_what_it_is_without_its_weight(made):
    made.write(discriminator__adversarial=0.01)  # a small weight
    assert made.wrong == {}


SEVERAL = {
    f"discriminator__{name}__{term}": value
    for name in ("image", "video")
    for term, value in {"adversarial": 1.2, "of_guessing": 0.9, "real_logits": 0.5, "fake_logits": -0.5}.items()
}


def test_the_discriminator_that_wins_is_found_by_its_name(made):
    made.alone = True
    made.write(**SEVERAL)
    assert made.wrong == {}
    assert made.checks(good=True)["discriminator"] == (
        "`image`: loss 0.9× that of guessing, mean logits 0.5 (real) and -0.5 (fake); "
        "`video`: loss 0.9× that of guessing, mean logits 0.5 (real) and -0.5 (fake)"
    )
    made.write(**SEVERAL | {"discriminator__video__of_guessing": 0.014})
    assert made.wrong.keys() == {"discriminator"}
    assert made.wrong["discriminator"].startswith("the discriminator `video` recognises every sample, so the")
    made.write(**SEVERAL | {"discriminator__image__of_guessing": lambda n: 1 + math.sin(n)})
    assert made.wrong["oscillation"].startswith(
        "the players oscillate: the loss of the discriminator `image` swung 23 times"
    )
    made.write(seen=SEEN | {"held_out/image/recognised": 0.5, "held_out/video/recognised": 0.93}, **SEVERAL)
    assert made.wrong["memory"].startswith("the discriminator `video` memorises the data: ")


def test_objectives_without_a_minimum_are_not_checked(made):
    made.write(discriminator__adversarial=-5.0, discriminator__of_guessing=None)
    assert made.checks(good=True)["discriminator"] == ("not checked: the loss has no minimum under this objective")
    made.write(discriminator__real_logits=None, discriminator__of_guessing=None)
    assert made.checks(good=True)["discriminator"] == "not checked: no adversary's loss was logged"
    assert made.checks(good=True)["oscillation"] == "not checked: no adversary's loss was logged"


def test_a_discriminator_that_memorises_is_found(made):
    made.write(seen=SEEN | {"held_out/recognised": 0.93})
    assert made.wrong.keys() == {"memory"}
    assert "more real than held-out items 93% of the time (chance: 50%); try more data, " in made.wrong["memory"]
    made.write(seen={"samples/nearest": 1.0})
    assert made.checks(good=True)["memory"] == "not checked: no data were held out; train with `data.held_out=0.1`"


@pytest.mark.parametrize("value", [2e3, -2e3])
def test_losses_that_run_away_are_found(made, value):
    made.write(generator__adversarial=lambda n: value if n > 50 else 1.0)
    assert made.wrong["gradients"].startswith(
        f"training diverges: generator/adversarial is {value:.3g}; try `optimizer.learning_rate"
    )


def test_gradients_that_explode_or_vanish_are_found(made):
    made.write(discriminator__gradient_norm=lambda n: 1.06**n)
    assert made.wrong["gradients"].startswith(
        "the gradient of `discriminator` explodes: its norm has grown from 1.7 to"
    )
    made.write(generator__gradient_norm=lambda n: 0.9**n, recipe={"objective": "minimax"})
    assert made.wrong["gradients"].startswith("the gradient of `generator` vanishes: its norm has fallen from 1 to ")
    assert "try `objective=non_saturating`, " in made.wrong["gradients"]
    made.write(discriminator__gradient_norm=lambda n: 0.9**n)  # it has nothing left to learn: that is no fault
    assert made.wrong == {}


def test_a_loss_that_swings_around_guessing_is_found(made):
    made.write(discriminator__of_guessing=lambda n: 1 + 0.7 * math.sin(n))
    assert made.wrong["oscillation"].startswith("the players oscillate: the loss of the discriminator swung 23 times")
    made.write(discriminator__of_guessing=lambda n: 0.5 + 0.4 * math.sin(n))  # it never falls behind
    assert made.wrong == {}
    made.write(discriminator__of_guessing=lambda n: 1 + 0.1 * math.sin(n))  # nor is that far
    assert made.wrong == {}


def test_noise_around_zero_is_not_a_swing(made):
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)).tolist()
    made.write(discriminator__of_guessing=None, discriminator__adversarial=lambda n: noise[n])
    assert made.wrong == {}
    made.write(discriminator__of_guessing=None, discriminator__adversarial=lambda n: math.sin(n) + noise[n] / 4)
    assert made.wrong.keys() == {"oscillation"}


def test_a_loss_of_few_samples_is_averaged_before_swings_are_counted(made):
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0)).tolist()
    few = {"train": RECIPE["train"] | {"log_every": 1, "batch_size": 16}}
    made.write(300, discriminator__of_guessing=lambda n: 1 + noise[n])
    assert made.wrong.keys() == {"oscillation"}  # of means over 640 samples, it would be
    made.write(300, recipe=few, discriminator__of_guessing=lambda n: 1 + noise[n] / 1.39)
    assert made.wrong == {}


# What is not said.


def test_a_training_that_has_just_started_has_no_findings_about_trends(made):
    terms = {"discriminator__of_guessing": 0.0, "generator__gradient_norm": lambda n: 10.0**-n}
    made.write(ENOUGH_STEPS // 10 - 1, seen={"samples/nearest": 0.0, "samples/spread": 0.0}, **terms)
    assert made.wrong == {}
    assert made.checks(good=True)["collapse"] == "not checked: the run has 90 steps; at least 100 are needed"
    made.write(ENOUGH_STEPS // 10, seen={"samples/nearest": 0.0, "samples/spread": 0.0}, **terms)
    assert made.wrong.keys() == {"collapse", "discriminator", "gradients"}


def test_only_the_last_phase_is_checked(made):
    made.write()
    lines = [json.loads(line) for line in (made.folder / "log.jsonl").read_text().splitlines()]
    for line in lines[:80]:
        line |= {"phase": "before", "discriminator/of_guessing": 0.0, "generator/gradient_norm": 1e9}
    (made.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert made.wrong == {}


@pytest.mark.parametrize(
    "hostile",
    [
        '{"step": 1000, "phase": []}',
        "[]",
        '{"step": 1e999}',
        '{"step": 1000, "phase": "diagnostics", "samples/spread": "x"}',
    ],
)
def test_hostile_files_do_not_raise(made, hostile):
    (made.folder / "log.jsonl").write_text(f"{hostile}\n")
    (made.folder / "rollbacks.jsonl").write_text(
        f'{hostile}\n{{"step": 1, "to": 2, "what": 3, "log": [4, {hostile}]}}\n'
    )
    (made.folder / "recipe.yaml").write_text(
        "optimizer: {learning_rate: [x]}\nobjective: {}\ntrain: {log_every: .inf}\n"
    )
    assert {check.name for check in find_symptoms(read_run(made.folder))} == set(SYMPTOMS)


def test_an_empty_run_has_no_symptom(made):
    (made.folder / "log.jsonl").unlink()
    assert made.wrong == {}


# What is proposed.


@pytest.mark.parametrize("penalty", [{}, {"r1": {"weight": 5.0}}])
def test_proposed_settings_are_valid(made, toy, penalty):
    recipe = {"regularizers": penalty}
    found = [
        made.write(recipe=recipe, seen={"samples/spread": 0.0, "held_out/recognised": 1.0}).wrong,
        made.write(recipe=recipe, discriminator__of_guessing=0.0, generator__gradient_norm=lambda n: 0.8**n).wrong,
        made.write(recipe=recipe, discriminator__of_guessing=9.0, generator__gradient_norm=lambda n: 1.8**n).wrong,
        made.write(recipe=recipe, discriminator__of_guessing=lambda n: 1 + math.sin(n)).wrong,
        made.write(recipe=recipe).roll_back(10_000, 10).wrong,
    ]
    words = " ".join(finding for run in found for finding in run.values())
    proposed = dict(re.findall(r"`([\w.]+)=([^`]+)`", words))
    assert len(proposed) >= 8
    assert REGULARIZERS["diffaugment"](**parse_value(proposed.pop("regularizers.diffaugment")))  # these are no images
    preset = toy.preset("plain")
    for key, value in proposed.items():
        preset.build(preset.recipe(system="plain").but({"regularizers": penalty}).but({key: parse_value(value)}))
    weight = proposed["regularizers.r1.weight" if penalty else "regularizers.gradient_penalty.weight"]
    assert weight == ("10" if penalty else "1")


def test_half_of_a_player_s_own_rate_is_proposed(made):
    own = {"players": {"generator": {"optimizer": {"learning_rate": 0.01}}}}
    made.write(recipe=own, seen={"samples/spread": 0.0})
    assert "`players.generator.optimizer.learning_rate=0.005` (half the current value)" in made.wrong["collapse"]
    assert parse(RECIPE | own).players["generator"].optimizer == {"learning_rate": 0.01}


def test_if_both_players_have_their_own_rates_both_are_halved(made):
    own = {
        name: {"optimizer": {"learning_rate": rate}} for name, rate in (("generator", 4e-3), ("discriminator", 1e-3))
    }
    made.write(recipe={"players": own}, discriminator__adversarial=2e3)
    wrong = made.wrong["gradients"]
    assert (
        "`players.generator.optimizer.learning_rate=0.002` (half the current value) with `players.discriminator"
        in wrong
    )
    assert "`optimizer.learning_rate" not in wrong.replace(".optimizer.learning_rate", "")


def test_a_discriminator_with_many_turns_that_wins_is_given_fewer(made):
    made.write(recipe={"players": {"discriminator": {"turns": 5}}}, discriminator__of_guessing=0.01)
    assert "`players.discriminator.turns=2` (currently 5)" in made.wrong["discriminator"]


def test_a_check_without_inputs_says_why_and_is_not_seen(made):
    made.write(count=8)
    checks = {check.name: check for check in find_symptoms(read_run(made.folder))}
    assert checks["gradients"].finding == "not checked: the run has 80 steps; at least 100 are needed"
    assert checks["finite"].seen
    assert not checks["gradients"].seen
    (made.folder / "log.jsonl").write_text(
        "".join(json.dumps({"step": 100 * (n + 1), "phase": "adversarial"} | HEALTHY) + "\n" for n in range(5))
    )
    checks = {check.name: check for check in find_symptoms(read_run(made.folder))}
    assert checks["gradients"].finding == "not checked: the log is too short"
