"""Names for classes. A typed signature is a config: read once, from the source, without running it.

`@models.register("cnn")` on a class or a function makes `model=cnn` a choice and each keyword-only parameter an option,
with the type, the range, the default and the meaning that its signature and docstring give. `read_source` finds these
decorators in a file by parsing it, so that a config is checked before anything heavy (or anything of a stranger's) is imported.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlframe.registry.parameters import REQUIRED, TYPES, Parameter
from dlframe.registry.signatures import Row, meanings, resolve
from dlframe.types import ConfigError, RegistrationError, nearest


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
        required: Options that every entry has.
        facts: The facts that an entry may state, with their defaults.
    """

    def __init__(
        self,
        group: str,
        *,
        injected: tuple[str, ...] = (),
        required: tuple[str, ...] = (),
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.group = group
        self.injected = injected
        self.required = required
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
        for fact, value in sorted(entry.facts.items()):
            told = f"{self.group} '{entry.name}' states"
            if fact not in self.facts:
                raise RegistrationError(f"{told} an unknown fact '{fact}' ({entry.where}).{nearest(fact, self.facts)}")
            if (kind := type(self.facts[fact])) is not type(value):
                raise RegistrationError(
                    f"{told} '{fact}', which must be a {kind.__name__} ({entry.where}). Received: {value!r}."
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
        signature = [] if call is object.__init__ else list(inspect.signature(call).parameters.values())

        def rows() -> Iterator[Row]:
            for p in signature[1 if inspect.isclass(factory) else 0 :]:
                if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                    raise ValueError(p.name, "is a variable list; every option needs a name and a type")
                annotation = p.annotation
                if isinstance(annotation, str) and p.name not in self.injected:
                    annotation = resolve(ast.parse(annotation, mode="eval").body, TYPES | call.__globals__)
                yield p.name, annotation, p.default

        return self._entry(name, facts, rows(), inspect.getdoc(factory) or "", where)

    def _entry(self, name: str, facts: dict[str, Any], rows: Iterable[Row], doc: str, where: str) -> Entry:
        def fault(option: str, text: str) -> RegistrationError:
            return RegistrationError(f"{self.group} '{name}': parameter '{option}' {text} ({where})")

        try:
            signature = {option: (annotation, default) for option, annotation, default in rows}
        except ValueError as error:
            raise fault(*error.args) from None
        for missing in (i for i in self.injected if i not in signature):
            raise fault(missing, f"is missing: a {self.group} is given it when it is built")
        for missing in (i for i in self.required if i not in signature):
            raise fault(missing, f"is missing: every {self.group} has this option")
        explained = meanings(doc)
        parameters = {}
        for option, (annotation, default) in signature.items():
            if option in self.injected:
                continue
            if annotation is REQUIRED:
                raise fault(option, "has no type; write for example 'width: int = 32'")
            try:
                parameters[option] = Parameter(option, annotation, default, explained.get(option, ""))
            except ValueError as error:
                raise fault(option, f"must be {error}. Received: {default!r}") from None
        return Entry(self.group, name, doc.strip().split("\n")[0], parameters, facts, where=where)
