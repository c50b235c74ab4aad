"""Python files, parsed: what they define, import and register, without running them."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dlframe.registry.parameters import ENUM, REQUIRED, TYPES
from dlframe.registry.signatures import (
    ALIASES,
    UNREADABLE,
    Row,
    Scope,
    arg_descriptions,
    arguments,
    literal,
    option,
    resolve,
    with_arguments,
)
from dlframe.types import RegistrationError, nearest, read_bytes

LARGEST = 2**20
"""Maximum bytes of a file."""


class NotInstalled(Exception):
    """Missing package."""


class NotFound(ValueError):
    """Missing module, class or function, with a suggestion."""


class Source:
    """Parsed Python file.

    Args:
        path: Python file.
        only: Skip classes and functions with other names, and members after the constructor, to save four fifths of the
            time.
        brief: Skip bodies of functions and members after constructors, to the same end: for files that a test reads both ways.

    Raises:
        RegistrationError: The file cannot be parsed.
    """

    def __init__(self, path: Path, only: str = "", *, brief: bool = False) -> None:
        self.path = path
        try:
            self.text = read_bytes(path, LARGEST)
            self.tree = (outline(self.text, only) if only or brief else None) or ast.parse(self.text)
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise RegistrationError(f"{path}{line}: cannot be read: {getattr(error, 'msg', error)}") from None

    @functools.cached_property
    def statements(self) -> list[ast.stmt]:
        """Statements of the module, also under `if`, `try` and `with`."""
        return list(_statements(self.tree.body))

    @functools.cached_property
    def definitions(self) -> dict[str, ast.ClassDef | ast.FunctionDef]:
        """Classes and functions by name; the last of each."""
        return {node.name: node for node in self.statements if isinstance(node, (ast.ClassDef, ast.FunctionDef))}

    @functools.cached_property
    def scope(self) -> Scope:
        """Meanings of names in annotations and defaults."""
        scope = Scope(TYPES | ALIASES, elsewhere=self._imported_value)
        for node in self.statements:
            match node:
                case ast.ClassDef(name=name) if members := _members(node):
                    scope.define(name, Annotated[Literal[members], ENUM])
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    scope.assign(name, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    scope.assign(name, value)
                case ast.Assign() | ast.AugAssign() | ast.For() | ast.Delete():
                    for inner in ast.walk(node):
                        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                            scope.assign(inner.id, None)
        return scope

    def imported(self, module: str) -> dict[str, str]:
        """Return names imported from `module`: local name -> original name."""
        nodes = [node for node in self.statements if isinstance(node, ast.ImportFrom) and node.module == module]
        return {alias.asname or alias.name: alias.name for node in nodes for alias in node.names}

    def file_of(self, node: ast.ImportFrom) -> Path:
        """Return the file of the module of a `from ... import`.

        Raises:
            NotInstalled: The package is missing.
            NotFound: The module is missing.
        """
        if not node.level:
            return _file(str(node.module))
        folder = self.path.parents[node.level - 1]
        place = folder.joinpath(*node.module.split(".")) if node.module else folder
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return file
        raise NotFound(f"'{'.' * node.level}{node.module or ''}' is not a Python file beside {self.path}")

    def origins(self, name: str) -> Iterator[tuple[Path, str]]:
        """Yield where a name may come from: the files that it may be imported from, with its name there."""
        for node in self.statements:
            if not isinstance(node, ast.ImportFrom):
                continue
            for alias in node.names:
                if (alias.asname or alias.name) == name or alias.name == "*":
                    try:
                        yield self.file_of(node), name if alias.name == "*" else alias.name
                    except (NotFound, NotInstalled):
                        continue

    def beside(self) -> list[Path]:
        """Return the files that relative imports name, wherever in the file these are."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                modules = [node] if node.module else [ast.ImportFrom(alias.name, [], node.level) for alias in node.names]
                for module in modules:
                    with contextlib.suppress(NotFound):
                        found.append(self.file_of(module))
        return found

    def _imported_value(self, name: str) -> Any:
        """Return what an imported name stands for: a type, or an expression with its scope; None if unknown."""
        for file, original in self.origins(name):
            try:
                scope = _read(file).scope
            except RegistrationError:
                continue
            value = scope.find(original)
            if value is not None:
                return value
        return None

    def registrations(self, variables: Iterable[str]) -> tuple[list[Registration | Call], list[str]]:
        """Return the classes and functions that the file registers, and the faults of those that cannot be read.

        Args:
            variables: Names of registries in `dlframe.registry`.
        """
        if b"register" not in self.text and b"adopt" not in self.text:
            return [], []
        reader = _Registrations(self, tuple(variables))
        return reader.found, reader.faults


