"""Pages of the settings, from the pydantic models and the registries of gan-core and the domains."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from _markdown import code, container, docstring, domains, page, summary, table, toctree
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gan_core import recipe
from gan_core.cards import resolve
from gan_core.data import Spec
from gan_core.play import objectives
from gan_core.play.objectives import OBJECTIVES, Objective
from gan_core.play.regularizers import REGULARIZERS

SETTING = """
A setting is written with dots between its keys. The command line, a recipe file and Python take the same keys:

```sh
gan-image train dcgan --out runs/a --set train.ema=0.999 --set regularizers.r1.weight=5
```

```yaml
train: {ema: 0.999}
regularizers: {r1: {weight: 5}}
```

```py
gan_image.train("dcgan", data="digits", out="runs/a", ema=0.999, changes={"regularizers.r1.weight": 5})
```

`gan-image show SYSTEM` prints all settings of a system, and `RUN/recipe.yaml` those of a run. The settings of the
networks and the game of a system are on [its page](../../systems/index.md).
"""

DEFAULTS = """
Defaults of settings apply to a game that you build yourself. The preset of a system changes some of them: the page of
the [system](../../systems/index.md) lists which, and `gan-image show SYSTEM` prints all values.
"""
IN_PYTHON = """
```py
changes = {"regularizers.r1.weight": 5, "regularizers.ada": {}}
gan_image.train("dcgan", data="digits", out="runs/a", changes=changes)
```

In a game of your own, each adversary takes its regularizers as objects or names:

```py
from gan_core import Adversary
from gan_core.play.regularizers import R1

regularizers = [R1(weight=5, interval=16), "ada"]
adversary = Adversary(discriminator, objective="hinge", regularizers=regularizers)
```
"""

SPECS = """
The data specification of a game describes the form of data that it needs. `data.spec` sets the fields that are not
fixed by its networks; a field that is `null` is determined by the data.
"""
LINKS = {
    "DataSettings": "data.md",
    "TrainSettings": "training.md",
    "HalfLife": "training.md#train-ema-with-a-half-life",
    "PlayerSettings": "recipe.md#players-name",
    "AdversarySettings": "recipe.md#adversaries-name",
    "Start": "recipe.md#start-network",
    **{name: f"optimizers.md#{name.lower()}-{name.lower()}" for name in ("Adam", "RMSprop", "SGD")},
    **{name: f"optimizers.md#{name.lower()}-{name.lower()}" for name in ("Constant", "Linear", "Cosine", "Step")},
}
"""Links to the tables of settings classes that are the types of other settings."""

PRIMITIVES = {int: "integer", float: "number", bool: "`true` or `false`", str: "text", Any: "any value"}
PLURALS = {"integer": "integers", "number": "numbers", "text": "texts", "mapping": "mappings"}


def pages() -> dict[str, str]:
    """Returns the pages by path."""
    made = {
        "recipe": recipe_page(),
        "training": training_page(),
        "optimizers": optimizers_page(),
        "data": data_page(),
        "objectives": objectives_page(),
        "regularizers": regularizers_page(),
    }
    index = page("Settings", SETTING, DEFAULTS, toctree(*made))
    return {f"reference/settings/{name}.md": text for name, text in made.items()} | {
        "reference/settings/index.md": index
    }


def recipe_page() -> str:
    """Returns the page of a recipe's sections."""
    sections: dict[str, type[BaseModel]] = {
        "players.NAME": recipe.PlayerSettings,
        "adversaries.NAME": recipe.AdversarySettings,
        "start.NETWORK": recipe.Start,
    }
    return page(
        "Recipe",
        docstring(recipe.Recipe).text,
        DEFAULTS,
        fields(recipe.Recipe),
        *(part for prefix, model in sections.items() for part in section(f"`{prefix}`", model, prefix)),
    )


def training_page() -> str:
    """Returns the page of the training settings."""
    return page(
        "Training",
        docstring(recipe.TrainSettings).text,
        DEFAULTS,
        fields(recipe.TrainSettings, "train"),
        *section("`train.ema` with a half-life", recipe.HalfLife, "train.ema"),
    )


def optimizers_page() -> str:
    """Returns the page of the optimizers and the schedules of their learning rates."""
    optimizers: tuple[type[BaseModel], ...] = (recipe.Adam, recipe.RMSprop, recipe.SGD)
    schedules: tuple[type[BaseModel], ...] = (recipe.Constant, recipe.Linear, recipe.Cosine, recipe.Step)
    return page(
        "Optimizers",
        "`optimizer` applies to all players, and `players.NAME.optimizer` to one. `optimizer.name` selects the "
        "optimizer; if it is changed, the settings of the previous optimizer are removed.",
        DEFAULTS,
        *(part for model in optimizers for part in section(_name(model), model, "optimizer")),
        "## Schedules of the learning rate",
        *(part for m in schedules for part in section(_name(m), m, "optimizer.schedule", level=3)),
    )


