"""Prediction of the next step of a series, whose error is an anomaly score."""

from __future__ import annotations

from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec


@models.register(
    "lstm_predictor",
    inputs=("series",),
    targets=("class", "event"),
    task="anomaly",
    unlabeled=True,
    sample={"name": "planted_events"},
    exempt={"overfits": "the noise of a step does not follow from those before it"},
    search={"width": "choice(16,32,64)", "depth": "range(1,3)"},
)
class LSTMPredictor(nn.Module):
    """LSTM that predicts each step of a window from those before it; the score is the error of the last step.

    Malhotra et al. 2015 ("Long short term memory networks for anomaly detection in time series"), with the squared error of one
    step, the mean over features, in place of a Gaussian of the errors of several. In training, all steps but the first are
    predicted.

    Args:
        width: Units of each layer.
        depth: Number of layers.
        dropout: Dropout probability between layers.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 32, depth: Count = 1, dropout: Probability = 0.0) -> None:
        super().__init__()
        window, features = spec.shape
        if window < 2:
            raise ConfigError(
                f"model=lstm_predictor: needs windows of 2 steps or more. Received: {window}. Try: data.window=50"
            )
        self.lstm = nn.LSTM(features, width, depth, batch_first=True, dropout=dropout if depth > 1 else 0.0)
        self.head = nn.Linear(width, features)

    def errors(self, windows: Tensor) -> Tensor:
        """Return the errors of all steps but the first, (batch, steps - 1), of normalized windows (batch, steps, features)."""
        hidden, _ = self.lstm(windows[:, :-1].contiguous())
        # A step is predicted as a change of the last one: a series without changes is predicted at once.
        return (windows[:, :-1] + self.head(hidden) - windows[:, 1:]).square().mean(2)

    def losses(self, windows: Tensor) -> Tensor:
        """Return the mean error of a window, (batch,)."""
        return self.errors(windows).mean(1)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the error of the last step, (batch,)."""
        return self.errors(windows)[:, -1]
