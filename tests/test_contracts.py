"""What every entry of every registry promises, built-in or plugin. A new entry is tested by being registered.

The name of a contract is that of its test: an entry to which one does not apply says why, `exempt={"overfits": "..."}`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
from typing import Any, Literal, get_args, get_origin

import matplotlib.cbook
import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load, save
from sklearn.datasets import load_digits, load_sample_images
from tests.samples import batch_of, image_spec, series_spec
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.registry import GROUPS, Entry, plugins
from dlframe.registry.parameters import REQUIRED, parts
from dlframe.storage import fetch
from dlframe.tasks.base import Task
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Split, check_dataset, declared

plugins.discover()
ENTRIES = [entry for registry in GROUPS.values() for entry in registry]
CONTRACTS: set[str] = set()


def contract(*groups: str):
    """Run a test over every entry of `groups`, of all groups without one, but for those that are exempt from it."""

    def decorate(test):
        name = test.__name__.removeprefix("test_")
        CONTRACTS.add(name)
        cases = []
        for entry in ENTRIES:
            if entry.group in (groups or GROUPS):
                reason = entry.facts["exempt"].get(name)
                marks = [pytest.mark.skip(reason=reason)] if reason else []
                cases.append(pytest.param(entry, id=f"{entry.group}/{entry.name}", marks=marks))
        return pytest.mark.parametrize("entry", cases)(test)

    return decorate


# --- real data, small


def dataset(spec: DataSpec, inputs: np.ndarray, targets: np.ndarray) -> Dataset:
    """Samples as all three splits, normalized by their own statistics."""
    ((name, field),) = spec.inputs.items()
    scaled = inputs / 255 if inputs.dtype == np.uint8 else inputs
    axes = (0, 2, 3) if field.kind == "image" else (0, 1)
    mean, std = (tuple(map(float, f(scaled, axes))) for f in (np.mean, np.std))
    spec = dataclasses.replace(spec, inputs={name: dataclasses.replace(field, mean=mean, std=std)})
    split = Split({name: inputs, next(iter(spec.targets)): targets}, np.arange(len(inputs)))
    return Dataset(spec, split, split, split, "in memory", "one for all")


@functools.cache
def digits() -> Dataset:
    """16 handwritten digits of every class."""
    inputs, targets = load_digits(return_X_y=True)
    images = np.rint(inputs[:16] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    spec = image_spec("digits", (1, 8, 8), tuple("0123456789"))
    return dataset(spec, images, targets[:16].astype(np.int64))


@functools.cache
def photographs() -> Dataset:
    """16 pieces of two colour photographs, to be told apart."""
    images, targets = [], []
    for i, label in itertools.product(range(8), range(2)):
        images.append(load_sample_images().images[label][40 * i : 40 * i + 32, 60 * i : 60 * i + 32].transpose(2, 0, 1))
        targets.append(label)
    spec = image_spec("photographs", (3, 32, 32), ("temple", "flower"))
    return dataset(spec, np.array(images), np.array(targets))


@functools.cache
def prices() -> Dataset:
    """16 windows of 60 daily closing prices of a share, and the price of the day after."""
    with matplotlib.cbook.get_sample_data("goog.npz") as file:
        series = file["price_data"]["adj_close"].astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, 61)[::50][:16].copy()
    spec = series_spec("prices", (60, 1), 1)
    return dataset(spec, windows[:, :60, None], windows[:, 60:])


DATASETS = (digits, photographs, prices)


def suitable(entry: Entry) -> list[Dataset]:
    """The data that a model, a task or an augmentation takes; a kind that none of them has is to be added above."""
    found = [
        data()
        for data in DATASETS
        if data().spec.input.kind in entry.facts.get("inputs", (data().spec.input.kind,))
        and (not entry.facts["targets"] or data().spec.target.kind in entry.facts["targets"])
    ]
    assert found, f"no data here for {entry.facts}: add some to DATASETS"
    return found


def batch(data: Dataset) -> Batch:
    """All samples of a data set as an augmentation gets them: images as floats in [0, 1]."""
    raw = batch_of(data.train, data.spec)
    inputs = raw.inputs.float() / 255 if raw.inputs.dtype == torch.uint8 else raw.inputs.clone()
    return raw.replace(inputs=inputs, targets=raw.targets.clone())


def samples(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets as a model gets them: of zero mean and unit variance."""
    whole, field = batch(data), data.spec.input
    channels = (len(field.mean), *[1] * (len(field.shape) - 1)) if field.kind == "image" else ()
    mean, std = torch.tensor(field.mean).view(channels), torch.tensor(field.std).view(channels)
    targets = (whole.targets - mean) / std if data.spec.target.kind == "value" else whole.targets
    return (whole.inputs - mean) / std, targets


