"""Regularizers in a game: their terms, augmentations, state and refusals."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing import assert_close

from gan_core import draws, train
from gan_core.errors import RecipeError
from gan_core.nn.augment import reflected
from gan_core.nn.blocks import MinibatchDeviation, equalized, group_size, pack, unpack
from gan_core.nn.spectral import is_spectral, spectrally_normalised
from gan_core.play.objectives import OBJECTIVES, Objective, minimax, non_saturating
from gan_core.play.regularizers import (
    REGULARIZERS,
    AdaptiveAugmentation,
    Consistency,
    DiffAugment,
    FeatureMatching,
    GradientPenalty,
    InstanceNoise,
    LabelSmoothing,
    MinibatchDiscrimination,
    MinibatchStddev,
    Orthogonal,
    PathLength,
    PullAway,
    Regularized,
    Regularizer,
    Replay,
    SpectralNorm,
    Turn,
    Unrolled,
    WeightClipping,
    path_lengths,
)
from gan_core.play.regularizers.features import Similarity
from gan_core.play.regularizers.views import flip_and_shift
from gan_core.play.two_player import TwoPlayerGame

CPU = torch.device("cpu")


class Generator(nn.Module):
    latent_dim = 4

    def __init__(self, classes: int | None = None):
        super().__init__()
        self.num_classes = classes
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2 * 6 * 6), nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.body(z).unflatten(1, (2, 6, 6))


class Discriminator(nn.Module):
    def __init__(self, classes: int | None = None, pack: int = 1):
        super().__init__()
        self.num_classes, self.pack = classes, pack
        self.features = nn.Sequential(nn.Conv2d(2 * pack, 5, 3), nn.Tanh())
        self.judge = nn.Conv2d(5, 1, 4)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return self.judge(self.features(images)).flatten()


def game(
    *regularizers: Regularizer, objective: Objective = non_saturating, classes: int | None = None, pack: int = 1
) -> TwoPlayerGame:
    torch.manual_seed(0)
    networks = Generator(classes), Discriminator(classes, pack)
    return TwoPlayerGame(*networks, objective=objective, regularizers=regularizers)


def batch(rows: int = 8, classes: int | None = None) -> dict[str, Tensor]:
    images = torch.rand(rows, 2, 6, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"image": images} if classes is None else {"image": images, "label": torch.arange(rows) % classes}


def losses(played: TwoPlayerGame, rows: int = 8) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    with draws.drawing(3, CPU, rows=rows, total=rows):
        discriminator = played.discriminator_loss(batch(rows))
    with draws.drawing(3, CPU, rows=rows, total=rows):
        return discriminator, played.generator_loss(batch(rows))


def discriminator_turn(played: TwoPlayerGame, seed: int = 3) -> Turn:
    """The turn in which the discriminator's terms are computed."""
    turns: list[Turn] = []

    class Recorder(Regularizer):
        name = "recorder"

        def discriminator_terms(self, turn: Turn) -> dict[str, Tensor]:
            turns.append(turn)
            return {}

    adversary = played.discriminator
    known, adversary.regularizers = adversary.regularizers, (*adversary.regularizers, Recorder())
    with draws.drawing(seed, CPU, rows=8, total=8):
        played.discriminator_loss(batch())
    adversary.regularizers = known
    return turns[0]


# Terms.


def test_a_smoothed_label_is_the_cross_entropy_with_it() -> None:
    terms, _ = losses(game(LabelSmoothing(real=0.9)))
    turn = discriminator_turn(game())
    bce = nn.functional.binary_cross_entropy_with_logits
    wanted = bce(turn.real_logits, torch.full((8,), 0.9)) + bce(turn.fake_logits, torch.zeros(8))
    assert_close(sum(terms.values()), wanted)


def test_penalties_of_both_players_are_weighted_terms_of_their_own() -> None:
    played = game(GradientPenalty(weight=2.0), Orthogonal(weight=0.5), FeatureMatching(weight=3.0), PullAway())
    discriminator, generator = losses(played)
    assert set(discriminator) == {"adversarial", "gradient_penalty", "orthogonal"}
    assert set(generator) == {"adversarial", "orthogonal", "feature_matching", "pull_away"}
    half = losses(game(FeatureMatching(weight=1.5)))[1]["feature_matching"]
    assert_close(generator["feature_matching"], 2 * half)


