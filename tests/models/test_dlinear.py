import matplotlib.cbook
import numpy as np
import pytest
import torch
from tests.samples import series_spec

from dlframe.registry import models, plugins

plugins.discover()


@pytest.fixture(scope="module")
def prices() -> np.ndarray:
    """Daily prices of a share."""
    with matplotlib.cbook.get_sample_data("goog.npz") as file:
        return file["price_data"]["adj_close"].astype(np.float32)


def test_starts_with_no_change(prices):
    model = models.build({"name": "dlinear"}, spec=series_spec("prices", (60, 1), horizon=5))
    assert torch.equal(model(torch.from_numpy(prices[:60]).view(1, 60, 1)), torch.zeros(1, 5))


@pytest.mark.parametrize("kernel", [1, 4, 25, 90])
def test_the_trend_is_a_moving_average_and_the_remainder_the_rest(prices, kernel):
    window = prices[:60]
    model = models.build({"name": "dlinear", "kernel_size": kernel}, spec=series_spec("", (60, 1), horizon=60))
    padded = np.pad(window, ((kernel - 1) // 2, kernel // 2), mode="edge")
    trend = np.convolve(padded, np.ones(kernel) / kernel, mode="valid")
    for layer, expected in ((model.trend, trend), (model.remainder, window - trend)):
        torch.nn.init.eye_(layer.weight)
        forecast = model(torch.from_numpy(window).view(1, 60, 1)).detach().numpy()[0]
        np.testing.assert_allclose(forecast, expected, rtol=1e-4, atol=1e-3)
        torch.nn.init.zeros_(layer.weight)


def test_reproduces_a_linear_trend():
    """Fitted to lines, it continues lines of other slopes."""
    spec = series_spec("lines", (20, 1), horizon=5)
    model = models.build({"name": "dlinear", "kernel_size": 7}, spec=spec)
    time = torch.arange(-19, 6).float() / 20
    lines = torch.tensor([-1.0, -0.3, 0.0, 0.6, 1.0])[:, None] * time
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(lines[:, :20, None]), lines[:, 20:])
        loss.backward()
        return loss

    optimizer.step(closure)
    steep = 4 * time[None]
    torch.testing.assert_close(model(steep[:, :20, None]), steep[:, 20:], rtol=0, atol=0.01)
