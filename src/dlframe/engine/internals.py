"""All private parts of torch, Lightning and torchmetrics that we touch, each with its reason. Imported before they are.

torch and Lightning are imported without what torchmetrics only looks for and imports if it is there: SciPy's signal tools,
pyplot, transformers. And with OpenMP threads that soon sleep when they have to wait. They spin for long by default, each on
a processor of its own, which on a busy machine keeps the very thread away that they wait for: a small network then trains
several times slower.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from lightning_utilities.core import imports as probes

from dlframe.storage.private import is_safe, keep_kernels_private
from dlframe.types import ConfigError


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make packages look as if they were not installed, unless they are imported already."""
    packages = tuple(name for name in packages if name not in sys.modules)
    version = probes._version

    def absent(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return version(name)

    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]  # None: an import fails
    probes._version = absent
    try:
        yield
    finally:
        probes._version = version
        for name in packages:
            del sys.modules[name]


keep_kernels_private()

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of torch tells of missing GPUs, and of its start

MALLOC = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
"""Environment variables by which a user has chosen how memory is given out."""


def keep_memory() -> bool:
    """Have glibc keep what a training step frees for the next step; return whether it does.

    It would give blocks of more than 128 KiB back to the system, which fills each page with zeros again when it is next asked
    for. By the environment, torch asks for huge pages for large tensors, of which there are fewer to fill.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first allocation
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # other libraries have other numbers for these options
    except (OSError, AttributeError, TypeError):
        return False
    if any(name in os.environ for name in MALLOC):
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
    return all(libc.mallopt(*option) == 1 for option in ((mmap_threshold, 2**25), (trim_threshold, 2**30)))


keep_memory()

# Read by the GNU OpenMP library when torch loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

with hidden("scipy", "matplotlib", "transformers", "librosa", "onnxruntime", "pesq", "pystoi", "gammatone"):
    import torch
    from lightning.fabric.utilities import registry
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
    from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType
    from torch.optim import Optimizer
    from torchmetrics.utilities.prints import rank_zero_only


# Each Trainer looks for callbacks of installed packages, in the metadata of all of them (Lightning 2.6).
registry.entry_points = functools.cache(registry.entry_points)  # type: ignore[assignment]


def skip_graph_capture_check(optimizer: Optimizer) -> None:
    """Spare an optimizer on a CPU a question to the GPU driver at each step (torch 2.14).

    With a CUDA build it asks whether a graph is being captured, which costs more than a fused step of a small model.
    """
    optimizer._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]


def fused_adam(columns: Sequence[torch.Tensor], options: Sequence[Any], step: torch.Tensor) -> None:
    """Take a step of Adam or AdamW on contiguous tensors (torch 2.14): what `torch.optim.Adam` calls, at a tenth of its cost.

    Args:
        columns: Weights, gradients, first moments, second moments, and with `amsgrad` the largest of these.
        options: lr, beta1, beta2, weight_decay, eps, decoupled_weight_decay, amsgrad.
        step: Number of this step, from 1.
    """
    weights, gradients, first, second, *largest = columns
    lr, beta1, beta2, decay, eps, decoupled, amsgrad = options
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    kernel(
        [weights], [gradients], [first], [second], largest, [step],
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=amsgrad, maximize=False,
    )  # fmt: skip


def fused_sgd(columns: Sequence[torch.Tensor], options: Sequence[Any], step: torch.Tensor) -> None:
    """Take a step of SGD on contiguous tensors (torch 2.14).

    Args:
        columns: Weights, gradients, and with momentum the velocities.
        options: lr, momentum, weight_decay, dampening, nesterov.
        step: Number of this step, from 1.
    """
    weights, gradients, *velocities = columns
    lr, momentum, decay, dampening, nesterov = options
    torch._fused_sgd_(
        [weights], [gradients], velocities,
        lr=lr, momentum=momentum, weight_decay=decay, dampening=dampening, nesterov=nesterov, maximize=False,
        is_first_step=bool(velocities) and step.item() == 1,
    )  # fmt: skip


def leave_signals_alone(trainer: Trainer) -> None:
    """Keep the Trainer from handling signals, which are ours (Lightning 2.6).

    Its handler starts a collective in the middle of whatever runs and leaves with status 0, and asking all processes about
    it costs each step.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def set_epoch(trainer: Trainer, epoch: int) -> None:
    """Tell the Trainer how many epochs are done (Lightning 2.6): its own way is by a pickled checkpoint."""
    vars(trainer.fit_loop.epoch_progress.current).update(dict.fromkeys(("ready", "started", "processed", "completed"), epoch))


def optimizer_step_count(trainer: Trainer) -> dict[str, Any]:
    """The Trainer's own count of optimizer steps, which callbacks read, to be read and changed (Lightning 2.6)."""
    return vars(trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total)


