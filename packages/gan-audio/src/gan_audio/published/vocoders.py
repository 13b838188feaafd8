"""Importers of published vocoders, which translate keys and infer settings from shapes.

Weights are read in both layouts of weight normalisation, torch's old one (`weight_g`, `weight_v`) and its new one
(`parametrizations.weight.original0` and `1`). Generators are also read without weight normalisation, as they are
published for inference. The keywords of an importer are the published names of settings that cannot be inferred from
shapes, except `mel`, which is a contract or its name, and `config`, the content of the published `config.json`. Other
keywords have priority over `config`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from gan_audio.layers.losses import RESOLUTIONS, Resolution, multi_resolution_stft
from gan_audio.mel.contract import CONTRACTS, MelContract, MelSpectrogram
from gan_audio.systems import bigvgan, hifigan, melgan
from gan_audio.systems.vocoder import nearest_length
from gan_core.errors import CheckpointError, printable
from gan_core.models.reference import Importers, Published, StateDict, renamed
from gan_core.play.judgement import Judgement, discriminator_adversarial, feature_distance, generator_adversarial
from gan_core.play.objectives import least_squares
from gan_core.recipe import explain

logger = logging.getLogger("gan_audio")

Mel = MelContract | Mapping[str, Any] | str
"""A mel contract, its settings, or its name."""
NEW = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
"""Torch's new names of the tensors of weight normalisation, and the old ones."""
EXCERPT = 8192
"""Length in samples of the excerpts on which all published models are trained."""
DILATIONS = {True: [[1, 3, 5]], False: [[1, 2], [2, 6], [3, 12]]}
"""Published dilations of residual blocks, by whether their convolutions are paired."""
PERIODS = [2, 3, 5, 7, 11]
"""Published periods of the multi-period discriminator."""


Sizes = Annotated[list[Annotated[int, Field(ge=1, le=65_536)]], Field(min_length=1, max_length=64)]
"""Sizes of the stages or blocks of a generator."""


class PublishedSettings(BaseModel):
    """Settings in the `config.json` of HiFi-GAN and BigVGAN, under their published names; others are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    resblock: Literal["1", "2"] | None = None
    upsample_rates: Sizes | None = None
    upsample_kernel_sizes: Sizes | None = None
    upsample_initial_channel: int | None = None
    resblock_kernel_sizes: Sizes | None = None
    resblock_dilation_sizes: Annotated[list[Sizes], Field(min_length=1, max_length=64)] | None = None
    activation: str | None = None
    snake_logscale: bool | None = None
    use_tanh_at_final: bool | None = None
    use_bias_at_final: bool | None = None
    sampling_rate: int | None = None
    n_fft: int | None = None
    hop_size: int | None = None
    win_size: int | None = None
    num_mels: int | None = None
    fmin: float | None = None
    fmax: float | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any] | None) -> Self:
        """Returns the settings in the content of a `config.json`; none if it is missing or of another kind of model.

        Raises:
            CheckpointError: a value is not valid.
        """
        try:
            return cls.model_validate({} if config is None else dict(config))
        except ValidationError as error:
            raise CheckpointError(str(explain(error, cls, "config.json"))) from error

    def contract(self, usual: MelContract) -> MelContract | None:
        """Returns the mel contract, whose other settings are those of a usual contract; None if there is none.

        Raises:
            CheckpointError: the settings contradict each other.
        """
        given = {
            ours: getattr(self, theirs) for theirs, ours in MEL_SETTINGS.items() if theirs in self.model_fields_set
        }
        if not self.model_fields_set >= REQUIRED:
            return None
        try:
            return usual.but(**given)
        except ValidationError as error:
            raise CheckpointError(str(explain(error, MelContract, "config.json"))) from error

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Compares the settings with the published arguments that were inferred from the shapes.

        Raises:
            CheckpointError: they differ.
        """
        for key, value in arguments.items():
            told = getattr(self, key, None)
            if told is not None and told != value:
                raise CheckpointError(f"`{key}` is {printable(str(told))} in the settings, and {value} in the weights")

    def notes(self, contract: MelContract) -> tuple[str, ...]:
        """Returns a note about the mel contract, if the settings have one."""
        return (f"mel settings from config.json: {contract.named()}",) if self.model_fields_set >= REQUIRED else ()


