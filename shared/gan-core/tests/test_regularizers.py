"""Penalties by their closed form, and their gradients against finite differences."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.play.regularizers import (
    REGULARIZERS,
    GradientPenalty,
    dragan_penalty,
    gradient_norm,
    gradient_penalty,
    orthogonality,
    path_lengths,
    penalties,
    uncompiled,
    zero_centred_penalty,
)
from gan_core.recipe import parse_settings

CPU = torch.device("cpu")


def linear(slope):
    network = nn.Linear(len(slope), 1)
    network.weight.data = torch.tensor([slope])
    return lambda x: network(x.flatten(1)).squeeze(1)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_gradient_penalty_of_a_linear_network_is_known():
    network = linear([3.0, 0.0, 4.0, 0.0])  # slope 5 everywhere
    assert_close(gradient_penalty(network, noise(6, 4), noise(6, 4, seed=1)), torch.tensor(16.0))  # (5 - 1)²


def test_the_penalty_is_zero_at_a_slope_of_one_and_one_for_a_constant_network():
    real, fake = noise(6, 2), noise(6, 2, seed=1)
    assert_close(gradient_penalty(linear([0.6, 0.8]), real, fake), torch.tensor(0.0), atol=1e-12, rtol=0)
    flat = linear([0.0, 0.0])
    assert_close(gradient_penalty(flat, real, fake), torch.tensor(1.0))


def test_the_one_sided_penalty_is_zero_for_slopes_below_one():
    real, fake = noise(6, 2), noise(6, 2, seed=1)
    assert_close(gradient_penalty(linear([0.3, 0.4]), real, fake), torch.tensor(0.25))
    assert_close(gradient_penalty(linear([0.3, 0.4]), real, fake, one_sided=True), torch.tensor(0.0))
    assert_close(gradient_penalty(linear([3.0, 4.0]), real, fake, one_sided=True), torch.tensor(16.0))


def test_zero_centred_penalties_are_half_the_squared_slope():
    assert_close(zero_centred_penalty(linear([3.0, 4.0]), noise(6, 2)), torch.tensor(12.5))
    x = torch.tensor([[1.0], [2.0]])
    assert_close(zero_centred_penalty(lambda x: x.square().sum(dim=1), x), torch.tensor((4.0 + 16.0) / 4))


def test_dragan_perturbs_real_samples_by_up_to_half_their_deviation():
    seen = []

    def network(x):
        seen.append(x.detach())
        return 5 * x[:, 0]

    real = noise(64, 3)
    assert_close(dragan_penalty(network, real), torch.tensor(16.0))
    moved = seen[0] - real
    assert (moved >= 0).all()
    assert (moved <= real.std() / 2).all()
    assert moved.max() > 0.3 * real.std()


def test_path_lengths_of_a_linear_generator_are_known_in_the_mean():
    torch.manual_seed(0)
    scale = torch.tensor([2.0, 0.0, 0.0])  # J stretches the first latent axis by 2 and drops the others
    lengths = path_lengths(lambda z: (z * scale)[:, :1], noise(20_000, 3))
    assert_close(lengths.mean(), torch.tensor(2 * (2 / torch.pi) ** 0.5), rtol=0.02, atol=0)  # E|2y|
    many = path_lengths(lambda z: (z[:, :1] * 2)[:, :, None].expand(-1, 1, 16), noise(20_000, 3))
    assert_close(many.square().mean(), torch.tensor(4.0), rtol=0.05, atol=0)  # 16 places, each weighted 1/√16


def test_squared_path_lengths_are_averaged_over_the_layers_of_a_latent():
    torch.manual_seed(0)
    lengths = path_lengths(lambda w: 2 * w.sum(dim=1)[:, :1], noise(20_000, 3, 4))  # each of 3 layers has slope 2
    assert_close(lengths.square().mean(), torch.tensor(4.0), rtol=0.05, atol=0)


def test_path_lengths_of_a_constant_generator_have_a_finite_gradient():
    weight = torch.zeros(2, 3, requires_grad=True)
    lengths = path_lengths(lambda z: z @ weight.T, noise(4, 3))
    (lengths - 1).square().mean().backward()
    assert torch.equal(lengths, torch.zeros(4))
    assert weight.grad.isfinite().all()


def test_orthogonality_counts_the_products_of_different_filters():
    assert orthogonality(torch.eye(3)) == 0
    assert orthogonality(5 * torch.eye(3)) == 0
    assert_close(orthogonality(torch.tensor([[1.0, 2.0], [3.0, -1.0]])), torch.tensor(2.0))  # 2 · (3 - 2)²
    assert_close(orthogonality(torch.ones(2, 1, 2, 2)), torch.tensor(32.0))


def test_the_norm_is_of_each_sample_over_all_its_axes():
    def cubes(x):  # the gradient is 3x²
        return x.pow(3).flatten(1).sum(dim=1)

    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 1.0]]])
    assert_close(gradient_norm(cubes, x), torch.tensor([(9 + 144) ** 0.5, 3.0]))


def test_every_sample_is_mixed_at_one_place_of_its_own():
    seen = []

    def network(x):
        seen.append(x.detach())
        return x.sum(dim=(1, 2, 3))

    real, fake = torch.ones(8, 2, 3, 3), torch.zeros(8, 2, 3, 3)
    gradient_penalty(network, real, fake)
    share = seen[0].flatten(1)
    assert_close(share, share[:, :1].expand_as(share))
    assert len(set(share[:, 0].tolist())) == 8
    assert ((share >= 0) & (share < 1)).all()


def test_the_mix_depends_on_the_seed_alone():
    def at(start, rows):
        real, fake = noise(8, 2)[start : start + rows], noise(8, 2, seed=1)[start : start + rows]
        with draws.drawing(3, CPU, start=start, rows=rows, total=8):
            return gradient_penalty(lambda x: x.pow(3).sum(dim=1), real, fake)

    assert_close(torch.stack([at(0, 4), at(4, 4)]).mean(), at(0, 8))


@pytest.mark.parametrize(
    "measure",
    [
        gradient_penalty,
        lambda network, real, fake: gradient_penalty(network, 3 * real, fake, one_sided=True),
        lambda network, real, fake: dragan_penalty(network, real),
        lambda network, real, fake: zero_centred_penalty(network, real),
        lambda network, real, fake: path_lengths(network, real).square().mean(),
    ],
    ids=["two-sided", "one-sided", "dragan", "zero-centred", "path-length"],
)
def test_the_gradient_is_that_of_finite_differences(measure):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    real, fake = noise(4, 3, dtype=torch.float64), noise(4, 3, seed=1, dtype=torch.float64)

    def penalty(*weights):
        names = dict(zip([name for name, _ in network.named_parameters()], weights, strict=True))
        with draws.drawing(0, CPU, rows=4, total=4):
            return measure(lambda x: torch.func.functional_call(network, names, x).squeeze(1), real, fake)

    assert torch.autograd.gradcheck(penalty, [p.detach().requires_grad_() for p in network.parameters()])


def test_second_derivatives_reach_every_parameter_but_the_last_bias():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0))
    gradient_penalty(network, noise(4, 1, 4, 4), noise(4, 1, 4, 4, seed=1)).backward()
    *others, last = network.parameters()
    assert last.grad is None  # the slope does not depend on it
    assert all(parameter.grad is not None for parameter in others if parameter.ndim > 1)
    assert all(parameter.grad.abs().sum() > 0 for parameter in others if parameter.ndim > 1)


def test_samples_get_no_gradient():
    real, fake = noise(4, 2), noise(4, 2, seed=1).requires_grad_()
    network = nn.Linear(2, 1)
    gradient_penalty(lambda x: network(x).squeeze(1).pow(2), real, fake).backward()
    assert fake.grad is None


# --- settings and intervals


def terms(regularizers, step):
    return penalties(regularizers, step, linear([3.0, 4.0]), noise(4, 2), noise(4, 2, seed=1))


def test_a_penalty_is_weighted():
    assert_close(terms([GradientPenalty(weight=0.5)], 0), {"gradient_penalty": torch.tensor(8.0)})


def test_a_lazy_penalty_is_taken_at_intervals_and_keeps_its_mean_strength():
    lazy = [GradientPenalty(weight=0.5, interval=4)]
    taken = [terms(lazy, step) for step in range(8)]
    assert [step for step, found in enumerate(taken) if found] == [0, 4]
    assert sum(found["gradient_penalty"].item() for found in taken if found) / 8 == pytest.approx(8.0)


def test_no_regularizer_has_no_terms():
    assert terms([], 0) == {}


def test_penalties_are_taken_in_full_precision_under_autocast():
    seen = []

    def network(x):
        value = nn.functional.linear(x, torch.ones(1, 2))
        seen.append((x.dtype, value.dtype))
        return value.squeeze(1)

    with torch.autocast("cpu", torch.bfloat16):
        found = penalties([GradientPenalty()], 0, network, noise(2, 2), noise(2, 2, seed=1).bfloat16())
    assert seen == [(torch.float32, torch.float32)]
    assert found["gradient_penalty"].dtype is torch.float32


ALL_STEPS = {"interval": 1}
DEFAULTS = {
    # ProGAN (arXiv:1710.10196), section 3; the group is that of the authors' code.
    "minibatch_stddev": {"group": 4},
    # Salimans et al. 2016 (arXiv:1606.03498), section 3.2; the sizes are those of the authors' code.
    "minibatch_discrimination": {"kernels": 100, "dimensions": 5},
    # SNGAN (arXiv:1802.05957), algorithm 1; it has no settings.
    "spectral_norm": {},
    # WGAN (arXiv:1701.07875), algorithm 1: c.
    "weight_clipping": {"bound": 0.01},
    # BigGAN (arXiv:1809.11096), section 3.1: β.
    "orthogonal": {"weight": 1e-4} | ALL_STEPS,
    # WGAN-GP (arXiv:1704.00028), algorithm 1: λ; the penalty is two-sided, section 4.
    "gradient_penalty": {"weight": 10.0, "one_sided": False} | ALL_STEPS,
    # DRAGAN (arXiv:1705.07215), algorithm 1: λ.
    "dragan": {"weight": 10.0} | ALL_STEPS,
    # Mescheder et al. 2018 (arXiv:1801.04406), section 6: γ.
    "r1": {"weight": 10.0} | ALL_STEPS,
    "r2": {"weight": 10.0} | ALL_STEPS,
    # StyleGAN2 (arXiv:1912.04958), appendix B and the authors' code: pl_weight, pl_decay, pl_minibatch_shrink.
    "path_length": {"weight": 2.0, "interval": 4, "decay": 0.01, "shrink": 2},
    # CR-GAN (arXiv:1910.12027): λ, and shifts by 4 pixels; the term on fakes is of arXiv:2002.04724, section 2.2.
    "consistency": {"weight": 10.0, "fake_weight": 0.0, "shift": 4} | ALL_STEPS,
    # Sønderby et al. 2017 (arXiv:1610.04490): the deviation falls linearly from 0.1 to 0.
    "instance_noise": {"deviation": 0.1, "until": 1.0},
    # DiffAugment (arXiv:2006.10738), section 4: all three transforms.
    "diffaugment": {"policy": ("color", "translation", "cutout")},
    # ADA (arXiv:2006.06676), section 3.1: target and speed, a change every 4 minibatches; groups "bgc" of section 3.
    "ada": {"groups": ("blit", "geom", "color"), "p": 0.0, "target": 0.6, "speed": 500_000, "interval": 4},
    # Salimans et al. 2016 (arXiv:1606.03498), section 3.4.
    "label_smoothing": {"real": 0.9},
    # The paper (arXiv:1612.07828) has no size for this use; CycleGAN's pool of 50 is set by its preset.
    "replay": {"size": 256},
    # Salimans et al. 2016 (arXiv:1606.03498), section 3.1: the term has no factor.
    "feature_matching": {"weight": 1.0} | ALL_STEPS,
    # EBGAN (arXiv:1609.03126): the weight of the pull-away term in its experiments.
    "pull_away": {"weight": 0.1} | ALL_STEPS,
    # Unrolled GAN (arXiv:1611.02163): 5 steps of the discriminator's Adam, differentiated.
    "unrolled": {"steps": 5, "learning_rate": None, "first_order": False},
}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_has_the_published_defaults(name):
    regularizer = REGULARIZERS[name]()
    assert regularizer.name == name
    assert regularizer.model_dump() == DEFAULTS[name]
    assert REGULARIZERS[name](**regularizer.model_dump()) == regularizer


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight": 0}, "`gp.weight` is 0; expected greater than 0"),
        ({"interval": 0}, "`gp.interval` is 0; expected greater than or equal to 1"),
        ({"wieght": 1}, "unknown setting `gp.wieght`; did you mean `gp.weight`?"),
    ],
)
def test_a_setting_out_of_range_is_refused(fields, words):
    with pytest.raises(RecipeError) as error:
        parse_settings(GradientPenalty, fields, "gp")
    assert str(error.value) == words


def test_a_compiled_network_is_called_uncompiled():
    compiled = []

    def backend(graph, inputs):
        return lambda *values: compiled.append(len(values)) or graph(*values)

    network = nn.Sequential(nn.Linear(2, 1))
    network.compile(backend=backend)
    network[0].compile(backend=backend)
    network(torch.ones(3, 2))
    assert len(compiled) == 1
    assert uncompiled(network)(torch.ones(3, 2)).shape == (3, 1)
    assert len(compiled) == 1
    network(torch.ones(3, 2))
    assert len(compiled) == 2  # compiled again afterwards
