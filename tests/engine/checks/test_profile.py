"""`profile=true`: shares of a step, its operations, a trace; and no other number."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.runs.journal import read
from dlframe.runs.recorder import BEST
from dlframe.storage import checkpoint
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")


SHORT = ("model=mlp", "model.width=8")


def train(tmp_path: Path, *options: str) -> Path:
    folder = run(load(["tracking=none", f"runs={tmp_path}", *options])).folder
    assert folder
    return folder


def test_a_profile_says_where_the_time_goes_and_changes_no_number(tmp_path, capsys):
    plain = train(tmp_path, *SHORT, "epochs=2")
    assert "profile: " not in capsys.readouterr().out
    folder = train(tmp_path, *SHORT, "epochs=2", "profile=true")
    said = capsys.readouterr().out
    shares = re.search(
        r"profile: [\d.]+ ms a step, of 11 steps: data (\d+) %, forward (\d+) %, "
        r"backward (\d+) %, optimizer (\d+) %, rest (\d+) %",
        said,
    )
    assert shares
    assert "profile=true" not in said[said.index("\nnext ") :], "what is measured once is not measured for further seeds"
    assert sum(map(int, shares.groups())) == pytest.approx(100, abs=3)
    assert all(int(share) >= 1 for share in shares.groups()[1:4])
    assert re.search(r"^aten::\w+ +[\d.]+ +\d+$", said, re.MULTILINE)
    names = {event["name"] for event in json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]}
    assert {"step", "forward", "backward", "optimizer"} <= names
    assert {"kind": "artifact", "path": "trace.json.gz", "to": ""}.items() <= next(
        record for record in read(folder) if record.get("path") == "trace.json.gz"
    ).items()
    assert not (plain / "trace.json.gz").exists()
    before, after = (checkpoint.weights(each / BEST) for each in (plain, folder))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_too_few_steps_are_told(tmp_path, capsys):
    folder = train(tmp_path, *SHORT, "profile=true", "trainer.max_steps=2")
    assert "profile: at least 3 optimizer steps are needed. Received: 2" in capsys.readouterr().out
    assert not (folder / "trace.json.gz").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("model=nearest_neighbors",), "profile: model=nearest_neighbors has no steps by gradients to measure."),
        (("trainer.devices=2",), "profile: measures one process. Try: trainer.devices=1"),
        (("profile=sometimes",), "profile: "),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, options, said):
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        train(tmp_path, "profile=true", *options)
    assert not list(tmp_path.iterdir())
