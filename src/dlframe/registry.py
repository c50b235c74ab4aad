"""Names for classes. A typed signature is a config: read once, from the source, without running it.

`@models.register("cnn")` on a class or a function makes `model=cnn` a choice and each keyword-only parameter an option,
with the type, the range, the default and the meaning that its signature and docstring give. `read_source` finds these
decorators in a file by parsing it, so that a config is checked before anything heavy (or anything of a stranger's) is imported.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from dlframe.types import ConfigError, RegistrationError, nearest

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
        rule(self.annotation)
        if self.default is not REQUIRED:
            object.__setattr__(self, "default", conform(self.annotation, self.default))

    @property
    def rule(self) -> str:
        """The type and the range in words: "float > 0"."""
        return rule(self.annotation)

    def check(self, value: Any, key: str) -> Any:
        """`value` in the parameter's type; a `ConfigError` that names `key` where it breaks the rule."""
        if value is REQUIRED or value == "???":
            raise ConfigError(f"{key}: must be given: {self.rule}. Try: {key}=...", key)
        try:
            return conform(self.annotation, value)
        except ValueError as error:
            hint = nearest(value, literals(self.annotation)) if isinstance(value, str) else ""
            raise ConfigError(f"{key}: must be {error}. Received: {value!r}.{hint}", key) from None


def parts(annotation: Any) -> tuple[Any, Interval | None, bool]:
    """The bare type, its range and whether None is allowed."""
    optional = False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(members) != 1:
            raise ValueError(f"a single type, or one with None; not {annotation}")
        annotation, optional = members[0], True
    bounds = None
    if typing.get_origin(annotation) is Annotated:
        annotation, *metadata = typing.get_args(annotation)
        bounds = next((m for m in metadata if isinstance(m, Interval)), None)
    return annotation, bounds, optional


def literals(annotation: Any) -> tuple[str, ...]:
    """The strings that a `Literal` allows; empty for another type."""
    bare = parts(annotation)[0]
    return tuple(map(str, typing.get_args(bare))) if typing.get_origin(bare) is Literal else ()


def rule(annotation: Any) -> str:
    """An annotation in words; ValueError for a type that a config cannot hold."""
    bare, bounds, optional = parts(annotation)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin is Literal:
        text = "one of " + ", ".join(str(a) for a in arguments)
    elif origin in (tuple, list):
        if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
            text = f"list of {rule(arguments[0])}"
        else:
            text = "[" + ", ".join(rule(a) for a in arguments) + "]"
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


def conform(annotation: Any, value: Any) -> Any:
    """`value` in the type of `annotation`; ValueError with the rule where it does not fit. No text becomes a number."""
    bare, bounds, optional = parts(annotation)
    wrong = ValueError(rule(annotation))
    if value is None:
        if optional:
            return None
        raise wrong
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
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
            return tuple(conform(kind, item) for kind, item in zip(kinds, value, strict=True))
        except ValueError:
            raise wrong from None
    elif bare is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    elif type(value) is not bare:
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


