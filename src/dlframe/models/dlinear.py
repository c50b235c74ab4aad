"""Linear forecasting models."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Count, models
from dlframe.types import DataSpec


@models.register(
    "dlinear",
    inputs=("series",),
    targets=("value",),
    exempt={"varies": "all weights start at zero: the first forecast is the baseline"},
    search={"kernel_size": "choice(5,15,25,35)"},
)
class DLinear(nn.Module):
    """Linear forecasts of a window's trend and remainder.

    Zeng et al. 2022 (arXiv 2205.13504): the trend is a moving average, padded with the first and the last value. Two
    differences from the paper: every feature of the window contributes to the forecast series, and all weights start at
    zero, so that the first forecast is the naive baseline.

    Args:
        kernel_size: Time steps of the moving average.
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
        """Return future values (batch, horizon) of windows (batch, time, features)."""
        series = series.transpose(1, 2)
        padded = functional.pad(series, ((self.kernel_size - 1) // 2, self.kernel_size // 2), mode="replicate")
        trend = functional.avg_pool1d(padded, self.kernel_size, stride=1)  # (batch, features, time)
        return self.trend(trend.flatten(1)) + self.remainder((series - trend).flatten(1))
