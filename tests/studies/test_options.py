"""Options of a study: samplers, pruners, files of conf/search, spaces that components bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.studies.options import read
from dlframe.studies.space import space_of
from dlframe.studies.study import Study, read_manifest
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")
RUN = ["epochs=1", "tracking=none"]
QUICK = ["model=mlp", "epochs=1", "tracking=none", "search.fresh_seeds=0"]


def records(name: str):
    folder = Path("runs/sweeps", name)
    return Study(folder, read_manifest(folder)).records()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sampler=tpe", "sampler.warmup=3"], r"^sampler\.warmup: no such option\. .*sampler\.warmup_trials"),
        (["pruner=median", "pruner.warmup_epochs=-1"], r"^pruner\.warmup_epochs: must be int >= 0\. Received: -1\."),
        (["executor=rays"], r"^executor=rays: no such executor\. Did you mean 'ray'\?"),
        (["search=nope"], r"^search=nope: no such search\."),
        (["search.objectives=[val/accuracy,parameters]", "pruner=median"], r"^pruner: must be none where"),
        (["search.objectives=[val/accuracy,parameters]", "search.seeds=2"], r"^search\.seeds: must be 1 where"),
        (["search.objectives=[val/accuracy,parameters]", "sampler=cmaes"], r"^sampler=cmaes: takes one objective\."),
        (["storage=mysql://x/y"], r"^storage: must be journal, for a file"),
        (["storage=postgresql://u:secret@h/d"], r"^storage: must hold no password\. It is read from the variable PGPASSWORD"),
        (["trials=2", "trials=3"], r"^trials: must be given once"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read("sweep", arguments)


def test_a_password_is_not_shown():
    with pytest.raises(ConfigError) as error:
        read("sweep", ["storage=mysql://u:secret@h/d"])
    assert "secret" not in str(error.value)


def test_a_file_chooses_and_the_command_line_beats_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf/search"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "sampler: {name: tpe, warmup_trials: 4}\npruner: median\nsearch: {seeds: 3, objectives: [val/loss]}\n"
    )
    chosen = read("sweep", ["search=mine", "search.seeds=2"])
    assert chosen.components["sampler"] == {"name": "tpe", "warmup_trials": 4, "candidates": 24}
    assert chosen.components["pruner"]["name"] == "median"
    assert (chosen.search.seeds, chosen.search.objectives) == (2, ("val/loss",))
    assert read("sweep", ["search=mine", "sampler=random"]).components["sampler"] == {"name": "random"}
    assert read("sweep", ["search=race"]).search.seeds == 5
    (folder / "mine.yaml").write_text("executor: {name: ray, address: elsewhere}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: executor: must be sampler, pruner or search\."):
        read("sweep", ["search=mine"])


def test_components_bring_a_space(tmp_path, monkeypatch, capsys):
    space = space_of(["model=mlp", "model.width=64"])
    assert space.is_default
    keys = {"model.depth", "model.dropout", "optimizer.lr", "optimizer.weight_decay"}
    assert {axis.key for axis in space.axes} == keys
    assert {axis.key for axis in space_of(["model=lda"]).axes} == {"model.shrinkage"}
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *QUICK, "trials=2", "name=own"]) == 0
    assert "note: no option varies; searched is what the components say" in capsys.readouterr().err
    assert {key for record in records("own") for key in record.options} >= {"model.width", "optimizer.lr"}


def test_a_plugin_brings_a_sampler(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("plugins").mkdir()
    Path("plugins/corner.py").write_text(
        '''from optuna.samplers import BaseSampler

from dlframe.registry import samplers


@samplers.register("corner")
class Corner(BaseSampler):
    """One corner of the space.

    Args:
        width: Width that is chosen.
    """

    def __init__(self, seed: int, number: int, *, width: int = 8) -> None:
        self.width = width

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return str(self.width)
'''
    )
    assert (
        main(["sweep", *QUICK, "model.width=choice(4,8,16)", "sampler=corner", "sampler.width=16", "trials=1", "name=c"]) == 0
    )
    assert [record.options for record in records("c")] == [{"model.width": "16"}]


def test_several_objectives_give_a_front(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["search.objectives=[val/accuracy,parameters]", "sampler=grid", "model.width=choice(2,4,64)", "name=front"]
    assert main(["sweep", *QUICK, *options, "epochs=3"]) == 0
    found = records("front")
    inputs, classes = 64, 10

    def parameters(width: int) -> int:
        return (inputs + 1) * width + (width + 1) * width + (width + 1) * classes

    assert [record.values[1] for record in found] == [parameters(width) for width in (2, 4, 64)]
    beaten = [
        any(o.values[0] >= r.values[0] and o.values[1] <= r.values[1] and o.values != r.values for o in found) for r in found
    ]
    said = capsys.readouterr().out
    for record, is_beaten in zip(found, beaten, strict=True):
        line = f"     trial {record.number}: model.width={record.options['model.width']}: "
        assert (line in said) == (not is_beaten)


def test_a_race_trains_seeds_of_what_may_win(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["optimizer=sgd", "optimizer.lr=choice(0.1,0.05,1e-6,1e-7)", "sampler=grid", "search.seeds=3", "name=raced"]
    assert main(["sweep", *QUICK, "epochs=2", *options]) == 0
    found = records("raced")
    assert [record.state for record in found][2:] == ["pruned", "pruned"]
    assert all("left the race after" in record.failure for record in found[2:])
    folders = {path.name for path in Path("runs").glob("raced-*")}
    assert {f"raced-000{i}{seed}" for i in (0, 1) for seed in ("", "-seed1", "-seed2")} <= folders
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("raced-*/result.json")}
    assert main(["sweep", *QUICK, "epochs=2", *options]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").glob("raced-*/result.json")} == before


def test_a_space_can_be_extended(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = ["sweep", *QUICK, "sampler=random", "name=wide"]
    assert main([*sweep, "model.width=choice(4,8)", "trials=2"]) == 0
    before = records("wide")
    assert main([*sweep, "model.width=choice(4,8,16,32)", "trials=6"]) == 2
    assert "extend=true" in capsys.readouterr().err
    assert main([*sweep, "model.width=choice(4,8,16,32)", "trials=6", "extend=true"]) == 0
    after = records("wide")
    assert [(r.options, r.values) for r in after[:2]] == [(r.options, r.values) for r in before]
    assert len(after) == 6
    assert {r.options["model.width"] for r in after} & {"16", "32"}


def test_a_grid_is_a_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = [
        "-m",
        "model=mlp,vit",
        "model.patch_size=4,8",
        "optimizer=sgd",
        "optimizer.lr=0.1,1e30",
        "epochs=1",
        "tracking=none",
    ]
    assert main([*grid, "name=g"]) == 1
    found = records("g")
    assert [r.options.get("model.patch_size") for r in found] == [None, None, "4", "4", "8", "8"]
    assert [r.state for r in found] == ["complete", "failed"] * 3
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("g-*/result.json")}
    capsys.readouterr()
    assert main([*grid, "name=g"]) == 1
    assert "grid g: 6 jobs, 6 done before" in capsys.readouterr().out
    assert main([*grid, "name=g", "retry=true"]) == 1
    assert {path: path.stat().st_mtime_ns for path in Path("runs").glob("g-*/result.json")} == before
    assert [r.state for r in records("g")] == ["complete", "failed"] * 3
    assert main(["sweep", "status", "g"]) == 0


def test_stacked_trials_have_the_values_of_those_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = [
        "-m",
        "model=mlp",
        "epochs=2",
        "tracking=none",
        "seed=0,1,2",
        "optimizer.lr=0.001,0.01",
        "trainer.precision=64-true",
    ]
    assert main([*grid, "name=alone"]) == 0
    assert main([*grid, "name=together", "vectorize=6"]) == 0
    said = capsys.readouterr().err
    assert "note: stacked: a step of 6 runs takes" in said or "note: not stacked" in said
    for one, other in zip(records("alone"), records("together"), strict=True):
        assert one.options == other.options
        assert one.values == pytest.approx(other.values, abs=0.01)


def test_a_trial_that_takes_too_long_is_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *QUICK, "epochs=100000", "seed=choice(1,2)", "sampler=grid", "search.timeout=4", "name=slow"]) == 1
    found = records("slow")
    assert [record.state for record in found] == ["failed", "failed"]
    assert all(record.failure == "took longer than search.timeout=4 seconds" for record in found)


def test_a_study_of_somebody_else_is_looked_at_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = ["sweep", *QUICK, "model.width=choice(4,8)", "trials=1", "name=s"]
    assert main(sweep) == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    capsys.readouterr()
    assert main(sweep) == 2
    assert "was not begun by you in this place" in capsys.readouterr().err
    assert main(["sweep", "status", "s"]) == 0
    assert main(["sweep", "export", "s"]) == 2


def test_changed_data_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = ["sweep", *QUICK, "model.width=choice(4,8)", "name=d"]
    assert main([*sweep, "trials=1"]) == 0
    folder = Path("runs/sweeps/d")
    study = Study(folder, read_manifest(folder))
    known = study.optuna.user_attrs["data"]
    study.optuna.set_user_attr("data", dict.fromkeys(known, "0" * 12))
    assert main([*sweep, "trials=2"]) == 1
    assert records("d")[1].failure.startswith("data of 'd' changed since its first trial: fingerprint must be 000000000000.")
