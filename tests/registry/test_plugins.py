"""Where entries may come from besides dlframe. Each case in a process of its own: what is registered stays registered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests import forked

SOURCE = '''
import numpy as np
from dlframe.registry import Count, data
from dlframe.types import Dataset, DataSpec, Field, Split


@data.register("{name}", inputs=("image",), targets=("class",))
def {name}(*, size: Count = 8) -> Dataset:
    """Noise named {name}.

    Args:
        size: Height and width in pixels.
    """
    columns = dict(image=np.zeros((4, 1, size, size), np.uint8), label=np.array([0, 1, 0, 1]))
    split = Split(columns, np.arange(4))
    image = Field(kind="image", dtype="uint8", shape=(1, size, size), mean=(0.5,), std=(0.5,))
    spec = DataSpec("{name}", dict(image=image), dict(label=Field(kind="class", dtype="int64", names=("a", "b"))))
    return Dataset(spec, split, split, split, "{name} of " + __name__.rpartition(".")[2], "none")
'''

BUILD = """
import sys
from dlframe.registry import plugins
from dlframe.config import GROUPS, load
from dlframe.types import DlframeError
try:
    config = load(sys.argv[1:])
except DlframeError as error:
    sys.exit(str(error))
dataset = config.build("data")
print(GROUPS["data"].get(dataset.spec.name).origin, dataset.source, *dataset.spec.shape, sep="|")
print(*plugins.broken.items(), sep="|")
assert "torch" not in sys.modules
"""


def plugin(file: Path, name: str = "noise", before: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(before + SOURCE.format(name=name), encoding="utf-8")
    return file


def built(*arguments: str, cwd: Path, **environment: str) -> list[str]:
    """What the data are built to, and what is broken; or why not."""
    if "PYTHONPATH" in environment:  # read when Python starts
        command = [sys.executable, "-c", BUILD, *arguments]
        done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
        out, error = done.stdout, done.stderr
    else:
        _, out, error, _ = forked.python(BUILD, *arguments, cwd=cwd, environment=environment)
    assert "Traceback" not in error, error
    return out.splitlines() or [error.strip()]


@pytest.mark.parametrize(
    ("file", "choice", "expected"),
    [
        ("plugins/mine.py", "", "mine|noise of mine|1|8|8"),
        ("plugins/mine/any.py", "", "mine|noise of any|1|8|8"),
        ("plugins/mine/__init__.py", "", "mine|noise of _tmp_plugins_mine|1|8|8"),
        ("elsewhere/mine.py", "plugin_paths=elsewhere/mine.py", "mine|noise of mine|1|8|8"),
        ("elsewhere/mine.py", "plugin_paths=[elsewhere]", "elsewhere|noise of mine|1|8|8"),
        ("a b, é='c'/my-own.v2.py", "plugin_paths=a b, é='c'/my-own.v2.py", "my-own.v2|noise of v2|1|8|8"),
        ("a b, é='c'/my-own.v2.py", "plugin_paths=[\"a b, é='c'\"]", "a b, é='c'|noise of v2|1|8|8"),
    ],
)
def test_a_file_or_a_folder_is_a_plugin(file, choice, expected, tmp_path):
    plugin(tmp_path / file)
    line, broken = built(*filter(None, [choice]), "data=noise", cwd=tmp_path)
    if file.endswith("__init__.py"):
        line = line.replace(str(tmp_path).replace("/", "_").replace("-", "_"), "_tmp")
    assert (line, broken) == (expected, "")


def test_a_plugin_brings_experiments(tmp_path):
    """A folder in its own `conf`; the files of ./plugins together in ./plugins/conf; the command line beats them."""
    plugin(tmp_path / "plugins" / "mine" / "any.py")
    for folder, name in (("plugins/mine/conf", "large"), ("plugins/conf", "small")):
        file = tmp_path / folder / "experiment" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"defaults:\n  - override /data: noise\ndata:\n  size: {len(name)}\n")
    assert built("experiment=large", cwd=tmp_path) == ["mine|noise of any|1|5|5", ""]
    assert built("experiment=small", "data.size=3", cwd=tmp_path) == ["mine|noise of any|1|3|3", ""]
    assert built("experiment=larg", cwd=tmp_path)[0].startswith("experiment=larg: no such experiment. Did you mean 'large'?")
    listed = forked.dlframe("list", "experiment", cwd=tmp_path)[1].splitlines()
    assert [line.split()[0 :: len(line.split()) - 1] for line in listed if "arge" in line] == [["large", "mine"]]


def test_no_preset_of_a_plugin_hides_another(tmp_path):
    """The first one stays; that of `plugin_paths`, and what nothing would find, is an error."""
    for folder in ("plugins/a", "plugins/b", "c"):
        file = plugin(tmp_path / folder / "any.py", folder[-1]).parent / "conf" / "experiment" / "x.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"defaults:\n  - override /data: {folder[-1]}\n")
    line, broken = built("experiment=x", cwd=tmp_path)
    assert line == "a|a of any|1|8|8"
    taken = f"experiment=x exists in 'a' ({tmp_path}/plugins/a/conf/experiment/x.yaml). Rename the file."
    assert broken == str(("b", f"is left out: {tmp_path}/plugins/b/conf/experiment/x.yaml: {taken}"))
    assert built("experiment=x", "plugin_paths=c", cwd=tmp_path) == [f"{tmp_path}/c/conf/experiment/x.yaml: {taken}"]
    (tmp_path / "c" / "conf" / "experiment").rename(tmp_path / "c" / "conf" / "experiments")
    wrong = "must be in a folder with the name of a group. Did you mean 'experiment'?"
    assert built("plugin_paths=c", cwd=tmp_path)[0].startswith(f"{tmp_path}/c/conf/experiments/x.yaml: {wrong}")
    (tmp_path / "c" / "conf" / "experiments").rename(tmp_path / "c" / "conf" / "task")
    (tmp_path / "c" / "conf" / "task" / "x.yaml").rename(tmp_path / "c" / "conf" / "task" / "forecasting.yaml")
    assert "task=forecasting exists in 'dlframe'" in built("plugin_paths=c", cwd=tmp_path)[0]


def test_options_of_a_plugin_are_options(tmp_path):
    plugin(tmp_path / "plugins" / "mine.py")
    assert built("data=noise", "data.size=16", cwd=tmp_path)[0] == "mine|noise of mine|1|16|16"
    assert built("data=noise", "data.size=0", cwd=tmp_path) == ["data.size: must be int >= 1. Received: 0."]


def test_two_paths_may_have_one_name_and_one_path_may_be_given_twice(tmp_path):
    for folder, name in (("a", "left"), ("b", "right")):
        plugin(tmp_path / folder / "plugin.py", name)
    paths = "plugin_paths=[a/plugin.py,b/plugin.py,a/plugin.py]"
    assert built(paths, "data=left", cwd=tmp_path)[0] == "plugin|left of plugin|1|8|8"
    assert built(paths, "data=right", cwd=tmp_path)[0] == "plugin|right of plugin|1|8|8"


def test_the_files_of_a_folder_import_one_another(tmp_path):
    (tmp_path / "plugins" / "mine").mkdir(parents=True)
    (tmp_path / "plugins" / "mine" / "__init__.py").write_text("from .sizes import SIZE\n")
    (tmp_path / "plugins" / "mine" / "sizes.py").write_text("SIZE = 3\n")
    plugin(
        tmp_path / "plugins" / "mine" / "any.py",
        before="from . import SIZE\nfrom .sizes import SIZE as same\nassert same == SIZE == 3\n",
    )
    assert built("data=noise", cwd=tmp_path)[0] == "mine|noise of any|1|8|8"


def test_tests_hidden_files_and_what_is_no_python_are_left_alone(tmp_path):
    plugin(tmp_path / "plugins" / "mine" / "any.py")
    for name in ("mine/test_any.py", "mine/conftest.py", "_private.py", ".hidden.py"):
        (tmp_path / "plugins" / name).write_text("def\n")
    (tmp_path / "plugins" / "README.md").write_text("def\n")
    assert built("data=noise", cwd=tmp_path) == ["mine|noise of any|1|8|8", ""]


def test_nothing_of_a_plugin_runs_before_an_entry_of_it_is_chosen(tmp_path):
    plugin(tmp_path / "plugins" / "mine.py", before="open('ran', 'w')\n")
    assert built("data=digits", cwd=tmp_path)[1] == ""
    for arguments in (["list"], ["show", "data=noise"]):
        done = forked.dlframe(*arguments, cwd=tmp_path)
        assert (done.code, done.error) == (0, "")
        assert "noise" in done.out
    assert not (tmp_path / "ran").exists()
    built("data=noise", cwd=tmp_path)
    assert (tmp_path / "ran").exists()


def test_a_plugin_that_cannot_be_read_is_left_out_whole(tmp_path):
    """An entry whose plugin is broken further on would be half a plugin. All its faults are named."""
    plugin(tmp_path / "plugins" / "mine" / "a.py", "one")
    faulty = [plugin(tmp_path / "plugins" / "mine" / f"{name}.py", name, before="def\n") for name in ("b", "c")]
    line, broken = built("data=digits", cwd=tmp_path)
    assert line.startswith("dlframe|")
    assert broken == str(("mine", "is left out: " + "; ".join(f"{file}:1: cannot be read: invalid syntax" for file in faulty)))
    assert built("data=one", cwd=tmp_path)[0].startswith("data=one: no such data.")
    for file in faulty:
        file.unlink()
    assert built("data=one", cwd=tmp_path) == ["mine|one of a|1|8|8", ""]


def test_a_name_that_is_taken_keeps_no_neighbor_out(tmp_path):
    plugin(tmp_path / "plugins" / "mine" / "a.py", "one")
    taken = plugin(tmp_path / "plugins" / "mine" / "b.py", "digits")
    line, broken = built("data=one", cwd=tmp_path)
    assert line == "mine|one of a|1|8|8"
    assert broken.startswith("('mine', \"lacks data 'digits' is already registered by dlframe (")
    assert f"choose another name in {taken}:" in broken
    assert built("data=digits", cwd=tmp_path)[0].startswith("dlframe|")
    plugin(tmp_path / "asked.py", "digits")
    assert "is already registered by dlframe" in built("data=one", "plugin_paths=asked.py", cwd=tmp_path)[0]


def test_packages_in_a_plugin_belong_to_it(tmp_path):
    """Also those below, each with its own relative imports; tests and folders that are no packages do not."""
    root = tmp_path / "plugins" / "mine"
    for folder in (root / "one", root / "one" / "two", root / "tests"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (root / "other").mkdir()
    (root / "sizes.py").write_text("SIZE = 4\n")
    plugin(root / "one" / "two" / "deep.py", "deep", before="from ...sizes import SIZE\nfrom . import __name__ as place\n")
    file = root / "one" / "two" / "deep.py"
    file.write_text(file.read_text().replace("size: Count = 8", "size: Count = 2 * SIZE + 1"))
    plugin(root / "tests" / "hidden.py", "hidden")
    plugin(root / "other" / "outside.py", "outside")
    assert built("data=deep", cwd=tmp_path) == ["mine|deep of deep|1|9|9", ""]
    for name in ("hidden", "outside"):
        assert built(f"data={name}", cwd=tmp_path)[0].startswith(f"data={name}: no such data.")


def distribution(site: Path, version: int = 1, **points: str) -> None:
    """An installed distribution with entry points, and nothing else."""
    info = site / f"something-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: something\nVersion: {version}\n")
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (info / "entry_points.txt").write_text(f"[dlframe.plugins]\n{lines}")


@pytest.mark.parametrize(
    ("file", "module", "source"),
    [
        ("single.py", "single", "single"),
        ("package/__init__.py", "package", "package"),
        ("package/any.py", "package", "any"),
        ("package/below/any.py", "package.below.any", "any"),
        ("package/below/any.py", "package", "any"),
    ],
)
def test_an_installed_distribution_brings_entries(file, module, source, tmp_path):
    site = tmp_path / "site"
    plugin(site / file)
    for folder in {"package", "package/below"} & {str(parent) for parent in Path(file).parents}:
        (site / folder / "__init__.py").touch()
    distribution(site, brought=module)
    assert built("data=noise", cwd=tmp_path, PYTHONPATH=str(site)) == [f"brought|noise of {source}|1|8|8", ""]
    refusal = built("data=noise", cwd=tmp_path, PYTHONPATH=str(site), DLFRAME_PLUGINS="none")
    assert refusal[0].startswith("data=noise: no such data.")


def test_what_is_above_an_entry_point_is_not_imported_to_find_it(tmp_path):
    site = tmp_path / "site"
    plugin(site / "package" / "any.py")
    (site / "package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    distribution(site, brought="package.any")
    assert built("data=digits", cwd=tmp_path, PYTHONPATH=str(site))[1] == ""
    assert built("data=noise", cwd=tmp_path, PYTHONPATH=str(site)) == [
        f"plugin 'brought' cannot be imported: {site}/package/__init__.py:1: RuntimeError: imported"
    ]


@pytest.mark.parametrize("module", ["nowhere", "nowhere.at.all", "json.nowhere"])
def test_an_entry_point_to_nowhere_is_left_out(module, tmp_path):
    distribution(tmp_path / "site", gone=module)
    line, broken = built("data=digits", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert line.startswith("dlframe|")
    assert broken == f"('gone', 'is left out: {module} is not installed')"


def test_two_versions_of_a_plugin_are_refused(tmp_path):
    sites = [tmp_path / "old", tmp_path / "new"]
    for version, site in enumerate(sites, 1):
        plugin(site / "single.py")
        distribution(site, version, brought="single")
    path = os.pathsep.join(map(str, sites))
    line, broken = built("data=digits", cwd=tmp_path, PYTHONPATH=path)
    assert line.startswith("dlframe|")
    said = ", ".join(f"single of something {version} in {site}" for version, site in enumerate(sites, 1))
    assert broken == str(("brought", f"is left out: it is installed 2 times: {said}. Uninstall all but one"))


def test_none_leaves_out_all_but_the_built_ins(tmp_path):
    plugin(tmp_path / "plugins" / "mine.py")
    assert built("data=noise", cwd=tmp_path, DLFRAME_PLUGINS="none")[0].startswith("data=noise: no such data.")
    assert built("plugin_paths=plugins", cwd=tmp_path, DLFRAME_PLUGINS="none") == [
        "plugin_paths: must be empty with DLFRAME_PLUGINS=none."
    ]
