"""Adversaries: their terms by closed form, on their own and several in one game, their state, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.testing import assert_close

from gan_core import draws, train
from gan_core.data import TensorDataset
from gan_core.errors import RecipeError
from gan_core.nn.augment import diff_augment
from gan_core.play.adversary import Adversary, prefixed
from gan_core.play.game import Game
from gan_core.play.judgement import Judgement
from gan_core.play.objectives import OBJECTIVES, Objective, hinge, least_squares, non_saturating, wasserstein
from gan_core.play.player import Player
from gan_core.play.preset import Preset
from gan_core.play.regularizers import (
    R1,
    R2,
    REGULARIZERS,
    AdaptiveAugmentation,
    Consistency,
    DiffAugment,
    Dragan,
    FeatureMatching,
    Generation,
    GradientPenalty,
    InstanceNoise,
    LabelSmoothing,
    MinibatchDiscrimination,
    MinibatchStddev,
    Orthogonal,
    PathLength,
    PullAway,
    Regularizer,
    Replay,
    SpectralNorm,
    Unrolled,
    WeightClipping,
)
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Size
from gan_core.runs.record import read_run
from gan_core.runs.run import Run
from gan_core.runs.symptoms import find_symptoms
from gan_core.training.diagnostics import SampleDiagnostics

CPU = torch.device("cpu")
SEED = draws.mix(0, 1)  # one by which some of few uniform numbers are above ½ and some below
ROWS = 6


class Linear(nn.Module):
    """Logits w·x of images `[B, 1, 2, 2]`, with features x and a last layer `judge`."""

    def __init__(self, slope: tuple[float, ...] = (3.0, 0.0, 4.0, 0.0)):
        super().__init__()
        self.judge = nn.Linear(4, 1, bias=False)
        self.judge.weight.data = torch.tensor([slope])

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(images.flatten(1)).flatten()


class Scales(nn.Module):
    """Logits 3 x₀ and 4 x₁ with one layer of features each, `[B, …]` of any samples."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, samples: Tensor) -> Judgement:
        logits = [slope * samples.flatten(1)[:, k] for k, slope in enumerate(self.slope)]
        return Judgement(logits, [[10 * part] for part in logits])


def samples(seed: int, *shape: int) -> Tensor:
    return torch.randn(ROWS, *(shape or (1, 2, 2)), generator=torch.Generator().manual_seed(seed))


REAL, FAKE = samples(0), samples(1)


def example(rows: int) -> tuple[Tensor, dict[str, Any]]:
    return torch.zeros(rows, 1, 2, 2), {}


def adversary(
    *regularizers: Regularizer, objective: Objective = non_saturating, network: nn.Module | None = None, **more: Any
) -> Adversary:
    torch.manual_seed(0)
    more = {"example": example} | more
    return Adversary(network or Linear(), objective=objective, regularizers=regularizers, **more)


def terms(one: Adversary, real: Tensor = REAL, fake: Tensor = FAKE) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    with draws.drawing(SEED, CPU, rows=len(real), total=len(real)):
        discriminator = one.discriminator_terms(real, fake)
    with draws.drawing(SEED, CPU, rows=len(real), total=len(real)):
        return discriminator, one.generator_terms(fake, real)


def drawn(make: Any, *arguments: Any) -> Any:
    with draws.drawing(SEED, CPU, rows=ROWS, total=ROWS):
        return make(*arguments)


# Closed forms, with each regularizer.

W = torch.tensor([3.0, 0.0, 4.0, 0.0])
D_REAL, D_FAKE = REAL.flatten(1) @ W, FAKE.flatten(1) @ W
PLAIN = (softplus(-D_REAL).mean() + softplus(D_FAKE).mean(), softplus(-D_FAKE).mean())


def test_without_regularizers_the_terms_are_the_objectives() -> None:
    discriminator, generator = terms(adversary())
    assert_close(discriminator, {"adversarial": PLAIN[0]})
    assert_close(generator, {"adversarial": PLAIN[1]})


