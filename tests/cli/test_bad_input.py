"""What a careless or a hostile user types: one line on stderr, exit status 2, no traceback, nothing run.

Each case runs in a folder of its own, in a process of its own, and asserts the whole message.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import save_file
from tests import forked

from dlframe.config import load, names
from dlframe.data.digits import digits
from dlframe.registry import GROUPS, Entry, plugins
from dlframe.storage import checkpoint
from dlframe.types import nearest

plugins.discover()


def run(*arguments: str | bytes, cwd: Path) -> forked.Answer:
    """Exit status, stdout, stderr, and whether torch was imported."""
    return forked.dlframe(*arguments, cwd=cwd, environment={"DLFRAME_DATA": str(cwd / ".cache")})


def refused(message: str, *arguments: str | bytes, cwd: Path, before: Sequence[str] = ()) -> None:
    """Assert the one line (after those in `before`), the status, and that neither torch nor a run folder came of it."""
    code, out, error, torch = run(*arguments, cwd=cwd)
    assert error == "".join(f"{line}\n" for line in (*before, f"error: {message}"))
    assert (code, out, torch) == (2, "", False)
    assert not (cwd / "runs").exists()


def built_in(group: str) -> list[Entry]:
    """The entries that an empty folder has."""
    return [entry for entry in GROUPS[group] if entry.origin == "dlframe"]


NO_CODE = "is not supported: choose a registered entry, model=NAME."
IMAGE_DATA = ", ".join(
    entry.name for entry in built_in("data") if "image" in entry.facts["inputs"] and "box" not in entry.facts["targets"]
)


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("modle=cnn", "modle: no such option. Did you mean 'model'? See: python -m dlframe --help"),
        ("model=cnnn", "model=cnnn: no such model. Did you mean 'cnn'? See: python -m dlframe list model"),
        (
            "model.widht=3",
            "model.widht: 'cnn' has no such option. Did you mean 'width'? See: python -m dlframe show model=cnn",
        ),
        (
            "+model.widht=3",
            "model.widht: 'cnn' has no such option. Did you mean 'width'? See: python -m dlframe show model=cnn",
        ),
        ("model.width=abc", "model.width: must be int >= 1. Received: 'abc'."),
        ("model.width=-1", "model.width: must be int >= 1. Received: -1."),
        ("optimizer.lr=0", "optimizer.lr: must be float > 0. Received: 0."),
        (
            "monitor=val/acc",
            "monitor: must be a metric that task=classification logs. Received: 'val/acc'. Did you mean 'val/accuracy'?",
        ),
        (
            "task=forecasting data=sp500 augmentation=[mixup]",
            f"augmentation=mixup: takes image inputs, but data=sp500 has series inputs. Data that fit: {IMAGE_DATA}.",
        ),
        (
            "optimizer=[adam,adam]",
            "optimizer: takes one entry, for all networks. Received: [adam,adam]. Try: optimizer=adam",
        ),
        (
            "model=cnn networks.generator.lr=1",
            "networks.generator: model=cnn has the networks model. Received: 'generator'. Choose from: model.",
        ),
        (
            "tracking=server tracking.uri=http://127.0.0.1:9",
            "tracking.uri: no MLflow server at http://127.0.0.1:9 (Connection refused). "
            "Start one: mlflow server --port 9 --backend-store-uri sqlite:///mlflow.db",
        ),
        ("runs=/proc/x", "runs: cannot write to '/proc/x': No such file or directory."),
        ("runs=a_file", "runs: must be a writable folder. Received: 'a_file'."),
        ("runs=a_file/below tracking=none", "runs: must be a writable folder. Received: 'a_file/below'."),
        ("model._target_=os.system", f"model._target_: {NO_CODE}"),
        ("+_target_=os.system", f"_target_: {NO_CODE}"),
        (
            "experiment=../../etc/passwd",
            f"experiment=../../etc/passwd: no such experiment.{nearest('../../etc/passwd', names('experiment'))} "
            "See: python -m dlframe list experiment",
        ),
        (
            "seed=99999999999999999999999",
            "seed: must be int >= 0 and <= 4294967295. Received: 99999999999999999999999.",
        ),
    ],
)
def test_a_mistake_on_the_command_line(arguments, message, tmp_path):
    (tmp_path / "a_file").touch()
    refused(message, *arguments.split(), cwd=tmp_path)


@pytest.mark.skipif(Path("/dev/nvidia0").exists() or sys.platform == "darwin", reason="has a GPU")
@pytest.mark.parametrize("argument", ["trainer=gpu", "trainer=fsdp", "trainer.accelerator=gpu"])
def test_a_gpu_where_there_is_none(argument, tmp_path):
    refused("trainer.accelerator: 'gpu' needs a GPU, and this machine shows none. Try: trainer=cpu", argument, cwd=tmp_path)


def test_an_argument_that_is_no_utf8(tmp_path):
    refused("b'runs=a\\xffb': must be UTF-8.", b"runs=a\xffb", cwd=tmp_path)


# --- YAML files


def experiment(folder: Path, content: str | bytes) -> None:
    (folder / "conf" / "experiment").mkdir(parents=True)
    file = folder / "conf" / "experiment" / "x.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "epochs: 2\nmodel:\n  widht: 3\n",
            "conf/experiment/x.yaml:3: model.widht: 'cnn' has no such option. Did you mean 'width'? "
            "See: python -m dlframe show model=cnn",
        ),
        (
            "# @package _global_\n\nepoch: 2\n",
            "conf/experiment/x.yaml:3: epoch: no such option. Did you mean 'epochs'? See: python -m dlframe --help",
        ),
        ("epochs: many\n", "conf/experiment/x.yaml:1: epochs: must be int >= 1. Received: 'many'."),
        (
            "defaults:\n  - override /model: rnnn\n",
            "conf/experiment/x.yaml:2: model=rnnn: no such model. Did you mean 'rnn'? See: python -m dlframe list model",
        ),
        (
            "trainer: debug\n",
            "conf/experiment/x.yaml:1: trainer: must hold options. Received: 'debug'. "
            "An entry is chosen in the defaults list: - override /trainer: debug",
        ),
        (
            "model:\n  _target_: os.system\n  command: touch ran\n",
            f"conf/experiment/x.yaml:2: model._target_: {NO_CODE}",
        ),
        (
            "_target_: os.system\n",
            f"conf/experiment/x.yaml:1: _target_: {NO_CODE}",
        ),
        (
            "name: !!python/object/apply:os.system [touch ran]\n",
            "conf/experiment/x.yaml:1: cannot be read as YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system'.",
        ),
        (
            "plugin_paths: [evil.py]\n",
            "conf/experiment/x.yaml:1: plugin_paths: code is named on the command line only, never in a file.",
        ),
        (
            "hydra:\n  searchpath: [pkg://evil]\n",
            "conf/experiment/x.yaml:1: hydra: how Hydra itself runs is not for a config to say.",
        ),
        (
            "name: ${oc.env:HOME}\n",
            "conf/experiment/x.yaml:1: name: a reference may name another option only. Received: '${oc.env:HOME}'.",
        ),
        (BOMB, "conf/experiment/x.yaml:2: cannot be read as YAML: an alias (*) must be written out."),
        ("- epochs\n", "conf/experiment/x.yaml: must hold keys with values. Received: a sequence."),
        ("epochs\n", "conf/experiment/x.yaml: must hold keys with values. Received: a scalar."),
        (
            "model: [1,\n",
            "conf/experiment/x.yaml:2: cannot be read as YAML: expected the node content, but found '<stream end>'.",
        ),
        ("epochs: 1\nepochs: 2\n", "conf/experiment/x.yaml:2: cannot be read as YAML: found duplicate key epochs."),
        (b"name: \xff\n", "conf/experiment/x.yaml: must be UTF-8. Received: byte 0xff."),
    ],
)
def test_a_mistake_in_a_yaml(content, message, tmp_path):
    experiment(tmp_path, content)
    (tmp_path / "evil.py").write_text("open('ran', 'w')")
    refused(message, "experiment=x", cwd=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_empty_yaml_changes_nothing(tmp_path):
    experiment(tmp_path, "")
    refused("epochs: must be int >= 1. Received: 0.", "experiment=x", "epochs=0", cwd=tmp_path)


# --- a user's images


def images(folder: Path, classes: int = 2, each: int = 5) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(each):
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"class{label}" / f"{number}.png")
    return folder


def test_an_image_folder_that_is_missing(tmp_path):
    images(tmp_path / "photos")
    refused(
        "data.path: no such folder. Received: fotos. Did you mean 'photos'?",
        *("data=image_folder", "data.path=fotos"),
        cwd=tmp_path,
    )


def test_an_image_folder_that_is_not_named(tmp_path):
    refused("data.path: must be given: str. Try: data.path=...", "data=image_folder", cwd=tmp_path)


def test_an_image_folder_that_is_empty(tmp_path):
    (tmp_path / "photos").mkdir()
    refused(
        "image_folder: photos has no sub-folders. Put images into photos/CLASS/, or say where their labels are: "
        "data.labels=TABLE, or data.label=PATTERN of file names",
        *("data=image_folder", "data.path=photos"),
        cwd=tmp_path,
    )


def test_an_image_folder_with_one_class(tmp_path):
    images(tmp_path / "photos", classes=1)
    refused(
        "image_folder: photos must have at least two classes. Received: 'class0'",
        *("data=image_folder", "data.path=photos"),
        cwd=tmp_path,
    )


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("notes.txt", b"no image at all", "is not an image"),
        ("3.png", None, "is broken: image file is truncated"),
    ],
)
def test_an_image_folder_with_a_file_that_is_no_image(name, content, fault, tmp_path):
    file = images(tmp_path / "phötos, it's a=b") / "class1" / name
    file.write_bytes(content or file.read_bytes()[:60])
    code, out, error, torch = run("data=image_folder", "data.path=phötos, it's a=b", cwd=tmp_path)
    assert error.splitlines()[-1] == (
        f"error: image_folder: class1/{name} {fault} (phötos, it's a=b). Remove it, or skip such files: data.on_error=skip"
    )
    assert (code, out, torch) == (2, "", False)


# --- plugins

DATA = """
import numpy as np
from dlframe.registry import Count, data
from dlframe.types import Dataset, DataSpec, Field, Split

