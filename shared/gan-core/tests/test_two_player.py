"""The plain game: its two losses by hand, and what `generate` promises."""

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.testing import assert_close

from gan_core import draws, train
from gan_core.errors import RecipeError
from gan_core.play.objectives import wasserstein
from gan_core.play.regularizers import GradientPenalty
from gan_core.play.two_player import TwoPlayerGame, latent_dim

CPU = torch.device("cpu")


class Latent(nn.Module):
    """Shows its latent, beside its class."""

    latent_dim = 3

    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes = num_classes
        self.scale = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.5)

    def forward(self, z, label=None):
        z = self.drop(self.scale * z)
        return z if label is None else torch.cat([z, label[:, None].to(z)], dim=1)


class Total(nn.Module):
    """Judges by the sum, and the class."""

    def __init__(self, num_classes=None, slope=1.0):
        super().__init__()
        self.num_classes = num_classes
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x, label=None):
        return self.slope * x.sum(dim=1) + (0 if label is None else 10 * label)


def game(num_classes=None, **rules):
    return TwoPlayerGame(Latent(num_classes), Total(num_classes), **rules).eval()


# --- losses


def test_the_losses_are_the_objectives_on_real_and_fake():
    plain, real = game(), torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    with draws.drawing(0, CPU, rows=2, total=2):
        terms = plain.discriminator_loss({"points": real})
    with draws.drawing(0, CPU, rows=2, total=2):
        fake = draws.normal(2, 3, like=real).sum(dim=1)
    assert_close(terms, {"adversarial": softplus(-torch.tensor([2.0, 0.0])).mean() + softplus(fake).mean()})
    with draws.drawing(0, CPU, rows=2, total=2):
        assert_close(plain.generator_loss({"points": real}), {"adversarial": softplus(-fake).mean()})


def test_fakes_take_the_labels_of_the_real_samples_beside_them():
    labelled = game(3, objective=wasserstein)
    real, label = torch.zeros(2, 4), torch.tensor([2, 1])
    with draws.drawing(0, CPU, rows=2, total=2):
        term = labelled.discriminator_loss({"points": real, "label": label})["adversarial"]
    with draws.drawing(0, CPU, rows=2, total=2):
        z = draws.normal(2, 3, like=real)
    assert_close(term, (z.sum(dim=1) + label).mean())  # both are judged with 10 * label, which cancels


def test_labels_are_left_alone_by_a_game_without_classes():
    plain = game(objective=wasserstein)
    assert set(plain.discriminator_loss({"points": torch.zeros(2, 3), "label": torch.tensor([0, 1])})) == {
        "adversarial"
    }


def test_regularizers_are_terms_of_the_discriminator():
    plain = game(regularizers=[GradientPenalty(weight=2.0, interval=3)])
    real = {"points": torch.zeros(4, 3)}
    taken = []
    for plain.step in range(4):
        taken.append(plain.discriminator_loss(real).get("gradient_penalty"))
        assert set(plain.generator_loss(real)) == {"adversarial"}
    assert [step for step, term in enumerate(taken) if term is not None] == [0, 3]
    assert_close(taken[0], torch.tensor(2.0 * 3 * (3**0.5 - 1) ** 2))  # the slope is 1 along each of three axes


def test_each_player_owns_one_network():
    plain = game()
    assert {player.name: player.networks for player in plain.players()} == {
        "discriminator": (plain.discriminator,),
        "generator": (plain.generator,),
    }


def test_both_networks_have_the_same_classes():
    with pytest.raises(
        RecipeError, match=r"^`num_classes` is 3 in the generator and None in the discriminator; make them equal$"
    ):
        TwoPlayerGame(Latent(3), Total())


def test_a_generator_says_how_long_its_latent_is():
    with pytest.raises(RecipeError, match=r"^Linear has no attribute `latent_dim`; set it to the size of its latent$"):
        latent_dim(nn.Linear(2, 2))


class Doubled(TwoPlayerGame):
    """Users get twice what the discriminator judges."""

    def finish(self, fakes):
        return 2 * fakes


def test_turns_judge_fakes_and_users_get_samples():
    plain, doubled, real = game(), Doubled(Latent(), Total()).eval(), {"points": torch.ones(2, 3)}
    for loss in ("discriminator_loss", "generator_loss"):
        terms = []
        for each in (plain, doubled):
            with draws.drawing(0, CPU, rows=2, total=2):
                terms.append(getattr(each, loss)(real))
        assert_close(*terms)
    assert_close(doubled.generate(2, seed=0), 2 * plain.generate(2, seed=0))