# --- building


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Pictures in folders named for their class."""
    root = tmp_path_factory.mktemp("pictures")
    digits = load_digits(n_class=2)
    for i, (image, target) in enumerate(zip(digits.images[:60], digits.target, strict=False)):
        path = root / ("test" if i % 3 == 0 else "train") / f"class {target}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    return root


def required(entry: Entry, folder: Any = "somewhere") -> dict[str, Any]:
    """Values for the options that have no default."""
    return {name: str(folder) for name, p in entry.parameters.items() if p.default is REQUIRED}


def build(entry: Entry, folder: Any = "somewhere", /, seed: int = 0, **injected: Any) -> Any:
    torch.manual_seed(seed)
    return GROUPS[entry.group].build({"name": entry.name, **required(entry, folder)}, **injected)


def build_model(entry: Entry, data: Dataset, seed: int = 0) -> torch.nn.Module:
    return build(entry, seed=seed, spec=data.spec)


def small_model(data: Dataset) -> torch.nn.Module:
    """What an optimizer or a schedule is tried on: matrices, biases, a norm."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.LayerNorm(32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )


def learner_of(model: torch.nn.Module) -> torch.nn.Module:
    """The part of a model that answers: of a GAN, the discriminator."""
    return getattr(model, "discriminator", model)


def loss(model: torch.nn.Module, data: Dataset) -> torch.Tensor:
    inputs, targets = samples(data)
    output = model(inputs)
    return functional.cross_entropy(output, targets) if data.spec.classes else functional.mse_loss(output, targets)


def train(model: torch.nn.Module, data: Dataset, steps: int, lr: float = 2e-3, enough: float = -math.inf) -> list[float]:
    """Losses of up to `steps` steps of Adam on one batch, fewer where one is below `enough`; or before and after it is seen."""
    if partial_fit := getattr(model, "partial_fit", None):
        before = loss(model, data).item()
        partial_fit(*samples(data))
        return [before, loss(model, data).item()]
    optimizer = torch.optim.Adam([p for p in learner_of(model).parameters() if p.requires_grad], lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model, data)
        losses.append(value.item())
        if losses[-1] < enough:
            break
        value.backward()
        optimizer.step()
    return losses


