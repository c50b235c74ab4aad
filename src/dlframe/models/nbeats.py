"""N-BEATS."""

from __future__ import annotations

from torch import Tensor, nn

from dlframe.registry import Count, models
from dlframe.types import DataSpec


@models.register(
    "nbeats",
    inputs=("series",),
    targets=("value",),
    search={"width": "choice(64,128,256)", "blocks": "range(1,4)", "stacks": "range(1,4)"},
)
class NBeats(nn.Module):
    """N-BEATS with generic blocks.

    Oreshkin et al. 2020 (arXiv 1905.10437): each block is a network with ReLU that returns a backcast of its input and a
    forecast. A block sees what the backcasts of the blocks before it leave over, and the forecasts of all blocks are added
    up. The bases are learned: those of a generic block are linear layers. One difference from the paper: with several
    features, a block sees all of them.

    Args:
        stacks: Number of stacks.
        blocks: Blocks of a stack.
        layers: Fully connected layers of a block.
        width: Units of a layer.
        share_weights: Whether the blocks of a stack are one block, applied again.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        stacks: Count = 3,
        blocks: Count = 1,
        layers: Count = 2,
        width: Count = 128,
        share_weights: bool = False,
    ) -> None:
        super().__init__()
        time, features = spec.shape
        sizes = (time * features, spec.horizon, width, layers)
        self.repeats = blocks if share_weights else 1
        self.blocks = nn.ModuleList(
            # Nothing sees the backcast of the last block.
            Block(*sizes, backcast=i + 1 < count or self.repeats > 1)
            for count in [stacks * (1 if share_weights else blocks)]
            for i in range(count)
        )

    def forward(self, series: Tensor) -> Tensor:
        """Return future values (batch, horizon) of windows (batch, time, features)."""
        rest, forecast = series.flatten(1), 0
        for block in self.blocks:
            for _ in range(self.repeats):
                backcast, part = block(rest)
                rest, forecast = rest - backcast, forecast + part
        return forecast  # type: ignore[return-value]  # there is a block


class Block(nn.Module):
    """Generic block: backcast (batch, inputs) and forecast (batch, horizon) of (batch, inputs)."""

    def __init__(self, inputs: int, horizon: int, width: int, layers: int, *, backcast: bool) -> None:
        super().__init__()
        hidden = [(inputs, width), *[(width, width)] * (layers - 1)]
        self.layers = nn.Sequential(*(part for sizes in hidden for part in (nn.Linear(*sizes), nn.ReLU())))
        self.backcast = nn.Linear(width, inputs) if backcast else None
        self.forecast = nn.Linear(width, horizon)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        states = self.layers(values)
        backcast = self.backcast(states) if self.backcast else values.new_zeros(())
        return backcast, self.forecast(states)
