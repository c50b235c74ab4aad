"""The numbers of a training against those of a loop written by hand in torch, and schedules against published formulas.

    python benchmarks/parity.py [mlp cnn rnn vit resnet dropout gan backbone dlinear lstm schedules] [--processes 1]

50 optimizer steps in ten epochs: two batches a step, unequal ones at the end of an epoch; clipped gradients, warm-up and cosine
decay, weight decay of matrices only, smoothed labels, averaged weights, the default optimizer. A row has the largest difference
between dlframe and the loop after the last step, over all weights, buffers and averages: absolute, and relative to the largest
value of its tensor.

The loop starts from the same network and sees the same samples in the same order. All else is written out below; the update is
torch.optim's. Two facts are dlframe's: mean and std of images are float32 numbers in any precision, and an average keeps at
most (1 + step) / (10 + step) of itself.

float64 shows the method: what is left is the order of sums. In float32 rounding grows with the steps, since Adam divides even
the smallest gradient by its own size. "last bit" is how far the loop ends from itself if its initial weights are moved to the
next float32: two float32 programs cannot be expected to agree better.

With two processes (DDP, gloo) a network without batch norm and random numbers is compared with the loop over whole batches:
"whole". Else the loop takes the samples of each process in turn, with the random numbers of that process, since batch norm
sees those of its process only; running statistics are those of the first process: "parts".

The exit status is 1 if a relative difference exceeds 1e-9 in float64, 1e-5 and 20 times that of the last bit in float32, or
1e-12 of the rate in a schedule.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from dlframe.config import Config, load
from dlframe.engine.fit import build_task, fit
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data
from dlframe.registry import plugins, schedulers
from dlframe.runs.recorder import InMemoryRecorder, states
from dlframe.storage import checkpoint
from dlframe.types import Dataset

IMAGES = ["data=digits", "batch_size=111", "task.label_smoothing=0.1", "gradient_clip_val=0.5"]
PRICES = ["task=forecasting", "data=sp500", "data.window=30", "data.horizon=3", "batch_size=73"]
LAYERS = ["model.head_lr_scale=4", "model.layer_decay=0.8"]
FAMILIES = {
    "mlp": [*IMAGES, "model=mlp", "model.dropout=0"],
    "cnn": [*IMAGES, "model=cnn", "model.dropout=0"],
    "rnn": [*IMAGES, "model=rnn", "model.dropout=0"],
    "vit": [*IMAGES, "model=vit"],
    "resnet": [*IMAGES, "model=resnet"],
    "dropout": [*IMAGES, "model=mlp", "model.dropout=0.3"],
    "gan": [*IMAGES, "model=gan", "model.dropout=0", "labels_per_class=20"],
    "backbone": [*IMAGES, "model=backbone", "model.architecture=test_resnet", "model.image_size=32", *LAYERS],
    "dlinear": [*PRICES, "model=dlinear", "gradient_clip_val=0.2"],
    "lstm": [*PRICES, "model=lstm", "gradient_clip_val=0.06"],
}
PARTS = ("resnet", "dropout", "gan", "backbone")
"""Families with batch norm or random numbers: the loop takes the samples of each process in turn."""

LR, DECAY, SMOOTHING, KEPT, WARMUP = 2e-3, 0.05, 0.1, 0.7, 0.2
OPTIONS = [
    *(f"optimizer.lr={LR}", f"optimizer.weight_decay={DECAY}", "weight_decay_params=weights"),
    *("scheduler=warmup_cosine", f"scheduler.warmup_ratio={WARMUP}", "callback=[ema]", f"callback.ema.decay={KEPT}"),
    *("accumulate_grad_batches=2", "augmentation=[]", "seed=3", "tracking=none"),
]
DTYPES = {"32-true": torch.float32, "64-true": torch.float64}
State = dict[str, Tensor]


# --- dlframe


class LastState(InMemoryRecorder):
    """Recorder of the state after the last step."""

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.tree = copy.deepcopy(tree)  # the best weights are put back later


def by_dlframe(config: Config, dataset: Dataset) -> State:
    """Train in this process."""
    recorder = LastState()
    fit(config, dataset, recorder, Path())
    return state_of(recorder.tree)


def by_two_processes(overrides: list[str]) -> State:
    """Train by `python -m dlframe trainer=ddp`."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "dlframe", *overrides, "trainer=ddp", f"runs={runs}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        (folder,) = Path(runs).iterdir()
        return state_of(checkpoint.load(states(folder)[0])[0])