def equal(left: Any, right: Any) -> bool:
    """Whether nested containers of tensors and plain values are equal to the bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


# --- every entry


def test_every_exemption_names_a_contract_and_gives_a_reason():
    for entry in ENTRIES:
        for name, reason in entry.facts["exempt"].items():
            assert name in CONTRACTS, f"{entry.group}/{entry.name}: no contract is called '{name}': {sorted(CONTRACTS)}"
            assert reason.strip()


def test_no_plugin_is_broken():
    assert plugins.broken == {}


@contract()
def test_documented(entry):
    assert entry.summary.endswith("."), "the docstring's first line is a sentence, which `list` prints"
    assert len(entry.summary) <= 120
    for name, parameter in entry.parameters.items():
        assert parameter.doc.endswith("."), f"'Args:' of the docstring has no sentence on {name}"


@contract()
def test_reads_alike(entry):
    """Reading the source without running it gives what the imported object says."""
    entry.load()
    registry = GROUPS[entry.group]
    imported = registry.get(entry.name)
    if imported.factory.__init__ in (object.__init__, torch.nn.Module.__init__):
        assert entry.parameters == {}
        return
    read = registry.read_object(entry.name, entry.facts, imported.factory)
    assert read.parameters == entry.parameters
    assert list(read.parameters) == list(entry.parameters)
    assert read.summary == entry.summary


def edges(annotation: Any) -> tuple[list[Any], list[Any]]:
    """Values that an annotation just allows, and values that it just does not."""
    bare, bounds, optional = parts(annotation)
    allowed: list[Any]
    refused: list[Any]
    if get_origin(bare) is Literal:
        allowed, refused = list(get_args(bare)), ["no such choice", -987, 0.5]
    elif get_origin(bare) in (tuple, list):
        kinds = get_args(bare)
        several = get_origin(bare) is list or kinds[-1] is Ellipsis
        inner = [edges(kind) for kind in (kinds[:1] if several else kinds)]
        usual = tuple(good[0] for good, _ in inner)
        place = [(*usual[:i], value, *usual[i + 1 :]) for i, (good, _) in enumerate(inner) for value in good]
        wrong = [(*usual[:i], value, *usual[i + 1 :]) for i, (_, bad) in enumerate(inner) for value in bad]
        allowed = [*place, (), usual * 3] if several else place
        refused = [*wrong, "text", 1] if several else [*wrong, usual[:-1], (*usual, usual[-1]), "text", 1]
    elif bare is bool:
        allowed, refused = [True, False], ["true", 1, 0.0]
    elif bare is str:
        allowed, refused = ["", "words with spaces, ü and = in them"], [1, True]
    else:
        below = (lambda x: x - 1) if bare is int else (lambda x: math.nextafter(x, -math.inf))
        above = (lambda x: x + 1) if bare is int else (lambda x: math.nextafter(x, math.inf))
        refused = ["1", "0.1x", True, *([1.5] if bare is int else [math.nan])]
        allowed = []
        for limit, allow, refuse in (
            (bounds and bounds.ge, bare, below),
            (bounds and bounds.gt, above, bare),
            (bounds and bounds.le, bare, above),
            (bounds and bounds.lt, below, bare),
        ):
            if limit is not None:
                allowed.append(allow(limit))
                refused.append(refuse(limit))
        allowed = allowed or [bare(-3), bare(3)]
    (allowed if optional else refused).append(None)
    return allowed, refused


@contract()
def test_bounds(entry):
    """Each option takes the values on its bounds and refuses those just outside, and says so."""
    for name, parameter in entry.parameters.items():
        allowed, refused = edges(parameter.annotation)
        if parameter.default is REQUIRED and "" in allowed:
            allowed.remove("")
            with pytest.raises(ConfigError, match="must be given: str"):
                entry.check({**required(entry), name: ""})
        for value in allowed:
            assert entry.check({**required(entry), name: value})[name] == value
        for value in refused:
            with pytest.raises(ConfigError) as error:
                entry.check({**required(entry), name: value})
            message = f"{entry.group}.{name}: must be {parameter.rule}. Received: {value!r}."
            assert str(error.value).startswith(message)


@contract()
def test_round_trips(entry):
    """A checked config is checked to itself again, also when it has been a YAML file, OmegaConf's or a run's."""
    given = required(entry)
    configs = [entry.check(given)]
    for name, parameter in entry.parameters.items():
        allowed = [value for value in edges(parameter.annotation)[0] if value != "" or parameter.default is not REQUIRED]
        configs += [entry.check({**given, name: value}) for value in allowed]
    for config in configs:
        assert entry.check(config) == config
        plain = {"name": entry.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}}
        assert entry.check(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(plain))))) == config
        assert entry.check(yaml.safe_load(yaml.safe_dump(plain, allow_unicode=True))) == config


@contract("callback")
def test_builds(entry):
    assert build(entry) is not None


# --- models


@contract("model")
def test_shape(entry):
    """A batch goes through; so does, to the same values, a single sample, and a batch in channels-last memory."""
    for data in suitable(entry):
        inputs, targets = samples(data)
        model = build_model(entry, data)
        width = len(data.spec.classes) or data.spec.horizon
        output = model(inputs)
        assert output.shape == (len(targets), width)
        assert output.dtype == torch.float32
        model.eval()
        with torch.no_grad():
            together, alone = model(inputs), model(inputs[:1])
            assert together.isfinite().all()
            torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-4)
            if inputs.ndim == 4:
                turned = model.to(memory_format=torch.channels_last)(inputs.to(memory_format=torch.channels_last))
                torch.testing.assert_close(together, turned, rtol=1e-3, atol=1e-4)


@contract("model")
def test_gradients(entry):
    """Three steps move every parameter that is to be trained."""
    for data in suitable(entry)[:1]:
        model = build_model(entry, data)
        before = copy.deepcopy(dict(learner_of(model).named_parameters()))
        train(model, data, 3)
        still = [n for n, p in learner_of(model).named_parameters() if p.requires_grad and torch.equal(p, before[n])]
        assert not still


@contract("model")
def test_overfits(entry):
    """One batch is learnt by heart: cross-entropy, or mean squared error in units of the variance, below 0.1."""
    data = suitable(entry)[0]
    losses = train(build_model(entry, data), data, 300, enough=0.1)
    assert losses[-1] < 0.1, f"{losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps"


@contract("model")
def test_deterministic(entry):
    """The same seed gives the same weights and the same three steps, to the bit."""
    data = suitable(entry)[0]
    runs = []
    for _ in range(2):
        model = build_model(entry, data)
        runs.append((train(model, data, 3), model.state_dict()))
    assert equal(*runs)


@contract("model", "augmentation")
def test_varies(entry):
    """Another seed gives another model, another generator another batch."""
    for data in suitable(entry)[:1]:
        if entry.group == "model":
            assert not equal(*(build_model(entry, data, seed).state_dict() for seed in (0, 1)))
        else:
            assert not torch.equal(*(augmented(entry, data, seed).inputs for seed in (0, 1)))


@contract("model")
def test_saves(entry):
    """The state goes through safetensors into a model of another seed, which then answers the same."""
    data = suitable(entry)[0]
    inputs, _ = samples(data)
    model, other = build_model(entry, data, 0), build_model(entry, data, 1)
    train(model, data, 2)
    stored = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    other.load_state_dict(load(stored))
    assert equal(model.state_dict(), other.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(inputs), other.eval()(inputs))


@contract("model")
def test_groups(entry):
    """A model's own parameter groups hold each parameter that any epoch trains, once."""
    data = suitable(entry)[0]
    model = build_model(entry, data)
    if not hasattr(model, "parameter_groups"):
        return
    groups = model.parameter_groups()
    assert all(group["lr_scale"] > 0 for group in groups)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    for epoch in range(4):
        if hasattr(model, "start_epoch"):
            model.start_epoch(epoch, 4)
        assert {id(parameter) for parameter in model.parameters() if parameter.requires_grad} <= set(held)