MEL_SETTINGS = {
    "sampling_rate": "sample_rate",
    "n_fft": "fft_size",
    "hop_size": "hop",
    "win_size": "window",
    "num_mels": "mels",
    "fmin": "low_hz",
    "fmax": "high_hz",
}
"""Published names of mel settings, and ours."""
REQUIRED = {"sampling_rate", "n_fft", "hop_size", "win_size", "num_mels"}
"""Published mel settings without which the others do not define a mel."""


def melgan_generator(state: StateDict, *, mel: Mel | None = None) -> Published:
    """Imports `Generator` of github.com/descriptinc/melgan-neurips, mel2wav/modules.py."""
    state = _old_layout(state)
    plain = sorted(int(key.split(".")[1]) for key in state if key.count(".") == 2 and key.endswith(".bias"))
    blocks = sorted({int(key.split(".")[1]) for key in state if ".block." in key})
    first, *ups, last = plain
    depth, rates = len(blocks) // len(ups), [_weight(state, f"model.{k}").shape[2] // 2 for k in ups]
    names = {f"model.{k}": f"layers.{k - 1}" for k in (first, *ups)} | {f"model.{last}": f"layers.{last - 2}"}
    for k in blocks:
        parts = {"shortcut": "0", "block.2": "1.1", "block.4": "1.3"}
        names |= {f"model.{k}.{theirs}": f"layers.{k - 1}.branches.{ours}" for theirs, ours in parts.items()}
    width, mels = _weight(state, f"model.{last}").shape[1], _weight(state, f"model.{first}").shape[1]
    settings = {"rates": rates, "width": width, "depth": depth, "folded": _is_folded(state)}
    contract = _contract(mel, CONTRACTS["melgan-22k"], mels, prod(rates))
    settings["mel"] = contract.model_dump()
    arguments = {"input_size": mels, "ngf": width, "n_residual_layers": depth, "mel": mel}
    return Published(melgan.Generator, settings, _new_layout(renamed(state, names)), arguments, _trained_on(contract))


def melgan_discriminator(state: StateDict) -> Published:
    """Imports `Discriminator` of the same file, which returns logits `[B, 1, T]` after the features of each scale."""
    state = _old_layout(state)
    scales = len({key.split(".")[1] for key in state})
    layers = len({key.split(".")[3] for key in state})
    width, downsampling = (
        len(state["model.disc_0.model.layer_0.1.bias"]),
        _weight(state, "model.disc_0.model.layer_1.0").shape[2] // 10,
    )
    names: dict[str, str] = {}
    for k in range(scales):
        theirs, ours = f"model.disc_{k}.model", f"discriminators.{k}"
        names |= {f"{theirs}.layer_0.1": f"{ours}.layers.0.0", f"{theirs}.layer_{layers - 1}": f"{ours}.judge"}
        names |= {f"{theirs}.layer_{j}.0": f"{ours}.layers.{j}.0" for j in range(1, layers - 1)}
    settings = {"scales": scales, "width": width, "depth": layers - 3, "downsampling": downsampling}
    arguments = {"num_D": scales, "ndf": width, "n_layers": layers - 3, "downsampling_factor": downsampling}
    return Published(melgan.Discriminator, settings, _new_layout(renamed(state, names)), arguments)


def hifigan_generator(
    state: StateDict,
    *,
    upsample_rates: Sequence[int] | None = None,
    resblock_dilation_sizes: Sequence[Sequence[int]] | None = None,
    mel: Mel | None = None,
    config: Mapping[str, Any] | None = None,
) -> Published:
    """Imports `Generator` of github.com/jik876/hifi-gan, models.py."""
    state, told = _old_layout(state), PublishedSettings.read(config)
    rates, dilations = upsample_rates or told.upsample_rates, resblock_dilation_sizes or told.resblock_dilation_sizes
    read, names = _residual_generator(state, "", rates, dilations)
    mels, hop = _weight(state, "conv_pre").shape[1], prod(read["rates"])
    usual = CONTRACTS["hifigan-22k"]
    contract = _contract(mel or told.contract(usual), usual, mels, hop)
    settings = read | {"mel": contract.model_dump()}
    arguments = _residual_arguments(settings)
    told.check(arguments)
    return Published(
        hifigan.Generator,
        settings,
        _new_layout(renamed(state, names)),
        arguments | {"mel": mel},
        _trained_on(contract),
        notes=told.notes(contract) if mel is None else (),
    )


