"""Conditions: properties of a sample that users choose, such as a class or a caption.

A game declares its conditions by name and kind (`Game.conditions`). A kind validates the user's value and returns one
value per sample: an integer tensor for `Classes`, strings for `Text`, a tensor for `Given`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor

from gan_core.errors import RecipeError, unknown

Values = Tensor | list[str]
"""A condition's values: a tensor `[count, …]`, or `count` strings."""


def _above_0_and_at_most_1(value: float) -> float:
    if not 0 < value <= 1:
        raise ValueError(f"`truncation` is {value}; expected a number above 0 and at most 1")
    return value


Truncation = Annotated[float, AfterValidator(_above_0_and_at_most_1)] | None
"""Truncation ψ of a latent, in (0, 1]: lower values give more typical but less varied samples; None disables it."""


class Condition(ABC):
    """Base class of conditions: validates a user's value and returns one value per sample."""

    @property
    def required(self) -> bool:
        """Whether a user must give a value."""
        return False

    @abstractmethod
    def values(self, name: str, given: Any, count: int) -> Values:
        """Returns the values of `count` samples.

        Args:
            name: name of the condition, for messages.
            given: the user's value; None selects the default.
            count: number of samples.

        Raises:
            RecipeError: the value is not valid, or it is None and the condition has no default.
        """

    @abstractmethod
    def describe(self, values: Values) -> list[str]:
        """Returns a short text for each value, for `labels.csv`; an empty list if values cannot be written as text."""

    def read(self, name: str, texts: Sequence[str]) -> Any:
        """Converts the texts given on the command line to values that `values` accepts, one per text.

        Raises:
            RecipeError: the condition cannot be given as text.
        """
        return list(texts)


@dataclass(frozen=True)
class Classes(Condition):
    """A class, given as a number or name, a sequence of these, or an integer tensor (default: all classes in turn).

    Attributes:
        number: number of classes.
        names: names of the classes, in the order of their numbers; empty if they are not known. A text is looked up
            among the names first. If it is not a name, it is parsed as a number, unless all names are numbers.
    """

    number: int
    names: tuple[str, ...] = ()

    def values(self, name: str, given: Any, count: int) -> Tensor:
        if given is None:
            return torch.arange(count) % self.number
        if isinstance(given, str):
            given = self._number(name, given)
        elif isinstance(given, Sequence):
            given = [self._number(name, one) if isinstance(one, str) else one for one in given]
        try:
            numbers = torch.as_tensor(given).cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(
                f"`{name}` is {given!r}; expected a class number or name, or one for each sample"
            ) from error
        if numbers.is_floating_point() or numbers.dtype == torch.bool:
            raise RecipeError(f"`{name}` is {given}; expected a whole number")
        if numbers.ndim and numbers.shape != (count,):
            shape = f"`{name}` has the shape {list(numbers.shape)}"
            raise RecipeError(f"{shape}; give one class, or one for each of {count} samples")
        wrong = numbers[(numbers < 0) | (numbers >= self.number)]
        if wrong.numel():
            raise RecipeError(f"`{name}` is {int(wrong.flatten()[0])}; expected 0 to {self.number - 1}")
        return numbers.long().expand(count)

    def _number(self, name: str, text: str) -> int:
        if text in self.names:
            return self.names.index(text)
        in_order = list(self.names) == [str(k) for k in range(len(self.names))]
        if self.names and not in_order and all(one.isdecimal() for one in self.names):
            raise unknown(name, text, self.names)  # of classes `1` to `9`, the text `0` would be the class `1`
        try:
            return int(text)
        except ValueError:
            pass
        if self.names:
            raise unknown(name, text, self.names)
        known = "this model has no class names"
        raise RecipeError(f"`{name}` is {text}; {known}: give a number from 0 to {self.number - 1}")

    def describe(self, values: Values) -> list[str]:
        return [self.names[k] if k < len(self.names) else str(k) for k in map(int, values)]


@dataclass(frozen=True)
class Text(Condition):
    """A text, or a sequence of texts, one for each sample.

    Attributes:
        default: texts that are used in turn if the user gives none. If it is empty, a text is required.
    """

    default: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return not self.default

    def values(self, name: str, given: Any, count: int) -> list[str]:
        if given is None:
            if self.required:
                raise RecipeError(f"`{name}` is missing; give a text, or one for each of {count} samples")
            return [self.default[k % len(self.default)] for k in range(count)]
        if isinstance(given, str):
            return [given] * count
        texts = list(given) if isinstance(given, Sequence) else [given]
        others = [type(text).__name__ for text in texts if not isinstance(text, str)]
        if others:
            raise RecipeError(f"`{name}` is {others[0]}; expected a text, or one for each sample")
        if len(texts) != count:
            raise RecipeError(f"`{name}` has {len(texts)} texts; give one, or one for each of {count} samples")
        return texts

    def describe(self, values: Values) -> list[str]:
        return [str(text) for text in values]


@dataclass(frozen=True)
class Given(Condition):
    """A tensor for each sample, such as a source image; required.

    Attributes:
        shape: shape of one sample's tensor; None for any shape.
        dtype: dtype to which the values are converted.
    """

    shape: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.float32

    @property
    def required(self) -> bool:
        return True

    def values(self, name: str, given: Any, count: int) -> Tensor:
        wanted = "a tensor" if self.shape is None else f"a tensor {list(self.shape)}"
        if given is None:
            raise RecipeError(f"`{name}` is missing; give {wanted} for each of {count} samples")
        try:
            values = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(f"`{name}` is {type(given).__name__}; expected {wanted} for each sample") from error
        if values.shape[:1] != (count,) or self.shape not in (None, tuple(values.shape[1:])):
            shape = f"`{name}` has the shape {list(values.shape)}"
            raise RecipeError(f"{shape}; give {wanted} for each of {count} samples")
        return values.to(self.dtype)

    def describe(self, values: Values) -> list[str]:
        return []

    def read(self, name: str, texts: Sequence[str]) -> Any:
        raise RecipeError(f"`{name}` takes tensors, not text; use game.generate(…, {name}=…) in Python")
