"""Callbacks in a Trainer whose module steps its optimizers itself, several times a batch."""

import copy
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlframe.config import load
from dlframe.registry import callbacks
from dlframe.registry.plugins import discover
from dlframe.types import ConfigError

discover()
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
STEPS = 3

# Of Lightning, not of the callbacks: its use of a deprecated class of torch, and its advice on loaders.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Classifier(LightningModule):
    """Logistic regression on digits; `values` are what it says the metric of each epoch is."""

    def __init__(self, values=()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.network = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))
        self.monitor, self.mode = "val/accuracy", "max"
        self.values = values
        self.weights: list[torch.Tensor] = []
        self.statistics: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []
        self.resumed: list[torch.Tensor] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_train_epoch_start(self) -> None:
        self.resumed.append(self.network[0].weight.detach().clone())

    def training_step(self, batch, batch_idx):
        for _ in range(STEPS):
            optimizer = self.optimizers()
            loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.weights.append(self.network[0].weight.detach().clone())
            self.statistics.append(self.network[1].running_mean.clone())

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.network[0].weight.detach().clone())

    def on_validation_epoch_end(self) -> None:
        self.kept = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        epoch = self.current_epoch
        self.log_dict({"val/accuracy": self.values[epoch] if self.values else 0.5, "val/loss": 1.0 - epoch / 10})


@pytest.fixture(scope="module")
def digits() -> DataLoader:
    inputs, targets = load_digits(return_X_y=True)
    tensors = torch.tensor(inputs[:128], dtype=torch.float32) / 16, torch.tensor(targets[:128])
    return DataLoader(TensorDataset(*tensors), batch_size=64)


def fit(module: Classifier, callback, digits, epochs: int) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        limit_val_batches=1,
        log_every_n_steps=1,
    )
    trainer.fit(module, digits, digits)
    return trainer


def test_early_stopping_follows_the_learners_metric(digits):
    module = Classifier([0.5, 0.7, 0.6, 0.7, 0.9])
    trainer = fit(module, callbacks.build({"name": "early_stopping", "patience": 2}), digits, 5)
    assert trainer.current_epoch == 4
    assert trainer.early_stopping_callback.best_score.item() == pytest.approx(0.7)


def test_early_stopping_lets_improvement_pass(digits):
    trainer = fit(Classifier([0.5, 0.7, 0.6, 0.8, 0.75]), callbacks.build({"name": "early_stopping", "patience": 2}), digits, 5)
    assert trainer.current_epoch == 5


@pytest.mark.parametrize(
    ("options", "epochs"), [({}, 5), ({"min_delta": 0.2}, 2), ({"mode": "max"}, 2), ({"monitor": None}, 2)]
)
def test_early_stopping_on_another_metric(options, epochs, digits):
    config = {"name": "early_stopping", "monitor": "val/loss", "patience": 1, **options}
    assert fit(Classifier(), callbacks.build(config), digits, 5).current_epoch == epochs


def test_early_stopping_stops_where_the_metric_is_not_finite(digits):
    trainer = fit(Classifier([0.5, float("nan"), 0.6]), callbacks.build({"name": "early_stopping"}), digits, 3)
    assert trainer.current_epoch == 2


def average(tensors: list[torch.Tensor], start: torch.Tensor, decay: float) -> torch.Tensor:
    for step, tensor in enumerate(tensors, 1):
        share = min(decay, (1 + step) / (10 + step))
        start = share * start + (1 - share) * tensor
    return start


def test_ema_validates_and_keeps_the_average_of_every_optimizer_step(digits):
    module = Classifier()
    first = module.network[0].weight.detach().clone()
    fit(module, callbacks.build({"name": "ema", "decay": 0.4}), digits, 2)
    per_epoch = STEPS * len(digits)
    assert len(module.weights) == 2 * per_epoch
    assert torch.equal(module.validated[0], first)  # the sanity check, before any step
    for epoch in (1, 2):
        expected = average(module.weights[: epoch * per_epoch], first, 0.4)
        assert torch.allclose(module.validated[epoch], expected, atol=1e-6)
        assert not torch.allclose(expected, module.weights[epoch * per_epoch - 1], atol=1e-3)
    assert torch.allclose(module.kept["0.weight"], expected, atol=1e-6)
    assert torch.allclose(module.kept["1.running_mean"], average(module.statistics, torch.zeros(10), 0.4), atol=1e-5)
    assert module.kept["1.num_batches_tracked"] == 2 * per_epoch


