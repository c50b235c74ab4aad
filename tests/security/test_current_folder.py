"""Files of the current folder with the names of modules and of settings: no command runs one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import until

import dlframe

SCRIPT = "import sys\nfrom dlframe.cli import main\n\nif __name__ == '__main__':\n    sys.exit(main())\n"
"""The command `dlframe` as it is installed."""

OTHERS = (
    *(
        "torch",
        "numpy",
        "mlflow",
        "lightning",
        "hydra",
        "omegaconf",
        "antlr4",
        "yaml",
        "matplotlib",
        "scipy",
        "sklearn",
        "pandas",
    ),
    *("torchvision", "torchmetrics", "timm", "PIL", "pyarrow", "safetensors", "filelock", "psutil", "tqdm", "annotated_types"),
    *("sitecustomize", "usercustomize", "evil", "uvicorn", "gunicorn", "fastapi", "flask", "sqlalchemy", "alembic", "requests"),
    *(
        "hydra_plugins",
        "dlframe_plugins",
        "torch_xla",
        "readline",
        "cloudpickle",
        "joblib",
        "triton",
        "pytest",
        "IPython",
        "rich",
    ),
)
QUICK = ["epochs=1", "trainer.num_threads=1", "model.width=8"]
DISTRIBUTED = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]


PLUGIN = '''import own_reader

from dlframe.registry import models
from dlframe.types import DataSpec, DlframeError

@models.register("own")
def own(spec: DataSpec):
    """Tell the answer."""
    raise DlframeError(f"answer {own_reader.ANSWER}")
'''


def loaded_by_python(folder: Path) -> set[str]:
    """What `python -m` imports to find a module, before any code of the module can run."""
    (folder / "probe").mkdir()
    (folder / "probe" / "__init__.py").write_text("import sys\nprint(*sys.modules)\nsys.exit()\n")
    command = [sys.executable, "-m", "probe"]
    return set(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split())


class Hostile:
    """A folder full of modules, each of which leaves a mark when it is imported."""

    def __init__(self, home: Path) -> None:
        self.folder, self.marks, self.script = home / "here", home / "marks", home / "bin" / "dlframe"
        for folder in (self.marks, self.script.parent, self.folder / "hydra_plugins" / "deep"):
            folder.mkdir(parents=True)
        self.script.write_text(SCRIPT)
        names = {name for name in sys.stdlib_module_names if not name.startswith("_")} | {"__future__", "_strptime", *OTHERS}
        for name in names - loaded_by_python(home):
            self.write(f"{name}.py")
        for name in ("hydra_plugins/x.py", "hydra_plugins/deep/__init__.py", "hydra_plugins/deep/y.py", "evil_backend.py"):
            self.write(name)
        (self.folder / "matplotlibrc").write_text("backend: module://evil_backend\nnonsense.key: 1\n")
        np.save(self.folder / "digit.npy", np.zeros((1, 1, 8, 8), np.uint8))
        state = {"XDG_STATE_HOME": str(home / "state"), "DLFRAME_DATA": str(home / "data"), "DLFRAME_PLUGINS": "none"}
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLFRAME", "PYTEST"))} | state

    def write(self, name: str) -> None:
        mark = self.marks / name.replace("/", ".")
        text = f"import os\nos.close(os.open({str(mark)!r}, os.O_CREAT | os.O_WRONLY))\nraise SystemExit('ran {name}')\n"
        (self.folder / name).write_text(text)

    def command(self, form: str, *arguments: str) -> list[str]:
        return [sys.executable, *([str(self.script)] if form == "dlframe" else form.split()), *arguments]

    def run(self, form: str, *arguments: str, status: int = 0, **environment: str) -> str:
        done = subprocess.run(
            self.command(form, *arguments),
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        self.check(done.stderr)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def check(self, said: str) -> None:
        assert [mark.name for mark in self.marks.iterdir()] == [], said
        logs = [log.read_text() for log in self.folder.rglob("tracking.log")]
        for text in (said, *logs):
            assert "ran " not in text
            assert "nonsense" not in text  # what matplotlib says of its settings file


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    return Hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def run(hostile: Hostile) -> str:
    """A tracked run in that folder."""
    said = hostile.run("dlframe", "model=mlp", *QUICK)
    return next(line.split()[1] for line in said.splitlines() if line.startswith("run "))


FORMS = pytest.mark.parametrize("form", ["dlframe", "-m dlframe"])


@FORMS
@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["show", "model=mlp"], ["help", "train"]], ids=" ".join)
def test_commands_that_train_nothing(form: str, arguments: list[str], hostile: Hostile) -> None:
    hostile.run(form, *arguments)


@FORMS
@pytest.mark.parametrize("where", ["here", "in_a_folder_of_PYTHONPATH", "packages_of_PYTHONPATH"])
def test_plugins_of_hydra(form: str, where: str, hostile: Hostile) -> None:
    """Hydra runs the files of each folder hydra_plugins on the import path; dlframe uses none."""
    packages = hostile.marks.parent / where
    packages.mkdir(exist_ok=True)
    name = "hydra_plugins/z.py" if where == "in_a_folder_of_PYTHONPATH" else "hydra_plugins/__init__.py"
    (packages / name).parent.mkdir(exist_ok=True)
    (packages / name).write_text((hostile.folder / "hydra_plugins" / "x.py").read_text())
    path = [os.environ.get("PYTHONPATH", ""), *([] if where == "here" else [str(packages)])]
    hostile.run(form, "model=mlp", "epochs=0", status=2, PYTHONPATH=os.pathsep.join(filter(None, path)))


def test_modules_of_the_package(hostile: Hostile) -> None:
    hostile.run("-m dlframe.contracts", "--help")
    hostile.run("-m dlframe.tracking", ".")  # no run: there is nothing to upload


def test_a_tracked_run(run: str, hostile: Hostile) -> None:
    """Trained, figures drawn, and uploaded by a process of its own."""
    assert (hostile.folder / run / "figures" / "learning_curve.png").exists()
    assert (hostile.folder / run / "tracking.json").exists()


def test_a_run_by_python_m(hostile: Hostile) -> None:
    hostile.run("-m dlframe", "model=mlp", "tracking=none", *QUICK)


@pytest.mark.parametrize("arguments", [["test", "RUN"], ["predict", "RUN", "digit.npy"], ["sync"]], ids=" ".join)
def test_commands_about_a_run(arguments: list[str], run: str, hostile: Hostile) -> None:
    hostile.run("dlframe", *[run if argument == "RUN" else argument for argument in arguments])


def test_a_run_folder_as_the_current_folder(run: str, hostile: Hostile) -> None:
    """`cd RUN; python -m dlframe test .`"""
    planted = [hostile.folder / run / f"{name}.py" for name in ("yaml", "mlflow", "numpy", "random", "pathlib", "typing")]
    for file in planted:
        file.write_text((hostile.folder / "torch.py").read_text())
    for form in ("dlframe", "-m dlframe"):
        command = hostile.command(form, "test", ".")
        folder = hostile.folder / run
        done = subprocess.run(command, cwd=folder, env=hostile.environment, capture_output=True, text=True, check=False)
        hostile.check(done.stderr)
        assert done.returncode == 0, done.stderr
    for file in planted:
        file.unlink()


@pytest.mark.slow
def test_a_grid_and_processes_of_a_grid(hostile: Hostile) -> None:
    hostile.run("dlframe", "-m", "model=mlp", "seed=0,1", "tracking=none", *QUICK)
    hostile.run("-m dlframe", "-m", "model=mlp", "seed=0", "tracking=none", *QUICK, *DISTRIBUTED)


@pytest.mark.slow
def test_distributed_training(hostile: Hostile) -> None:
    """Lightning starts the other processes by the script; the test above, by the module."""
    hostile.run("dlframe", "model=mlp", "tracking=none", *QUICK, *DISTRIBUTED)


@pytest.mark.slow
def test_verify_resume(hostile: Hostile) -> None:
    hostile.run("-m dlframe", "verify-resume", "model=mlp", *QUICK[1:], "epochs=20", "kills=1")


def test_pools_of_processes(hostile: Hostile, tmp_path: Path) -> None:
    """They are started by `python -c`, and get the import path of their parent later."""
    script = tmp_path / "pool.py"
    script.write_text(
        "from dlframe.runs.environment import leave_current_folder\nfrom dlframe.engine.loader import processes\n\n"
        "if __name__ == '__main__':\n    leave_current_folder()\n    with processes(1) as pool:\n"
        "        print(pool.submit(len, 'ab').result())\n"
    )
    assert hostile.run(str(script)) == "2\n"


def test_ui(run: str, hostile: Hostile) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (hostile.marks.parent / f"ui{port}.txt").open("w+") as said:
        command = hostile.command("-m dlframe", "ui", f"port={port}")
        server = subprocess.Popen(command, cwd=hostile.folder, env=hostile.environment, stdout=said, stderr=said)
        try:
            until(lambda: server.poll() is not None or Path(said.name).read_text(), 100)
            hostile.check(Path(said.name).read_text())
            assert server.poll() is None, Path(said.name).read_text()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def test_dlframe_in_the_current_folder_works(tmp_path: Path) -> None:
    """As in the folder src of a checkout, not installed."""
    package = Path(dlframe.__file__).parent
    conf = next(folder for folder in (package / "conf", package.parent.parent / "conf") if folder.is_dir())
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "dlframe").symlink_to(package)
    (tmp_path / "conf").symlink_to(conf)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for code in ("-m dlframe --help", "-m dlframe.contracts --help"):
        command = [sys.executable, *code.split()]
        assert subprocess.run(command, cwd=tmp_path / "src", env=environment, check=True, capture_output=True).stdout


def test_what_the_user_names_stays(tmp_path: Path) -> None:
    """PYTHONPATH, also where it names the current folder."""
    (tmp_path / "own_reader.py").write_text("ANSWER = 42\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "own.py").write_text(PLUGIN)
    arguments = [sys.executable, "-m", "dlframe", "model=own", "tracking=none", "epochs=1"]
    named = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for path, said in ((named, "answer 42"), (os.environ.get("PYTHONPATH", ""), "No module named 'own_reader'")):
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        assert said in done.stdout + done.stderr


@pytest.mark.parametrize("form", [["-c", SCRIPT], ["-m", "dlframe"]])
def test_a_current_folder_that_is_gone(form: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    code = f"import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, *{form!r}, 'list'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=False, capture_output=True, text=True)
    assert done.stderr == "error: the current folder has been removed. Try: cd ..\n"
