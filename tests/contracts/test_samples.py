"""Which data a contract is tried on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlframe.contracts.samples import HANDFUL, batch_of, build_data, handful, sample_options, suitable
from dlframe.registry import Entry, data, models, plugins

plugins.discover()


def stating(entry: Entry, **facts: object) -> Entry:
    return replace(entry, facts={**entry.facts, **facts})


def test_a_sample_that_an_entry_names_comes_first():
    (few,) = suitable(stating(models.get("mlp"), sample={"name": "digits"}))
    assert few.source == "scikit-learn, offline"
    assert [len(split) for split in (few.train, few.validation, few.test)] == [HANDFUL] * 3


def test_a_file_beside_a_data_set_is_its_sample(tmp_path):
    (tmp_path / "rows.csv").touch()
    entry = replace(stating(data.get("sp500"), sample={"path": "rows.csv", "window": 5}), where=f"{tmp_path / 'mine.py'}:3")
    assert sample_options(entry) == {"path": str(tmp_path / "rows.csv"), "window": 5}


def test_a_data_set_that_needs_an_option_is_skipped():
    entry = replace(data.get("image_folder"), origin="mine")
    with pytest.raises(pytest.skip.Exception, match=r"^data=image_folder was not tried: it needs path, which no sample="):
        build_data(entry)


def test_a_handful_is_taken_from_all_of_a_split():
    dataset = build_data(data.get("digits"))
    few = handful(dataset).train
    assert (few.ids[0], few.ids[-1]) == (dataset.train.ids[0], dataset.train.ids[-1])
    batch = batch_of(few, dataset.spec)
    assert batch.index.tolist() == list(range(HANDFUL))
    assert (batch.inputs.numpy() == few["image"]).all()