def test_the_matched_features_are_the_input_of_the_last_layer() -> None:
    played = game(FeatureMatching())
    with draws.drawing(3, CPU, rows=8, total=8):
        fake = played.sample(8)
    features = played.discriminator.network.features
    wanted = (features(batch()["image"]).mean(0) - features(fake).mean(0)).square().sum()
    with draws.drawing(3, CPU, rows=8, total=8):
        assert_close(played.generator_loss(batch())["feature_matching"], wanted)


def test_the_mean_path_length_is_followed_from_turn_to_turn(tmp_path) -> None:
    played = game(PathLength(interval=1, decay=0.5))
    train(played, data=batch(16), out=tmp_path / "run", steps=6, batch_size=8, shown=False)
    length = float(played.discriminator.memory["path_length"].length)
    _, terms = losses(played)
    assert length > 0.01
    assert terms["path_length"].item() < 2.0 * length**2  # the lengths lie around their mean, not around zero


def test_the_path_length_term_treats_the_running_mean_as_a_constant() -> None:
    played = game(PathLength(weight=3.0, interval=2, decay=0.5, shrink=2)).double()
    regularizer, generator = played.discriminator.regularizers[0], played.generator
    played.discriminator.memory["path_length"].length.fill_(0.2)

    def gradients(term: Callable[[], Tensor]) -> list[Tensor]:
        generator.zero_grad()
        with draws.drawing(3, CPU, rows=4, total=4):
            value = term()
        value.backward()
        return [value, *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in generator.parameters())]

    def by_hand() -> Tensor:
        lengths = path_lengths(generator, played.latent(4))
        mean = (0.2 + lengths.mean().item()) / 2
        return 3.0 * 2 * (lengths - mean).square().mean()

    turn = Turn(played.discriminator, played.fakes(8).detach(), None, {})
    assert_close(gradients(lambda: regularizer.generator_terms(turn)["path_length"]), gradients(by_hand))


# Views.


def test_noise_falls_linearly_to_zero() -> None:
    played = game(InstanceNoise(deviation=0.5, until=0.5))
    x = torch.zeros(4000, 2, 6, 6)
    assert_close(played.discriminator.augmented(x).std(), torch.tensor(0.5), rtol=0.02, atol=0)
    played.progress = 0.25
    assert_close(played.discriminator.augmented(x).std(), torch.tensor(0.25), rtol=0.02, atol=0)
    played.progress = 0.5
    assert torch.equal(played.discriminator.augmented(x), x)


def test_a_penalty_is_taken_through_the_view() -> None:
    class Doubled(InstanceNoise):
        def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
            return 2 * samples

    seen = []
    played = game(Doubled(), GradientPenalty())
    played.discriminator.network.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    losses(played)
    assert len(seen) == 4  # between, real, fake, and the generator's
    between, real, fake, _ = seen
    assert_close(real, 2 * batch()["image"])
    assert bool(((between - real) * (between - fake) <= 1e-6).all())


def test_the_loss_has_gradients_if_the_logits_were_first_computed_without() -> None:
    seen = []

    class Watch(InstanceNoise):
        def view(self, adversary: Regularized, samples: Tensor) -> Tensor:
            return samples

        def discriminator_terms(self, turn: Turn) -> dict[str, Tensor]:
            with torch.no_grad():
                seen.append(turn.real_logits.mean())
            return {}

    watched, plain = game(Watch()), game()
    for played in (watched, plain):
        played.load_state_dict(plain.state_dict(), strict=False)
        losses(played)[0]["adversarial"].backward()
    for one, other in zip(watched.discriminator.parameters(), plain.discriminator.parameters(), strict=True):
        assert other.grad is not None
        assert_close(one.grad, other.grad)


