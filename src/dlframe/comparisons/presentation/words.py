"""What a comparison says, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlframe.analysis.comparison import Comparison, Pair, Row
from dlframe.statistics.comparison import planning
from dlframe.statistics.comparison.differences import Difference, Parts
from dlframe.types import Metric, printable

LEVEL = "level with the best"
POWER = 0.8
"""Probability of showing a difference that is asked of a plan."""


def size(read: Metric, value: float) -> str:
    """Say a difference in the unit of the metric: "1.9 points", "0.012"."""
    if read.unit == "fraction":
        return f"{_digits(100 * value)} points"
    return f"{_digits(value)} {read.unit}".rstrip()


def of_shown(read: Metric, value: float) -> float:
    """Return a difference in the metric's own unit from one in points, where it is shown in points."""
    return value / 100 if read.unit == "fraction" else value


def _digits(value: float) -> str:
    """Write a number with three digits, or two below 1: "12.3", "1.94", "0.031"."""
    if not math.isfinite(value):
        return "undefined"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def bounds(read: Metric, difference: Difference) -> str:
    """Say an interval of a difference: "0.8 to 3.1"."""
    scale = 100.0 if read.unit == "fraction" else 1.0
    return f"{_digits(scale * difference.low)} to {_digits(scale * difference.high)}"


