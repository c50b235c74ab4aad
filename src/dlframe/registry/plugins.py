"""Discovery of built-in, installed and local components.

Files are parsed, not imported: a module runs when one of its entries is built. Plugins are code and run with the user's
rights; `DLFRAME_PLUGINS=none` disables all plugins.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe.registry import CHOICES, REGISTRIES, STUDY_CHOICES, Entry, Registry, read_source
from dlframe.registry.sources import LARGEST, Source
from dlframe.storage.stamps import Stamps, stamps
from dlframe.types import ConfigError, NameTaken, RegistrationError, located, nearest, read_bytes

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PACKAGE = Path(__file__).parent.parent

FOLDERS = (
    *("tasks", "models", "data", "augmentations", "optimizers", "schedulers", "callbacks", "metrics"),
    *("samplers", "pruners", "executors"),
)
"""Sub-packages of dlframe with components."""

PACKAGED_CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parent.parent / "conf") if p.is_dir())
"""YAML files of dlframe, in an installed package or a checkout."""

broken: dict[str, str] = {}
"""Plugin name -> what the last `discover` left out and why: "is left out: ...". Other plugins still work."""

conf_folders: dict[Path, str] = {}
"""Folder of presets and experiments -> its plugin, of the last `discover`."""

MOST = 2000
"""Files of a plugin that have a hash each; those beyond share one."""
FURTHER = "a further *.py"

_seen: set[Path] = set()


def discover(plugin_paths: Sequence[str] = ()) -> None:
    """Fill the registries.

    Errors of installed plugins and of `./plugins` are stored in `broken`; those of `plugin_paths` are raised.

    Raises:
        ConfigError: A path of `plugin_paths` does not exist, or plugins are disabled.
        RegistrationError: A plugin of `plugin_paths` cannot be registered.
    """
    broken.clear()
    conf_folders.clear()
    for folder in FOLDERS:
        _read(sorted((PACKAGE / folder).glob("[!_]*.py")), "dlframe", f"dlframe.{folder}", _import)
    if os.environ.get("DLFRAME_PLUGINS") == "none":
        if plugin_paths:
            raise ConfigError("plugin_paths: must be empty with DLFRAME_PLUGINS=none.")
        return
    for name, points in _entry_points().items():
        _tolerate(name, lambda points=points: _read_installed(points))
    local = Path("plugins")
    _tolerate("plugins/conf", lambda: _add_conf(local / "conf", "plugins"))
    for path in sorted(local.iterdir()) if local.is_dir() else []:
        if path.name != "conf" and not path.name.startswith((".", "_")) and (path.is_dir() or path.suffix == ".py"):
            _tolerate(path.stem, lambda path=path: _read_path(path))
    for text in plugin_paths:
        path = Path(text).expanduser() if text.startswith("~/") else Path(text)
        if not text or not (path.is_dir() or (path.is_file() and path.suffix == ".py")):
            raise ConfigError(f"plugin_paths: must be a folder or a .py file. Received: {text!r}.")
        if clashes := _read_path(path):
            raise NameTaken("; ".join(clashes))


_points: dict[Stamps, dict[str, list[EntryPoint]]] = {}
"""Plugins of installed packages by the stamps of the folders of packages: of the last state only."""


def _entry_points() -> dict[str, list[EntryPoint]]:
    """Return the plugins of installed packages by name, read again when a package is installed or removed."""
    written = stamps(path or "." for path in sys.path)
    if written is None or written not in _points:
        from importlib.metadata import distributions

        found: dict[str, list[EntryPoint]] = {}
        for distribution in distributions():
            for point in distribution.entry_points.select(group="dlframe.plugins"):
                found.setdefault(point.name, []).append(point)
        if written is None:
            return found
        _points.clear()
        _points[written] = found
    return _points[written]


def _tolerate(name: str, read: Callable[[], list[str] | None]) -> None:
    try:
        if clashes := read():
            broken[name] = f"lacks {'; '.join(clashes)}"
    except RegistrationError as error:
        broken[name] = f"is left out: {error}"


def _read_path(path: Path) -> list[str]:
    """Read a plugin: a Python file, or a folder of files except tests; return the names that are taken already."""
    path = Path(os.path.realpath(path))  # resolve() fails at a loop of links
    folder, files = (path, _files(path)) if path.is_dir() else (path.parent, [path])
    package = "dlframe_plugins." + re.sub(r"\W", "_", str(path))

    def import_(module: str, file: Path) -> None:
        """Import by path; any file name and `from .other import ...` work."""
        _import_file("dlframe_plugins", None, folder)
        places = [folder, *reversed([place for place in file.parents if folder in place.parents])] if path.is_dir() else [path]
        for place in places:
            initial, below = place / "__init__.py", place.relative_to(path).parts
            _import_file(".".join([package, *below]), initial if initial.is_file() else None, folder)
        _import_file(module, file, folder)

    def load(module: str, file: Path) -> None:
        _guarded(path.stem, folder, lambda: import_(module, file))

    return _read(files, path.stem, package, load, path if path.is_dir() else None)


def _files(folder: Path) -> list[Path]:
    """Return the Python files of a folder and of the packages in it, except tests."""
    files = [file for file in sorted(folder.glob("*.py")) if not file.name.startswith(("test_", "conftest"))]
    for below in sorted(folder.iterdir()):
        is_package = (below / "__init__.py").is_file() and not below.is_symlink()
        if is_package and not below.name.startswith((".", "_", "test")):
            files += _files(below)
    return files


def _add_conf(folder: Path, plugin: str) -> None:
    """Add the presets and experiments of a plugin, with unique names."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in (".yaml", ".yml")]
    for file in files if folder not in conf_folders else ():
        group, _, name = file.relative_to(folder).with_suffix("").as_posix().partition("/")
        if group not in (groups := (*REGISTRIES, *CHOICES, *STUDY_CHOICES)) or not name:
            raise RegistrationError(f"{file}: must be in a folder with the name of a group.{nearest(group, groups)}")
        for other, owner in ((PACKAGED_CONF, "dlframe"), *conf_folders.items()):
            if (known := other / group / f"{name}.yaml").is_file():
                raise RegistrationError(f"{file}: {group}={name} exists in '{owner}' ({known}). Rename the file.")
    if folder.is_dir():
        conf_folders.setdefault(folder, plugin)


