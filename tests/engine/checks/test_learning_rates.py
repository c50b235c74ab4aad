"""The learning-rate range test: what it finds, what it leaves, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from dlframe.cli import main
from dlframe.config import load
from dlframe.contracts.samples import batch_of
from dlframe.engine.checks import learning_rates
from dlframe.engine.checks.learning_rates import HIGHEST, LOWEST, SMOOTHING, STEPS, range_test
from dlframe.jobs.data import load_data
from dlframe.types import TrainingError


def test_a_rate_is_suggested_and_nothing_left_but_a_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["model=mlp", "model.width=32", "optimizer.lr=1", "find=lr"]) == 0
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mlp-digits-find-lr.png"]
    with Image.open("runs/mlp-digits-find-lr.png") as figure:
        assert figure.size[0] > 400
    _, found, figure, command = capsys.readouterr().out.splitlines()
    rate = re.match(r"the loss falls fastest at a learning rate of (\S+) and is lowest at (\S+), after \d+ steps", found)
    assert rate
    assert LOWEST < float(rate[1]) < float(rate[2]) < HIGHEST
    assert figure == "figure runs/mlp-digits-find-lr.png"
    assert command == f"next   python -m dlframe model=mlp model.width=32 optimizer.lr={rate[1]}"


def test_rates_rise_and_losses_are_those_of_a_loop_by_hand():
    """On all data at once, so that no order matters."""
    options = ["model=mlp", "model.width=8", "model.dropout=0", "optimizer=sgd", "optimizer.lr=0.5"]
    config = load([*options, "optimizer.momentum=0", "optimizer.weight_decay=0", "batch_size=2000"])
    dataset = load_data(config)
    found = range_test(config, dataset)
    from dlframe.engine import fit

    task = fit.build_task(config, dataset).train()
    images = task.normalize(task.features(batch_of(dataset.train, dataset.spec)))
    labels = torch.from_numpy(np.asarray(dataset.train["label"])).long()
    losses = []
    for number, rate in enumerate(found.rates):
        assert rate == pytest.approx(LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1)))
        loss = torch.nn.functional.cross_entropy(task.model(images), labels)
        losses.append(loss.item())
        for parameter, gradient in zip(
            task.model.parameters(), torch.autograd.grad(loss, [*task.model.parameters()]), strict=True
        ):
            parameter.data -= rate * gradient
    weights = SMOOTHING ** np.arange(len(losses))[::-1]
    averages = [np.average(losses[: n + 1], weights=weights[len(losses) - n - 1 :]) for n in range(len(losses))]
    assert found.losses == pytest.approx(np.array(averages), rel=1e-3)
    assert found.lowest == found.rates[10:][found.losses[10:].argmin()]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["model=gan"], "find: tests a model of one network that an optimizer trains. Received: model=gan, which has 2 ("),
        (["model=lda"], "Received: model=lda, which has none."),
        (["find=rate"], "find: must be one of none, lr. Received: 'rate'."),
        (["resume=auto"], "find: tries a new run. Received: resume=auto. Leave one of them out."),
        (["-m", "seed=0,1"], "find: tries one run. Received: several."),
    ],
)
def test_what_cannot_be_tested_is_refused(options, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    several = [option for option in options if option == "-m"]
    assert main([*several, "model=mlp", "find=lr", *(option for option in options if option != "-m")]) == 2
    assert told in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_loss_that_falls_nowhere_is_told(monkeypatch):
    monkeypatch.setattr(learning_rates, "LOWEST", 1e-30)
    monkeypatch.setattr(learning_rates, "HIGHEST", 1e-29)
    config = load(["model=mlp", "model.width=8", "optimizer=sgd", "find=lr"])
    with pytest.raises(TrainingError, match="find=lr: the loss falls at no learning rate"):
        range_test(config, load_data(config))
