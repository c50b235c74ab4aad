"""Runs that begin with the weights of an earlier one: what is taken, what is new, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlframe.comparisons.reproduce import differences
from dlframe.config import load, load_saved
from dlframe.jobs.train import run
from dlframe.runs.recorder import states
from dlframe.runs.run_directory import BEST
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "model.width=16", "epochs=1", "tracking=none", "figures=none"]


def train(runs: Path, *overrides: str) -> Path:
    return run(load([*SHORT, f"runs={runs}", *overrides])).folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / BEST)[0]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlframe.plots.save", lambda figure, path: path.write_bytes(b""))
        return train(tmp_path_factory.mktemp("earlier"))


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory) -> Path:
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (root / name).mkdir()
        for i in range(10):
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


STILL = ["optimizer=sgd", "optimizer.lr=1e-30", "optimizer.momentum=0", "scheduler=constant"]
"""Training that changes no weight, so that those of the beginning are seen."""


@pytest.mark.parametrize("form", ["run", "file", "copied file", "last state"])
def test_a_run_begins_with_the_weights_of_another(tmp_path, earlier, form, capsys):
    source = {
        "run": earlier,
        "file": earlier / BEST,
        "copied file": tmp_path / "a=b.safetensors",
        "last state": states(earlier)[0],
    }
    shutil.copy(earlier / BEST, tmp_path / "a=b.safetensors")
    new = train(tmp_path / "runs", *STILL, f"initial_checkpoint={source[form]}")
    assert all(
        torch.equal(tensor, weights(new)[name]) for name, tensor in weights(earlier).items() if name.startswith("model.")
    )
    assert "note: initial_checkpoint: 6 of 6 tensors; from " in capsys.readouterr().err


def test_the_run_keeps_where_it_came_from(tmp_path, earlier):
    new = train(tmp_path, f"initial_checkpoint={earlier}")
    kept = json.loads((new / "environment.json").read_text())["initial_checkpoint"]
    data = json.loads((earlier / "data.json").read_text())["fingerprint"]
    steps = len(range(0, 1078, 64))
    assert {name: kept[name] for name in ("model", "task", "step", "data")} == {
        "model": "mlp", "task": "classification", "step": steps, "data": data
    }  # fmt: skip
    assert kept["file"] == str((earlier / BEST).resolve())
    start = json.loads((new / "journal.jsonl").read_text().splitlines()[0])
    assert start["tags"]["initial_checkpoint.sha256"] == kept["sha256"]
    assert load([f"initial_checkpoint={earlier}"]).run.initial_checkpoint in (new / "config.yaml").read_text()


def test_a_head_of_other_classes_is_new_and_said(tmp_path, earlier, three_classes, capsys):
    data = ["data=image_folder", f"data.path={three_classes}", "data.image_size=8", "data.color_mode=grayscale"]
    new = train(tmp_path, *STILL, *data, f"initial_checkpoint={earlier}")
    said = capsys.readouterr().err
    assert "4 of 6 tensors; new: layers.6.weight (10x16 there, 3x16 here), layers.6.bias (10 there, 3 here); from " in said
    assert torch.equal(weights(new)["model.layers.0.weight"], weights(earlier)["model.layers.0.weight"])
    assert weights(new)["model.layers.6.weight"].shape == (3, 16)


def test_averages_are_taken_where_a_state_has_them(tmp_path):
    averaged = train(tmp_path / "ema", "callback=[ema]")
    new = train(tmp_path, *STILL, f"initial_checkpoint={states(averaged)[0]}")
    assert all(
        torch.equal(tensor, weights(new)[name]) for name, tensor in weights(averaged).items() if name.startswith("model.")
    )


def test_a_resumed_run_does_not_load_it_again(tmp_path, earlier, capsys):
    source = shutil.copytree(earlier, tmp_path / "source")
    options = [f"initial_checkpoint={source}", "resume=auto", "epochs=2"]
    new = train(tmp_path / "runs", *options)
    expected = {path.name: path.read_bytes() for path in (new / "checkpoints").iterdir()}
    journal = (new / "journal.jsonl").read_text().splitlines(keepends=True)
    (new / "journal.jsonl").write_text("".join(line for line in journal if '"kind": "end"' not in line))
    (new / "result.json").unlink()
    shutil.rmtree(source)
    capsys.readouterr()
    assert train(tmp_path / "runs", *options) == new
    assert {path.name: path.read_bytes() for path in (new / "checkpoints").iterdir()} == expected
    assert "initial_checkpoint" not in capsys.readouterr().err


def test_a_run_killed_before_its_first_state_loads_it_again(tmp_path, earlier):
    options = [*STILL, f"initial_checkpoint={earlier}", "resume=auto"]
    new = train(tmp_path / "runs", *options)
    journal = (new / "journal.jsonl").read_text().splitlines(keepends=True)
    (new / "journal.jsonl").write_text(journal[0])
    shutil.rmtree(new / "checkpoints")
    (new / "result.json").unlink()
    assert train(tmp_path / "runs", *options) == new
    assert torch.equal(weights(new)["model.layers.0.weight"], weights(earlier)["model.layers.0.weight"])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def of_another_task(path: Path) -> None:
    tree, facts = checkpoint.load(path)
    checkpoint.save(path, tree, {**facts, "task": "detection"})


@pytest.mark.parametrize(
    ("options", "change", "error", "told"),
    [
        (["model=cnn"], None, CheckpointError, "is of another model: must be 'cnn'. Received: 'mlp'."),
        (["model.width=8"], None, CheckpointError, "1 of 6 tensors; new: .* Try: model.width=16$"),
        ([], of_another_task, CheckpointError, "is of another task: must be 'classification'. Received: 'detection'."),
        ([], damage, CheckpointError, "the checksum does not match"),
        ([], lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), CheckpointError, "is a pickle"),
        ([], lambda path: path.unlink(), ConfigError, "must be a run directory with checkpoints/best.safetensors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_there_is_a_folder(tmp_path, earlier, options, change, error, told):
    source = shutil.copytree(earlier, tmp_path / "source")
    if change:
        change(source / BEST)
    with pytest.raises(error, match=told) as caught:
        train(tmp_path / "runs", *options, f"initial_checkpoint={source}")
    assert "initial_checkpoint" in str(caught.value) or str(source) in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_model_without_gradients_has_no_weights_to_begin_with(tmp_path, earlier):
    with pytest.raises(ConfigError, match="model=lda learns without gradients"):
        run(load(["model=lda", "tracking=none", f"runs={tmp_path / 'runs'}", f"initial_checkpoint={earlier}"]))
    assert not (tmp_path / "runs").exists()


def test_a_link_in_a_run_is_refused(tmp_path, earlier):
    source = shutil.copytree(earlier, tmp_path / "source")
    (source / BEST).rename(tmp_path / "elsewhere")
    (source / BEST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="a link"):
        train(tmp_path / "runs", f"initial_checkpoint={source}")
    assert not (tmp_path / "runs").exists()


def test_best_is_the_run_with_the_best_monitored_value(tmp_path, capsys):
    runs = tmp_path / "runs"
    with pytest.raises(ConfigError, match="no finished run of model=mlp in the experiment 'classification'"):
        train(runs, "initial_checkpoint=best")
    train(runs, *STILL)
    good = train(runs, "optimizer.lr=0.01")
    train(runs, "experiment_name=another", "epochs=4", "optimizer.lr=0.01")  # better, but of another experiment
    capsys.readouterr()
    third = train(runs, *STILL, "initial_checkpoint=best", "seed=3")
    assert f"initial_checkpoint=best: {good}, val/accuracy" in (told := capsys.readouterr()).out
    assert "of 2 runs" in told.out
    assert all(torch.equal(tensor, weights(good)[name]) for name, tensor in weights(third).items())
    assert f"initial_checkpoint={good}" in (third / "overrides.txt").read_text().splitlines()
    assert f"initial_checkpoint: {good}" in (third / "config.yaml").read_text()


def test_best_of_several_data_sets_is_refused(tmp_path, three_classes):
    runs = tmp_path / "runs"
    train(runs)
    train(runs, "data=image_folder", f"data.path={three_classes}")
    with pytest.raises(ConfigError, match=r"have 2 data sets.* \(digits\).*Try: initial_checkpoint=RUN"):
        train(runs, "initial_checkpoint=best")


def test_jobs_of_a_grid_do_not_begin_with_the_best(tmp_path):
    from dlframe.studies import grid

    with pytest.raises(ConfigError, match=r"another run with each job that ends\. Name it: initial_checkpoint=RUN"):
        grid.main([*SHORT, f"runs={tmp_path}", "seed=0,1", "initial_checkpoint=best"])


def test_a_head_of_as_many_other_classes_is_told(tmp_path, three_classes, capsys):
    source = train(tmp_path, "data=image_folder", f"data.path={three_classes}")
    others = tmp_path / "others"
    shutil.copytree(three_classes, others)
    (others / "c").rename(others / "d")
    capsys.readouterr()
    train(tmp_path, "data=image_folder", f"data.path={others}", f"initial_checkpoint={source}")
    assert "the head of 3 classes is taken over, which were a, b, c, and are a, b, d" in capsys.readouterr().err
    train(tmp_path, "data=image_folder", f"data.path={three_classes}", f"initial_checkpoint={source}")
    assert "taken over" not in capsys.readouterr().err


def test_a_reproduction_says_that_the_weights_of_the_beginning_are_others(tmp_path, earlier):
    source = tmp_path / "source.safetensors"
    shutil.copy(earlier / BEST, source)
    folder = train(tmp_path, f"initial_checkpoint={source}")
    config = load_saved(folder / "config.yaml")

    def told() -> list[str]:
        return [line for line in differences(folder, config) if line.startswith("initial_checkpoint")]

    assert told() == []
    source.write_bytes(source.read_bytes()[:-1] + b"x")
    assert told() == [f"initial_checkpoint: {source} has other content than then"]
    source.unlink()
    assert told() == [f"initial_checkpoint: {source} is not there any more"]
