"""What a run asks of the machine, looked at without torch."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys

from dlframe.config.settings import Trainer
from dlframe.types import ConfigError


def check_machine(trainer: Trainer) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        ConfigError: Names the option of the trainer.
    """
    size = os.environ.get("WORLD_SIZE", "")
    if size.isdecimal() and int(size) > 1 and trainer.devices == trainer.num_nodes == 1:
        raise ConfigError(
            f"trainer.devices: torchrun started {size} processes (WORLD_SIZE), and this run takes one. "
            f"Try: trainer=ddp trainer.devices={size}",
            "trainer.devices",
        )
    if (tasks := slurm_tasks()) > 1 and not size and trainer.devices == trainer.num_nodes == 1:
        raise ConfigError(
            f"trainer.devices: srun started {tasks} processes (SLURM_STEP_NUM_TASKS), and this run takes one. "
            f"Try: srun --ntasks=1, or trainer=ddp trainer.devices={tasks}",
            "trainer.devices",
        )
    if not size and "MASTER_ADDR" not in os.environ:
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
            if (rank := os.environ.get(name, "0")) != "0":
                raise ConfigError(f"{name}={rank} is in the environment, but no launcher is (WORLD_SIZE). Try: unset {name}")
    if trainer.devices < 1 and (trainer.devices == 0 or trainer.accelerator == "cpu"):
        rule = "int >= 1 on a CPU" if trainer.accelerator == "cpu" else "int >= 1, or -1 for all"
        raise ConfigError(f"trainer.devices: must be {rule}. Received: {trainer.devices}.", "trainer.devices")
    if trainer.accelerator == "cpu" and trainer.devices > (most := max(8, os.cpu_count() or 1)):
        raise ConfigError(f"trainer.devices: must be at most {most} here. Received: {trainer.devices}.", "trainer.devices")
    if trainer.accelerator == "gpu":
        if not (gpus := gpus_here()):
            raise ConfigError("trainer.accelerator: 'gpu' needs a GPU, and this machine shows none. Try: trainer=cpu")
        if trainer.devices > gpus:
            raise ConfigError(f"trainer.devices: must be at most {gpus} here. Received: {trainer.devices}.", "trainer.devices")
    if trainer.accelerator == "cpu" and trainer.precision == "16-mixed":
        rule = "a CPU has no float16 autocast. Try: trainer.precision=bf16-mixed"
        raise ConfigError(f"trainer.precision: {rule}", "trainer.precision")
    if trainer.accelerator == "tpu" and importlib.util.find_spec("torch_xla") is None:
        raise ConfigError(
            "trainer.accelerator: 'tpu' needs torch_xla on a TPU machine. Try: python -m pip install 'dlframe[tpu]'"
        )
    if trainer.strategy == "fsdp" and trainer.accelerator == "cpu":
        raise ConfigError("trainer.strategy: 'fsdp' needs GPUs. Try: trainer=fsdp, or trainer=ddp on a CPU")
    if trainer.num_nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            f"trainer.num_nodes: {trainer.num_nodes} machines need MASTER_ADDR, MASTER_PORT and NODE_RANK on each. "
            "Try: torchrun --nnodes=... -m dlframe ..."
        )


def slurm_tasks() -> int:
    """Return how many processes srun has started together, this one included; 1 without it, and in an interactive shell."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive") or "SLURM_PTY_PORT" in os.environ:
        return 1
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return int(tasks) if tasks.isdecimal() else 1


def gpus_here() -> int:
    """The GPUs that a driver shows, asked without torch."""
    import ctypes
    import platform

    if sys.platform == "darwin":
        return int(platform.machine() == "arm64")
    for library, count in (
        ("libcuda.so.1", "cuDeviceGetCount"),
        ("nvcuda.dll", "cuDeviceGetCount"),
        ("libamdhip64.so", "hipGetDeviceCount"),
    ):
        with contextlib.suppress(OSError, AttributeError):
            driver, number = ctypes.CDLL(library), ctypes.c_int(0)
            if count.startswith("cu"):
                driver.cuInit(0)
            if getattr(driver, count)(ctypes.byref(number)) == 0 and number.value > 0:
                return number.value
    return 0