@dataclass(frozen=True)
class Definition:
    """Definition of a class or function: statement and file."""

    node: ast.ClassDef | ast.FunctionDef
    file: Source

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def meanings(self) -> dict[str, str]:
        """Meanings of parameters in the docstrings of the class or function and of its own `__init__`."""
        initializer = self.initializer
        return arg_descriptions(self.doc) | arg_descriptions((initializer and ast.get_docstring(initializer)) or "")

    def constructor(self) -> Definition | None:
        """Return the function, the class with the `__init__`, or the dataclass; None without one.

        Raises:
            NotFound: A base cannot be read.
        """
        if isinstance(self.node, ast.FunctionDef) or self.is_dataclass or self.initializer:
            return self
        for base in self.node.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            module, _, name = ast.unparse(base).rpartition(".")
            if not module and hasattr(builtins, name) and name not in _names(self.file.path):
                continue
            try:
                found = _find(_module_called(module, self.file) if module else self.file.path, name)
            except (NotFound, NotInstalled) as error:
                raise NotFound(f"the base '{ast.unparse(base)}' of {self.node.name} cannot be read: {error}") from None
            if isinstance(found.node, ast.FunctionDef) or (
                found.node.name == self.node.name and found.file.path == self.file.path
            ):
                raise NotFound(f"the base '{ast.unparse(base)}' of {self.node.name} is not a class definition")
            if constructor := found.constructor():
                return constructor
        return None

    @property
    def initializer(self) -> ast.FunctionDef | None:
        """`__new__` or `__init__` of a class's own body."""
        if isinstance(self.node, ast.FunctionDef):
            return None
        functions = {item.name: item for item in self.node.body if isinstance(item, ast.FunctionDef)}
        return functions.get("__new__") or functions.get("__init__")

    @property
    def is_dataclass(self) -> bool:
        """Whether the class has the decorator `dataclass`."""
        decorators = (d.func if isinstance(d, ast.Call) else d for d in self.node.decorator_list)
        return any(re.fullmatch(r"(.*\.)?dataclass", ast.unparse(decorator)) for decorator in decorators)

    @property
    def function(self) -> ast.FunctionDef | None:
        """The function, or the constructor that the class writes itself; None for a dataclass without one."""
        return self.node if isinstance(self.node, ast.FunctionDef) else self.initializer

    def arguments(self) -> Iterator[tuple[str, ast.expr | None, ast.expr | None, Scope]]:
        """Yield name, annotation, default and scope of each parameter of this constructor, except `self` and variable ones.

        Raises:
            NotFound: A base of a dataclass cannot be read.
        """
        if function := self.function:
            for argument, default in arguments(function, method=function is not self.node):
                yield argument.arg, argument.annotation, default, self.file.scope
        elif self.is_dataclass:
            yield from self._fields().values()

    @property
    def variable(self) -> str:
        """Name of `*args` or `**kwargs` of this constructor; empty without."""
        found = self.function and (self.function.args.vararg or self.function.args.kwarg)
        return found.arg if found else ""

    def _fields(self) -> dict[str, tuple[str, ast.expr | None, ast.expr | None, Scope]]:
        """Return the fields of a dataclass that its constructor takes, with those of its bases."""
        assert isinstance(self.node, ast.ClassDef)
        fields: dict[str, tuple[str, ast.expr | None, ast.expr | None, Scope]] = {}
        for base in reversed(self.node.bases):
            if isinstance(base, ast.Name) and not hasattr(builtins, base.id):
                found = _find(self.file.path, base.id)
                if found.is_dataclass:
                    fields |= found._fields()
        for item in self.node.body:
            if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
                continue
            default = item.value
            if re.search(r"\b(ClassVar|KW_ONLY)\b", ast.unparse(item.annotation)):
                continue
            if isinstance(default, ast.Call) and re.fullmatch(r"(.*\.)?field", ast.unparse(default.func)):
                said = {keyword.arg: keyword.value for keyword in default.keywords}
                if isinstance(init := said.get("init"), ast.Constant) and init.value is False:
                    continue
                default = said.get("default") or said.get("default_factory")
                if isinstance(default, ast.Lambda):
                    default = default.body
                elif isinstance(default, ast.Name) and default.id in ("list", "tuple"):
                    default = ast.Tuple(elts=[])
            fields[item.target.id] = (item.target.id, item.annotation, default, self.file.scope)
        return fields


