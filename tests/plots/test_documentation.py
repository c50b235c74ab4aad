"""The figures of README and docs are those that their commands draw today, as `python benchmarks/figures.py` makes them."""

import re
from pathlib import Path

import pytest
from benchmarks.figures import DOCS, FIGURES, TOLERANCE, difference, drawn

SLOW = pytest.mark.slow


@pytest.mark.parametrize(("name", "other"), [("forecast", "seed=1"), pytest.param("learning_curve", "model=mlp", marks=SLOW)])
def test_a_figure_of_the_docs_is_that_of_its_command_and_of_no_other(name, other, tmp_path):
    kept = DOCS / f"{name}.png"
    assert difference(drawn(name, tmp_path), kept) < TOLERANCE
    assert difference(drawn(name, tmp_path, other), kept) > 1.3 * TOLERANCE


def test_figures_of_other_sizes_differ():
    assert difference(*(DOCS / f"{name}.png" for name in FIGURES)) == 255


def test_each_figure_of_the_docs_is_made_by_the_command_and_shown_by_a_page():
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    shown = {
        Path(name).name for page in pages for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {file.name for file in DOCS.glob("*.png")} == {f"{name}.png" for name in FIGURES}