@dataclass(frozen=True)
class Entry:
    """One registered class or function.

    Attributes:
        group: The config group: "model".
        name: The choice within it: "cnn".
        summary: First line of the docstring.
        parameters: Its options in the signature's order.
        facts: What its group wants known before it is built, such as the kinds of input that a model takes.
        origin: "dlframe", or the plugin that brought it.
        where: "file:line" of its source.
        load: Imports the module that holds it.
        factory: The class or function itself, once imported.
    """

    group: str
    name: str
    summary: str
    parameters: dict[str, Parameter]
    facts: dict[str, Any]
    origin: str = "dlframe"
    where: str = ""
    load: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    factory: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def check(self, options: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Every option in its type, defaults filled in; `ConfigError` for an unknown one or one outside its range."""
        key = key or self.group
        for name in options:
            if name != "name" and name not in self.parameters:
                command = f"python -m dlframe show {self.group}={self.name}"
                hint = nearest(str(name), self.parameters)
                if str(name).startswith("_"):
                    raise ConfigError(f"{key}.{name}: a config names registered entries, never code.", f"{key}.{name}")
                raise ConfigError(f"{key}.{name}: '{self.name}' has no such option.{hint} See: {command}", f"{key}.{name}")
        given = {name: options.get(name, p.default) for name, p in self.parameters.items()}
        return {name: self.parameters[name].check(value, f"{key}.{name}") for name, value in given.items()}


class Registry:
    """The entries of one config group.

    Args:
        group: The group's name in a config.
        injected: Arguments that are given when an entry is built, and are therefore no options.
        facts: The facts that an entry may state, with their defaults.
    """

    def __init__(self, group: str, *, injected: tuple[str, ...] = (), facts: dict[str, Any] | None = None) -> None:
        self.group = group
        self.injected = injected
        self.facts = {"exempt": {}, **(facts or {})}
        self.entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self.entries.values(), key=lambda e: e.name))

    def register(self, name: str, **facts: Any) -> Callable[[Any], Any]:
        """Decorator: `name` stands for the class or function below it.

        `exempt={"overfits": "reason"}` on an entry declares a contract test that does not apply to it, and why.
        """

        def decorate(factory: Any) -> Any:
            known = self.entries.get(name)
            same = known and known.load and known.where.startswith(f"{inspect.getsourcefile(factory)}:")
            if known and same:
                self.entries[name] = replace(known, factory=factory)
            else:
                self.add(replace(self.read_object(name, facts, factory), factory=factory))
            return factory

        return decorate

    def add(self, entry: Entry) -> None:
        """Take an entry in; `RegistrationError` where its name is taken or cannot be typed."""
        if not (isinstance(entry.name, str) and re.fullmatch(r"[a-z]\w*", entry.name, re.ASCII)):
            raise RegistrationError(
                f"{self.group} {entry.name!r}: a name is a small letter, then letters, digits and underscores ({entry.where})"
            )
        known = self.entries.get(entry.name)
        if known and known.factory and known.where.rpartition(":")[0] == entry.where.rpartition(":")[0]:
            entry = replace(entry, factory=known.factory)  # imported before it was discovered
        elif known:
            raise RegistrationError(
                f"{self.group} '{entry.name}' is already registered by {known.origin} ({known.where}); "
                f"choose another name in {entry.where}"
            )
        unknown = set(entry.facts) - set(self.facts)
        if unknown:
            fact = min(unknown)
            raise RegistrationError(
                f"{self.group} '{entry.name}' states an unknown fact '{fact}' ({entry.where}).{nearest(fact, self.facts)}"
            )
        self.entries[entry.name] = replace(entry, facts={**self.facts, **entry.facts})

    def get(self, name: str) -> Entry:
        """The entry of that name; `ConfigError` with the nearest where there is none."""
        if name not in self.entries:
            hint = nearest(str(name), self.entries)
            raise ConfigError(f"{self.group}={name}: no such {self.group}.{hint} See: python -m dlframe list {self.group}")
        return self.entries[name]

    def build(self, config: Mapping[str, Any], **injected: Any) -> Any:
        """Check `config` ({name: ..., option: ...}) and call the entry with it and with the injected arguments."""
        entry = self.get(config["name"])
        options = entry.check(config)
        if entry.factory is None and entry.load:
            entry.load()
            entry = self.get(entry.name)
        if entry.factory is None:
            raise RegistrationError(f"{self.group} '{entry.name}' was not registered when {entry.where} was imported")
        return entry.factory(**injected, **options)

    def read_object(self, name: str, facts: dict[str, Any], factory: Any) -> Entry:
        """The entry of a class or function that exists already (a notebook's, a plugin's)."""
        try:
            where = f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
        except (OSError, TypeError):  # typed at a prompt
            where = factory.__module__
        call = factory.__init__ if inspect.isclass(factory) else factory
        rows = []
        signature = [] if call is object.__init__ else list(inspect.signature(call).parameters.values())
        for p in signature[1 if inspect.isclass(factory) else 0 :]:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise self._error(name, p.name, "is a variable list; every option needs a name and a type", where)
            annotation = p.annotation
            if isinstance(annotation, str) and p.name not in self.injected:
                annotation = _resolve(ast.parse(annotation, mode="eval").body, TYPES | call.__globals__)
            rows.append((p.name, annotation, p.default))
        return self._entry(name, facts, rows, inspect.getdoc(factory) or "", where)

    def _entry(self, name: str, facts: dict, rows: list[tuple[str, Any, Any]], doc: str, where: str) -> Entry:
        meanings = _meanings(doc)
        parameters = {}
        for missing in (i for i in self.injected if i not in [row[0] for row in rows]):
            raise self._error(name, missing, f"is missing: a {self.group} is given it when it is built", where)
        for option, annotation, default in rows:
            if option in self.injected:
                continue
            if annotation is REQUIRED:
                raise self._error(name, option, "has no type; write for example 'width: int = 32'", where)
            try:
                parameters[option] = Parameter(option, annotation, default, meanings.get(option, ""))
            except ValueError as error:
                raise self._error(name, option, f"must be {error}. Received: {default!r}", where) from None
        return Entry(self.group, name, doc.strip().split("\n")[0], parameters, facts, where=where)

    def _error(self, name: str, option: str, text: str, where: str) -> RegistrationError:
        return RegistrationError(f"{self.group} '{name}': parameter '{option}' {text} ({where})")


tasks = Registry(
    "task",
    injected=("spec", "model"),
    facts={
        "targets": ("class",),
        "metrics": {"loss": "min"},
        "monitor": "loss",
        "players": ("model",),
        "unlabelled": False,
    },
)
models = Registry("model", injected=("spec",), facts={"inputs": ("image",), "targets": ("class",), "task": ""})
data = Registry("data", facts={"inputs": "image", "target": "class"})
augmentations = Registry("augmentation", injected=("spec",), facts={"inputs": ("image",), "targets": ()})
optimizers = Registry("optimizer", injected=("params",))
schedulers = Registry("scheduler", injected=("optimizer", "steps"))
callbacks = Registry("callback")

GROUPS: dict[str, Registry] = {r.group: r for r in (tasks, models, data, augmentations, optimizers, schedulers, callbacks)}
_VARIABLES = {
    "tasks": tasks,
    "models": models,
    "data": data,
    "augmentations": augmentations,
    "optimizers": optimizers,
    "schedulers": schedulers,
    "callbacks": callbacks,
}


def read_source(path: Path) -> list[tuple[Registry, Entry]]:
    """The entries that the top level of a Python file registers, found by parsing it.

    Raises:
        RegistrationError: The file cannot be parsed, or an entry breaks a rule of the registry.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        line = getattr(error, "lineno", None)
        raise RegistrationError(f"{path}{f':{line}' if line else ''}: cannot be read: {getattr(error, 'msg', error)}") from None
    scope = TYPES | {name: value for name, value in globals().items() if typing.get_origin(value) is Annotated}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            scope[node.targets[0].id] = node.value
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = []
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            continue
        for decorator in node.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Attribute)
                and decorator.func.attr == "register"
                and isinstance(decorator.func.value, (ast.Name, ast.Attribute))
            ):
                variable = decorator.func.value
                registry = _VARIABLES.get(variable.id if isinstance(variable, ast.Name) else variable.attr)
                if registry:
                    found.append((registry, _read_node(registry, decorator, node, classes, scope, path)))
    return found


