"""The page of a study: what it tells, that it holds everything, and that nothing that a trial holds is obeyed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlframe.reports.study_page import StudySummary, study_page
from dlframe.types import Estimate, Objective, TrialRecord

ACCURACY = Objective(metric="val/accuracy", better="max", unit="fraction")
SIZE = Objective(metric="parameters", better="min")
SUMMARY = StudySummary(
    title="cnn-9f3a1c",
    objectives=(ACCURACY,),
    total=10,
    space=("model=cnn,vit", "optimizer.lr from 0.0001, 0.1 (log)"),
    fixed=("data=digits",),
    sampler="tpe",
    pruner="median",
    command="python -m dlframe sweep 'model=choice(cnn,vit)' trials=10",
    folder="runs/sweeps/cnn-9f3a1c",
)
TRIALS = [
    TrialRecord(
        number=0,
        state="complete",
        options={"model": "cnn", "optimizer.lr": "0.0031622776601683795"},
        values=(0.9, 1e6),
        reported=((1, 0.5), (2, 0.9)),
        seconds=12.0,
        run="runs/cnn-0",
    ),
    TrialRecord(
        number=1,
        state="complete",
        options={"model": "vit", "optimizer.lr": "1e-2", "model.patch": "4"},
        values=(0.95, 2e6),
        reported=((1, 0.95),),
        seconds=8.0,
        run="runs/vit-1",
    ),
    TrialRecord(number=2, state="pruned", options={"model": "cnn", "optimizer.lr": "1e-3"}, reported=((1, 0.2),), seconds=2.0),
    TrialRecord(number=3, state="failed", options={"model": "cnn", "optimizer.lr": "0.1"}, failure="out of memory"),
    TrialRecord(number=4, state="complete", options={"model": "cnn", "optimizer.lr": "0.05"}, values=(math.nan, 1e5)),
    TrialRecord(number=5, state="running", options={"model": "cnn", "optimizer.lr": "0.002"}, run="runs/cnn-5"),
]
HOSTILE = [
    "</td><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "<img src=x onerror=alert(1)>",
    "</style><style>*{display:none}",
    "javascript:alert(1)",
    "//example.org/x",
    "&lt;b&gt;",
    "\x1b[31m\n\x00",
    "\u202egnp.exe",
    "\ud800",
    "{0} %s {title}",
]


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "png")
    return file.getvalue()


class Page(HTMLParser):
    """Tags with their attributes, the texts of cells and of the rest, styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.code = {"script": "", "style": ""}
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.code:
            self.code[self.open[-1]] += data
        else:
            self.text += data
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(records: Any = TRIALS, figures: Any = None, **changes: Any) -> Page:
    return Page(study_page(dataclasses.replace(SUMMARY, **changes), records, figures or {}))


def test_the_table_has_a_row_a_trial() -> None:
    found = page().rows
    assert found == [
        ["Trial", "State", "val/accuracy", "model", "optimizer.lr", "model.patch", "Epochs", "Time", "Failure"],
        ["0", "complete", "90.00 %", "cnn", "0.003162", "", "2", "12 s", ""],
        ["1", "complete", "95.00 %", "vit", "1e-2", "4", "1", "8 s", ""],
        ["2", "pruned", "", "cnn", "1e-3", "", "1", "2 s", ""],
        ["3", "failed", "", "cnn", "0.1", "", "", "", "out of memory"],
        ["4", "complete", "undefined", "cnn", "0.05", "", "", "", ""],
        ["5", "running", "", "cnn", "0.002", "", "", "", ""],
    ]
    rows = page().all("tr")
    assert [row.get("class") for row in rows] == [None, None, "best", None, None, None, None]


def test_the_page_tells_what_is_searched_and_what_is_best() -> None:
    found = page()
    for text in (
        "6 of 10 trials: 3 complete, 1 pruned, 1 failed, 1 running",
        "val/accuracy, trial 1",
        "The best value of 2 trials is too good on average",
        "Train these options with new seeds",
        "model=cnn,vit",
        "data=digits",
        "tpe",
        "median",
        SUMMARY.command,
    ):
        assert text in found.text
    assert "fresh seeds" not in found.text


@pytest.mark.parametrize(
    ("optimism", "words"), [(0.0125, "1.25 percentage points worse"), (-0.001, "0.10 percentage points better")]
)
def test_the_value_on_fresh_seeds_stands_beside_the_best(optimism: float, words: str) -> None:
    text = page(fresh=Estimate(0.9375, 0.91, 0.96), seeds=5, optimism=optimism).text
    for part in ("On 5 fresh seeds", "93.75 %", "95 % interval over seeds alone 91.00 to 96.00 %", words):
        assert part in text
    assert "Train these options" not in text
    undefined = page(fresh=Estimate(0.9375, math.nan, math.nan), seeds=1).text
    assert "On a fresh seed" in undefined
    assert "interval" not in undefined
    assert "nan" not in undefined


def test_of_several_objectives_the_front_is_marked() -> None:
    found = page(objectives=(ACCURACY, SIZE))
    assert "2 on the Pareto front" in found.text
    assert [row.get("class") for row in found.all("tr")[1:4]] == ["best", "best", None]
    assert found.rows[1][2:4] == ["90.00 %", "1e+06"]