@data.register("NAME", inputs=("image",), targets=("class",))
def NAME(*, OPTION) -> Dataset:
    \"\"\"Noise in two classes.

    Args:
        size: Pixels.
    \"\"\"
    columns = {"image": np.zeros((4, 1, 8, 8), np.uint8), "label": np.array([0, 1, LABEL, 0])}
    split = Split(columns, np.arange(4))
    image = Field(kind="image", dtype="uint8", shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
    spec = DataSpec("NAME", {"image": image}, {"label": Field(kind="class", dtype="int64", names=("a", "b"))})
    return Dataset(spec, split, split, split, "", "")
"""


def plugin(file: Path, name: str = "noise", option: str = "size: Count = 8", label: int = 1, before: str = "") -> Path:
    """A file that registers data."""
    file.parent.mkdir(parents=True, exist_ok=True)
    source = DATA.replace("NAME", name).replace("OPTION", option).replace("LABEL", str(label))
    file.write_text(before + source, encoding="utf-8")
    return file


FAULTS = {
    "raises": ({"before": "raise RuntimeError('boom')\n"}, "plugin '{stem}' cannot be imported: {file}:1: RuntimeError: boom"),
    "exits": ({"before": "raise SystemExit(0)\n"}, "plugin '{stem}' cannot be imported: {file}:1: SystemExit: 0"),
    "taken": (
        {"name": "digits"},
        f"data 'digits' is already registered by dlframe ({GROUPS['data'].get('digits').where}); "
        "choose another name in {file}:7",
    ),
    "untyped": (
        {"option": "size=8"},
        "data 'noise': parameter 'size' has no type; write for example 'width: int = 32' ({file}:7)",
    ),
    "no_python": ({"before": "def\n"}, "{file}:1: cannot be read: invalid syntax"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("brackets", ["{}", '["{}"]'])
def test_a_broken_plugin_that_is_asked_for(fault, brackets, tmp_path):
    arguments, message = FAULTS[fault]
    file = plugin(tmp_path / "möin, a=b's" / f"{fault}.py", **arguments)
    choice = f"data={arguments.get('name', 'noise')}"
    text = message.format(file=file, stem=fault)
    refused(text, f"plugin_paths={brackets.format(f'möin, a=b{chr(39)}s/{fault}.py')}", choice, cwd=tmp_path)


@pytest.mark.parametrize("fault", ["taken", "untyped", "no_python"])
def test_a_broken_plugin_in_plugins_is_left_out(fault, tmp_path):
    arguments, message = FAULTS[fault]
    file = plugin(tmp_path / "plugins" / f"{fault}.py", **arguments)
    plugin(tmp_path / "plugins" / "good.py", "good", label=9)
    why = "lacks" if fault == "taken" else "is left out:"
    text = f"plugin '{fault}' {why} {message.format(file=file)}"
    refused(
        "data=good: 'label' must hold class indices from 0 to 1. Received: 9 in sample 2 (in the train split).",
        *("data=good", "tracking=none"),
        cwd=tmp_path,
        before=[f"warning: {text}"],
    )
    code, out, error, torch = run("list", "data", cwd=tmp_path)
    assert (code, error, torch) == (0, "", False)
    assert out.splitlines()[-1] == text
    assert any(line.split()[0] == "good" for line in out.splitlines() if line)


@pytest.mark.parametrize("fault", ["raises", "untyped"])
def test_a_broken_plugin_in_plugins_that_is_chosen(fault, tmp_path):
    arguments, message = FAULTS[fault]
    text = message.format(file=plugin(tmp_path / "plugins" / f"{fault}.py", **arguments), stem=fault)
    if fault == "untyped":
        known = nearest("noise", [entry.name for entry in built_in("data")])
        text = f"data=noise: no such data.{known} Plugin 'untyped' is left out: {text}. See: python -m dlframe list data"
    refused(text, "data=noise", cwd=tmp_path)


def test_a_plugin_path_that_is_missing(tmp_path):
    refused("plugin_paths: must be a folder or a .py file. Received: 'nope'.", "plugin_paths=nope", cwd=tmp_path)


def test_a_label_out_of_range(tmp_path):
    plugin(tmp_path / "noise.py", label=2)
    refused(
        "data=noise: 'label' must hold class indices from 0 to 1. Received: 2 in sample 2 (in the train split).",
        *("plugin_paths=noise.py", "data=noise", "tracking=none"),
        cwd=tmp_path,
    )


# --- a run's folder, and checkpoints


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run's folder, whole but for its weights, which are no model's."""
    folder = tmp_path / "mlp, it's a=b é"
    (folder / "checkpoints").mkdir(parents=True)
    values = plain(load(["model=mlp", "tracking=none"]).values)
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    (folder / "data.json").write_text(json.dumps({"fingerprint": digits().fingerprint}), encoding="utf-8")
    (folder / "overrides.txt").write_text("model=mlp", encoding="utf-8")
    checkpoint.save(folder / "checkpoints" / "best.safetensors", {"weight": torch.zeros(100)}, {"model": "mlp"})
    return folder


class Executes:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_checkpoint_that_is_truncated(folder):
    file = folder / "checkpoints" / "best.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    refused(
        f"{folder.name}/checkpoints/best.safetensors: the checkpoint is damaged or truncated: "
        "Error while deserializing header: incomplete metadata, file not fully covered",
        *("test", folder.name),
        cwd=folder.parent,
    )


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_checkpoint_that_is_a_pickle(folder, protocol):
    file = folder / 'it\'s = "new".ckpt'
    file.write_bytes(pickle.dumps(Executes(), protocol=protocol))
    refused(
        f"{folder.name}/{file.name}: is a pickle, which could run code. Checkpoints must be safetensors.",
        *("test", folder.name, f"checkpoint={folder.name}/{file.name}"),
        cwd=folder.parent,
    )
    assert not (folder.parent / "ran").exists()


