"""Registered components, whose typed signature is their config.

`@models.register("cnn")` on a class or function adds `model=cnn` to the config and each keyword-only parameter as an option,
with type, range, default and meaning from its signature and docstring. `read_source` parses a file for these decorators, so
that configs are checked before heavy or untrusted imports.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dlframe.registry.adoption import Adoption
from dlframe.registry.parameters import REQUIRED, TYPES, Option, Parameter, built, is_converted, of_config
from dlframe.registry.renamed import new_name
from dlframe.registry.signatures import Row, Scope, arg_descriptions, resolve, with_arguments
from dlframe.registry.sources import NotInstalled, Registration
from dlframe.types import ConfigError, DlframeError, NameTaken, RegistrationError, command_line, located, nearest


@dataclass(frozen=True)
class Entry:
    """Registered class or function.

    Attributes:
        group: Config group: "model".
        name: Option of the group: "cnn".
        summary: First line of the docstring.
        parameters: Options in the order of the signature.
        facts: Metadata of the registration, such as the kinds of input of a model.
        origin: "dlframe", or the name of the plugin.
        where: "file:line" of the source.
        target: "package.module:Class" of an adopted class.
        left_out: Parameters of an adopted class without an option.
        takes: Optional arguments of the group that it has.
        code: Folder or file of its plugin.
        distribution: Installed distribution of its plugin, "name 1.0"; empty for a folder or file.
        unavailable: Reason and fix if the package is not installed.
        load: Function that imports the module.
        factory: The class or function, once imported.
    """

    group: str
    name: str
    summary: str
    parameters: dict[str, Parameter]
    facts: dict[str, Any]
    origin: str = "dlframe"
    where: str = ""
    target: str = ""
    left_out: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    code: Path | None = None
    distribution: str = ""
    unavailable: str = ""
    load: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    factory: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def check(self, options: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Return all options with defaults; `ConfigError` for an invalid one."""
        key = key or self.group
        if self.unavailable:
            raise ConfigError(f"{self.group}={self.name}: {self.unavailable}", key)
        for name in options:
            if name != "name" and name not in self.parameters:
                command = command_line("show", f"{self.group}={self.name}")
                hint = nearest(str(name), self.parameters)
                if str(name).startswith("_"):
                    raise ConfigError(
                        f"{key}.{name}: is not supported: choose a registered entry, model=NAME.", f"{key}.{name}"
                    )
                if new := new_name(self.group, self.name, str(name)):
                    raise ConfigError(f"{key}.{name}: is called '{new}' now.", f"{key}.{name}")
                raise ConfigError(f"{key}.{name}: '{self.name}' has no such option.{hint} See: {command}", f"{key}.{name}")
        given = {name: options.get(name, p.default) for name, p in self.parameters.items()}
        return {name: self.parameters[name].check(value, f"{key}.{name}") for name, value in given.items()}