def data_page() -> str:
    """Returns the page of the data settings, data specifications, named datasets, metrics and extractors."""
    parts = ["## Data specifications", SPECS]
    for spec in specs():
        parts += section(spec.__name__, spec, "data.spec", level=3)
    for domain in domains():
        metrics = domain.metrics
        data = [
            (code(card.name), card.title, card.items, card.origin, ", ".join(map(code, card.parts)))
            for card in domain.data.DATASETS
        ]
        measures = [
            (
                code(card.name),
                card.title,
                "; ".join(f"{code(start)} {scale}" if start else str(scale) for start, scale in card.scales.items()),
                "pairs" if card.pairs else card.extracts or "samples",
                f"{card.least:,}",
            )
            for card in metrics.METRICS
        ]
        extractors = [(code(card.name), card.title, card.origin) for card in metrics.EXTRACTORS]
        parts += [
            f"## Datasets of gan-{domain.name}",
            table(["name", "data", "items", "origin", "parts"], data),
            f"## Metrics of gan-{domain.name}",
            table(["name", "metric", "unit and direction", "compares", "minimum number of samples"], measures),
            f"## Feature extractors of gan-{domain.name}",
            table(["name", "extractor", "origin"], extractors),
        ]
    table_of_data = fields(recipe.DataSettings, "data")
    return page("Data and metrics", docstring(recipe.DataSettings).text, DEFAULTS, table_of_data, *parts)


def objectives_page() -> str:
    """Returns the page of the objectives."""
    parts = [part for name, objective in OBJECTIVES.items() for part in (f"## {code(name)}", losses(objective))]
    return page(
        "Objectives",
        "`objective` selects the adversarial losses of every adversary, and `adversaries.NAME.objective` those of one. "
        "Unless stated otherwise, D(x) is the logit of a real sample and D(G(z)) that of a generated one. A high logit "
        "means real.",
        *parts,
    )


def losses(objective: Objective) -> str:
    """Returns the description of an objective: its two losses, or the docstring of the function that creates both."""
    pair = (objective.discriminator, objective.generator)
    lines = [f"- {name}: {formula(each)}" for name, each in zip(("Discriminator", "Generator"), pair, strict=True)]
    maker, local, _ = objective.discriminator.__qualname__.partition(".<locals>")
    if local:
        text = " ".join(docstring(getattr(objectives, maker)).text.split()).removeprefix("Returns ")
        constants = {k: v for each in pair for k, v in inspect.getclosurevars(each).nonlocals.items()}
        lines = [f"- {text[:1].upper()}{text[1:]}"]
        lines += [f"- Constants: {', '.join(f'`{key}` is {value:g}' for key, value in constants.items())}."]
    properties = traits(objective)
    return "\n".join([*lines, *([f"- Properties: {properties}."] if properties else [])])


def formula(loss: Callable[..., Any]) -> str:
    """Returns the summary of a loss's docstring without the verb."""
    return summary(loss).removeprefix("Computes ")


def traits(objective: Objective) -> str:
    """Returns the properties of an objective in words."""
    words = {
        "compares real and fake samples with each other": objective.relative,
        "zero-sum": objective.zero_sum,
        "cross-entropy": objective.cross_entropy,
        "takes energies": objective.energy,
    }
    return ", ".join(text for text, holds in words.items() if holds)


def regularizers_page() -> str:
    """Returns the page of the regularizers."""
    parts = [
        part
        for name, model in REGULARIZERS.items()
        for part in section(f"{model.__name__} (`{name}`)", model, f"regularizers.{name}")
    ]
    return page(
        "Regularizers",
        "`regularizers` applies to all adversaries, and `adversaries.NAME.regularizers` to one; `null` removes one. "
        "They are applied in the order of this page. `--set regularizers.r1={}` adds one with its defaults. In Python:",
        IN_PYTHON,
        DEFAULTS,
        *parts,
    )


def specs() -> list[type[Spec]]:
    """Returns the classes of data specifications of gan-core and the installed domains."""
    for domain in domains():
        for card in domain.data.DATASETS:
            resolve(card.load)
    found, left = [], [Spec]
    while left:
        each = left.pop(0)
        left += each.__subclasses__()
        found += [each] if each is not Spec and each.__module__.startswith("gan_") else []
    return sorted(found, key=lambda spec: (spec.__module__, spec.__name__))


