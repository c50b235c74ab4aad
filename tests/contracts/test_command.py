"""The contract tests as the author of a plugin runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.forked import python

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
QUIET = ["-n", "0", "-p", "no:cacheprovider"]
MAIN = "import sys; from dlframe.contracts.__main__ import main; sys.exit(main(sys.argv[1:]))"


def test_plugins_of_the_current_directory_hold(tmp_path):
    """The worked examples, and two tasks of foreign kinds with their data and models, by pytest's own command."""
    foreign = ROOT / "tests" / "foreign"
    for plugin in (*(ROOT / "plugins").iterdir(), foreign / "boxes", foreign / "tokens"):
        if plugin.is_dir() and not plugin.name.startswith("_"):
            shutil.copytree(plugin, tmp_path / "plugins" / plugin.name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DLFRAME", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-v", "--pyargs", "dlframe.contracts"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = ("model/convmixer", "optimizer/prodigy", "task/boxes", "data/canvas", "model/grid_detector", "task/tagging")
    for name in (*names, "data/words", "model/tagger", "model/letter_counts"):
        assert f"[{name}] PASSED" in done.stdout
    assert "[model/cnn]" not in done.stdout, "a built-in is not the author's"
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED [")]
    assert [line.partition(": ")[2] for line in skipped] == [
        "model=letter_counts is exempt: It draws nothing.",
        "model=letter_counts is exempt: A letter alone does not tell whether a vowel is the last one.",
    ]


BROKEN = {
    "documented[model/undocumented]": "'Args:' of the docstring has no sentence on 'depth'",
    "shape[model/many_classes]": "the output must have shape (16, 10). Received: (16, 100)",
    "gradients[model/unused]": "no gradient reaches forgotten.weight, forgotten.bias: use it in `forward`,",
    "saves[model/forgetful]": "a restored model answers otherwise: put what it learns into its state",
    "data[data/uneven]": "data=uneven: 'tags' must have the lengths of 'letters', sample 1 (in the train split).",
    "scores_do_not_depend_on_neighbors[task/curved]": "score 'probability' of a sample depends on its neighbors: alone",
    "a_step_may_be_cut[task/curved-unequal]": "is another where 16 samples are cut into 10 and 6: let counts() count",
    "augments[augmentation/overwriting]": "it writes to its input: 'image' has changed. Change a copy, by batch",
    "draws_from_the_generator[augmentation/unseeded]": "it draws from torch's own generator: pass generator=",
    "resumes[optimizer/counting]": "restored from its state_dict, it goes on otherwise: keep all that steps depend",
    "learning_rate[scheduler/soaring-10]": "with lr=0.1, the rate must stay from 0 to 0.1. Received: 0.2",
    "is_a_callback[callback/stranger]": "it must be a lightning.pytorch.Callback. Received: Stranger",
    "a_metric_does_not_depend_on_the_order[metric/late]": "the samples in another order have another value: ",
    "an_undefined_metric_is_nan[metric/late]": "it must be NaN or in its range, 0.0 to 1.0. Received: 2.0",
    "a_metric_sees_scores[metric/error]": "a perfect prediction must have 1.0. Received: 0.0",
}
"""Contract and entry of tests/contracts/broken -> what the author is told."""


def test_what_breaks_a_contract_is_told_in_a_sentence(tmp_path):
    done = python(MAIN, str(HERE / "broken"), *QUIET, cwd=tmp_path)
    assert done.code == 1, done.error
    told = {part.split(maxsplit=1)[0]: part for part in re.split(r"^_+ test_", done.out, flags=re.MULTILINE)[1:]}
    for contract, sentence in BROKEN.items():
        assert sentence in told.get(contract, ""), f"{contract}: {done.out}"
    assert "22 failed, 141 passed, 8 skipped" in done.out, done.out  # those above, and the same in other forms
    assert [line.partition(": ")[2] for line in done.out.splitlines() if line.startswith("SKIPPED [")] == [
        "model=listener was not tried: no data set here has the audio inputs and class targets that it takes. "
        "Register one beside it, or name one: sample={'name': ...}"
    ]


def test_there_must_be_a_plugin(tmp_path):
    for arguments, told in {
        (): f"error: no entry of a plugin is in {tmp_path / 'plugins'} or installed. Try: python -m dlframe.contracts PATH",
        ("nowhere.py",): "error: plugin_paths: must be a folder or a .py file. Received: 'nowhere.py'.",
    }.items():
        done = python(MAIN, *arguments, *QUIET, cwd=tmp_path)
        assert done.code
        assert told in done.out + done.error
        assert not done.torch
