"""Configs of a stranger: on the command line, in YAML files, in a run's folder. Each is refused with a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

CODE = "is not supported: choose a registered entry, model=NAME."
HYDRA = "how Hydra itself runs is not for a config to say."
REFERENCE = "a reference may name another option only."

COMMAND_LINES = [
    ("model._target_=os.system", f"model._target_: {CODE}"),
    ("+model._target_=os.system", f"model._target_: {CODE}"),
    ("++model._target_=os.system", f"model._target_: {CODE}"),
    ("optimizer._target_=os.system", f"optimizer._target_: {CODE}"),
    ("data._target_=os.system", f"data._target_: {CODE}"),
    ("trainer._target_=os.system", f"trainer._target_: {CODE}"),
    ("tracking._target_=os.system", f"tracking._target_: {CODE}"),
    ("networks._target_=os.system", "networks._target_: model=cnn has the networks model."),
    ("augmentation.crop._target_=os.system", "augmentation.crop: 'crop' is not among the chosen"),
    ("_target_=os.system", f"_target_: {CODE}"),
    ("_recursive_=true", f"_recursive_: {CODE}"),
    ("model._partial_=true", f"model._partial_: {CODE}"),
    ("model={_target_:os.system}", "model={_target_:os.system}: no such model."),
    ("model.width={_target_:os.system}", "model.width: must be int >= 1."),
    ("model=os.system", "model=os.system: no such model."),
    ("model=../../outside/secret", "model=../../outside/secret: no such model."),
    ("model=/etc/passwd", "model=/etc/passwd: no such model."),
    ("experiment=../../outside/secret", "experiment=../../outside/secret: no such experiment."),
    ("trainer=/etc/passwd", "trainer=/etc/passwd: no such trainer."),
    ("data=pkg://os", "data=pkg://os: no such data."),
    ("hydra.run.dir=/tmp/x", "hydra.run.dir: no such option."),
    ("+hydra.run.dir=/tmp/x", "hydra.run.dir: no such option."),
    ("hydra.searchpath=[pkg://evil]", "hydra.searchpath: no such option."),
    ("hydra/launcher=basic", "hydra/launcher: no such option."),
    ("+hydra/launcher=basic", "hydra/launcher: no such option."),
    ("hydra/job_logging=none", "hydra/job_logging: no such option."),
    ("hydra.job.env_set.LD_PRELOAD=x.so", "hydra.job.env_set.LD_PRELOAD: no such option."),
    ("~model", "~model: a run has one of each group."),
    ("~model=cnn", "~model: a run has one of each group."),
    ("run_name=${oc.env:SECRET}", f"run_name: {REFERENCE}"),
    ("run_name=${oc.env:SECRET,x}", f"run_name: {REFERENCE}"),
    ("run_name=${ oc.env : SECRET }", f"run_name: {REFERENCE}"),
    ("run_name=${oc.decode:'${oc.env:SECRET}'}", f"run_name: {REFERENCE}"),
    ("run_name=${oc.select:SECRET}", f"run_name: {REFERENCE}"),
    ("run_name=${oc.create:{a:1}}", f"run_name: {REFERENCE}"),
    ("run_name=${oc.deprecated:x}", f"run_name: {REFERENCE}"),
    ("run_name=${hydra:runtime.cwd}", f"run_name: {REFERENCE}"),
    ("run_name=x${${y}:SECRET}", f"run_name: {REFERENCE}"),
    ("run_name=${oc.${experiment_name}:SECRET} experiment_name=env", f"run_name: {REFERENCE}"),
    ("run_name=${${experiment_name}:SECRET} experiment_name=oc.env", f"run_name: {REFERENCE}"),
    ("run_name=${${experiment_name}} experiment_name=oc.env:SECRET", f"run_name: {REFERENCE}"),
    ("runs=${oc.env:SECRET}", f"runs: {REFERENCE}"),
    ("data=image_folder data.path=${oc.env:SECRET}", f"data.path: {REFERENCE}"),
    ("monitor=${.", f"monitor: {REFERENCE}"),
    ("optimizer.lr=${oc.env:SECRET}", f"optimizer.lr: {REFERENCE}"),
    ("optimizer.betas=[0.5,${oc.env:SECRET}]", f"optimizer.betas.1: {REFERENCE}"),
    ("model=${oc.env:SECRET}", "model=${oc.env:SECRET}: no such model."),
    ("augmentation=[${oc.env:SECRET}]", "augmentation="),
    ("${oc.env:SECRET}=1", "${oc.env:SECRET}: no such option."),
    ("model.${oc.env:SECRET}=1", "model.${oc.env:SECRET}: no such option."),
    ("run_name=${run_name}", "run_name: "),
    ("run_name=${experiment_name} experiment_name=${run_name}", "run_name: "),
    ("run_name=" + "${runs}" * 21, "run_name: a config may hold 20 references. Received: 21."),
    ("run_name=\x1b]0;owned\x07", "run_name: must hold no control characters."),
    ("seed=" + "9" * 5000, "seed: cannot be read as a value."),
    ("optimizer.betas=" + "[" * 3000, "optimizer.betas: cannot be read as a value."),
    ("plugin_paths=../outside/secret.txt", "plugin_paths: must be a folder or a .py file."),
    ("plugin_paths=https://evil.example/x.py", "plugin_paths: must be a folder or a .py file."),
]


@pytest.mark.parametrize(("arguments", "message"), COMMAND_LINES, ids=[text[:60] for text, _ in COMMAND_LINES])
def test_on_the_command_line(arguments: str, message: str, refused: Callable[..., str]) -> None:
    parts = [arguments] if arguments.startswith("run_name=${ ") else arguments.split(" ")
    assert refused(*parts).startswith(message)


WITH_SECRETS = {
    "http://me:PASSWORD@host:5000": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "HTTPS://me:PASSWORD@host": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "https://PASSWORD@host/path": "MLFLOW_TRACKING_TOKEN",
    "https://me:p@PASSWORD@host": "MLFLOW_TRACKING_PASSWORD",
    "https://me:p/PASSWORD@host": "MLFLOW_TRACKING_PASSWORD",
    "https://host/?token=PASSWORD": "MLFLOW_TRACKING_TOKEN",
    "https://host/x?access_key=PASSWORD": "MLFLOW_TRACKING_TOKEN",
    "https://host/#PASSWORD": "MLFLOW_TRACKING_TOKEN",
    "postgresql://me:PASSWORD@host/db": "PGPASSWORD",
    "postgresql+psycopg2://me:p/PASSWORD@host/db": "~/.pgpass",
    "postgresql://host/db?user=me&password=PASSWORD": "PGPASSWORD",
    "mysql+pymysql://me:PASSWORD@host/db": "~/.my.cnf",
    "mssql+pyodbc:///?odbc_connect=DRIVER;PWD=PASSWORD": "from its own environment or file",
    "sqlite+pysqlcipher://:PASSWORD@/mlflow.db": "from its own environment or file",
    "sqlite:///mlflow.db?key=PASSWORD": "from its own environment or file",
    "databricks://token:PASSWORD@host": "from its own environment or file",
}


@pytest.mark.parametrize("uri", WITH_SECRETS)
def test_a_store_whose_address_holds_a_secret(uri: str, refused: Callable[..., str], victim: Path) -> None:
    message = refused("model=mlp", f"tracking.uri={uri}")
    assert message.startswith("tracking.uri: must hold no user name, password or token, as a run keeps its config.")
    assert WITH_SECRETS[uri] in message
    assert "PASSWORD@" not in message
    assert list(victim.iterdir()) == []


DEEP = "[" * 20_000
LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)

YAMLS = {
    "target": ("_target_: os.system\n", f"x.yaml:1: _target_: {CODE}"),
    "target_of_a_model": ("model:\n  _target_: os.system\n  command: touch ran\n", f"x.yaml:2: model._target_: {CODE}"),
    "target_in_a_value": (
        "gradient_clip_val: {_target_: os.system}\n",
        "x.yaml:1: gradient_clip_val: must be float > 0 or null.",
    ),
    "target_in_a_list": ("optimizer:\n  betas: [{_target_: os.system}]\n", "x.yaml:2: optimizer.betas: must be"),
    "target_of_a_callback": (
        "callback:\n  ema:\n    name: ema\n    _target_: os.system\n",
        f"x.yaml:4: callback.ema._target_: {CODE}",
    ),
    "tag_of_python": (
        "run_name: !!python/object/apply:os.system [touch ran]\n",
        "x.yaml:1: cannot be read as YAML: could not determine a constructor for the tag",
    ),
    "tag_of_a_module": ("run_name: !!python/module:os\n", "x.yaml:1: cannot be read as YAML: "),
    "tag_of_a_name": ("run_name: !!python/name:os.system\n", "x.yaml:1: cannot be read as YAML: "),
    "tag_in_a_key": ("? !!python/object/new:os.system [touch ran]\n: 1\n", "x.yaml:"),
    "environment": ("run_name: ${oc.env:SECRET}\n", f"x.yaml:1: run_name: {REFERENCE}"),
    "environment_in_text": ("run_name: a ${oc.env:SECRET} b\n", f"x.yaml:1: run_name: {REFERENCE}"),
    "environment_in_a_list": ("optimizer:\n  betas: [0.5, '${oc.env:SECRET}']\n", f"x.yaml:2: optimizer.betas: {REFERENCE}"),
    "environment_in_a_key": ("'${oc.env:SECRET}': 1\n", f"x.yaml:1: ${{oc.env:SECRET}}: {REFERENCE}"),
    "environment_in_defaults": (
        "defaults:\n  - override /model: ${oc.env:SECRET}\n",
        f"x.yaml:2: defaults.override /model: {REFERENCE}",
    ),
    "resolver_by_reference": (
        "experiment_name: oc.env\nrun_name: ${${experiment_name}:SECRET}\n",
        f"x.yaml:2: run_name: {REFERENCE}",
    ),
    "resolver_by_halves": (
        "experiment_name: env\nrun_name: ${oc.${experiment_name}:SECRET}\n",
        f"x.yaml:2: run_name: {REFERENCE}",
    ),
    "select": ("run_name: ${oc.select:model.name}\n", f"x.yaml:1: run_name: {REFERENCE}"),
    "decode": ("epochs: ${oc.decode:'1'}\n", f"x.yaml:1: epochs: {REFERENCE}"),
    "hydra_resolver": ("run_name: ${hydra:runtime.cwd}\n", f"x.yaml:1: run_name: {REFERENCE}"),
    "laughing_references": (
        f"run_name: {'${experiment_name}' * 12}\nexperiment_name: {'${runs}' * 12}\nruns: {'x' * 1000}\n",
        "x.yaml:1: run_name: a config may hold 20 references. Received: 24.",
    ),
    "hydra": ("hydra:\n  searchpath: [pkg://evil]\n", f"x.yaml:1: hydra: {HYDRA}"),
    "hydra_by_a_dot": ("hydra.run.dir: /tmp/x\n", f"x.yaml:1: hydra.run.dir: {HYDRA}"),
    "hydra_by_a_merge": ("<<: {hydra: {searchpath: [pkg://evil]}}\n", "x.yaml:1: <<: a merge (<<) must be written out."),
    "hydra_by_its_package": ("# @package hydra\nsearchpath: [pkg://evil]\n", f"x.yaml:2: hydra.searchpath: {HYDRA}"),
    "hydra_by_defaults": (
        "defaults:\n  - override hydra/launcher: basic\n",
        f"x.yaml:2: defaults.override hydra/launcher: {HYDRA}",
    ),
    "hydra_by_spaces": ("defaults:\n  - override   /hydra/launcher: basic\n", "x.yaml:2: "),
    "hydra_by_a_name": ("defaults:\n  - /hydra/launcher/basic\n", f"x.yaml:2: defaults: {HYDRA}"),
    "hydra_by_relocation": ("defaults:\n  - /trainer@hydra: cpu\n", f"x.yaml:2: defaults./trainer@hydra: {HYDRA}"),
    "plugins": (
        "plugin_paths: [evil.py]\n",
        "x.yaml:1: plugin_paths: code is named on the command line only, never in a file.",
    ),
    "a_package": ("defaults:\n  - pkg://evil/x\n", ""),
    "a_path": ("defaults:\n  - ../../../outside/secret\n", ""),
    "an_absolute_path": ("defaults:\n  - /../../outside/secret\n", ""),
    "itself": ("defaults:\n  - x\n", ""),
    "anchors": ("a: &a [x]\nb: *a\n", "x.yaml:2: cannot be read as YAML: an alias (*) must be written out."),
    "laughing_anchors": ("a: &a [x, x]\n" + LAUGHS, "x.yaml:2: cannot be read as YAML: an alias (*) must be written out."),
    "an_anchor_of_itself": ("a: &a [*a]\n", "x.yaml:1: cannot be read as YAML: an alias (*) must be written out."),
    "deep": (f"run_name: {DEEP}", "x.yaml: cannot be read as YAML: maximum recursion depth exceeded"),
    "deep_blocks": ("".join(f"{' ' * i}a:\n" for i in range(600)), "x.yaml: cannot be read as YAML: maximum recursion depth"),
    "huge": (b"#" * (100 * 2**20), "x.yaml: must have at most 262,144 bytes."),
    "a_huge_value": (
        f"run_name: {'x' * 20_000}\n",
        "x.yaml:1: run_name: must have at most 10,000 characters. Received: 20,000.",
    ),
    "a_huge_number": (f"seed: {'9' * 5000}\n", "x.yaml:1: seed: must be a number of at most 100 digits."),
    "a_tab": ("model:\n\twidth: 3\n", "x.yaml:2: cannot be read as YAML: found character '\\t' that cannot start any token."),
    "a_key_twice": ("epochs: 1\nepochs: 2\n", "x.yaml:2: cannot be read as YAML: found duplicate key epochs."),
    "nul": (b"run_name: a\0b\n", "x.yaml: cannot be read as YAML: unacceptable character #x0000"),
    "escape": (b"run_name: \x1b[2J\n", "x.yaml: cannot be read as YAML: unacceptable character #x001b"),
    "a_quoted_escape": (
        'run_name: "\\e]0;owned\\a"\n',
        "x.yaml:1: run_name: must hold no control characters. Received: '\\x1b]0;owned",
    ),
    "an_escape_in_a_key": ('"\\e[2J": 1\n', "x.yaml:1: \\x1b[2J: must hold no control characters."),
    "turned_text": ('run_name: "a\\u202Eb"\n', "x.yaml:1: run_name: must hold no control characters. Received: 'a\\u202eb'."),
    "latin": (b"run_name: \xff\n", "x.yaml: must be UTF-8. Received: byte 0xff."),
    "utf_16": ("run_name: x\n".encode("utf-16"), "x.yaml: must be UTF-8. Received: byte 0xff."),
    "a_key_that_is_a_list": ("? [a, b]\n: 1\n", "x.yaml:"),
    "a_key_that_is_null": ("~: 1\n", "x.yaml:"),
    "binary": ("run_name: !!binary aGVsbG8=\n", "x.yaml:1: run_name: must be str."),
    "a_set": ("model: !!set {a, b}\n", "x.yaml: cannot be read as YAML: "),
}
NEEDS_FILE = ("a_package", "a_path", "an_absolute_path", "itself")


@pytest.mark.parametrize("name", YAMLS)
def test_in_an_experiment(name: str, refused: Callable[..., str], victim: Path) -> None:
    content, message = YAMLS[name]
    file = victim / "conf" / "experiment" / "x.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (victim / "evil").mkdir()
    for source in (victim / "evil" / "__init__.py", victim / "evil.py"):
        source.write_text("open('ran', 'w')")
    said = refused("experiment=x")
    assert said.removeprefix("conf/experiment/").startswith(message)
    if name in NEEDS_FILE:
        assert said.startswith(("conf: ", "/"))


@pytest.mark.parametrize("name", ["hydra", "hydra_by_a_merge", "environment", "plugins", "target"])
def test_in_the_first_config_of_all(name: str, refused: Callable[..., str], victim: Path) -> None:
    """`conf/config.yaml` of the folder one stands in is Hydra's primary config, to which it listens most."""
    (victim / "conf").mkdir()
    content = YAMLS[name][0]
    assert isinstance(content, str)
    (victim / "conf" / "config.yaml").write_text("defaults: [/task: image_classification, _self_]\n" + content)
    (victim / "evil").mkdir()
    (victim / "evil" / "__init__.py").write_text("open('ran', 'w')")
    assert refused("model=mlp").startswith("conf/config.yaml:2: ")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link_to_a_device"])
