"""Options of entries that were renamed: every row of the table holds, and an old name is answered with the new one."""

from __future__ import annotations

import pytest

from dlframe.config import load, load_saved
from dlframe.config.settings import Checkpoint, settings
from dlframe.registry import GROUPS, plugins
from dlframe.registry.renamed import RENAMED, translated
from dlframe.types import ConfigError

plugins.discover()
ROWS = [(owner, old, new) for owner, names in RENAMED.items() if "." in owner for old, new in names.items()]


@pytest.mark.parametrize(("owner", "old", "new"), ROWS, ids=lambda text: text)
def test_an_old_name_is_answered_with_the_new_one(owner, old, new):
    group, name = owner.split(".")
    entry = GROUPS[group].get(name)
    assert new in entry.parameters
    with pytest.raises(ConfigError) as error:
        entry.check({old: 1})
    assert str(error.value) == f"{group}.{old}: is called '{new}' now."


@pytest.mark.parametrize(
    ("owner", "old"), [(owner, old) for owner in ("run", "trainer", "checkpoint") for old in RENAMED[owner]]
)
def test_an_old_option_of_a_run_is_answered_with_the_new_one(owner, old):
    new = RENAMED[owner][old]
    assert new == "networks" or new in settings.get(owner).parameters
    key = old if owner == "run" else f"{owner}.{old}"
    with pytest.raises(ConfigError) as error:
        load([f"{key}=1"])
    assert str(error.value) == f"{key}: is called '{new}' now."


OLD = """
seed: 0
accumulate: 1
clip: 0.5
chunk: 0
on_nan: stop
trainer: {accelerator: cpu, limit_steps: 0, threads: 1}
checkpoint: {every: 20, unit: steps, keep: 2}
task: {name: adversarial, label_smoothing: 0.1, objective: hinge}
model: {name: gan, width: 8, hidden: 16}
data: {name: digits}
augmentation: {erasing: {name: erasing, probability: 0.3, fill: noise, aspect: 4.0}}
optimizer: {name: nadam, decay: l2}
scheduler: {name: one_cycle, warmup: 0.2, shape: cosine, momentum: cycle}
players: {}
"""


def test_the_config_of_an_earlier_version_is_translated(tmp_path):
    (tmp_path / "config.yaml").write_text(OLD)
    config = load_saved(tmp_path / "config.yaml")
    assert (config.run.gradient_clip_val, config.run.on_nan, config.trainer.num_threads) == (0.5, "raise", 1)
    assert config.checkpoint == Checkpoint(every_n_minutes=0, every_n_steps=20, max_to_keep=2)
    assert config.values["task"]["name"] == "classification"
    assert config.values["task"]["label_smoothing"] == 0.1
    assert config.values["model"]["hidden_dim"] == 16
    assert (config.values["augmentation"]["erasing"]["p"], config.values["augmentation"]["erasing"]["value"]) == (0.3, "noise")
    assert config.values["augmentation"]["erasing"]["ratio"] == (0.25, 4.0)
    assert config.values["optimizer"]["decoupled_weight_decay"] is False
    scheduler = config.values["scheduler"]
    assert [scheduler[key] for key in ("pct_start", "anneal_strategy", "cycle_momentum")] == [0.2, "cos", True]


@pytest.mark.parametrize(("optimizer", "option", "expected"), [
    ({"name": "muon", "second_moment": "none"}, "algo", "muon"),
    ({"name": "madgrad", "decay": "decoupled"}, "decoupled_weight_decay", True),
])  # fmt: skip
def test_values_that_have_other_words_are_translated(optimizer, option, expected):
    options = translated({"optimizer": optimizer})["optimizer"]
    assert GROUPS["optimizer"].get(optimizer["name"]).check(options)[option] == expected


def test_an_option_of_a_plugin_with_such_a_name_is_left_alone():
    own = {"model": {"name": "mine", "algo": "none", "ratio": 2.0, "on_nan": "stop", "momentum": "keep"}}
    assert translated(own) == own


def test_a_config_of_this_version_is_not_changed():
    values = load(["callback=[ema]", "augmentation=[crop,erasing]", "optimizer=nadam"]).values
    assert translated(values) == values
