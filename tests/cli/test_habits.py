"""Words of other programs are answered with the command that works: every suggestion is composed."""

from __future__ import annotations

import shlex

import pytest

from dlframe.cli import habits, main, parse
from dlframe.config import load
from dlframe.registry import plugins
from dlframe.studies import options
from dlframe.types import ConfigError

plugins.discover()

EXAMPLES = {
    "optimizer": "sgd",
    "scheduler": "constant",
    "model": "mlp",
    "data": "digits",
    "model.architecture": "resnet18",
    "callback": "[ema]",
    "metric": "[kappa]",
    "task.class_weight": "balanced",
    "trainer.accelerator": "cuda",
    "trainer.strategy": "ddp",
    "trainer.precision": "bf16",
    "trainer.deterministic": "true",
    "trainer.detect_anomaly": "true",
    "compile": "true",
    "tracking": "wandb",
    "run_name": "mine",
    "runs": "mine",
    "resume": "auto",
    "optimizer.momentum": "0.9",
    "optimizer.lr": "0.1",
    "optimizer.weight_decay": "0.1",
    "task.label_smoothing": "0.1",
}
"""Option -> a value as one types it elsewhere; a number by default."""


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlframe.config.devices.gpus_here", lambda: 8)


def compose(command: str) -> None:
    """Compose what a command says, without running it."""
    start, arguments = shlex.split(command)[:3], shlex.split(command)[3:]
    assert start == ["python", "-m", "dlframe"]
    chosen, rest = parse(arguments)
    if chosen.name == "sweep":
        rest = options.read("sweep", rest).overrides
    load([text.replace("path=3", "path=.").replace("path=FOLDER", "path=.") for text in rest])


@pytest.mark.parametrize("key", habits.KEYS)
def test_a_key_of_another_program_is_answered_with_a_command_that_works(key, capsys):
    target = habits.KEYS[key].split()[-1].partition("=")[0]
    argument = f"{key}={EXAMPLES.get(target, '3')}"
    before = ["data=series"] if target == "data.path" else []
    assert main([*before, argument]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"error: {key}: ")
    compose(said.rpartition(" Try: ")[2])


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, known in habits.VALUES.items() for value in known])
def test_a_value_of_another_program_too(key, value, capsys):
    assert main([*(["trainer=gpu"] if key == "trainer.precision" else []), f"{key}={value}"]) == 2
    compose(capsys.readouterr().err.rpartition(" Try: ")[2])


@pytest.mark.parametrize("name", habits.COMMANDS)
def test_a_command_of_another_program_too(name, capsys):
    assert main([name]) == 2
    assert capsys.readouterr().err.endswith(f" Try: python -m dlframe {habits.COMMANDS[name]}\n")
    parse([habits.COMMANDS[name]])


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("lr=0.1", "lr: no such option. Try: python -m dlframe optimizer.lr=0.1"),
        ("model=rnn max_epochs=3 seed=1", "max_epochs: no such option. Try: python -m dlframe model=rnn seed=1 epochs=3"),
        ("-m lr=0.1,0.2 seed=0,1", "lr: no such option. Try: python -m dlframe -m seed=0,1 optimizer.lr=0.1,0.2"),
        ("optimizer=AdamW", "optimizer=AdamW: no such optimizer. Try: python -m dlframe optimizer=adamw"),
        ("model=resnet50", "model=resnet50: no such model. Try: python -m dlframe model=backbone model.architecture=resnet50"),
        (
            "task=driving_detection data=kitti data.path=here",
            "data=kitti: no such data. Try: python -m dlframe task=driving_detection data.path=here data=detection_folder",
        ),
        (
            "model=faster_rcnn",
            "model=faster_rcnn: no such model. Try: python -m dlframe model=torchvision_detector task=object_detection "
            "model.architecture=faster_rcnn",
        ),
        ("accelerator=cuda", "accelerator: no such option. Try: python -m dlframe trainer.accelerator=gpu"),
        ("dropout=0.1", "dropout: no such option. Try: python -m dlframe model.dropout=0.1"),
        ("fit model=mlp", "'fit': must be key=value or a command. Try: python -m dlframe train model=mlp"),
        (
            "-m hydra/launcher=joblib seed=0,1",
            "hydra/launcher: no such option. Try: python -m dlframe sweep seed=0,1 workers=2",
        ),
        ("limit_val_batches=0.25", "limit_val_batches: no such option. Try: python -m dlframe trainer.limit_batches=10"),
        ("modle=cnn", "modle: no such option. Did you mean 'model'? See: python -m dlframe --help"),
    ],
)
def test_the_rest_of_the_command_stays(line, answer, capsys):
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"error: {answer}\n"


def test_an_accelerator_is_found():
    config = load(["trainer.accelerator=auto"])
    assert config.trainer.accelerator in ("cpu", "gpu")
    with pytest.raises(ConfigError, match=r"^trainer\.accelerator: must be one of cpu, gpu, tpu, auto\."):
        load(["trainer.accelerator=none"])


@pytest.mark.parametrize("flag", habits.FLAGS)
def test_a_flag_of_hydra_is_answered_with_a_command_that_works(flag, capsys, tmp_path):
    (tmp_path / "FILE.yaml").write_text("seed: 3\n")
    value = str(tmp_path) if "FILE" in habits.FLAGS[flag] else "cifar10_airbench"
    assert main([flag, value]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"error: {flag}: is a flag of Hydra's.")
    command, rest = parse(shlex.split(said.rpartition(" Try: ")[2])[3:])
    if command.name in ("train", "config"):
        load([text for text in rest if not text.startswith("package=")])


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("seed=1 ~augmentation", "seed=1 'augmentation=[]'"),
        ("config ~callback.early_stopping seed=1", "config 'callback=[]' seed=1"),
    ],
)
def test_the_deletion_of_a_list_is_answered_with_an_empty_one(line, command, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.endswith(f" Try: python -m dlframe {command}\n")
    compose(said.rpartition(" Try: ")[2])


@pytest.mark.parametrize(
    "words", ["--cfg job --package optimizer", "--package=optimizer --cfg=job", "config package=optimizer"]
)
def test_a_part_of_the_config_is_printed(words, capsys):
    assert main([*words.split(), "optimizer=sgd", "optimizer.lr=0.5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("name: sgd\n")
    assert "\nlr: 0.5\n" in out


@pytest.mark.parametrize("part", ["nope", "optimizer.lr.x", "."])
def test_a_part_that_is_not_there_is_said(part, capsys):
    code = main(["config", f"package={part}"])
    said = capsys.readouterr().err
    assert (code, said) == (0, "") if part == "." else said.startswith("error: package: the config has no such part.")


def test_no_flag_is_proposed_as_an_option_that_is_not_there(capsys):
    assert main(["--nope=1"]) == 2
    assert capsys.readouterr().err == (
        "error: --nope=1: no such flag; options are key=value. Choose from: --help, --multirun, -h, -m.\n"
    )
