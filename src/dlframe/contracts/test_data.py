"""What every data set promises."""

from __future__ import annotations

import numpy as np

from dlframe.contracts.samples import build_data, sample_options
from dlframe.contracts.selection import contract
from dlframe.registry.parameters import REQUIRED
from dlframe.types import DataError, Lazy, Ragged, check_dataset


@contract("data")
def test_data(entry, tmp_path, monkeypatch):
    """The splits are what the specification says, the same again, and at most 1 % of the test images are trained on.

    Not none: CIFAR-10 and Fashion-MNIST hold a few images twice.
    """
    if sample_options(entry) or any(p.default is REQUIRED for p in entry.parameters.values()):
        monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    data = build_data(entry)
    spec = data.spec
    fault = ""
    try:
        check_dataset(data)
    except DataError as error:
        fault = str(error)
    assert not fault, fault
    for role, fields in (("inputs", spec.inputs), ("targets", spec.targets)):
        has, said = sorted({field.kind for field in fields.values()}), entry.facts[role]
        assert set(has) <= set(said), f"{role}={said} of the registration must name every kind. Received: {has}"
    assert entry.facts["files"] == ("any",) or set(entry.facts["files"]) <= entry.parameters.keys(), "files names its options"
    assert data.source, "say where the data came from: Dataset(source=...)"
    assert data.splits, "say how the data were split: Dataset(splits=...)"
    for split in (data.train, data.validation, data.test):
        assert len(set(split.ids.tolist())) == len(split), "two samples of a split have one id"
    assert data.train.labelled is None or data.train.labelled.any(), "no training sample is labeled"
    for name, field in spec.inputs.items():
        assert all(deviation > 0 for deviation in field.std), f"'{name}' has a std of 0, by which it would be divided"
        if field.kind == "image":
            assert len(field.mean) == len(field.std) == field.shape[0], f"'{name}' needs mean and std of each channel"
            assert all(0 <= m <= 1 for m in field.mean), f"'{name}': mean is that of images scaled to [0, 1]"
            if isinstance(data.test[name], np.ndarray):
                seen, tested = ([image.tobytes() for image in split[name]] for split in (data.train, data.test))
                both = len(set(seen) & set(tested))
                assert both <= len(tested) / 100, f"{both} of {len(tested)} test images are among the training images"
    for name, field in spec.targets.items():
        column = data.test[name]
        if field.kind == "value" and not isinstance(column, Lazy):
            values = column.values if isinstance(column, Ragged) else column
            assert np.isfinite(values).all(), f"'{name}' holds values that are not finite"
    again = build_data(entry)
    assert again.fingerprint == data.fingerprint, "built again, it is other data: its random numbers need a fixed seed"
