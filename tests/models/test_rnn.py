import pytest
import torch
from sklearn.datasets import load_digits
from tests.samples import image_spec, series_spec

from dlframe.registry import models, plugins

plugins.discover()
DIGITS = image_spec("digits", (1, 8, 8), tuple("0123456789"))


def images(count: int = 8) -> torch.Tensor:
    return torch.from_numpy(load_digits().images[:count, None]).float() / 8 - 1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("depth", [1, 2])
def test_bidirectional_doubles_the_features(cell, depth):
    for bidirectional, features in ((False, 24), (True, 48)):
        options = {"cell_type": cell, "depth": depth, "width": 24, "bidirectional": bidirectional, "dropout": 0.1}
        model = models.build({"name": "rnn", **options}, spec=DIGITS)
        assert model.head.in_features == features
        assert model(images()).shape == (8, 10)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_second_direction_reads_from_the_bottom_up(cell):
    reader = models.build({"name": "rnn", "cell_type": cell, "width": 16, "bidirectional": True}, spec=DIGITS).reader
    state = reader.layers.state_dict()
    reader.layers.load_state_dict({name: state[name.removesuffix("_reverse")] for name in state})
    rows = images()[:, 0]
    down, up = reader(rows).split(16, 1)
    assert not torch.equal(down, up)
    torch.testing.assert_close(reader(rows.flip(1)), torch.cat([up, down], 1))


def test_forget_gates_start_open_and_recurrent_gates_orthogonal():
    layers = models.build({"name": "rnn", "width": 16}, spec=DIGITS).reader.layers
    bias = (layers.bias_ih_l0 + layers.bias_hh_l0).detach()
    assert bias.view(4, 16).tolist() == [[0.0] * 16, [1.0] * 16, [0.0] * 16, [0.0] * 16]  # input, forget, cell, output
    for gate in layers.weight_hh_l0.detach().split(16):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)


def test_lstm_gives_every_step_of_the_horizon_from_every_feature():
    spec = series_spec("prices", (20, 5), horizon=7)
    model = models.build({"name": "lstm", "depth": 2, "dropout": 0.1}, spec=spec)
    series = torch.randn(3, 20, 5, requires_grad=True)
    forecast = model(series)
    assert forecast.shape == (3, 7)
    (gradient,) = torch.autograd.grad(forecast.sum(), series)
    assert (gradient != 0).all()