def state_of(tree: Mapping[str, Any]) -> State:
    """Weights, buffers and averages of a checkpoint, under the names of the loop."""
    (ema,) = (state for state in tree["callbacks"].values() if "averages" in state)
    model = {name: tensor for name, tensor in tree["task"].items() if name.startswith("model.")}
    found = {name.removeprefix("model."): tensor for name, tensor in model.items()}
    averages = {name.removeprefix("task.model."): tensor for name, tensor in ema["averages"].items()}
    return found | {f"average of {name}": averages[name] for name in found if name in averages}


# --- by hand


def by_hand(family: str, config: Config, dataset: Dataset, processes: int = 1, *, last_bit: bool = False) -> State:
    """Train by a loop over the samples of each optimizer step; `last_bit` moves the initial weights to the next float32."""
    model = build_task(config, dataset).model.train()
    for parameter in model.parameters() if last_bit else ():
        parameter.data = torch.nextafter(parameter.data, torch.tensor(math.inf))
    model.to(DTYPES[config.trainer.precision])
    columns = columns_of(dataset)
    networks = {name: model if name == "model" else getattr(model, name) for name in config.networks}
    optimizers = {name: torch.optim.AdamW(groups(network), weight_decay=DECAY) for name, network in networks.items()}
    averages = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
    turns = Turns(model, config.run.seed, processes)
    parts = processes if family in PARTS else 1
    plan = sample_plan(config, dataset, processes)
    for number, step in enumerate(plan):
        for name, network in networks.items():
            model.zero_grad()
            for batch, rank in itertools.product(step, range(parts)):
                with turns.of(rank):
                    loss_of_part(model, name, dataset, columns, batch[rank::parts], torch.cat(step)).backward()
            clip(network, config.run.gradient_clip_val)
            for group in optimizers[name].param_groups:
                group["lr"] = LR * group["scale"] * warmup_cosine(number, len(plan))
            optimizers[name].step()
        kept = min(KEPT, (2 + number) / (11 + number))  # numbered from 0
        for name, average in averages.items():
            average.mul_(kept).add_((1 - kept) * model.state_dict()[name])
    return model.state_dict() | {f"average of {name}": average for name, average in averages.items()}


def columns_of(dataset: Dataset) -> State:
    """The training data as tensors, and whether the label of a sample is known."""
    train = dataset.train
    labelled = np.ones(len(train), bool) if train.labelled is None else train.labelled
    return {name: torch.tensor(train[name]) for name in dataset.spec.fields} | {"labelled": torch.tensor(labelled)}


def sample_plan(config: Config, dataset: Dataset, processes: int) -> list[list[Tensor]]:
    """The samples of each batch of each step; the last step of an epoch has unequal batches."""
    assert isinstance(config.run.batch_size, int)
    order = Order(config.run.batch_size, accumulate=2, seed=config.run.seed)
    loader = BatchLoader(dataset.train, dataset.spec, order, context=lambda: ProcessContext(torch.device("cpu")))
    epochs = [loader.plan(epoch, processes) for epoch in range(config.run.epochs)]
    assert all(len(epoch) == 5 and len({*map(len, epoch[-1])}) == 2 for epoch in epochs)
    return [step for epoch in epochs for step in epoch]


