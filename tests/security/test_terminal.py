"""What files, servers and names bring to the terminal: none of it is obeyed there."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlframe.cli import main
from dlframe.reports import table
from dlframe.reports.table import Row
from dlframe.runs.run_directory import warn_of_versions
from dlframe.tracking.store import connection_error
from dlframe.tracking.ui import show
from dlframe.types import DlframeError, command_line, printable, say

SOURCE = Path(sys.modules["dlframe"].__file__ or "").parent
PAINTS = {
    "color": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "screen": "\x1b[2J\x1b[H",
    "c1": "\x9b31mred",
    "c1_string": "\x9d0;owned\x9c",
    "override": "\u202egnp.exe",
    "isolate": "\u2067abc\u2069",
    "return": "harmless\rerror: owned",
    "backspace": "harmless\x08\x08\x08owned",
    "delete": "a\x7f",
    "unseen": "wid\u200bth\u061c\xad",
}
"""What a terminal would obey."""
paint = pytest.mark.parametrize("paint", PAINTS.values(), ids=PAINTS)


def harmless(text: str) -> str:
    """The text, without anything that a terminal obeys but ends of lines."""
    emoji = "🧑\N{ZERO WIDTH JOINER}"
    obeyed = [c for c in text.replace(emoji, "") if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}]
    assert obeyed == []
    return text


def seen(capsys: pytest.CaptureFixture[str]) -> str:
    return harmless("".join(capsys.readouterr()))


@paint
def test_a_line(paint: str, capsys: pytest.CaptureFixture[str]) -> None:
    say("first", f"name\nerror: {paint}", error=True)
    lines = seen(capsys).split("\n")
    assert len(lines) == 3
    assert lines[1].startswith("name\\nerror: ")


def test_what_is_text_stays(capsys: pytest.CaptureFixture[str]) -> None:
    text = "naïve 猫 🧑‍💻 עברית عربي C:\\new 100 % …"
    say(text, printable(text))
    say()
    assert seen(capsys) == f"{text}\n{text}\n"


@pytest.mark.parametrize("sign", [*"\u200b\u200c\u200d\u200e\u200f\u061c\u2028\u2029\ufeff\xad\u2060"], ids=ascii)
def test_what_is_not_seen_is_shown(sign: str) -> None:
    assert printable(f"wid{sign}th") == f"wid{ascii(sign)[1:-1]}th"


PLUGIN = '''from dlframe.registry import models
from dlframe.types import DataSpec

@models.register("painted")
def painted(spec: DataSpec, *, size: int = 1):
    """{}.

    Args:
        size: {}
    """
'''


@paint
@pytest.mark.parametrize(
    "command", [["list", "model"], ["show", "model=painted"], ["model=painted", "model.size=x"]], ids=" ".join
)
def test_a_docstring(command: list[str], paint: str, tmp_path: Path) -> None:
    if "\r" in paint:
        pytest.skip("ends a line of Python")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN.format(f"Text {paint}", f"Text {paint}"), encoding="utf-8")
    out = said(command, tmp_path)
    assert "painted" in out or "model.size" in out


@paint
@pytest.mark.parametrize("command", [["list", "experiment"], ["show", "experiment=x"], ["experiment=x"]], ids=" ".join)
def test_a_yaml_file(command: list[str], paint: str, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text(f"# Comment {paint}\nseed: 'text {paint}'\n", encoding="utf-8")
    assert "x" in said(command, tmp_path)


@paint
@pytest.mark.parametrize("where", ["file of a plugin", "file of yaml", "run"])
def test_a_name_of_a_file(where: str, paint: str, tmp_path: Path) -> None:
    if where == "run":
        (tmp_path / f"a{paint.replace('/', '')}").mkdir()
        commands = [
            ["test", f"a{paint.replace('/', '')}"],
            ["predict", f"a{paint.replace('/', '')}", "x.png"],
            ["sync", f"a{paint}"],
        ]
    else:
        folder, suffix = {"file of a plugin": ("plugins", "py"), "file of yaml": ("conf/experiment", "yaml")}[where]
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"a{paint.replace('/', '')}.{suffix}").write_text("1 +")
        commands = [["list"], [f"experiment=a{paint}"]]
    for command in commands:
        said(command, tmp_path)


def said(command: list[str], folder: Path) -> str:
    """What a command says in a folder, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dlframe", *command], cwd=folder, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    return harmless(done.stdout + done.stderr)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures whose classes have painted names, and a run on them."""
    home = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    for paint in (PAINTS["clipboard"], PAINTS["c1"], PAINTS["override"]):
        folder = home / "pictures" / paint.replace("/", "")
        folder.mkdir(parents=True)
        for i in range(12):
            Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}{PAINTS['title']}.png")
    return home, home / "pictures"