def _read_node(
    registry: Registry,
    decorator: ast.Call,
    node: ast.ClassDef | ast.FunctionDef,
    classes: dict[str, ast.ClassDef],
    scope: dict[str, Any],
    path: Path,
) -> Entry:
    where = f"{path}:{node.lineno}"
    try:
        name = ast.literal_eval(decorator.args[0])
        facts = {k.arg: ast.literal_eval(k.value) for k in decorator.keywords if k.arg}
    except (ValueError, TypeError, IndexError):
        raise RegistrationError(f"{where}: the name and the facts of a registration must be literals") from None
    function = node if isinstance(node, ast.FunctionDef) else _initializer(node, classes)
    rows: list[tuple[str, Any, Any]] = []
    if function:
        arguments = function.args
        if variable := arguments.vararg or arguments.kwarg:
            raise registry._error(name, variable.arg, "is a variable list; every option needs a name and a type", where)
        positional = (arguments.posonlyargs + arguments.args)[0 if function is node else 1 :]
        padding = [None] * (len(positional) - len(arguments.defaults[-len(positional) :] if positional else []))
        defaults = [*padding, *(arguments.defaults[-len(positional) :] if positional else []), *arguments.kw_defaults]
        for argument, default in zip([*positional, *arguments.kwonlyargs], defaults, strict=True):
            if argument.arg in registry.injected:
                rows.append((argument.arg, REQUIRED, REQUIRED))
                continue
            try:
                annotation = _resolve(argument.annotation, scope) if argument.annotation else REQUIRED
                value = _literal(default, scope) if default else REQUIRED
            except (ValueError, TypeError, SyntaxError, IndexError, RecursionError) as error:
                raise registry._error(name, argument.arg, f"cannot be read from the source: {error}", where) from None
            rows.append((argument.arg, annotation, value))
    return registry._entry(name, facts, rows, ast.get_docstring(node) or "", where)


