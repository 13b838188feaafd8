"""Feature extractors for images.

A classifier trained on the data's labels, a random network, FID's Inception, torchvision's classifiers and
transformers' vision models.

Each factory takes the arguments of `--extractor NAME[:ARGUMENT] --weights FILE` and returns an extractor, which maps
samples in [-1, 1] to features and logits. Samples are first quantised to 8 bits, as in the published protocols, which
read image files; grey is repeated to RGB. The `protocol` describes everything that a figure depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gan_core.data import Batch, some
from gan_core.errors import CheckpointError, InputError, MissingDependency, unknown
from gan_core.measure.features import Extractor, Features
from gan_core.models.checkpoint import digest, load_state, read_published, sha256
from gan_core.models.pretrained import downloaded
from gan_image.classifier import Classifier, learn_classes

INCEPTION = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
"""The published weights; torch-fidelity's `weights-inception-2015-12-05-6726825d.pth` has the same."""

MOST_LEARNT = 20_000
"""Images that the embedded classifier learns and is tested on."""

MOST_NORMALISED = 512
"""Maximum number of images for the normalisation statistics of the extractor `random`."""

Prepare = Callable[[Tensor], Tensor]
"""Pixels, uint8 `[B, 3, H, W]`, to what the network takes."""
Look = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
"""A network and what it takes, to features `[B, D]` and logits `[B, K]`, if it has any."""


class ImageExtractor(Extractor):
    """A network, what comes before it, and where its features are."""

    def __init__(self, name: str, network: nn.Module, prepare: Prepare, look: Look, protocol: Mapping[str, str]):
        self.name = name
        self.network, self.prepare, self.look = network.eval().requires_grad_(False), prepare, look
        self.protocol = {
            "extractor": name,
            **protocol,
            "input": "quantised to 8 bits, grey repeated to RGB",
            "dtype": "float32",
        }

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Features:
        self.network.to(samples.device)
        features, logits = self.look(self.network, self.prepare(to_pixels(samples)))
        return Features(features, logits)


def to_pixels(samples: Tensor) -> Tensor:
    """Images `[B, C, H, W]` in [-1, 1] as uint8 RGB, rounded as they are when they are written to files.

    Raises:
        InputError: they are no images of 1 or 3 channels, or not finite.
    """
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        raise InputError(
            f"the samples have the shape {list(samples.shape)}; the extractor takes images [B, 1 or 3, H, W]"
        )
    if not samples.isfinite().all():
        raise InputError("the samples hold values that are not finite; look at what made them")
    return samples.float().clamp(-1, 1).add(1).mul(127.5).round().byte().expand(-1, 3, -1, -1)


