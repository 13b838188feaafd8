import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.nn.conditioning import add_class_projection, append_class, one_hot


def test_classes_are_rows_of_an_identity_matrix():
    rows = one_hot(torch.tensor([2, 0]), 3)
    assert rows.dtype is torch.float32
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_class_is_appended_to_the_latent():
    z = torch.tensor([[0.5, -1.0], [2.0, 3.0]])
    assert append_class(z, torch.tensor([1, 0]), 2).tolist() == [[0.5, -1, 0, 1], [2, 3, 1, 0]]


def test_without_classes_latents_and_logits_are_unchanged():
    z, logits, label, embedding = torch.ones(2, 3), torch.ones(2), torch.tensor([0, 1]), nn.Embedding(2, 3)
    assert append_class(z, label, None) is z
    assert append_class(z, None, 2) is z
    assert add_class_projection(logits, z, label, None) is logits
    assert add_class_projection(logits, z, None, embedding) is logits


@pytest.mark.parametrize("ndim", [0, 1, 2, 3])
def test_the_projection_is_the_inner_product_with_the_mean_features(ndim):
    embedding = nn.Embedding(2, 3)
    embedding.weight.data = torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]])
    features = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(2, 3, *[1] * ndim)
    if ndim:
        features = torch.cat([features - 1, features + 1], dim=-1)
    logits = add_class_projection(torch.tensor([0.5, 0.25]), features, torch.tensor([1, 0]), embedding)
    assert_close(logits, torch.tensor([0.5 + 2 + 2, 0.25 + 4 - 6]))