PENALTIES = [
    (GradientPenalty(weight=2.0), 2.0 * (5 - 1) ** 2),  # the slope is 5 everywhere
    (Dragan(weight=3.0), 3.0 * (5 - 1) ** 2),
    (R1(weight=4.0), 4 * 25 / 2),
    (R2(weight=5.0), 5 * 25 / 2),
    (LabelSmoothing(real=0.8), 0.2 * float(D_REAL.mean())),
]


@pytest.mark.parametrize(("regularizer", "expected"), PENALTIES)
def test_a_penalty_is_a_term_beside_the_adversarial_one(regularizer: Regularizer, expected: float) -> None:
    discriminator, generator = terms(adversary(regularizer))
    assert_close(discriminator, {"adversarial": PLAIN[0], regularizer.name: torch.tensor(expected)})
    assert_close(generator, {"adversarial": PLAIN[1]})


def test_overlapping_filters_are_penalised_in_both_networks() -> None:
    class Two(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 2, bias=False)
            self.first.weight.data = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]])

    generator = nn.Linear(1, 3, bias=False)
    generator.weight.data = torch.tensor([[1.0], [1.0], [0.0]])
    generation = Generation(generator, lambda count: torch.zeros(count, 1), generator)
    discriminator, generated = terms(adversary(Orthogonal(weight=0.5), network=Two(), generation=generation))
    assert_close(discriminator["orthogonal"], torch.tensor(0.5 * 2 * 2.0**2))
    assert_close(generated["orthogonal"], torch.tensor(0.5 * 2 * 1.0))
    assert "orthogonal" not in terms(adversary(Orthogonal(), network=Two()))[1]  # it knows no generator


def test_consistency_compares_with_the_moved_images() -> None:
    network = Linear((1.0, 0.0, 1.0, 0.0))  # half of the images are mirrored: the other column counts
    columns = REAL.sum(dim=(1, 2)).flatten(1)
    apart = (columns[:, 0] - columns[:, 1]).square()
    found = terms(adversary(Consistency(weight=2.0, shift=0), network=network))[0]["consistency"]
    mirrored = drawn(lambda: draws.uniform(ROWS, 1, like=REAL)).flatten() < 0.5
    assert_close(found, 2 * (apart * mirrored).mean())


def test_instance_noise_and_augmentation_change_what_is_judged() -> None:
    noisy = terms(adversary(InstanceNoise(deviation=0.5)))[0]["adversarial"]

    def judged(view: Any) -> Tensor:
        real, fake = (view(one).flatten(1) @ W for one in (REAL, FAKE))
        return softplus(-real).mean() + softplus(fake).mean()

    assert_close(noisy, drawn(judged, lambda x: x + 0.5 * draws.normal(len(x), *x.shape[1:], like=x)))
    augmented = terms(adversary(DiffAugment()))[0]["adversarial"]
    assert_close(augmented, drawn(judged, diff_augment))
    ada = adversary(AdaptiveAugmentation(p=0.5, groups=("color",)))
    assert_close(terms(ada)[0]["adversarial"], drawn(judged, ada.memory["ada"].pipe))


def test_replay_shows_the_discriminator_earlier_fakes() -> None:
    one = adversary(Replay(size=ROWS))
    assert_close(terms(one)[0]["adversarial"], PLAIN[0])  # until the pool is full
    later = terms(one, fake=samples(2))[0]["adversarial"]
    now, before = samples(2), FAKE
    chances, places = drawn(lambda: (draws.uniform(ROWS, like=now), draws.integers(ROWS, ROWS, like=now)))
    pool, seen = before.clone(), now.clone()
    for row in range(ROWS):
        if chances[row] > 0.5:
            seen[row], pool[places[row]] = pool[places[row]].clone(), now[row]
    assert_close(later, softplus(-D_REAL).mean() + softplus(seen.flatten(1) @ W).mean())


