"""Registration of classes of other packages, read from their source."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dlframe.registry.parameters import REQUIRED, Option, Parameter
from dlframe.registry.signatures import ALIASES, UNREADABLE, Row, Scope, arg_descriptions, literal, resolve
from dlframe.registry.sources import Definition, NotFound, NotInstalled, find
from dlframe.types import ConfigError, DlframeError, RegistrationError, nearest

UNKNOWN = object()
"""Type or default that a config cannot hold."""


@dataclass(frozen=True)
class Adoption:
    """Content of an `adopt` statement.

    Attributes:
        group: Group of the registry.
        injected: Arguments passed when an entry of the group is built.
        name: Name of the entry.
        target: "package.module:Class".
        where: "file:line" of the statement.
        doc: Docstring of the entry; empty for that of the class.
        facts: Metadata of the entry.
        fixed: Values of parameters that are not options.
        given: Parameter -> injected argument, or an attribute of one, "spec.shape".
        omit: Parameters that are not options and keep the class's default, or "others" for all parameters not named.
        options: Option -> additions to the signature.
    """

    group: str
    injected: tuple[str, ...]
    name: str
    target: str
    where: str
    doc: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    omit: tuple[str, ...] | Literal["others"] = ()
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.target, str) and re.fullmatch(r"[^\W\d]\w*(\.\w+)*:\w+", self.target)):
            dotted = isinstance(self.target, str) and re.fullmatch(r"([\w.]+)\.(\w+)", self.target)
            hint = f" Did you mean '{dotted[1]}:{dotted[2]}'?" if dotted else ""
            raise self.fault(f"the class must be 'package.module:Class'. Received: {self.target!r}.{hint}")
        if not isinstance(self.doc, str):
            raise self.fault(f"the docstring must be a string. Received: {self.doc!r}.")
        for said in ("facts", "fixed", "given"):
            value = getattr(self, said)
            if not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
                raise self.fault(f"'{said}' must be a dict with names as keys. Received: {value!r}.")
        if self.omit != "others" and not (isinstance(self.omit, (tuple, list)) and all(isinstance(n, str) for n in self.omit)):
            raise self.fault(f"'omit' must be a tuple of names, or 'others'. Received: {self.omit!r}.")
        for source in self.given.values():
            if not isinstance(source, str) or source.split(".")[0] not in self.injected:
                hint = nearest(str(source), self.injected) or f" A {self.group} has no injected arguments."
                raise self.fault(f"'given' must name an injected argument. Received: {source!r}.{hint}")

    def fault(self, text: str) -> RegistrationError:
        return RegistrationError(f"{self.group} '{self.name}': {text} ({self.where})")

    def read(self) -> Adopted:
        """Read the class from its source.

        Raises:
            NotInstalled: The package is missing.
            RegistrationError: The class is missing.
        """
        module, _, name = self.target.partition(":")
        try:
            definition = find(module, name)
            constructor = definition.constructor()
        except NotFound as error:
            raise self.fault(str(error)) from None
        except NotInstalled as missing:
            if near := _with_another_package(module, name):
                raise self.fault(f"package '{missing}' is not installed. Did you mean '{near}'?") from None
            raise
        return Adopted(self, definition, _signature(constructor))


@dataclass(frozen=True)
class Adopted:
    """Class of an `adopt` statement, read from its source.

    Attributes:
        statement: The statement.
        definition: Definition of the class.
        signature: Parameter -> type and default; `UNKNOWN` if unsupported.
    """

    statement: Adoption
    definition: Definition
    signature: dict[str, tuple[Any, Any]]

    @functools.cached_property
    def sources(self) -> dict[str, str]:
        """Parameter -> injected argument."""
        stated = dict(self.statement.given)
        taken = {source.split(".")[0] for source in stated.values()}
        return stated | {name: name for name in self.statement.injected if name in self.signature and name not in taken}

    @functools.cached_property
    def rows(self) -> dict[str, Row]:
        """Options of the statement, then other parameters of the signature.

        Raises:
            RegistrationError: The statement does not match the signature.
        """
        self._check()
        rows = {name: self._stated(name, option) for name, option in self.statement.options.items()}
        taken = self._taken()
        omitted = self.signature if self.statement.omit == "others" else self.statement.omit
        for name, (annotation, default) in self.signature.items():
            if name in taken:
                continue
            if name not in (*omitted, *self.statement.injected) and _is_readable(name, annotation, default):
                rows[name] = name, annotation, default
            elif default is REQUIRED:
                way = f"state its type, {name}=Option(...), or its value, fixed={{{name!r}: ...}}"
                raise self._fault(name, f"has no default in {self.statement.target}; {way}")
        return rows

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parameters that are not options: with defaults or fixed values."""
        kept = [name for name in self.signature if name not in self._taken() and name not in self.rows]
        return (*kept, *(f"{name}={value}" for name, value in self.statement.fixed.items()))

    @property
    def doc(self) -> str:
        """Docstring with all options; the first line is a sentence."""
        own = inspect.cleandoc(self.statement.doc)
        summary, _, rest = (own or _sentence(self.definition.doc.strip().split("\n\n")[0])).partition("\n")
        summary = summary or f"{self.definition.node.name} of {self.statement.target.partition(':')[0]}."
        constructor = self.definition.constructor()
        foreign = (constructor.meanings if constructor else {}) | self.definition.meanings
        lines = [f"{summary}\n\nArgs:"]
        for name in self.rows:
            option = self.statement.options.get(name, Option())
            meaning = option.meaning or arg_descriptions(own).get(name) or _sentence(foreign.get(option.of or name, ""))
            lines += [f"    {name}: {' '.join(meaning.split())}"] if meaning else []
        return "\n".join([*lines, *filter(None, ["", rest.strip()])])

    def load(self) -> Callable[..., Any]:
        """Import the class and return a function that builds it.

        Raises:
            RegistrationError: The import fails, or the signature differs from the source.
        """
        module, _, name = self.statement.target.partition(":")
        try:
            called = getattr(importlib.import_module(module), name)
            signature = inspect.signature(called)
        except (Exception, SystemExit) as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise self.statement.fault(f"{self.statement.target} cannot be imported: {told}") from error
        self._compare(signature)
        options = self.statement.options

        def build(**given: Any) -> Any:
            values = dict(self.statement.fixed)
            for parameter, source in self.sources.items():
                first, *attributes = source.split(".")
                try:
                    values[parameter] = functools.reduce(getattr, attributes, given[first])
                except (AttributeError, IndexError):
                    raise self.statement.fault(f"given={{'{parameter}': '{source}'}}: these data have no such value") from None
            for name in self.rows:
                option, value = options.get(name, Option()), given[name]
                values[option.of or name] = option.values[value] if option.values else value
            bound = inspect.BoundArguments(
                signature,
                {name: values[name] for name in signature.parameters if name in values},  # pyright: ignore[reportArgumentType]
            )
            try:
                return called(*bound.args, **bound.kwargs)
            except (RuntimeError, OSError, MemoryError, DlframeError):
                raise
            except Exception as error:  # each package has its own exceptions for invalid options
                group, told = self.statement.group, " ".join(str(error).split())
                raise ConfigError(f"{group}={self.statement.name}: {self.statement.target}: {told}", group) from error

        build.__name__, build.__doc__ = self.statement.name, self.doc
        injected = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in self.statement.injected]
        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, annotation, default in self.rows.values()
        ]
        build.__signature__ = inspect.Signature([*injected, *keywords])  # pyright: ignore[reportFunctionMemberAccess]
        return build

    def _fault(self, parameter: str, text: str) -> RegistrationError:
        return self.statement.fault(f"parameter '{parameter}' {text}")

    def _taken(self) -> dict[str, str]:
        """Return parameter -> mention in the statement; two raise an error."""
        said = [(parameter, f"given={{{parameter!r}: {source!r}}}") for parameter, source in self.sources.items()]
        said += [(parameter, f"fixed={{{parameter!r}: ...}}") for parameter in self.statement.fixed]
        said += [(option.of or name, f"{name}=...") for name, option in self.statement.options.items()]
        said += [(name, "omit") for name in self.statement.omit if self.statement.omit != "others"]
        taken: dict[str, str] = {}
        for parameter, by in said:
            if parameter in taken:
                raise self._fault(parameter, f"is stated twice: {taken[parameter]} and {by}")
            taken[parameter] = by
        return {parameter: by for parameter, by in taken.items() if by != "omit"}

    def _check(self) -> None:
        """Raise `RegistrationError` for unknown or missing parameters."""
        named = [*self._taken(), *(self.statement.omit if self.statement.omit != "others" else ())]
        for parameter in named:
            if parameter not in self.signature:
                text = f"is not in the signature of {self.statement.target}.{nearest(parameter, self.signature)}"
                raise self._fault(parameter, text)
        given = {source.split(".")[0] for source in self.sources.values()}
        for name in self.statement.injected[:1]:
            if name not in given:
                way = f"say which parameter takes it: given={{'PARAMETER': {name!r}}}"
                raise self._fault(name, f"is not in the signature of {self.statement.target}; {way}")
        for name in ("name", *self.statement.injected):
            if name in self.statement.options:
                raise self._fault(name, f"is reserved. Rename the option, for example 'label=Option(of={name!r})'")

    def _stated(self, name: str, option: Option) -> Row:
        annotation, default = self.signature[option.of or name]
        if option.values:
            annotation = Literal[tuple(option.values)]
            default = next((key for key, value in option.values.items() if value == default), UNKNOWN)
        if option.annotation is not REQUIRED:
            annotation = option.annotation
        if option.default is not REQUIRED:
            default = option.default
        if annotation is UNKNOWN:
            raise self._fault(
                name, f"has no type in {self.statement.target} that a config can hold; write {name}=Option(float)"
            )
        if default is UNKNOWN:
            raise self._fault(name, f"has no literal as default in {self.statement.target}; write Option(..., default=...)")
        return name, annotation, default

    def _compare(self, imported: inspect.Signature) -> None:
        """Raise `RegistrationError` if the imported signature differs."""
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        there = {name: p.default for name, p in imported.parameters.items() if p.kind not in variable}
        here = {name: there.get(name) if default is UNKNOWN else default for name, (_, default) in self.signature.items()}
        for name in (*here, *there):
            said, found = (_default(defaults, name) for defaults in (here, there))
            if said != found:
                text = (
                    f"'{name}' of {self.statement.target} differs from its source: {said} in the source, {found} when imported"
                )
                raise self.statement.fault(text)


