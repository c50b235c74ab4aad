"""Classes and functions of installed packages, found in their source."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dlframe.registry.signatures import Source
from dlframe.types import RegistrationError, nearest


class NotInstalled(Exception):
    """Missing package."""


class NotFound(ValueError):
    """Missing module, class or function, with a suggestion."""


@dataclass(frozen=True)
class Definition:
    """Definition of a class or function: statement, file and module."""

    node: ast.ClassDef | ast.FunctionDef
    file: Source
    module: str

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    def constructor(self) -> Definition | None:
        """Return the function or the `__init__` of the class; None without one.

        Raises:
            NotFound: A base cannot be read, or the class is a dataclass.
        """
        if isinstance(self.node, ast.FunctionDef):
            return self
        if any("dataclass" in ast.unparse(decorator) for decorator in self.node.decorator_list):
            raise NotFound(f"{self.node.name} is a dataclass without a constructor in the source")
        functions = {item.name: item for item in self.node.body if isinstance(item, ast.FunctionDef)}
        if own := functions.get("__new__") or functions.get("__init__"):
            return Definition(own, self.file, self.module)
        for base in self.node.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            module, _, name = ast.unparse(base).rpartition(".")
            if not module and hasattr(builtins, name) and name not in _names(self.module):
                continue
            try:
                found = find(_module_called(module, self) if module else self.module, name)
            except (NotFound, NotInstalled) as error:
                raise NotFound(f"the base '{ast.unparse(base)}' of {self.node.name} cannot be read: {error}") from None
            if isinstance(found.node, ast.FunctionDef) or (found.node.name, found.module) == (self.node.name, self.module):
                raise NotFound(f"the base '{ast.unparse(base)}' of {self.node.name} is not a class definition")
            if constructor := found.constructor():
                return constructor
        return None


def find(module: str, name: str) -> Definition:
    """Find the class or function `name` of a module, also through re-exports.

    Raises:
        NotInstalled: The package is missing.
        NotFound: The module, class or function is missing.
    """
    definition = _find(module, name, set())
    if definition is None:
        raise NotFound(f"{module} has no class or function '{name}' in its source.{nearest(name, _names(module))}")
    return definition


def _find(module: str, name: str, seen: set[tuple[str, str]]) -> Definition | None:
    if (module, name) in seen:
        return None
    seen.add((module, name))
    source = _source(module, name)
    onward: list[tuple[str, str]] = []
    for node in _statements(source.tree.body):
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == name and not _is_overload(node):
                return Definition(node, source, module)
            case ast.ImportFrom():
                origin = _origin(node, module, source)
                onward += [(origin, alias.name) for alias in node.names if (alias.asname or alias.name) == name]
                onward += [(origin, name) for alias in node.names if alias.name == "*"]
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name(id=other)) if target == name:
                onward.append((module, other))
    for origin, other in onward:
        try:
            if definition := _find(origin, other, seen):
                return definition
        except (NotFound, NotInstalled):
            continue
    return None


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


def _names(module: str) -> set[str]:
    """Return the names that a module defines or imports."""
    names: set[str] = set()
    for node in _statements(_source(module).tree.body):
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names} - {"*"}
    return names


def _origin(node: ast.ImportFrom, module: str, source: Source) -> str:
    """Return the absolute module name of a `from ... import`."""
    if not node.level:
        return str(node.module)
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (source.path.name == "__init__.py")]
    return ".".join([*parts, *filter(None, [node.module])])


def _module_called(name: str, definition: Definition) -> str:
    """Return the module of a name, such as `nn` after `from torch import nn`."""
    first, _, below = name.partition(".")
    for node in _statements(definition.file.tree.body):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias in node.names:
            called = alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name)
            if called == first:
                whole = alias.name if alias.asname else called
                if isinstance(node, ast.ImportFrom):
                    whole = f"{_origin(node, definition.module, definition.file)}.{alias.name}"
                return ".".join(filter(None, [whole, below]))
    raise NotFound(f"'{first}' is not imported")


def _source(module: str, only: str = "") -> Source:
    file = _file(module)
    only = "" if file.name == "__init__.py" else only  # mostly imports, and parsed again for the next name
    try:
        return _parsed(file, only, file.stat().st_mtime_ns)
    except (RegistrationError, OSError) as error:
        raise NotFound(str(error)) from None


@functools.lru_cache(maxsize=32)
def _parsed(file: Path, only: str, written: int) -> Source:
    return Source(file, only)


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