class Turns:
    """Random numbers and running statistics of processes that take turns.

    A single process goes on with the random numbers after the initial weights; several have a seed each.
    """

    def __init__(self, model: nn.Module, seed: int, processes: int) -> None:
        self.model = model
        self.random = [torch.get_rng_state()]
        if processes > 1:
            self.random = [torch.Generator().manual_seed(seed * processes + rank).get_state() for rank in range(processes)]

    @contextmanager
    def of(self, rank: int) -> Iterator[None]:
        """Within, the process draws its own numbers; the running statistics of all but the first are dropped."""
        torch.set_rng_state(self.random[rank])
        before = [buffer.clone() for buffer in self.model.buffers()]
        yield
        self.random[rank] = torch.get_rng_state()
        for buffer, old in zip(self.model.buffers(), before, strict=True):
            if rank:
                buffer.copy_(old)


def groups(network: Any) -> list[dict[str, Any]]:
    """Parameter groups: decay of matrices and kernels only; rates of a backbone by layer, from the head to the stem."""
    layers, scales = [[*network.parameters()]], [1.0]
    if hasattr(network, "layers") and hasattr(network, "layer_decay"):
        parameters = dict(network.network.named_parameters())
        layers = [[parameters[name] for name in layer] for layer in network.layers]
        scales = [4.0, *(0.8**depth for depth in range(1, len(layers)))]
    found = []
    for layer, scale in zip(layers, scales, strict=True):
        found.append({"params": [p for p in layer if p.ndim >= 2], "scale": scale})
        found.append({"params": [p for p in layer if p.ndim < 2], "scale": scale, "weight_decay": 0.0})
    return found


