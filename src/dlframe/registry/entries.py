"""Names for classes. A typed signature is a config: read once, from the source, without running it.

`@models.register("cnn")` on a class or a function makes `model=cnn` a choice and each keyword-only parameter an option,
with the type, the range, the default and the meaning that its signature and docstring give. `read_source` finds these
decorators in a file by parsing it, so that a config is checked before anything heavy (or anything of a stranger's) is imported.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dlframe.registry.adoption import Adoption
from dlframe.registry.installed import NotInstalled
from dlframe.registry.parameters import REQUIRED, TYPES, Option, Parameter
from dlframe.registry.renamed import new_name
from dlframe.registry.signatures import Row, arg_descriptions, resolve, with_arguments
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
        target: "package.module:Class" of an adopted one.
        left_out: Parameters of an adopted class that are no options.
        unavailable: Why it cannot be built here, and what to do: its package is not installed.
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
    target: str = ""
    left_out: tuple[str, ...] = ()
    unavailable: str = ""
    load: Callable[[], object] | None = field(default=None, compare=False, repr=False)
    factory: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def check(self, options: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Every option in its type, defaults filled in; `ConfigError` for an unknown one or one outside its range."""
        key = key or self.group
        if self.unavailable:
            raise ConfigError(f"{self.group}={self.name}: {self.unavailable}", key)
        for name in options:
            if name != "name" and name not in self.parameters:
                command = f"python -m dlframe show {self.group}={self.name}"
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
        """Make `name` stand for a class or function of another package: `adopt("lion", "timm.optim:Lion", lr=Positive)`.

        Its signature is read from its source. A parameter with a type and a default that a config can hold is an option;
        what the signature lacks is said here. The class is imported when it is built, and compared with what was read.

        Args:
            name: The entry's name.
            target: "package.module:Class", as one would import it.
            doc: Docstring; the class's own without one.
            facts: What `register` takes as keywords.
            fixed: Values for parameters that are no options.
            given: Parameter -> the injected argument that it takes, where their names differ; an attribute of one is
                written "spec.shape".
            omit: Parameters that are no options and keep the class's default; "others" for all that are not named here.
            **options: A type with its range, or `Option(type, meaning, default=..., of=..., values=...)`.

        Raises:
            RegistrationError: There is no such class, or it has no such parameter, or the name is taken.
        """
        frame = sys._getframe(1)
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        known = self.entries.get(name)
        if known is None or (known.where, known.target) != (where, target):
            said = {"facts": facts or {}, "fixed": fixed or {}, "given": given or {}, "omit": omit}
            self.add(self.read_adoption((name, target, doc), said | options, where))

    def add(self, entry: Entry) -> None:
        """Take an entry in; `RegistrationError` where its name is taken or cannot be typed."""
        if not (isinstance(entry.name, str) and re.fullmatch(r"[a-z]\w*", entry.name, re.ASCII)):
            raise RegistrationError(
                f"{self.group} {entry.name!r}: a name is a small letter, then letters, digits and underscores ({entry.where})"
            )
        known = self.entries.get(entry.name)
        if known and entry.target:
            is_same = (known.where, known.target) == (entry.where, entry.target)
        else:
            is_same = known and known.factory and known.where.rpartition(":")[0] == entry.where.rpartition(":")[0]
        if known and is_same:
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

        doc = inspect.getdoc(factory) or ""
        if inspect.isclass(factory):
            owner = next(c for c in factory.__mro__ if "__init__" in vars(c))
            doc = with_arguments(doc, owner.__doc__ or "")
        return self._entry(name, facts, rows(), doc, where)

    def read_adoption(self, positional: Sequence[Any], said: Mapping[str, Any], where: str) -> Entry:
        """The entry of an `adopt` statement with these arguments."""
        name, target, *doc = positional
        own = {key: value for key, value in said.items() if key in ("facts", "fixed", "given", "omit")}
        options = {key: v if isinstance(v, Option) else Option(v) for key, v in said.items() if key not in own}
        adoption = Adoption(self.group, self.injected, name, target, where, *doc, **own, options=options)
        facts = dict(adoption.facts)
        try:
            adopted = adoption.read()
        except NotInstalled as missing:
            summary = adoption.doc.strip().split("\n")[0] or f"{target}."
            fix = f"needs the package '{missing}', which is not installed. Try: python -m pip install {missing}"
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
            raise fault(missing, f"is missing: a {self.group} is given it when it is built")
        for missing in (i for i in self.required if i not in signature):
            raise fault(missing, f"is missing: every {self.group} has this option")
        explained = arg_descriptions(doc)
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