def _initializer(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> ast.FunctionDef | None:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item
    bases = [classes[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in classes]
    return next(filter(None, (_initializer(base, classes) for base in bases)), None)


def _literal(node: ast.AST, scope: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and isinstance(scope.get(node.id), ast.AST):
        node = scope[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f"'{ast.unparse(node)}' is not a literal") from None


def _resolve(node: ast.AST, scope: dict[str, Any]) -> Any:
    """The type that an annotation's syntax stands for. A small language: no code of the file runs."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _resolve(ast.parse(text, mode="eval").body, scope)
        case ast.Name(id=name) if name in scope:
            value = scope[name]
            return _resolve(value, scope) if isinstance(value, ast.AST) else value
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_resolve(left, scope), _resolve(right, scope)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id=kind) | ast.Attribute(attr=kind), slice=inner):
            items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            if kind == "Literal":
                return Literal[tuple(_literal(item, {}) for item in items)]
            if kind == "Annotated":
                return Annotated[(_resolve(items[0], scope), *(_interval(item) for item in items[1:]))]
            if kind in ("tuple", "list") and items:
                inside = [... if isinstance(i, ast.Constant) and i.value is ... else _resolve(i, scope) for i in items]
                return list[inside[0]] if kind == "list" else tuple[tuple(inside)]
    raise ValueError(f"'{ast.unparse(node)}' is not int, float, str, bool, Literal, Annotated or a list of these")


def _interval(node: ast.AST) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="Interval") | ast.Attribute(attr="Interval"), args=[], keywords=keywords):
            bounds = {str(k.arg): _literal(k.value, {}) for k in keywords}
            if all(type(bound) in (int, float) for bound in bounds.values()):
                return Interval(**bounds)
    raise ValueError(f"'{ast.unparse(node)}' is not an Interval(...)")


def _meanings(doc: str) -> dict[str, str]:
    """The `Args:` section of a Google-style docstring: name -> meaning."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(doc), re.MULTILINE)
    if not section:
        return {}
    lines = textwrap.dedent(section[1]).split("\n")
    meanings: dict[str, str] = {}
    current = ""
    for line in lines:
        if head := re.match(r"(\w+)(?: \(.*?\))?: (.*)", line):
            current, meanings[head[1]] = head[1], head[2].strip()
        elif current and line.strip():
            meanings[current] += " " + line.strip()
    return meanings