def test_images_are_mirrored_and_moved_over_a_reflected_border() -> None:
    assert reflected(torch.arange(-3, 7), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    images = torch.arange(16.0).view(1, 1, 4, 4).expand(256, 1, 4, 4)
    torch.manual_seed(0)
    still = flip_and_shift(images, 0)
    mirrored = (still == images.flip(3)).flatten(1).all(dim=1)
    assert ((still == images).flatten(1).all(dim=1) | mirrored).all()
    assert 96 < int(mirrored.sum()) < 160
    moved = flip_and_shift(images, 1)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 18  # 9 places, mirrored or not


def test_consistency_is_zero_for_a_discriminator_that_is_invariant() -> None:
    played = game(Consistency(fake_weight=5.0))
    assert losses(played)[0]["consistency"] > 0
    played.discriminator.network.features[0].weight.data.zero_()
    assert_close(losses(played)[0]["consistency"], torch.tensor(0.0))


class Confident(Discriminator):
    """A discriminator of images with one channel whose logits are all positive."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Tanh())
        self.judge.bias.data.fill_(100)


class GrayGenerator(Generator):
    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(z, label)[:, :1]


def adaptive_game(**settings: Any) -> TwoPlayerGame:
    torch.manual_seed(0)
    ada = AdaptiveAugmentation(groups=("color",), **settings)
    return TwoPlayerGame(GrayGenerator(), Confident(), regularizers=[ada])


def test_the_strength_of_ada_grows_in_a_training_and_is_restored(tmp_path) -> None:
    settings = {"speed": 1000, "interval": 2}
    played, data = adaptive_game(**settings), {"image": batch(16)["image"][:, :1]}
    train(played, data=data, out=tmp_path / "run", steps=5, batch_size=8, shown=False)
    # Two moves of 8 images times the interval of 2 turns, over 1,000 images; the fifth turn is pending.
    strength = float(played.discriminator.memory["ada"].pipe.p)
    assert strength == pytest.approx(2 * 8 * 2 / 1000)
    restored = adaptive_game(**settings).restore(tmp_path / "run").discriminator.memory["ada"]
    assert float(restored.pipe.p) == strength
    assert float(restored.strength.turns) == 1
    fixed = adaptive_game(**settings, target=None, p=0.25)
    train(fixed, data=data, out=tmp_path / "fixed", steps=5, batch_size=8, shown=False)
    assert float(fixed.discriminator.memory["ada"].pipe.p) == 0.25


def test_ada_augments_real_and_fake_samples_in_the_turns_of_both_players() -> None:
    played, judged = adaptive_game(p=1.0), []
    played.discriminator.network.register_forward_pre_hook(lambda module, inputs: judged.append(inputs[0]))
    real = batch()["image"][:, :1]
    with draws.drawing(3, CPU, rows=8, total=8):
        fake = played.fakes(8).detach()
    for loss in (played.discriminator_loss, played.generator_loss):
        with draws.drawing(3, CPU, rows=8, total=8):
            loss({"image": real})
    given = [real, fake, fake]
    assert len(judged) == 3
    for seen, samples in zip(judged, given, strict=True):
        assert seen.shape == samples.shape
        assert (seen != samples).flatten(1).any(dim=1).all()
        assert seen.abs().sum() > 0


# Packing and batches.


def test_packed_samples_are_concatenated_along_channels_and_unpacked() -> None:
    images = batch()["image"]
    packed = pack(images, 4)
    assert packed.shape == (2, 8, 6, 6)
    assert torch.equal(packed[1, 2:4], images[5])
    assert torch.equal(unpack(packed, 4), images)


def test_a_packed_sample_is_judged_mixed_and_noised_as_one() -> None:
    played = game(GradientPenalty(), InstanceNoise(), pack=2)
    turn = discriminator_turn(played)
    assert turn.real_logits.shape == (4,)
    assert turn.fake.shape == (4, 4, 6, 6)
    assert set(losses(played)[0]) == {"adversarial", "gradient_penalty"}
    with pytest.raises(RecipeError, match=r"^a batch of 7 cannot be packed by 2; use a multiple of 2$"):
        losses(played, 7)


def test_the_deviation_within_a_group_is_appended() -> None:
    features = torch.tensor([[0.0, 1.0], [5.0, 5.0], [2.0, 1.0], [5.0, 5.0]])  # groups of 2: rows 0 and 2, 1 and 3
    appended = MinibatchDeviation(2)(features)
    assert_close(appended[:, :2], features)
    assert_close(appended[:, 2], torch.tensor([0.5, 0.0, 0.5, 0.0]), atol=2e-4, rtol=0)
    assert MinibatchDeviation(4)(torch.randn(6, 2, 3, 3)).shape == (6, 3, 3, 3)


@pytest.mark.parametrize(("rows", "size"), [(8, 4), (6, 3), (25, 5), (7, 7), (1, 1)])
def test_samples_are_compared_in_groups_of_two_or_more(rows: int, size: int) -> None:
    assert group_size(rows, 4) == size
    if size > 1:
        assert MinibatchDeviation(4)(torch.randn(rows, 3))[:, 3].min() > 0.01


def test_equal_features_have_a_gradient_in_half_precision() -> None:
    features = torch.full((4, 3), 0.5, dtype=torch.float16, requires_grad=True)
    appended = MinibatchDeviation(4)(features)
    assert appended.dtype is torch.float16
    appended.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_similarity_is_a_sum_over_the_other_samples() -> None:
    similarity = Similarity(2, 1)
    similarity.project = nn.Linear(1, 2, bias=False)
    similarity.project.weight.data = torch.tensor([[1.0], [2.0]])
    appended = similarity(torch.tensor([[0.0], [1.0], [1.0]]))[:, 1:]
    one, two = torch.exp(torch.tensor(-1.0)), torch.exp(torch.tensor(-2.0))
    assert_close(appended[0], torch.stack([2 * one, 2 * two]))
    assert_close(appended[1], torch.stack([one + 1, two + 1]))


@pytest.mark.parametrize("kind", [MinibatchStddev, MinibatchDiscrimination])
def test_batch_statistics_change_no_logits_initially_and_are_learnt_from(kind: type[Regularizer]) -> None:
    plain, wider = game(), game(kind())
    images = batch()["image"]
    assert_close(wider.discriminator(images), plain.discriminator(images))
    (sum(losses(wider)[0].values())).backward()
    last = wider.discriminator.network.judge.judge
    assert last.weight.grad[:, 5:].abs().sum() > 0


# Weights.


def test_every_layer_has_spectral_norm_one() -> None:
    played = game(SpectralNorm())
    for _ in range(50):
        played.discriminator(batch()["image"])
    for layer in (played.discriminator.network.features[0], played.discriminator.network.judge):
        assert_close(torch.linalg.matrix_norm(layer.weight.flatten(1), 2), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_a_new_layer_has_spectral_norm_one_at_once() -> None:
    played = game(SpectralNorm())
    played.discriminator(batch()["image"])
    for layer in (played.discriminator.network.features[0], played.discriminator.network.judge):
        assert_close(torch.linalg.matrix_norm(layer.weight.flatten(1), 2), torch.tensor(1.0), rtol=0.05, atol=0)


class Shared(Discriminator):
    """A discriminator with a part that the generator's player trains, as InfoGAN's Q."""

    separate = ("judge",)


@pytest.mark.parametrize("kind", [WeightClipping, SpectralNorm])
def test_weights_of_the_generators_player_are_not_constrained(kind: type[Regularizer]) -> None:
    torch.manual_seed(0)
    played = TwoPlayerGame(Generator(), Shared(), regularizers=[kind()])
    before = played.discriminator.network.judge.weight.clone()
    played.after_turn("discriminator", {})
    assert torch.equal(played.discriminator.network.judge.weight, before)
    changed = played.discriminator.network.features[0]
    assert is_spectral(changed) or changed.weight.abs().max() <= 0.01


def test_clipped_weights_stay_within_their_bound(tmp_path) -> None:
    played = game(WeightClipping(bound=0.02))
    train(played, data=batch(16), out=tmp_path / "run", steps=3, batch_size=8, shown=False)
    largest = [p.detach().abs().max().item() for p in played.discriminator.parameters()]
    assert max(largest) == pytest.approx(0.02)
    assert max(p.detach().abs().max().item() for p in played.generator.parameters()) > 0.02


# Losses and samples.


def test_replay_returns_earlier_fakes_and_is_restored(tmp_path) -> None:
    played = game(Replay(size=8))
    first, second = (discriminator_turn(played, seed).fake for seed in (0, 1))
    returned = [any(torch.equal(row, old) for old in first) for row in second]
    assert 0 < sum(returned) < 8
    train(played, data=batch(16), out=tmp_path / "run", steps=2, batch_size=8, shown=False)
    again = game(Replay(size=8)).restore(tmp_path / "run")
    assert torch.equal(again.discriminator.memory["replay"].pool, played.discriminator.memory["replay"].pool)


def bilinear(steps: int, *, first_order: bool = False) -> tuple[Tensor, Tensor]:
    """The generator's gradient in Wasserstein's game of D(x) = w x and G = θ, unrolled, and w."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.w * x[:, 0]

    class Shift(nn.Module):
        latent_dim = 1

        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, z: Tensor) -> Tensor:
            return self.theta + 0 * z

    unrolled = Unrolled(steps=steps, learning_rate=0.1, first_order=first_order)
    played = TwoPlayerGame(Shift(), Slope(), objective=OBJECTIVES["wasserstein"], regularizers=[unrolled])
    real = torch.full((4, 1), 1.0, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(played.generator_loss({"x": real})["adversarial"], played.generator.theta)
    return gradient, played.discriminator.network.w


def test_unrolling_is_exact_in_the_bilinear_game() -> None:
    # D ascends w (1 - θ): after k steps w_k = w + k η (1 - θ), and G minimises w_k (1 - θ).
    for steps in (1, 3, 10):
        gradient, w = bilinear(steps)
        assert_close(gradient, -w - 2 * steps * 0.1 * (1 - 0.3))
        lookahead, w = bilinear(steps, first_order=True)
        assert_close(lookahead, -w - steps * 0.1 * (1 - 0.3))


def test_unrolling_through_adam_is_what_adam_does_and_its_derivative() -> None:
    torch.manual_seed(0)

    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.idle = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)), nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.main(x) + 0 * self.idle(x)).squeeze(1)  # the second never has a gradient

    generator, discriminator = Flat().double(), Judge().double()
    adam = torch.optim.Adam(discriminator.parameters(), lr=0.05, betas=(0.5, 0.9))
    real = torch.randn(8, 2, dtype=torch.float64) + 1
    played = TwoPlayerGame(generator, discriminator, objective=minimax, regularizers=[Unrolled(steps=4)])
    played.optimizers = {"discriminator": adam}

    def drawn(loss: Callable[[dict[str, Tensor]], Any]) -> Any:
        with draws.drawing(3, CPU, rows=8, total=8):
            return loss({"x": real})

    def played_on() -> Tensor:
        """Computes the same with torch's Adam on a copy."""
        copy = deepcopy(discriminator)
        own = torch.optim.Adam(copy.parameters(), lr=0.05, betas=(0.5, 0.9))
        own.load_state_dict(deepcopy(adam.state_dict()))
        fake = drawn(lambda batch: played.fakes(8)).detach()
        for _ in range(4):
            own.zero_grad()
            minimax.discriminator(copy(real), copy(fake)).backward()
            own.step()
        return -minimax.discriminator(copy(real), copy(fake)).detach()

    for _ in range(3):
        adam.zero_grad()
        drawn(played.discriminator_loss)["adversarial"].backward()
        adam.step()
        loss = drawn(played.generator_loss)["adversarial"]
        assert_close(loss.detach(), played_on(), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(loss, generator.weight)
    numeric, weight, small = torch.zeros_like(gradient).flatten(), generator.weight.data.flatten(), 1e-5
    for i in range(len(numeric)):
        for sign in (1, -1):
            weight[i] += sign * small
            numeric[i] += sign * played_on() / (2 * small)
            weight[i] -= sign * small
    assert_close(gradient.flatten(), numeric, rtol=1e-5, atol=1e-7)


def test_unrolling_through_adam_needs_adam(tmp_path) -> None:
    with pytest.raises(RecipeError) as error:
        train(
            game(Unrolled()),
            data=batch(16),
            out=tmp_path / "run",
            steps=1,
            batch_size=8,
            shown=False,
            changes={"optimizer.name": "rmsprop"},
        )
    words = "uses the discriminator's Adam optimizer, but it has RMSprop; set `regularizers.unrolled.learning_rate`"
    assert words in str(error.value)


class WithBuffers(Discriminator):
    """A discriminator with running statistics and singular vectors, which a forward pass in training mode updates."""

    def __init__(self) -> None:
        super().__init__()
        self.features.append(nn.BatchNorm2d(5))
        spectrally_normalised(self.features[0])


@pytest.mark.parametrize("discriminator", [Discriminator, WithBuffers])
def test_unrolling_does_not_change_the_discriminator(discriminator: type[nn.Module]) -> None:
    torch.manual_seed(0)
    unrolled = Unrolled(steps=3, learning_rate=0.1)
    played = TwoPlayerGame(Generator(), discriminator(), objective=minimax, regularizers=[unrolled])
    before = {name: value.clone() for name, value in played.discriminator.state_dict().items()}
    with draws.drawing(3, CPU, rows=8, total=8):
        played.generator_loss(batch())["adversarial"].backward()
    assert all(torch.equal(before[name], value) for name, value in played.discriminator.state_dict().items())
    assert all(parameter.grad is None for parameter in played.discriminator.parameters())


class WithRotations(Discriminator):
    """A discriminator with a part that its logits do not depend on, as in SSGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.rotation = nn.Linear(5, 4)


def test_unrolling_does_not_update_parts_without_gradients() -> None:
    torch.manual_seed(0)
    played, plain = TwoPlayerGame(Generator(), WithRotations(), regularizers=[Unrolled(learning_rate=0.1)]), Unrolled()
    other = TwoPlayerGame(played.generator, Discriminator(), regularizers=[Unrolled(learning_rate=0.1)])
    other.discriminator.network.load_state_dict(
        {name: value for name, value in played.discriminator.network.state_dict().items() if "rotation" not in name}
    )
    assert plain.steps > 1
    assert_close(losses(played)[1]["adversarial"], losses(other)[1]["adversarial"])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler looks
@pytest.mark.parametrize("regularizer", [Unrolled(steps=2, learning_rate=0.1), GradientPenalty()])
def test_second_derivatives_pass_compiled_parts(regularizer: Regularizer) -> None:
    played, eager = game(regularizer), game(regularizer)
    for part in (
        played.discriminator.network,
        played.discriminator.network.features,
        played.discriminator.network.judge,
    ):
        part.compile(backend="aot_eager")
    for terms, expected in zip(losses(played), losses(eager), strict=True):
        torch.stack(list(terms.values())).sum().backward()
        assert_close(terms, expected)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in played.generator.parameters())


# What goes together and what does not.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: game(LabelSmoothing(), objective=OBJECTIVES["hinge"]), "the objective `hinge` has no probabilities"),
        (lambda: game(WeightClipping(), SpectralNorm()), "bound the same weights; use one"),
        (lambda: game(Replay(), classes=3), "does not store classes"),
        (lambda: game(Replay(), objective=OBJECTIVES["relativistic"]), "compares samples of one batch"),
        (lambda: game(classes=3, pack=2), "packed samples do not share a class"),
        (lambda: game(objective=OBJECTIVES["energy"]), "does not support a discriminator that returns logits"),
        (lambda: TwoPlayerGame(Flat(), Deep(), regularizers=[MinibatchStddev()]), "not Sequential; leave it out"),
        (lambda: TwoPlayerGame(Flat(), nn.Linear(2, 1), regularizers=[PullAway()]), "has no such layer; leave it out"),
        (lambda: TwoPlayerGame(Flat(), nn.Linear(2, 1), regularizers=[Consistency()]), "needs images or clips"),
        (lambda: spectrograms(Consistency()), "axes of this game's samples are not height and width"),
        (lambda: spectrograms(DiffAugment()), "`regularizers.diffaugment` needs images, but the axes"),
        (lambda: spectrograms(AdaptiveAugmentation()), "`regularizers.ada` needs images, but the axes"),
        (
            lambda: parametrized(equalized, MinibatchStddev()),
            "the last layer, which is parametrized here; leave it out",
        ),
        (lambda: parametrized(spectral_norm, MinibatchStddev()), "which is spectrally normalised here; leave it out"),
        (
            lambda: parametrized(equalized, SpectralNorm()),
            "this discriminator's weights are parametrized; leave it out",
        ),
        (lambda: parametrized(spectral_norm, WeightClipping()), "bound the same weights; use one"),
        (lambda: parametrized(equalized, WeightClipping()), "this discriminator's weights are parametrized"),
        (lambda: parametrized(spectrally_normalised, SpectralNorm()), "is spectrally normalised already"),
        (lambda: parametrized(spectral_norm, SpectralNorm()), "is spectrally normalised already"),
        (
            lambda: TwoPlayerGame(Flat(), Scale(), regularizers=[SpectralNorm()]),
            "this discriminator has no linear, embedding or convolution layer",
        ),
        (
            lambda: losses(game(PullAway()), 1),
            "compares samples, but a part of a batch has only 1; increase `train.batch_size`, or reduce",
        ),
    ],
)
def test_settings_that_do_not_apply_are_refused_with_the_reason(make, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        make()
    assert words in str(error.value)


class Spectrograms(TwoPlayerGame):
    """A game whose samples have the shape of images but are spectrograms."""

    images = False


def spectrograms(regularizer: Regularizer) -> Spectrograms:
    return Spectrograms(Generator(), Discriminator(), regularizers=[regularizer])


def parametrized(how: Callable[[nn.Module], nn.Module], regularizer: Regularizer) -> TwoPlayerGame:
    """Returns a game with a parametrized weight in the discriminator's last layer."""
    discriminator = Discriminator()
    how(discriminator.judge)
    return TwoPlayerGame(Generator(), discriminator, regularizers=[regularizer])


class Flat(nn.Linear):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__(4, 2)


class Scale(nn.Module):
    """A discriminator whose only parameter is a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.sum(dim=1)


class Deep(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 1)
        self.judge = nn.Sequential(nn.Linear(1, 1))


def test_regularizers_are_applied_in_a_fixed_order() -> None:
    forward = game(SpectralNorm(), InstanceNoise(), GradientPenalty())
    backward = game(GradientPenalty(), InstanceNoise(), SpectralNorm())
    assert [r.name for r in forward.discriminator.regularizers] == [r.name for r in backward.discriminator.regularizers]
    order = [name for name in REGULARIZERS if name in {r.name for r in forward.discriminator.regularizers}]
    assert [r.name for r in forward.discriminator.regularizers] == order


@pytest.mark.parametrize(
    "name", ["gradient_penalty", "r1", "r2", "consistency", "instance_noise", "label_smoothing", "diffaugment"]
)
def test_terms_are_means_over_the_parts_of_a_batch(name: str) -> None:
    """Terms that are means over samples do not depend on how a batch is divided."""
    played = game(REGULARIZERS[name]())
    images = batch(16)["image"]

    def part(start: int, rows: int) -> Tensor:
        with draws.drawing(3, CPU, start=start, rows=rows, total=16):
            terms = played.discriminator_loss({"image": images[start : start + rows]})
        return torch.stack(list(terms.values())).sum()

    assert_close(torch.stack([part(0, 8), part(8, 8)]).mean(), part(0, 16))


@pytest.mark.parametrize("name", ["consistency", "feature_matching", "pull_away", "orthogonal", "gradient_penalty"])
def test_terms_are_in_full_precision_under_autocast(name: str) -> None:
    played = game(REGULARIZERS[name](), objective=OBJECTIVES["relativistic"])
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(played)
    terms = {key: value for part in found for key, value in part.items()}
    assert {"adversarial", name} <= terms.keys()
    assert {value.dtype for value in terms.values()} == {torch.float32}