# --- optimizers and schedules


def optimize(model, optimizer, data, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model, data)
        losses.append(value.item())
        value.backward()
        optimizer.step()
    return losses


def groups_of(model: torch.nn.Module) -> list[dict]:
    """Parameter groups as the learner makes them: no weight decay for vectors."""
    parameters = list(model.parameters())
    vectors = [p for p in parameters if p.ndim < 2]
    return [{"params": [p for p in parameters if p.ndim >= 2]}, {"params": vectors, "weight_decay": 0.0}]


@contract("optimizer")
def test_lowers_the_loss(entry):
    data = digits()
    model = small_model(data)
    losses = optimize(model, build(entry, params=groups_of(model)), data, 30)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


@contract("optimizer")
def test_resumes(entry):
    """An optimizer that takes over another's state goes on as the other would have, to the bit."""
    data = digits()
    model = small_model(data)
    optimizer = build(entry, params=groups_of(model))
    optimize(model, optimizer, data, 3)
    other = small_model(data)
    other.load_state_dict(model.state_dict())
    heir = build(entry, params=groups_of(other))
    heir.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimize(model, optimizer, data, 3) == optimize(other, heir, data, 3)
    assert equal(model.state_dict(), other.state_dict())


def scheduled(entry: Entry, steps: int):
    """An optimizer under a schedule, and its learning rates before each of `steps` steps and after the last."""
    model = small_model(digits())
    optimizer = torch.optim.SGD(groups_of(model), lr=0.1)
    scheduler = build(entry, optimizer=optimizer, steps=steps)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for step in range(steps):
        optimizer.step()
        scheduler.step(*[float(step)] if isinstance(scheduler, ReduceLROnPlateau) else [])
        rates.append([group["lr"] for group in optimizer.param_groups])
    return scheduler, rates


