"""Options that belong to no component: of a run, of its trainer, its checkpoints and its tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from dlframe.registry import Count, Entry, Natural, NonNegative, Place, Positive, Registry

settings = Registry("settings", reserved=())

AUTO_BATCH = 64
"""Samples in one optimizer step with `batch_size=auto`, times `accumulate_grad_batches`."""


def option_set(name: str, options: type) -> Entry:
    """Return the options of a dataclass, read from its signature as those of a component are."""
    return settings.read_object(name, {}, options)


@settings.register("run")
@dataclass(frozen=True, kw_only=True)
class Run:
    """Options of a run that belong to no group.

    Args:
        seed: Seed of weights, order, augmentation and hidden labels. The split of the data does not depend on it.
        epochs: Passes over the training data. A model without networks, which is fitted at once, has one unless more are typed.
        validate_every: Epochs between two validations, or optimizer steps; the end of the training is always validated.
        validate_unit: What `validate_every` counts: epochs, or optimizer steps, for long epochs.
        batch_size: Samples in one optimizer step over all devices, before `accumulate_grad_batches`; "auto" has
            64 times `accumulate_grad_batches` in an optimizer step, as many of them at once as fit into memory.
        batch_elements: Elements in one batch at most, padding included, of samples of varying length (tokens, audio samples);
            0 for no such limit.
        accumulate_grad_batches: Batches whose gradients are summed into one optimizer step.
        gradient_clip_val: Maximum L2 norm of a network's gradient; null disables.
        weight_decay_params: What weight decay applies to: all parameters, or weight matrices and kernels only.
        labels_per_class: Training labels kept of each class; the other samples are unlabeled. null keeps all.
        monitor: Metric that picks the best epoch, such as val/accuracy; empty for the task's own.
        compile: Compile the model with torch.compile; "auto" on GPUs only, as small models are slower with it on CPUs.
        gradient_checkpointing: Compute the activations of each block again in the backward pass, instead of keeping them: less
            memory, up to twice the time, the same gradients.
        steps_per_execution: Optimizer steps in one step of the Trainer; 0 measures the first steps and chooses. Results do
            not depend on it.
        log_every_n_steps: Optimizer steps between two logged training losses.
        run_name: Name of the run in the tracker; empty for model and data.
        experiment_name: Experiment in the tracker; empty for MLFLOW_EXPERIMENT_NAME, or else the task.
        register: Name of a registered model of the tracker, of which the run's model becomes a new version; NAME@ALIAS gives
            the alias to that version. A finished run: `sync RUN register=NAME`.
        runs: Folder for run folders and the tracking store.
        plugin_paths: Files and folders of plugins, beside ./plugins and the installed ones.
        resume: "none" for a new run; "auto" to continue the newest run of the same config that has not ended, or to show its
            result where it has; or the folder of the run to continue, whose config is taken over: with more epochs, another
            learning rate, scheduler, batch size, devices or logging, if typed.
        changed_code: What becomes of a run that is to continue, but whose plugins have other code now: refuse, or accept and
            note it in the run.
        dry_run: Build data and model, train and validate one batch, say what the training would cost, and leave nothing behind.
        find: "lr" for a learning-rate range test in place of a training: a curve, a suggestion, and no run.
        profile: Measure where the time of a step goes, in some steps near the beginning: at the end of the training the
            shares of its parts and the most expensive operations are printed, and the run keeps a trace.
        initial_checkpoint: Weights to begin with: the folder of an earlier run of the same model, of its best epoch; a
            checkpoint; or "best", the finished run of the model in the same experiment with the best value of the monitored
            metric. What does not match, such as a head of another number of classes, begins anew.
        on_nan: Action on a NaN or infinite loss: end the run at that step, or leave the batch out and count it.
        figures: When figures are drawn: at the end of each run ("now"), on request ("none", see `figures`), or at the end of a
            single run and on request of those of a grid or sweep ("auto"). A run that draws them at its end also scores
            training samples at each validation, 1,000 at most, for its learning curves.
    """

    seed: Annotated[int, Interval(ge=0, le=4294967295)] = 0
    epochs: Count = 30
    validate_every: Count = 1
    validate_unit: Literal["epochs", "steps"] = "epochs"
    batch_size: Count | Literal["auto"] = 64
    batch_elements: Natural = 0
    accumulate_grad_batches: Count = 1
    gradient_clip_val: Positive | None = None
    weight_decay_params: Literal["all", "weights"] = "weights"
    labels_per_class: Count | None = None
    monitor: str = ""
    compile: bool | Literal["auto"] = False
    gradient_checkpointing: bool = False
    steps_per_execution: Natural = 0
    log_every_n_steps: Count = 50
    run_name: str = ""
    experiment_name: str = ""
    register: str = ""
    runs: Place = "runs"
    plugin_paths: tuple[Place, ...] = ()
    resume: Place = "none"
    changed_code: Literal["refuse", "accept"] = "refuse"
    dry_run: bool = False
    find: Literal["none", "lr"] = "none"
    profile: bool = False
    initial_checkpoint: Place = ""
    on_nan: Literal["raise", "skip"] = "raise"
    figures: Literal["auto", "now", "none"] = "auto"

    @property
    def rounds(self) -> int:
        """Epochs of the Trainer between two validations: by steps, each of them is as long as the way to the next one."""
        return self.validate_every if self.validate_unit == "epochs" else 1

    @property
    def looks(self) -> str:
        """The option for which nothing is trained; empty for none."""
        return "find" if self.find != "none" else "dry_run" if self.dry_run else ""


@settings.register("trainer")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Options of Lightning's Trainer; with glibc, 1 GiB of freed memory is kept, unless MALLOC_* or GLIBC_TUNABLES is set.

    Args:
        accelerator: Kind of device; "auto" is a GPU where there is one, else the CPU, and is saved as what it is.
        devices: Number of devices; -1 for all.
        num_nodes: Number of machines.
        strategy: How several devices share the work.
        precision: Number format of the forward pass and of the weights.
        deterministic: Use deterministic algorithms only, at some cost in speed.
        channels_last: Keep images in NHWC memory order, which is faster for convolutions.
        detect_anomaly: Say which operation made a NaN in the backward pass. Slow.
        max_steps: Optimizer steps of the training, in place of `epochs`, also for schedules; 0 for as many as the epochs have.
        limit_batches: Batches of each epoch, of validation and of the test, for a first try; 0 for all of them. Those that
            are scored are drawn once, the same in every run; the result is marked as limited.
        overfit_batches: Training batches that are trained, validated and tested, and no others, for a first try: a model that
            can learn reaches nearly no loss; 0 for all data. The result is marked as limited.
        num_threads: CPU threads of one process; 0 leaves the choice to torch.
        num_workers: Threads that gather batches ahead, for data on a disk that is slower than the training; processes where
            reading a sample is bound by Python.
        resident: Where data in memory are kept: on the device, on the host, or on the device if they take less than half of
            its free memory.
    """

    accelerator: Literal["cpu", "gpu", "tpu", "auto"] = "cpu"
    devices: Annotated[int, Interval(ge=-1)] = 1
    num_nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    deterministic: bool = False
    channels_last: bool = True
    detect_anomaly: bool = False
    max_steps: Natural = 0
    limit_batches: Natural = 0
    overfit_batches: Natural = 0
    num_threads: Annotated[int, Interval(ge=0, le=1024)] = 0
    num_workers: Annotated[int, Interval(ge=0, le=1024)] = 0
    resident: Literal["auto", "device", "host"] = "auto"

    @property
    def limited(self) -> str:
        """What limits a run to a part of the data; empty for a whole run."""
        limits = {name: getattr(self, name) for name in ("limit_batches", "overfit_batches")}
        return " ".join(f"trainer.{name}={value}" for name, value in limits.items() if value)


@settings.register("checkpoint")
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When the training is saved. Each interval counts on its own, 0 disables it; the end of a training is always saved.

    Args:
        every_n_minutes: Minutes between two checkpoints.
        every_n_epochs: Epochs between two checkpoints.
        every_n_steps: Optimizer steps between two checkpoints.
        max_to_keep: Checkpoints that are kept, the newest.
        top_k: Best epochs of which the weights are kept; those of more than the best one as checkpoints/top-STEP.safetensors,
            which `initial_checkpoint` takes.
    """

    every_n_minutes: NonNegative = 1.0
    every_n_epochs: Natural = 0
    every_n_steps: Natural = 0
    max_to_keep: Count = 3
    top_k: Count = 1


@settings.register("tracking")
@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are tracked.

    Args:
        uri: "sqlite" for a file in the folder of runs, "none", a sqlite:/// URI or the http(s) address of an MLflow server;
            "auto" for the store that MLFLOW_TRACKING_URI names, or else the file.
        system_metrics: Measure processors, memory, disk, network and NVIDIA or AMD GPUs of the machine every ten seconds.
    """

    uri: str = "auto"
    system_metrics: bool = False