def test_feature_matching_and_pull_away_see_the_features() -> None:
    _, generator = terms(adversary(FeatureMatching(weight=2.0), PullAway(weight=3.0)))
    unit = nn.functional.normalize(FAKE.flatten(1), dim=1)
    cosines = (unit @ unit.T).square()
    assert_close(
        generator,
        {
            "adversarial": PLAIN[1],
            "feature_matching": 2 * (REAL.mean(dim=0) - FAKE.mean(dim=0)).square().sum(),
            "pull_away": 3 * (cosines.sum() - ROWS) / (ROWS * (ROWS - 1)),
        },
    )


@pytest.mark.parametrize("kind", [MinibatchStddev, MinibatchDiscrimination])
def test_layers_over_the_batch_begin_without_weight(kind: type[Regularizer]) -> None:
    one = adversary(kind())
    assert_close(terms(one)[0], {"adversarial": PLAIN[0]})
    last = one.network.judge.judge
    assert last.weight.shape[1] > 4
    assert last.weight[:, 4:].abs().sum() == 0


def test_weights_are_normalised_or_clipped() -> None:
    normalised = terms(adversary(SpectralNorm()))[0]["adversarial"]  # a matrix of one row: w / ‖w‖
    assert_close(normalised, softplus(-D_REAL / 5).mean() + softplus(D_FAKE / 5).mean())
    clipped = adversary(WeightClipping(bound=0.5))
    clipped.after_turn({})
    assert clipped.network.judge.weight.tolist() == [[0.5, 0.0, 0.5, 0.0]]


def test_unrolling_judges_by_the_discriminator_of_one_step_ahead() -> None:
    _, generator = terms(adversary(Unrolled(steps=1, learning_rate=0.1), objective=wasserstein))
    ahead = W + 0.1 * (REAL.flatten(1) - FAKE.flatten(1)).mean(dim=0)
    assert_close(generator["adversarial"], ((REAL.flatten(1) - FAKE.flatten(1)) @ ahead).mean())


