"""YAML files as data: every fault is told with its file and line, and none can grow, hide an entry or name code.

Hydra reads the folders of a config through `YamlFolder`, the user's before the packaged one (`SearchPath`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlframe.config.choices import SUFFIXES
from dlframe.registry import GROUPS
from dlframe.types import ConfigError, is_printable, printable, read_text

WHOLE = ("", "experiment", "task")
"""Groups whose files speak of the whole config, whether or not they say `# @package _global_`."""

LARGEST = 2**18
"""Bytes of a file: a hundred times a long config, and no more than can be read within seconds."""

REFERENCE = re.compile(r"\$\{[\w.\[\]]+\}")
"""All that may stand for a value: the name of another option. Anything else in `${}` could read the environment."""

REFERENCES = 20
"""References in a config: more could stand for gigabytes, each doubling the one before."""

LONGEST = 10_000
"""Characters of a value."""


def read(file: Path, package: str = "", locations: dict[str, str] | None = None, inside: Path | None = None) -> dict[Any, Any]:
    """Read a file: its content, {} of an empty one.

    Args:
        file: The YAML file.
        package: Dotted key below which its content is placed.
        locations: Takes "file:line" of each dotted key, and of each group that a defaults list chooses from. Of several
            files the one read last counts.
        inside: Folder of a run, see `opened`.

    Raises:
        ConfigError: It is no UTF-8, no YAML or no mapping, too large, gives a key twice, speaks of Hydra itself, or holds an
            alias, control characters, or a reference to more than an option.
    """
    locations = {} if locations is None else locations
    try:
        loader = _Loader(_text(file, inside))
        if (root := loader.get_single_node()) is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            kind = "sequence" if isinstance(root, yaml.SequenceNode) else "scalar"
            raise ConfigError(f"{file}: must hold keys with values. Received: a {kind}.")
        for key, node in _scalars(root, package):
            if fault := _fault(node, "defaults" in key.split(".")):
                raise ConfigError(f"{file}:{node.start_mark.line + 1}: {key}: {fault}")
        if package:
            locations.setdefault(package, str(file))
        for key, node in _walk(root, package):
            place = f"{file}:{node.start_mark.line + 1}"
            chosen = re.fullmatch(r"(?:.*\.)?defaults\.(override )?(?:optional )?/?([\w/]+).*", key)
            key = chosen[2] if chosen else key
            if re.match(r"hydra\b", key):
                raise ConfigError(f"{place}: {key}: how Hydra itself runs is not for a config to say.")
            if not chosen or chosen[1] or key not in locations:
                locations[key] = place
        content = OmegaConf.to_container(OmegaConf.create(loader.construct_document(root)), resolve=False)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: must be UTF-8. Received: byte {error.object[error.start]:#04x}.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: cannot be read as YAML: {error.problem}.") from None
    except (
        yaml.YAMLError,
        OmegaConfBaseException,
        OSError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # a key that is a list
        raise ConfigError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}.") from None
    assert isinstance(content, dict)
    return content


def _text(file: Path, inside: Path | None = None, errors: str = "strict") -> str:
    try:
        return read_text(file, LARGEST, inside, errors)
    except OSError as error:
        raise ConfigError(str(error) if error.errno is None else f"{file}: cannot be read: {error.strerror}.") from None


class _Loader(yaml.SafeLoader):
    """Reads plain values as the command line does: no base 60, no octal numbers, no yes and no.

    It reads no aliases: by them a few lines can stand for gigabytes.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"found duplicate key {key.value}", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*) must be written out", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


INTEGER = r"(?:0|[1-9](?:_?\d)*)"
DIGITS = r"\d(?:_?\d)*"
POINT = rf"(?:{INTEGER}\.(?:{DIGITS})?|\.{DIGITS})"
PLAIN = {
    "null": r"~|[nN][uU][lL][lL]|",
    "bool": r"[tT][rR][uU][eE]|[fF][aA][lL][sS][eE]",
    "int": rf"[+-]?{INTEGER}",
    "float": rf"[+-]?(?:{POINT}|(?:{INTEGER}|{POINT})[eE][+-]?{DIGITS}|[iI][nN][fF]|[nN][aA][nN])",
    "merge": "<<",
}
"""Plain values that are no text, as in Hydra's grammar of the command line."""
for tag, pattern in PLAIN.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))


_Fastest: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's, where PyYAML was built with it, takes a tenth of the time."""


