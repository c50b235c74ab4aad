"""Signatures parsed from source, limited to types and literals."""

from __future__ import annotations

import ast
import inspect
import itertools
import operator
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from annotated_types import Interval

from dlframe.registry import parameters
from dlframe.registry.parameters import Option, literals

ALIASES = {name: value for name, value in vars(parameters).items() if typing.get_origin(value) is Annotated}
"""Importable types such as `Count` and `Fraction`."""

LONGEST = 1000
"""Maximum parts of a type or value, with aliases written out: aliases of aliases could stand for 2^50 parts."""

ARGUMENTS = r"^Args:\n((?:[ \t]+.*\n?|\n)+)"
"""Section on parameters of a Google-style docstring."""

Row = tuple[str, Any, Any]
"""Name, annotation and default of a parameter; `REQUIRED` if missing."""


@dataclass(frozen=True)
class Bound:
    """Expression with the scope of its names."""

    node: ast.expr
    scope: Scope


class Scope:
    """Meanings of names: types, and expressions that a file assigns to a name once.

    Args:
        types: Types by name.
        elsewhere: Function that returns the meaning of a name that is imported; None if unknown.
    """

    def __init__(self, types: Mapping[str, Any] = MappingProxyType({}), elsewhere: Callable[[str], Any] | None = None) -> None:
        self._values: dict[str, Any] = dict(types)
        self._elsewhere = elsewhere

    def assign(self, name: str, value: ast.expr | None) -> None:
        """Note an assignment; a name with several, or with one that is no expression, has no meaning."""
        known = self._values.get(name)
        self._values[name] = AMBIGUOUS if value is None or isinstance(known, ast.expr) or known is AMBIGUOUS else value

    def define(self, name: str, kind: Any) -> None:
        """Note a type that the file defines."""
        self._values[name] = kind

    def own(self, name: str) -> Any:
        """Return what is assigned to a name in the file; None if nothing."""
        value = self._values.get(name)
        return value if isinstance(value, ast.expr) or value is AMBIGUOUS else None

    def find(self, name: str) -> Any:
        """Return a type, or an expression with its scope; None if unknown.

        Raises:
            ValueError: The name has several values.
        """
        value = self._values.get(name)
        if value is AMBIGUOUS:
            raise ValueError(f"'{name}' is not assigned once, to an expression")
        if isinstance(value, ast.expr):
            return Bound(value, self)
        if value is None and self._elsewhere:
            return self._elsewhere(name)
        return value

    def without(self, names: Iterable[str]) -> Scope:
        """Return the scope without some types, and without what is imported: large packages import much."""
        scope, dropped = Scope(), set(names)
        scope._values = {name: value for name, value in self._values.items() if name not in dropped}
        return scope


AMBIGUOUS = object()
"""Meaning of a name that is assigned twice."""


def with_arguments(doc: str, base: str) -> str:
    """Return a docstring; without `Args:`, with that section of the base class."""
    section = re.search(ARGUMENTS, inspect.cleandoc(base), re.MULTILINE)
    return doc if not section or re.search(ARGUMENTS, doc, re.MULTILINE) else f"{doc.rstrip()}\n\n{section[0]}"


UNREADABLE = (ValueError, TypeError, SyntaxError, IndexError, RecursionError)
"""Errors of the functions below for unsupported syntax."""


