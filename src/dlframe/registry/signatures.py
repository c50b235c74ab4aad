"""Signatures parsed from source, limited to types and literals."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from dlframe.registry import parameters
from dlframe.registry.parameters import REQUIRED, TYPES, Option
from dlframe.types import RegistrationError, read_bytes

ALIASES = {name: value for name, value in vars(parameters).items() if typing.get_origin(value) is Annotated}
"""Importable types such as `Count` and `Fraction`."""

LARGEST = 2**20
"""Maximum bytes of a file."""

LONGEST = 1000
"""Maximum parts of a type, with aliases written out: aliases of aliases could stand for 2^50 parts."""

ARGUMENTS = r"^Args:\n((?:[ \t]+.*\n?|\n)+)"
"""Section on parameters of a Google-style docstring."""

Row = tuple[str, Any, Any]
"""Name, annotation and default of a parameter; `REQUIRED` if missing."""


@dataclass(frozen=True)
class Registration:
    """Class or function with a decorator `@variable.register("name", ...)`."""

    variable: str
    name: Any
    facts: dict[str, Any]
    node: ast.ClassDef | ast.FunctionDef
    where: str
    file: Source

    @property
    def doc(self) -> str:
        """Docstring, with the parameters of an inherited constructor."""
        doc = ast.get_docstring(self.node) or ""
        found = self.file.constructor(self.node) if isinstance(self.node, ast.ClassDef) else None
        return with_arguments(doc, found.doc if found else "")

    def rows(self, injected: tuple[str, ...]) -> Iterator[Row]:
        """Yield the parameters except `self`; types of `injected` ones are ignored.

        Raises:
            ValueError: (name of the parameter, message).
        """
        function, scope = self.node, self.file.scope
        if isinstance(function, ast.ClassDef):
            found = self.file.constructor(function)
            if found is None:
                return
            function, scope = found.function, found.scope
        if variable := function.args.vararg or function.args.kwarg:
            raise ValueError(variable.arg, "is variable; every option must have a name and a type")
        for argument, default in arguments(function, method=function is not self.node):
            if argument.arg in injected:
                yield argument.arg, REQUIRED, REQUIRED
                continue
            try:
                annotation = resolve(argument.annotation, scope) if argument.annotation else REQUIRED
                value = literal(default, scope) if default else REQUIRED
            except UNREADABLE as error:
                raise ValueError(argument.arg, f"cannot be read from the source: {error}") from None
            yield argument.arg, annotation, value


@dataclass(frozen=True)
class Call:
    """Call `variable.adopt("name", "module:Class", option=...)` in a file."""

    variable: str
    node: ast.Call
    where: str
    scope: dict[str, Any]
    is_statement: bool

    def read(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the evaluated arguments.

        Raises:
            RegistrationError: An argument is not a literal (for an option: a type or an `Option(...)`), or the call is not a
                top-level statement, which always runs.
        """
        if not self.is_statement:
            raise RegistrationError(f"{self.where}: 'adopt' must be a top-level statement of the file")
        values: dict[str, Any] = {}
        if not 2 <= len(self.node.args) <= 3:
            raise RegistrationError(f'{self.where}: write variable.adopt("name", "package.module:Class", option=type)')
        try:
            positional = [literal(node, self.scope) for node in self.node.args]
        except UNREADABLE as error:
            raise RegistrationError(f"{self.where}: name and target must be literals: {error}") from None
        for keyword in self.node.keywords:
            if keyword.arg is None:
                raise RegistrationError(f"{self.where}: '**' cannot be read from the source. Write out the options")
            if keyword.arg in values:
                raise RegistrationError(f"{self.where}: '{keyword.arg}' must be given once")
            stated = keyword.arg in ("facts", "fixed", "given", "omit")
            try:
                values[keyword.arg] = (literal if stated else option)(keyword.value, self.scope)
            except UNREADABLE as error:
                kind = "a literal" if stated else "a type, or Option(type, meaning, default=...)"
                raise RegistrationError(f"{self.where}: '{keyword.arg}' must be {kind}: {error}") from None
        return positional, values