class _Dumper(_Fastest):
    """Quotes texts that `read` would take for something else."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{PLAIN['float']})$"), None)


def written(values: Mapping[str, Any]) -> str:
    """Return a config as YAML, which `read` reads again."""
    return yaml.dump(_lists(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _lists(value: Any) -> Any:
    """Convert nested tuples to lists."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _walk(node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.Node]]:
    """The dotted keys below `node`, each with the node that has its line."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = f"{key}.{name.value}".lstrip(".")
            yield inner, name
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _walk(value, key)


def _scalars(node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """The names and the values below `node`, each with the dotted key that it stands at."""
    if isinstance(node, yaml.ScalarNode):
        yield key, node
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _scalars(value, key)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = f"{key}.{printable(str(name.value)[:100])}".lstrip(".")
            yield from _scalars(name, inner)
            yield from _scalars(value, inner)


def _fault(node: yaml.ScalarNode, in_defaults: bool) -> str:
    """Why a name or a value is refused; nothing where it is not."""
    if len(node.value) > LONGEST:
        return f"must have at most {LONGEST:,} characters. Received: {len(node.value):,}."
    if not is_printable(node.value):
        return f"must hold no control characters. Received: {node.value!r}."
    if "${" in REFERENCE.sub("", node.value):
        return f"a reference may name another option only. Received: {node.value!r}."
    if node.tag == "tag:yaml.org,2002:merge":
        return "a merge (<<) must be written out."
    if in_defaults and re.search(r"\bhydra\b", node.value):
        return "how Hydra itself runs is not for a config to say."
    if node.tag.endswith((":int", ":float")) and len(node.value) > 100:  # too long to be shown in any message
        return "must be a number of at most 100 digits."
    return ""


class YamlFolder(ConfigSource):
    """A folder of YAML files that Hydra reads by `read`."""

    locations: ClassVar[dict[str, str]] = {}
    """Where the keys of the config that is being composed are set."""
    typed: ClassVar[dict[str, Path]] = {}
    """Files that were typed by their path, by the path that Hydra has for them."""

    @staticmethod
    def scheme() -> str:
        return "dlframe"

    def available(self) -> bool:
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path).is_file() or bool(self._entry_below(config_path))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for path in Path(self.path, config_path).iterdir():
            self._list_add_result(found, str(Path(config_path, path.name)), path.name, results_filter)
        return sorted(set(found))

    def load_config(self, config_path: str) -> ConfigResult:
        """Raises a ConfigError, as `read` does, also for a file that would hide a registered entry."""
        file = self._file(config_path)
        if entry := self._entry_below(config_path):
            header: dict[str, str | None] = {"package": config_path.partition("/")[0]}
            return ConfigResult(self.provider, self.full_path(), OmegaConf.create({"name": entry}), header)
        if not file.is_file():
            raise ConfigLoadError(f"{file}: there is no such file")
        if file.suffix == ".yml" and (other := file.with_suffix(".yaml")).is_file():
            raise ConfigError(f"{file}: {other.name} has the same name. Rename one.")
        folder, _, name = config_path.rpartition("/")
        group = folder.partition("/")[0]
        if group in GROUPS and group != "task" and name in GROUPS[group].entries:
            raise ConfigError(f"{file}: would hide {group}={name}, which is registered. Give the file another name.")
        try:
            header = self._get_header_dict(_text(file))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: must be UTF-8. Received: byte {error.object[error.start]:#04x}.") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: {error}.") from None
        if header["package"] is None and group in WHOLE:
            header["package"] = "_global_"
        if header["package"] is None and folder != group:
            header["package"] = group
        package = (header["package"] or "_group_").replace("_global_", "").replace("_group_", group)
        content = read(file, package, self.locations)
        if package == group in GROUPS and not {"name", "defaults"} & content.keys():
            entry = next(iter(GROUPS[group])).name
            raise ConfigError(f"{file}: must say of which {group} it is a variant. Begin with: defaults: [{entry}]")
        return ConfigResult(provider=self.provider, path=self.full_path(), config=OmegaConf.create(content), header=header)

    def _file(self, config_path: str) -> Path:
        name = config_path.removesuffix(".yaml")
        if name in self.typed:
            return self.typed[name]
        files = [Path(self.path, name + suffix) for suffix in reversed(SUFFIXES)]
        return next((file for file in files if file.is_file()), files[-1])

    def _entry_below(self, config_path: str) -> str:
        """Return the entry that a file in a sub-folder of a group names as one beside it; empty where it is none."""
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        name = name.rpartition("/")[2] if "/" in name else ""
        is_entry = group in GROUPS and group != "task" and name in GROUPS[group].entries
        return name if is_entry and not self._file(config_path).is_file() else ""


class SearchPath(SearchPathPlugin):
    """Has Hydra look into `folders` before its main one, into the first of them first."""

    folders: ClassVar[list[Path]] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.prepend("dlframe", f"{YamlFolder.scheme()}://{folder}", anchor="main")