def bigvgan_generator(
    state: StateDict,
    *,
    upsample_rates: Sequence[int] | None = None,
    resblock_dilation_sizes: Sequence[Sequence[int]] | None = None,
    snake_logscale: bool | None = None,
    use_tanh_at_final: bool | None = None,
    mel: Mel | None = None,
    config: Mapping[str, Any] | None = None,
) -> Published:
    """Imports `BigVGAN` of github.com/NVIDIA/BigVGAN, bigvgan.py. Version 2 has no last bias and clamps its audio."""
    state, told = _old_layout(state), PublishedSettings.read(config)
    rates, dilations = upsample_rates or told.upsample_rates, resblock_dilation_sizes or told.resblock_dilation_sizes
    read, names = _residual_generator(state, ".0", rates, dilations)
    mels, hop = _weight(state, "conv_pre").shape[1], prod(read["rates"])
    bias, separate = "conv_post.bias" in state, "activation_post.act.beta" in state
    tanh, logarithmic = (
        next((choice for choice in choices if choice is not None), default)
        for choices, default in (
            ((use_tanh_at_final, told.use_tanh_at_final), bias),
            ((snake_logscale, told.snake_logscale), True),
        )
    )
    contract = _contract(mel or told.contract(CONTRACTS["24k"]), _bigvgan_contract(mels, second=not bias), mels, hop)
    settings = read | {
        "mel": contract.model_dump(),
        "separate": separate,
        "logarithmic": logarithmic,
        "last_bias": bias,
        "bound": "tanh" if tanh else "clamp",
    }
    names |= {
        f"{theirs}.{part}": f"{ours}.{name}"
        for theirs, ours in _activations(settings).items()
        for part, name in ACTIVATION.items()
    }
    arguments = _residual_arguments(settings) | {
        "activation": "snakebeta" if separate else "snake",
        "use_bias_at_final": bias,
    }
    told.check(arguments)
    return Published(
        bigvgan.Generator,
        settings,
        _new_layout(renamed(state, names)),
        arguments | {"snake_logscale": logarithmic, "use_tanh_at_final": tanh, "mel": mel},
        _trained_on(contract),
        notes=told.notes(contract) if mel is None else (),
    )


def hifigan_mpd(
    state: StateDict, *, period: int | None = None, stride: int = 3, mpd_reshapes: Sequence[int] | None = None
) -> Published:
    """Imports `MultiPeriodDiscriminator` of github.com/jik876/hifi-gan, models.py, or one `DiscriminatorP`."""
    state = _old_layout(state)
    weights = _new_layout(renamed(state, _stacks(state)))
    if "convs.0.bias" not in state:
        count = len({key.split(".")[1] for key in state})
        periods = list(mpd_reshapes or PERIODS[:count])
        settings: dict[str, Any] = {"periods": periods, "width": len(state["discriminators.0.convs.0.bias"])}
        return Published(hifigan.MultiPeriodDiscriminator, settings, weights, {"mpd_reshapes": periods})
    if period is None:
        raise ValueError("the checkpoint is a single discriminator; give its `period`")
    spectral, size = "convs.0.weight_orig" in state, _weight(state, "convs.0").shape[2]
    settings = {
        "period": period,
        "width": len(state["convs.0.bias"]),
        "size": size,
        "stride": stride,
        "spectral": spectral,
    }
    arguments = {"period": period, "kernel_size": size, "stride": stride, "use_spectral_norm": spectral}
    return Published(hifigan.PeriodDiscriminator, settings, weights, arguments)


def hifigan_msd(state: StateDict) -> Published:
    """Imports `MultiScaleDiscriminator` of the same file, or one `DiscriminatorS`."""
    state = _old_layout(state)
    weights = _new_layout(renamed(state, _stacks(state)))
    if "convs.0.bias" not in state:
        settings = {"scales": len({key.split(".")[1] for key in state})}
        settings |= {"width": len(state["discriminators.0.convs.0.bias"])}
        return Published(hifigan.MultiScaleDiscriminator, settings, weights)
    settings = {"width": len(state["convs.0.bias"]), "spectral": "convs.0.weight_orig" in state}
    return Published(hifigan.ScaleDiscriminator, settings, weights, {"use_spectral_norm": settings["spectral"]})


def bigvgan_mrd(state: StateDict, *, resolutions: Sequence[Sequence[int]] = RESOLUTIONS) -> Published:
    """Imports `MultiResolutionDiscriminator` of github.com/NVIDIA/BigVGAN, discriminators.py."""
    state = _old_layout(state)
    settings = {"resolutions": resolutions, "width": len(state["discriminators.0.convs.0.bias"])}
    weights = _new_layout(renamed(state, _stacks(state)))
    return Published(bigvgan.MultiResolutionDiscriminator, settings, weights, {"resolutions": resolutions})