def _import_file(name: str, source: Path | None, folder: Path) -> None:
    """Import `source` under a name, once; None gives an empty package of `folder`."""
    if name in sys.modules:
        return
    if source is None:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)] if "." in name else []
        return
    search = [str(source.parent)] if source.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=search)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except BaseException:
        del sys.modules[name]
        raise


def _read_installed(points: Sequence[EntryPoint]) -> list[str]:
    """Read the module or package of an entry point, without imports; return the names that are taken already.

    Args:
        points: Entry points of one name; more than one of the same module and version are one.
    """
    point = points[0]
    said = {(p.value, p.dist.version if p.dist else ""): f"{p.value} of {_distribution(p)}" for p in points}
    if len(said) > 1:
        raise RegistrationError(f"it is installed {len(said)} times: {', '.join(said.values())}. Uninstall all but one")
    top, *below = point.module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    roots = [Path(root, *below) for root in (spec.submodule_search_locations or () if spec else ())]
    places = [file for root in roots for file in (root / "__init__.py", root.with_suffix(".py"))]
    if spec and spec.origin and not below:
        places = [Path(spec.origin)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise RegistrationError(f"{point.module} is not installed")
    is_package = file.name == "__init__.py"

    def load(module: str, _: Path) -> None:
        _guarded(point.name, file.parent, lambda: _import(module))

    version = f"{point.dist.name} {point.dist.version}" if point.dist else ""
    if is_package:
        return _read(_files(file.parent), point.name, point.module, load, file.parent, distribution=version)
    return _read([file], point.name, point.module.rpartition(".")[0], load, distribution=version)


def _distribution(point: EntryPoint) -> str:
    """Return name, version and place of the distribution of an entry point."""
    if point.dist is None:
        return "an unknown distribution"
    return f"{point.dist.name} {point.dist.version} in {point.dist.locate_file('')}"


def _read(
    files: Iterable[Path],
    origin: str,
    package: str,
    load: Callable[[str, Path], None],
    folder: Path | None = None,
    *,
    distribution: str = "",
) -> list[str]:
    """Register all components of the files, or none where one is invalid.

    Args:
        files: Python files.
        origin: Name of the plugin.
        package: Module of the files that are not below `folder`, or of the folder.
        load: Function that imports a file under a module name.
        folder: Folder of the package; its `conf` holds presets and experiments.
        distribution: Name and version of the distribution that brings it; empty without one.

    Returns:
        Components that are left out, since their names are taken already.

    Raises:
        RegistrationError: Files cannot be read or components are invalid: all of them are named.
    """
    added: list[tuple[Registry, Entry]] = []
    faults, clashes = [], []
    fresh = [file for file in files if file not in _seen]
    for file in fresh:
        names = file.relative_to(folder).with_suffix("").parts if folder else (file.stem,)
        module = ".".join(part for part in (package, *names) if part and part != "__init__")
        try:
            found = read_source(file, brief=origin == "dlframe")
        except RegistrationError as error:
            faults.append(str(error))
            continue
        for registry, entry in found:
            try:
                loading = entry.load or functools.partial(load, module, file)
                code = {"origin": origin, "code": folder or file, "distribution": distribution}
                registry.add(replace(entry, load=loading, **code))
                added.append((registry, entry))
            except NameTaken as error:
                clashes.append(str(error))
            except RegistrationError as error:
                faults.append(str(error))
    try:
        if faults:
            raise RegistrationError("; ".join(faults))
        if folder:
            _add_conf(folder / "conf", origin)
    except RegistrationError:
        for registry, entry in added:
            del registry.entries[entry.name]
        raise
    _seen.update(fresh)
    return clashes


def _import(module: str, _: Path | None = None) -> None:
    importlib.import_module(module)


def _guarded(plugin: str, folder: Path, run: Callable[[], None]) -> None:
    """Import a plugin; `RegistrationError` with the failing line of the plugin."""
    try:
        run()
    except RegistrationError:
        raise
    except (Exception, SystemExit) as error:
        raise RegistrationError(f"plugin '{plugin}' cannot be imported: {located(error, folder)}") from error


def code_of(chosen: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return the code of the plugins among (group, name) pairs: plugin -> file -> hash, and its distribution -> version."""
    found: dict[str, dict[str, str]] = {}
    for group, name in chosen:
        entry = REGISTRIES[group].get(name)
        place = entry.code or Path(entry.where.rpartition(":")[0])
        if not place.exists() or place.is_relative_to(PACKAGE):
            continue
        own = found.setdefault(entry.origin if entry.code else place.stem, {})
        own |= dict([entry.distribution.rsplit(" ", 1)]) if entry.distribution else {}
        own |= _version_of(entry.target)
        further = hashlib.sha256()
        for number, file in enumerate(_code_files(place)):
            path = file.relative_to(place if place.is_dir() else place.parent).as_posix()
            code = hashlib.sha256(read_bytes(file, LARGEST)).hexdigest()[:16]
            if number < MOST:
                own[path] = code
            else:
                further.update(os.fsencode(f"{path} {code} "))
                own[FURTHER] = further.hexdigest()[:16]
    return found


def _version_of(target: str) -> dict[str, str]:
    """Return the version of the package of an adopted class; none where it is not installed as one."""
    package = target.partition(":")[0].partition(".")[0]
    try:
        return {package: importlib.metadata.version(package)} if package else {}
    except importlib.metadata.PackageNotFoundError:
        return {}


def _code_files(place: Path) -> list[Path]:
    """Return the Python files of a folder except tests and hidden ones, or a file and those beside it that it imports."""
    if place.is_dir():
        found = []
        for folder, folders, names in os.walk(place):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(folder, n) for n in names if n.endswith(".py") and not n.startswith((".", "test_", "conftest"))]
        return sorted(found)
    found: list[Path] = []
    todo = [place]
    while todo:
        file = todo.pop()
        if file not in found and file.is_relative_to(place.parent):
            found.append(file)
            todo += Source(file).beside()
    return sorted(found)


def preload(chosen: Iterable[tuple[str, str]]) -> None:
    """Import the plugins among (group, name) pairs, to fail before any work."""
    for group, name in chosen:
        entry = REGISTRIES[group].get(name)
        if entry.origin != "dlframe" and entry.load:
            entry.load()