def test_names_of_classes(
    shapes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of folders of images: refused, or shown as harmless text in the tables of a run and of its predictions."""
    home, pictures = shapes
    monkeypatch.chdir(home)
    options = ["model=mlp", "model.width=8", "epochs=1", "tracking=none", "trainer.limit_batches=1"]
    status = main([*options, "data=image_folder", f"data.path={pictures}", "data.image_size=8"])
    text = seen(capsys)
    if status:
        assert text.startswith("error: ")
        return
    (run,) = (home / "runs").glob("mlp-*")
    assert main(["predict", str(run), str(pictures)]) == 0
    assert "prediction" in seen(capsys)


@paint
def test_a_prediction(paint: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dlframe.serving.predict import writer

    with writer("") as write:
        write([{"input": f"a\n{paint}", "prediction": paint, "score": 0.5}])
    assert len(seen(capsys).split("\n")) == 3


@paint
def test_versions_of_a_run(paint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"packages": {f"torch{paint}": paint, "numpy": paint}}))
    warn_of_versions(tmp_path)
    assert seen(capsys).startswith("warning: package versions changed")


@paint
def test_a_table_of_a_grid(paint: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = table.table([Row(f"job\n{paint}", "-", None, f"failed\n{paint}")])
    say(*text.split("\n"))
    assert len(seen(capsys).split("\n")) == 4


@paint
def test_an_error(paint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([f"model={paint}", "x=1"]) == 2
    assert main([paint]) == 2
    assert len(seen(capsys).split("\n")) == 3
    harmless(str(DlframeError(paint)))


CODE = """
import sys, warnings
from dlframe.cli import main
from dlframe.cli.commands import Command
sys.argv = ["dlframe", "list"]
def fails(self):
    warnings.warn(sys.stdin.read())
    raise RuntimeError(TEXT)
TEXT = {!r}
sys.stdin.read = lambda: TEXT
Command.load = fails
main()
"""


@paint
def test_warnings_and_faults_of_a_command(paint: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(paint)], capture_output=True, encoding="utf-8", check=False)
    harmless(done.stdout + done.stderr)
    assert "UserWarning" in done.stderr
    assert "RuntimeError" in done.stderr


class Server(BaseHTTPRequestHandler):
    """Answers as it is told."""

    status: tuple[int, str] = (200, "OK")
    body: Any = None

    def do_GET(self) -> None:
        self.send_response_only(*self.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.body).encode())

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Server) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@paint
def test_answers_of_a_server(paint: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    reason = paint.encode("latin-1", "replace").decode("latin-1").replace("\r", "")
    monkeypatch.setattr(Server, "status", (500, reason))
    assert connection_error(server, 5)
    assert main(["model=mlp", f"tracking.uri={server}"]) == 2
    assert seen(capsys).startswith("error: tracking.uri: ")
    monkeypatch.setattr(Server, "status", (200, "OK"))
    monkeypatch.setattr(Server, "body", {"experiments": [{"experiment_id": paint}]})
    show(server, open_browser=False)
    assert seen(capsys).startswith("MLflow: ")


@paint
def test_the_log_of_an_upload(paint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dlframe.tracking.sync import sync

    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    start = {"kind": "start", "time": 1, "uri": f"http://127.0.0.1:1/{paint}", "host": paint, "run_name": paint}
    (folder / "journal.jsonl").write_text(json.dumps(start) + "\n")
    assert sync([], runs=tmp_path / "runs") == 1
    assert len(seen(capsys).split("\n")) == 3


# --- there is no other way


def writes(tree: ast.AST) -> Iterator[str]:
    """What of a file writes to the terminal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "pprint", "traceback.print_exc", "traceback.print_exception", "warnings.showwarning"):
                yield f"line {node.lineno}: {called}"
            if called in ("os.write",) and ast.unparse(node.args[0]) in ("1", "2"):
                yield f"line {node.lineno}: {called}"
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("write", "writelines", "buffer")
            and "sys.std" in ast.unparse(node)
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_nothing_else_writes_to_the_terminal(file: Path) -> None:
    if file.relative_to(SOURCE).as_posix() != "types/terminal.py":
        assert list(writes(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code", ["print(1)", "sys.stdout.write('x')", "sys.stderr.buffer.write(b'x')", "traceback.print_exc()", "os.write(2, b'x')"]
)
def test_a_write_is_found(code: str) -> None:
    assert list(writes(ast.parse(code))) != []


def pasted(tree: ast.AST) -> Iterator[str]:
    """Commands of a file that are put together from words by hand, so that these are not quoted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            begun = False
            for part in node.values:
                begun = begun or (isinstance(part, ast.Constant) and "python -m dlframe " in f"{part.value} ")
                if begun and isinstance(part, ast.FormattedValue):
                    yield f"line {node.lineno}: {ast.unparse(node)}"
                    break
        elif isinstance(node, ast.BinOp) and re.search(r"python -m dlframe [^']*' \+", ast.unparse(node)):
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_every_command_is_made_by_one_function(file: Path) -> None:
    """Which quotes its words: those of a run directory, a name of a file."""
    names = ("types/terminal.py", "cli/help.py")  # its own words only
    if file.relative_to(SOURCE).as_posix() not in names:
        assert list(pasted(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("code", ["f'Try: python -m dlframe test {run}'", "'Try: python -m dlframe test ' + run"])
def test_a_command_by_hand_is_found(code: str) -> None:
    assert list(pasted(ast.parse(code))) != []


@pytest.mark.parametrize("word", ["a b", "$(touch ran)", "a;b", "`x`", "a\nb", "a'b", "!x", "~", "*", "wid\u200bth", "\x1b[2J"])
def test_a_command_is_safe_to_paste(word: str) -> None:
    made = command_line("test", word)
    harmless(made)
    assert "\n" not in made
    assert shlex.split(made)[3:] == ["test", printable(word)]
    assert made.removeprefix("python -m dlframe test ")[0] == "'"
