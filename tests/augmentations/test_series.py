"""Noise, scales and warps of windows, against what they must be one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.samples import batch_of

from dlframe.config import load
from dlframe.contracts.samples import prices
from dlframe.registry import augmentations
from dlframe.registry.plugins import discover
from dlframe.types import Batch, ConfigError, DataSpec, Ragged

discover()


def given(known: bool = False, *, count: int = 16) -> tuple[DataSpec, Batch]:
    """Windows of prices, with four columns known in advance beside them if asked for."""
    data = prices()
    spec, batch = data.spec, batch_of(data.train, data.spec, count)
    if not known:
        return spec, batch
    field = spec.inputs["window"]
    fitted = {"series": {"calendar": ["month"]}}
    spec = replace(spec, inputs={"window": replace(field, shape=(field.shape[0], 5), mean=(), std=())}, fitted=fitted)
    calendar = torch.rand((*batch["window"].shape[:2], 4), generator=torch.Generator().manual_seed(1))
    return spec, Batch({**batch.columns, "window": torch.cat([batch["window"], calendar], 2)}, batch.index, spec)


def augmented(name: str, spec: DataSpec, batch: Batch, *, seed: int = 0, **options) -> np.ndarray:
    built = augmentations.build({"name": name, **options}, spec=spec)
    return built(batch, torch.Generator().manual_seed(seed))["window"].numpy()


@pytest.mark.parametrize("name", ["jitter", "window_warp"])
def test_what_is_known_in_advance_and_the_last_step_stay(name):
    spec, batch = given(known=True)
    before, after = batch["window"].numpy(), augmented(name, spec, batch)
    assert np.array_equal(after[:, :, 1:], before[:, :, 1:])
    assert np.array_equal(after[:, -1], before[:, -1])
    assert not np.array_equal(after[:, :-1, 0], before[:, :-1, 0])


def test_noise_is_measured_in_deviations_of_the_window():
    spec, batch = given()
    before = batch["window"].numpy().astype(np.float64)
    noise = (augmented("jitter", spec, batch, sigma=0.2) - before)[:, :-1, 0] / before[:, :, 0].std(1)[:, None]
    assert noise.std() == pytest.approx(0.2, rel=0.1)
    assert abs(noise.mean()) < 0.03
    flat = batch.replace(window=torch.full_like(batch["window"], 3))
    assert (augmented("jitter", spec, flat) == 3).all(), "a constant window stays constant"


def test_columns_are_scaled_from_the_mean_of_the_training_rows():
    spec, batch = given()
    mean = spec.inputs["window"].mean[0]
    before = batch["window"].numpy().astype(np.float64) - mean
    factors = (augmented("scaling", spec, batch, sigma=0.2) - mean) / before
    assert np.ptp(factors, 1).max() < 1e-3, "one factor for a window"
    assert 0.05 < factors[:, 0, 0].std() < 0.4


@pytest.mark.parametrize("name", ["jitter", "scaling", "window_warp"])
def test_windows_are_drawn_with_their_probability(name):
    spec, batch = given()
    before = batch["window"].numpy()
    assert np.array_equal(augmented(name, spec, batch, p=0.0), before)
    changed = (augmented(name, spec, batch, p=0.5) != before).any((1, 2))
    assert 2 <= changed.sum() <= 14


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_part_of_the_time_is_stretched(factor):
    """Of a straight line, the values are the places themselves: two slopes, one of them of as many steps as the part has."""
    spec, batch = given()
    ramp = torch.arange(60.0)[None, :, None].expand(batch["window"].shape)
    places = augmented("window_warp", spec, batch.replace(window=ramp.clone()), length=0.25, factors=[factor])[:, :, 0]
    width = 0.25 * 59
    pace = (59 - width + width * factor) / 59  # source steps that a step of the rest goes on
    assert (places[:, 0] == 0).all()
    assert (places[:, -1] == 59).all()
    steps = np.diff(places, axis=1)
    assert (steps > 0).all()
    inside = np.isclose(steps, pace / factor, atol=1e-4)
    outside = np.isclose(steps, pace, atol=1e-4)
    assert ((~inside & ~outside).sum(1) <= 2).all(), "a step may be of both"
    assert np.abs(inside.sum(1) - width * factor / pace).max() <= 2
    assert np.unique(inside.argmax(1)).size > 3, "at a random place"


def test_what_cannot_be_augmented_is_refused():
    spec, batch = given()
    ragged = batch.replace(window=Ragged(batch["window"].flatten(0, 1), torch.arange(0, 961, 60)))
    with pytest.raises(ConfigError, match="'window' must have windows of one length"):
        augmented("jitter", spec, ragged)
    with pytest.raises(ConfigError, match="factors: must be one number at least"):
        augmented("window_warp", spec, batch, factors=[])
    with pytest.raises(
        ConfigError, match=r"takes class or event targets.*Data that fit: anomaly_series, internal_bleeding, plan"
    ):
        load(["task=forecasting", "augmentation=[scaling]"])
