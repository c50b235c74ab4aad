"""What a run looks like on MLflow's page, in a real browser in front of a real server."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from tests.forked import python
from tests.tracking.served import Served

from dlframe.runs.journal import Journal
from dlframe.tracking import Tracker
from dlframe.tracking.ui import serve, show
from dlframe.types import TrackingError

matplotlib.use("agg")
SCREENSHOTS = os.environ.get("DLFRAME_SCREENSHOTS")
"""A folder for a picture of each page that the tests look at."""


CURVE = ".js-plotly-plot path.js-line[d*='L']"
"""A line through more than one point in one of MLflow's charts."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store with two finished runs."""
    folder = tmp_path_factory.mktemp("ui store")
    uri = f"sqlite:///{folder}/mlflow.db"
    write_run(folder / "mlp on digits", uri, width=64, accuracy=0.9549)
    write_run(folder / "cnn on digits", uri, width=32, accuracy=0.9871)
    return uri


def write_run(run: Path, uri: str, *, width: int, accuracy: float) -> None:
    """A run with a curve, parameters and figures, of which one is a page with a script."""
    from matplotlib import pyplot

    (run / "figures").mkdir(parents=True)
    journal = Journal(run)
    parameters = {"model.name": run.name.split()[0], "model.width": width, "optimizer.lr": 0.003}
    start = {"run_name": run.name, "experiment": "classification", "parameters": parameters, "tags": {}}
    journal.write("start", **start, uri=uri)
    tracker = Tracker.start(run)
    steps = np.arange(1, 301)
    for step in steps[::3]:
        journal.metrics(int(step), {"train/loss": float(2.3 / step**0.5)})
    for epoch in range(1, 11):
        journal.metrics(30 * epoch, {"validation/accuracy": 1 - 0.5 / epoch})
    journal.metrics(300, {"test/accuracy": accuracy})
    figure, axes = pyplot.subplots(figsize=(4, 3))
    axes.plot(steps, 2.3 / steps**0.5)
    figure.savefig(run / "figures" / "learning_curve.png")
    pyplot.close(figure)
    journal.write("artifact", path="figures/learning_curve.png", to="figures")
    journal.write("end", status="FINISHED", message="")
    assert tracker.wait(120) == ""
    # Whoever writes the store may put any file beside ours.
    for figure in (run.parent / "artifacts").rglob("learning_curve.png"):
        (figure.parent / "page.html").write_text(SCRIPT)


@pytest.fixture(scope="module")
def served(store: str) -> Iterator[Served]:
    served = Served(store)
    yield served
    assert served.end() == (0, "")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", served.port)), "the server still listens"


