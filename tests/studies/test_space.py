"""What a grid is made of, from what was typed."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.config import load
from dlframe.studies.space import space_of
from dlframe.types import ConfigError


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def cells(*overrides: str) -> list[list[str]]:
    """The overrides of each job."""
    space = space_of(overrides, default=False).listed()
    return [[*space.fixed, *(f"{key}={text}" for key, text in point.items())] for point in space.grid]


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        ([], [[]]),
        (["seed=3"], [["seed=3"]]),
        (["seed=0,1,2", "seed=3"], [["seed=3"]]),
        (["+seed=0,1"], [["seed=0"], ["seed=1"]]),
        (["seed=0,1,0"], [["seed=0"], ["seed=1"]]),
        (["seed=range(0,10,5)"], [["seed=0"], ["seed=5"]]),
        (["optimizer.lr=0.1,1e-1,0.2"], [["optimizer.lr=0.1"], ["optimizer.lr=0.2"]]),
        (["gradient_clip_val=1,1.0"], [["gradient_clip_val=1"]]),
        (["gradient_clip_val=null,1.0"], [["gradient_clip_val=null"], ["gradient_clip_val=1.0"]]),
        (["networks.model.lr=0.1,0.2"], [["networks.model.lr=0.1"], ["networks.model.lr=0.2"]]),
        (["model=choice(cnn,rnn)"], [["model=cnn"], ["model=rnn"]]),
        (["augmentation=[flip,crop]"], [["augmentation=[flip,crop]"]]),
        (["augmentation=[],[flip,crop]"], [["augmentation=[]"], ["augmentation=[flip,crop]"]]),
        (["run_name='a,b'"], [["run_name='a,b'"]]),
        (["run_name=it's a=b"], [["run_name=it's a=b"]]),
        (["run_name=2020_01,1e3,my run,2020_01"], [["run_name=2020_01"], ["run_name=1e3"], ["run_name=my run"]]),
        (["run_name=été,hiver"], [["run_name=été"], ["run_name=hiver"]]),
        (["runs=/d/epoch=1,/d/epoch=2"], [["runs=/d/epoch=1"], ["runs=/d/epoch=2"]]),
        (
            ["model=cnn,rnn", "epochs=2", "seed=0,1"],
            [["epochs=2", f"model={m}", f"seed={s}"] for m in ("cnn", "rnn") for s in (0, 1)],
        ),
    ],
)
def test_a_grid_is_the_product_of_what_lists_several_values(overrides, found):
    assert cells(*overrides) == found


def test_a_job_of_quoted_texts_means_the_texts():
    assert [load(cell).run.run_name for cell in cells("run_name='a b','c,d'")] == ["a b", "c,d"]


def test_a_grid_over_experiments():
    folder = Path("conf/experiment")
    folder.mkdir(parents=True)
    for name in ("2024_01", "my exp"):
        (folder / f"{name}.yaml").write_text("epochs: 3\n")
    assert cells("experiment=2024_01,my exp") == [["experiment=2024_01"], ["experiment=my exp"]]
    assert cells("experiment=glob(*exp)") == [["experiment=my exp"]]


def test_of_a_pattern_only_what_fits_is_taken_and_the_rest_is_named(capsys):
    found = [cell[-1] for cell in cells("data=digits", "model=glob([c*,m*])")]
    assert {"model=cnn", "model=mlp"} <= {*found}
    note = capsys.readouterr().err
    assert note.startswith("note: model=glob([c*,m*]): left out, as they do not fit: ")
    assert note.count("\n") == 1
    with pytest.raises(ConfigError, match=r"^model=center_detector: takes box or"):
        space_of(["data=digits", "model=glob(center*)"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=interval(0,1)", r"^model: a choice of components takes no interval\."),
        ("optimizer.lr=interval(0.1,1)", r"^optimizer\.lr: a grid needs choices and ranges\."),
        ("run_name=a,,b", r"^run_name: must have a value between commas\."),
        ("plugin_paths=a,b", r"Received: 'a,b'\.$"),
    ],
)
def test_what_is_no_grid_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        cells(override)


def test_ctrl_c_shows_what_has_finished_and_how_all_of_it_goes_on(monkeypatch, capsys):
    trained: list[int] = []

    def train(config, **options):
        trained.append(config.run.seed)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return original(config, **options)

    original = importlib.import_module("dlframe.jobs.train").run
    monkeypatch.setattr("dlframe.jobs.train.run", train)
    monkeypatch.setattr("dlframe.plots.save", lambda figure, path: path.write_bytes(b""))
    arguments = ["-m", "model=mlp", "seed=0,1,2", "epochs=1", "trainer=debug", "tracking=none"]
    assert main(arguments) == 130
    said = capsys.readouterr()
    assert f"stopped; to continue all of it: python -m dlframe {shlex.join(arguments)}" in said.err
    assert "resume=auto" not in said.err
    assert re.search(r"^seed=0 .*accuracy", said.out, re.MULTILINE) or re.search(r"^\s*seed=0\s", said.out, re.MULTILINE)
    monkeypatch.setattr("dlframe.jobs.train.run", original)
    assert main(arguments) == 0
    assert len([*Path("runs").glob("*-000?")]) == 3