def _default(defaults: Mapping[str, Any], name: str) -> str:
    if name not in defaults:
        return "no such parameter"
    return "no default" if defaults[name] is REQUIRED else f"default {defaults[name]!r}"


def _signature(constructor: Definition | None) -> dict[str, tuple[Any, Any]]:
    if constructor is None:
        return {}
    own = constructor.file.imported("dlframe.registry")
    foreign = [name for name in ALIASES if own.get(name) != name]
    found = {}

    def attempt(read: Callable[[Any, Scope], Any], node: Any, scope: Scope) -> Any:
        try:
            return read(node, scope.without(foreign))
        except UNREADABLE:
            return UNKNOWN

    for name, annotation, default, scope in constructor.arguments():
        kind = attempt(resolve, annotation, scope) if annotation else UNKNOWN
        found[name] = kind, attempt(literal, default, scope) if default else REQUIRED
    return found


def _is_readable(name: str, annotation: Any, default: Any) -> bool:
    if annotation is UNKNOWN or default is UNKNOWN or name == "name" or name.startswith("_"):
        return False
    try:
        Parameter(name, annotation, default)
    except ValueError:
        return False
    return True


def _sentence(text: str) -> str:
    """Return the first sentence of an explanation, without its default value."""
    text = re.sub(r"\s*\(default:? [^()]*\)", "", " ".join(text.replace("``", "").split())).rstrip(" ;,:")
    text = re.split(r"(?<=[.!?]) (?=[A-Z.])", text, maxsplit=1)[0]
    return text and f"{text[0].upper()}{text[1:]}" + "." * (text[-1] not in ".!?")


def _with_another_package(module: str, name: str) -> str:
    """Return the target in a similarly named package; empty without one."""
    top, dot, below = module.partition(".")
    for other in difflib.get_close_matches(top, {found.name for found in pkgutil.iter_modules()}, n=5):
        try:
            find(f"{other}{dot}{below}", name)
        except (NotFound, NotInstalled):
            continue
        return f"{other}{dot}{below}:{name}"
    return ""
