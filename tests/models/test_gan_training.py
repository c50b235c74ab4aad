"""What the semi-supervised GAN lowers, and how its images are judged."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.samples import batch_of
from torch import Tensor, nn
from torch.nn import functional

from dlframe.config import load
from dlframe.data.digits import digits
from dlframe.engine.fit import build_task, fit
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data
from dlframe.models.frechet import FeatureNetwork, frechet_distance
from dlframe.models.gan import unsupervised
from dlframe.registry import augmentations, models, plugins, tasks
from dlframe.runs.recorder import InMemoryRecorder
from dlframe.types import Batch

plugins.discover()
DATA = digits()


def build(label_smoothing: float = 0.0, **options):
    torch.manual_seed(0)
    model = models.build({"name": "gan", "width": 8, **options}, spec=DATA.spec)
    return tasks.build({"name": "classification", "label_smoothing": label_smoothing}, spec=DATA.spec, model=model)


def batch(count: int = 16, unlabeled: slice = slice(0, 0)) -> Batch:
    """Digits in [0, 1], some of them unlabeled."""
    labelled = torch.ones(count, dtype=torch.bool)
    labelled[unlabeled] = False
    raw = batch_of(DATA.train, DATA.spec, count)
    return build().features(dataclasses.replace(raw, labelled=labelled))


def loss(task, given: Batch, network: str) -> Tensor:
    """Of a batch that is a whole optimizer step."""
    return task.loss(given, network, {"samples": len(given), **task.counts(given)})


def normalized(task, images: Tensor) -> Tensor:
    return (images - task.model.mean) / task.model.std


@functools.cache
def features() -> FeatureNetwork:
    return FeatureNetwork(DATA.spec, DATA.validation)


# --- losses


def test_real_or_generated_is_a_softmax_with_one_class_more():
    torch.manual_seed(0)
    real, generated = 5 * torch.randn(7, 10), 5 * torch.randn(9, 10)
    fake = torch.cat([torch.cat([real, generated]), torch.zeros(16, 1)], 1).softmax(1)[:, 10]
    expected = -((1 - fake[:7]).log().mean() + fake[7:].log().mean()) / 2
    torch.testing.assert_close(unsupervised(real, generated), expected)


def test_real_or_generated_stays_finite():
    extreme = torch.tensor([[200.0, -200.0], [-200.0, -200.0]])
    for real, generated in (extreme[:1], extreme[1:]), (extreme[1:], extreme[:1]):
        assert unsupervised(real, generated).isfinite()
    assert unsupervised(extreme[:1], extreme[1:]) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_supervised_term_is_the_mean_over_the_labelled(smoothing):
    task, logits = build(label_smoothing=smoothing), torch.randn(16, 10)
    given = batch(unlabeled=slice(0, 16, 3))
    expected = functional.cross_entropy(logits[given.labelled], given.targets[given.labelled], label_smoothing=smoothing)
    torch.testing.assert_close(task.supervised(logits, given, given.labelled.sum()), expected)


def test_a_batch_without_labels_has_no_supervised_term_but_a_graph():
    task, logits = build(), torch.randn(16, 10, requires_grad=True)
    term = task.supervised(logits, batch(unlabeled=slice(None)), torch.tensor(0))
    assert term == 0
    (gradient,) = torch.autograd.grad(term, logits)
    assert not gradient.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_labels_count_by_their_shares(smoothing):
    """What is mixed from unlabelled samples alone counts nothing, what is half labelled counts half."""
    task = build(label_smoothing=smoothing)
    mixup = augmentations.build({"name": "mixup", "alpha": 1.0}, spec=DATA.spec)
    given = mixup(batch(unlabeled=slice(0, 10)), torch.Generator().manual_seed(0))
    mixed = given.targets
    share = mixed.sum(1)
    assert share.min() == 0
    assert ((share > 0) & (share < 0.999)).any()
    logits, known = torch.randn(16, 10), share > 0
    each = functional.cross_entropy(
        logits[known], mixed[known] / share[known, None], label_smoothing=smoothing, reduction="none"
    )
    torch.testing.assert_close(task.supervised(logits, given, 7), (each * share[known]).sum() / 7)


def test_the_discriminator_lowers_the_sum_of_both_terms():
    task, given = build(adversarial_weight=0.3).eval(), batch(unlabeled=slice(4, None))
    torch.manual_seed(1)
    lowered = loss(task, given, "discriminator")
    torch.manual_seed(1)
    real, generated = (task.model(normalized(task, images)) for images in (given.inputs, task.model.generate(16)))
    expected = functional.cross_entropy(real[:4], given.targets[:4]) + 0.3 * unsupervised(real, generated)
    torch.testing.assert_close(lowered, expected)


@pytest.mark.parametrize("generator_loss", ["feature_matching", "non_saturating"])
def test_what_the_generator_lowers(generator_loss):
    task, given = build(generator_loss=generator_loss).eval(), batch(unlabeled=slice(None))
    torch.manual_seed(1)
    lowered = loss(task, given, "generator")
    torch.manual_seed(1)
    real, generated = normalized(task, given.inputs), normalized(task, task.model.generate(16))
    if generator_loss == "feature_matching":
        means = [task.model.discriminator.features(images).mean(0) for images in (real, generated)]
        expected = (means[0] - means[1]).square().mean()
    else:
        mass = task.model(generated).exp().sum(1)
        expected = -(mass / (mass + 1)).log().mean()
    torch.testing.assert_close(lowered, expected)


@pytest.mark.parametrize("generator_loss", ["feature_matching", "non_saturating"])
def test_the_generator_learns_to_pass_for_real(generator_loss):
    """Against a discriminator that stands still."""
    task, given = build(generator_loss=generator_loss), batch(64)

    def real() -> Tensor:
        torch.manual_seed(1)
        with torch.no_grad():
            return task.model(normalized(task, task.model.generate(64))).logsumexp(1).sigmoid().mean()

    for network, steps in (("discriminator", 40), ("generator", 20)):
        before = real()
        optimizer = torch.optim.Adam(task.network(network).parameters(), 2e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(task, given, network).backward()
            optimizer.step()
    assert real() > before + 0.1


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_losses_in_double_precision(network):
    value = loss(build().double(), batch(), network)
    assert value.dtype == torch.float64
    assert value.isfinite()


# --- a run


def few_steps(tmp_path: Path, *overrides: str, steps: int = 3):
    """Some steps of the learner, and a task that has taken none."""
    config = load(["model=gan", "model.width=8", "optimizer=sgd", "optimizer.lr=0.05", "scheduler=constant", *overrides])
    config = load([*config.overrides, "epochs=1", f"trainer.limit_batches={steps}", "tracking=none", f"runs={tmp_path}"])
    data = load_data(config)
    fitted = fit(config, data, InMemoryRecorder(), tmp_path)
    return fitted.task, build_task(config, data), data


@pytest.mark.parametrize("labels", ["null", "2"])
def test_the_learner_moves_each_network_by_its_own_loss(tmp_path, labels):
    task, other, data = few_steps(tmp_path, f"labels_per_class={labels}", "networks.generator.lr=0.01")
    assert all(parameter.grad is None for parameter in task.parameters())
    assert all(parameter.requires_grad for parameter in task.parameters())

    other = other.to(memory_format=torch.channels_last).train()
    optimizers = {
        network: torch.optim.SGD(other.network(network).parameters(), lr, momentum=0.9, nesterov=True)
        for network, lr in (("discriminator", 0.05), ("generator", 0.01))
    }
    before = {name: value.clone() for name, value in other.state_dict().items()}
    order, context = Order(64, seed=0, limit=3), ProcessContext(torch.device("cpu"))
    for (step,) in BatchLoader(data.train, data.spec, order, context=lambda: context, memory_format=torch.channels_last):
        (given,) = map(other.features, step.batches)
        for network, optimizer in optimizers.items():
            parameters = list(other.network(network).parameters())
            gradients = torch.autograd.grad(loss(other, given, network), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    for name, value in other.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], value)
        assert not torch.equal(value, before[name]), name


def test_a_run_ends_with_images_and_distances(tmp_path):
    task, untrained, data = few_steps(tmp_path, "optimizer.lr=0.2", steps=17)
    scores = task.score(task.features(batch_of(data.test, data.spec)))
    figures = task.figures({name: value.detach() for name, value in scores.items()}, data)
    assert list(figures) == ["confusion_matrix", "reliability", "by_class", "samples", "generated"]
    state = torch.get_rng_state()
    found = task.final_metrics(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(found) == ["frechet_distance", "frechet_distance_real"]
    distance, real = (
        frechet_distance(features(), data.test["image"], x)
        for x in (task.model.samples(359), data.train["image"][np.linspace(0, 1077, 359).astype(int)])
    )
    assert found == pytest.approx({"frechet_distance": distance, "frechet_distance_real": real}, rel=1e-4)
    assert real < distance < frechet_distance(features(), data.test["image"], untrained.eval().model.samples(359))


def test_distances_can_be_compared_between_runs():
    """Neither the run's seed nor the labels that it leaves out change them."""
    task = build().eval()
    found = task.final_metrics(DATA)
    torch.manual_seed(5)
    again = task.final_metrics(load_data(load(["model=gan", "labels_per_class=1", "seed=3"])))
    assert again == pytest.approx(found, rel=1e-4)