def arguments(function: ast.FunctionDef, *, method: bool) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yield parameters with defaults, except `self` and variable ones."""
    given = function.args
    positional = (given.posonlyargs + given.args)[1 if method else 0 :]
    missing = [None] * max(0, len(positional) - len(given.defaults))
    defaults = [*missing, *given.defaults[max(0, len(given.defaults) - len(positional)) :], *given.kw_defaults]
    yield from zip([*positional, *given.kwonlyargs], defaults, strict=True)


ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: base**exponent if abs(exponent) <= 64 else None,
}
"""Operations on numbers in a default value."""


def literal(node: ast.AST, scope: Scope, parts: Iterator[int] | None = None) -> Any:
    """Return the value of a literal, of its name, or of arithmetic on numbers; else ValueError. `parts` counts its parts."""
    parts = parts or itertools.count()
    if next(parts) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} parts")
    match node:
        case ast.Name(id=name):
            if isinstance(found := scope.find(name), Bound):
                return literal(found.node, found.scope, parts)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return (tuple if isinstance(node, ast.Tuple) else list)(literal(item, scope, parts) for item in items)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            numbers = [literal(side, scope, parts) for side in (left, right)]
            if all(type(number) in (int, float) for number in numbers):
                try:
                    value = ARITHMETIC[type(op)](*numbers)
                except (ArithmeticError, ValueError) as error:
                    raise ValueError(f"'{ast.unparse(node)}': {error}") from None
                if type(value) in (int, float) and abs(value) < 2**63:
                    return value
        case ast.Call(func=ast.Name(id="Path") | ast.Attribute(attr="Path"), args=[ast.Constant(value=str(text))], keywords=[]):
            return text
        case ast.Attribute(value=ast.Name(id=name), attr=member) if member in literals(scope.find(name)):
            return member
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            if type(number := literal(operand, scope, parts)) in (int, float):
                return -number
        case _:
            try:
                return ast.literal_eval(node)
            except (ValueError, TypeError):
                pass
    raise ValueError(f"'{ast.unparse(node)}' is not a literal")


def resolve(node: ast.AST, scope: Scope, parts: Iterator[int] | None = None) -> Any:
    """Return the type of an annotation's syntax, without running code; `parts` counts its parts."""
    parts = parts or itertools.count()
    if next(parts) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} parts")
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return resolve(ast.parse(text, mode="eval").body, scope, parts)
        case ast.Name(id=name) if (found := scope.find(name)) is not None:
            return resolve(found.node, found.scope, parts) if isinstance(found, Bound) else found
        case ast.Attribute(attr=name) if name in ALIASES or name == "Path":
            return ALIASES.get(name, Path)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[resolve(left, scope, parts), resolve(right, scope, parts)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id=kind) | ast.Attribute(attr=kind), slice=inner):
            items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            if kind == "Literal":
                return Literal[tuple(literal(item, scope, parts) for item in items)]
            if kind == "Union":
                return typing.Union[tuple(resolve(item, scope, parts) for item in items)]  # noqa: UP007
            if kind == "Optional":
                return typing.Union[resolve(inner, scope, parts), None]  # noqa: UP007
            if kind == "Annotated":
                return Annotated[(resolve(items[0], scope, parts), interval(items[1:], scope))]
            if kind in ("tuple", "Tuple", "list", "List", "Sequence") and items:
                inside = [... if isinstance(i, ast.Constant) and i.value is ... else resolve(i, scope, parts) for i in items]
                return tuple[tuple(inside)] if kind in ("tuple", "Tuple") else list[inside[0]]
    raise ValueError(f"'{ast.unparse(node)}' is not int, float, str, bool, Path, Literal, Enum, Annotated or a list of these")


def interval(nodes: Sequence[ast.AST], scope: Scope) -> Interval:
    """Return the range of the syntax `Interval(gt=0)`, or of `Gt(0), Le(1)`."""
    bounds: dict[str, Any] = {}
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="Interval") | ast.Attribute(attr="Interval"), args=[], keywords=keywords):
                bounds |= {str(keyword.arg): literal(keyword.value, scope) for keyword in keywords}
            case ast.Call(
                func=ast.Name(id="Gt" | "Ge" | "Lt" | "Le" as sign) | ast.Attribute(attr="Gt" | "Ge" | "Lt" | "Le" as sign),
                args=[limit],
                keywords=[],
            ):
                bounds[sign.lower()] = literal(limit, scope)
            case _:
                raise ValueError(f"'{ast.unparse(node)}' is not an Interval(...)")
        if not all(type(bound) in (int, float) for bound in bounds.values()):
            raise ValueError(f"'{ast.unparse(node)}' is not an Interval(...)")
    return Interval(**bounds)


def option(node: ast.AST, scope: Scope) -> Option:
    """Return an option of an `adopt` statement: `Option(...)` or a type."""
    if isinstance(node, ast.Name) and isinstance(found := scope.find(node.id), Bound):
        node, scope = found.node, found.scope
    match node:
        case ast.Call(func=ast.Name(id="Option") | ast.Attribute(attr="Option"), args=positional, keywords=keywords):
            fields = dict(zip(("annotation", "meaning"), positional, strict=False))
            fields |= {str(k.arg): k.value for k in keywords}
            if len(positional) > 2 or set(fields) - set(Option.__dataclass_fields__):
                raise ValueError(f"'{ast.unparse(node)}' is not Option(type, meaning, default=..., of=..., values=...)")
            return Option(**{k: (resolve if k == "annotation" else literal)(v, scope) for k, v in fields.items()})
    return Option(resolve(node, scope))


SECTIONS = (
    (r"^(?:Args|Arguments|Parameters):\n((?:[ \t]+.*\n?|\n)+)", r"(\w+)(?: \(.*?\))?:(?: (.*))?$"),
    (r"^Parameters\n-{3,}\n((?:(?!.*\n-{3,}\n).*\n?)+)", r"(\w+)(?: ?:.*)?()$"),
)
"""Patterns of sections on parameters and of a parameter in each, for Google and numpydoc."""


def arg_descriptions(doc: str) -> dict[str, str]:
    """Return name -> meaning of the parameters in a Google or numpydoc docstring."""
    found: dict[str, str] = {}
    for section, head in SECTIONS:
        if not (match := re.search(section, inspect.cleandoc(doc), re.MULTILINE)):
            continue
        current = ""
        for line in textwrap.dedent(match[1]).split("\n"):
            if start := re.match(head, line):
                current, found[start[1]] = start[1], (start[2] or "").strip()
            elif current and line.strip():
                found[current] = f"{found[current]} {line.strip()}".lstrip()
    return found
