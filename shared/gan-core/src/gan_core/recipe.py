"""Recipes: complete, validated descriptions of a training run, the same in Python, in YAML and on the command line.

Reading a recipe does not import torch. The settings of networks and games are validated by the system's preset
(`gan_core.play.preset`), all others by this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from gan_core.errors import RecipeError, unknown
from gan_core.places import expanded

RECIPE_BYTES = 1_000_000
"""Maximum size of a recipe file, in bytes."""

Size = Annotated[int, Field(ge=1, le=65_536)]
"""Width, depth or number of classes of a network."""


class Settings(BaseModel):
    """Base class of immutable settings without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Constant(Settings):
    """Constant learning rate."""

    name: Literal["constant"] = "constant"


class Linear(Settings):
    """Learning rate that decreases linearly.

    Attributes:
        start: fraction of the phase after which the learning rate decreases.
        end: learning rate at the end of the phase, as a fraction of the initial one.
    """

    name: Literal["linear"] = "linear"
    start: float = Field(default=0.0, ge=0, lt=1)
    end: float = Field(default=0.0, ge=0)


class Cosine(Settings):
    """Learning rate that decreases along half a cosine.

    Attributes:
        end: learning rate at the end of the phase, as a fraction of the initial one.
    """

    name: Literal["cosine"] = "cosine"
    end: float = Field(default=0.0, ge=0)


class Step(Settings):
    """Learning rate that changes at regular intervals.

    Attributes:
        every: interval in steps of the phase.
        factor: factor by which the learning rate is multiplied after each interval.
    """

    name: Literal["step"] = "step"
    every: int = Field(ge=1)
    factor: float = Field(default=0.5, gt=0)


Schedule = Annotated[Constant | Linear | Cosine | Step, Field(discriminator="name")]


class _Optimizer(Settings):
    """Settings of every optimizer.

    Attributes:
        learning_rate: initial learning rate.
        schedule: change of the learning rate during a phase.
        clip_norm: maximum norm of a player's gradient, to which it is clipped; None disables clipping.
    """

    learning_rate: float = Field(gt=0)
    schedule: Schedule = Constant()
    clip_norm: float | None = Field(default=None, gt=0)