def test_links_lead_from_the_page_to_the_runs(tmp_path: Path) -> None:
    links = [link["href"] for link in page().all("a")]
    assert links == ["./../../vit-1/", "./../../cnn-0/", "./../../vit-1/", "./../../cnn-5/"]
    folder = tmp_path / "runs" / "sweeps" / "s p"
    run = tmp_path / "runs" / "cnn #1 ?é"
    records = [dataclasses.replace(TRIALS[0], run=str(run))]
    assert page(records, folder=str(folder)).all("a")[0]["href"] == "./../../cnn%20%231%20%3F%C3%A9/"


def test_nothing_is_loaded_and_only_the_own_code_may_run() -> None:
    html = study_page(SUMMARY, TRIALS, {"History": png(), "Slices": b"<svg xmlns='http://www.w3.org/2000/svg'/>"})
    found = Page(html)
    (policy,) = [m["content"] or "" for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hashes = {
        tag: f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for tag, code in found.code.items()
    }
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": hashes["style"],
        "script-src": hashes["script"],
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    sources = [image["src"] or "" for image in found.all("img")]
    assert [source.partition(";")[0] for source in sources] == ["data:image/png", "data:image/svg+xml"]
    assert base64.b64decode(sources[0].partition(",")[2]) == png()
    assert [image["alt"] for image in found.all("img")] == ["History", "Slices"]
    assert not re.search(r"(?i)\b(https?:|src=\"(?!data:)|url\(|@import)", html)
    assert not any(name.startswith("on") or name == "style" for _, attributes in found.tags for name in attributes)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_trials_hold_is_text(text: str) -> None:
    options = {text: text, "model": text}
    records = [
        TrialRecord(number=0, state="complete", options=options, values=(0.5,), run=text, failure=text),
        TrialRecord(number=1, state="failed", options=options, run=text, failure=text),
    ]
    objective = Objective(metric=text, better="max", unit=text)
    texts = {"title": text, "space": (text,), "fixed": (text,), "sampler": text, "pruner": text, "command": text}
    summary = dataclasses.replace(SUMMARY, **texts, objectives=(objective,), folder=".")
    html = study_page(summary, records, {text: png()})
    html.encode()
    found, plain = Page(html), page(records[:0])
    assert {tag for tag, _ in found.tags} <= {*(tag for tag, _ in page(figures={"a": png()}).tags), "a"}
    assert found.code == plain.code
    names = {"href", "src", "alt", "class", "scope", "data-sort", "title", "lang", "charset", "content", "name", "http-equiv"}
    assert {name for _, attributes in found.tags for name in attributes} <= names
    assert all(re.fullmatch(r"\./[\w%./~-]*/", link["href"] or "") for link in found.all("a"))
    assert not re.search("[\x00\x1b\u202e]", html)
    if text.isprintable():
        assert found.rows[1][-1] == text


def test_pages_of_nothing() -> None:
    found = page([])
    assert "0 of 10 trials: none begun" in found.text
    assert "No trial is complete yet." in found.text
    assert "None yet." in found.text
    assert "No trial is complete yet." in page(TRIALS[2:]).text
    assert "too good on average" not in page(TRIALS[:1]).text


def test_what_is_no_page() -> None:
    with pytest.raises(ValueError, match=r"figure 'a': must be PNG or SVG\. Received: b'GIF89a'"):
        page(figures={"a": b"GIF89a"})
    with pytest.raises(ValueError, match="objectives: must not be empty"):
        page(objectives=())


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_sorts_the_table_asks_nobody_and_runs_nothing_else(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    extra = [
        TrialRecord(number=6 + i, state="failed", options={"model": text}, failure=text, run=text)
        for i, text in enumerate(HOSTILE)
    ]
    hostile_svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
    file = tmp_path / "page.html"
    file.write_text(study_page(SUMMARY, [*TRIALS, *extra], {"History": png(), "Slices": hostile_svg}), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        said: list[str] = []
        asked: list[str] = []
        opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(file.as_uri())
        assert [i.evaluate("image => image.naturalWidth") for i in opened.locator("img").all()] == [3, 9]

        def column(place: int) -> list[str]:
            return opened.locator(f"tbody tr td:nth-child({place})").all_text_contents()

        def click(name: str) -> None:
            opened.get_by_role("button", name=name, exact=True).click()

        click("val/accuracy")
        assert column(1)[:2] == ["0", "1"]
        click("val/accuracy")
        assert column(1)[:2] == ["1", "0"]
        assert opened.locator("th[aria-sort=descending]").text_content() == "val/accuracy"
        click("optimizer.lr")
        assert column(5)[:6] == ["1e-3", "0.002", "0.003162", "1e-2", "0.05", "0.1"]
        click("Trial")
        assert column(1) == [str(i) for i in range(6 + len(HOSTILE))]
        for scheme in ("light", "dark"):
            opened.emulate_media(color_scheme=scheme)
            colors = "element => { const s = getComputedStyle(element); return [s.color, s.backgroundColor] }"
            ink, back = (sum(map(int, re.findall(r"\d+", c))) for c in opened.locator("body").evaluate(colors))
            assert (ink < back) == (scheme == "light")
        without = browser.new_context(java_script_enabled=False).new_page()
        without.goto(file.as_uri())
        assert without.locator("tbody tr").count() == 6 + len(HOSTILE)
        assert without.locator("th").first.text_content() == "Trial"
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