class Registry:
    """Components of a config group.

    Args:
        group: Name of the group in a config.
        injected: Arguments passed when a component is built; these are not options.
        optional: Further ones, which a component may have.
        required: Options of every component.
        reserved: Names that no option can have.
        facts: Metadata that a component may state, with defaults.
    """

    def __init__(
        self,
        group: str,
        *,
        injected: tuple[str, ...] = (),
        optional: tuple[str, ...] = (),
        required: tuple[str, ...] = (),
        reserved: tuple[str, ...] = ("name",),
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.group = group
        self.injected = injected
        self.optional = optional
        self.required = required
        self.reserved = reserved
        self.facts = {"exempt": {}, "search": {}, **(facts or {})}
        self.entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self.entries.values(), key=lambda e: e.name))

    def register(self, name: str, **facts: Any) -> Callable[[Any], Any]:
        """Decorator that registers a class or function as `name`.

        `exempt={"overfits": "reason"}` declares a contract test that does not apply; `search={"width": "choice(16,32)"}` says
        what a sweep searches if it is given no space.
        """

        def decorate(factory: Any) -> Any:
            known = self.entries.get(name)
            if known and known.load and known.where.startswith(f"{_file_of(factory)}:"):
                self._compare(known, factory)
                self.entries[name] = replace(known, factory=factory)
            else:
                self.add(replace(self.read_object(name, facts, factory), factory=factory))
            return factory

        return decorate

    def adopt(
        self,
        name: str,
        target: str,
        doc: str = "",
        /,
        *,
        facts: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Any] | None = None,
        given: Mapping[str, str] | None = None,
        omit: tuple[str, ...] | Literal["others"] = (),
        **options: Any,
    ) -> None:
        """Register a class or function of another package as `name`.

        Example: `adopt("lion", "timm.optim:Lion", lr=Positive)`. The signature is read from the source. A parameter whose
        type and default a config can hold is an option; the statement adds the rest. When the class is imported, its
        signature is compared with the source.

        Args:
            name: Name of the component.
            target: "package.module:Class".
            doc: Docstring; default is that of the class.
            facts: Metadata, as the keywords of `register`.
            fixed: Values of parameters that are not options.
            given: Parameter -> injected argument, if their names differ; or an attribute, "spec.shape".
            omit: Parameters that are not options and keep the class's default; "others" for all parameters not named.
            **options: Type with its range, or `Option(type, meaning, default=..., of=..., values=...)`.

        Raises:
            RegistrationError: The class or a parameter does not exist, or the name is taken.
        """
        frame = sys._getframe(1)
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        known = self.entries.get(name)
        if known is None or (known.where, known.target) != (where, target):
            said = {"facts": facts or {}, "fixed": fixed or {}, "given": given or {}, "omit": omit}
            self.add(self.read_adoption((name, target, doc), said | options, where))

    def add(self, entry: Entry) -> None:
        """Add an entry; `RegistrationError` if its name is taken or invalid."""
        if not (isinstance(entry.name, str) and re.fullmatch(r"[a-z]\w*", entry.name, re.ASCII)):
            raise RegistrationError(
                f"{self.group} {entry.name!r}: a name must be a lowercase letter, then letters, digits and underscores "
                f"({entry.where})"
            )
        known = self.entries.get(entry.name)
        if known and entry.target:
            is_same = (known.where, known.target) == (entry.where, entry.target)
        else:
            is_same = known and known.factory and known.where.rpartition(":")[0] == entry.where.rpartition(":")[0]
            is_same = is_same or (known and _is_typed(known.factory) and _is_typed(entry.factory))
        if known and is_same:
            entry = replace(entry, factory=entry.factory or known.factory)  # imported before discovery
        elif known:
            raise NameTaken(
                f"{self.group} '{entry.name}' is already registered by {known.origin} ({known.where}); "
                f"choose another name in {entry.where}"
            )
        for fact, value in sorted(entry.facts.items()):
            told = f"{self.group} '{entry.name}' states"
            if fact not in self.facts:
                raise RegistrationError(f"{told} unknown metadata '{fact}' ({entry.where}).{nearest(fact, self.facts)}")
            if (kind := type(self.facts[fact])) is not type(value):
                raise RegistrationError(
                    f"{told} '{fact}', which must be a {kind.__name__} ({entry.where}). Received: {value!r}."
                )
        self.entries[entry.name] = replace(entry, facts={**self.facts, **self._inherited(entry), **entry.facts})

    def _inherited(self, entry: Entry) -> dict[str, Any]:
        """Return the metadata of the component that an entry extends, which it need not repeat."""
        if not (base := entry.facts.get("extends")):
            return {}
        if base not in self.entries:
            hint = nearest(base, self.entries)
            raise RegistrationError(
                f"{self.group} '{entry.name}' extends '{base}', which is not registered ({entry.where}).{hint}"
            )
        return {name: value for name, value in self.entries[base].facts.items() if name not in ("exempt", "search", "extends")}

    def get(self, name: str) -> Entry:
        """Return an entry by name; `ConfigError` with a suggestion if unknown."""
        if name not in self.entries:
            hint = nearest(str(name), self.entries)
            raise ConfigError(f"{self.group}={name}: no such {self.group}.{hint} See: {command_line('list', self.group)}")
        return self.entries[name]

    def build(self, config: Mapping[str, Any], **injected: Any) -> Any:
        """Check `config` ({name: ..., option: ...}) and build the entry.

        Raises:
            ConfigError: An option is invalid.
            RegistrationError: The code of a plugin fails.
        """
        entry = self.get(config["name"])
        options = entry.check(config)
        factory = self.factory(entry.name)
        if any(is_converted(p.annotation) for p in entry.parameters.values()):
            kinds = _kinds(factory)
            options = {name: built(kinds.get(name), value) for name, value in options.items()}
        try:
            return factory(**injected, **options)
        except (DlframeError, MemoryError, OSError):
            raise
        except Exception as error:
            if entry.origin == "dlframe" or re.search("out of memory|allocate memory", str(error), re.IGNORECASE):
                raise
            said = located(error, Path(entry.where.rpartition(":")[0]).parent)
            raise RegistrationError(f"{self.group}={entry.name} cannot be built: {said}") from error

    def factory(self, name: str) -> Callable[..., Any]:
        """Import the class or function of an entry."""
        entry = self.get(name)
        if entry.factory is None and entry.load:
            entry.load()
            entry = self.get(name)
        if entry.factory is None:
            raise RegistrationError(f"{self.group} '{entry.name}' was not registered when {entry.where} was imported")
        return entry.factory

    def _compare(self, read: Entry, factory: Callable[..., Any]) -> None:
        """Raise `RegistrationError` if an imported signature has other options than its source."""
        signature = inspect.signature(factory).parameters
        variable = [p.name for p in signature.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        options = {p for p in signature if p not in (*self.injected, *self.optional, *variable)}
        for name in sorted(options ^ set(read.parameters)):
            there, here = (name in names for names in (options, read.parameters))
            raise RegistrationError(
                f"{self.group} '{read.name}': parameter '{name}' is {'' if here else 'not '}in the source, and "
                f"{'' if there else 'not '}in the signature when imported: a decorator or metaclass changes it ({read.where})"
            )
        for name, parameter in read.parameters.items():
            default = _plain(signature[name].default)
            if parameter.default is not default and (default is REQUIRED or parameter.with_default(default) != parameter):
                raise RegistrationError(
                    f"{self.group} '{read.name}': the default of '{name}' is {parameter.default!r} in the source and "
                    f"{default!r} when imported ({read.where})"
                )

    def read_object(self, name: str, facts: dict[str, Any], factory: Any) -> Entry:
        """Return the entry of an imported class or function, as of a notebook."""
        try:
            where = f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
        except (OSError, TypeError):  # typed in an interactive session
            where = factory.__module__
        call = factory.__init__ if inspect.isclass(factory) else factory
        signature = [] if call is object.__init__ else list(inspect.signature(call).parameters.values())

        def rows() -> Iterator[Row]:
            for p in signature[1 if inspect.isclass(factory) else 0 :]:
                if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                    raise ValueError(p.name, "is variable; every option must have a name and a type")
                annotation = p.annotation
                if isinstance(annotation, str) and p.name not in (*self.injected, *self.optional):
                    annotation = resolve(ast.parse(annotation, mode="eval").body, Scope(TYPES | call.__globals__))
                yield p.name, of_config(annotation), _plain(p.default)

        doc = inspect.getdoc(factory) or ""
        if inspect.isclass(factory):
            owner = next(c for c in factory.__mro__ if "__init__" in vars(c))
            doc = with_arguments(doc, owner.__doc__ or "")
        return self._entry(name, facts, rows(), doc, where)

    def read_registration(self, found: Registration) -> Entry:
        """Return the entry of a registration in a file."""
        rows = found.rows(self.injected + self.optional)
        return self._entry(found.name, found.facts, rows, found.doc, found.where)

    def read_adoption(self, positional: Sequence[Any], said: Mapping[str, Any], where: str) -> Entry:
        """Return the entry of an `adopt` statement with these arguments."""
        name, target, *doc = positional
        own = {key: value for key, value in said.items() if key in ("facts", "fixed", "given", "omit")}
        options = {key: v if isinstance(v, Option) else Option(v) for key, v in said.items() if key not in own}
        adoption = Adoption(self.group, self.injected, name, target, where, *doc, **own, options=options)
        facts = dict(adoption.facts)
        try:
            adopted = adoption.read()
        except NotInstalled as missing:
            summary = adoption.doc.strip().split("\n")[0] or f"{target}."
            fix = f"requires the package '{missing}', which is not installed. Try: python -m pip install {missing}"
            return Entry(self.group, name, summary, {}, facts, where=where, target=target, unavailable=fix)
        injected = [(argument, REQUIRED, REQUIRED) for argument in self.injected]
        entry = self._entry(name, facts, [*injected, *adopted.rows.values()], adopted.doc, where)

        def load() -> None:
            self.entries[name] = replace(self.entries[name], factory=adopted.load())

        return replace(entry, target=target, left_out=adopted.left_out, load=load)

    def _entry(self, name: str, facts: dict[str, Any], rows: Iterable[Row], doc: str, where: str) -> Entry:
        def fault(option: str, text: str) -> RegistrationError:
            return RegistrationError(f"{self.group} '{name}': parameter '{option}' {text} ({where})")

        try:
            signature = {option: (annotation, default) for option, annotation, default in rows}
        except ValueError as error:
            raise fault(*error.args) from None
        for missing in (i for i in self.injected if i not in signature):
            raise fault(missing, f"is missing: every {self.group} receives it when built")
        for missing in (i for i in self.required if i not in signature):
            raise fault(missing, f"is missing: every {self.group} has this option")
        explained = arg_descriptions(doc)
        parameters = {}
        for option, (annotation, default) in signature.items():
            if option in (*self.injected, *self.optional):
                continue
            if option in self.reserved or option.startswith("_"):
                raise fault(option, "cannot be an option; choose another name")
            if annotation is REQUIRED:
                raise fault(option, "has no type; write for example 'width: int = 32'")
            try:
                parameters[option] = Parameter(option, annotation, default, explained.get(option, ""))
            except ValueError as error:
                raise fault(option, f"must be {error}. Received: {default!r}") from None
        takes = tuple(option for option in self.optional if option in signature)
        return Entry(self.group, name, doc.strip().split("\n")[0], parameters, facts, where=where, takes=takes)


def _file_of(factory: Any) -> str:
    """Return the source file of a class or function; empty for what was typed in an interactive session."""
    try:
        return inspect.getsourcefile(factory) or ""
    except TypeError:
        return ""


def _plain(default: Any) -> Any:
    """Return a default as a config has it."""
    return default.name if isinstance(default, enum.Enum) else str(default) if isinstance(default, Path) else default


def _kinds(factory: Any) -> dict[str, Any]:
    """Return the types of the parameters of an imported class or function."""
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    except Exception as error:  # an annotation can be any code
        raise RegistrationError(f"{_file_of(factory)}: the types of the parameters cannot be read: {error}") from error


def _is_typed(factory: Any) -> bool:
    """Return whether a class or function was typed in a notebook or at a prompt, where a new definition replaces the old."""
    return getattr(factory, "__module__", "") == "__main__"