def test_a_checkpoint_of_another_model(folder):
    facts = {"format": "dlframe 1", "facts": json.dumps({"model": "cnn"})}
    save_file({"weight": np.zeros(3, np.float32)}, folder.parent / "cnn.safetensors", facts)
    refused(
        "cnn.safetensors: is of another model: must be 'mlp'. Received: 'cnn'.",
        *("test", folder.name, "checkpoint=cnn.safetensors"),
        cwd=folder.parent,
    )


def test_a_checkpoint_of_a_model_of_another_size(folder):
    code, _, error, _ = run("test", folder.name, cwd=folder.parent)
    assert code == 2
    assert error == (
        f"error: {folder.name}/checkpoints/best.safetensors: does not match the model: missing tensor "
        "'model.layers.0.bias'. Choose from: weight.\n"
    )


@pytest.mark.parametrize("name", ["nope.safetensors", ""])
def test_a_checkpoint_that_is_missing(name, folder):
    (folder / "checkpoints" / "best.safetensors").unlink()
    shown = name or f"{folder.name}/checkpoints/best.safetensors"
    refused(f"{shown}: no such checkpoint.", "test", folder.name, f"checkpoint={name}", cwd=folder.parent)


def test_a_folder_that_is_no_run(tmp_path):
    refused("test: 'nope' is not a run directory (no config.yaml). Runs are in runs/.", "test", "nope", cwd=tmp_path)


