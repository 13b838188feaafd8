"""Validation of keyword settings against the annotations of callables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from gan_core.errors import unknown
from gan_core.recipe import explain, parse_value


def keywords(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a callable by name."""
    return dict(inspect.signature(make).parameters)


def checked(
    makers: Iterable[Callable[..., Any]],
    takes: Mapping[str, inspect.Parameter],
    given: Mapping[str, Any],
    where: str = "",
    *,
    fill: bool = True,
) -> dict[str, Any]:
    """Validates settings against the keywords and annotations of callables.

    Args:
        makers: the callables; for a class, its constructor is used.
        takes: the accepted keywords.
        given: values by keyword. A parameter without an annotation accepts any value.
        where: prefix of the settings in messages: `network` for `network.width`.
        fill: whether to add defaults for keywords that are not given.

    Raises:
        RecipeError: a keyword is unknown, or a value does not fit its annotation.
    """
    hints = _hints(makers)
    for name in given:
        if name not in takes:
            raise unknown("setting", f"{where}.{name}", [f"{where}.{known}" for known in takes])
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if p.default is p.empty else p.default)
        for name, p in takes.items()
        if fill or name in given
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    model = create_model("settings", __config__=config, **fields)
    try:
        return model.model_validate(given).model_dump()
    except ValidationError as error:
        raise explain(error, model, where) from error


def read_text(makers: Iterable[Callable[..., Any]], name: str, text: str) -> Any:
    """Converts a command-line text to a keyword's value: unchanged if the keyword takes text, otherwise as YAML.

    Raises:
        RecipeError: the text is not a valid value.
    """
    return text if _takes_text(_hints(makers).get(name, Any)) else parse_value(text)


def _hints(makers: Iterable[Callable[..., Any]]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for make in makers:
        hints |= get_type_hints(make.__init__ if isinstance(make, type) else make, include_extras=True)  # type: ignore[misc]
    return hints


def _takes_text(hint: Any) -> bool:
    return hint is str or isinstance(hint, str) or any(map(_takes_text, get_args(hint)))
