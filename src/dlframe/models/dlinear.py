"""Linear forecasts of trend and remainder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Count, models
from dlframe.types import DataSpec


@models.register(
    "dlinear",
    inputs=("series",),
    targets=("value",),
    exempt={"varies": "its weights start at zero: the first forecast is the baseline"},
)
class DLinear(nn.Module):
    """Trend and remainder of the window, each mapped linearly to the future.

    Zeng et al. 2022 (arXiv 2205.13504): the trend is a moving average, its ends padded with the first and the last value.
    It differs in that every feature of the window informs the one series that is forecast (with one feature it is the
    paper's), and in that its weights start at zero: the first forecast is no change, the baseline that it must beat.

    Args:
        kernel_size: Steps of the moving average that is called the trend.
    """

    def __init__(self, spec: DataSpec, *, kernel_size: Count = 25) -> None:
        super().__init__()
        time, features = spec.shape
        self.kernel_size = kernel_size
        self.trend = nn.Linear(time * features, spec.horizon)
        self.remainder = nn.Linear(time * features, spec.horizon, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, series: Tensor) -> Tensor:
        """Future values (batch, horizon) of windows (batch, time, features)."""
        series = series.transpose(1, 2)
        padded = functional.pad(series, ((self.kernel_size - 1) // 2, self.kernel_size // 2), mode="replicate")
        trend = functional.avg_pool1d(padded, self.kernel_size, stride=1)  # (batch, features, time)
        return self.trend(trend.flatten(1)) + self.remainder((series - trend).flatten(1))