def classifier(
    argument: str | None, weights: Path | None, dataset: Dataset[Any], facts: Mapping[str, Any]
) -> Extractor:
    """A small network that learns the data's labels in seconds, at the samples' own size, and the same every time.

    Its 64 features are the means over the last convolution's places. They know only what tells the classes apart, so
    its figures say less of texture than Inception's, and compare only with those of the same data and size.

    Raises:
        InputError: there is an argument, or weights.
    """
    if argument is not None or weights is not None:
        raise InputError("the extractor `classifier` learns the data's labels; it takes no argument and no `--weights`")
    images, labels = _learning_images(dataset)
    network, accuracy = learn_classes(images, labels, num_classes=facts["num_classes"])

    def prepare(pixels: Tensor) -> Tensor:
        return pixels[:, : images.shape[1]].float().div(127.5).sub(1)

    def look(network: nn.Module, prepared: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(network, Classifier)
        return network.features_of(prepared)

    protocol = {
        "weights": f"learnt on {len(images):,} images (tensors {digest(network.state_dict())}), "
        f"accuracy {accuracy:.4f} on held-out ones",
        "resize": "none",
        "scaling": "[-1, 1]",
        "features": f"means of the last convolution, {2 * network.width}",
    }
    return ImageExtractor("classifier", network, prepare, look, protocol)


def random(argument: str | None, weights: Path | None, dataset: Dataset[Any], facts: Mapping[str, Any]) -> Extractor:
    """Convolutions with fixed random weights, for data without labels (Naeem et al. 2020, arXiv:2002.09797).

    A random network can distinguish sets of images outside the domain of pretrained networks. The architecture is that
    of `classifier` for RGB images; batch normalization uses statistics of at most 512 real images.

    Raises:
        InputError: an argument or weights are given.
    """
    if argument is not None or weights is not None:
        raise InputError("the extractor `random` has fixed random weights; it takes no argument and no `--weights`")
    pixels = to_pixels(_images(some(dataset, MOST_NORMALISED)))

    def prepare(pixels: Tensor) -> Tensor:
        return pixels.float().div(127.5).sub(1)

    def look(network: nn.Module, prepared: Tensor) -> tuple[Tensor, None]:
        return network(prepared).mean(dim=(2, 3)), None

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = Classifier(3, pixels.shape[-1], num_classes=1).convolutions
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # cumulative mean over all batches
        for part in torch.split(pixels, 64):
            network(prepare(part))
    protocol = {
        "weights": f"random (tensors {digest(network.state_dict())}), normalised on {len(pixels):,} images",
        "resize": "none",
        "scaling": "[-1, 1]",
        "features": "means of the last convolution, 64",
    }
    return ImageExtractor("random", network, prepare, look, protocol)


def inception(argument: str | None, weights: Path | None, dataset: object, facts: Mapping[str, Any]) -> Extractor:
    """FID's Inception v3: 2048 features, and 1008 logits (without bias) where the file has them.

    Raises:
        InputError: there is an argument.
        CheckpointError: the weights are not here and cannot be downloaded, or are of another network.
    """
    from gan_image.inception import SIDE, FIDInception

    if argument is not None:
        raise InputError(f"the extractor `inception` takes no argument, and has `{argument}`")
    file = weights or downloaded(INCEPTION, "6726825d")
    tensors = read_published(file)
    judges = "fc.weight" in tensors
    with torch.device("meta"):  # its own first weights are not wanted
        network = FIDInception()
    network = network.to_empty(device="cpu")
    if not judges:
        tensors |= {f"fc.{key}": value for key, value in network.fc.state_dict().items()}
    _load(network, tensors, file)

    def look(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = network(pixels)
        return features, logits if judges else None

    protocol = {
        "weights": f"{file.name} ({sha256(file)[:12]})",
        "resize": f"bilinear as TensorFlow 1, no antialias, to {SIDE}x{SIDE}",
        "scaling": "(pixel - 128) / 128",
        "features": "pool3, 2048",
        "logits": "1008, without bias" if judges else "none in the file",
    }
    return ImageExtractor("inception", network, lambda pixels: pixels, look, protocol)


def torchvision(argument: str | None, weights: Path | None, dataset: object, facts: Mapping[str, Any]) -> Extractor:
    """A classifier of torchvision's by its name: what its last linear layer takes and gives.

    Raises:
        InputError: there is no such classifier, or it does not end in a linear layer.
        CheckpointError: the weights are not here and cannot be downloaded, or are of another network.
    """
    from torchvision import models

    known = models.list_models(module=models)  # classifiers alone
    if argument not in known:
        raise unknown("classifier of torchvision", argument or "", known, InputError)
    published = models.get_model_weights(argument).DEFAULT
    file = weights or downloaded(published.url, published.url.rpartition("-")[2].removesuffix(".pth"))
    network = models.get_model(argument, weights=None)  # RegNet cannot be made without memory, on `meta`
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != len(published.meta["categories"]):
        raise InputError(f"{argument} does not end in a linear layer, so it has no features before it; choose another")
    _load(network, read_published(file), file)
    prepare = published.transforms()

    def look(network: nn.Module, prepared: Tensor) -> tuple[Tensor, Tensor]:
        taken: list[Tensor] = []
        with layers[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0])):
            logits = network(prepared)
        return taken[-1].flatten(1), logits

    protocol = {
        "weights": f"{file.name} ({sha256(file)[:12]})",
        "resize": f"{prepare.interpolation.value} to {prepare.resize_size[0]}, antialias {prepare.antialias}, "
        f"centre {prepare.crop_size[0]}",
        "scaling": f"mean {list(prepare.mean)}, deviation {list(prepare.std)} on [0, 1]",
        "features": "before the last linear layer",
    }
    return ImageExtractor(f"torchvision:{argument}", network, prepare, look, protocol)


