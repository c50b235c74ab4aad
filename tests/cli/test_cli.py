"""What the command line says to what it cannot do; `list`, `show`, `ui` and grids."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.config import names
from dlframe.registry import GROUPS, REGISTRIES, plugins
from dlframe.types import ConfigError, DataError, nearest

plugins.discover()


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


SHOW = "show: must be GROUP=NAME, or one of run, trainer, checkpoint, tracking. Received: "
DELETED = "a run has one of each group. Leave it out for the default."
GRID = "several values make a grid, which needs -m. Try: python -m dlframe -m"
CHOOSE = "See: python -m dlframe --help"
WORD = f"must be key=value or a command. {CHOOSE}"
KEY = "must be key=value. See: python -m dlframe train --help"
FLAG = "no such flag; options are key=value."
TRY = "Try: python -m dlframe"
FIRST = "a command comes first. See: python -m dlframe test --help"
MODELS = nearest("?", names("model"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # commands and flags
        ("nope", f"'nope': {WORD}"),
        ("tset runs/x", "'tset': must be key=value or a command. Did you mean 'test'? See: python -m dlframe --help"),
        ("''", f"'': {WORD}"),
        ("model = cnn", "'model': must be key=value or a command. Try: model=... See: python -m dlframe --help"),
        ("--hlep", f"--hlep: {FLAG} Did you mean '--help'?"),
        ("--verbose", f"--verbose: {FLAG} Choose from: --help, --multirun, -h, -m."),
        ("--model=cnn", f"--model=cnn: {FLAG} Try: model=cnn"),
        ("test runs/x --checkpoint=last", f"--checkpoint=last: {FLAG} Try: checkpoint=last"),
        ("--epochs 3", f"--epochs: {FLAG} Try: epochs=..."),
        ("-m=model=cnn,rnn", f"-m=model=cnn,rnn: {FLAG} Try: -m model=cnn,rnn"),
        ("-m test runs/x", "-m: is for training only. Received: test. Try: python -m dlframe test runs/x"),
        ("test 'a b' --multirun", "-m: is for training only. Received: test. Try: python -m dlframe test 'a b'"),
        ("-m verify-resume kills=1", f"-m: is for training only. Received: verify-resume. {TRY} verify-resume kills=1"),
        ("train test", f"test: {FIRST}"),
        ("seed=1 test runs/x", f"test: {FIRST}"),
        ("-m seed=1,2 test", f"test: {FIRST}"),
        ("train train", "train: a command comes first. See: python -m dlframe train --help"),
        ("seed=1 ~model", f"~model: {DELETED} See: python -m dlframe list model"),
        ("train cnn", f"cnn: {KEY}"),
        ("verify-resume cnn", f"cnn: {KEY}"),
        ("verify-resume kills=1 kills=2", "kills: must be given once. Received: kills twice. Try: kills=2"),
        ("test", "test: requires one run directory. Try: python -m dlframe test runs/..."),
        ("test checkpoint=last", "test: requires one run directory. Try: python -m dlframe test runs/..."),
        ("test .", "test: '.' is not a run directory (no config.yaml). Runs are in runs/."),
        ("test a b", "test: requires one run directory. Received: 'a', 'b'. Try: python -m dlframe test a"),
        ("test a chekpoint=b", "chekpoint: no such option. Did you mean 'checkpoint'? See: python -m dlframe test --help"),
        ("test a checkpoint=b checkpoint=c", "checkpoint: must be given once. Received: checkpoint twice. Try: checkpoint=c"),
        ("ui port=abc", "port: must be int >= 1 and <= 65535. Received: 'abc'."),
        ("ui port=0", "port: must be int >= 1 and <= 65535. Received: 0."),
        ("ui prot=1", "prot: no such option. Did you mean 'port'? See: python -m dlframe ui --help"),
        ("ui open=true", "open: is called 'open_browser' now."),
        ("ui 5000", "ui: options are key=value. Received: '5000'. See: python -m dlframe ui --help"),
        ("sync uri=a uri=b", "uri: must be given once. Received: uri twice. Try: uri=b"),
        ("list modle", "list modle: no such group. Did you mean 'model'?"),
        ("list model=cnn", "list model=cnn: no such group. Try: python -m dlframe show model=cnn"),
        ("show", f"{SHOW}nothing. See: python -m dlframe show --help"),
        ("show test", f"{SHOW}test. See: python -m dlframe show --help"),
        ("show model=", f"{SHOW}model=. See: python -m dlframe list model"),
        ("show model=cnn data=digits", f"{SHOW}model=cnn data=digits. See: python -m dlframe show --help"),
        ("show nope=cnn", f"{SHOW}nope=cnn. See: python -m dlframe show --help"),
        # help
        ("help nothing", f"help: must be a command. Received: 'nothing'. {CHOOSE}"),
        ("help tset", "help: must be a command. Received: 'tset'. Did you mean 'test'? See: python -m dlframe --help"),
        ("--help tset", "'tset': must be key=value or a command. Did you mean 'test'? See: python -m dlframe --help"),
        ("tset --help", "'tset': must be key=value or a command. Did you mean 'test'? See: python -m dlframe --help"),
        ("--help --hlep", f"--hlep: {FLAG} Did you mean '--help'?"),
        ("--help=test", f"--help=test: {FLAG} Try: --help test"),
        ("help test runs/x", "help: must be one command. Received: test runs/x. Try: python -m dlframe help test"),
        ("help model=cnn", "help: must be a command. Received: 'model=cnn'. Try: python -m dlframe show model=cnn"),
        ("show model=cnnn", "model=cnnn: no such model. Did you mean 'cnn'? See: python -m dlframe list model"),
        ("show trainer=gpuu", "trainer=gpuu: no such trainer. Did you mean 'gpu'? See: python -m dlframe list trainer"),
        # keys
        ("=3", f"=3: {KEY}"),
        ("hydra.run.dir=x", "hydra.run.dir: no such option. Try: python -m dlframe runs=x"),
        ("defaults=x", "defaults: no such option. See: python -m dlframe --help"),
        ("model@x=cnn", "model@x: no such option. Did you mean 'model'? See: python -m dlframe --help"),
        ("seed.x=3", "seed.x: no such option. Did you mean 'seed'? See: python -m dlframe --help"),
        ("model.name=rnn", "model.name: an entry is chosen by its group. Try: model=rnn"),
        ("model.width.x=3", "model.width: must be int >= 1. Received: {'x': '3'}."),
        ("trainer.devics=1", "trainer.devics: no such option. Did you mean 'devices'? See: python -m dlframe show trainer"),
        ("tracking.url=x", "tracking.url: no such option. Did you mean 'uri'? See: python -m dlframe show tracking"),
        # choices
        ("model=", f"model=: no such model.{MODELS} See: python -m dlframe list model"),
        ("model=null", f"model=null: no such model.{MODELS} See: python -m dlframe list model"),
        ("model=3", f"model=3: no such model.{MODELS} See: python -m dlframe list model"),
        ("model={}", f"model={{}}: no such model.{MODELS} See: python -m dlframe list model"),
        ("model=[]", "model: takes one entry, for all networks. Received: []."),
        ("model=cnn,rnn", f"model=cnn,rnn: {GRID} model=cnn,rnn"),
        ("augmentation=[flip,flip]", "augmentation: takes each name once. Received: [flip, flip]."),
        ("augmentation=[[flip]]", "augmentation: must be a list of names. Received: [[flip]]."),
        ("augmentation={flip:{p:1}}", "augmentation: must be a list of names. Received: {flip:{p:1}}."),
        ("augmentation=flip,crop", f"augmentation=flip,crop: {GRID} augmentation=flip,crop"),
        (
            "augmentation=[flip] augmentation.crop.padding=2",
            "augmentation.crop: 'crop' is not among the chosen: [flip]. Try: augmentation=[flip,crop]",
        ),
        (
            "augmentation=[crop] augmentation.crop.padding=-1",
            "augmentation.crop.padding: must be int >= 0 or null. Received: -1.",
        ),
        (
            "callback=early_stopping callback.early_stopping.monitor=val/los",
            "callback.early_stopping.monitor: must be a metric that task=classification logs. Received: 'val/los'. "
            "Did you mean 'val/loss'?",
        ),
        # values
        ("seed=", "seed: must be int >= 0 and <= 4294967295. Received: ''."),
        ("seed=-1", "seed: must be int >= 0 and <= 4294967295. Received: -1."),
        ("seed=nan", "seed: must be int >= 0 and <= 4294967295. Received: nan."),
        ("seed=1e3", "seed: must be int >= 0 and <= 4294967295. Received: 1000.0."),
        ("seed=0,1", f"seed=0,1: {GRID} seed=0,1"),
        ("seed=range(3)", f"seed=range(3): {GRID} 'seed=range(3)'"),
        ("epochs=true", "epochs: must be int >= 1. Received: True."),
        ("compile=1", "compile: must be bool or auto. Received: 1. To have it as text in a file, quote it."),
        ("optimizer.lr=nan", "optimizer.lr: must be float > 0. Received: nan."),
        ("optimizer.lr=1e999", "optimizer.lr: must be float > 0. Received: inf."),
        ("optimizer.betas=0.9", "optimizer.betas: must be [float >= 0 and < 1, float >= 0 and < 1]. Received: 0.9."),
        (
            "data=detection_folder data.path=. data.image_size=640",
            "data.image_size: must be [int >= 1, int >= 1]. Received: 640. Try: data.image_size=[640,640]",
        ),
        (
            "data=detection_folder data.path=. data.classes=car",
            "data.classes: must be list of str or null. Received: 'car'. Try: data.classes=[car]",
        ),
        ("optimizer.betas=[0.9]", "optimizer.betas: must be [float >= 0 and < 1, float >= 0 and < 1]. Received: [0.9]."),
        (
            "weight_decay_params=none",
            "weight_decay_params: must be one of all, weights. Received: 'none'. Choose from: all, weights.",
        ),
        ("model.width=[3", "model.width: cannot be read as a value. Received: [3. Quote each text in a list"),
        ("model.width=3]", "model.width: cannot be read as a value. Received: 3]. To have it as text: model.width='\"3]\"'"),
        ("run_name=null", "run_name: must be str. Received: None."),
        ("runs=", "runs: must be a writable folder. Received: ''."),
        ("'run_name=a\nb'", "run_name: must hold no control characters. Received: 'a\\nb'."),
        ("seed=${nope}", "seed: Interpolation key 'nope' not found. Received: '${nope}'."),
        ("seed=${epochs} epochs=${seed}", "seed: Recursive interpolation detected. Received: '${epochs}'."),
        ("run_name=${oc.env:HOME}", "run_name: a reference may name another option only. Received: '${oc.env:HOME}'."),
        ("networks=3", "networks: must hold options. Received: '3'."),
        ("networks.model=3", "networks.model: must hold options of optimizer=adamw. Received: '3'."),
        ("networks.model.name=sgd", "networks.model.name: all networks have one optimizer. Try: optimizer=sgd"),
        ("networks.model.lr=abc", "networks.model.lr: must be float > 0. Received: 'abc'."),
        ("plugin_paths=", "plugin_paths: must be a folder or a .py file. Received: ''."),
        ("plugin_paths=[1]", "plugin_paths: must be a folder or a .py file. Received: '1'."),
        # what fits what
        ("trainer.devices=0", "trainer.devices: must be int >= 1 on a CPU. Received: 0."),
        ("trainer.devices=-1", "trainer.devices: must be int >= 1 on a CPU. Received: -1."),
        ("trainer.strategy=fsdp", "trainer.strategy: 'fsdp' needs GPUs. Try: trainer=fsdp, or trainer=ddp on a CPU"),
        (
            "trainer.num_nodes=2",
            "trainer.num_nodes: 2 machines need MASTER_ADDR, MASTER_PORT and NODE_RANK on each. "
            "Try: torchrun --nnodes=... -m dlframe ...",
        ),
        ("tracking.uri=foo", "tracking.uri: must be sqlite:///PATH or http(s)://HOST:PORT. Received: foo"),
        ("labels_per_class=1000", "labels_per_class: class '0' of digits has 107 training samples. Received: 1000"),
        # two of one key: the last
        ("seed=0 +seed=x", "seed: must be int >= 0 and <= 4294967295. Received: 'x'."),
        ("model=rnn model=cnnn", "model=cnnn: no such model. Did you mean 'cnn'? See: python -m dlframe list model"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(capsys, monkeypatch, line, message):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert said(capsys, *shlex.split(line)) == (2, "", f"error: {message}\n")
    assert not Path("runs").exists()


def test_a_removed_folder_is_told(capsys, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert said(capsys, "model=cnn") == (2, "", "error: the current folder has been removed. Try: cd ..\n")
    monkeypatch.chdir(tmp_path)


def test_the_traceback_is_there_for_who_wants_it(monkeypatch):
    monkeypatch.setenv("DLFRAME_DEBUG", "1")
    with pytest.raises(ConfigError, match=r"^modle: no such option"):
        main(["modle=cnn"])


# --- list and show


def test_list_names_every_entry_with_its_summary_and_home(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, error = said(capsys, "list")
    assert (code, error) == (0, "")
    for group, registry in REGISTRIES.items():
        for entry in registry:
            if entry.origin == "dlframe":
                row = next(line for line in out.splitlines() if line.split()[:1] == [entry.name] and entry.summary in line)
                assert row.split()[-1] == "dlframe", group
    assert [line for line in out.splitlines() if line and line[0] != " "] == [
        group
        for group in (*REGISTRIES, "trainer", "tracking", "experiment", "search", "table")
        if names(group) or group == "task"
    ]


def test_list_of_one_group_names_that_alone(capsys):
    _, out, _ = said(capsys, "list", "scheduler")
    assert [line.split()[0] for line in out.splitlines()] == ["scheduler", *names("scheduler")]


def test_list_shows_a_user_s_own_files_with_their_headline_and_place(capsys):
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/größe.yaml").write_text("# @package _global_\n# A wide one.\nmodel:\n  width: 64\n", encoding="utf-8")
    Path("conf/experiment/bytes.yaml").write_bytes(b"# \xff\n")
    _, out, _ = said(capsys, "list", "experiment")
    rows = [line.split() for line in out.splitlines()]
    assert ["größe", "A", "wide", "one.", "conf/experiment/größe.yaml"] in rows


def test_show_gives_type_range_default_and_meaning(capsys):
    code, out, error = said(capsys, "show", "model=cnn")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("model=cnn: ")
    assert lines[1] == "from dlframe, " + Path(GROUPS["model"].get("cnn").where).name
    place = next(i for i, line in enumerate(lines) if line.startswith("  model.width: int >= 1; default "))
    assert lines[place + 1].startswith("      ")
    assert "".join(GROUPS["model"].get("cnn").parameters["width"].doc.split()) in "".join(out.split())


def test_show_of_a_list_s_entry_gives_the_keys_that_one_types(capsys):
    assert "\n  augmentation.crop.padding: int >= 0 or null; default null\n" in said(capsys, "show", "augmentation=crop")[1]


@pytest.mark.parametrize(("options", "line"), [
    ("run", "  epochs: int >= 1; default "),
    ("trainer", "  trainer.accelerator: one of cpu, gpu, tpu, auto; default cpu"),
    ("checkpoint", "  checkpoint.max_to_keep: int >= 1; default 3"),
])  # fmt: skip
def test_show_of_what_belongs_to_no_group(capsys, options, line):
    assert f"\n{line}" in said(capsys, "show", options)[1]


def test_show_of_a_yaml_gives_what_it_says(capsys):
    code, out, _ = said(capsys, "show", "trainer=debug")
    assert code == 0
    head, place, _, *lines = out.splitlines()
    assert head == "trainer=debug"
    file = Path(place.removeprefix("from "))
    assert "\n".join(line.removeprefix("  ") for line in lines) == file.read_text(encoding="utf-8").rstrip()


def test_ui_without_a_store_says_how_to_make_one(capsys):
    database = Path("a b=c").resolve() / "mlflow.db"
    assert said(capsys, "ui", "runs=a b=c") == (
        2,
        "",
        f"error: tracking.uri: no store at {database} yet. Create one by a run: python -m dlframe model=cnn\n",
    )


# --- grids


def test_a_bad_job_is_told_and_the_others_run(capsys, monkeypatch, tmp_path):
    def run(config, **others):
        raise DataError(f"no data for {config.values['model']['name']}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlframe.jobs.train.run", run)
    code, out, _ = said(capsys, "-m", "model=rnn,mlp", "tracking=none")
    assert code == 1
    assert [line.partition(";")[0] for line in out.splitlines() if line.startswith("[")] == [
        "[1/2] trial 0: model=rnn: failed: no data for rnn",
        "[2/2] trial 1: model=mlp: failed: no data for mlp",
    ]
    assert [line.split()[1] for line in out[out.index("\njob ") :].strip().splitlines()[1:]] == ["FAILED"] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("modle=cnn,rnn", "modle: no such option. Did you mean 'model'? See: python -m dlframe --help"),
        ("seed=range(0)", "seed: must have a value. Received: range(0)."),
        ("model=rnn,cnnn", "model=cnnn: no such model. Did you mean 'cnn'? See: python -m dlframe list model"),
        ("model.width=8,-1", "model.width: must be int >= 1. Received: -1."),
        ("optimizer.lr=interval(0.1,1)", "optimizer.lr: a grid needs choices and ranges. Received: an interval"),
        ("sampler=tpe seed=0,1", "sampler: a grid has no such option. Try: python -m dlframe sweep ... sampler=tpe"),
        ("seed=[0", "seed: cannot be read as a value. Received: [0. Quote each text in a list"),
        ("model", "'model': must be key=value or a command. Try: model=... See: python -m dlframe --help"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_read_runs_nothing(capsys, line, message):
    code, out, error = said(capsys, "-m", *line.split())
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {message}")


def test_the_module_runs_as_a_script():
    done = subprocess.run([sys.executable, "-m", "dlframe", "modle=cnn"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: modle: no such option. Did you mean 'model'? See: python -m dlframe --help\n"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_so(number, status):
    command = [sys.executable, "-m", "dlframe", "model=mlp", "epochs=10000", "tracking=none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if any('"metrics"' in file.read_text() for file in Path("runs").glob("*/journal.jsonl")):
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert re.fullmatch(
        r"stopped after step [\d,]+; resume: python -m dlframe model=mlp epochs=10000 tracking=none resume=auto\n", error
    )
    (journal,) = Path("runs").glob("*/journal.jsonl")
    assert json.loads(journal.read_text().splitlines()[-1])["status"] == "KILLED"
