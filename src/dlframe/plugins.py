"""Where entries come from: the built-ins, installed distributions, `./plugins`, `plugin_paths`. All by the same call.

Files are parsed, not imported: a module runs when an entry of its own is built. A plugin is code and is run with the
user's rights; `DLFRAME_PLUGINS=none` leaves out all but the built-ins.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from dlframe.registry import GROUPS, read_source
from dlframe.types import ConfigError, RegistrationError

FOLDERS = ("tasks", "models", "data", "augmentations", "optimizers", "schedulers", "callbacks")
"""The sub-packages of dlframe that hold entries."""

broken: dict[str, str] = {}
"""Plugin name -> what is wrong with it. The rest goes on working."""

_seen: set[Path] = set()


def discover(plugin_paths: Iterable[str] = ()) -> None:
    """Fill the registries.

    A fault in an installed plugin or in one of `./plugins` is kept in `broken`; a fault in one that `plugin_paths` names
    is raised.

    Raises:
        ConfigError: A path of `plugin_paths` does not exist.
        RegistrationError: A plugin of `plugin_paths` cannot be registered.
    """
    package = Path(__file__).parent
    for folder in FOLDERS:
        _read(sorted((package / folder).glob("[!_]*.py")), "dlframe", f"dlframe.{folder}", _import)
    if os.environ.get("DLFRAME_PLUGINS") == "none":
        return
    for point in importlib.metadata.entry_points(group="dlframe.plugins"):
        _tolerate(point.name, lambda point=point: _read_installed(point))
    local = Path("plugins")
    for path in sorted(local.iterdir()) if local.is_dir() else []:
        if not path.name.startswith((".", "_")) and (path.is_dir() or path.suffix == ".py"):
            _tolerate(path.stem, lambda path=path: _read_path(path))
    for text in plugin_paths:
        path = Path(text)
        if not text or not (path.is_dir() or (path.is_file() and path.suffix == ".py")):
            raise ConfigError(f"plugin_paths: must be a folder or a .py file. Received: {text!r}.")
        _read_path(path)


def _tolerate(name: str, read: Callable[[], None]) -> None:
    try:
        read()
    except RegistrationError as error:
        broken[name] = str(error)


def _read_path(path: Path) -> None:
    """A plugin is a Python file, or a folder of them; its tests are left alone."""
    path = path.resolve()
    files = [path] if path.is_file() else [f for f in sorted(path.glob("*.py")) if not f.name.startswith("test_")]
    package = f"dlframe_plugins.{path.stem}"
    for name, search in (("dlframe_plugins", []), (package, [str(path.parent if path.is_file() else path)])):
        if name not in sys.modules:
            sys.modules[name] = module = types.ModuleType(name)
            module.__path__ = search
    _read(files, path.stem, package, lambda module: _import_plugin(path.stem, module))


def _read_installed(point: importlib.metadata.EntryPoint) -> None:
    try:
        spec = importlib.util.find_spec(point.module)
    except (ImportError, ValueError) as error:
        raise RegistrationError(f"plugin '{point.name}': {point.module} cannot be found: {error}") from None
    if spec is None or spec.origin is None:
        raise RegistrationError(f"plugin '{point.name}': {point.module} is not installed")
    origin = Path(spec.origin)
    package, files = point.module, [origin]
    if origin.name == "__init__.py":
        files = sorted(origin.parent.glob("*.py"))
    else:
        package = point.module.rpartition(".")[0]
    _read(files, point.name, package, lambda module: _import_plugin(point.name, module))


def _read(files: Iterable[Path], origin: str, package: str, load: Callable[[str], None]) -> None:
    for file in files:
        if file in _seen:
            continue
        _seen.add(file)
        module = package if file.name == "__init__.py" else f"{package}.{file.stem}".lstrip(".")
        for registry, entry in read_source(file):
            registry.add(replace(entry, origin=origin, load=lambda module=module: load(module)))


def _import(module: str) -> None:
    importlib.import_module(module)


def _import_plugin(name: str, module: str) -> None:
    try:
        importlib.import_module(module)
    except RegistrationError:
        raise
    except Exception as error:
        file = Path(getattr(sys.modules.get(module.rpartition(".")[0]), "__path__", ["."])[0])
        line = ""
        trace = error.__traceback__
        while trace:
            if Path(trace.tb_frame.f_code.co_filename).is_relative_to(file):
                line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}: "
            trace = trace.tb_next
        raise RegistrationError(f"plugin '{name}' cannot be imported: {line}{type(error).__name__}: {error}") from error


def preload(chosen: Iterable[tuple[str, str]]) -> None:
    """Import the plugins among the (group, name) pairs, so that one which fails does so before any work is done."""
    for group, name in chosen:
        entry = GROUPS[group].get(name)
        if entry.origin != "dlframe" and entry.load:
            entry.load()