def transformers(argument: str | None, weights: Path | None, dataset: object, facts: Mapping[str, Any]) -> Extractor:
    """A vision model of transformers', by its repository or folder: its pooled output, else the CLS token.

    A pooling layer that the weights lack would be random; the CLS token is taken then.

    Raises:
        MissingDependency: transformers is not installed.
        InputError: no model is named, or `weights` are.
        CheckpointError: it cannot be loaded, or lacks weights.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise MissingDependency(
            "the extractor `transformers` needs transformers: pip install gan-image[transformers]"
        ) from error
    if argument is None:
        raise InputError("name the model: transformers:REPOSITORY, or transformers:FOLDER")
    if weights is not None:
        raise InputError("`--weights` have no effect: a model of transformers brings its own; leave them out")
    try:
        network, report = AutoModel.from_pretrained(argument, use_safetensors=True, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(argument)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{argument}: no vision model that transformers can load ({reason})") from error
    network = getattr(network, "vision_model", network)  # the half of CLIP and its like that sees
    lacking = sorted(key.removeprefix("vision_model.") for key in report["missing_keys"])
    pooled = not any("pooler" in key for key in lacking)
    if other := [key for key in lacking if "pooler" not in key]:
        raise CheckpointError(
            f"{argument}: lacks {len(other)} weights of its network ({other[0]} …); they would be random"
        )

    def prepare(pixels: Tensor) -> Tensor:
        found: Tensor = processor(images=list(pixels), return_tensors="pt", input_data_format="channels_first")[
            "pixel_values"
        ]
        return found.to(pixels.device)

    def look(network: nn.Module, prepared: Tensor) -> tuple[Tensor, None]:
        found = network(pixel_values=prepared)
        output = getattr(found, "pooler_output", None) if pooled else None
        if output is None and found.last_hidden_state.ndim != 3:
            raise InputError(f"{argument} has neither a pooled output nor a CLS token; choose another model")
        return (found.last_hidden_state[:, 0] if output is None else output).flatten(1), None

    read = {name: tensor for name, tensor in network.state_dict().items() if name not in lacking}
    facts_of = {
        key: getattr(processor, key, None) for key in ("size", "crop_size", "resample", "image_mean", "image_std")
    }
    said = {key: dict(value) if isinstance(value, Mapping) else value for key, value in facts_of.items()}
    protocol = {
        "weights": f"{argument} (tensors {digest(read)})",
        "resize": f"{said['size']}, filter {said['resample']}, centre {said['crop_size']}",
        "scaling": f"mean {said['image_mean']}, deviation {said['image_std']}",
        "features": "pooled output, else the CLS token" if pooled else "the CLS token",
    }
    return ImageExtractor(f"transformers:{argument}", network, prepare, look, protocol)


def _learning_images(dataset: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """Returns pixels `[N, C, S, S]` (uint8) and labels of at most `MOST_LEARNT` images; for pairs, of the targets."""
    batch = some(dataset, MOST_LEARNT)
    return _images(batch).add(1).mul(127.5).round().byte(), batch["label"]


def _images(batch: Batch) -> Tensor:
    """Returns the images of a batch `[N, C, H, W]` in [-1, 1]; for pairs the targets, for other parts the last."""
    keys = ("image", "target", *reversed(batch))
    return next(batch[key] for key in keys if key in batch and batch[key].ndim == 4)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Weights by their published names; counts of batches, which older files lack, are not used."""
    counts = {key: value.zero_() for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    load_state(network, counts | dict(tensors), {}, file)