@dataclass(frozen=True)
class Registration:
    """Class or function with a decorator `@variable.register("name", ...)`."""

    variable: str
    name: Any
    facts: dict[str, Any]
    definition: Definition
    where: str

    @property
    def doc(self) -> str:
        """Docstring, with the parameters of an inherited constructor."""
        try:
            found = self.definition.constructor()
        except NotFound:
            found = None
        return with_arguments(self.definition.doc, found.doc if found else "")

    def rows(self, injected: tuple[str, ...]) -> Iterator[Row]:
        """Yield the parameters except `self`; types of `injected` ones are ignored.

        Raises:
            ValueError: (name of the parameter, message).
        """
        try:
            found = self.definition.constructor()
            if found is None:
                return
            if found.variable:
                raise ValueError(found.variable, "is variable; every option must have a name and a type")
            parameters = list(found.arguments())
        except NotFound as error:
            raise ValueError("__init__", f"cannot be read from the source: {error}. Write it in the class") from None
        for name, written, default, scope in parameters:
            if name in injected:
                yield name, REQUIRED, REQUIRED
                continue
            try:
                annotation = resolve(written, scope) if written else REQUIRED
                value = literal(default, scope) if default else REQUIRED
            except UNREADABLE as error:
                raise ValueError(name, f"cannot be read from the source: {error}") from None
            yield name, annotation, value


@dataclass(frozen=True)
class Call:
    """Call `variable.adopt("name", "module:Class", option=...)` in a file."""

    variable: str
    node: ast.Call
    where: str
    scope: Scope
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


