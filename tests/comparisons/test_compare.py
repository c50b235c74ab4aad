"""`compare`, on runs of real training: the numbers anew from the predictions, the words, and what it refuses."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import stats

from dlframe.analysis.runs import read_run
from dlframe.cli import main
from dlframe.comparisons.compare import Options, compare_runs
from dlframe.comparisons.presentation.gallery import gallery

SHORT = ["epochs=2", "tracking=none", "model.width=16", "figures=none"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two models with three seeds each, and one without randomness."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["compare", "model=mlp", "model.width=16,64", "epochs=2", "tracking=none", "seeds=3", "name=both"]) == 0
        assert main(["-m", "model=lda", "seed=0", "tracking=none", "name=closed"]) == 0
        assert main(["-m", "task=forecasting", "model=dlinear", "data=sp500", "epochs=1", "tracking=none", "seed=0,1",
                     "name=prices"]) == 0  # fmt: skip
        yield folder


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def rows(path: str) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def right(number: int) -> np.ndarray:
    table = pandas.read_parquet(f"runs/both-{number:04d}/predictions.parquet").sort_values("id")
    return (table.target == table.prediction).to_numpy(float)


# --- numbers


def test_the_numbers_are_those_of_the_predictions(capsys):
    """Variances over seeds, covariances over examples, Satterthwaite's degrees of freedom: by hand, from the tables."""
    assert main(["compare", "both", "out=numbers.csv"]) == 0
    small, large = np.array([right(i) for i in (0, 1, 2)]), np.array([right(i) for i in (3, 4, 5)])
    n = small.shape[1]
    variance = [y.mean(1).var(ddof=1) / 3 for y in (small, large)]
    within = [np.mean([np.cov(y[i], y[j])[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))]) / n for y in (small, large)]
    across = np.mean([np.cov(a, b)[0, 1] for a in small for b in large]) / n
    examples = max(sum(within) - 2 * across, 0)
    total = sum(variance) + examples
    freedom = total**2 / (sum(v**2 / 2 for v in variance) + examples**2 / (n - 1))
    difference = large.mean() - small.mean()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total)
    found = rows("numbers.csv")
    assert set(found) == {"mlp model.width=16", "mlp model.width=64", "majority class"}
    worse = found["mlp model.width=16"]
    assert float(worse["mean"]) == pytest.approx(small.mean())
    assert float(worse["difference_to_best"]) == pytest.approx(difference)
    assert [float(worse["difference_low"]), float(worse["difference_high"])] == pytest.approx(
        [difference - half, difference + half]
    )
    assert float(worse["p_value_holm"]) == pytest.approx(2 * stats.t.sf(difference / np.sqrt(total), freedom))
    said = capsys.readouterr().out
    assert re.search(
        r"mlp model\.width=64 is better than mlp model\.width=16 by [\d.]+ points \([\d.]+ to [\d.]+; p [=<] ", said
    )


def test_metrics_side_by_side_and_the_narrower_questions():
    assert main(["compare", "both", "metrics=[f1,accuracy]", "over=seeds", "out=seeds.csv"]) == 0
    values = [json.loads(Path(f"runs/both-{i:04d}/result.json").read_text())["metrics"]["f1"] for i in range(6)]
    welch = stats.ttest_ind(values[3:], values[:3], equal_var=False)[1]
    with open("seeds.csv", encoding="utf-8") as file:
        (row,) = (r for r in csv.DictReader(file) if r["model"].endswith("=16") and r["metric"] == "f1")
    assert float(row["p_value_holm"]) == pytest.approx(welch, rel=1e-4)
    assert main(["compare", "runs/both-0000", "runs/both-0003", "over=examples", "out=one.csv"]) == 0
    paired = stats.ttest_1samp(right(3) - right(0), 0.0)[1]
    (worse,) = (row for row in rows("one.csv").values() if row["p_value_holm"])
    assert float(worse["p_value_holm"]) == pytest.approx(paired)