def test_ema_leaves_training_as_it_is(digits):
    plain, averaged = Classifier(), Classifier()
    fit(plain, callbacks.build({"name": "early_stopping"}), digits, 2)
    fit(averaged, callbacks.build({"name": "ema"}), digits, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, averaged.weights, strict=True))
    assert torch.equal(averaged.network[0].weight, plain.network[0].weight)


def test_ema_goes_on_from_its_saved_state(digits):
    whole = Classifier()
    fit(whole, callbacks.build({"name": "ema", "decay": 0.9}), digits, 2)
    module, callback = Classifier(), callbacks.build({"name": "ema", "decay": 0.9})
    fit(module, callback, digits, 1)
    state = callback.state_dict()
    resumed = callbacks.build({"name": "ema", "decay": 0.9})
    resumed.load_state_dict({"steps": state["steps"], "averages": {k: v.clone() for k, v in state["averages"].items()}})
    fit(module, resumed, digits, 1)
    assert torch.equal(module.validated[-1], whole.validated[-1])


def test_look_ahead_restarts_from_slow_weights():
    """Every third step, the slow weights keep a fraction that grows, and the trained ones start again from them."""
    module = nn.Linear(2, 1, bias=False)
    value = slow = module.weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = SimpleNamespace(total_steps=lambda epochs, processes: 6 * epochs * processes)
    trainer: Any = SimpleNamespace(optimizers=[optimizer], train_dataloader=loader, max_epochs=2, world_size=1)
    callback: Any = callbacks.build({"name": "look_ahead", "every": 3, "decay": 0.8, "power": 2})
    callback.on_train_start(trainer, module)
    for step in range(1, 13):
        module.weight.grad = gradient = torch.tensor([[1.0, step]])
        optimizer.step()
        value = value - 0.1 * gradient
        if step % 3 == 0:
            kept = 0.8 * (step / 12) ** 2
            value = slow = kept * slow + (1 - kept) * value
        assert torch.allclose(module.weight, value, atol=1e-6)
    module.weight.data += 1
    callback.on_validation_start(trainer, module)
    assert torch.allclose(module.weight, slow, atol=1e-6), "the slow weights are validated"
    callback.on_validation_end(trainer, module)
    assert torch.allclose(module.weight, slow + 1, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "every", "chosen"), [(0.5, 1, [5, 6, 7, 8, 9, 10]), (0.5, 2, [5, 7, 9]), (0, 3, [1, 4, 7, 10])]
)
def test_swa_validates_the_mean_of_the_last_weights_and_goes_on_from_its_state(start, every, chosen):
    """Against a loop that keeps all weights; saved and loaded after each step, the numbers are the same."""
    loader = SimpleNamespace(total_steps=lambda epochs, processes: 10)
    torch.manual_seed(0)
    module = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    trainer: Any = SimpleNamespace(optimizers=[optimizer], train_dataloader=loader, max_epochs=1, world_size=1)
    whole = callbacks.build({"name": "swa", "start": start, "every": every})
    whole.on_train_start(trainer, module)
    resumed, kept = callbacks.build({"name": "swa", "start": start, "every": every}), {}
    for step in range(1, 11):
        again = callbacks.build({"name": "swa", "start": start, "every": every})
        if step > 1:
            again.load_state_dict(copy.deepcopy(resumed.state_dict()))
        again.on_train_start(trainer, module)
        resumed = again
        module(torch.rand(4, 3)).sum().backward()
        optimizer.step()
        again.on_train_end(trainer, module)
        kept[step] = module.weight.detach().clone()
        whole.on_validation_start(trainer, module)
        seen = [kept[i] for i in chosen if i <= step]
        expected = torch.stack(seen).mean(0) if seen else kept[step]
        torch.testing.assert_close(module.weight.detach(), expected)
        whole.on_validation_end(trainer, module)
        assert torch.equal(module.weight.detach(), kept[step])
        assert resumed.averaged == whole.averaged == len(seen)
        assert torch.equal(resumed.averages["weight"], whole.averages["weight"])


@pytest.mark.parametrize("option", ["callback.swa.start=2", "callback.swa.every=0", "callback.swa.begin=0.5"])
def test_swa_refuses_what_it_does_not_know(option):
    with pytest.raises(ConfigError, match=r"^callback\.swa\."):
        load(["model=mlp", "callback=[swa]", option])
