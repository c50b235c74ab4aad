"""Tables: which there are, what a file of one may say, and one command for several."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.comparisons import tables
from dlframe.config import load
from dlframe.runs.environment import python
from dlframe.types import ConfigError

SHORT = ["epochs=1", "tracking=none", "seeds=2"]


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def declare(name: str, text: str) -> None:
    Path("conf/table").mkdir(parents=True, exist_ok=True)
    Path(f"conf/table/{name}.yaml").write_text(text)


def test_every_preset_with_data_of_its_own_is_a_table_and_each_can_be_trained():
    known = tables.known()
    assert {"image_classification", "forecasting", "fraud_detection", "recommendation"} <= set(known)
    assert not {"table_classification", "table_regression"} & set(known), "their data are the user's"
    for table in tables.chosen(["all"]):
        keys = dict(text.split("=", 1) for text in table.overrides)
        for model in keys["model"].removeprefix("choice(").removesuffix(")").split(","):
            rest = [f"{key}={value}" for key, value in keys.items() if key not in ("model", "task") and "(" not in value]
            load([f"task={keys['task']}", f"model={model}", *rest])


def test_a_preset_without_a_file_has_its_model_and_those_without_networks():
    Path("conf/task").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - /task/class@task: classification\n  - /data: digits\n  - /model: vit\n"
    Path("conf/task/mine.yaml").write_text(text)
    (table,) = tables.chosen(["mine"])
    assert table.overrides == ("task=mine", "model=vit,lda")
    assert table.metrics == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: accuracy", "metrics: must be names of metrics. Received: 'accuracy'."),
        ("model: {name: cnn}", "model: must be a value, or a list of values."),
        ("models: [cnn]", "models: must be metrics, epochs, batch_size, or of a component. Did you mean 'model'?"),
        ("plugin_paths: [evil.py]", "plugin_paths: must be metrics"),
        ("tracking.uri: http://example.org", "tracking.uri: must be metrics"),
        ("task: nothing", "task=nothing: no such task."),
    ],
)
def test_what_a_file_may_not_say(text, message):
    declare("mine", text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        tables.chosen(["mine"])


def test_an_option_that_one_model_has_and_a_table_that_fails(capsys):
    """The table that cannot be made is told with its reason; the other is made, and both are in the file."""
    declare("small", "task: image_classification\nmodel: [mlp, lda]\nmodel.width: [8]\nmetrics: [f1, accuracy]\n")
    declare("absent", "task: fraud_detection\ndata.path: nowhere.csv\n")
    assert main(["compare", "tables=absent,small", *SHORT, "out=tables.md"]) == 1
    said = capsys.readouterr()
    assert "failed: absent: nowhere.csv: cannot be read" in said.err
    assert "small: 2 models on digits, 359 test examples; f1, higher is better" in said.out
    overview = said.out[said.out.index("table  best model") :].splitlines()
    assert re.match(r"small  lda +f1 +9\d\.\d\d % ", overview[1])
    assert overview[2].startswith("failed: absent: ")
    text = Path("tables.md").read_text()
    assert text.startswith("<!-- dlframe compare -->\n\n```sh\npython -m dlframe compare tables=absent,small")
    assert "### Small" in text
    assert "- failed: absent: " in text
    assert "width: 8" in Path("runs").glob("small-*0000/config.yaml").__next__().read_text()
    capsys.readouterr()
    assert main(["compare", "tables=small", *SHORT, "out=tables.html"]) == 0
    assert "4 jobs, 4 done before" in capsys.readouterr().out
    assert "<h2>small: 2 models on digits" in Path("tables.html").read_text()
    assert main(["compare", "tables=absent", *SHORT]) == 2
    assert "error: compare: no table could be made. nowhere.csv: cannot be read" in capsys.readouterr().err


def test_a_table_is_made_by_several_workers(capsys):
    quick = ["tables=image_classification", "model=mlp,lda", "seeds=2", "epochs=1", "tracking=none", "workers=2"]
    assert main(["compare", *quick]) == 0
    assert "2 models on digits" in capsys.readouterr().out
    assert len([*Path("runs/sweeps").glob("*/worker-*.log")]) == 2


@pytest.mark.slow
def test_a_table_that_is_killed_ten_times_is_the_same(tmp_path):
    """But for the seconds; no finished run is trained again."""
    declare("one", "task: image_classification\nmodel: [mlp, lda]\n")
    declare("two", "task: image_classification\nmodel: [mlp]\nmodel.width: [16, 32]\n")
    options = ["epochs=3", "tracking=none", "seeds=2", "checkpoint.every_n_steps=9", "out=tables.csv"]
    command = python("-m", "dlframe", "compare", "tables=one,two", *options)

    def table(folder: Path) -> list[str]:
        lines = (folder / "tables.csv").read_text().splitlines()
        place = lines[0].split(",").index("seconds")
        return [",".join(cell for i, cell in enumerate(line.split(",")) if i != place) for line in lines]

    homes = [tmp_path / name for name in ("whole", "killed")]
    for home in homes:
        home.mkdir()
        (home / "conf").symlink_to(tmp_path / "conf")
    begun = time.monotonic()
    assert subprocess.run(command, cwd=homes[0], check=False, capture_output=True).returncode == 0
    seconds, chance, kills = time.monotonic() - begun, random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen(command, cwd=homes[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert process.wait(chance.uniform(0.1, 0.6) * seconds) == 0
            break  # it has ended
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert subprocess.run(command, cwd=homes[1], check=False, capture_output=True).returncode == 0
    assert kills > 2
    assert table(homes[1]) == table(homes[0])
