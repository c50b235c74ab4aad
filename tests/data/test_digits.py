import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dlframe.data import handwritten as module
from dlframe.data.digits import digits
from dlframe.types import DataError


def test_every_sample_of_scikit_learn_once():
    dataset, truth = digits(), load_digits()
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [1078, 360, 359]
    ids = np.concatenate([split.ids for split in splits])
    assert sorted(ids) == list(range(1797))
    pixels = np.concatenate([split["image"] for split in splits])
    assert pixels.dtype == np.uint8
    assert (np.rint(pixels[:, 0] * (16 / 255)) == truth.images[ids]).all()
    assert (np.concatenate([split["label"] for split in splits]) == truth.target[ids]).all()
    assert dataset.fingerprint == "5ed0c0c6320d"
    assert (dataset.source, dataset.splits) == ("scikit-learn, offline", "stratified 60/20/20")


def test_nothing_heavy_is_imported():
    code = "import sys; from dlframe.data.digits import digits; digits(); print({'torch', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_file_missing(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^digits: cannot read datasets/data/digits.csv.gz of scikit-learn: "):
        digits()