@pytest.fixture(scope="module")
def page(served: Served) -> Iterator[Any]:
    """A page of a headless Chromium that asks nobody but the server."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *quiet])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("response", lambda response: response.ok or REFUSED.append(told(response)))
        asked: set[str] = set()
        page.on("request", lambda request: asked.add(request.url.split("/")[2] if "://" in request.url else ""))
        page.set_default_timeout(60_000)
        yield page
        browser.close()
    assert asked <= {f"127.0.0.1:{served.port}", ""}


SCRIPT = """<title>page</title><h1>none</h1><script>
document.querySelector("h1").textContent = "script"
fetch(location.ancestorOrigins[0] + "/graphql").then(() => "read", () => "refused").then(what => {
  let cookie = "no cookie"
  try { cookie = document.cookie } catch {}
  document.querySelector("h1").textContent = `${what}, ${cookie}`
})
</script>"""
"""A file of a run that tries to use the server."""

REFUSED: list[str] = []
"""Answers that are errors."""


def told(response: Any) -> str:
    return f"{response.status} {response.request.method} {response.url}"


def look(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/ui-{name}.png")


@pytest.mark.browser
def test_the_link_leads_to_the_run_and_its_curves(served: Served, page: Any) -> None:
    charts = r"#/experiments/1/runs\?workflowType=machine_learning&compareRunsMode=CHART"
    link = rf"http://127\.0\.0\.1:{served.port}/\?token=[\w-]{{43}}{charts}"
    assert re.fullmatch(rf"MLflow: {link} \(Ctrl-C stops the server\)", served.said)
    page.goto(served.link)
    page.get_by_text("cnn on digits").first.wait_for()
    for name in ("test/accuracy", "train/loss"):  # MLflow draws the third once one scrolls to it
        page.get_by_text(name, exact=True).first.wait_for()
    page.locator(CURVE).first.wait_for()
    look(page, "experiment")


@pytest.mark.browser
def test_a_run_shows_its_parameters_metrics_and_figures(served: Served, page: Any) -> None:
    page.goto(served.link)
    page.get_by_role("link", name="cnn on digits").first.click()
    for text in ("model.width", "32", "optimizer.lr", "0.003", "test/accuracy", "0.9871", "Finished"):
        page.get_by_text(text, exact=True).first.wait_for()
    look(page, "run")

    page.get_by_role("tab", name="Model metrics").click()
    page.locator(CURVE).first.wait_for()
    look(page, "metrics")

    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("figures").first.click()
    page.get_by_text("learning_curve.png").first.click()
    image = page.locator("img[src*=learning_curve], img[src^='blob:']").first
    image.wait_for()
    assert image.evaluate("image => image.complete && image.naturalWidth") == 400
    look(page, "figure")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = rf"^port: {port} on 127\.0\.0\.1 is taken\. Try: python -m dlframe ui port=\d+$"
        with pytest.raises(TrackingError, match=taken):
            serve(f"sqlite:///{tmp_path}/mlflow.db", "", port=port)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as error:
        serve(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path))
    command = "python -m dlframe model=cnn"
    assert str(error.value) == f"tracking.uri: no store at {tmp_path}/mlflow.db yet. Create one by a run: {command}"
    assert not list(tmp_path.iterdir())


@pytest.mark.browser
def test_the_link_is_opened_by_a_file(served: Served, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookie is one of the same site only, and this is a link from elsewhere."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    show(served.link, True)
    assert opened[0].startswith("file:///")
    page.context.clear_cookies()
    page.goto(opened[0])
    page.get_by_text("cnn on digits").first.wait_for()
    page.context.clear_cookies()
    page.reload()
    page.get_by_text("Open the link that `python -m dlframe ui` printed: it has the token.").wait_for()
    REFUSED.clear()


@pytest.mark.browser
def test_a_page_in_a_run_can_use_nothing(served: Served, page: Any) -> None:
    page.goto(served.link)
    page.get_by_role("link", name="cnn on digits").first.click()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("figures").first.click()
    page.get_by_text("page.html").first.click()
    inside = page.frame_locator("iframe").get_by_role("heading")
    inside.get_by_text(",").wait_for()
    assert inside.text_content() == "refused, no cookie"
    look(page, "page")


@pytest.mark.browser
def test_runs_are_compared_and_renamed(served: Served, page: Any) -> None:
    page.goto(served.link.replace("=CHART", "=TABLE"))
    boxes = page.get_by_role("checkbox", name="Press Space to toggle row selection")
    boxes.first.click()
    boxes.nth(1).click()
    page.get_by_role("button", name="Compare").click()
    for text in ("Comparing 2 Runs from 1 Experiment", "cnn on digits", "mlp on digits"):
        page.get_by_text(text).first.wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    look(page, "compare")

    page.goto(served.link.replace("=CHART", "=TABLE"))
    boxes.nth(1).click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("another name")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    page.get_by_role("link", name="another name").wait_for()


@pytest.mark.browser
def test_the_pages_report_no_error(served: Served, page: Any) -> None:
    """What they ask for and do not get are applications that are not there."""
    link = served.link.partition("#")[0]
    for address in ("#/", "#/experiments", "#/models", "#/experiments/1/models", "#/experiments/1/traces"):
        page.goto(f"{link}{address}")
        page.wait_for_load_state("networkidle")
        assert page.get_by_text("No page of runs").count() == 0, address
    allowed = "users/current|assistant/(config|providers)"
    assert [url for url in REFUSED if not re.fullmatch(rf"404 GET .*/mlflow/({allowed})", url)] == []


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database, and longer than its header of a hundred bytes" * 9)
    answer = python(f"from dlframe.tracking.ui import serve; serve('sqlite:///{tmp_path}/mlflow.db', '')", cwd=tmp_path)
    assert answer.code == 1
    assert answer.error.splitlines()[-1].startswith(
        f"dlframe.types.errors.TrackingError: tracking.uri: MLflow cannot open {tmp_path}/mlflow.db: "
    )


def test_a_running_server_is_not_shown_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("dlframe.tracking.ui.reachable", lambda uri: None)
    answers = {"experiments/search": {"experiments": [{"experiment_id": "7"}]}, "runs/search": {}}
    monkeypatch.setattr("dlframe.tracking.ui.ask", lambda server, what, request: answers[what])
    serve("http://user:password@localhost:1", "")
    charts = "#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART"
    assert capsys.readouterr().out == f"MLflow: http://localhost:1/{charts}\n"
