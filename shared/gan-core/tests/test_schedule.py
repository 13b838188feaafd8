"""The plan of a run's phases: where they begin, how far they have come, and that every one of them comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch

from gan_core import Phase, Player, TensorSource
from gan_core.data import FittedData, Spec
from gan_core.errors import RecipeError
from gan_core.play.game import Game
from gan_core.recipe import parse
from gan_core.training.schedule import Limits, Point, Schedule, cut, in_steps, lengths

BEGUN = Point()


def shares(*values: float) -> list[Phase]:
    return [Phase(f"phase {number}", share=value) for number, value in enumerate(values)]


def played(schedule: Schedule, each: Callable[[int], tuple[int, float]], at: Point = BEGUN) -> list[tuple[int, float]]:
    """Plays to the end; returns for each step its phase and the phase's progress after it.

    `each` returns the samples and seconds of a step of a phase.
    """
    steps = []
    while not schedule.over(at):
        if schedule.due(at):
            schedule.enter(at)
            assert schedule.progress(at) == 0.0
        samples, seconds = each(schedule.number)
        at = Point(at.step + 1, at.seen + samples, at.elapsed + seconds)
        steps.append((schedule.number, schedule.progress(at)))
    return steps


def counts(steps: Sequence[tuple[int, float]]) -> list[int]:
    return [sum(number == phase for phase, _ in steps) for number in range(steps[-1][0] + 1)]


# Lengths.


def test_phases_share_the_steps_and_each_has_one() -> None:
    assert cut(shares(1, 1), 10) == [5, 10]
    assert cut(shares(2, 1, 2), 100) == [40, 60, 100]
    assert cut(shares(1, 1000, 1), 3) == [1, 2, 3]
    with pytest.raises(
        RecipeError, match=r"`train.steps` is 2; this game has 3 phases and needs at least one step for each"
    ):
        cut(shares(1, 1, 1), 2)


def test_phases_of_fixed_length_take_it_and_the_others_share_the_rest() -> None:
    phases = [Phase("a", share=1), Phase("b", steps=30), Phase("c", share=3), Phase("d", steps=10)]
    assert cut(phases, 120) == [20, 50, 110, 120]
    assert cut(phases, 42) == [1, 31, 32, 42]
    with pytest.raises(RecipeError, match=r"`train.steps` is 41; the phases `b`, `d` take 40 .* set 42 or more"):
        cut(phases, 41)


def test_the_last_of_phases_that_are_all_fixed_lasts_to_the_end() -> None:
    assert cut([Phase(steps=3), Phase(steps=4)], 7) == [3, 7]
    assert cut([Phase(steps=3), Phase(steps=4)], 9) == [3, 9]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1, "steps": 3}, r"the phase `warm` has share and steps; give one of share, steps and epochs"),
        ({"steps": 3, "epochs": 1}, r"has steps and epochs"),
        ({"epochs": 0}, r"`epochs` of the phase `warm` is 0; expected a positive number"),
        ({"share": -1.0}, r"`share` of the phase `warm` is -1.0"),
        ({"log_every": 0}, r"`log_every` of the phase `warm` is 0"),
    ],
)
def test_a_phase_has_one_positive_length(settings: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Phase("warm", **settings)  # type: ignore[arg-type]


def test_epochs_are_passes_over_the_items_counted_in_samples_read() -> None:
    # 1,000 items; a step reads 2 batches of 50.
    assert in_steps(shares(1), 10, 1, [1000], [100])[1] == 100
    assert in_steps(shares(1), 10.01, 1, [1000], [100])[1] == 101
    assert in_steps(shares(1), 0.001, 1, [1000], [100])[1] == 1
    # The first half of the steps reads 100 samples each, the second 300: 10 epochs are 50 steps.
    assert in_steps(shares(1, 1), 10, 1, [1000, 1000], [100, 300])[1] == 50


def test_epochs_of_a_phase_become_its_steps() -> None:
    phases, steps = in_steps([Phase("a", epochs=2), Phase("b")], None, 500, [1000, 1000], [100, 50])
    assert ([phase.steps for phase in phases], phases[0].epochs, steps) == ([20, None], None, 500)
    phases, steps = in_steps([Phase("a", epochs=2), Phase("b")], 5, 500, [1000, 1000], [100, 50])
    assert (phases[0].steps, steps) == (20, 20 + 60)  # 3 epochs are left, of 20 steps each
    with pytest.raises(RecipeError, match=r"`train.epochs` is 2, but the phases of fixed length take 2; set more"):
        in_steps([Phase("a", epochs=2), Phase("b")], 2, 500, [1000, 1000], [100, 50])


def test_a_run_of_fixed_phases_ends_with_them() -> None:
    assert in_steps([Phase(steps=3), Phase(epochs=1)], None, 10_000, [8, 8], [4, 2])[1] == 7
    with pytest.raises(RecipeError, match=r"`train.steps` is 5"):
        cut(*in_steps([Phase("a", steps=3), Phase("b", epochs=1)], None, 5, [8, 8], [4, 2]))


class Toy(Game):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.nn.Linear(1, 1)

    def players(self):  # type: ignore[no-untyped-def]
        yield Player("first", (self.generator,), lambda batch: {}, turns=2)
        yield Player("second", (self.generator,), lambda batch: {}, every=4)

    def phases(self):  # type: ignore[no-untyped-def]
        return [Phase("alone", ("first",), epochs=3), Phase("both", batch_size=20)]


def test_the_length_of_a_run_follows_from_data_batches_and_turns() -> None:
    data = FittedData(TensorSource({"rows": torch.zeros(100, 1)}), Spec())
    recipe = parse({"system": "toy", "train": {"batch_size": 10, "epochs": 12}, "data": {"held_out": 0.2}})
    phases, steps = lengths(Toy(), recipe, data)
    assert phases[0].steps == 12  # 3 · 80 / (2 · 10)
    assert steps == 12 + 16  # (12 - 3) · 80 / ((2 + 1/4) · 20)
    changed = recipe.but({"players.first.turns": 1, "players.second.every": 1})
    assert lengths(Toy(), changed, data)[1] == 24 + 18  # 3 · 80 / 10, and 9 · 80 / (2 · 20)


# The course of a run.


@pytest.mark.parametrize("steps", [3, 10, 97])
def test_with_steps_alone_the_plan_is_in_whole_steps(steps: int) -> None:
    schedule = Schedule(shares(1, 2, 1), Limits(steps))
    course = played(schedule, lambda phase: (7, 0.5))
    ends = [0, *cut(schedule.phases, steps)]
    assert counts(course) == [end - start for start, end in pairwise(ends)]
    expected = [((step - start) / (end - start)) for start, end in pairwise(ends) for step in range(start + 1, end + 1)]
    assert [progress for _, progress in course] == expected  # bit for bit
    assert schedule.starts == ends[:-1]


@pytest.mark.parametrize("limits", [Limits(10**6, minutes=10), Limits(10**6, samples=60_000)])
def test_phases_stretch_to_the_limit_that_ends_the_run(limits: Limits) -> None:
    """600 steps of a second and 100 samples: not 10⁶ steps."""
    course = played(Schedule(shares(1, 2, 1), limits), lambda phase: (100, 1.0))
    assert counts(course) == [150, 300, 150]
    for phase in range(3):
        progress = [value for number, value in course if number == phase]
        assert progress == sorted(progress)
        assert progress == pytest.approx([(k + 1) / len(progress) for k in range(len(progress))])
    assert course[-1][1] == pytest.approx(1.0)


def test_the_nearest_of_several_limits_counts() -> None:
    course = played(Schedule(shares(1, 1), Limits(100, samples=10**6, minutes=100)), lambda phase: (1, 1.0))
    assert counts(course) == [50, 50]
    course = played(Schedule(shares(1, 1), Limits(10**6, samples=300, minutes=100)), lambda phase: (1, 1.0))
    assert counts(course) == [150, 150]


def test_slower_phases_have_fewer_steps_and_no_less_time() -> None:
    course = played(Schedule(shares(1, 1), Limits(10**6, minutes=10)), lambda phase: (1, (1.0, 3.0)[phase]))
    assert counts(course) == [300, 100]


@pytest.mark.parametrize("limits", [Limits(10**6, minutes=1), Limits(10**6, samples=60), Limits(3, minutes=1)])
def test_every_phase_has_a_step_where_the_first_takes_the_whole_run(limits: Limits) -> None:
    assert counts(played(Schedule(shares(1, 1, 1), limits), lambda phase: (60, 60.0))) == [1, 1, 1]


def test_fixed_phases_keep_their_steps_in_a_run_that_stretches() -> None:
    phases = [Phase("a", share=1), Phase("b", steps=50), Phase("c", share=1), Phase("d", steps=100)]
    course = played(Schedule(phases, Limits(10**6, minutes=10)), lambda phase: (1, 1.0))
    a, b, c, d = counts(course)
    assert b == 50
    assert a + b + c + d == 600
    assert abs(a - c) <= 2
    assert abs(d - 100) <= 2
    assert course[-1] == (3, 1.0)


@pytest.mark.parametrize("steps", [10, 1000])
def test_a_fixed_last_phase_ends_its_schedules_with_the_run(steps: int) -> None:
    """Of 60 steps that the time allows, the first phase has 20; the last would have had 10, or 1,000."""
    phases = [Phase("a", steps=20), Phase("b", steps=steps)]
    course = played(Schedule(phases, Limits(10**6, minutes=1)), lambda phase: (1, 1.0))
    assert counts(course) == [20, 40]
    assert [progress for phase, progress in course if phase] == pytest.approx([(k + 1) / 40 for k in range(40)])


def test_a_fixed_phase_is_cut_short_where_the_run_is_over() -> None:
    phases = [Phase("a", steps=100), Phase("b", share=1)]
    assert counts(played(Schedule(phases, Limits(1000, minutes=1)), lambda phase: (1, 2.0))) == [30, 1]


def test_a_longer_limit_prolongs_the_phase_that_is_going_on_and_those_to_come() -> None:
    """Of 10 minutes in two halves, 7 are over; 20 more minutes go to the second half alone."""
    before = Schedule(shares(1, 1), Limits(10**6, minutes=10))
    played(before, lambda phase: (1, 1.0))
    after = Schedule(shares(1, 1), Limits(10**6, minutes=30))
    after.load(before.starts, before.start, before.ends)
    at = Point(600, 600, 600.0)
    assert not after.over(at)
    assert after.progress(at) == pytest.approx(5 / 25)
    assert counts(played(after, lambda phase: (1, 1.0), at))[-1] == 1200


def test_more_steps_prolong_the_last_phase() -> None:
    before = Schedule(shares(1, 1), Limits(10))
    played(before, lambda phase: (1, 1.0))
    after = Schedule(shares(1, 1), Limits(20))
    after.load(before.starts, before.start, before.ends)
    assert (after.ends, after.number, after.progress(Point(10, 10, 10.0))) == ([5, 20], 1, 5 / 15)


@pytest.mark.parametrize("starts", [[], [0, 1, 2]])
def test_a_plan_of_other_phases_is_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="phases"):
        Schedule(shares(1, 1), Limits(10)).load(starts, Point(), [5, 10])


def test_fewer_steps_leave_one_to_each_phase_that_is_to_come() -> None:
    before = Schedule(shares(1, 1, 1), Limits(30))
    at = Point(5)
    before.enter(BEGUN)
    after = Schedule(shares(1, 1, 1), Limits(8))
    after.load(before.starts, before.start, before.ends)
    assert after.ends == [6, 7, 8]
    assert [phase for phase, _ in played(after, lambda phase: (1, 1.0), at)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("players", "message"),
    [
        (("frist",), r"unknown player in phase `x` `frist`; did you mean `first`\?"),
        ((), "the phase `x` has no players"),
    ],
)
def test_a_phase_without_players_has_no_epochs(players: tuple[str, ...], message: str) -> None:
    game = Toy()
    game.phases = lambda: [Phase("x", players, epochs=1)]  # type: ignore[method-assign]
    data = FittedData(TensorSource({"rows": torch.zeros(100, 1)}), Spec())
    with pytest.raises(RecipeError, match=message):
        lengths(game, parse({"system": "toy"}), data)


def test_epochs_without_a_phase_for_them_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"`train.epochs` is 5, but all phases have a fixed length; leave it"):
        in_steps([Phase(steps=3), Phase(epochs=1)], 5, 10_000, [8, 8], [4, 2])
