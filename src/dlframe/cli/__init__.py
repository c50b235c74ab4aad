"""The verbs. Imports nothing heavy before the config is checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dlframe.runs.environment import is_main
from dlframe.runs.signals import RunInterrupted
from dlframe.types import ConfigError, DlframeError, nearest

HELP = """dlframe: config-driven deep learning with honest tables

python -m dlframe [KEY=VALUE ...]             train, test, keep everything
python -m dlframe -m model=cnn,rnn seed=0,1   a grid: every combination, in one process
python -m dlframe test RUN                    score a finished run again from its directory
python -m dlframe predict RUN INPUT...        predict for files, folders or arrays with the model of a run
python -m dlframe verify-resume model=cnn     kill that training at random, continue it: is the end the same to the bit?
python -m dlframe list [GROUP]                what can be chosen, and where it comes from
python -m dlframe show model=cnn              the options of a choice: type, range, default, meaning
python -m dlframe ui [port=5000]              the MLflow pages of the runs in this folder
python -m dlframe sync [RUN ...]              deliver to MLflow what it has not got of these runs, or of all

Choices  task model data augmentation optimizer scheduler callback trainer tracking experiment
         model=rnn  optimizer=sgd  augmentation=[flip,crop]  trainer=gpu  experiment=...
Options  model.width=64  optimizer.lr=0.01  augmentation.crop.padding=2
Run      {run}
         python -m dlframe show run explains them
Folders  ./conf and ./plugins of the current folder are read beside the built-ins.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit status: 0, 1 if a job of a grid failed, 2 for a mistake in what was asked, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _verb(arguments)
    except DlframeError as error:
        if os.environ.get("DLFRAME_DEBUG") == "1":
            raise
        if is_main():
            print("error:", str(error).replace("\n", "\\n"), file=sys.stderr)
        return 2
    except MemoryError:
        print("error: out of memory. Try smaller data, such as data.size, or a machine with more.", file=sys.stderr)
        return 2
    except RunInterrupted as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _verb(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments) or arguments == ["help"]:
        return _help()
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed. Try: cd ..") from None
    grid = bool({"-m", "--multirun"} & set(arguments))
    arguments = [a for a in arguments if a not in ("-m", "--multirun")]
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{argument}: no such flag. Options are key=value; flags are -m, --multirun and --help.")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{os.fsencode(argument)!r}: must be UTF-8.") from None
    verb = arguments.pop(0) if arguments and "=" not in arguments[0] else "train"
    verbs = {"train": _train, "test": _test, "list": _list, "show": _show, "ui": _ui, "sync": _sync}
    verbs["predict"] = _predict
    verbs["verify-resume"] = _verify_resume
    if verb not in verbs:
        raise ConfigError(f"{verb!r}: must be key=value or a verb.{nearest(verb, verbs)} See: python -m dlframe --help")
    if grid:
        if verb != "train":
            raise ConfigError(f"-m: a grid is for training. Received: {verb}.")
        from dlframe.jobs.grid import run_grid

        _warn_of_plugins()
        return run_grid(arguments)
    return verbs[verb](arguments)


def _help() -> int:
    from dlframe.config.settings import settings

    print(HELP.format(run=" ".join(settings.get("run").parameters)), end="")
    return 0


def _train(overrides: list[str]) -> int:
    from dlframe.config import load

    config = load(overrides)
    _warn_of_plugins()
    from dlframe.jobs.train import run

    run(config)
    return 0


def _warn_of_plugins() -> None:
    from dlframe.registry import plugins

    plugins.discover()
    for name, fault in plugins.broken.items():
        print(f"warning: plugin '{name}' is left out: {fault}", file=sys.stderr)


def _test(arguments: list[str]) -> int:
    from dlframe.config import load_options

    if not arguments:
        raise ConfigError("test: needs the folder of a run. Try: python -m dlframe test runs/...")
    options = load_options("test", arguments[1:])
    from dlframe.jobs.train import rescore

    rescore(Path(arguments[0]), options["checkpoint"], options["plugin_paths"])
    return 0


def _predict(arguments: list[str]) -> int:
    from dlframe.serving.predict import main

    return main(arguments)


def _list(arguments: list[str]) -> int:
    from dlframe.inspection.catalogue import listing

    print(listing(arguments))
    return 0


def _show(arguments: list[str]) -> int:
    from dlframe.inspection.catalogue import options

    print(options(arguments))
    return 0


def _ui(arguments: list[str]) -> int:
    from dlframe.config import load_options
    from dlframe.runs.run_directory import artifact_root, store_uri
    from dlframe.tracking import ui

    options = load_options("ui", arguments)
    uri = store_uri(options["uri"], options["runs"])
    ui(uri, artifact_root(options["runs"]), options["host"], options["port"], options["open_browser"])
    return 0


def _sync(arguments: list[str]) -> int:
    from dlframe.config import load_options
    from dlframe.runs.run_directory import store_uri
    from dlframe.tracking import sync

    folders = [a for a in arguments if "=" not in a or Path(a).is_dir()]
    options = load_options("sync", [a for a in arguments if a not in folders])
    uri = options["uri"] and store_uri(options["uri"], options["runs"])
    return sync([Path(folder) for folder in folders], runs=Path(options["runs"]), uri=uri)


def _verify_resume(arguments: list[str]) -> int:
    from dlframe.config import load_options
    from dlframe.config.settings import settings

    parameters = settings.get("verify_resume").parameters
    own = [a for a in arguments if a.partition("=")[0] in parameters]
    options = load_options("verify_resume", own)
    _warn_of_plugins()
    from dlframe.jobs.verify_resume import verify

    return verify([a for a in arguments if a not in own], kills=options["kills"], seed=options["kill_seed"])