def snake(state: StateDict, *, alpha_logscale: bool = False) -> Published:
    """Imports `Snake` or `SnakeBeta` of github.com/NVIDIA/BigVGAN, activations.py."""
    channels = len(state["alpha"])
    settings = {"channels": channels, "separate": "beta" in state, "logarithmic": alpha_logscale}
    return Published(bigvgan.Snake, settings, state, {"in_features": channels, "alpha_logscale": alpha_logscale})


def activation1d(
    state: StateDict, *, activation: str = "alpha_logscale=True", up_ratio: int = 2, down_ratio: int = 2
) -> Published:
    """Imports `Activation1d` of alias_free_activation/torch/act.py; `activation` is the source of its activation."""
    inner: dict[str, Any] = {
        "channels": len(state["act.alpha"]),
        "separate": "act.beta" in state,
        "logarithmic": "alpha_logscale=True" in activation,
    }
    taps = {f"{way}_taps": state[key].shape[2] for way, key in (("up", UP_FILTER), ("down", DOWN_FILTER))}
    arguments = {
        "activation": activation,
        "up_ratio": up_ratio,
        "down_ratio": down_ratio,
        "up_kernel_size": taps["up_taps"],
        "down_kernel_size": taps["down_taps"],
    }

    def build(**settings: Any) -> nn.Module:
        return bigvgan.AntiAliased(bigvgan.Snake(**inner), **settings)

    settings = {"up": up_ratio, "down": down_ratio} | taps
    return Published(build, settings, renamed(state, ACTIVATION), arguments)


def melgan_audio2mel(
    state: StateDict,
    *,
    n_fft: int = 1024,
    hop_length: int = 256,
    win_length: int = 1024,
    sampling_rate: int = 22_050,
    n_mel_channels: int = 80,
    mel_fmin: float = 0.0,
    mel_fmax: float | None = None,
) -> Published:
    """Imports `Audio2Mel` of github.com/descriptinc/melgan-neurips, mel2wav/modules.py; recomputes its buffers."""
    contract = CONTRACTS["melgan-22k"].but(
        fft_size=n_fft,
        hop=hop_length,
        window=win_length,
        sample_rate=sampling_rate,
        mels=n_mel_channels,
        low_hz=mel_fmin,
        high_hz=mel_fmax,
    )
    arguments = {
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "sampling_rate": sampling_rate,
        "n_mel_channels": n_mel_channels,
        "mel_fmin": mel_fmin,
        "mel_fmax": mel_fmax,
    }
    rest = {key: value for key, value in state.items() if key not in ("mel_basis", "window")}
    return Published(MelSpectrogram, {"contract": contract}, rest, arguments)


def hifigan_mel_spectrogram(
    state: StateDict,
    *,
    n_fft: int = 1024,
    num_mels: int = 80,
    sampling_rate: int = 22_050,
    hop_size: int = 256,
    win_size: int = 1024,
    fmin: float = 0.0,
    fmax: float | None = 8000.0,
) -> Published:
    """Imports `mel_spectrogram` of github.com/jik876/hifi-gan, meldataset.py, whose input is `[B, T]`."""
    contract = CONTRACTS["hifigan-22k"].but(
        fft_size=n_fft,
        hop=hop_size,
        window=win_size,
        sample_rate=sampling_rate,
        mels=num_mels,
        low_hz=fmin,
        high_hz=fmax,
    )
    arguments = {
        "n_fft": n_fft,
        "num_mels": num_mels,
        "sampling_rate": sampling_rate,
        "hop_size": hop_size,
        "win_size": win_size,
        "fmin": fmin,
        "fmax": fmax,
    }
    return Published(MelSpectrogram, {"contract": contract}, state, arguments)


class Calculation(nn.Module):
    """A published function without weights, as a module.

    Args:
        compute: the function.
    """

    def __init__(self, compute: Callable[..., Tensor]):
        super().__init__()
        self.compute = compute

    def forward(self, *inputs: Any) -> Tensor:
        return self.compute(*inputs)


