"""The network for CIFAR-10: its first layer, its start, and the recipe around it, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.samples import image_spec
from torch.nn import functional

from dlframe.config import load
from dlframe.jobs.train import load_data, run
from dlframe.models.airbench import whitening_filters
from dlframe.registry import augmentations, models, optimizers, tasks
from dlframe.registry.plugins import discover
from dlframe.types import Batch, ConfigError

discover()
SPEC = image_spec("colors", (3, 16, 16), ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3)


def images(count: int = 64) -> torch.Tensor:
    """Images whose neighboring pixels are alike."""
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(noise, (16, 16), mode="bilinear") + 0.3


def test_the_first_layer_whitens_patches():
    """Its outputs on the patches are uncorrelated, of a variance of 1 less what was added; the others are their negatives."""
    shown = images()
    filters = whitening_filters(shown)
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[12:], -filters[:12])
    out = functional.conv2d(shown, filters[:12]).permute(1, 0, 2, 3).flatten(1).double()
    moments = (out @ out.T / out.shape[1]).numpy()
    patches = np.lib.stride_tricks.sliding_window_view(shown.numpy(), (2, 2), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    flat = patches.reshape(-1, 12).astype(np.float64)
    variances = np.linalg.eigvalsh(flat.T @ flat / len(flat))[::-1]
    assert moments == pytest.approx(np.diag(variances / (variances + 5e-4)), abs=2e-3)


def test_the_network_starts_as_the_identity():
    model: Any = models.build({"name": "airbench", "width": 24}, spec=SPEC)
    features = torch.rand(2, 24, 7, 7)
    assert torch.allclose(model.groups[0].first(features), features, atol=1e-6)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    norms, others = model.parameter_groups()
    assert (norms["lr_scale"], others["lr_scale"]) == (64.0, 1.0)
    assert len(norms["params"]) == 6
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for group in (norms, others) for p in group["params"]) == trained


def test_the_task_fits_the_first_layer_to_training_images():
    dataset = load_data(load(["data=digits"]))
    found = {}
    for whitening in ("patches", "none"):
        torch.manual_seed(0)
        model = models.build({"name": "airbench", "width": 4, "whitening": whitening}, spec=dataset.spec)
        before = model.whiten.detach().clone()
        task: Any = tasks.build({"name": "classification"}, spec=dataset.spec, model=model)
        task.prepare(dataset.train)
        pixels = torch.from_numpy(dataset.train["image"]).float() / 255
        wanted = whitening_filters((pixels - dataset.spec.input.mean[0]) / dataset.spec.input.std[0])
        found[whitening] = torch.allclose(model.whiten, wanted, atol=1e-4), torch.equal(model.whiten, before)
    assert found == {"patches": (True, False), "none": (False, True)}


def test_logits_of_flipped_and_moved_images():
    task: Any = tasks.build(
        {"name": "classification", "test_time": "flip_translate"},
        spec=SPEC,
        model=models.build({"name": "airbench", "width": 4}, spec=SPEC),
    ).eval()
    batch = Batch({"image": images(4).sigmoid(), "label": torch.zeros(4, dtype=torch.int64)}, torch.arange(4), SPEC)
    shown = task.normalize(batch)
    padded = np.pad(shown.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    with torch.no_grad():
        parts = [shown, torch.from_numpy(padded[:, :, :16, :16]), torch.from_numpy(padded[:, :, 2:, 2:])]
        each = [(task.model(part) + task.model(part.flip(-1))) / 2 for part in parts]
        assert torch.allclose(task.logits(batch), each[0] / 2 + each[1] / 4 + each[2] / 4, atol=1e-5)
        task.test_time = "flip"
        assert torch.allclose(task.logits(batch), each[0], atol=1e-5)
        task.train()
        assert not torch.allclose(task.logits(batch), each[0], atol=1e-5), "training sees the image as it is"


def test_flips_at_test_time_need_images():
    columns = load_data(load(["task=fraud_detection", "data=synthetic_fraud"])).spec
    with pytest.raises(ConfigError, match=r"^task.test_time: 'flip' requires images. Received: synthetic_fraud"):
        tasks.build({"name": "classification", "test_time": "flip"}, spec=columns, model=torch.nn.Identity())


def test_alternating_flips_show_both_forms_in_two_epochs():
    flip: Any = augmentations.build({"name": "alternating_flip"}, spec=SPEC)
    batch = Batch({"image": images(256), "label": torch.zeros(256, dtype=torch.int64)}, torch.arange(256), SPEC)
    turned = []
    for epoch in range(4):
        flip.start_epoch(epoch, 4)
        shown = flip(batch, torch.Generator()).inputs
        turned.append((shown != batch.inputs).flatten(1).any(1))
        assert torch.equal(torch.where(turned[-1].view(-1, 1, 1, 1), batch.inputs.flip(3), batch.inputs), shown)
    assert torch.equal(turned[0], ~turned[1])
    assert torch.equal(turned[0], turned[2])
    assert torch.equal(turned[1], turned[3])
    assert 100 < turned[0].sum() < 156


def test_decoupled_sgd():
    """Against the formulas of the paper's program, whose loss is a sum over the batch."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5))
    start, size, momentum, lr, decay = weight.detach().clone(), 1024, 0.85, 11.5, 0.0153
    optimizer = optimizers.build(
        {"name": "decoupled_sgd", "lr": lr, "momentum": momentum, "weight_decay": decay}, params=[{"params": [weight]}]
    )
    kilostep = 1024 * (1 + 1 / (1 - momentum))
    rate, penalty = lr / kilostep, decay * size / kilostep / (lr / kilostep)
    value, velocity = start.clone(), None
    for step in range(4):
        gradient = torch.sin(torch.arange(5.0) + step) / size  # of the mean loss
        weight.grad = gradient.clone()
        optimizer.step()
        whole = gradient * size + penalty * value  # of the sum
        velocity = whole if velocity is None else momentum * velocity + whole
        value = value - rate * (whole + momentum * velocity)
        assert torch.allclose(weight, value, rtol=1e-5, atol=1e-6)


def test_the_recipe_trains(tmp_path):
    """The experiment on digits of 8 x 8 pixels, with a small network."""
    small = ["data=digits", "model.width=8", "epochs=6", "batch_size=64", "tracking=none", f"runs={tmp_path}"]
    result = run(load(["experiment=cifar10_airbench", *small, "optimizer.lr=3", "task.test_time=flip"]))
    assert result.metrics["accuracy"] > 0.4