# --- images and distances


def test_drawn_images_are_the_same_again():
    task = build().eval()
    images = task.model.samples(300)
    assert (images.shape, images.dtype) == ((300, 1, 8, 8), np.uint8)
    torch.manual_seed(7)
    assert np.array_equal(task.model.samples(300), images)
    assert len(np.unique(images.reshape(300, -1), axis=0)) == 300


class Same(nn.Module):
    num_features = 3

    def forward(self, samples: Tensor) -> Tensor:
        return samples


def test_the_distance_of_gaussians_has_a_closed_form():
    samples = np.random.default_rng(0).normal(size=(500, 3)) @ np.array([[2.0, 0.3, 0.1], [0, 1, 0.4], [0, 0, 0.5]])
    shift = np.array([1.0, -2.0, 0.5])
    mean, variance = samples.mean(0), np.trace(np.cov(samples.T))
    assert frechet_distance(Same(), samples, samples) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(Same(), samples, samples + shift) == pytest.approx(shift @ shift)
    assert frechet_distance(Same(), samples, 3 * samples) == pytest.approx(4 * mean @ mean + (1 + 9 - 2 * 3) * variance)
    assert frechet_distance(Same(), 3 * samples, samples) == pytest.approx(frechet_distance(Same(), samples, 3 * samples))


def test_the_distance_tells_digits_from_what_is_none():
    network = features()
    test, train = DATA.test["image"], DATA.train["image"][:359]
    near = frechet_distance(network, test, train)
    assert frechet_distance(network, test, test) == pytest.approx(0, abs=1e-3)
    assert frechet_distance(network, test, np.ascontiguousarray(train[:, :, ::-1])) > 5 * near
    assert frechet_distance(network, test, np.random.default_rng(0).integers(0, 256, test.shape, np.uint8)) > 20 * near
