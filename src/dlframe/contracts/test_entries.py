"""What every entry promises, whatever its group."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from dlframe.config.overrides import sweep_of, value_of
from dlframe.contracts import selection
from dlframe.contracts.building import Trial, build, equal, injected, required, task_for
from dlframe.contracts.edges import edges
from dlframe.contracts.samples import batch_of, suitable
from dlframe.contracts.selection import contract, every_entry
from dlframe.registry import REGISTRIES, plugins
from dlframe.registry.parameters import REQUIRED
from dlframe.studies.space import axis_of
from dlframe.types import ConfigError


def test_every_exemption_names_a_contract_and_gives_a_reason():
    for file in Path(__file__).parent.glob("test_*.py"):
        import_module(f"dlframe.contracts.{file.stem}")
    for entry in every_entry():
        for name, reason in entry.facts["exempt"].items():
            what, known = f"{entry.group}={entry.name}: exempt", sorted(selection.CONTRACTS)
            assert name in known, f"{what}: no contract is called '{name}'. There are: {', '.join(known)}"
            assert reason.strip(), f"{what}: '{name}' needs a reason"


def test_no_plugin_is_broken(request):
    """A plugin that is named on the command line is read when the tests are collected."""
    if not request.config.getoption("plugin", []):
        assert not plugins.broken, "; ".join(f"plugin '{name}' {fault}" for name, fault in plugins.broken.items())


@contract()
def test_documented(entry):
    """A sentence on the entry and on each option; each default is in its own range."""
    assert entry.summary.endswith("."), "the docstring's first line must be a sentence, which `list` prints"
    assert len(entry.summary) <= 120, "the docstring's first line must have at most 120 characters"
    for name, parameter in entry.parameters.items():
        assert parameter.doc.endswith("."), f"'Args:' of the docstring has no sentence on '{name}'"
        if parameter.default is not REQUIRED:
            assert parameter.check(parameter.default, name) == parameter.default, f"the default of '{name}' is not in its range"


@contract()
def test_options_that_only_scoring_reads_are_its_own(entry):
    """`test` may set them to other values."""
    assert set(entry.facts.get("scoring", ())) <= entry.parameters.keys(), "scoring names options of the entry"


@contract()
def test_reads_alike(entry):
    """Reading the source without running it gives what the imported object says."""
    entry.load()
    registry = REGISTRIES[entry.group]
    imported = registry.get(entry.name)
    if imported.factory.__init__ in (object.__init__, torch.nn.Module.__init__):
        assert entry.parameters == {}, "the source has options, and the imported class has none"
        return
    read = registry.read_object(entry.name, entry.facts, imported.factory)
    assert read.parameters == entry.parameters, "the options of the imported signature are not those of the source"
    assert list(read.parameters) == list(entry.parameters), "the options of the imported signature have another order"
    assert read.summary == entry.summary, "the imported docstring is not that of the source"


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
            assert entry.check({**required(entry), name: value})[name] == value, f"{name}={value!r} is in range, and changed"
        for value in refused:
            with pytest.raises(ConfigError) as error:
                entry.check({**required(entry), name: value})
            message = f"{entry.group}.{name}: must be {parameter.rule}. Received: {value!r}."
            assert str(error.value).startswith(message), f"the message must be: {message} Received: {error.value}"


@contract()
def test_search(entry):
    """The space that a sweep searches by default names its own options, and values in their range."""
    for option, text in entry.facts["search"].items():
        assert option in entry.parameters, f"'search' names no option: {option}"
        sweep = sweep_of(option, text)
        assert sweep, f"'search' of '{option}' must be as choice(1,2) or interval(0,1)"
        axis = axis_of(option, sweep, entry.parameters[option])
        for text in axis.samples():
            entry.parameters[option].check(value_of(option, text, [entry.parameters[option]]), option)


def as_saved(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A checked config as YAML has it."""
    return {"name": name, **{key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}}


@contract()
def test_round_trips(entry):
    """A checked config is checked to itself again, also when it has been a YAML file, OmegaConf's or a run's."""
    given = required(entry)
    configs = [entry.check(given)]
    for name, parameter in entry.parameters.items():
        allowed = [value for value in edges(parameter.annotation)[0] if value != "" or parameter.default is not REQUIRED]
        configs += [entry.check({**given, name: value}) for value in allowed]
    for config in configs:
        plain = as_saved(entry.name, config)
        forms: dict[str, Any] = {
            "checked again": config,
            "from a YAML file": OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(plain)))),
            "from a run's config": yaml.safe_load(yaml.safe_dump(plain, allow_unicode=True)),
        }
        for how, form in forms.items():
            assert entry.check(form) == config, f"{how}, it is another config: {config}"


@contract("task", "model", "augmentation", "optimizer", "scheduler", "callback", "metric", "sampler", "pruner", "executor")
def test_builds(entry):
    """It is built from the config that a run saves; data sets are so by contracts of their own."""
    plain = as_saved(entry.name, entry.check(required(entry)))
    saved = yaml.safe_load(yaml.safe_dump(plain, allow_unicode=True))
    assert REGISTRIES[entry.group].build(saved, **injected(entry)) is not None, "it was built to None"


@contract("model", "augmentation")
def test_varies(entry):
    """Another seed gives another model, another generator another batch."""
    data = suitable(entry)[0]
    if entry.group == "model":
        assert not equal(*(Trial(entry, data, seed).model.state_dict() for seed in (0, 1))), "two seeds give the same weights"
        return
    features = task_for(data).features(batch_of(data.train, data.spec))
    drawn = [build(entry, spec=data.spec)(features, torch.Generator().manual_seed(seed)).columns for seed in (0, 1)]
    assert not equal(*drawn), "two generators give the same batch"
