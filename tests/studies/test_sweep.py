"""A search that is stopped, killed, continued and shared: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from tests.conftest import dlframe, until

from dlframe.cli import main
from dlframe.runs.journal import history
from dlframe.studies.space import space_of
from dlframe.studies.study import Study, read_manifest
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")

SPACE = ["model.width=choice(4,8)", "optimizer.lr=tag(log,interval(1e-3,1e-1))"]
SWEEP = ["sweep", "model=mlp", "epochs=2", "tracking=none", "name=try", "search.fresh_seeds=0", *SPACE]


def run_of(trial: optuna.trial.FrozenTrial, folder: Path = Path("runs"), name: str = "try") -> Path:
    return folder / f"{name}-{trial.number:04d}"


def study(folder: Path) -> Study:
    return Study(folder, read_manifest(folder))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=interval(0.1,2)"], r"^model\.width: must be int >= 1: bounds must be integers\. Received: 0\.1 to 2\.$"),
        (["model.widht=choice(1,2)"], r"^model\.widht: 'cnn' has no such option\. Did you mean 'width'\?"),
        (["model.dropout=interval(0,2)"], r"^model\.dropout: must be float >= 0 and < 1\. Received: 2\.0\.$"),
        (["model.width=choice(4,-1)"], r"^model\.width: must be int >= 1\. Received: -1\.$"),
        (["optimizer.lr=choice(a,b)"], r"^optimizer\.lr: must be float > 0\. Received: 'a'\.$"),
        (["optimizer.lr=tag(log,interval(0,1))"], r"^optimizer\.lr: a logarithmic scale needs a lower bound above 0"),
        (
            ["optimizer.lr=interval(2,1)"],
            r"^optimizer\.lr: the lower bound must be at most the upper one\. Received: 2 to 1\.$",
        ),
        (["model.norm=interval(1,2)"], r"^model\.norm: .* takes no interval\. Try: model\.norm=choice\(\.\.\.\)$"),
        (["model=cnn,nope"], r"^model=nope: no such model\."),
        (["batch_size=range(5,5)"], r"^batch_size: must have a value"),
        (["model.width=tag(hey,interval(1,2))"], r"^model\.width: a tag must be log\. Received: hey\.$"),
        (["model=lda", "model.shrinkage=0.5"], r"^sweep: no option varies\."),
        (["model=mlp,cnn", "model.patch_size=choice(1,2)"], r"^model\.patch_size: 'mlp' has no such option\."),
    ],
)
def test_a_space_is_checked_before_the_first_trial(overrides, message):
    with pytest.raises(ConfigError, match=message):
        space_of(overrides)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=3,3"], "sweep: the space has one point."),
        (["seed=1,2", "trials=0"], "trials: must be int >= 1. Received: 0."),
        (["seed=1,2", "sampler=nope"], "sampler=nope: no such sampler. Choose from: cmaes, gp,"),
        (["seed=1,2", "search.x=1"], "search.x: no such option. Choose from: search.fresh_seeds,"),
        (["seed=1,2", "name=../x"], "name: must be letters, digits and . _ = + -. Received: '../x'."),
        (["optimizer.lr=interval(1,2)", "sampler=grid"], "optimizer.lr: a grid needs choices and ranges."),
        (["seed=1,2", "monitor=val/nope"], "monitor: must be a metric that task=classification logs."),
        (
            ["model=cnn,autoencoder"],
            "search.objectives: must be given where runs pick their epochs by different metrics. Received: val/accuracy, "
            "val/loss, of the tasks anomaly and classification. Try: search.objectives=[val/loss]",
        ),
        (["statsu", "x"], "sweep: must be key=value or a view. Did you mean 'status'?"),
        (["status"], "sweep status: requires the name of a sweep. In runs: none."),
        (["best", "nope"], "sweep: no sweep 'nope' in runs/sweeps."),
        (["status", "../x"], "name: must be letters"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert [*tmp_path.iterdir()] == []


def test_jobs_that_pick_their_epochs_by_metrics_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    preset = Path("conf/task/by_f1.yaml")
    preset.parent.mkdir(parents=True)
    defaults = ["/task/class@task: classification", "/data: digits", "/model: lda"]
    preset.write_text("\n  - ".join(["# @package _global_\ndefaults:", *defaults]) + "\ntask:\n  headline: f1\n")
    assert main(["-m", "task=image_classification,by_f1", "model=lda", "name=try", "tracking=none"]) == 0
    (objective,), trials = study(tmp_path / "runs/sweeps/try").objectives, study(tmp_path / "runs/sweeps/try").trials()
    assert (objective.metric, objective.better) == ("monitor", "max")
    of = {trial.params["task"]: history(run_of(trial)) for trial in trials}
    for trial, metric in zip(trials, ("val/accuracy", "val/f1"), strict=True):
        assert trial.value == max(value for _, value in of[trial.params["task"]][metric])
    assert main(["sweep", "task=image_classification,by_f1", "model=lda"]) == 2
    assert "error: search.objectives: must be given" in capsys.readouterr().err


@pytest.mark.parametrize(
    "varied", [["task=anomaly_detection", "model=isolation_forest", "task.anomalies=[0],[1]"], ["trainer.overfit_batches=1,2"]]
)
def test_options_may_vary_on_which_the_data_depend(tmp_path, monkeypatch, varied):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "epochs=1", "name=try", "tracking=none", *varied]) == 0
    assert len(study(tmp_path / "runs/sweeps/try").trials()) == 2


def test_an_option_of_one_model_varies_with_that_model_only():
    space = space_of(["model=mlp,vit", "model.patch_size=choice(1,2)", "model.depth=range(1,4)", "seed=1"])
    sampled = [space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=s)).ask()) for s in range(20)]
    for chosen in sampled:
        assert ("model.patch_size" in chosen) == (chosen["model"] == "vit")
    assert {chosen["model.depth"] for chosen in sampled} == {"1", "2", "3"}
    assert len(space.listed().grid) == space.points()
    assert space.fixed == ("seed=1",)
    assert space.points() == 3 + 2 * 3


def test_a_sweep_goes_on_towards_its_total(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SWEEP, "trials=2"]) == 0
    first = [trial.params for trial in study(tmp_path / "runs/sweeps/try").trials()]
    assert main([*SWEEP, "trials=4"]) == 0
    trials = study(tmp_path / "runs/sweeps/try").trials()
    assert [trial.params for trial in trials[:2]] == first
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    for trial in trials:
        assert trial.value == max(value for _, value in history(run_of(trial))["val/accuracy"])
    whole = capsys.readouterr().out
    assert re.search(
        r"^\[4/4\] trial 3: model\.width=\d optimizer\.lr=[\d.]+: [\d.]+ %, best [\d.]+ % \(trial \d\)", whole, re.M
    )
    assert main([*(text for text in SWEEP if text != "name=try"), "trials=4", "name=again"]) == 0
    again = study(tmp_path / "runs/sweeps/again").trials()
    assert [(t.params, t.value) for t in again] == [(t.params, t.value) for t in trials], "stopping changes the choices"


def test_the_best_trial_is_exported_to_the_same_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main([*SWEEP, "trials=2"])
    best = study(tmp_path / "runs/sweeps/try").best()
    for view in ("status", "best", "importance"):
        assert main(["sweep", view, "try"]) == 0
    assert main(["sweep", "export", "try"]) == 0
    written = yaml.safe_load((tmp_path / "conf/experiment/try.yaml").read_text())
    assert written["optimizer"]["lr"] == float(best.options["optimizer.lr"])
    assert main(["experiment=try", "run_name=exported"]) == 0
    (folder,) = (tmp_path / "runs").glob("exported-*")
    assert history(folder)["val/accuracy"] == history(Path(best.run))["val/accuracy"]


def test_another_space_under_one_name_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main([*SWEEP, "trials=1"])
    capsys.readouterr()
    assert main([*SWEEP, "trials=1", "model.depth=choice(1,2)"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: sweep: 'try' has another manifest: space was model.width=4,8; optimizer.lr from")
    assert "extend=true" in told
    assert main([*SWEEP, "trials=2", "model.depth=choice(1,2)", "extend=true"]) == 0
    assert len(study(tmp_path / "runs/sweeps/try").trials()) == 2


def test_a_trial_that_fails_is_noted_and_the_sweep_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["sweep", "model=mlp", "epochs=1", "tracking=none", "optimizer=sgd", "sampler=grid", "name=grid"]
    assert main([*options, "optimizer.lr=choice(0.01,1e30)"]) == 1
    trials = study(tmp_path / "runs/sweeps/grid").trials()
    assert sorted(trial.state.name for trial in trials) == ["COMPLETE", "FAIL"]
    (failed,) = (trial for trial in trials if trial.state.name == "FAIL")
    assert failed.user_attrs["failure"].startswith("weights or buffers are not finite")


def test_bad_trials_are_ended_early(tmp_path, monkeypatch, capsys):
    """Every later trial whose rate is hopeless is below the median at its first look."""
    monkeypatch.chdir(tmp_path)
    options = ["sweep", "model=mlp", "epochs=4", "tracking=none", "sampler=grid", "pruner=median", "name=pruned"]
    options += ["pruner.warmup_trials=1", "pruner.warmup_epochs=0", "search.fresh_seeds=0"]
    main([*options, "optimizer.lr=choice(1e-4,0.01,1e-7,1e-8)"])
    trials = study(tmp_path / "runs/sweeps/pruned").trials()
    for trial in trials:
        hopeless = float(trial.params["optimizer.lr"]) < 1e-3
        assert trial.state.name != "PRUNED" or hopeless
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    assert all(len(trial.intermediate_values) < 4 for trial in pruned)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["pruner=hyperband", "trainer.max_steps=40"], "pruner=hyperband: its brackets are cut from `epochs`"),
        (["pruner=hyperband", "epochs=choice(2,9)"], "its brackets are cut from `epochs`, which varies"),
        (["pruner=hyperband", "trainer.max_steps=choice(20,40)"], "pruner=hyperband: its brackets are cut from `epochs`"),
        (["find=lr"], "find: tries one run"),
    ],
)
def test_what_a_sweep_cannot_take_is_refused_before_it_has_a_folder(tmp_path, monkeypatch, capsys, option, message):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "model=mlp", "tracking=none", "trials=2", *SPACE, *option]) == 2
    assert message in capsys.readouterr().err
    assert [*tmp_path.rglob("*")] == []


@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_a_kill_loses_no_trial(tmp_path, victim):
    """A trial in flight continues from its checkpoint; finished ones are not run again."""
    slow = ["epochs=20", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20", "model.depth=4"]
    options = [*SWEEP, *slow, "trials=3", *(["workers=2"] if victim == "worker" else [])]
    command = [sys.executable, "-m", "dlframe", *options]
    folder = tmp_path / "runs/sweeps/try"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: [*tmp_path.glob("runs/try-0000/checkpoints/state-*")], 120)
    if victim == "driver":
        process.kill()
        process.communicate()
        done = dlframe(*options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    else:
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
        os.kill(int(children[0]), signal.SIGKILL)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert "was killed (signal 9); started again" in said
    trials = study(folder).trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert len([*tmp_path.glob("runs/try-*")]) == 3, "a trial was begun anew"
    runs = [run_of(trial, tmp_path / "runs") for trial in trials]
    assert all(len(history(run)["val/accuracy"]) == 20 for run in runs)