class QuickModule(LightningModule):
    """A LightningModule that takes the name of the hook that runs as any object would (Lightning 2.6).

    It is set four times at each hook, and torch looks each time whether it is a parameter: 3,000 times in 10 short epochs.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def release(trainer: Trainer, learner: LightningModule) -> None:
    """Let go of what a training held: data, weights and optimizers (Lightning 2.6).

    The Trainer, its parts and the learner refer to one another. Python would collect them after some thousand runs only, as
    the objects are few among those of all modules, however large their tensors.
    """
    if trainer.world_size == 1:  # the processes of several belong to the strategy
        vars(trainer).clear()
        vars(learner).clear()


def log_metrics(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Give metrics to callbacks, as `log_dict` does (Lightning 2.6).

    That keeps a sum and a count of each, walks through all of them at each hook, and takes longer than a small model's epoch.
    """
    values = {name: torch.tensor(value, dtype=torch.get_default_dtype()) for name, value in metrics.items()}
    trainer._logger_connector._callback_metrics.update(values)
    trainer._logger_connector._logged_metrics.update(values)


def whole_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Within, no product is rounded to half precision: autocast is for the networks (Lightning 2.6).

    Lightning has it around a whole step, and so around features, augmentations and the optimizers' own products.
    """
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def unscale(trainer: Trainer, optimizer: Optimizer) -> None:
    """Undo the scaling for float16 where the optimizer would do so within its step (torch 2.14, Lightning 2.6).

    Of all others Lightning has undone it before the hook from which this is called.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        scaler.unscale_(optimizer)


def clip_gradient(trainer: Trainer, optimizer: Optimizer, norm: float) -> torch.Tensor:
    """Clip an optimizer's gradient to an L2 norm; the norm before. Sharded weights have a way of their own."""
    if is_sharded(trainer):
        return trainer.strategy.model.clip_grad_norm_(norm)  # type: ignore[union-attr,operator]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return torch.nn.utils.clip_grad_norm_(parameters, norm)


def call_through_wrapper(module: LightningModule, method: str, *args: Any) -> Any:
    """Call a method of the learner within the forward pass of its wrapper, which gathers sharded weights (Lightning 2.6)."""
    strategy: Any = module.trainer.strategy
    return strategy._forward_redirection(strategy.model, module, method, *args)


def check_kernels() -> None:
    """Refuse torch's own folder of compiled code, in use where torch was imported before dlframe, if others can write to it.

    Raises:
        ConfigError: They can.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

    if (folder := cache_dir()) == os.path.abspath(default_cache_dir()) and not is_safe(Path(folder)):
        rule = "others can write to torch's folder of compiled code"
        raise ConfigError(f"compile: {rule}. Received: {folder}. Try: TORCHINDUCTOR_CACHE_DIR=FOLDER")


MEETING = "DLFRAME_MEETING"
"""Tells the processes of one machine the file by which they find one another."""


@functools.cache
def _meeting() -> str:
    """Return that file, in a folder of this user's only; empty where another program has started the processes."""
    if "LOCAL_RANK" not in os.environ:
        folder = tempfile.mkdtemp(prefix="dlframe-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[MEETING] = os.path.join(folder, "store")
    return os.environ.get(MEETING, "")


class Local:
    """Strategy whose processes, on one machine, are not reachable from others (Lightning 2.6, torch 2.14).

    By default they meet at a port of all interfaces, where anybody can write what they read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _meeting()

    def _get_process_group_backend(self) -> str:
        backend = super()._get_process_group_backend()  # type: ignore[misc]
        strategy: Any = self
        if strategy.num_nodes == 1 and _meeting() and not torch.distributed.is_initialized():
            loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
            for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if loopback else ():
                os.environ.setdefault(variable, loopback[0])
            torch.distributed.init_process_group(
                backend,
                store=torch.distributed.FileStore(_meeting(), strategy.world_size),
                rank=strategy.global_rank,
                world_size=strategy.world_size,
                timeout=strategy._timeout,
                device_id=None if strategy.root_device.type == "cpu" else strategy.root_device,
            )
            if backend == "nccl":
                atexit.register(_leave)
        return backend


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class LocalDDP(Local, DDPStrategy):
    """DDP on loopback where there is one machine."""


class ManualFSDP(Local, FSDPStrategy):
    """FSDP for a learner that steps by itself: a backward pass may not lie within the wrapper's forward pass.

    So the step is not called through the wrapper; the learner calls the loss through it.
    """

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self.precision_plugin.train_step_context():
            assert self.lightning_module
            return self.lightning_module.training_step(*args, **kwargs)


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process has a part of the weights only."""
    return isinstance(trainer.strategy, FSDPStrategy)


def whole_weights(trainer: Trainer) -> AbstractContextManager[Any]:
    """Within, the weights that a sharded strategy has parted are whole, and parted again afterwards."""
    if isinstance(trainer.strategy, FSDPStrategy) and trainer.strategy.model:
        return FullyShardedDataParallel.summon_full_params(trainer.strategy.model)
    return nullcontext()


def own_optimizer_state(trainer: Trainer, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The part of an optimizer's whole state that belongs to this process."""
    strategy = trainer.strategy
    if not isinstance(strategy, FSDPStrategy) or not strategy.model:
        return state
    named = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, strategy.model)
    return FullyShardedDataParallel.optim_state_dict_to_load(strategy.model, optimizer, named)


@contextmanager
def recorded_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Within, all warnings are recorded, those of torchmetrics in every process (torchmetrics 1.9).

    By itself it warns in the first one only, and all processes must compute the same metrics.
    """
    rank, rank_zero_only.rank = rank_zero_only.rank, 0  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
