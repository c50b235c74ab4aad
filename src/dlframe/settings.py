"""Options that belong to no entry: of a run, of its trainer and tracker, and of the verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from dlframe.registry import Count, Natural, Positive, Registry

settings = Registry("settings")


@settings.register("run")
@dataclass(frozen=True, kw_only=True)
class Run:
    """Options of a run that belong to no group.

    Args:
        seed: Seed of weights, order, augmentation and hidden labels. The split of the data does not depend on it.
        epochs: Passes over the training data.
        validate_every: Epochs between two validations; the last epoch of a shorter run is validated all the same.
        batch_size: Samples in one optimizer step over all devices, before `accumulate`.
        accumulate: Batches whose gradients are summed into one optimizer step.
        clip: Largest L2 norm of a player's gradient; null for no limit.
        decay: What weight decay applies to: every parameter, or only weight matrices and kernels (no norms, no biases).
        labels_per_class: Training labels kept of each class; the other samples count as unlabelled. null keeps all.
        monitor: Metric that picks the best epoch, such as val/accuracy; empty for the task's own.
        compile: Compile the model with torch.compile.
        chunk: Optimizer steps in one step of the Trainer; 0 measures the first steps and chooses. Results do not depend on it.
        log_every: Optimizer steps between two logged training losses.
        name: Name of the run in the tracker; empty for model and data.
        experiment_name: Experiment in the tracker; empty for the task.
        runs: Folder for run folders and the tracking store.
        plugin_paths: Files and folders of plugins, beside ./plugins and the installed ones.
    """

    seed: Annotated[int, Interval(ge=0, le=4294967295)] = 0
    epochs: Count = 30
    validate_every: Count = 1
    batch_size: Count = 64
    accumulate: Count = 1
    clip: Positive | None = None
    decay: Literal["all", "weights"] = "weights"
    labels_per_class: Count | None = None
    monitor: str = ""
    compile: bool = False
    chunk: Natural = 0
    log_every: Count = 50
    name: str = ""
    experiment_name: str = ""
    runs: str = "runs"
    plugin_paths: tuple[str, ...] = ()


@settings.register("trainer")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Options of Lightning's Trainer.

    Args:
        accelerator: Kind of device.
        devices: Number of devices; -1 for all.
        num_nodes: Number of machines.
        strategy: How several devices share the work.
        precision: Number format of the forward pass and of the weights.
        deterministic: Use deterministic algorithms only, at some cost in speed.
        channels_last: Keep images in NHWC memory order, which is faster for convolutions.
        detect_anomaly: Say which operation made a NaN in the backward pass. Slow.
        limit_steps: Batches of each epoch, of validation and of the test; 0 for all of them.
        threads: CPU threads of one process; 0 leaves the choice to torch.
    """

    accelerator: Literal["cpu", "gpu", "tpu"] = "cpu"
    devices: Annotated[int, Interval(ge=-1)] = 1
    num_nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    deterministic: bool = False
    channels_last: bool = True
    detect_anomaly: bool = False
    limit_steps: Natural = 0
    threads: Annotated[int, Interval(ge=0, le=1024)] = 0


@settings.register("tracking")
@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are tracked.

    Args:
        uri: "sqlite" for a file in the folder of runs, "none", a sqlite:/// URI or the http(s) address of an MLflow server.
    """

    uri: str = "sqlite"


@settings.register("test")
@dataclass(frozen=True, kw_only=True)
class Test:
    """Scoring a finished run again.

    Args:
        checkpoint: Another checkpoint than the run's best; empty for that.
        plugin_paths: Files and folders of plugins that the run used. Its own config is data and has none loaded.
    """

    checkpoint: str = ""
    plugin_paths: tuple[str, ...] = ()


@settings.register("ui")
@dataclass(frozen=True, kw_only=True)
class UI:
    """The MLflow pages.

    Args:
        port: Port to serve them on.
        host: Address to serve them on; 0.0.0.0 shows them to other machines.
        runs: Folder of the runs.
        uri: Another store: a sqlite:/// URI, or the http(s) address of an MLflow server.
        open: Open them in the browser.
    """

    port: Annotated[int, Interval(ge=1, le=65535)] = 5000
    host: str = "127.0.0.1"
    runs: str = "runs"
    uri: str = ""
    open: bool = False
