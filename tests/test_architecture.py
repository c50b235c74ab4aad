"""Who may know whom, read from the source; what no file may do; what no YAML may say."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlframe.config import LISTS, OPTIONS, load
from dlframe.config.settings import settings
from dlframe.registry import GROUPS, plugins, read_source

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "dlframe"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [file.relative_to(SOURCE).as_posix() for file in FILES]
MODULES = {"dlframe." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in NAMES}

LAYERS = (
    "types",
    "statistics",
    "storage",
    "registry",
    "config",
    "readers",
    "plots",
    (
        "tasks",
        "models",
        "data",
        "augmentations",
        "optimizers",
        "schedulers",
        "callbacks",
        "metrics",
        "samplers",
        "pruners",
        "executors",
    ),
    "runs",
    "analysis",
    "tracking",
    "engine",
    "population",
    "reports",
    "jobs",
    "studies",
    "comparisons",
    "serving",
    "inspection",
    "cli",
    "contracts",
)
"""The folders of the package: each imports only from those before it. What entries are kept in do not know one another."""

ORDER = {folder: i for i, layer in enumerate(LAYERS) for folder in ([layer] if isinstance(layer, str) else layer)}
"""Folder -> its layer."""

ENTRIES = {"types", "statistics", "registry", "storage", "readers", "plots"}
"""What a file of registered entries may know: what a plugin can."""

KNOWN_TO = {
    "hydra": {"config"},
    "omegaconf": {"config", "contracts"},
    "pytest": {"contracts"},
    "lightning": {"engine", "callbacks"},
    "mlflow": {"tracking"},
    "matplotlib": {"plots"},
    "tqdm": {"callbacks"},
    "optuna": {"samplers", "pruners", "studies", "storage"},
    "psycopg": {"storage"},
    "ray": {"executors"},
    "submitit": {"executors"},
    "statsmodels": {"models"},
}
"""The only folders that may import these packages."""

WITHOUT_TORCH = {"analysis", "statistics", "registry", "config", "readers", "reports", "tracking", "inspection", "cli"}


def part(name: str) -> str:
    """The file or the folder at the root of the package: "models/cnn.py" -> "models"."""
    return name.split("/")[0].removesuffix(".py")


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree that may run: not those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from running(node)


def imports(nodes: Iterator[ast.AST] | list[ast.AST]) -> set[str]:
    """The modules that import statements name; of `from dlframe.a import b`, dlframe.a.b where that is one."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name of what is imported"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below if node.module == "dlframe" else (below & MODULES) or {str(node.module)}
    return found


TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in zip(NAMES, FILES, strict=True)}


def test_the_root_holds_folders_only():
    assert {name for name in NAMES if "/" not in name} == {"__init__.py", "__main__.py"}
    assert {part(name) for name in NAMES if "/" in name} <= ORDER.keys()


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_of_machinery_is_small(folder):
    """And so is each folder in it. Of the contracts, what runs them: there is a test file for each kind of entry."""
    if isinstance(LAYERS[ORDER[folder]], str):
        own = [Path(name) for name in NAMES if part(name) == folder]
        sizes = Counter(path.parent for path in own if not path.name.startswith(("__", "test_")))
        assert max(sizes.values(), default=0) <= 8


@pytest.mark.parametrize("name", [name for name in NAMES if "/" in name])
def test_imports_only_from_layers_above(name):
    own = part(name)
    for module in imports(running(TREES[name])):
        if not module.startswith("dlframe.") or module == "dlframe.__version__":
            continue
        target = module.split(".")[1]
        if target == own:
            continue
        assert ORDER[target] < ORDER[own], f"{name} imports {module}"
        if not isinstance(LAYERS[ORDER[own]], str):
            assert target in ENTRIES, f"{name} imports {module}"


def test_no_two_files_import_each_other():
    graph = {
        "dlframe." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): imports(running(tree))
        for name, tree in TREES.items()
    }

    def reached(module: str, seen: tuple[str, ...]) -> None:
        assert module not in seen, f"a cycle: {' -> '.join([*seen[seen.index(module) :], module])}"
        if module not in done:
            for other in graph.get(module, ()):
                if other in graph:
                    reached(other, (*seen, module))
            done.add(module)

    done: set[str] = set()
    for module in graph:
        reached(module, ())


@pytest.mark.parametrize("name", [name for name in NAMES if "/" in name])
def test_entries_never_import_one_another(name):
    """Within a folder only what registers nothing, such as tasks/base.py, may be shared; but a task may extend a task."""
    for module in imports(running(TREES[name])):
        file = SOURCE.parent / (module.replace(".", "/") + ".py")
        if module.startswith(f"dlframe.{part(name)}.") and file.exists() and part(name) != "tasks":
            assert read_source(file) == [], f"{name} imports {module}"