def p_text(p_value: float) -> str:
    """Write a p-value: "p = 0.002"."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def pair_sentence(found: Comparison, pair: Pair, detect: float = 0.0) -> str:
    """Say what a pair shows: which is better and by how much, or what it would take to see a difference.

    Args:
        found: The comparison.
        pair: Two of its models.
        detect: Difference that is worth seeing, in points of fractions, else in the metric's unit; 0 for half of the
            interval's half-width.
    """
    read, difference = found.metrics[found.metric], pair.difference
    if math.isnan(difference.p_value):
        if difference.value:
            return f"{pair.better} and {pair.worse} differ by {size(read, difference.value)}, and nothing varies: no test"
        return f"{pair.better} and {pair.worse} are equal in every run, and nothing varies: no test"
    p_value = p_text(pair.adjusted)
    if not pair.differs and difference.p_value < 0.05:  # its interval, which is of this pair alone, is beyond 0
        p_value = f"{p_text(difference.p_value)} alone, {pair.adjusted:.2g} among {len(found.pairs)} pairs"
    told = f"{size(read, difference.value)} ({bounds(read, difference)}; {p_value})"
    if pair.differs:
        return f"{pair.better} is better than {pair.worse} by {told}"
    if found.over == "splits":
        return f"no difference shown between {pair.better} and {pair.worse}: {told}"
    scores = [row.scores[found.metric] for row in found.rows if row.label in (pair.better, pair.worse)]
    if found.over == "both" and any(s.is_random and s.seeds == 1 for s in scores):
        unknown = "with one seed nothing tells whether seeds or test examples decide"
        return f"no difference shown between {pair.better} and {pair.worse}: {told}; {unknown}"
    return f"no difference shown between {pair.better} and {pair.worse}: {told}; {needs(found, difference, detect)}"


def needs(found: Comparison, difference: Difference, detect: float = 0.0) -> str:
    """Say what holds a difference back: seeds or test examples, and how many would show one."""
    read, parts = found.metrics[found.metric], difference.parts
    target = of_shown(read, detect) or _rounded((difference.high - difference.low) / 4)
    if not target or not parts.variance:
        return "nothing varies"
    plan = planning.needed(target, parts, target=POWER)
    would = f"would show {size(read, target)}"
    unit = "test examples" if not found.unit else f"test examples, in {found.groups:,} {found.unit},"
    examples = f"about {about(plan.examples * found.samples)} {would}" if plan.examples else ""
    seeds = f"about {about(plan.seeds)} seeds of each {would}" if plan.seeds else ""
    if not seeds and not examples:
        return f"seeds and the {found.samples:,} {unit} hold it back: more of one alone would not show {size(read, target)}"
    if parts.examples >= sum(parts.seeds):
        decide = f"the {found.samples:,} {unit} decide" + (f", {examples}" if examples else "")
        return (
            f"more seeds would not help: {decide}"
            if not seeds
            else f"mostly {decide}; so would {seeds.replace(would, '').strip()}"
        )
    if seeds:
        return f"the seeds decide, {seeds}"
    return f"the seeds decide, but alone they are not enough for {size(read, target)}: more test examples too"


def _rounded(value: float) -> float:
    """Round to one digit."""
    return float(f"{value:.0e}") if value and math.isfinite(value) else 0.0


def about(count: float) -> str:
    """Write a number that is known roughly: two digits."""
    return f"{float(f'{math.ceil(count):.1e}'):,.0f}"


def standing(found: Comparison, row: Row) -> str:
    """Say where a model stands beside the best one: "best", "level with the best", or "worse"."""
    best = found.rows[0]
    if row is best:
        return "best" if len(found.rows) > 1 else ""
    pair = found.pair(best.label, row.label)
    read = found.metrics[found.metric]
    if math.isnan(pair.adjusted):
        return "no test"
    return f"worse by {size(read, pair.difference.value)}" if pair.differs else LEVEL


def flags(found: Comparison) -> list[str]:
    """Say which models do not beat the trivial baseline beyond the interval of their difference."""
    if not found.baseline:
        return []
    read, name = found.metrics[found.metric], found.baseline.label
    told = []
    for row in found.rows:
        difference = found.over_baseline[row.label]
        if math.isnan(difference.p_value):
            if difference.value <= 0:
                told.append(f"{row.label} does not beat the {name}: {size(read, difference.value)}, and nothing varies")
        elif difference.low <= 0:
            interval = f"{size(read, difference.value)} ({bounds(read, difference)})"
            verb = "is worse than" if difference.high < 0 else "does not beat"
            told.append(f"{row.label} {verb} the {name}: {interval}")
    return told


def sentences(found: Comparison, detect: float = 0.0) -> list[str]:
    """Return a sentence for each pair that matters, flags, and what makes a test less sure."""
    best = found.rows[0]
    told = [pair_sentence(found, found.pair(best.label, row.label), detect) for row in found.rows[1:]]
    told += flags(found)
    for label, p_value in found.diebold_mariano.items():
        if not math.isnan(p_value) and found.baseline:
            check = f"cross-check: {label} and {found.baseline.label} by Diebold and Mariano's test"
            told.append(f"{check}, which knows no noise of training: {p_text(p_value)}")
    warnings = dict.fromkeys(text for pair in found.pairs for text in pair.difference.warnings)
    forms: dict[str, list[str]] = {}
    for row in found.rows:
        forms.setdefault(row.runs[0].form, []).append(row.label)
    if len(forms) > 1:
        own = "; ".join(f"{form} by {', '.join(labels)}" for form, labels in forms.items())
        warnings[f"{found.data} is read in several forms: {own}"] = None
    return [*told, *(f"note: {text}" for text in warnings)]


def footnotes(found: Comparison) -> list[str]:
    """Say what the intervals and tests are over."""
    counts = sorted({len(row.runs) for row in found.rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    units = f"{found.samples:,} test examples" + (f" in {found.groups:,} {found.unit}" if found.unit else "")
    units += f", left out in {found.groups:,} random groups" if found.are_random else ""
    over = {
        "both": f"seeds ({seeds}) and test examples",
        "seeds": f"seeds ({seeds}) on these test examples only",
        "examples": "test examples, for these trained networks only",
        "splits": f"{found.groups} random splits of the data",
    }[found.over]
    test = {
        "both": "Obuchowski and Rockette's test with a variance for each model",
        "seeds": "Welch's t-test",
        "examples": "paired t-test of the mean networks",
        "splits": "corrected resampled t-test (Nadeau and Bengio), as splits share samples",
    }[found.over]
    if found.design == "crossed":
        test = {"both": "Obuchowski and Rockette's test", "seeds": "paired t-test"}.get(found.over, test)
        test += " with matched seeds"
    told = [f"95 % intervals over {over}; {units}; {test}"]
    if len(found.pairs) > 1:
        told[0] += f"; p-values with Holm's correction for {len(found.pairs)} pairs"
    return told


def parts_text(parts: Parts) -> str:
    """Say where the variance of a difference comes from, in %."""
    total = parts.variance
    seeds = 100 * sum(parts.seeds) / total if total else math.nan
    return f"seeds {seeds:.0f} %, examples {100 - seeds:.0f} %"


def columns(found: Comparison) -> tuple[list[str], list[Sequence[str]]]:
    """Return the head and the rows of the table, as text."""
    several = any(len(row.runs) > 1 for row in found.rows) and found.over == "both"
    head = ["model", *found.metrics, "beside the best"]
    head += ["over seeds alone"] if several else []
    head += ["seeds", "parameters", "seconds"]
    rows: list[Sequence[str]] = []
    for row in (*found.rows, *([found.baseline] if found.baseline else [])):
        is_model = bool(row.runs)
        cells = [row.label, *(shown(read, row, metric) for metric, read in found.metrics.items())]
        cells.append(standing(found, row) if is_model else "")
        if several:
            alone = row.alone.get(found.metric)
            cells.append(_interval(found.metrics[found.metric], alone.low, alone.high) if alone else "")
        cells += (
            [str(len(row.runs)), f"{row.parameters:,}" if row.parameters else "", f"{row.seconds:.1f}"]
            if is_model
            else [""] * 3
        )
        rows.append(cells)
    return head, rows


def shown(read: Metric, row: Row, metric: str) -> str:
    """Write the mean of a row with its interval."""
    found = row.means[metric]
    interval = _interval(read, found.low, found.high)
    return f"{read.text(found.value)} ({interval})" if interval else read.text(found.value)


def _interval(read: Metric, low: float, high: float) -> str:
    if math.isnan(low) or math.isnan(high):
        return ""
    low, high = max(low, read.low), min(high, read.high)
    unit = read.text(high).partition(" ")[2]
    return f"{read.text(low).removesuffix(unit).rstrip()} to {read.text(high)}"


def heading(found: Comparison) -> str:
    """Return the first line of a comparison."""
    models = f"{len(found.rows)} models" if len(found.rows) > 1 else "1 model"
    better = "higher" if found.metrics[found.metric].better == "max" else "lower"
    title = f"{found.title}: " if found.title else ""
    return f"{title}{models} on {printable(found.data)}, {found.samples:,} test examples; {found.metric}, {better} is better"
