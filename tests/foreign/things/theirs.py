# ruff: noqa  # the habits of such code are what is tried
"""What people have lying about: models, optimizers and helpers of small repositories, as they are written there."""

import numpy as np
import pandas as pd
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.optim.optimizer import Optimizer
from torch.utils.data import Dataset


class LeNet(nn.Module):
    def __init__(self, in_channels=3, num_classes=10):
        super(LeNet, self).__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 2 * 2, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        return self.fc(x)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes, planes, stride=1):
        super(BasicBlock, self).__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        return F.relu(self.bn1(self.conv1(x)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, block, num_blocks, num_classes=10, in_channels=3):
        super(ResNet, self).__init__()
        self.in_planes = 16
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = self._make_layer(block, 16, num_blocks[0], stride=1)
        self.layer2 = self._make_layer(block, 32, num_blocks[1], stride=2)
        self.linear = nn.Linear(32 * block.expansion, num_classes)

    def _make_layer(self, block, planes, num_blocks, stride):
        layers = []
        for stride in [stride] + [1] * (num_blocks - 1):
            layers.append(block(self.in_planes, planes, stride))
            self.in_planes = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x):
        out = self.layer2(self.layer1(F.relu(self.conv1(x))))
        return self.linear(out.mean((2, 3)))


def ResNet6(**kwargs):
    return ResNet(BasicBlock, [1, 1], **kwargs)


class WithAuxiliary(LeNet):
    def forward(self, x):
        logits = self.fc(F.max_pool2d(self.conv2(F.max_pool2d(self.conv1(x), 2)), 2).flatten(1))
        return logits, logits.detach()


class Lion(Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(p)
                beta1, beta2 = group["betas"]
                p.add_((state["exp_avg"] * beta1 + p.grad * (1 - beta1)).sign_(), alpha=-group["lr"])
                state["exp_avg"].mul_(beta2).add_(p.grad, alpha=1 - beta2)
        return loss


class SGDScheduleFree(Optimizer):
    def __init__(self, params, lr=1.0, momentum=0.9, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, k=0, train_mode=False))

    @torch.no_grad()
    def eval(self):
        self._swap(False, lambda momentum: 1 - 1 / momentum)

    @torch.no_grad()
    def train(self):
        self._swap(True, lambda momentum: 1 - momentum)

    def _swap(self, train_mode, weight):
        for group in self.param_groups:
            if group["train_mode"] != train_mode:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], weight(group["momentum"]))
                group["train_mode"] = train_mode

    @torch.no_grad()
    def step(self, closure=None):
        if not self.param_groups[0]["train_mode"]:
            raise Exception("Optimizer was not in train mode when step is called.")
        for group in self.param_groups:
            group["k"] += 1
            ckp1 = 1 / group["k"]
            for y in group["params"]:
                z = self.state[y].setdefault("z", y.clone())
                y.lerp_(z, ckp1).add_(y.grad, alpha=group["lr"] * (group["momentum"] * (1 - ckp1) - 1))
                z.sub_(y.grad, alpha=group["lr"])


class Cutout(object):
    """One hole in each image of a batch."""

    def __init__(self, length):
        self.length = length

    def __call__(self, img):
        h, w = img.shape[-2:]
        mask = torch.ones(h, w)
        y, x = np.random.randint(h), np.random.randint(w)
        mask[max(0, y - self.length // 2) : y + self.length // 2, max(0, x - self.length // 2) : x + self.length // 2] = 0
        return img * mask


class DigitsDataset(Dataset):
    def __init__(self, train=True):
        bunch = load_digits()
        part = slice(0, 1400) if train else slice(1400, None)
        self.images, self.labels = (bunch.images[part] * 16).clip(0, 255).astype(np.uint8), bunch.target[part]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, idx):
        return self.images[idx][None], int(self.labels[idx])


class FocalLoss(nn.Module):
    def __init__(self, gamma=2, reduction="mean"):
        super().__init__()
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, input, target):
        ce = F.cross_entropy(input, target, reduction="none")
        loss = (1 - torch.exp(-ce)) ** self.gamma * ce
        return loss.mean() if self.reduction == "mean" else loss.sum()


def get_dataframe():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        {"age": rng.integers(18, 80, 400), "city": rng.choice(["Bonn", "Oslo"], 400), "income": rng.normal(size=400)}
    )
    df["churn"] = np.where(df.age + 20 * df.income > 50, "yes", "no")
    return df