@contract("scheduler")
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_learning_rate(entry, steps):
    """The rate is finite, not negative, nowhere above the optimizer's own, and above 0 somewhere."""
    _, rates = scheduled(entry, steps)
    flat = list(itertools.chain(*rates))
    assert all(math.isfinite(rate) and 0 <= rate <= 0.1 + 1e-9 for rate in flat)
    assert max(itertools.chain(*rates[:-1])) > 0


@contract("scheduler")
def test_schedule_resumes(entry):
    whole, _ = scheduled(entry, 20)
    heir, _ = scheduled(entry, 0)
    heir.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert equal(heir.state_dict(), whole.state_dict())


# --- augmentations


def augmented(entry: Entry, data: Dataset, seed: int) -> Batch:
    return build(entry, spec=data.spec)(batch(data), torch.Generator().manual_seed(seed))


@contract("augmentation")
def test_augments(entry):
    """Shape, type and range are kept; the input is not written to; mixed targets are shares of the classes."""
    for data in suitable(entry):
        given, before = batch(data), batch(data)
        result = build(entry, spec=data.spec)(given, torch.Generator().manual_seed(0))
        assert torch.equal(given.inputs, before.inputs)
        assert torch.equal(given.targets, before.targets)
        assert (result.inputs.shape, result.inputs.dtype) == (before.inputs.shape, torch.float32)
        assert result.inputs.isfinite().all()
        if data.spec.input.kind == "image":
            assert result.inputs.min() >= 0
            assert result.inputs.max() <= 1
        assert torch.equal(result.index, before.index)
        if result.targets.shape == before.targets.shape:
            assert torch.equal(result.targets, before.targets)
        else:
            assert result.targets.shape == (len(before.targets), len(data.spec.classes))
            torch.testing.assert_close(result.targets.sum(1), torch.ones(len(before.targets)))
            assert result.targets.min() >= 0


@contract("augmentation")
def test_draws_from_the_generator(entry):
    """The same generator gives the same batch, whatever the state of torch's own."""
    for data in suitable(entry):
        augment = build(entry, spec=data.spec)
        results = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            results.append(augment(batch(data), torch.Generator().manual_seed(0)))
        assert torch.equal(results[0].inputs, results[1].inputs)
        assert torch.equal(results[0].targets, results[1].targets)


# --- tasks


def models_for(entry: Entry, data: Dataset) -> list[Entry]:
    """The models that a task takes with these data, one of each kind of training: small ones where there is a choice."""
    fitting = [
        model
        for model in GROUPS["model"]
        if data.spec.input.kind in model.facts["inputs"]
        and data.spec.target.kind in model.facts["targets"]
        and model.facts["task"] in (entry.name, "")
    ]
    ranked = sorted(fitting, key=lambda m: (m.facts["task"] != entry.name, m.name not in ("mlp", "dlinear"), m.name))
    return list({model.facts["networks"]: model for model in reversed(ranked)}.values())


@contract("task")
def test_metrics_are_declared(entry):
    """The facts say how each metric is read, and which heads the table."""
    metrics = declared(entry.facts["metrics"])
    assert entry.facts["headline"] in metrics
    assert entry.facts["monitor"] in ("", *metrics)
    assert all(metric.low < metric.high for metric in metrics.values())


