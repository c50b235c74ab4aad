"""Particulars of the optimizers: the arithmetic of a step, parameter groups, what is fused."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from dlframe.registry import optimizers
from dlframe.registry.plugins import discover
from dlframe.types import ConfigError

discover()
NAMES = [entry.name for entry in optimizers if entry.origin == "dlframe"]


@pytest.fixture(scope="module")
def digits():
    inputs, targets = load_digits(return_X_y=True)
    return torch.tensor(inputs[:256], dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(targets[:256])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )


def groups(model: nn.Module) -> list[dict]:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, digits, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(digits[0]), digits[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


IN_OWN_UNITS = ("decoupled_sgd",)
"""Optimizers whose rate is that of a sum over a large batch, divided within."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IN_OWN_UNITS])
def test_defaults_lower_the_loss_of_a_conv_net(name, digits):
    model = network()
    losses = train(model, optimizers.build({"name": name}, params=groups(model)), digits, 30)
    assert losses[-1] < losses[0] - 0.03


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IN_OWN_UNITS])
def test_a_groups_own_rate_and_decay_win(name):
    weight, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    params = [{"params": [weight], "lr": 0.25, "weight_decay": 0.5}, {"params": [bias]}]
    optimizer = optimizers.build({"name": name, "lr": 0.125, "weight_decay": 0.0625}, params=params)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.25, 0.5), (0.125, 0.0625)]


@pytest.mark.parametrize("name", NAMES)
def test_continues_from_its_saved_state(name, digits):
    model = network()
    optimizer = optimizers.build({"name": name}, params=groups(model))
    train(model, optimizer, digits, 3)
    twin = network()
    twin.load_state_dict(model.state_dict())
    resumed = optimizers.build({"name": name}, params=groups(twin))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(twin, resumed, digits, 3) == train(model, optimizer, digits, 3)


def test_sgd_by_hand():
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = optimizers.build({"name": "sgd", "lr": 0.1, "momentum": 0.5, "nesterov": False}, params=[{"params": [weight]}])
    for gradient, expected in ((1.0, 2.0 - 0.1 * 1.0), (1.0, 1.9 - 0.1 * 1.5), (-2.0, 1.75 - 0.1 * -1.25)):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        assert weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"momentum": 0.0}, {"dampening": 0.5}])
def test_sgd_looks_ahead_only_where_it_can(options):
    optimizer = optimizers.build({"name": "sgd", **options}, params=[{"params": [nn.Parameter(torch.ones(2))]}])
    assert optimizer.defaults["nesterov"] is False


def test_adamw_takes_the_decay_from_the_weight_and_adam_adds_it_to_the_gradient():
    moved = {}
    for name in ("adam", "adamw"):
        weight = nn.Parameter(torch.tensor([2.0]))
        optimizer = optimizers.build({"name": name, "lr": 0.1, "weight_decay": 0.5}, params=[{"params": [weight]}])
        weight.grad = torch.tensor([3.0])
        optimizer.step()
        moved[name] = weight.item()
    # Adam's first step is the sign of the gradient times the rate.
    assert moved == {"adam": pytest.approx(2.0 - 0.1), "adamw": pytest.approx(2.0 - 0.1 * 0.5 * 2.0 - 0.1)}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "adagrad"])
def test_fused_and_unfused_agree(name, digits):
    model, plain = network(), network()
    fused = optimizers.build({"name": name}, params=groups(model))
    unfused = optimizers.build({"name": name}, params=groups(plain))
    assert all(group["fused"] is True for group in fused.param_groups)
    for group in unfused.param_groups:
        group["fused"] = False
    assert train(model, fused, digits, 5) == pytest.approx(train(plain, unfused, digits, 5), rel=1e-4)


def test_not_fused_where_torch_has_no_kernel():
    weight = nn.Parameter(torch.ones(2, device="meta"))
    assert optimizers.build({"name": "adamw"}, params=[{"params": [weight]}]).defaults["fused"] is False


def test_muon_orthogonalises_matrices_and_moves_the_rest_by_adam():
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.zeros(8, 16)), nn.Parameter(torch.zeros(8))
    optimizer = optimizers.build(
        {"name": "muon", "lr": 0.1, "nesterov": False, "weight_decay": 0.0}, params=[{"params": [weight, bias]}]
    )
    weight.grad, bias.grad = torch.randn(8, 16), torch.randn(8)
    optimizer.step()
    # Scaled to AdamW's size: 0.2 times the root of the longer side times an orthogonal matrix.
    values = torch.linalg.svdvals(weight.detach()) / (0.1 * 0.2 * 16**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert torch.allclose(bias, -0.1 * bias.grad.sign(), atol=1e-4)


@pytest.mark.parametrize("name", ["nadam", "radam"])
def test_decoupled_decay_is_a_share_of_the_weight(name):
    moved = {}
    for weight_decay in (0.0, 0.5):
        weight = nn.Parameter(torch.full((4, 4), 2.0))
        config = {"name": name, "lr": 0.1, "weight_decay": weight_decay, "decoupled_weight_decay": True}
        optimizer = optimizers.build(config, params=[{"params": [weight]}])
        weight.grad = torch.ones(4, 4)
        optimizer.step()
        moved[weight_decay] = weight.mean().item()
    assert moved[0.0] - moved[0.5] == pytest.approx(0.1 * 0.5 * 2.0, rel=1e-4)


def test_a_combination_that_the_class_refuses_is_told_in_its_words():
    with pytest.raises(ConfigError) as error:
        optimizers.build({"name": "lars", "nesterov": True, "momentum": 0.0}, params=[])
    assert str(error.value).startswith("optimizer=lars: timm.optim:Lars: Nesterov momentum requires a momentum")
    assert error.value.key == "optimizer"


def test_a_rate_outside_its_range_is_refused():
    with pytest.raises(ConfigError) as error:
        optimizers.build({"name": "adamw", "lr": 0}, params=[])
    assert str(error.value) == "optimizer.lr: must be float > 0. Received: 0."
