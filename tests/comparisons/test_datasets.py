"""What several data sets show together."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import stats

from dlframe.cli import main


def test_two_models_on_six_data_sets(tmp_path, monkeypatch, capsys):
    """Six runs of each model, as if each pair were on data of its own: mean ranks and Wilcoxon's test anew from the tables."""
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        options = ["-m", "model=mlp", "epochs=1", f"seed={i}", "tracking=none", "figures=none"]
        assert main([*options, "model.width=32,8", f"name=d{i}"]) == 0
        for path in Path("runs").glob(f"d{i}-*/data.json"):
            facts = json.loads(path.read_text())
            path.write_text(json.dumps({**facts, "name": f"digits{i}", "fingerprint": f"{i:012d}"}))
    capsys.readouterr()
    assert main(["compare", *(f"d{i}" for i in range(6))]) == 0
    said = capsys.readouterr().out

    def accuracy(run: str) -> float:
        table = pandas.read_parquet(f"runs/{run}/predictions.parquet")
        return float((table.target == table.prediction).mean())

    values = np.array([[accuracy(f"d{i}-0000"), accuracy(f"d{i}-0001")] for i in range(6)])
    assert said.count("2 models on digits") == 6
    ranks = stats.rankdata(-values, axis=1).mean(0)
    assert f"over 6 data sets, mean rank: mlp model.width=32 {ranks[0]:.2f}, mlp model.width=8 {ranks[1]:.2f}" in said
    p_value = stats.wilcoxon(values[:, 0] - values[:, 1])[1]
    told = re.search(r"width=8 over data sets: p = ([\d.]+)", said)
    assert told
    assert float(told[1]) == pytest.approx(p_value, rel=0.05)
    shutil.rmtree("runs/sweeps/d5")
    capsys.readouterr()
    assert main(["compare", *(f"d{i}" for i in range(5))]) == 0
    assert "no test over data sets: fewer than 6 cannot show a difference at 5 %" in capsys.readouterr().out
