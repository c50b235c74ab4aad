"""`find=lr`: the curve and the suggestion against closed forms; what it leaves behind; what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import dlframe

from dlframe.config import load
from dlframe.engine.checks.lr_range import RangeTest, means
from dlframe.jobs.train import main, run
from dlframe.types import ConfigError

QUICK = ("model=mlp", "model.width=16", "tracking=none")


def test_means_of_a_constant_are_that_constant_and_of_two_losses_weighted():
    assert means([2.0] * 5) == pytest.approx([2.0] * 5)
    assert means([1.0, 3.0])[1] == pytest.approx((0.9 * 1.0 + 3.0) / 1.9)


def test_the_suggestion_is_where_the_mean_falls_steepest():
    rates = np.geomspace(1e-6, 10, 100)
    losses = 2.3 - 2 / (1 + (1e-3 / rates) ** 2)  # steepest at 1e-3 over the logarithm; the mean follows some steps later
    found = RangeTest.of(rates.tolist(), losses.tolist())
    assert found.suggested
    assert 1e-3 <= found.suggested <= 5e-3
    slopes = np.gradient(found.smooth, np.log(rates))
    assert found.suggested == pytest.approx(rates[slopes.argmin()], rel=0.06)


@pytest.mark.parametrize("losses", [[1.0, 0.5], list(np.linspace(1, 2, 50)), []])
def test_without_a_fall_nothing_is_suggested(losses):
    assert RangeTest.of(np.geomspace(1e-6, 1, len(losses)).tolist() if losses else [], losses).suggested is None


def test_a_range_test_leaves_its_figure_and_names_a_command_that_can_be_loaded(tmp_path, capsys):
    assert main([*QUICK, "find=lr", f"runs={tmp_path}"]) == 0
    said = capsys.readouterr().out
    figure = re.search(r"^figure (.+\.png)$", said, re.MULTILINE)
    assert figure
    assert [*tmp_path.iterdir()] == [Path(figure[1])]
    assert Path(figure[1]).read_bytes().startswith(b"\x89PNG")
    command = re.search(r"^next   python -m dlframe (.+ optimizer\.lr=(\S+))$", said, re.MULTILINE)
    assert command
    assert "find=" not in command[1]
    assert 1e-5 < load(command[1].split()).values["optimizer"]["lr"] == float(command[2]) < 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("model=nearest_neighbors",), "find: model=nearest_neighbors has no optimizer: there is not one rate to find."),
        (("model=mlp", "dry_run=true"), "find: tries a new run. Received: dry_run. Leave one of them out."),
        (("model=mlp", "resume=auto"), "find: tries a new run. Received: resume. Leave one of them out."),
        (("model=mlp", "trainer.precision=bf16-mixed"), "find: trains with 32-true and 64-true"),
        (("model=mlp", "find=momentum"), "find: "),
    ],
)
def test_what_has_no_rate_to_find_is_refused(tmp_path, options, said):
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        main([f"runs={tmp_path}", "tracking=none", "find=lr", *options])
    assert not [*tmp_path.iterdir()]


def test_a_grid_finds_no_rate(tmp_path):
    done = dlframe("-m", *QUICK, "find=lr", f"runs={tmp_path}", "seed=0,1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: find: tries one run. Received: several. Try one of the jobs, without -m.\n",
    )
    assert not [*tmp_path.iterdir()]


def test_a_run_is_not_one_that_finds_a_rate(tmp_path):
    with pytest.raises(ConfigError, match=r"^find: is a choice of the command that trains one run"):
        run(load([*QUICK, "find=lr", f"runs={tmp_path}"]))
    assert not [*tmp_path.iterdir()]
