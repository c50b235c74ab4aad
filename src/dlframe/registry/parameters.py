"""One option of a signature: its type and range, and the check of a value against them."""

from __future__ import annotations

import contextlib
import inspect
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from dlframe.types import ConfigError, nearest

Count = Annotated[int, Interval(ge=1)]
Natural = Annotated[int, Interval(ge=0)]
Positive = Annotated[float, Interval(gt=0)]
NonNegative = Annotated[float, Interval(ge=0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Probability = Annotated[float, Interval(ge=0, lt=1)]

REQUIRED = inspect.Parameter.empty
"""The default of a parameter that has none."""

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True)
class Parameter:
    """One option: its type, range, default and meaning."""

    name: str
    annotation: Any
    default: Any = REQUIRED
    doc: str = ""

    def __post_init__(self) -> None:
        describe_type(self.annotation)
        if self.default is not REQUIRED:
            object.__setattr__(self, "default", validate(self.annotation, self.default))

    @property
    def rule(self) -> str:
        """The type and the range in words: "float > 0"."""
        return describe_type(self.annotation)

    def check(self, value: Any, key: str) -> Any:
        """`value` in the parameter's type; a `ConfigError` that names `key` where it breaks the rule."""
        if value is REQUIRED or value == "???" or (value == "" and self.default is REQUIRED):
            raise ConfigError(f"{key}: must be given: {self.rule}. Try: {key}=...", key)
        try:
            return validate(self.annotation, value)
        except ValueError as error:
            hint = nearest(value, literals(self.annotation)) if isinstance(value, str) else ""
            raise ConfigError(f"{key}: must be {error}. Received: {value!r}.{hint}", key) from None


@dataclass(frozen=True)
class Option:
    """What an adopted class's signature does not say of an option; what is left out here is taken from it.

    Attributes:
        annotation: Type and range: `Positive`.
        meaning: One sentence, which `show` prints.
        default: Its default here.
        of: The class's own name for it, where the option has another.
        values: What the class takes for each choice: {"l2": False, "decoupled": True}. The keys are the type.
    """

    annotation: Any = REQUIRED
    meaning: str = ""
    default: Any = field(default=REQUIRED, kw_only=True)
    of: str = field(default="", kw_only=True)
    values: Mapping[Any, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.meaning, str) or not isinstance(self.of, str):
            raise ValueError("the meaning and the class's own name of an option are texts")
        if not isinstance(self.values, Mapping) or (self.values and self.annotation is not REQUIRED):
            raise ValueError("the values of an option are a dict, whose keys are its type")


def parts(annotation: Any) -> tuple[Any, Interval | None, bool]:
    """The bare type, or the union of several, its range and whether None is allowed."""
    optional = False
    if is_union(annotation):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional = len(members) < len(typing.get_args(annotation))
        annotation = typing.Union[tuple(members)]  # noqa: UP007
    bounds = None
    if typing.get_origin(annotation) is Annotated:
        annotation, *metadata = typing.get_args(annotation)
        bounds = next((m for m in metadata if isinstance(m, Interval)), None)
    return annotation, bounds, optional


def is_union(annotation: Any) -> bool:
    """Whether an annotation is a choice between types."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def literals(annotation: Any) -> tuple[str, ...]:
    """The strings that a `Literal` allows; empty for another type."""
    bare = parts(annotation)[0]
    if is_union(bare):
        return tuple(text for member in typing.get_args(bare) for text in literals(member))
    return tuple(map(str, typing.get_args(bare))) if typing.get_origin(bare) is Literal else ()


def describe_type(annotation: Any) -> str:
    """An annotation in words; ValueError for a type that a config cannot hold."""
    bare, bounds, optional = parts(annotation)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if is_union(bare):
        text = " or ".join(describe_type(member) for member in arguments)
    elif origin is Literal:
        text = "one of " * (len(arguments) > 1) + ", ".join(str(a) for a in arguments)
    elif origin in (tuple, list):
        if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
            text = f"list of {describe_type(arguments[0])}"
        else:
            text = "[" + ", ".join(describe_type(a) for a in arguments) + "]"
    elif bare in TYPES.values():
        text = bare.__name__
    else:
        raise ValueError(f"int, float, str, bool, Literal or a list of these; not {annotation}")
    if bounds:
        if bare not in (int, float):
            raise ValueError(f"a number where it has an Interval; not {bare}")
        signs = [(">", bounds.gt), (">=", bounds.ge), ("<", bounds.lt), ("<=", bounds.le)]
        text += " " + " and ".join(f"{sign} {limit}" for sign, limit in signs if limit is not None)
    return text + (" or null" if optional else "")


def validate(annotation: Any, value: Any) -> Any:
    """`value` in the type of `annotation`; ValueError with the rule where it does not fit. No text becomes a number."""
    bare, bounds, optional = parts(annotation)
    wrong = ValueError(describe_type(annotation))
    if value is None:
        if optional:
            return None
        raise wrong
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if is_union(bare):
        for member in arguments:
            with contextlib.suppress(ValueError):
                return validate(member, value)
        raise wrong
    if origin is Literal:
        if value not in arguments or type(value) is not type(arguments[arguments.index(value)]):
            raise wrong
    elif origin in (tuple, list):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise wrong
        if origin is tuple and arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise wrong
        kinds = arguments if origin is tuple and arguments[-1] is not Ellipsis else [arguments[0]] * len(value)
        try:
            return tuple(validate(kind, item) for kind, item in zip(kinds, value, strict=True))
        except ValueError:
            raise wrong from None
    elif bare is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    elif type(value) is not bare or (bare is int and abs(value) >= 2**63):
        raise wrong
    if bare is float and not math.isfinite(value):
        raise wrong
    if bounds:
        holds = (
            (bounds.gt is None or value > bounds.gt)
            and (bounds.ge is None or value >= bounds.ge)
            and (bounds.lt is None or value < bounds.lt)
            and (bounds.le is None or value <= bounds.le)
        )
        if not holds:
            raise wrong
    return value