def test_a_model_without_randomness_and_another_order_of_rows(capsys):
    """Rows are paired by id, whatever their order."""
    table = pandas.read_parquet("runs/closed-0000/predictions.parquet").sample(frac=1, random_state=0)
    shutil.copytree("runs/closed-0000", "runs/shuffled")
    table.to_parquet("runs/shuffled/predictions.parquet")
    assert main(["compare", "both", "closed", "out=a.csv"]) == 0
    assert main(["compare", "both", "runs/shuffled", "out=b.csv"]) == 0
    assert rows("a.csv") == rows("b.csv")
    assert "note" not in capsys.readouterr().out
    shutil.rmtree("runs/shuffled")


def test_forecasts_are_compared_with_the_naive_one_in_blocks(capsys):
    assert main(["compare", "prices"]) == 0
    said = capsys.readouterr().out
    assert "1,007 test examples in 20 blocks of 50 neighbors" in said
    assert re.search(r"dlinear (does not beat|is worse than) the naive forecast", said)


def test_the_same_command_trains_nothing_again(capsys):
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("both-*/result.json")}
    assert main(["compare", "model=mlp", "model.width=16,64", "epochs=2", "tracking=none", "seeds=3", "name=both"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").glob("both-*/result.json")} == before
    said = capsys.readouterr().out
    assert "compare both: 6 jobs, 6 done before" in said
    page = Path("runs/sweeps/both/report.html").read_text()
    assert page.count("<figure>") == 5
    assert "compare model=mlp model.width=16,64" in page


def test_a_run_that_fails_leaves_the_others_a_table(capsys):
    options = [
        "compare",
        "model=mlp",
        "optimizer=sgd",
        "optimizer.lr=0.01,1e30",
        "epochs=1",
        "tracking=none",
        "seeds=2",
        "name=f",
    ]
    assert main(options) == 1
    said = capsys.readouterr().out
    assert "failed: optimizer.lr=1e30 seed=0: weights or buffers are not finite" in said.replace("1e+30", "1e30")
    assert "1 model on digits, 359 test examples" in said


@pytest.mark.parametrize("ending", [".md", ".tex", ".html", ".txt"])
def test_every_format_says_the_same(ending, capsys):
    Path(f"table{ending}").unlink(missing_ok=True)
    assert main(["compare", "both", "closed", f"out=table{ending}"]) == 0
    text = Path(f"table{ending}").read_text()
    for label in ("lda", "majority class", "points"):
        assert label in text
    if ending == ".tex":
        assert text.count(r"\\") == 5
        assert r"model.width=64" in text
        assert "\\%" in text
        assert r"\textbf{" in text


def test_a_block_of_a_markdown_file_is_replaced_and_no_other_file_overwritten(capsys):
    Path("notes.md").write_text("# Mine\n\n<!-- dlframe compare -->\nold\n<!-- end of dlframe compare -->\n\nThe end.\n")
    command = "```sh\npython -m dlframe compare both out=notes.md\n```\n"
    for _ in range(2):
        assert main(["compare", "both", "out=notes.md"]) == 0
        text = Path("notes.md").read_text()
        assert text.startswith(f"# Mine\n\n<!-- dlframe compare -->\n\n{command}\n| model |")
        assert text.endswith("\n<!-- end of dlframe compare -->\n\nThe end.\n")
        assert "old" not in text
    Path("notes.md").write_text(f"{text}\n<!-- dlframe compare -->\n\n<!-- end of dlframe compare -->\n")
    assert main(["compare", "both", "out=notes.md", "metrics=f1"]) == 0
    assert main(["compare", "both", "out=notes.md"]) == 0
    assert Path("notes.md").read_text().startswith(text), "each command has the block that it has made"
    assert Path("notes.md").read_text().count("| model | f1 |") == 1
    assert main(["compare", "both", "out=notes.md", "metrics=precision"]) == 2
    assert "out: notes.md has 2 blocks of tables, of which one must be empty or made by" in capsys.readouterr().err
    Path("letter.md").write_text("Dear reader,\n")
    capsys.readouterr()
    assert main(["compare", "both", "out=letter.md"]) == 2
    assert "out: letter.md is there, and must have the lines '<!-- dlframe compare -->'" in capsys.readouterr().err
    assert Path("letter.md").read_text() == "Dear reader,\n"
    Path("notes.md").write_text(text)
    assert main(["compare", "both", "out=notes.md", "metrics=f1"]) == 0
    told = "written: notes.md, in place of what was made by: python -m dlframe compare both out=notes.md\n"
    assert told in capsys.readouterr().out


def test_areas_of_probabilities_are_compared_though_no_run_has_computed_them():
    """From the tables: scikit-learn's AUROC of each class against the others."""
    from sklearn.metrics import roc_auc_score

    assert main(["compare", "both", "metrics=auroc,average_precision", "out=areas.csv"]) == 0
    found = rows("areas.csv")  # the last metric of each model
    with open("areas.csv", encoding="utf-8") as file:
        auroc = {row["model"]: float(row["mean"]) for row in csv.DictReader(file) if row["metric"] == "auroc"}
    tables = [pandas.read_parquet(f"runs/both-{i:04d}/predictions.parquet") for i in range(3)]
    expected = [roc_auc_score(t.target, np.stack(t.probabilities.to_list()), multi_class="ovr") for t in tables]
    assert auroc["mlp model.width=16"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert auroc["majority class"] == 0.5
    metrics = [json.loads(Path(f"runs/both-{i:04d}/result.json").read_text())["metrics"] for i in range(3)]
    assert float(found["mlp model.width=16"]["mean"]) == pytest.approx(np.mean([m["average_precision"] for m in metrics]))


def test_the_examples_of_a_page_are_those_that_only_the_better_model_gets_right():
    assert main(["compare", "both", "out=examples.html"]) == 0
    page = html.unescape(Path("examples.html").read_text())
    assert "Examples: mlp model.width=64 gets them right" in page
    assert page.count("<figure>") == 5
    found = gallery(compare_runs([read_run(Path(f"runs/both-{i:04d}")) for i in range(6)], Options())[0])
    assert found
    assert found.images is not None
    assert {image.shape for image in found.images} == {(1, 8, 8)}
    small, large = np.mean([right(i) for i in (0, 1, 2)], axis=0), np.mean([right(i) for i in (3, 4, 5)], axis=0)
    ids = pandas.read_parquet("runs/both-0000/predictions.parquet").sort_values("id").id.to_numpy()
    gap = dict(zip(map(str, ids), large - small, strict=True))
    assert [gap[name] for name in found.ids] == sorted(gap.values(), reverse=True)[: len(found.ids)]


def test_matched_seeds_and_random_splits(capsys):
    """Paired t-test of the differences over matched seeds; Nadeau and Bengio's over splits, from the results by hand."""
    assert main(["compare", "both", "design=crossed", "over=seeds", "out=crossed.csv"]) == 0
    assert "paired t-test with matched seeds" in capsys.readouterr().out
    values = np.array([right(i).mean() for i in range(6)]).reshape(2, 3)
    (worse,) = (row for row in rows("crossed.csv").values() if row["p_value_holm"])
    assert float(worse["p_value_holm"]) == pytest.approx(stats.ttest_rel(values[1], values[0])[1])
    for i in range(6):
        target = copied(f"both-{i:04d}", f"split-{i}")
        config = (target / "config.yaml").read_text()
        (target / "config.yaml").write_text(config.replace("data:\n", f"data:\n  split_seed: {i % 3}\n"))
        facts = json.loads((target / "data.json").read_text())
        (target / "data.json").write_text(json.dumps({**facts, "fingerprint": f"{i % 3:012d}"}))
    assert main(["compare", *(f"runs/split-{i}" for i in range(6)), "out=splits.csv"]) == 0
    assert "corrected resampled t-test (Nadeau and Bengio), as splits share samples" in capsys.readouterr().out
    gaps = values[1] - values[0]
    statistic = gaps.mean() / np.sqrt((1 / 3 + 359 / 1078) * gaps.var(ddof=1))
    (worse,) = (row for row in rows("splits.csv").values() if row["p_value_holm"])
    assert float(worse["p_value_holm"]) == pytest.approx(2 * stats.t.sf(abs(statistic), 2))
    for i in range(6):
        shutil.rmtree(f"runs/split-{i}")


# --- refusals


def copied(run: str, name: str) -> Path:
    target = Path("runs", name)
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(Path("runs", run), target)
    return target


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare: requires runs, or options of runs to train"),
        (["nope"], "compare: no such run. Received: 'nope'."),
        (["runs"], "compare: runs is no run directory"),
        (["both", "model=cnn"], "compare: takes runs, or options of runs to train. Received both: both and model=cnn"),
        (
            ["both", "metrics=[kappa]"],
            "compare: no metric 'kappa' follows from the predictions of runs/both-0000. Choose from: accuracy",
        ),
        (["both", "prices"], "compare: "),
        (["both", "seeds=0"], "seeds: must be int"),
        (["both", "detect=-1"], "detect: must be"),
        (["both", "detect=0"], "detect: must be float > 0"),
        (["both", "design=crossed", "runs/closed-0000", "runs/missing"], "compare: no such run. Received: 'runs/missing'."),
        (["runs/both-0000", "runs/both-0004", "design=crossed"], "design: crossed requires the same seeds of each model"),
        (["tables=nothing"], "tables: no such table. Received: 'nothing'. Choose from: all"),
        (["tables=forecasting,all"], "tables: must be all, or names."),
        (["tables=forecasting,forecasting"], "tables: must be given once."),
        (["tables=forecasting", "both"], "compare: takes runs, or tables to make. Received both: both and"),
        (["tables=forecasting", "task=ranking"], "compare: no table could be made. task: a table has its own."),
        (["tables=forecasting", "seeds=0"], "seeds: must be int"),
        (["tables="], "tables: must be list of str"),
        (["both", "over=runs"], "over: must be"),
        (["both", "out=table.pdf"], "out: must end in .txt, .md, .tex, .csv, .html. Received: 'table.pdf'."),
        (["both", "out=nowhere/table.md"], "out: nowhere/table.md cannot be written: No such file or directory."),
        (["both", "ouput=x.md"], "compare: takes runs, or options of runs to train"),
        (["runs/both-0000", "runs/both-0003", "over=seeds"], "compare: mlp model.width="),
    ],
)
def test_mistakes(arguments, message, capsys):
    status = main(["compare", *arguments])
    error = capsys.readouterr().err
    if arguments == ["both", "prices"]:  # two data sets, each with its own table
        assert status == 0
        return
    assert status == 2
    assert error.splitlines()[-1].startswith(f"error: {message}")
    assert error.count("\n") == 1 or "failed: forecasting" in error


def changed(name: str, change) -> None:
    target = copied("both-0001", name)
    table = pandas.read_parquet(target / "predictions.parquet")
    change(table, target).to_parquet(target / "predictions.parquet")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "fewer",
            lambda table, _: table.iloc[:-3],
            "was tested on other samples than runs/both-0003: 0 are only in the first, 3 only in",
        ),
        ("others", lambda table, _: table.assign(id=table.id + 5000), "was tested on other samples"),
        ("twice", lambda table, _: table.assign(id=0), "358 ids of test samples are there twice"),
        (
            "targets",
            lambda table, _: table.assign(target=table.target[::-1].to_numpy()),
            "has other targets than runs/both-0003",
        ),
        ("better", lambda table, _: table.assign(prediction=table.target), "gives accuracy 1. runs/better says 0."),
        ("lacks", lambda table, _: table.drop(columns="prediction"), "has no column 'prediction'"),
        (
            "null",
            lambda table, _: table.assign(prediction=table.prediction.where(table.id != 2)),
            "column 'prediction' lacks 1 values",
        ),
        ("empty", lambda table, _: table.iloc[:0], "has no ids of test samples"),
    ],
)
def test_predictions_that_cannot_be_compared(name, change, message, capsys):
    changed(name, change)
    assert main(["compare", "runs/both-0003", f"runs/{name}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    shutil.rmtree(f"runs/{name}")


def test_folders_that_are_damaged(capsys):
    def told(change) -> str:
        target = copied("both-0001", "damaged")
        change(target)
        assert main(["compare", "runs/both-0003", "runs/damaged"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "has not ended" in told(lambda run: (run / "result.json").unlink())
    assert "no result of a run" in told(lambda run: (run / "result.json").write_text("{"))
    assert "cannot be read" in told(lambda run: (run / "predictions.parquet").write_bytes(b"PAR1 and no more"))
    assert "cannot be read" in told(lambda run: (run / "predictions.parquet").unlink())
    assert "is damaged" in told(lambda run: (run / "data.json").write_text("[]"))
    assert "must be a file" in told(
        lambda run: ((run / "predictions.parquet").unlink(), os.symlink("/etc/passwd", run / "predictions.parquet"))
    )

    def without_forms(run: Path) -> None:
        result = json.loads((run / "result.json").read_text())
        del result["forms"]
        (run / "result.json").write_text(json.dumps(result))

    assert "It was trained by an earlier version: train it again" in told(without_forms)


def test_the_same_run_twice_counts_once_and_a_copy_is_refused(capsys):
    assert main(["compare", "both", "runs/both-0000", "out=again.csv"]) == 0
    assert rows("again.csv")["mlp model.width=16"]["seeds"] == "3"
    copied("both-0000", "copy")
    capsys.readouterr()
    assert main(["compare", "both", "runs/copy"]) == 2
    assert "are the same model with the same seed. Leave one out" in capsys.readouterr().err
    shutil.rmtree("runs/copy")


def test_one_seed_says_what_is_left_out(capsys):
    assert main(["compare", "runs/both-0000", "runs/both-0003"]) == 0
    said = capsys.readouterr().out
    assert "note: one seed: the noise of training is left out" in said


def test_other_data_under_one_name_are_refused(capsys):
    target = copied("both-0001", "elsewhere")
    facts = json.loads((target / "data.json").read_text())
    (target / "data.json").write_text(json.dumps({**facts, "fingerprint": "0" * 12}))
    assert main(["compare", "runs/both-0003", "runs/elsewhere"]) == 2
    assert "have other data or another split, both called digits" in capsys.readouterr().err
    shutil.rmtree(target)


# --- what it takes, and again


def test_a_plan_gives_the_power_that_it_says(capsys):
    """The seeds that are told, put into the formula for the difference of two means with as many seeds."""
    assert main(["plan", "both", "detect=10", "out=power.png"]) == 0
    said = capsys.readouterr().out
    assert "to see 10.0 points with a chance of 80 %" in said
    small, large = np.array([right(i) for i in (0, 1, 2)]), np.array([right(i) for i in (3, 4, 5)])
    share = float(re.search(r"the variance: seeds (\d+) %", said)[1])  # type: ignore[index]
    seeds = sum(y.mean(1).var(ddof=1) / 3 for y in (small, large))
    within = [np.mean([np.cov(y[i], y[j])[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))]) / 359 for y in (small, large)]
    examples = max(sum(within) - 2 * np.mean([np.cov(a, b)[0, 1] for a in small for b in large]) / 359, 0)
    assert share == pytest.approx(100 * seeds / (seeds + examples), abs=0.51)
    assert Path("power.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/both-0000", "runs/both-0003"], "plan: requires two seeds of each model"),
        (["closed"], "plan: requires two models"),
        (["both", "prices"], "plan: takes runs on one data set"),
        (["both", "detect=-1"], "detect: must be"),
        (["both", "out=x.pdf"], "out: must end in .png"),
    ],
)
def test_mistakes_of_a_plan(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_a_run_is_reproduced_to_the_bit(capsys):
    assert main(["reproduce", "runs/both-0001", "runs=again"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "identical: the same weights and metrics, bit for bit"
    assert main(["compare", "both"]) == 0, "the new run is none of the study's"


@pytest.mark.parametrize(
    ("was", "now", "status", "verdict"),
    [("\nseed: 1", "\nseed: 7", 0, "within the noise"), ("\n  lr: 0.001", "\n  lr: 1.0e-09", 1, "not reproduced")],
)
def test_another_training_is_told_apart(was, now, status, verdict, capsys):
    """Of a record that was changed afterwards: a run with another seed, and one that learns nothing."""
    target = copied("both-0004", "altered")
    config = "\n" + (target / "config.yaml").read_text()
    assert config.count(was) == 1
    (target / "config.yaml").write_text(config.replace(was, now))
    assert main(["reproduce", "runs/altered", "runs=again"]) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith(verdict)
    shutil.rmtree(target)


def test_what_has_changed_since_is_told_first(capsys):
    target = copied("both-0001", "earlier")
    environment = json.loads((target / "environment.json").read_text())
    environment["packages"]["torch"] = "2.0.0"
    (target / "environment.json").write_text(json.dumps(environment))
    assert main(["reproduce", "runs/earlier", "runs=again"]) == 0
    assert re.match(r"note: torch was 2\.0\.0 and is \d", capsys.readouterr().err)
    (target / "environment.json").write_text("[]")
    assert main(["reproduce", "runs/earlier", "runs=again"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert main(["reproduce"]) == 2
    shutil.rmtree(target)


def test_runs_of_other_studies_are_taken_instead_of_training(capsys):
    """Four of the six runs are those of `both`, under their own names; two seeds are new."""
    before = {path.name for path in Path("runs").iterdir()}
    options = ["compare", "model=mlp", "model.width=16,64", "epochs=2", "tracking=none", "seed=1,2,5", "name=more"]
    assert main(options) == 0
    new = {path.name for path in Path("runs").iterdir()} - before
    assert new == {"more-0002", "more-0005"}
    assert main(["compare", "more", "out=more.csv"]) == 0
    assert {row["seeds"] for row in rows("more.csv").values() if row["parameters"]} == {"3"}
    values = [
        right(1).mean(),
        right(2).mean(),
        json.loads(Path("runs/more-0002/result.json").read_text())["metrics"]["accuracy"],
    ]
    assert float(rows("more.csv")["mlp model.width=16"]["mean"]) == pytest.approx(np.mean(values))
    capsys.readouterr()
    environment = Path("runs/both-0001/environment.json")
    text = environment.read_text()
    environment.write_text(text.replace('"torch": "', '"torch": "0.'))  # another version does not count as the same run
    assert main([*options[:-1], "name=anew"]) == 0
    assert (Path("runs/anew-0000") / "result.json").exists()
    assert not Path("runs/anew-0001").exists()
    environment.write_text(text)


def test_stacked_trials_take_finished_runs_too(capsys):
    before = {path.name for path in Path("runs").iterdir()}
    options = ["model=mlp", "model.width=16", "epochs=2", "tracking=none", "seed=0,1,2", "vectorize=3", "name=stacked"]
    assert main(["compare", *options]) == 0
    assert {path.name for path in Path("runs").iterdir()} == before


def test_a_page_speaks_of_the_difference_that_is_asked_for(capsys):
    models = ["model=mlp", "model.width=64,65", "epochs=2", "tracking=none", "seeds=2", "name=alike", "detect=0.25"]
    assert main(["compare", *models]) == 0
    (said,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("no difference shown"))
    assert "0.25 points" in said
    assert f"<p>{said}</p>" in html.unescape(Path("runs/sweeps/alike/report.html").read_text())
    assert main(["compare", "alike", "detect=0.25", "out=asked.html"]) == 0
    assert f"<p>{said}</p>" in html.unescape(Path("asked.html").read_text())


def test_models_that_read_the_same_data_in_other_forms_are_compared(capsys):
    """As models do that expect images of another size; a form alone does not make other data the same."""
    target = copied("both-0001", "larger")
    facts = json.loads((target / "data.json").read_text())
    facts["inputs"]["image"]["shape"] = [1, 16, 16]
    (target / "data.json").write_text(json.dumps({**facts, "fingerprint": "0" * 12}))
    assert main(["compare", "runs/both-0003", "runs/larger"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: digits is read in several forms: image 1x" in said
    assert "image 1x16x16 by " in said
    (target / "data.json").write_text(json.dumps({**facts, "fingerprint": "0" * 12, "test": 12}))
    assert main(["compare", "runs/both-0003", "runs/larger"]) == 2
    assert "have other data or another split, both called digits" in capsys.readouterr().err
    shutil.rmtree(target)


def test_a_run_of_the_first_versions_does_not_say_its_form():
    """Their data.json has no columns: the same data are compared, and others refused as before."""
    target = copied("both-0001", "first")
    facts = json.loads((target / "data.json").read_text())
    kept = {key: value for key, value in facts.items() if key not in ("inputs", "targets")}
    (target / "data.json").write_text(json.dumps(kept))
    assert main(["compare", "runs/both-0003", "runs/first"]) == 0
    (target / "data.json").write_text(json.dumps({**kept, "fingerprint": "0" * 12}))
    assert main(["compare", "runs/both-0003", "runs/first"]) == 2
    shutil.rmtree(target)