class Source:
    """Parsed Python file.

    Args:
        path: Python file.
        only: Skip classes and functions with other names, and members after the constructor, to save four fifths of the
            time.

    Raises:
        RegistrationError: The file cannot be parsed.
    """

    def __init__(self, path: Path, only: str = "") -> None:
        self.path = path
        try:
            self.text = read_bytes(path, LARGEST)
            self.tree = (outline(self.text, only) if only else None) or ast.parse(self.text)
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise RegistrationError(f"{path}{line}: cannot be read: {getattr(error, 'msg', error)}") from None
        self.scope = TYPES | ALIASES
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.scope[node.targets[0].id] = node.value
        self.classes = {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    def imported(self, module: str) -> dict[str, str]:
        """Return names imported from `module`: local name -> original name."""
        nodes = [node for node in self.tree.body if isinstance(node, ast.ImportFrom) and node.module == module]
        return {alias.asname or alias.name: alias.name for node in nodes for alias in node.names}

    def registrations(self) -> Iterator[Registration]:
        """Yield every class and function with a `register` decorator.

        Raises:
            RegistrationError: A name or metadata is not a literal.
        """
        for node in self.tree.body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                continue
            where = f"{self.path}:{node.lineno}"
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id=variable) | ast.Attribute(attr=variable), attr="register")
                    ):
                        try:
                            name = literal(decorator.args[0], {})
                            facts = {str(k.arg): literal(k.value, {}) for k in decorator.keywords}
                        except (ValueError, IndexError, RecursionError):
                            message = f"{where}: name and metadata of a registration must be literals"
                            raise RegistrationError(message) from None
                        yield Registration(variable, name, facts, node, where, self)

    def adoptions(self) -> Iterator[Call]:
        """Yield every call of `adopt`, at any level."""
        if b"adopt" not in self.text:
            return
        statements = {node.value for node in self.tree.body if isinstance(node, ast.Expr)}
        for node in ast.walk(self.tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=variable) | ast.Attribute(attr=variable), attr="adopt")):
                    where = f"{self.path}:{node.lineno}"
                    yield Call(variable, node, where, self.scope, node in statements)

    def constructor(self, node: ast.ClassDef) -> Constructor | None:
        """Return the `__init__` of a class or of a base in this file or in dlframe."""
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return Constructor(item, self.scope, ast.get_docstring(node) or "")
        for base in node.bases:
            if not isinstance(base, ast.Name):
                continue
            if base.id in self.classes:
                found = self.constructor(self.classes[base.id])
            else:
                found = self._constructor_elsewhere(base.id)
            if found:
                return found
        return None

    def _constructor_elsewhere(self, name: str) -> Constructor | None:
        """Return the `__init__` of a class imported from dlframe."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlframe."):
                file = PACKAGE.joinpath(*str(node.module).split(".")[1:]).with_suffix(".py")
                for alias in node.names:
                    if (alias.asname or alias.name) == name and file.is_file():
                        source = _known(file)
                        return source.constructor(source.classes[alias.name]) if alias.name in source.classes else None
        return None


@dataclass(frozen=True)
class Constructor:
    """Constructor, scope of its annotations and docstring of its class."""

    function: ast.FunctionDef
    scope: dict[str, Any]
    doc: str


PACKAGE = Path(__file__).parent.parent
"""Folder of dlframe."""


@functools.lru_cache(maxsize=16)
def _known(file: Path) -> Source:
    return Source(file)


def with_arguments(doc: str, base: str) -> str:
    """Return a docstring; without `Args:`, with that section of the base class."""
    section = re.search(ARGUMENTS, inspect.cleandoc(base), re.MULTILINE)
    return doc if not section or re.search(ARGUMENTS, doc, re.MULTILINE) else f"{doc.rstrip()}\n\n{section[0]}"


def outline(text: bytes, name: str) -> ast.Module | None:
    """Parse a file without other classes and functions; None on failure."""
    kept, decorators = [], b""
    for part in re.split(rb"^(?=[^\s#)\]}])", text, flags=re.MULTILINE):
        if part.startswith(b"@"):
            decorators += part
            continue
        definition = re.match(rb"(?:async )?(?:class|def) (\w+)", part)
        if definition is None or definition[1] == name.encode():
            head = re.match(rb"(?s:.*\n)([ \t]+)def __(?:init|new)__\b", part)
            end = head and re.compile(rb"^" + head[1] + rb"(?:@|def |async )", re.MULTILINE).search(part, head.end())
            kept += [decorators, part[: end.start()] if end else part]
        decorators = b""
    try:
        return ast.parse(b"".join(kept))
    except (SyntaxError, ValueError):
        return None


UNREADABLE = (ValueError, TypeError, SyntaxError, IndexError, RecursionError)
"""Errors of the functions below for unsupported syntax."""


def arguments(function: ast.FunctionDef, *, method: bool) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yield parameters with defaults, except `self` and variable ones."""
    given = function.args
    positional = (given.posonlyargs + given.args)[1 if method else 0 :]
    missing = [None] * max(0, len(positional) - len(given.defaults))
    defaults = [*missing, *given.defaults[max(0, len(given.defaults) - len(positional)) :], *given.kw_defaults]
    yield from zip([*positional, *given.kwonlyargs], defaults, strict=True)


