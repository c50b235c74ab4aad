"""Average precision from columns of predictions, against the matching of images without each group."""

import numpy as np
import pytest

from dlframe.statistics import detection
from dlframe.statistics.comparison.boxes import FACTS, VOCABULARY, values
from dlframe.statistics.comparison.predicted import Form
from dlframe.types import Ragged

RANDOM = np.random.default_rng(3)
IMAGES = 12


def ragged(counts, *rows):
    offsets = np.r_[0, np.cumsum(counts)].astype(np.int64)
    return [Ragged(row, offsets) for row in rows]


def boxes(count):
    corner = RANDOM.uniform(0, 60, (count, 2))
    return np.c_[corner, corner + RANDOM.uniform(10, 60, (count, 2))]


SAID = RANDOM.integers(0, 4, IMAGES)
TRUE = boxes(SAID.sum())
HEARD = np.r_[SAID[:-1], 2]
FOUND = np.r_[TRUE[: SAID[:-1].sum()] + RANDOM.normal(0, 3, (SAID[:-1].sum(), 4)), boxes(2)]
(TARGET, TARGET_BOX, CROWD) = ragged(SAID, RANDOM.integers(5, 8, len(TRUE)), TRUE, (RANDOM.random(len(TRUE)) < 0.1) * 1.0)
(PREDICTION, SCORE, BOX) = ragged(HEARD, RANDOM.integers(5, 9, len(FOUND)), RANDOM.random(len(FOUND)), FOUND)
COLUMNS = {"target": TARGET, "prediction": PREDICTION, "score": SCORE, "box": BOX, "target_box": TARGET_BOX}
COLUMNS |= {"target_crowd": CROWD, VOCABULARY: [f"class {i}" for i in range(9)]}
GROUPS = np.arange(IMAGES) // 3


def of_images(metric: str, images: np.ndarray) -> float:
    """The metric of some images alone."""
    said, heard = (np.repeat(np.arange(IMAGES), counts) for counts in (SAID, HEARD))
    true, found = np.isin(said, images), np.isin(heard, images)
    crowd = CROWD.values[true] > 0
    objects = detection.Objects(
        box=TRUE[true],
        label=TARGET.values[true],
        image=said[true],
        ignored=crowd,
        many=crowd,
        crowd=crowd,
        area=(TRUE[true][:, 2:] - TRUE[true][:, :2]).prod(1),
    )
    rows = detection.Detections(box=FOUND[found], label=PREDICTION.values[found], image=heard[found], score=SCORE.values[found])
    return detection.summary(detection.match(rows, objects, classes=9, images=IMAGES), [metric])[metric]


@pytest.mark.parametrize("metric", ["ap", "ap50", "ar_10"])
def test_each_group_is_left_out(metric):
    value, deleted = Form("detection", {"metric": metric}).values(COLUMNS, GROUPS)
    assert value == pytest.approx(of_images(metric, np.arange(IMAGES)))
    assert 0 < value < 1
    np.testing.assert_allclose(deleted, [of_images(metric, np.flatnonzero(group != GROUPS)) for group in range(4)])


def test_difficulties_of_kitti():
    everything = {**COLUMNS, **{name: Ragged(np.zeros(len(TRUE)), TARGET.offsets) for name in FACTS[3:]}}
    value, deleted = values(everything, GROUPS, {"metric": "ap_moderate"})
    assert 0 < value < 1
    hidden = {**everything, "target_occlusion": Ragged(np.full(len(TRUE), 3.0), TARGET.offsets)}
    assert np.isnan(values(hidden, GROUPS, {"metric": "ap_moderate"})[0])
    assert len(deleted) == 4


def test_mistakes():
    with pytest.raises(ValueError, match=r"no such metric of detections\. Received: 'map'"):
        values(COLUMNS, GROUPS, {"metric": "map"})
    with pytest.raises(ValueError, match="as many classes as boxes"):
        values({**COLUMNS, "box": TARGET_BOX}, GROUPS, {"metric": "ap"})
    with pytest.raises(ValueError, match="must be finite"):
        values({**COLUMNS, "score": Ragged(SCORE.values * np.nan, SCORE.offsets)}, GROUPS, {"metric": "ap"})
    with pytest.raises(KeyError, match="score"):
        values({"target": TARGET, "prediction": PREDICTION}, GROUPS, {"metric": "ap"})
