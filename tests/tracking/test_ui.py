"""What a run looks like on MLflow's page, in a real browser in front of a real server."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from dlframe.runs.journal import Journal
from dlframe.tracking import Tracker
from dlframe.tracking.ui import serve
from dlframe.types import TrackingError

matplotlib.use("agg")
SCREENSHOTS = os.environ.get("DLFRAME_SCREENSHOTS")
"""A folder for a picture of each page that the tests look at."""


CURVE = ".js-plotly-plot path.js-line[d*='L']"
"""A line through more than one point in one of MLflow's charts."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store with one finished run: a curve, parameters and a figure."""
    from matplotlib import pyplot

    folder = tmp_path_factory.mktemp("ui store")
    run = folder / "cnn on digits"
    (run / "figures").mkdir(parents=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    journal = Journal(run)
    parameters = {"model.name": "cnn", "model.width": 32, "optimizer.lr": 0.003}
    start = {"run_name": run.name, "experiment": "classification", "parameters": parameters, "tags": {}}
    journal.write("start", **start, uri=uri, artifact_root=str(folder / "artifacts"))
    tracker = Tracker.start(run)
    steps = np.arange(1, 301)
    for step in steps[::3]:
        journal.metrics(int(step), {"train/loss": float(2.3 / step**0.5)})
    for epoch in range(1, 11):
        journal.metrics(30 * epoch, {"validation/accuracy": 1 - 0.5 / epoch})
    journal.metrics(300, {"test/accuracy": 0.9871})
    figure, axes = pyplot.subplots(figsize=(4, 3))
    axes.plot(steps, 2.3 / steps**0.5)
    figure.savefig(run / "figures" / "learning_curve.png")
    pyplot.close(figure)
    journal.write("artifact", path="figures/learning_curve.png", to="figures")
    journal.write("end", status="FINISHED", message="")
    assert tracker.wait(120) == ""
    return uri


class Served:
    """`ui` in a process of its own, as `python -m dlframe ui` runs it."""

    def __init__(self, uri: str) -> None:
        self.port = free_port()
        call = "import sys; from dlframe.tracking.ui import serve; serve(sys.argv[1], sys.argv[2], port=int(sys.argv[3]))"
        folder = Path(uri.removeprefix("sqlite:///")).parent
        self.process = subprocess.Popen(
            [sys.executable, "-c", call, uri, str(folder / "artifacts"), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline().strip()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """The exit status and what was said on the error output."""
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors


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
        asked: set[str] = set()
        page.on("request", lambda request: asked.add(request.url.split("/")[2] if "://" in request.url else ""))
        page.set_default_timeout(60_000)
        yield page
        browser.close()
    assert asked <= {f"127.0.0.1:{served.port}", ""}


def look(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/ui-{name}.png")


@pytest.mark.browser
def test_the_link_leads_to_the_run_and_its_curves(served: Served, page: Any) -> None:
    link = rf"http://127\.0\.0\.1:{served.port}/#/experiments/1/runs\?workflowType=machine_learning&compareRunsMode=CHART"
    assert re.fullmatch(rf"MLflow: {link} \(Ctrl-C stops the server\)", served.said)
    page.goto(served.said.split()[1])
    page.get_by_text("cnn on digits").first.wait_for()
    for name in ("test/accuracy", "train/loss"):  # MLflow draws the third once one scrolls to it
        page.get_by_text(name, exact=True).first.wait_for()
    page.locator(CURVE).first.wait_for()
    look(page, "experiment")


@pytest.mark.browser
def test_a_run_shows_its_parameters_metrics_and_figures(served: Served, page: Any) -> None:
    page.goto(served.said.split()[1])
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