def hifigan_losses(state: StateDict) -> Published:
    """Imports `discriminator_loss`, `generator_loss` and `feature_loss` of github.com/jik876/hifi-gan, models.py.

    The module takes two `Judgement`s, for real and for generated audio, and returns the three losses, `[3]`.
    """

    def compute(real: Judgement, fake: Judgement) -> Tensor:
        discriminator = discriminator_adversarial(least_squares, real, fake)
        generator = generator_adversarial(least_squares, fake)
        return 2 * torch.stack([discriminator, generator, feature_distance(real, fake)])

    return Published(Calculation, {"compute": compute}, state)


def stft_loss(
    state: StateDict,
    *,
    fft_sizes: Sequence[int] = (1024, 2048, 512),
    hop_sizes: Sequence[int] = (120, 240, 50),
    win_lengths: Sequence[int] = (600, 1200, 240),
) -> Published:
    """Imports `MultiResolutionSTFTLoss` of github.com/kan-bayashi/ParallelWaveGAN, losses/stft_loss.py.

    The module takes real and generated audio.
    """
    resolutions = [Resolution(*sizes) for sizes in zip(fft_sizes, hop_sizes, win_lengths, strict=True)]
    arguments = {"fft_sizes": fft_sizes, "hop_sizes": hop_sizes, "win_lengths": win_lengths}
    compute = partial(multi_resolution_stft, resolutions=resolutions)
    return Published(Calculation, {"compute": compute}, state, arguments)


# Shared by several importers.

UP_FILTER, DOWN_FILTER = "upsample.filter", "downsample.lowpass.filter"
"""Published names of the filters of BigVGAN's activations."""
ACTIVATION = {"act": "activation", UP_FILTER: "up_filter", DOWN_FILTER: "down_filter"}
"""Published names of the parts of BigVGAN's activations, and our names."""


def _old_layout(state: StateDict) -> dict[str, Tensor]:
    """Returns a checkpoint with torch's old names of the tensors of weight normalisation."""
    renamed_state = dict(state)
    for key in state:
        for new, old in NEW.items():
            if key.endswith(new):
                renamed_state[key.removesuffix(new) + old] = renamed_state.pop(key)
    return renamed_state


def _new_layout(state: StateDict) -> dict[str, Tensor]:
    """Returns a checkpoint with torch's new names; spectral normalisation, which also has `weight_v`, is unchanged."""
    layers = {key.removesuffix(".weight_g") for key in state if key.endswith(".weight_g")}
    names = {f"{layer}{old}": f"{layer}{new}" for layer in layers for new, old in NEW.items()}
    return {names.get(key, key): value for key, value in state.items()}


def _is_folded(state: StateDict) -> bool:
    return not any(key.endswith(".weight_g") for key in state)


def _weight(state: StateDict, layer: str) -> Tensor:
    """Returns the weight of a layer, or its unnormalised direction `weight_v` if it has weight normalisation."""
    kind = next((kind for kind in ("weight_orig", "weight_v") if f"{layer}.{kind}" in state), "weight")
    return state[f"{layer}.{kind}"]