class _Registrations:
    """Reader of what a file registers.

    A registration is a decorator `@models.register("name", ...)`, or `models.register("name", ...)(function)` as a statement,
    at the top level of the file or under `if`, `try` or `with`. Any other mention of `register` is a fault.
    """

    def __init__(self, source: Source, variables: tuple[str, ...]) -> None:
        self.source, self.variables = source, variables
        self.names = source.imported("dlframe.registry")
        self.found: list[Registration | Call] = []
        self.faults: list[str] = []
        self.seen: set[ast.AST] = set()
        for node in source.statements:
            match node:
                case ast.ClassDef() | ast.FunctionDef():
                    for decorator in node.decorator_list:
                        self._read(decorator, node)
                case (
                    ast.Expr(value=ast.Call(func=ast.Call() as call, args=[ast.Name(id=name)], keywords=[]))
                    | ast.Assign(value=ast.Call(func=ast.Call() as call, args=[ast.Name(id=name)], keywords=[]))
                ) if name in source.definitions:
                    self._read(call, source.definitions[name])
        is_read = len(re.findall(rb"\bregister\b", source.text)) == len(self.seen) and b"adopt" not in source.text
        top = {node.value for node in source.tree.body if isinstance(node, ast.Expr)}
        for node in () if is_read else ast.walk(source.tree):  # walking each file would take a third of the start
            match node:
                case ast.Call(func=ast.Attribute(attr="adopt") as function) if variable := self._registry(function.value):
                    self.found.append(Call(variable, node, self._where(node), source.scope, node in top))
                case ast.Attribute(attr="register") if node not in self.seen and self._registry(node.value):
                    text = f"@{ast.unparse(node)}"
                    self.faults.append(
                        f"{self._where(node)}: a registration must be a decorator of a class or function, or a statement "
                        f'{text[1:]}("name")(function), at the top level of the file'
                    )

    def _where(self, node: ast.AST) -> str:
        return f"{self.source.path}:{getattr(node, 'lineno', 0)}"

    def _read(self, call: ast.expr, node: ast.ClassDef | ast.FunctionDef) -> None:
        """Read a decorator, or a call that is used as one."""
        function = call.func if isinstance(call, ast.Call) else call
        if not (isinstance(function, ast.Attribute) and function.attr == "register"):
            return
        variable = self._registry(function.value)
        if not variable:
            return
        where = self._where(node)
        self.seen.add(function)
        if not isinstance(call, ast.Call):
            self.faults.append(f'{where}: a registration has a name: write @{ast.unparse(call)}("{node.name.lower()}")')
            return
        try:
            facts = {str(keyword.arg): literal(keyword.value, Scope()) for keyword in call.keywords}
            (name,) = [literal(argument, Scope()) for argument in call.args] or [facts.pop("name")]
        except (*UNREADABLE, KeyError):
            self.faults.append(f"{where}: name and metadata of a registration must be literals")
            return
        self.found.append(Registration(variable, name, facts, Definition(node, self.source), where))

    def _registry(self, node: ast.expr) -> str:
        """Return the name in `dlframe.registry` of what `node` stands for; empty for something else."""
        if isinstance(node, ast.Attribute):
            return node.attr if node.attr in self.variables else ""
        if not isinstance(node, ast.Name):
            return ""
        name = node.id
        for _ in range(8):  # aliases of aliases
            other = self.source.scope.own(name)
            if isinstance(other, ast.Attribute):
                return other.attr if other.attr in self.variables else ""
            if not isinstance(other, ast.Name):
                break
            name = other.id
        if name in self.names:
            return self.names[name] if self.names[name] in self.variables else ""
        if name in self.variables and not self.source.scope.own(name):
            return name
        if name in _names(self.source.path) or self.source.scope.own(name):
            return ""
        if "Did you mean" in (hint := nearest(name, self.variables)) and node not in self.seen:
            self.seen.add(node)
            self.faults.append(f"{self._where(node)}: '{name}' is not a registry of dlframe.{hint}")
        return ""


def outline(text: bytes, name: str) -> ast.Module | None:
    """Parse a file without members after constructors; None on failure. Lines keep their numbers.

    Args:
        text: Content of the file.
        name: Class or function that is kept without the others; empty for all, where functions without a decorator lose
            their parameters and bodies unless they are an argument of a call.
    """
    kept, decorators = [], b""
    for part in re.split(rb"^(?=[^\s#)\]}])", text, flags=re.MULTILINE):
        if part.startswith(b"@"):
            decorators += part
            continue
        definition, short = re.match(rb"(?:async )?(class|def) (\w+)", part), part
        if definition and name and definition[2] != name.encode():
            part, decorators, short = decorators + part, b"", b""
        elif definition and definition[1] == b"class":
            head = re.match(rb"(?s:.*\n)([ \t]+)def __(?:init|new)__\b", part)
            end = head and re.compile(rb"^" + head[1] + rb"(?:@|def |async )", re.MULTILINE).search(part, head.end())
            short = part[: end.start()] if end else part
        elif definition and not name and not decorators and b"(" + definition[2] + b")" not in text:
            short = b"def " + definition[2] + b"(): ...\n"
        kept += [decorators, short, b"\n" * (part.count(b"\n") - short.count(b"\n"))]
        decorators = b""
    try:
        return ast.parse(b"".join(kept))
    except (SyntaxError, ValueError):
        return None


