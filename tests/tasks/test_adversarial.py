"""The semi-supervised GAN's losses and its Fréchet distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dlframe.config import load
from dlframe.data.digits import digits
from dlframe.models.gan import GAN, halvings
from dlframe.tasks.adversarial import Adversarial, unsupervised
from dlframe.types import UNLABELLED, Batch, DataSpec
from torch.nn import functional


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture
def task(data) -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(data.spec, GAN(data.spec, width=8, hidden=16, dropout=0.0))


def batch(data, n: int = 16) -> Batch:
    split = data.train.take(np.arange(n))
    return Batch(torch.from_numpy(split.inputs), torch.from_numpy(split.targets), torch.arange(n))


def test_unsupervised_is_the_softmax_with_one_more_class():
    real, generated = torch.randn(5, 4), torch.randn(5, 4)
    padded = [functional.pad(logits, (0, 1)).log_softmax(1) for logits in (real, generated)]
    explicit = -(padded[0][:, :4].logsumexp(1).mean() + padded[1][:, 4].mean()) / 2
    torch.testing.assert_close(unsupervised(real, generated), explicit)


def test_only_labelled_samples_are_supervised(task):
    logits, targets = torch.randn(6, 10), torch.tensor([1, 2, UNLABELLED, 3, UNLABELLED, 4])
    known = targets != UNLABELLED
    torch.testing.assert_close(task.supervised(logits, targets), functional.cross_entropy(logits[known], targets[known]))
    none = task.supervised(logits.requires_grad_(), torch.full((6,), UNLABELLED))
    none.backward()
    assert none == 0
    assert not logits.grad.any()


def test_mixed_labels_are_supervised_by_their_shares(task):
    logits = torch.randn(3, 10)
    targets = functional.one_hot(torch.tensor([1, 2, 3]), 10) * 0.5
    targets[:, 7] += 0.5
    torch.testing.assert_close(task.supervised(logits, targets), functional.cross_entropy(logits, targets))


@pytest.mark.parametrize("objective", ["feature_matching", "non_saturating"])
def test_each_player_is_moved_by_its_own_loss(data, objective):
    torch.manual_seed(0)
    task = Adversarial(data.spec, GAN(data.spec, width=8), objective=objective)
    for player, idle in (("discriminator", "generator"), ("generator", None)):
        task.zero_grad()
        task.loss(batch(data), player).backward()
        assert all(p.grad is not None for p in task.network(player).parameters() if player == "generator")
        assert any(p.grad.any() for p in task.network(player).parameters())
        if idle:
            assert all(p.grad is None for p in task.network(idle).parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 5), (1, 1, 1)])
def test_generated_images_have_the_shape_of_the_data(shape):
    spec = DataSpec("x", "image", "class", shape, ("a", "b"), mean=(0.5,) * shape[0], std=(0.5,) * shape[0])
    images = Adversarial(spec, GAN(spec, width=4)).generate(3)
    assert images.shape == (3, *shape)
    assert 0 <= images.min() <= images.max() <= 1


def test_the_halvings_ends_at_four_pixels():
    assert halvings(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert halvings(3, 9) == [(3, 9), (2, 5), (1, 3)]


def test_the_frechet_distance_tells_noise_from_digits(data, task):
    before = torch.random.get_rng_state()
    found = task.eval().finish(data)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found == task.finish(data)
    assert 0 <= found["frechet_distance_real"] < 10 < found["frechet_distance"]


def test_the_config_chooses_the_task_and_players_have_options():
    config = load(["model=gan", "players.generator.lr=1e-4", "task.adversarial_weight=2"])
    assert config.values["task"]["name"] == "adversarial"
    assert config.values["task"]["adversarial_weight"] == 2
    assert config.values["players"] == {"generator": {"lr": 1e-4}}