def _contract(given: Mel | None, usual: MelContract, mels: int, hop: int) -> MelContract:
    """Returns the given contract, or else the usual contract with the checkpoint's number of bands and hop.

    Raises:
        ValueError: the given contract has another number of bands or another hop.
    """
    if given is None:
        factor = max(1, hop // usual.hop)
        contract = usual.but(mels=mels, hop=hop, fft_size=factor * usual.fft_size, window=factor * usual.window)
        logger.warning(
            "the checkpoint does not contain its mel settings; assuming %s; to change them, set the argument mel "
            "to the name or the settings of a contract",
            contract.named(),
        )
    else:
        contract = MelContract.model_validate(given)
    if (contract.mels, contract.hop) != (mels, hop):
        raise ValueError(
            f"`mel` has {contract.mels} bands and a hop of {contract.hop}; the checkpoint needs {mels} and {hop}"
        )
    return contract


def _trained_on(contract: MelContract) -> dict[str, Any]:
    """Returns the fields of the data specification with which the published models were trained."""
    return {"samples": nearest_length(EXCERPT, contract)}


def _bigvgan_contract(mels: int, *, second: bool) -> MelContract:
    """Returns the contract of the released models with a given number of bands.

    Version 2 has two models at 22 kHz. The one whose bands have no upper limit is assumed.
    """
    if mels == 80:
        return CONTRACTS["hifigan-22k"].but(high_hz=None if second else 8000.0)
    return CONTRACTS["24k"].but(sample_rate=44_100) if mels == 128 else CONTRACTS["24k"]


def _residual_generator(
    state: StateDict, up: str, rates: Sequence[int] | None, dilations: Sequence[Sequence[int]] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the settings and layer names of a generator of HiFi-GAN or BigVGAN (whose `ups` are one level deeper)."""
    width = len(_weight(state, f"ups.0{up}"))
    stages = len({key.split(".")[1] for key in state if key.startswith("ups.")})
    blocks = len({key.split(".")[1] for key in state if key.startswith("resblocks.")}) // stages
    paired = "resblocks.0.convs1.0.bias" in state
    kinds = ("convs1", "convs2") if paired else ("convs",)
    up_sizes = [_weight(state, f"ups.{stage}{up}").shape[2] for stage in range(stages)]
    sizes = [_weight(state, f"resblocks.{block}.{kinds[0]}.0").shape[2] for block in range(blocks)]
    steps = len({key.split(".")[3] for key in state if key.startswith(f"resblocks.0.{kinds[0]}.")})
    usual = [DILATIONS[paired][block % len(DILATIONS[paired])][:steps] for block in range(blocks)]
    settings = {
        "rates": list(rates or [size // 2 for size in up_sizes]),
        "up_sizes": up_sizes,
        "width": width,
        "sizes": sizes,
        "dilations": [list(one) for one in dilations or usual],
        "paired": paired,
        "folded": _is_folded(state),
    }
    per = 2 if up else 3  # number of our layers per stage; HiFi-GAN's start with a leaky ReLU
    names = {"conv_pre": "layers.0", "conv_post": f"layers.{per * stages + 2}"}
    for stage in range(stages):
        names[f"ups.{stage}{up}"] = f"layers.{per * stage + per - 1}"
        for block in range(blocks):
            theirs, ours = f"resblocks.{stage * blocks + block}", f"layers.{per * stage + per}.branches.{block}"
            names |= {
                f"{theirs}.{kind}.{step}": f"{ours}.{step}.branches.1.{2 * place + 1}"
                for step in range(steps)
                for place, kind in enumerate(kinds)
            }
    return settings, names


def _activations(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the published names of BigVGAN's activations, and our names."""
    stages, blocks, places = len(settings["rates"]), len(settings["sizes"]), 2 if settings["paired"] else 1
    names = {"activation_post": f"layers.{2 * stages + 1}"}
    for stage in range(stages):
        for block, dilations in enumerate(settings["dilations"]):
            theirs, ours = f"resblocks.{stage * blocks + block}", f"layers.{2 * stage + 2}.branches.{block}"
            names |= {
                f"{theirs}.activations.{places * step + place}": f"{ours}.{step}.branches.1.{2 * place}"
                for step in range(len(dilations))
                for place in range(places)
            }
    return names


def _residual_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the published constructors."""
    return {
        "resblock": "1" if settings["paired"] else "2",
        "upsample_rates": settings["rates"],
        "upsample_kernel_sizes": settings["up_sizes"],
        "upsample_initial_channel": settings["width"],
        "resblock_kernel_sizes": settings["sizes"],
        "resblock_dilation_sizes": settings["dilations"],
        "num_mels": settings["mel"]["mels"],
    }


def _stacks(state: StateDict) -> dict[str, str]:
    """Returns the published names of the layers of one or several discriminators, and our names."""
    starts = {key.partition("conv")[0] for key in state}
    names = {f"{start}convs": f"{start}layers" for start in starts}
    return names | {f"{start}conv_post": f"{start}judge" for start in starts}


IMPORTERS: Importers = {
    "melgan/generator": melgan_generator,
    "melgan/discriminator": melgan_discriminator,
    "melgan/audio2mel": melgan_audio2mel,
    "hifigan/generator": hifigan_generator,
    "hifigan/mpd": hifigan_mpd,
    "hifigan/msd": hifigan_msd,
    "hifigan/mel_spectrogram": hifigan_mel_spectrogram,
    "hifigan/mel_spectrogram_loss": partial(hifigan_mel_spectrogram, fmax=None),
    "hifigan/losses": hifigan_losses,
    "bigvgan/generator": bigvgan_generator,
    "bigvgan/mpd": hifigan_mpd,
    "bigvgan/mrd": bigvgan_mrd,
    "bigvgan/snake": snake,
    "bigvgan/snakebeta": snake,
    "bigvgan/activation1d": activation1d,
    "parallel-wavegan/multi_resolution_stft_loss": stft_loss,
}
"""Importers by system and network."""