def warmup_cosine(step: int, steps: int) -> float:
    """Factor of the rate: a linear rise (Goyal et al. 2017), then half a cosine (Loshchilov and Hutter 2016)."""
    rise = round(WARMUP * steps)
    return (step + 1) / (rise + 1) if step < rise else (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def clip(network: nn.Module, largest: Any) -> None:
    """Scale the gradient to a norm of `largest` at most (Pascanu et al. 2013); 1e-6 is torch's."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
    for gradient in gradients:
        gradient.mul_(min(1.0, largest / (norm + 1e-6)))


def loss_of_part(model: Any, network: str, dataset: Dataset, columns: State, part: Tensor, step: Tensor) -> Tensor:
    """The share of samples `part` in the loss of an optimizer step of samples `step`: sums over its counts."""
    dtype = next(model.parameters()).dtype
    rows = {name: column[part] for name, column in columns.items()}
    fraction = len(part) / len(step)
    if "future" in rows:
        return fraction * huber(model, rows["window"], rows["future"])
    mean, std = (torch.tensor(values).to(dtype).view(-1, 1, 1) for values in (dataset.spec.input.mean, dataset.spec.input.std))
    images = (rows["image"].to(dtype) / 255 - mean) / std
    if network == "model":
        logits, adversarial = model(images), 0.0
    else:
        with torch.set_grad_enabled(network == "generator"):
            noise = torch.randn(len(part), model.generator.latent_dim, dtype=dtype)
            generated = (model.generator(noise) - mean) / std
        if network == "generator":
            return fraction * feature_matching(model, images, generated)
        logits = model(images)
        adversarial = fraction * real_or_generated(logits, model(generated))
    losses = cross_entropy(logits, rows["label"]) * rows["labelled"]
    return losses.sum() / columns["labelled"][step].sum() + adversarial


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels, of each sample (Szegedy et al. 2016, section 7)."""
    logarithms = logits - logits.exp().sum(1, keepdim=True).log()
    target = logarithms[torch.arange(len(labels)), labels]
    return -(1 - SMOOTHING) * target - SMOOTHING * logarithms.mean(1)


def real_or_generated(real: Tensor, generated: Tensor) -> Tensor:
    """Discriminator's mean of -log(Z / (Z + 1)) for real and log(Z + 1) for generated images, Z the sum of exp(logits).

    Salimans et al. 2016, section 5, with the logit 0 for "generated".
    """
    real_sum, generated_sum = real.exp().sum(1), generated.exp().sum(1)
    return (-(real_sum / (real_sum + 1)).log().mean() + (generated_sum + 1).log().mean()) / 2


def feature_matching(model: Any, real: Tensor, generated: Tensor) -> Tensor:
    """Generator's mean squared distance of mean features (Salimans et al. 2016, section 3.1)."""
    with torch.no_grad():
        aim = model.discriminator.features(real).mean(0)
    return (model.discriminator.features(generated).mean(0) - aim).square().mean()


def huber(model: nn.Module, window: Tensor, future: Tensor) -> Tensor:
    """Mean loss of Huber 1964 (delta 1), of changes from the last value in standard deviations of the window."""
    last = window[:, -1:]
    unit = (window - window.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
    change = model(((window - last) / unit).to(next(model.parameters()).dtype))
    error = (change - (future - last[:, :, 0]) / unit[:, :, 0]).abs()
    return torch.where(error < 1, error.square() / 2, error - 0.5).mean()


# --- comparison


@cache
def prices() -> str:
    """A file of daily prices of a share, which matplotlib has."""
    file = Path(tempfile.mkdtemp(prefix="parity-"), "prices.csv")
    days = np.load(matplotlib.cbook.get_sample_data("goog.npz", asfileobj=False))["price_data"]
    rows = [f"{day},{close!r}" for day, close in zip(days["date"], days["adj_close"].tolist(), strict=True)]
    file.write_text("\n".join(["Date,Close", *rows]))
    return str(file)


def difference(own: State, other: State) -> tuple[float, float]:
    """The largest difference, absolute and relative to the largest value of its tensor."""
    assert own.keys() == other.keys()
    apart = torch.stack([(own[name].double() - other[name].double()).abs().max() for name in own])
    sizes = torch.stack([other[name].double().abs().max() for name in own])
    return apart.max().item(), (apart / torch.where(sizes > 0, sizes, 1)).max().item()


@cache
def compare(
    family: str, precision: str, processes: int = 1, epochs: int = 10, *, last_bit: bool = False
) -> tuple[float, float]:
    """The difference from the loop of dlframe, or of the loop with another `last_bit` of the weights; five steps an epoch."""
    overrides = [*FAMILIES[family], *OPTIONS, f"epochs={epochs}", f"trainer.precision={precision}"]
    if "data=sp500" in overrides:
        overrides.append(f"data.path={prices()}")
    config = load(overrides)
    dataset = load_data(config)
    if last_bit:
        own = by_hand(family, config, dataset, last_bit=True)
    else:
        own = by_dlframe(config, dataset) if processes == 1 else by_two_processes(overrides)
    return difference(own, by_hand(family, config, dataset, processes))


def compare_family(family: str, processes: int) -> bool:
    """Print a row; return whether it is within the tolerances."""
    cut = "" if processes == 1 else ", parts" if family in PARTS else ", whole"
    single, double = (compare(family, precision, processes) for precision in DTYPES)
    bit = compare(family, "32-true", last_bit=True)[1]
    numbers = "".join(f"{value:<11.1e}" for value in (*single, bit, *double))
    print(f"{family:<10}{f'{processes}{cut}':<12}{numbers.rstrip()}", flush=True)
    return double[1] <= 1e-9 and single[1] <= max(1e-5, 20 * bit)


# --- schedules


def torchs_cosine(optimizer: Any) -> Any:
    """torch's linear rise over 10 steps, then its cosine."""
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 11, total_iters=10)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.001)
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[10])


def one_cycle(step: int) -> float:
    """Smith and Topin 2017, as written in torch's documentation: cosines from lr / 25 to lr, and on to lr / 25 / 10000."""
    low, high, part = (0.004, 0.1, step / 29) if step <= 29 else (0.1, 0.1 / 25e4, (step - 29) / 70)
    return high + (low - high) * (1 + math.cos(math.pi * part)) / 2


