"""Parameter groups."""

from __future__ import annotations

from torch import nn

from dlframe.learner import parameter_groups


def test_decay_skips_norms_and_biases():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    decayed, spared = parameter_groups(network, lr=0.1, decay="weights")
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1, 1]
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed
    (everything,) = parameter_groups(network, lr=0.1, decay="all")
    assert len(everything["params"]) == 6


def test_a_network_may_scale_its_own_rates():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)

        def parameter_groups(self) -> list[dict]:
            return [
                {"params": list(self.body.parameters()), "lr_scale": 0.1},
                {"params": list(self.head.parameters()), "lr_scale": 1.0},
            ]

    groups = parameter_groups(Two(), lr=1.0, decay="weights")
    assert [(g["lr"], len(g["params"]), g.get("weight_decay")) for g in groups] == [(0.1, 1, None), (1, 1, None), (1, 1, 0)]
