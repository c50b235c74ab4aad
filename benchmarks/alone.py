"""The textbook loop of the cnn, as its writer would run it: a process with torch alone, which imports nothing of dlframe.

Started by `steps.py`. Reads images and labels from a file of NumPy's; for each line of the standard input it trains an epoch
and answers with its wall-clock and processor seconds.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Textbook(nn.Module):
    """The default cnn as one writes it first: ReLU, then pooling; features flattened in NCHW order.

    Args:
        channels: Of the images, and of both convolutions.
        hidden: Inputs and outputs of the hidden layer.
        classes: Outputs.
        dropout: Probability before the last layer.
    """

    def __init__(self, channels: tuple[int, int, int], hidden: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.second = nn.Conv2d(channels[1], channels[2], 3, padding=1)
        self.hidden = nn.Linear(*hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden[1], classes)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.first(images))
        x = functional.max_pool2d(functional.relu(self.second(x)), 2)
        return self.head(self.dropout(functional.relu(self.hidden(x.flatten(1)))))


def main() -> None:
    file, steps, batch_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with np.load(file) as data:
        images, labels = (torch.from_numpy(data[name]) for name in ("images", "labels"))
        (mean,), (std,) = data["mean"], data["std"]
        channels, hidden, classes, dropout = (data[name].tolist() for name in ("channels", "hidden", "classes", "dropout"))
    model = Textbook(tuple(channels), tuple(hidden), classes, dropout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        for index in torch.randperm(len(images))[: steps * batch_size].split(batch_size):
            batch = (images[index].float() / 255 - mean) / std
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), labels[index]).backward()
            optimizer.step()
        print(time.perf_counter() - wall, time.process_time() - processor, flush=True)


if __name__ == "__main__":
    main()