class Counting(TwoPlayerGame):
    """A game that counts the turns of its players."""

    def __init__(self, *networks):
        super().__init__(*networks)
        self.turns = {"discriminator": [], "generator": []}

    def after_turn(self, player, values):
        super().after_turn(player, values)
        self.turns[player].append(sorted(values))


def test_a_subclass_is_called_after_every_turn_with_the_players_values(tmp_path):
    counting = Counting(Latent(), Total())
    train(counting, data={"points": torch.ones(8, 3)}, out=tmp_path / "run", steps=3, batch_size=4, shown=False)
    logged = ["adversarial", "fake_logits", "of_guessing", "real_logits", "real_sign"]
    assert counting.turns == {"discriminator": [logged] * 3, "generator": [["adversarial"]] * 3}


# --- generate


def test_a_seed_repeats_and_another_differs():
    plain = game()
    assert torch.equal(plain.generate(5, seed=1), plain.generate(5, seed=1))
    assert not torch.equal(plain.generate(5, seed=1), plain.generate(5, seed=2))
    assert not torch.equal(plain.generate(5), plain.generate(5))


@pytest.mark.parametrize("truncation", [None, 0.5])
@pytest.mark.parametrize("count", [1, 7, draws.BLOCK, draws.BLOCK + 1])
def test_the_first_samples_do_not_depend_on_how_many_are_asked_for(count, truncation):
    plain = game()
    most = plain.generate(150, seed=3, truncation=truncation)
    assert torch.equal(plain.generate(count, seed=3, truncation=truncation), most[:count])


def test_a_seed_leaves_torchs_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    game().generate(3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_are_made_in_evaluation_mode_and_without_gradients():
    plain = game().train()
    plain.discriminator.eval()
    samples = plain.generate(200, seed=0)
    assert not samples.requires_grad
    assert (samples != 0).all()  # no dropout
    assert (plain.generator.training, plain.discriminator.training) == (True, False)


def test_classes_come_in_turn_or_as_asked():
    labelled = game(3)
    assert labelled.generate(7, seed=0)[:, 3].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert labelled.generate(100, seed=0)[:, 3].tolist() == [k % 3 for k in range(100)]
    assert labelled.generate(4, seed=0, label=2)[:, 3].tolist() == [2] * 4
    assert labelled.generate(3, seed=0, label=torch.tensor([2, 0, 1]))[:, 3].tolist() == [2, 0, 1]
    assert torch.equal(labelled.generate(4, seed=0, label=2)[:, :3], labelled.generate(4, seed=0, label=0)[:, :3])


def test_truncation_bounds_the_latent():
    plain = game()
    samples = plain.generate(500, seed=0, truncation=0.5)
    assert samples.abs().max() <= 1.0
    assert plain.generate(500, seed=0).abs().max() > 2


@pytest.mark.parametrize(
    ("classes", "asked", "words"),
    [
        (None, {"count": 0}, "cannot generate 0 samples; ask for 1 or more"),
        (None, {"count": -3}, "cannot generate -3 samples; ask for 1 or more"),
        (
            None,
            {"count": 2, "label": 0},
            "this TwoPlayerGame was trained without classes; leave `label` out, or set `num_classes`",
        ),
        (3, {"count": 2, "label": 3}, "`label` is 3; expected 0 to 2"),
        (3, {"count": 2, "label": -1}, "`label` is -1; expected 0 to 2"),
        (None, {"count": 2, "truncation": 0.0}, "`truncation` is 0.0; expected a number above 0 and at most 1"),
        (None, {"count": 2, "truncation": 1.5}, "`truncation` is 1.5; expected a number above 0 and at most 1"),
        (None, {"count": 2, "truncation": float("nan")}, "`truncation` is nan; expected a finite number"),
    ],
)
def test_what_cannot_be_generated_says_why(classes, asked, words):
    with pytest.raises(RecipeError) as error:
        game(classes).generate(**asked)
    assert str(error.value) == words


def test_labels_of_another_number_are_refused():
    with pytest.raises(
        RecipeError, match=r"^`label` has the shape \[2\]; give one class, or one for each of 3 samples$"
    ):
        game(3).generate(3, label=torch.tensor([0, 1]))
    with pytest.raises(RecipeError, match=r"^`label` is 1.5; expected a whole number$"):
        game(3).generate(3, label=1.5)


def test_a_game_without_truncation_says_so():
    class Plain(TwoPlayerGame):
        def sample(self, count, *, label=None):
            return super().sample(count, **({} if label is None else {"label": label}))

    with pytest.raises(RecipeError, match=r"^Plain takes no `truncation`; leave it out$"):
        Plain(Latent(), Total()).generate(2, truncation=0.5)