@pytest.mark.parametrize("name", NAMES)
def test_each_library_is_known_to_few(name):
    for module in imports(running(TREES[name])):
        package = module.split(".")[0]
        assert package not in KNOWN_TO or part(name) in KNOWN_TO[package], f"{name} imports {module}"
        assert package != "torch" or part(name) not in WITHOUT_TORCH, f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in NAMES if part(name) in ("data", "types")])
def test_data_imports_torch_only_where_it_is_needed(name):
    """The first line of a run, with the sizes of the data, is printed before torch is loaded."""
    heavy = {"torch", "torchvision", "sklearn", "scipy", "pandas"}
    assert not heavy & {module.split(".")[0] for module in imports(list(ast.iter_child_nodes(TREES[name])))}


def test_the_command_line_and_the_data_load_nothing_heavy():
    code = "import sys, dlframe.cli, dlframe.config, dlframe.registry.plugins\ndlframe.registry.plugins.discover()\n"
    code += "import dlframe.data.digits; dlframe.data.digits.digits()\n"
    code += "print(*({'torch', 'lightning', 'mlflow', 'matplotlib', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def offences(tree: ast.AST) -> Iterator[str]:
    """What could run code that a config, a checkpoint or a cache brought."""
    of_pickle = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pickle"}
    for module in imports(ast.walk(tree)):
        if module == "pickle" and of_pickle == {"UnpicklingError"}:
            continue  # what torch.load raises when it refuses
        if module.split(".")[0] in ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"):
            yield f"imports {module}"
        if module == "hydra.utils":
            yield "imports hydra.utils"
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value == "_target_":
            yield f"line {node.lineno}: names _target_"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load", "instantiate"}
        forbidden |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "hydra.utils.instantiate"}
        if called in forbidden:
            yield f"line {node.lineno}: calls {called}"
        if called == "torch.load" and options.get("weights_only") != "True":
            yield f"line {node.lineno}: calls torch.load without weights_only=True"
        if options.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno}: allows pickle"
        if options.get("shell", "False") != "False":
            yield f"line {node.lineno}: opens a shell"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_loaded_can_execute(name):
    assert list(offences(TREES[name])) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import pickle\npickle.loads(text)\npickle.UnpicklingError",
        "from joblib import load",
        "from hydra.utils import instantiate",
        "eval(text)",
        "yaml.load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=flag)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "config['_target_']",
    ],
)
def test_an_offence_is_found(code):
    assert len(list(offences(ast.parse(code)))) == 1


def test_lightning_is_imported_by_its_one_name():
    old = "pytorch" + "_lightning"
    for folder in ("src", "conf", "plugins", "tests", "benchmarks"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".md"):
                assert old not in file.read_text(encoding="utf-8"), file


def test_no_file_or_folder_has_a_name_that_says_nothing():
    for folder in ("src", "conf", "plugins", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            assert path.stem not in ("utils", "util", "common", "helpers", "helper", "core", "misc"), path


# --- YAML

plugins.discover()
YAMLS = sorted((ROOT / "conf").rglob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.relative_to(ROOT / "conf").as_posix())
def test_no_yaml_bears_the_name_of_an_entry(path):
    """It would hide the entry. A recipe may be called after its task class: classes have a group of their own."""
    group = path.parent.name
    if group in GROUPS and group != "task":
        assert path.stem not in GROUPS[group].entries


@pytest.mark.parametrize("path", [p for p in YAMLS if p.parent.name == "experiment"], ids=lambda p: p.stem)
def test_an_experiment_is_a_config_that_names_its_command(path):
    """Composed with all options checked: a number is only as good as the command that gives it again."""
    load([f"experiment={path.stem}"])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("# python -m dlframe") and "experiment=" in line and path.stem in line for line in lines)


def repeated(path: Path) -> Iterator[str]:
    """The keys of a YAML file that say what a signature says already."""
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    if path.parent != ROOT / "conf" and "@package _global_" not in text:
        values = {path.parent.name: values}
    chosen: dict[str, Any] = {}
    for item in values.pop("defaults", []):
        for key, name in item.items() if isinstance(item, dict) else ():
            chosen[key.removeprefix("override ").split("@")[0].strip("/").split("/")[0]] = name
    for key, value in values.items():
        if key in OPTIONS:
            found = [(key, settings.get(key), value)]
        elif key in LISTS:
            found = [(f"{key}.{name}", GROUPS[key].get(name), options or {}) for name, options in value.items()]
        elif key in GROUPS:
            name = value.get("name", chosen.get(key))
            found = [(key, GROUPS[key].entries[name], value)] if name in GROUPS[key].entries else []
        else:
            found = [("", settings.get("run"), {key: value})]
        for prefix, entry, options in found:
            for option, given in options.items():
                if option in entry.parameters and entry.parameters[option].default == given:
                    yield f"{prefix}.{option}".lstrip(".")


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.relative_to(ROOT / "conf").as_posix())
def test_no_yaml_repeats_a_default(path):
    assert list(repeated(path)) == []
