import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.blocks import CONVOLUTIONS, NORMS, TRANSPOSED, doublings, norm, one_hot
from gan_core.errors import RecipeError

SHAPES = {1: (4, 3, 8), 2: (4, 3, 4, 5), 3: (4, 3, 2, 3, 4)}


@pytest.mark.parametrize("ndim", SHAPES)
def test_batch_normalisation_is_over_samples_and_space(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    y = norm("batch", 3, ndim=ndim)(x).transpose(0, 1).flatten(1)  # [C, B * space]
    assert_close(y.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(y.var(dim=1, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("ndim", SHAPES)
def test_layer_normalisation_is_of_each_sample_alone(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    layer = norm("layer", 3, ndim=ndim)
    assert_close(layer(x).flatten(1).mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(layer(x)[:1], layer(x[:1]))


@pytest.mark.parametrize("ndim", SHAPES)
def test_no_normalisation_changes_nothing(ndim):
    x = torch.randn(SHAPES[ndim])
    assert torch.equal(norm("none", 3, ndim=ndim)(x), x)


def test_a_norm_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match=r"^unknown norm `bacth`; did you mean `batch`\?$"):
        norm("bacth", 3)
    with pytest.raises(RecipeError, match=rf"^unknown norm `spam`; known: {', '.join(sorted(NORMS))}$"):
        norm("spam", 3)


def test_layers_are_those_of_the_dimension():
    assert [CONVOLUTIONS[n] for n in (1, 2, 3)] == [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    assert [TRANSPOSED[n] for n in (1, 2, 3)] == [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


def test_classes_are_rows_of_an_identity_matrix():
    rows = one_hot(torch.tensor([2, 0]), 3)
    assert rows.dtype is torch.float32
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(("size", "start", "count"), [(8, 4, 1), (64, 4, 4), (4, 4, 0), (96, 3, 5), (1024, 4, 8)])
def test_doublings_lead_from_the_start_to_the_size(size, start, count):
    assert doublings(size, start, least=0) == count
    assert start * 2**count == size


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 3, 5, 15, 17, 31, 48, 100, 1000])
def test_a_size_that_is_no_doubling_is_refused_with_one_that_is(size, least):
    with pytest.raises(RecipeError) as error:
        doublings(size, 4, least=least)
    words, _, hint = str(error.value).removesuffix(".").rpartition(" ")
    assert words == f"`image_size` is {size}; it must be 4 doubled {least} times or more. Try"
    assert doublings(int(hint), 4, least=least) >= least
