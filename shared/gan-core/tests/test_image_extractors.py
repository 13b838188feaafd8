"""Feature extractors of images: the classifier, the random network, FID's Inception, torchvision and transformers."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from gan_core.cards import resolve
from gan_core.data import TensorDataset, read
from gan_core.errors import CheckpointError, InputError, MissingDependency
from gan_core.measure import image_classifier, image_extractors
from gan_core.measure.catalog import IMAGE_EXTRACTORS
from gan_core.measure.features import Extractor
from gan_core.measure.image_classifier import ImageClassifier
from gan_core.measure.image_extractors import to_pixels
from gan_core.measure.metrics import Moments, frechet_distance

NOTHING: Any = (None, {}, "image")  # the dataset, facts and key of extractors that do not use them


def samples(*, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- the classifier and the random network


def quarters(count: int = 240, *, channels: int = 1) -> TensorDataset:
    """Noise with one bright quarter, by class, as the part `photo`; and dark images as the part `other`."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 4
    pixels = torch.randint(0, 100, (count, channels, 8, 8), generator=generator, dtype=torch.uint8)
    for item, place in enumerate(label.tolist()):
        pixels[item, :, 4 * (place // 2) :, 4 * (place % 2) :][:, :4, :4] += 150
    items = {"other": torch.zeros_like(pixels), "photo": pixels, "label": label}
    return TensorDataset(items, pixels=("other", "photo"))


@pytest.fixture(scope="module")
def less():
    """A classifier of four quarters needs few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_classifier, "STEPS", 60)
        patch.setattr(image_classifier, "BATCH_SIZE", 32)
        yield


@pytest.fixture(scope="module", params=[1, 3])
def learnt(request: pytest.FixtureRequest, less) -> tuple[Extractor, TensorDataset]:
    dataset = quarters(channels=request.param)
    return image_extractors.classifier(None, None, dataset, {"num_classes": 4}, "photo"), dataset


def images_of(dataset: TensorDataset) -> Tensor:
    return dataset.tensors["photo"].float() / 127.5 - 1


def test_the_classifier_recognises_the_classes_of_its_part(learnt):
    extractor, dataset = learnt
    features, logits = extractor(images_of(dataset))
    assert features.shape == (240, 64)
    assert (logits.argmax(dim=1) == dataset.tensors["label"]).double().mean() > 0.98
    assert extractor.accuracy > 0.95
    assert extractor.protocol["weights"].startswith("learnt on 240 images (tensors ")
    assert extractor.protocol["weights"].endswith(f"), accuracy {extractor.accuracy:.4f} on held-out ones")
    assert extractor.protocol["features"] == "means of the last convolution, 64"


def test_the_classifiers_features_are_means_of_its_last_convolution(learnt):
    extractor, dataset = learnt
    few = images_of(dataset)[:5]
    maps = extractor.network.convolutions(few)
    features, logits = extractor(few)
    assert_close(features, maps.mean(dim=(2, 3)))
    assert_close(logits, extractor.network(few))


def test_the_classifier_is_the_same_every_time(less, tmp_path, monkeypatch):
    dataset, facts = quarters(), {"num_classes": 4}
    first = image_extractors.classifier(None, None, dataset, facts, "photo")
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path))  # where the first is not kept
    again = image_extractors.classifier(None, None, dataset, facts, "photo")
    assert again.protocol == first.protocol
    assert torch.equal(again(images_of(dataset)).features, first(images_of(dataset)).features)
    blind = image_extractors.classifier(None, None, dataset, facts, "other")
    assert blind.accuracy == 0.25  # the part without classes
    with pytest.raises(
        InputError,
        match=r"^the extractor `classifier` learns the data's labels; it accepts neither an argument nor `--weights`$",
    ):
        image_extractors.classifier("x", None, dataset, facts, "photo")


@pytest.mark.parametrize(("size", "strides"), [(4, [1]), (8, [1, 2]), (16, [1, 2, 2]), (20, [2, 2, 2]), (64, [2] * 4)])
def test_the_classifier_halves_images_until_four_pixels_are_left(size, strides):
    network = ImageClassifier(3, size, num_classes=7)
    assert [layer.stride[0] for layer in network.modules() if isinstance(layer, nn.Conv2d)] == strides
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_images_are_shifted_by_one_pixel_at_most_and_every_shift_occurs():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")[0, 0]
    shifts = {tuple(padded[y : y + 4, x : x + 4].flatten().tolist()): 0 for y in range(3) for x in range(3)}
    torch.manual_seed(0)
    for shifted in image_classifier._shifted(image.expand(900, -1, -1, -1)):
        shifts[tuple(shifted.flatten().tolist())] += 1
    assert len(shifts) == 9
    assert all(60 < number < 140 for number in shifts.values())


def test_random_features_distinguish_changed_images_from_the_data():
    dataset = quarters(600)
    extractor = image_extractors.random(None, None, dataset, {}, "photo")
    real = torch.cat([batch["photo"] for batch in read(dataset, range(600), 64)])
    features, logits = extractor(real)
    assert (features.shape, logits, extractor.accuracy) == ((600, 64), None, None)
    again = image_extractors.random(None, None, dataset, {}, "photo")
    assert torch.equal(again(real).features, features)
    assert again.protocol == extractor.protocol
    assert extractor.protocol["weights"].endswith("), normalised on 512 images")
    assert image_extractors.random(None, None, dataset, {}, "other").protocol != extractor.protocol

    def distance(images: Tensor) -> float:
        return frechet_distance(Moments.of(features[300:].numpy()), Moments.of(extractor(images).features.numpy()))

    chance, blurred = distance(real[:300]), distance(F.avg_pool2d(real[:300], 3, 1, 1))
    assert 5 * chance < blurred < distance(torch.zeros_like(real[:300]))
    with pytest.raises(
        InputError,
        match=r"^the extractor `random` has fixed random weights; it accepts neither an argument nor `--weights`$",
    ):
        image_extractors.random("x", None, dataset, {}, "photo")


def test_samples_are_quantised_and_grey_is_repeated():
    grey = torch.tensor([-2.0, -1.0, 0.001, 1.0]).reshape(1, 1, 1, 4)
    assert to_pixels(grey)[0, :, 0].tolist() == [[0, 0, 128, 255]] * 3
    with pytest.raises(
        InputError, match=r"^the samples have the shape \[2, 2\]; the extractor takes images \[B, 1 or 3, H, W\]$"
    ):
        to_pixels(torch.zeros(2, 2))
    with pytest.raises(InputError, match=r"^the samples have non-finite values; check the model that generated them$"):
        to_pixels(torch.full((1, 1, 2, 2), torch.nan))


# --- torchvision


def test_a_classifier_of_torchvision(tmp_path):
    models = pytest.importorskip("torchvision").models

    torch.manual_seed(0)
    network = models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    extractor = image_extractors.torchvision("resnet18", tmp_path / "resnet18.pth", *NOTHING)
    images = samples(size=40)
    found = extractor(images)
    prepare = models.ResNet18_Weights.DEFAULT.transforms()
    with torch.no_grad():
        logits = network(prepare(to_pixels(images)))
    assert found.features.shape == (2, 512)
    assert_close(found.logits, logits)
    assert_close(network.fc(found.features), logits)
    assert "bilinear to 256" in extractor.protocol["resize"]
    assert "0.485" in extractor.protocol["scaling"]


def test_unknown_classifiers_of_torchvision_are_refused():
    pytest.importorskip("torchvision")
    with pytest.raises(InputError, match=r"unknown classifier of torchvision `resnet19`; did you mean"):
        image_extractors.torchvision("resnet19", None, *NOTHING)


# --- transformers


@pytest.fixture
def vit(tmp_path, monkeypatch):
    """A tiny vision transformer, saved with a pooling layer and without."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    torch.manual_seed(0)
    for name, pooling in (("pooled", True), ("bare", False)):
        model = transformers.ViTModel(config, add_pooling_layer=pooling).eval()
        model.save_pretrained(tmp_path / name)
        size = {"height": 16, "width": 16}
        transformers.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(
            tmp_path / name
        )
    return tmp_path


@pytest.mark.parametrize("name", ["pooled", "bare"])
def test_a_vision_model_of_transformers(vit, name):
    from transformers import ViTModel

    extractor = image_extractors.transformers(str(vit / name), None, *NOTHING)
    images = samples()
    found = extractor(images)
    network = ViTModel.from_pretrained(vit / name, add_pooling_layer=name == "pooled").eval()
    with torch.no_grad():
        output = network((to_pixels(images) / 255 - 0.5) / 0.25)
    expected = output.pooler_output if name == "pooled" else output.last_hidden_state[:, 0]
    assert_close(found.features, expected, atol=1e-5, rtol=1e-5)
    assert found.logits is None
    assert "0.25" in extractor.protocol["scaling"]
    where = {"pooled": "pooled output, else the CLS token", "bare": "the CLS token"}
    assert extractor.protocol["features"] == where[name]
    torch.manual_seed(1)  # a pooling layer that the file lacks is random, and must not be used
    assert image_extractors.transformers(str(vit / name), None, *NOTHING).protocol == extractor.protocol


def test_the_vision_model_of_a_model_of_images_and_text_is_used(vit):
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, ViTImageProcessor

    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**tiny, image_size=16, patch_size=8).to_dict()
    words = {**tiny, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=words, vision_config=vision, projection_dim=4)).eval()
    model.save_pretrained(vit / "clip")
    ViTImageProcessor.from_pretrained(vit / "bare").save_pretrained(vit / "clip")
    images = samples()
    with torch.no_grad():
        expected = model.vision_model((to_pixels(images) / 255 - 0.5) / 0.25).pooler_output
    found = image_extractors.transformers(str(vit / "clip"), None, *NOTHING)(images)
    assert_close(found.features, expected, atol=1e-5, rtol=1e-5)


def test_transformers_requests_that_cannot_be_met(vit, monkeypatch):
    with pytest.raises(CheckpointError, match="no vision model that transformers can load"):
        image_extractors.transformers(str(vit), None, *NOTHING)
    with pytest.raises(InputError, match="name the model"):
        image_extractors.transformers(None, None, *NOTHING)
    with pytest.raises(InputError, match=r"includes its weights; omit them$"):
        image_extractors.transformers(str(vit / "bare"), vit / "x.pth", *NOTHING)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"pip install transformers$"):
        image_extractors.transformers("x", None, *NOTHING)


# --- the list


def test_every_card_names_a_factory_and_the_first_two_need_no_download():
    assert [card.make for card in IMAGE_EXTRACTORS] == [
        f"gan_core.measure.image_extractors:{card.name}" for card in IMAGE_EXTRACTORS
    ]
    assert all(callable(resolve(card.make)) for card in IMAGE_EXTRACTORS)
    assert [card.name for card in IMAGE_EXTRACTORS if card.origin == "embedded"] == ["classifier", "random"]


def test_listing_the_extractors_loads_no_torch():
    code = "import sys, gan_core.measure.catalog; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