def find(module: str, name: str) -> Definition:
    """Find the class or function `name` of a module, also through re-exports.

    Raises:
        NotInstalled: The package is missing.
        NotFound: The module, class or function is missing.
    """
    return _find(_file(module), name, module)


def _find(path: Path, name: str, module: str = "") -> Definition:
    definition = _search(path, name, set())
    if definition is None:
        raise NotFound(f"{module or path} has no class or function '{name}' in its source.{nearest(name, _names(path))}")
    return definition


def _search(path: Path, name: str, seen: set[tuple[Path, str]]) -> Definition | None:
    if (path, name) in seen:
        return None
    seen.add((path, name))
    source = _read(path, "" if path.name == "__init__.py" else name)  # these mostly import, and are read for the next name too
    onward = list(source.origins(name))
    for node in source.statements:
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == name and not _is_overload(node):
                return Definition(node, source)
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name(id=other)) if target == name:
                onward.append((path, other))
    for file, other in onward:
        try:
            if definition := _search(file, other, seen):
                return definition
        except NotFound:
            continue
    return None


def _members(node: ast.ClassDef) -> tuple[str, ...]:
    """Return the names of an `Enum`; none of another class."""
    if not any(re.fullmatch(r"(.*\.)?(Int|Str)?(Enum|Flag)", ast.unparse(base)) for base in node.bases):
        return ()
    assigned = [item.targets[0] for item in node.body if isinstance(item, ast.Assign) and len(item.targets) == 1]
    return tuple(target.id for target in assigned if isinstance(target, ast.Name) and not target.id.startswith("_"))


def _is_overload(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also under `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            inner = [*node.body, *getattr(node, "orelse", ())]
            for handler in getattr(node, "handlers", ()):
                inner += handler.body
            yield from _statements(inner)


def _names(path: Path) -> set[str]:
    """Return the names that a file defines or imports."""
    names: set[str] = set()
    for node in _read(path).statements:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names} - {"*"}
    return names


def _module_called(name: str, source: Source) -> Path:
    """Return the file of the module that a file calls `name`, such as `nn` after `from torch import nn`."""
    first, _, below = name.partition(".")
    for node in source.statements:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias in node.names:
            called = alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name)
            if called != first:
                continue
            if isinstance(node, ast.Import):
                return _file(".".join(filter(None, [alias.name if alias.asname else called, below])))
            if not node.level:
                return _file(".".join(filter(None, [node.module, alias.name, below])))
            inner = ".".join(filter(None, [node.module, alias.name, below]))
            return source.file_of(ast.ImportFrom(module=inner, names=[], level=node.level))
    raise NotFound(f"'{first}' is not imported")


def _read(path: Path, only: str = "") -> Source:
    try:
        return _parsed(path, only, path.stat().st_mtime_ns)
    except (RegistrationError, OSError) as error:
        raise NotFound(str(error)) from None


@functools.lru_cache(maxsize=32)
def _parsed(path: Path, only: str, written: int) -> Source:
    return Source(path, only)


def _file(module: str) -> Path:
    """Return the file of a module; only its top-level package is searched."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NotInstalled(top)
    if not below and spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin)
    folders, file, name = [Path(folder) for folder in spec.submodule_search_locations or ()], None, top
    for part in below:
        places = [place for f in folders for place in (f / part / "__init__.py", f / f"{part}.py")]
        file = next((place for place in places if place.is_file()), None)
        inner = [f / part for f in folders if (f / part).is_dir()]
        if file is None and not inner:
            others = {p.stem for f in folders for p in f.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
            raise NotFound(f"{name} has no Python module '{part}'.{nearest(part, others - {'__init__'})}")
        folders, name = inner, f"{name}.{part}"
    if file is None:
        raise NotFound(f"{module} has no Python source")
    return file