def literal(node: ast.AST, scope: dict[str, Any]) -> Any:
    """Return the value of a literal or of its name; else ValueError."""
    if isinstance(node, ast.Name) and isinstance(scope.get(node.id), ast.AST):
        node = scope[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f"'{ast.unparse(node)}' is not a literal") from None


def resolve(node: ast.AST, scope: dict[str, Any], parts: Iterator[int] | None = None) -> Any:
    """Return the type of an annotation's syntax, without running code; `parts` counts its parts."""
    parts = parts or itertools.count()
    if next(parts) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} parts")
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return resolve(ast.parse(text, mode="eval").body, scope, parts)
        case ast.Name(id=name) if name in scope:
            value = scope[name]
            return resolve(value, scope, parts) if isinstance(value, ast.AST) else value
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[resolve(left, scope, parts), resolve(right, scope, parts)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id=kind) | ast.Attribute(attr=kind), slice=inner):
            items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            if kind == "Literal":
                return Literal[tuple(literal(item, {}) for item in items)]
            if kind == "Union":
                return typing.Union[tuple(resolve(item, scope, parts) for item in items)]  # noqa: UP007
            if kind == "Optional":
                return typing.Union[resolve(inner, scope, parts), None]  # noqa: UP007
            if kind == "Annotated":
                return Annotated[(resolve(items[0], scope, parts), *(interval(item) for item in items[1:]))]
            if kind in ("tuple", "list", "Tuple", "List") and items:
                inside = [... if isinstance(i, ast.Constant) and i.value is ... else resolve(i, scope, parts) for i in items]
                return list[inside[0]] if kind in ("list", "List") else tuple[tuple(inside)]
    raise ValueError(f"'{ast.unparse(node)}' is not int, float, str, bool, Literal, Annotated or a list of these")


def interval(node: ast.AST) -> Interval:
    """Return the range of the syntax `Interval(gt=0)`."""
    match node:
        case ast.Call(func=ast.Name(id="Interval") | ast.Attribute(attr="Interval"), args=[], keywords=keywords):
            bounds = {str(k.arg): literal(k.value, {}) for k in keywords}
            if all(type(bound) in (int, float) for bound in bounds.values()):
                return Interval(**bounds)
    raise ValueError(f"'{ast.unparse(node)}' is not an Interval(...)")


def option(node: ast.AST, scope: dict[str, Any]) -> Option:
    """Return an option of an `adopt` statement: `Option(...)` or a type."""
    if isinstance(node, ast.Name) and isinstance(scope.get(node.id), ast.AST):
        node = scope[node.id]
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