def value(step: int) -> float:
    """A value to minimize, with plateaus."""
    return -math.floor(step / 12) - 0.05 * math.sin(step)


def plateau(step: int) -> float:
    """The rate after `step` values: halved when more than 3 in a row are not smaller than the best by 0.1."""
    rate, best, bad = 0.1, math.inf, 0
    for seen in map(value, range(step)):
        best, bad = (seen, 0) if seen < best - 0.1 else (best, bad + 1)
        rate, bad = (max(rate / 2, 1e-3), 0) if bad > 3 else (rate, bad)
    return rate


COSINE = {"warmup_ratio": 0.1, "min_lr_ratio": 0.01}
LINEAR = {"anneal_strategy": "linear", "pct_start": 0.2, "div_factor": 10.0, "final_div_factor": 100.0}
LINEAR_OF_TORCH = {"max_lr": 0.1, "total_steps": 100, "cycle_momentum": False, **LINEAR}
REFERENCES: list[tuple[str, dict[str, Any], str, Callable[[Any], Any]]] = [
    ("constant", {}, "torch ConstantLR(factor=1)", lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    ("warmup_cosine", COSINE, "torch LinearLR, then CosineAnnealingLR(T_max=90)", torchs_cosine),
    ("one_cycle", {}, "formula of torch's documentation, 30 steps rise", lambda o: one_cycle),
    ("one_cycle", LINEAR, "torch OneCycleLR, same options", lambda o: lr_scheduler.OneCycleLR(o, **LINEAR_OF_TORCH)),
    ("step", {}, "torch MultiStepLR([50, 75])", lambda o: lr_scheduler.MultiStepLR(o, [50, 75])),
    ("plateau", {"factor": 0.5, "patience": 3, "min_delta": 0.1, "min_lr": 1e-3}, "rule written out", lambda o: plateau),
]
"""Schedules over 100 steps with a rate of 0.1: options, and what they are compared with."""


def rates(build: Callable[[Any], Any]) -> list[float]:
    """The rate of each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    schedule = build(optimizer)
    if not hasattr(schedule, "step"):
        return [schedule(step) for step in range(100)]
    found = []
    for step in range(100):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*([value(step)] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))
    return found


def compare_schedules() -> bool:
    """Print the largest difference of each schedule; return whether all are within the tolerance."""
    assert {name for name, *_ in REFERENCES} == {entry.name for entry in schedulers if entry.origin == "dlframe"}
    print(f"{'schedule':<15}{'compared with':<52}difference / rate")
    worst = 0.0
    for name, options, reference, build in REFERENCES:
        own = rates(lambda o, name=name, options=options: schedulers.build({"name": name, **options}, optimizer=o, steps=100))
        with warnings.catch_warnings(action="ignore"):  # torch's own, about how its schedules call one another
            other = rates(build)
        apart = max(abs(a - b) for a, b in zip(own, other, strict=True)) / 0.1
        worst = max(worst, apart)
        print(f"{name:<15}{reference:<52}{apart:.1e}", flush=True)
    return worst <= 1e-12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[*FAMILIES, "schedules"])
    parser.add_argument("--processes", type=int, choices=(1, 2), action="append", help="one or two; both if absent")
    options = parser.parse_args()
    if unknown := {*options.cases} - {*FAMILIES, "schedules"}:
        parser.error(f"no such case: {', '.join(unknown)}")
    plugins.discover()
    families = [case for case in options.cases if case != "schedules"]
    good = True
    if families:
        print(f"{'':<22}{'float32':<33}float64")
        print(f"{'family':<10}{'processes':<12}{'absolute':<11}{'relative':<11}{'last bit':<11}{'absolute':<11}relative")
    for processes, family in itertools.product(options.processes or (1, 2), families):
        good &= compare_family(family, processes)
    if "schedules" in options.cases:
        good &= compare_schedules()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