@contract("task")
def test_keeps_its_word(entry):
    """Each network has a loss; scores, metrics, outputs, baseline, interval and table are as the facts say."""
    data = suitable(entry)[0]
    for chosen in models_for(entry, data):
        task = build(entry, spec=data.spec, model=build_model(chosen, data))
        task.prepare(data.train)
        raw = batch_of(data.test, data.spec)
        whole = task.features(raw)
        assert torch.equal(raw.inputs, batch_of(data.test, data.spec).inputs), "features wrote to its input"
        part = dataclasses.replace(whole, labelled=torch.arange(len(whole)) % 2 == 0) if chosen.facts["unlabeled"] else whole
        for network in chosen.facts["networks"]:
            value = step_loss(task, [part], network)
            assert value.shape == ()
            assert value.isfinite()
            value.backward()
            assert any(p.grad is not None and p.grad.any() for p in task.network(network).parameters())
        if not chosen.facts["networks"]:
            task.partial_fit(whole)
        task.eval()
        with torch.no_grad():
            task.begin_scoring()
            scores = task.score(whole)
            task.calibrate(scores)
            outputs = task.predict(whole)
        assert set(scores) == set(entry.facts["scores"])
        assert all(len(score) == len(whole) for score in scores.values())
        assert outputs.keys() == task.outputs().keys()
        for name, field in task.outputs().items():
            assert outputs[name].shape == (len(whole), *field.shape)
            assert str(outputs[name].dtype) == f"torch.{field.dtype}"
        metrics = task.metrics(scores)
        assert set(metrics) == set(entry.facts["metrics"])
        name, baseline = task.baseline(data)
        assert name
        headline = entry.facts["headline"]
        assert headline in baseline
        assert set(baseline) <= set(metrics)
        for groups in (None, np.arange(len(whole)) // 2):
            interval = task.interval(headline, scores, groups)
            assert interval.value == pytest.approx(metrics[headline])
            assert interval.low <= interval.value <= interval.high
        table = task.table(scores, data.test)
        assert {"target", "prediction", "score"} <= set(table)
        assert all(len(column) == len(whole) for column in table.values())
        for figure in task.figures(scores, data).values():
            figure.draw_without_rendering()


@contract("task")
def test_scores_do_not_depend_on_neighbors(entry):
    """A sample scores the same alone, in a batch, and in another order."""
    data = suitable(entry)[0]
    for chosen in models_for(entry, data):
        task = build(entry, spec=data.spec, model=build_model(chosen, data)).eval()
        order = np.random.default_rng(0).permutation(len(data.test))

        def scored(positions: np.ndarray, task=task) -> Any:
            with torch.no_grad():
                return task.score(task.features(batch_of(data.test.take(positions), data.spec)))

        together, other, alone = scored(np.arange(len(order))), scored(order), scored(np.array([3]))
        for name, score in together.items():
            torch.testing.assert_close(other[name], score[torch.from_numpy(order)], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(alone[name], score[3:4], rtol=1e-5, atol=1e-5)


def step_loss(task: Any, parts: list[Batch], network: str) -> torch.Tensor:
    """The loss of an optimizer step of several batches, as the learner adds it up."""
    totals: dict[str, Any] = {"samples": sum(map(len, parts))}
    for part in parts:
        for name, count in task.counts(part).items():
            totals[name] = totals.get(name, 0) + count
    if type(task).counts is not Task.counts:
        return sum(task.loss(part, network, totals) for part in parts)
    return sum(task.loss(part, network) * (len(part) / totals["samples"]) for part in parts)


@contract("task")
@pytest.mark.parametrize("sizes", [(8, 8), (10, 6), (1, 15)])
def test_a_step_may_be_cut(entry, sizes):
    """The gradient of an optimizer step is the same however its samples are cut into batches; some are unlabeled."""
    data = suitable(entry)[0]
    for chosen in models_for(entry, data):
        # The generator's loss compares means over a batch, and its noise is drawn batch by batch.
        for network in chosen.facts["networks"][:1]:
            options = {"adversarial_weight": 0.0} if chosen.name == "gan" else {}
            torch.manual_seed(0)
            model = GROUPS["model"].build({"name": chosen.name, **options}, spec=data.spec)
            task = build(entry, spec=data.spec, model=model.eval())
            whole = batch_of(data.train, data.spec)
            if chosen.facts["unlabeled"]:
                whole = dataclasses.replace(whole, labelled=torch.arange(len(whole)) % 3 != 0)
            gradients = []
            for cut in ((len(whole),), sizes):
                parts = [
                    dataclasses.replace(
                        whole,
                        columns={name: column[index] for name, column in whole.columns.items()},
                        index=whole.index[index],
                        labelled=None if whole.labelled is None else whole.labelled[index],
                    )
                    for index in torch.arange(len(whole)).split(cut)
                ]
                task.zero_grad()
                step_loss(task, [task.features(part) for part in parts], network).backward()
                gradients.append({n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None})
            assert gradients[0]
            for name, gradient in gradients[0].items():
                torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


# --- metrics


@contract("metric")
def test_a_metric_sees_scores(entry):
    """On the scores of a task that has them: a finite number in the declared range, at its best for a perfect prediction."""
    (data,) = [
        d()
        for d in (digits, prices)
        if ("probability" in entry.facts["scores"] and d is digits) or ("prediction" in entry.facts["scores"] and d is prices)
    ]
    target = torch.from_numpy(data.test[next(iter(data.spec.targets))])
    scores = {"target": target}
    if data.spec.classes:
        scores["probability"] = torch.nn.functional.one_hot(target, 10).float() * 0.9 + 0.01
    else:
        scores["prediction"] = target.clone()
    metric = build(entry, spec=data.spec)
    values = []
    for worse in (False, True):
        if worse:
            scores = {name: score.roll(3, 0) if name != "target" else score for name, score in scores.items()}
        metric.reset()
        metric.update(*(scores[name] for name in entry.facts["scores"]))
        values.append(float(metric.compute()))
    best = entry.facts["high"] if entry.facts["better"] == "max" else entry.facts["low"]
    assert values[0] == pytest.approx(best, abs=1e-6)
    assert entry.facts["low"] <= values[1] <= entry.facts["high"]
    assert (values[1] < values[0]) == (entry.facts["better"] == "max")


# --- data


def offline(monkeypatch):
    """Data that is not in the cache is not fetched for a test."""
    monkeypatch.setattr(fetch, "_fetch", lambda *args, **kwargs: pytest.skip("not in the cache"))
    monkeypatch.setattr(fetch, "_open", lambda *args, **kwargs: pytest.skip("not in the cache"))


@contract("data")
def test_data(entry, folder, monkeypatch):
    """The splits are what the specification says, the same again, and at most 1 % of the test images are trained on.

    Not none: CIFAR-10 and Fashion-MNIST hold a few images twice.
    """
    offline(monkeypatch)
    if required(entry):
        monkeypatch.setenv("DLFRAME_DATA", str(folder / "cache"))
    data = build(entry, folder)
    spec = data.spec
    assert check_dataset(data) is data
    for role, fields in (("inputs", spec.inputs), ("targets", spec.targets)):
        assert {field.kind for field in fields.values()} <= set(entry.facts[role])
    assert data.source
    assert data.splits
    for split in (data.train, data.validation, data.test):
        assert len(set(split.ids.tolist())) == len(split)
    assert data.train.labelled is None
    for name, field in spec.inputs.items():
        assert all(deviation > 0 for deviation in field.std)
        if field.kind == "image":
            seen, tested = ([image.tobytes() for image in split[name]] for split in (data.train, data.test))
            assert len(set(seen) & set(tested)) <= len(tested) / 100
            assert len(field.mean) == len(field.std) == field.shape[0]
            assert all(0 <= m <= 1 for m in field.mean)
    for name, field in spec.targets.items():
        if field.kind == "value":
            assert np.isfinite(data.test[name]).all()
    assert build(entry, folder).fingerprint == data.fingerprint
