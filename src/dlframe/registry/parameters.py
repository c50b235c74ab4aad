"""Options of a signature: type, range and check of values."""

from __future__ import annotations

import contextlib
import enum
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from dlframe.types import ConfigError, nearest

Count = Annotated[int, Interval(ge=1)]
Natural = Annotated[int, Interval(ge=0)]
Positive = Annotated[float, Interval(gt=0)]
NonNegative = Annotated[float, Interval(ge=0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Probability = Annotated[float, Interval(ge=0, lt=1)]

PLACE = "path"
"""Mark of a text that is a path."""
Place = Annotated[str, PLACE]

REQUIRED = inspect.Parameter.empty
"""Default of a required parameter."""

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "Path": Path}

ENUM = "names of an Enum"
"""Mark of a type whose values are names of an `Enum`."""


@dataclass(frozen=True)
class Parameter:
    """Option with type, range, default and meaning."""

    name: str
    annotation: Any
    default: Any = REQUIRED
    doc: str = ""

    def __post_init__(self) -> None:
        describe_type(self.annotation)
        if self.default is not REQUIRED:
            object.__setattr__(self, "default", validate(self.annotation, self.default))

    def with_default(self, default: Any) -> Parameter:
        """Return the option with another default; ValueError if it is invalid."""
        return Parameter(self.name, self.annotation, default, self.doc)

    @property
    def rule(self) -> str:
        """Type and range in words: "float > 0"."""
        return describe_type(self.annotation)

    def check(self, value: Any, key: str) -> Any:
        """Return `value` in the parameter's type; `ConfigError` if invalid."""
        if value is REQUIRED or value == "???" or (value == "" and self.default is REQUIRED):
            raise ConfigError(f"{key}: must be given: {self.rule}. Try: {key}=...", key)
        try:
            return validate(self.annotation, value)
        except ValueError as error:
            raise ConfigError(f"{key}: must be {error}. Received: {value!r}.{self._hint(value, key)}", key) from None

    def _hint(self, value: Any, key: str) -> str:
        """Return what may be meant by a value of another type."""
        bare = parts(self.annotation)[0]
        if typing.get_origin(bare) is tuple and re.fullmatch(r"[\w.-]+", str(value)):
            items = typing.get_args(bare)
            one = Ellipsis in items
            with contextlib.suppress(ValueError):  # a list of one; or the size of an image, which has two sides
                if one or type(value) is int:
                    alike = validate(self.annotation, [value] * (1 if one else len(items)))
                    return f" Try: {key}=[{','.join(map(str, alike))}]"
        if isinstance(value, str):
            takes_bool = bool in (typing.get_args(bare) if is_union(bare) else (bare,))
            words = {"yes": "true", "on": "true", "no": "false", "off": "false"} if takes_bool else {}
            meant = words.get(value.lower())
            known = (*literals(self.annotation), *(("true", "false") if takes_bool and bare is not bool else ()))
            return f" Did you mean {meant}?" if meant else nearest(value, known)
        is_number = isinstance(value, (bool, int, float))
        return " To have it as text in a file, quote it." if is_number and (bare is str or literals(bare)) else ""


@dataclass(frozen=True)
class Option:
    """Additions to an option of an adopted class; the signature gives the rest.

    Attributes:
        annotation: Type and range: `Positive`.
        meaning: Meaning, which `show` prints.
        default: Default value.
        of: Name of the class's parameter, if the option has another name.
        values: Choice -> value of the class: {"l2": False, "decoupled": True}. The keys are the type.
    """

    annotation: Any = REQUIRED
    meaning: str = ""
    default: Any = field(default=REQUIRED, kw_only=True)
    of: str = field(default="", kw_only=True)
    values: Mapping[Any, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.meaning, str) or not isinstance(self.of, str):
            raise ValueError("meaning and 'of' of an option must be strings")
        if not isinstance(self.values, Mapping) or (self.values and self.annotation is not REQUIRED):
            raise ValueError("values of an option must be a dict and exclude a type")


def parts(annotation: Any) -> tuple[Any, Interval | None, bool]:
    """Return the bare type or union, its range, and whether None is allowed."""
    optional = False
    if is_union(annotation):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional = len(members) < len(typing.get_args(annotation))
        annotation = typing.Union[tuple(members)]  # noqa: UP007
    bounds = None
    if typing.get_origin(annotation) is Annotated:
        annotation, *metadata = typing.get_args(annotation)
        limits = {name: getattr(m, name) for m in metadata for name in ("gt", "ge", "lt", "le") if hasattr(m, name)}
        bounds = Interval(**limits) if limits else None
    return annotation, bounds, optional


def place(text: str) -> str:
    """Return a path as a config has it: "~" written out, no slash at its end; a relative one is below the current folder.

    Raises:
        ValueError: No system could have it.
    """
    if not text or "://" in text:
        return text
    written = os.path.expanduser(text)
    if written.startswith("~"):
        raise ValueError(f"a path: there is no user {written.split(os.sep)[0]!r}")
    path = os.fsencode(written)
    if len(path) > 4095 or any(len(part) > 255 for part in path.split(b"/")):
        raise ValueError("a path of at most 4,095 bytes, and 255 for each part")
    return written.rstrip("/") or "/"


def of_config(kind: Any) -> Any:
    """Return a type as a config has it: instead of the members of an `Enum` their names."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Annotated[Literal[tuple(kind.__members__)], ENUM]
    if is_union(kind):
        return typing.Union[tuple(map(of_config, typing.get_args(kind)))]  # noqa: UP007
    return kind


def built(kind: Any, value: Any) -> Any:
    """Return the value of a config as a class takes it: a `Path`, a member of an `Enum`.

    Args:
        kind: Annotation of the imported class.
        value: As it is in the config.
    """
    bare = parts(kind)[0]
    if is_union(bare):
        changed = (built(member, value) for member in typing.get_args(bare))
        return next((new for new in changed if new is not value), value)
    if typing.get_origin(bare) in (tuple, list) and isinstance(value, (tuple, list)):
        return type(value)(built(typing.get_args(bare)[0], item) for item in value)
    if bare is Path and isinstance(value, str):
        return Path(value)
    if isinstance(bare, type) and issubclass(bare, enum.Enum) and isinstance(value, str) and value in bare.__members__:
        return bare[value]
    return value


def is_converted(annotation: Any) -> bool:
    """Return whether a class takes something else than a config has: a `Path`, or a member of an `Enum`."""
    if typing.get_origin(annotation) is Annotated and ENUM in annotation.__metadata__:
        return True
    return annotation is Path or any(map(is_converted, typing.get_args(annotation)))


def is_union(annotation: Any) -> bool:
    """Return whether an annotation is a union of types."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def literals(annotation: Any) -> tuple[str, ...]:
    """Return the strings of a `Literal`; empty for another type."""
    bare = parts(annotation)[0]
    if is_union(bare):
        return tuple(text for member in typing.get_args(bare) for text in literals(member))
    return tuple(map(str, typing.get_args(bare))) if typing.get_origin(bare) is Literal else ()


def describe_type(annotation: Any) -> str:
    """Describe an annotation in words; ValueError for an unsupported type."""
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
        text = "path" if bare is Path else bare.__name__
    else:
        raise ValueError(f"int, float, str, bool, Path, Literal, Enum or a list of these; not {annotation}")
    if bounds:
        if bare not in (int, float):
            raise ValueError(f"a number where it has an Interval; not {bare}")
        signs = [(">", bounds.gt), (">=", bounds.ge), ("<", bounds.lt), ("<=", bounds.le)]
        text += " " + " and ".join(f"{sign} {limit}" for sign, limit in signs if limit is not None)
    return text + (" or null" if optional else "")


def validate(annotation: Any, value: Any) -> Any:
    """Return `value` in the type of `annotation`; ValueError if invalid.

    Strings are not converted to numbers.
    """
    bare, bounds, optional = parts(annotation)
    wrong = ValueError(describe_type(annotation))
    if PLACE in getattr(annotation, "__metadata__", ()) and isinstance(value, str):
        return place(value)
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
            return origin(validate(kind, item) for kind, item in zip(kinds, value, strict=True))
        except ValueError:
            raise wrong from None
    elif bare is Path:
        if not isinstance(value, (str, Path)):
            raise wrong
        return place(str(value))
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