def _name(model: type[BaseModel]) -> str:
    return f"{model.__name__} (`{model.model_fields['name'].default}`)"


def section(title: str, model: type[BaseModel], prefix: str, *, level: int = 2) -> list[str]:
    """Returns the section of a settings class: its docstring and the table of its fields."""
    return [f"{'#' * level} {title}", docstring(model).text, fields(model, prefix)]


def fields(model: type[BaseModel], prefix: str = "") -> str:
    """Returns the table of a model's fields: key with its type, range and default, and meaning."""
    meanings = docstring(model).entries
    rows = [
        (
            beneath(
                code(f"{prefix}.{name}" if prefix else name),
                kind(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation),
                default(field),
            ),
            sentence(meanings.get(name, "")),
        )
        for name, field in model.model_fields.items()
        if name != "name"
    ]
    return setting_table(rows)


def setting_table(rows: Iterable[tuple[str, str]]) -> str:
    """Returns a table of settings and their meanings, which fits on a narrow screen."""
    return container("settings", table(["setting", "meaning"], rows))


def beneath(name: str, *facts: str) -> str:
    """Returns the cell of a setting: its name, and each fact on a line beneath it."""
    return "<br>".join([name, *filter(None, facts)])


def sentence(meaning: str) -> str:
    """Returns a setting's description with a capital first letter, and with `null` instead of None as in recipes."""
    return re.sub(r"\bNone\b", "`null`", meaning[:1].upper() + meaning[1:])


def default(field: FieldInfo) -> str:
    """Returns a field's default as YAML; "required" if it has none, and an empty string for one that has no name."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return f"default: {shown(value)}" if shown(value) else ""


def shown(value: object) -> str:
    """Returns a value as YAML in one line. A settings object that has a name is shown by its name."""
    if isinstance(value, BaseModel):
        named = getattr(value, "name", None)
        return code(named) if named else ""
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return code(text.strip().removesuffix("...").strip())


def kind(annotation: Any) -> str:
    """Returns a type with its range in words: "integer ≥ 1"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        first, *others = kind(arguments[0]).split(" or ", maxsplit=1)  # of `int | None`, the bounds are the integer's
        return " or ".join([f"{first} {interval(arguments[1:])}".strip(), *others])
    if origin in (Union, types.UnionType):
        parts = [kind(each) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys([*parts, *(["`null`"] if type(None) in arguments else [])]))
    if origin is Literal:
        return ", ".join(code(value) for value in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {plural(kind(arguments[0]))}"
    if origin is tuple:
        each = [kind(argument) for argument in arguments]
        return f"{len(each)} {plural(each[0])}" if len(set(each)) == 1 else f"[{', '.join(each)}]"
    if origin in (list, frozenset, set):
        return f"list of {plural(kind(arguments[0]))}"
    if origin is not None and issubclass(origin, Mapping):
        values = kind(arguments[1])
        return "mapping" if values == "any value" else f"mapping of names to {plural(values)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        name = annotation.__name__
        return f"[`{name}`]({LINKS[name]})" if name in LINKS else code(name)
    return PRIMITIVES.get(annotation, code(getattr(annotation, "__name__", annotation)))


def plural(text: str) -> str:
    """Returns the plural of a type in words."""
    word, _, rest = text.partition(" ")
    return f"{PLURALS.get(word, word)} {rest}".strip()


def interval(metadata: Iterable[Any]) -> str:
    """Returns the range that annotations allow: "≥ 1", "in [0, 1)"."""
    flat: list[Any] = []
    for each in metadata:
        flat += each.metadata if isinstance(each, FieldInfo) else [each]
    low: tuple[str, Any] | None = None
    high: tuple[str, Any] | None = None
    for each in flat:
        match each:
            case Ge():
                low = ("[", each.ge)
            case Gt():
                low = ("(", each.gt)
            case Le():
                high = ("]", each.le)
            case Lt():
                high = (")", each.lt)
    if low and high:
        return f"in {low[0]}{number(low[1])}, {number(high[1])}{high[0]}"
    if low:
        return f"{'≥' if low[0] == '[' else '&gt;'} {number(low[1])}"
    if high:
        return f"{'≤' if high[0] == ']' else '&lt;'} {number(high[1])}"
    return ""


def number(value: float) -> str:
    """Returns a bound as text; integers have thousands separators."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