class Mapped(nn.Module):
    """A generator of a mapping and a synthesis, both linear."""

    latent_dim = 2

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = classes
        self.mapping, self.synthesis = nn.Linear(2, 3), nn.Linear(3, 4, bias=False)
        self.of_class = nn.Embedding(classes or 1, 3)

    def styles(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        styles = self.mapping(z).tanh()
        return styles if label is None else styles * self.of_class(label)

    def render(self, styles: Tensor) -> Tensor:
        return self.synthesis(styles.square())[:, None].unflatten(2, (2, 2))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.render(self.styles(z, label))


class StyleGame(TwoPlayerGame):
    """Path lengths are measured in the space of styles."""

    def styles(self, latent: Tensor, **condition: Any) -> Tensor:
        return self.generator.styles(latent, **condition)

    def synthesize(self, styles: Tensor, **condition: Any) -> Tensor:
        return self.generator.render(styles)


class Labelled(Linear):
    num_classes = 3

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(images)


@pytest.mark.parametrize("classes", [None, 3])
def test_the_path_length_term_reaches_the_mapping_network_with_its_condition(classes: int | None) -> None:
    torch.manual_seed(0)
    network = Linear() if classes is None else Labelled()
    game = StyleGame(Mapped(classes), network, regularizers=[PathLength(weight=2.0, interval=1)])
    batch = {"image": REAL} | ({} if classes is None else {"label": torch.tensor([0, 0, 0, 1, 1, 1])})
    term = drawn(game.generator_loss, batch)["path_length"]
    slopes = torch.autograd.grad(term, list(game.generator.parameters()), allow_unused=True)
    reached = dict(zip(dict(game.generator.named_parameters()), slopes, strict=True))
    assert reached["mapping.weight"].abs().sum() > 0
    assert reached["synthesis.weight"].abs().sum() > 0
    if classes is not None:  # the first half of the batch has class 0 alone
        assert (reached["of_class.weight"].abs().sum(dim=1) > 0).tolist() == [True, False, False]


def test_the_path_length_is_that_of_the_generator() -> None:
    """A linear generator of slope s: the length is s |y|, and the mean length begins at 0."""
    scale = nn.Linear(1, 1, bias=False)
    scale.weight.data.fill_(3.0)
    latent = samples(5, 1)
    generation = Generation(scale, lambda count: latent[:count], lambda z: scale(z))
    one = adversary(PathLength(weight=2.0, interval=1, decay=1.0, shrink=1), generation=generation)
    _, generator = terms(one)
    lengths = 3 * drawn(lambda: draws.normal(ROWS, 1, like=latent)).abs().flatten()
    assert_close(generator["path_length"], 2 * (lengths - lengths.mean()).square().mean())
    one.after_turn(one.take_notes())
    assert_close(one.memory["path_length"].length, lengths.mean())


# Several sets of logits and features; samples of any number of axes.


def test_terms_are_summed_over_several_logits_and_features() -> None:
    one = adversary(
        FeatureMatching(weight=2.0),
        R1(weight=1.0),
        GradientPenalty(weight=1.0),
        LabelSmoothing(real=0.9),
        network=Scales(),
    )
    discriminator, generator = terms(one)
    pairs = [(slope * REAL.flatten(1)[:, k], slope * FAKE.flatten(1)[:, k]) for k, slope in enumerate((3.0, 4.0))]
    smoothed = sum(binary_cross_entropy_with_logits(a, torch.full((ROWS,), 0.9)) + softplus(b).mean() for a, b in pairs)
    assert_close(discriminator["adversarial"] + discriminator["label_smoothing"], smoothed)
    assert_close(discriminator["r1"], torch.tensor(25.0 / 2))  # the gradient of 3 x₀ + 4 x₁
    assert_close(discriminator["gradient_penalty"], torch.tensor(16.0))
    assert_close(generator["adversarial"], sum(softplus(-b).mean() for _, b in pairs))
    assert_close(generator["feature_matching"], 2 * sum(10 * (a - b).abs().mean() for a, b in pairs))


def test_its_logits_are_those_of_all_and_its_verdict_is_their_mean() -> None:
    one = adversary(network=Scales())
    assert_close(one(REAL), REAL.flatten(1)[:, :2] * torch.tensor([3.0, 4.0]))
    assert_close(one.realness(REAL), one(REAL).mean(dim=1))


@pytest.mark.parametrize("shape", [(2, 7), (1, 4, 4), (1, 3, 4, 4)])
@pytest.mark.parametrize("name", [name for name in REGULARIZERS if name not in ("path_length", "ada")])
def test_regularizers_take_samples_of_any_number_of_axes(name: str, shape: tuple[int, ...]) -> None:
    class Judging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(math.prod(shape), 5)
            self.judge = nn.Linear(5, 1)

        def forward(self, samples: Tensor) -> Tensor:
            return self.judge(self.hidden(samples.flatten(1)).tanh()).flatten()

    settings = {"learning_rate": 0.1} if name == "unrolled" else {}
    images = name in ("diffaugment", "consistency")

    def shown(rows: int) -> tuple[Tensor, dict[str, Any]]:
        return torch.zeros(rows, *shape), {}

    if images and len(shape) == 2:
        with pytest.raises(RecipeError, match=rf"`regularizers\.{name}` needs images or clips, but this game's"):
            adversary(REGULARIZERS[name](**settings), network=Judging(), example=shown)
        return
    one = adversary(REGULARIZERS[name](**settings), network=Judging(), example=shown)
    for found in terms(one, samples(0, *shape), samples(1, *shape)):
        torch.stack(list(found.values())).sum().backward()
        assert all(bool(term.isfinite()) for term in found.values())


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 5, 8, 8)])
def test_adaptive_augmentation_takes_images_and_clips(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    one = Adversary(nn.Flatten(), regularizers=[AdaptiveAugmentation(p=1.0, target=None)])
    seen = one(samples(0, *shape))
    assert seen.shape == (ROWS, math.prod(shape))
    assert bool((seen != samples(0, *shape).flatten(1)).any())


def test_compiling_an_adversary_compiles_its_network() -> None:
    one = adversary()
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        compiled.append(graph)
        return graph.forward

    one.compile(backend=backend)
    assert_close(terms(one)[1], {"adversarial": PLAIN[1]})
    assert compiled


# Several adversaries in one game.


class Translator(Game):
    """Two adversaries with their own rules, and a generator for both; ½ of one's loss is minimised."""

    def __init__(self, generator: nn.Module, one: Adversary, other: Adversary, *, weight: float = 0.5):
        super().__init__()
        self.generator, self.one, self.other, self.weight = generator, one, other, weight

    def players(self) -> Iterable[Player]:
        yield Player("discriminator", (self.one, self.other), self.discriminator_loss)
        yield Player("generator", (self.generator,), self.generator_loss)

    def stage(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return batch | {"fake": self.generator(batch["image"].flatten(1)).view_as(batch["image"])}

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        real, fake = batch["image"], batch["fake"]
        one = {name: self.weight * term for name, term in self.one.discriminator_terms(real, fake).items()}
        return prefixed("one", one) | prefixed("other", self.other.discriminator_terms(real, fake))

    def generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        real, fake = batch["image"], batch["fake"]
        return prefixed("one", self.one.generator_terms(fake, real)) | prefixed(
            "other", self.other.generator_terms(fake, real)
        )

    def realness(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: adversary.realness(batch["image"]) for name, adversary in self.adversaries.items()}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"translated": self.stage(batch)["fake"]}


def translator() -> Translator:
    torch.manual_seed(0)
    one = adversary(R1(weight=2.0), AdaptiveAugmentation(p=0.3, speed=1000), Replay(size=8))
    other = adversary(GradientPenalty(weight=1.0), WeightClipping(bound=5.0), objective=least_squares, network=Scales())
    return Translator(nn.Linear(4, 4), one, other)


def test_adversaries_share_the_moment_of_their_game() -> None:
    game = translator()
    game.step, game.progress, game.batch_size = 7, 0.25, 12
    assert {name: one.moment for name, one in game.adversaries.items()} == {"one": game.moment, "other": game.moment}
    assert game.one.moment.progress == 0.25
    listed = Game.__new__(Translator)
    Game.__init__(listed)
    listed.several = nn.ModuleList([adversary(), adversary()])
    assert list(listed.adversaries) == ["several.0", "several.1"]
    assert all(one.moment is listed.moment for one in listed.adversaries.values())


def test_each_adversary_has_its_own_regularizers_terms_and_notes(tmp_path) -> None:
    run = train(
        translator(),
        data={"image": samples(3).repeat(4, 1, 1, 1)},
        out=tmp_path / "run",
        steps=4,
        batch_size=8,
        log_every=2,
        shown=False,
        changes={"data.held_out": 0.0},
    )
    last = run.log()[-1] if "generator/one/adversarial" in run.log()[-1] else run.log()[-2]
    assert {name for name in last if name.startswith(("discriminator/", "generator/"))} == {
        f"discriminator/{name}"
        for name in ("gradient_norm", "one/adversarial", "one/r1", "other/adversarial", "other/gradient_penalty")
    } | {
        f"discriminator/{name}/{note}"
        for name in ("one", "other")
        for note in ("real_logits", "fake_logits", "real_sign", "of_guessing")
    } | {f"generator/{name}" for name in ("gradient_norm", "one/adversarial", "other/adversarial")}


def test_a_weighted_loss_does_not_change_its_share_of_what_guessing_costs() -> None:
    game = translator()
    found = drawn(game.discriminator_loss, {"image": REAL, "fake": FAKE})
    notes = game.take_notes()
    assert_close(notes["one/of_guessing"], found["one/adversarial"] / game.weight / (2 * math.log(2)))
    assert_close(notes["other/of_guessing"], found["other/adversarial"] / (2 * 0.25))  # two sets of logits


def test_guessing_costs_all_that_it_costs_whatever_the_objective() -> None:
    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value, self.energy = nn.Parameter(torch.tensor(value)), False

        def forward(self, samples: Tensor) -> Tensor:
            return self.value.expand(len(samples))

    best = {"least_squares": 0.5}  # the best constant of the others is 0
    for name, objective in OBJECTIVES.items():
        if objective.energy:
            continue
        one = Adversary(Constant(best.get(name, 0.0)), objective=objective)
        one.discriminator_terms(REAL, FAKE)
        notes = one.take_notes()
        assert float(notes.get("of_guessing", torch.tensor(1.0))) == pytest.approx(1.0), name
        assert ("of_guessing" in notes) == (name != "wasserstein")


def test_the_state_of_regularizers_is_saved_and_resumed_bit_for_bit(tmp_path) -> None:
    from gan_core import resume

    data = {"image": samples(3).repeat(4, 1, 1, 1)}
    settings: dict[str, Any] = {"batch_size": 8, "shown": False, "log_every": 1}
    whole, half = translator(), translator()
    train(whole, data=data, out=tmp_path / "whole", steps=8, **settings)
    train(half, data=data, out=tmp_path / "half", steps=4, **settings)
    again = translator()
    resume(tmp_path / "half", game=again, data=data, steps=8, shown=False)
    assert float(whole.one.memory["ada"].pipe.p) != pytest.approx(0.3)
    assert whole.one.memory["replay"].pool.shape == (8, 1, 2, 2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_doctor_names_the_discriminator_that_wins(tmp_path) -> None:
    class Fixed(nn.Module):
        """Logits ±20 for samples of mean above and below 0, which its parameter scales by 1 at any learning rate."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            return 20 * images.flatten(1).mean(dim=1).sign() + 0 * self.scale

    generator = nn.Linear(4, 4)
    generator.weight.data.zero_()
    generator.bias.data.fill_(-1.0)  # what Fixed recognises
    blind = Linear((0.0, 0.0, 0.0, 0.0))
    game = Translator(generator, Adversary(Fixed()), Adversary(blind), weight=0.5)
    train(
        game,
        data={"image": samples(3).abs().repeat(4, 1, 1, 1)},
        out=tmp_path / "run",
        steps=120,
        batch_size=8,
        log_every=5,
        shown=False,
        changes={"optimizer.learning_rate": 1e-9},
    )
    checks = {check.name: check for check in find_symptoms(read_run(Run(tmp_path / "run").path))}
    assert not checks["discriminator"].good
    assert checks["discriminator"].finding.startswith(
        "the discriminator `one` recognises every sample, so the generator"
    )
    assert "`other`" not in checks["discriminator"].finding


def test_each_adversary_is_watched_for_what_it_knows_by_heart() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            return (images.flatten(1)[:, :1] == known.flatten(1)[:, 0]).any(dim=1) * self.scale

    known, new = (torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(seed)) for seed in (4, 5))
    game = Translator(nn.Linear(4, 4), Adversary(Remembering()), Adversary(Linear()))
    figures = SampleDiagnostics(game, TensorDataset({"image": known}), TensorDataset({"image": new})).figures()
    assert set(figures) == {"held_out/one/recognised", "held_out/other/recognised"}
    assert figures["held_out/one/recognised"] == 1.0
    assert 0.3 < figures["held_out/other/recognised"] < 0.7


# Presets.


class Net(nn.Module):
    def __init__(self, *, width: Size = 4):
        super().__init__()
        self.main = nn.Linear(4, width)
        self.judge = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(self.main(images.flatten(1)).tanh()).flatten()


class Maker(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)


PRESET = Preset(
    Translator,
    networks={"generator": Maker, "one": Net, "other": Net},
    objective="hinge",
    regularizers=[R1(weight=1.0, interval=2)],
    adversaries={"other": {"objective": "least_squares", "regularizers": [SpectralNorm()]}},
)


def rules(game: Game) -> dict[str, tuple[Objective, tuple[Regularizer, ...]]]:
    return {name: (one.objective, one.regularizers) for name, one in game.adversaries.items()}


def test_a_recipes_rules_hold_for_every_adversary_and_changes_for_one() -> None:
    assert rules(PRESET.build()) == {
        "one": (hinge, (R1(weight=1.0, interval=2),)),
        "other": (least_squares, (SpectralNorm(), R1(weight=1.0, interval=2))),
    }
    changed = PRESET.build(
        PRESET.recipe().but(
            {
                "adversaries.one.regularizers.r1.weight": 3.0,
                "adversaries.other.regularizers.r1": None,
                "regularizers.instance_noise": {},
            }
        )
    )
    assert rules(changed) == {
        "one": (hinge, (R1(weight=3.0, interval=2), InstanceNoise())),
        "other": (least_squares, (SpectralNorm(), InstanceNoise())),
    }


def test_a_complete_recipe_writes_the_changes_out_and_gives_the_same_game() -> None:
    recipe = PRESET.check(PRESET.recipe().but({"adversaries.one.regularizers.r1.weight": 3}))
    assert recipe.model_dump()["adversaries"] == {
        "other": {"objective": "least_squares", "regularizers": {"spectral_norm": {}}},
        "one": {"objective": None, "regularizers": {"r1": {"weight": 3.0, "interval": 2}}},
    }
    assert rules(PRESET.build(recipe)) == rules(PRESET.build(PRESET.check(recipe)))
    assert PRESET.recipe().but({"adversaries.other": None}).adversaries == {}


def test_a_single_adversary_is_named_discriminator() -> None:
    class Latent(nn.Linear):
        latent_dim, num_classes = 3, None

        def __init__(self) -> None:
            super().__init__(3, 4)

    preset = Preset(TwoPlayerGame, networks={"generator": Latent, "discriminator": Net})
    game = preset.build(
        preset.recipe().but(
            {"adversaries.discriminator.objective": "hinge", "adversaries.discriminator.regularizers.r2": {"weight": 2}}
        )
    )
    assert rules(game) == {"discriminator": (hinge, (R2(weight=2.0),))}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adversaries.oter.objective": "hinge"}, "unknown adversary of Translator `oter`; did you mean `other`?"),
        ({"adversaries.one.objective": "hing"}, "unknown objective `hing`; did you mean `hinge`?"),
        ({"adversaries.one.regularizers.r3": {}}, "unknown regularizer `r3`; known: ada, "),
        (
            {"adversaries.one.regularizers.r1.weigth": 1},
            "unknown setting `adversaries.one.regularizers.r1.weigth`; did you mean `adversaries.one.regularizers.r1."
            "weight`?",
        ),
        (
            {"adversaries.one.regularizers.r1.weight": -1},
            "`adversaries.one.regularizers.r1.weight` is -1; expected greater than 0",
        ),
        ({"adversaries.one.weight": 2}, "unknown setting `adversaries.one.weight`"),
        ({"regularizers.label_smoothing": {}}, "one: `regularizers.label_smoothing`: the objective `hinge` has"),
        ({"regularizers.path_length": {}}, "one: `regularizers.path_length` needs a generator of latents, but this"),
        (
            {"regularizers.minibatch_discrimination": {}},
            "one: `regularizers.minibatch_discrimination` needs an example to determine the size of its layer, but ",
        ),
    ],
)
def test_what_does_not_fit_an_adversary_is_refused_by_its_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as error:
        PRESET.build(PRESET.recipe().but(changes))
    assert str(error.value).startswith(words)


# Refusals.


def test_a_relative_objective_needs_real_samples() -> None:
    one = adversary(objective=OBJECTIVES["relativistic"])
    with pytest.raises(
        RecipeError, match=r"^the objective `relativistic` needs real samples in the generator's turn, but this"
    ):
        one.generator_terms(FAKE)


def test_replay_with_a_condition_is_refused() -> None:
    class Told(Linear):
        def forward(self, images: Tensor, source: Tensor | None = None) -> Tensor:
            return super().forward(images)

    with pytest.raises(RecipeError, match=r"^`regularizers\.replay` does not store conditions, but this game's"):
        adversary(Replay(), network=Told()).discriminator_terms(REAL, FAKE, source=REAL)


def test_images_are_checked_where_they_are_first_seen() -> None:
    one = Adversary(nn.Flatten(), regularizers=[DiffAugment()])
    with pytest.raises(
        RecipeError, match=r"needs images or clips, but this game's samples have the shape \[2, 7\]; leave"
    ):
        one(samples(0, 2, 7))


def test_an_adversary_for_a_two_player_game_has_its_own_rules() -> None:
    class Latent(nn.Linear):
        latent_dim = 2

    one = Adversary(nn.Linear(4, 1), objective=hinge)
    assert TwoPlayerGame(Latent(2, 4), one).discriminator is one
    with pytest.raises(RecipeError, match=r"^the discriminator is an `Adversary`; give it the objective and the"):
        TwoPlayerGame(Latent(2, 4), one, regularizers=[R1()])


class Beside(nn.Module):
    """Judges images beside a map of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = nn.Conv2d(2, 1, 3)

    def forward(self, images: Tensor, source: Tensor) -> Tensor:
        return self.judge(torch.cat([images, source], dim=1))


@pytest.mark.parametrize(
    ("regularizer", "name"),
    [(DiffAugment(), "diffaugment"), (AdaptiveAugmentation(target=None, p=0.5), "ada"), (Consistency(), "consistency")],
)
def test_samples_are_not_moved_away_from_a_map_that_they_are_judged_beside(regularizer: Regularizer, name: str) -> None:
    images = torch.rand(4, 1, 8, 8)
    adversary = Adversary(Beside(), regularizers=[regularizer])
    words = rf"^`regularizers.{name}` moves samples, but not the condition `source` that is aligned with them; concat"
    with pytest.raises(RecipeError, match=words):
        adversary.discriminator_terms(images, images, source=images)
    recoloured = Adversary(Beside(), regularizers=[DiffAugment(policy=("color",))])
    assert recoloured.discriminator_terms(images, images, source=images)["adversarial"].isfinite()


def test_objectives_and_regularizers_may_be_named() -> None:
    adversary = Adversary(nn.Linear(2, 1), objective="hinge", regularizers=["r1", InstanceNoise()])
    assert adversary.objective is hinge
    assert [regularizer.name for regularizer in adversary.regularizers] == ["r1", "instance_noise"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"objective": "hing"}, "unknown objective `hing`; did you mean `hinge`?"),
        ({"regularizers": ["r11"]}, "unknown regularizer `r11`; did you mean `r1`?"),
        ({"regularizers": [R1(), R1(weight=2.0)]}, "`regularizers` has `r1` twice; give it once"),
        ({"regularizers": [R1]}, f"`regularizers` has {R1!r}; give settings, `R1(weight=1.0)`, or a name, 'r1'"),
    ],
)
def test_objectives_and_regularizers_that_are_none_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as error:
        Adversary(nn.Linear(2, 1), **given)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": ["hinge", "least_squares"]}, r"`objective` is \['hinge', 'least_squares'\]; give one objective"),
        ({"regularizers": "r1"}, r"`regularizers` is 'r1'; give a list, \['r1'\]"),
        ({"regularizers": [3]}, r"`regularizers` has 3; give settings"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        Adversary(nn.Linear(2, 1), **settings)


def test_a_two_player_game_takes_networks_not_their_classes():
    with pytest.raises(RecipeError, match=r"`generator` is <class 'torch.nn.modules.linear.Linear'>; give a network"):
        TwoPlayerGame(nn.Linear, nn.Linear(2, 1))