class Adam(_Optimizer):
    """Adam (Kingma & Ba 2015) with the defaults of DCGAN (Radford et al. 2016, arXiv:1511.06434).

    Attributes:
        betas: decay rates of the moving averages of the gradient and of its square.
        epsilon: constant added to the denominator.
        weight_decay: decoupled weight decay, as in AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    """

    name: Literal["adam"] = "adam"
    learning_rate: float = Field(default=2e-4, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class RMSprop(_Optimizer):
    """RMSprop with the default learning rate of WGAN (Arjovsky et al. 2017, arXiv:1701.07875)."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(default=5e-5, gt=0)


class SGD(_Optimizer):
    """Stochastic gradient descent.

    Attributes:
        momentum: momentum factor.
    """

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)


Optimizer = Annotated[Adam | RMSprop | SGD, Field(discriminator="name")]


class PlayerSettings(Settings):
    """Settings that differ for one player.

    Attributes:
        turns: number of turns in each step in which it takes part.
        every: interval in steps at which it takes part, from the first step of a phase.
        optimizer: settings of its optimizer that differ from those of `optimizer`.
    """

    turns: int | None = Field(default=None, ge=1)
    every: int | None = Field(default=None, ge=1)
    optimizer: dict[str, Any] = Field(default_factory=dict)


def _by_name(regularizers: Any) -> Any:
    """Converts a list of names to settings by name; another value is returned unchanged."""
    if isinstance(regularizers, list | tuple) and all(isinstance(name, str) for name in regularizers):
        return {name: {} for name in regularizers}
    return regularizers


class AdversarySettings(Settings):
    """Settings that differ for one adversary.

    Attributes:
        objective: name of its objective (default: the recipe's).
        regularizers: settings merged into the recipe's `regularizers`, by name; null removes one. A list of names
            adds regularizers with their default settings.
    """

    objective: str | None = None
    regularizers: Annotated[dict[str, dict[str, Any] | None], BeforeValidator(_by_name)] = Field(default_factory=dict)


class Start(Settings):
    """Initial weights of a network.

    Attributes:
        source: a run, a model folder or a hub repository id, followed by `:NETWORK` if the network has another name
            there; or a published checkpoint, `SYSTEM/NETWORK:FILE`.
        sha256: SHA-256 of the file with the weights; recorded when training starts.
    """

    source: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class DataSettings(Settings):
    """Source and conversion of the data.

    Attributes:
        source: a named dataset, a folder or archive of files (in a run's recipe, an absolute path), or one of these for
            each part of an item: `{source: DIR, target: DIR}`.
        spec: fields of the system's data specification (`gan_core.data.Spec`) that its networks leave open, such as
            `flip` for images.
        classes: names of the classes, in the order of their indices; taken from the data.
        strict: whether an unreadable file is an error; otherwise it is skipped.
        workers: number of worker processes that read data; 0 reads in the training process.
        held_out: fraction of the items that are not used for training. The doctor uses them to detect memorisation by
            the discriminator. Items cut from one file are held out together.
    """

    source: str | dict[str, str] | None = None
    spec: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    strict: bool = False
    workers: int = Field(default=0, ge=0, le=256)
    held_out: float = Field(default=0.0, ge=0, lt=1)


class HalfLife(Settings):
    """Moving average of weights with a half-life in samples (Karras et al. 2020, arXiv:2006.06676, and their code).

    A step counts as one batch of samples, regardless of its number of turns. With batch size B, the decay per step is
    0.5^(B / h), where h is `half_life` or, if smaller, `ramp_up` times the number of samples so far.

    Attributes:
        half_life: number of samples after which the contribution of old weights is halved (StyleGAN2: 10,000).
        ramp_up: maximum half-life as a fraction of the samples so far; None uses `half_life` from the start.
    """

    half_life: float = Field(default=10_000, gt=0)
    ramp_up: float | None = Field(default=0.05, gt=0)


def _kind_of_average(value: Any) -> str:
    return "half_life" if isinstance(value, Mapping | HalfLife) else "decay"


Averaging = Annotated[
    Annotated[Annotated[float, Field(gt=0, lt=1)], Tag("decay")] | Annotated[HalfLife, Tag("half_life")],
    Discriminator(_kind_of_average),
]
"""Decay of a moving average per step, or its half-life in samples."""


class TrainSettings(Settings):
    """Training settings: length, steps, and outputs.

    Attributes:
        steps: number of steps. A run ends at the first limit that it reaches: `steps`, `samples` or `minutes`. Phases
            and learning-rate schedules are scaled to that limit.
        epochs: number of passes over the training items, counted in samples read. It replaces `steps`, which is
            computed from `epochs` and the size of the data and written to the run's recipe.
        samples: maximum number of samples read, over all processes.
        minutes: maximum training time in minutes.
        batch_size: global batch size, over all processes.
        accumulate: number of parts of a batch over which gradients are accumulated, to save memory.
        seed: random seed for initial weights, data order and noise.
        ema: exponential moving average of the weights, which is used to generate samples: the decay per step,
            typically 0.99 to 0.9999, or the half-life in samples (`HalfLife`); None generates with the current weights.
            After t steps, the decay per step is (1 + t) / (10 + t) if that is smaller.
        precision: precision of the forward pass; weights and penalties stay in fp32.
        compile: whether the networks are compiled with `torch.compile`.
        device: device; `auto` selects the accelerator, if there is one, otherwise the CPU.
        log_every: steps between lines in the log.
        sample_every: steps between pictures of samples; None writes only one at the end.
        evaluate_every: steps between evaluations, which the report plots; None disables them.
        metrics: metrics of evaluations (default: all that fit the data).
        evaluate: number of samples in an evaluation.
        checkpoint_every: steps between checkpoints; None writes only one at the end.
        keep_checkpoints: number of checkpoints to keep.
        show: number of samples in a picture.
        trackers: names of experiment trackers supported by accelerate (`tensorboard`, `wandb` …).
    """

    steps: int = Field(default=10_000, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    samples: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    accumulate: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    ema: Averaging | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    device: str = "auto"
    log_every: int = Field(default=50, ge=1)
    sample_every: int | None = Field(default=None, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    metrics: tuple[str, ...] | None = None
    evaluate: int = Field(default=1000, ge=2)
    checkpoint_every: int | None = Field(default=None, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    show: int = Field(default=64, ge=1, le=1024)
    trackers: tuple[str, ...] = ()

    @field_validator("device")
    @classmethod
    def _is_device(cls, name: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|xpu|cuda(:\d{1,3})?", name):
            raise ValueError(f"`train.device` is {name!r}; expected auto, cpu, cuda, cuda:1 (the second), mps or xpu")
        return name

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"`train.batch_size` is {self.batch_size}; make it a multiple of `train.accumulate`, {self.accumulate}"
            )
        return self


class TrainOptions(TypedDict, total=False):
    """Keyword arguments of `train`: the fields of `TrainSettings`."""

    steps: int
    epochs: float | None
    samples: int | None
    minutes: float | None
    batch_size: int
    accumulate: int
    seed: int
    ema: float | HalfLife | Mapping[str, float | None] | None
    precision: Literal["fp32", "bf16", "fp16"]
    compile: bool
    device: str
    log_every: int
    sample_every: int | None
    evaluate_every: int | None
    metrics: Sequence[str] | None
    evaluate: int
    checkpoint_every: int | None
    keep_checkpoints: int
    show: int
    trackers: Sequence[str]


class Recipe(Settings):
    """A complete description of a training run, saved as `RUN/recipe.yaml`.

    Attributes:
        domain: name of the package's domain (`image`); None for a game built by hand.
        system: name of the system, or the class of a game built by hand.
        preset: name of the preset on which the settings are based.
        network: settings of the networks. A mapping under a network's name applies only to that network.
        game: settings of the game, such as weights of loss terms.
        objective: name of the objective of every adversary, if the game does not fix it.
        regularizers: penalties, augmentations and constraints of every adversary by name, with their settings; null
            removes one. A list of names stands for regularizers with their default settings.
        adversaries: settings that differ for single adversaries, by name.
        optimizer: optimizer of every player, except where `players` differs.
        players: settings that differ for single players, by name.
        start: initial weights, by network name: `{generator: runs/a}`.
        data: source and conversion of the data.
        train: training settings.
        regime: training regime (`gan_core.training.regime`): its `name`, an entry point of `gan.regimes` or
            `MODULE:CLASS`, and its settings; None for plain training.
    """

    domain: str | None = None
    system: str
    preset: str | None = None
    network: dict[str, Any] = Field(default_factory=dict)
    game: dict[str, Any] = Field(default_factory=dict)
    objective: str | None = None
    regularizers: Annotated[dict[str, dict[str, Any]], BeforeValidator(_by_name)] = Field(default_factory=dict)
    adversaries: dict[str, AdversarySettings] = Field(default_factory=dict)
    optimizer: Optimizer = Adam()
    players: dict[str, PlayerSettings] = Field(default_factory=dict)
    start: dict[str, Start] = Field(default_factory=dict)
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    regime: dict[str, Any] | None = None

    @field_validator("start", mode="before")
    @classmethod
    def _named_sources(cls, start: Any) -> Any:
        if not isinstance(start, Mapping):
            return start
        return {name: {"source": each} if isinstance(each, str) else each for name, each in start.items()}

    def but(self, changes: Mapping[str, Any]) -> Recipe:
        """Returns a validated copy with some settings changed. Changing `train.steps` removes `train.epochs`.

        Args:
            changes: values by dotted key (`train.steps`), or nested mappings; None removes an entry of a mapping.

        Raises:
            RecipeError: a key is unknown or a value is out of range.
        """
        fields = self.model_dump()
        for key in sorted(changes, key=_names_first):
            path = key.split(".")
            if "" in path:
                raise RecipeError(f"`{key}` is not a setting; write keys with dots between them, such as `train.steps`")
            _set(fields, path, changes[key], key)
        train = changes.get("train", {})
        named = changes.keys() | {f"train.{key}" for key in (train if isinstance(train, Mapping) else {})}
        if "train.steps" in named and "train.epochs" not in named:
            fields["train"]["epochs"] = None
        return parse(fields)

    def player_optimizer(self, player: str, own: Adam | RMSprop | SGD | None) -> Adam | RMSprop | SGD:
        """Returns a player's optimizer: its own or else the recipe's, with the changes in `players`."""
        base = self.optimizer if own is None else own
        over = self.players[player].optimizer if player in self.players else {}
        if not over:
            return base
        same_kind = over.get("name", base.name) == base.name
        merged = (base.model_dump() if same_kind else {}) | over
        return parse_settings(_OptimizerOf, {"optimizer": merged}, f"players.{player}").optimizer

    def to_yaml(self) -> str:
        """Returns the recipe as YAML, with all settings."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Writer, sort_keys=False, allow_unicode=True)


class _OptimizerOf(Settings):
    optimizer: Optimizer


class _Reader(yaml.SafeLoader):
    """YAML loader of plain values. Aliases are rejected, because a small file with aliases can expand without bound."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(
                f"line {event.start_mark.line + 1}: `*{event.anchor}` is an alias; write its value instead"
            )
        return super().compose_node(parent, index)


class _Writer(yaml.SafeDumper):
    """YAML dumper that writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _load(text: str) -> Any:
    """Parses a YAML text of plain values.

    Raises:
        ValueError: the text is not valid.
    """
    try:
        return yaml.load(text, _Reader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{place}{error.problem}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:  # e.g. `!!int x`
        raise ValueError(str(error).splitlines()[0]) from error


def parse(fields: Mapping[str, Any]) -> Recipe:
    """Validates plain values as a recipe.

    Raises:
        RecipeError: a key is unknown or a value is out of range; the message is about the first problem.
    """
    return parse_settings(Recipe, fields)


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe from a YAML file.

    Raises:
        RecipeError: the file is missing, too large, not YAML, or not a recipe.
    """
    return parse(read_yaml(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping from a YAML file.

    Raises:
        RecipeError: the file is missing, too large, not YAML, or not a mapping.
    """
    path = expanded(path)
    try:
        if path.stat().st_size > RECIPE_BYTES:
            raise RecipeError(f"{path}: is larger than {RECIPE_BYTES:,} bytes; expected a recipe")
        loaded = _load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({_reason(error)})") from error
    except ValueError as error:
        raise RecipeError(f"{path}: is not YAML of plain values ({error})") from error
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise RecipeError(f"{path}: is not a recipe; expected keys such as `system`, `data`, `train`")
    return loaded


def parse_value(text: str) -> Any:
    """Parses the value in `--set key=value` as YAML: `3`, `true`, `null`, `[0.5, 0.9]` or text.

    Unlike in YAML 1.1, `1e-4` is parsed as a number.

    Raises:
        RecipeError: the text is not a valid value.
    """
    try:
        value = _load(text)
    except ValueError as error:
        raise RecipeError(f"`{text}` is not a valid value ({error})") from error
    if isinstance(value, str) and value == text.strip():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"


def _names_first(key: str) -> tuple[bool, int]:
    """Returns a sort key that puts keys such as `optimizer.name` before settings that depend on them."""
    return not key.endswith(".name"), key.count(".")


def _set(fields: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Sets one value in nested fields: mappings are merged, and None removes an optional entry.

    Raises:
        RecipeError: the path leads through a value that is not a mapping.
    """
    *outer, last = path
    for depth, name in enumerate(outer, start=1):
        inner = fields.setdefault(name, {})
        if inner is None or (outer[:depth] == ["train", "ema"] and isinstance(inner, float)):
            inner = fields[name] = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"`{key}` is unknown: `{name}` is {inner!r}, which has no settings")
        fields = inner
    old = fields.get(last)
    whole = [*outer, last] == ["data", "source"]
    if isinstance(value, Mapping) and isinstance(old, dict) and not whole and not _other_kind(old, value):
        for name, inner in value.items():
            _set(old, [str(name)], inner, f"{key}.{name}")
    elif value is None and outer in (["regularizers"], ["adversaries"], ["start"]):
        fields.pop(last, None)
    else:
        _replace(fields, last, value)


def _other_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether two settings are of different kinds, such as Adam and RMSprop, which are not merged."""
    return "name" in old and new.get("name", old["name"]) != old["name"]


def _replace(fields: dict[str, Any], last: str, value: Any) -> None:
    if last == "name" and fields.get("name", value) != value:
        fields.clear()
    fields[last] = dict(value) if isinstance(value, Mapping) else value


T = TypeVar("T", bound=Settings)


def parse_settings(kind: type[T], fields: Mapping[str, Any], where: str = "") -> T:
    """Validates plain values as settings.

    Args:
        kind: class of the settings.
        fields: the values.
        where: prefix of the keys in messages.

    Raises:
        RecipeError: a key is unknown or a value is out of range.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise explain(error, kind, where) from error


EXPECTED = (
    dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number")
    | dict.fromkeys(("float_type", "float_parsing"), "a number")
    | dict.fromkeys(("bool_type", "bool_parsing"), "true or false")
    | dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping of settings")
    | {"tuple_type": "a list", "list_type": "a list", "string_type": "text"}
)
"""Descriptions of valid values, by pydantic's error type."""


def explain(error: ValidationError, kind: type[BaseModel], where: str = "") -> Exception:
    """Converts the first validation problem to an error with a one-line message: key, value, and valid values."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(filter(None, [where, *_without_tags(place)])) or "the recipe"
    problem, given = first["type"], first["input"]
    if problem == "extra_forbidden":
        return _unknown_setting(kind, place, key)
    if problem == "missing":
        return RecipeError(f"`{key}` is missing; set it")
    if problem == "union_tag_not_found":
        return RecipeError(f"`{key}.name` is missing; expected one of {', '.join(_tags_at(kind, place))}")
    if problem == "union_tag_invalid":
        return unknown(key, str(given["name"]), _tags_at(kind, place))
    if problem == "value_error":
        return RecipeError(first["msg"].removeprefix("Value error, "))
    expected = EXPECTED.get(problem, first["msg"].replace("Input should be ", ""))
    return RecipeError(f"`{key}` is {_brief(given)}; expected {expected}")


def _unknown_setting(kind: type[BaseModel], place: list[str], key: str) -> Exception:
    """Returns the error for an unknown key; for `batch_size`, it suggests `train.batch_size`."""
    last = place[-1]
    known = [key.removesuffix(last) + name for name in _keys_at(kind, place[:-1])]
    if kind is Recipe and len(place) == 1 and not get_close_matches(last, kind.model_fields):
        inner = {name: f"{section}.{name}" for section, name in _inner_keys(kind)}
        near = [inner[name] for name in get_close_matches(last, inner, n=1, cutoff=NEAR)]
        hint = f"did you mean `{near[0]}`?" if near else f"settings of the networks are written `network.{last}`"
        return RecipeError(f"unknown setting `{key}`; {hint}")
    return unknown("setting", key, known)


NEAR = 0.8
"""Minimum similarity between an unknown key and a setting in a section for that setting to be suggested."""


def _inner_keys(kind: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yields the settings in the sections of a settings class, as `(section, name)`."""
    for section, field in kind.model_fields.items():
        for member in _members(field.annotation):
            yield from ((section, name) for name in member.model_fields)


def _brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def _keys_at(kind: type[BaseModel], place: list[str]) -> list[str]:
    for model in _models_along(kind, place):
        kind = model
    return list(kind.model_fields)


def _models_along(kind: type[BaseModel], place: list[str]) -> list[type[BaseModel]]:
    """Returns the settings classes along a path in a recipe. The tag of a union selects one of its members."""
    models: list[type[BaseModel]] = []
    candidates = [kind]
    for part in place:
        candidates = [c for c in candidates if _tag(c) == part] or [
            member for c in candidates if part in c.model_fields for member in _members(c.model_fields[part].annotation)
        ]
        if len(candidates) == 1:
            models.append(candidates[0])
    return models


def _tags_at(kind: type[BaseModel], place: list[str]) -> list[str]:
    """Returns the names of the members of the union at a path."""
    kind = _models_along(kind, place[:-1])[-1] if place[:-1] else kind
    return [_tag(member) for member in _members(kind.model_fields[place[-1]].annotation)]


def _tag(kind: type[BaseModel]) -> Any:
    """Returns the name that identifies a settings class within its union, or None."""
    return kind.model_fields["name"].default if "name" in kind.model_fields else None


def _members(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _members(argument)]


def _without_tags(place: list[str]) -> list[str]:
    """Returns a path without the tags that pydantic inserts between the key of a union and that of its member."""
    tags = {"adam", "rmsprop", "sgd", "constant", "linear", "cosine", "step", "decay", "half_life"}
    unions = ("optimizer", "schedule", "ema")
    return [part for i, part in enumerate(place) if not (i and part in tags and place[i - 1] in unions)]