def test_a_config_that_is_no_file(kind: str, refused: Callable[..., str], stranger: Path) -> None:
    file = stranger / "config.yaml"
    file.unlink()
    {
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: os.symlink("/dev/zero", file),
        "folder": file.mkdir,
        "link_to_a_device": lambda: os.symlink("/dev/stdin", file),
    }[kind]()
    assert refused("test", str(stranger)) == "test: 'theirs' is not a run directory (no config.yaml). Runs are in runs/."


SAVED = {
    "target": ("_target_: os.system", f"_target_: {CODE}"),
    "target_of_a_model": ("model: {name: mlp, _target_: os.system}", f"model._target_: {CODE}"),
    "target_as_a_name": ("model: {name: os.system}", "model=os.system: no such model."),
    "plugins": ("plugin_paths: [evil.py]\nmodel: {name: evil}", "model=evil: no such model."),
    "environment": ("run_name: ${oc.env:SECRET}", f":1: run_name: {REFERENCE}"),
    "password": ("tracking: {uri: 'http://me:pw@host'}", "tracking.uri: must hold no user name, password or token"),
    "hydra": ("hydra: {run: {dir: /tmp/x}}", ":1: hydra: how Hydra itself"),
    "processes": ("trainer: {devices: 1000, strategy: ddp}", "trainer.devices: must be at most "),
    "reference": ("epochs: ${seed}", "epochs: must be int >= 1. Received: '${seed}'."),
    "escape": ('run_name: "\\e[2J"', ":1: run_name: must hold no control characters."),
}


@pytest.mark.parametrize("name", SAVED)
def test_in_the_config_of_a_run(name: str, refused: Callable[..., str], stranger: Path, victim: Path) -> None:
    content, message = SAVED[name]
    file = stranger / "config.yaml"
    own = {key: value for key, value in yaml.safe_load(file.read_text()).items() if f"{key}:" not in content}
    file.write_text(f"{content}\n{yaml.safe_dump(own)}")
    (victim / "evil.py").write_text("open('ran', 'w')")
    said = refused("test", str(stranger)).removeprefix("theirs/config.yaml").removeprefix(": ")
    assert said.startswith(message)