def test_data_that_have_changed(folder):
    (folder / "data.json").write_text('{"fingerprint": "0123456789ab"}')
    refused(
        f"data=digits: changed since the run: fingerprint must be 0123456789ab. Received: {digits().fingerprint}.",
        *("test", folder.name),
        cwd=folder.parent,
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "name: mlp",
            "name: mlp\n  _target_: os.system",
            f"model._target_: {NO_CODE}",
        ),
        (
            "plugin_paths: []",
            "plugin_paths: [evil.py]\nmodle: 3",
            "modle: no such option. Did you mean 'model'? See: python -m dlframe --help"
            " The run had plugins, which are code. If you trust them, name them: plugin_paths=PATH",
        ),
        ("name: mlp", "name: [&a {}, *a]", None),
    ],
)
def test_a_saved_config_is_data(folder, old, new, message):
    (folder.parent / "evil.py").write_text("open('ran', 'w')")
    file = folder / "config.yaml"
    text = file.read_text().replace(old, new)
    file.write_text(text)
    line = text[: text.find("*a")].count("\n") + 1
    message = f": {message}" if message else f":{line}: cannot be read as YAML: an alias (*) must be written out."
    refused(f"{folder.name}/config.yaml{message}", "test", folder.name, cwd=folder.parent)
    assert not (folder.parent / "ran").exists()
