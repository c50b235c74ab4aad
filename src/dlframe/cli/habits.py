"""Words of Hydra, Lightning, Keras, transformers and scikit-learn, and what does the same here.

`{}` stands for the value that was typed. A test composes every row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dlframe.config import LISTS, OPTIONS
from dlframe.registry import GROUPS, plugins
from dlframe.types import command_line

EARLY = "callback=[early_stopping] callback.early_stopping."

OF_BOXES, OF_SPEECH, PATH = "task=object_detection", "task=speech_recognition", "data.path=FOLDER"

BY_STEPS = "validate_unit=steps validate_every={}"

KEYS = {
    # the model and how it learns
    "lr": "optimizer.lr={}",
    "learning_rate": "optimizer.lr={}",
    "optimizer.learning_rate": "optimizer.lr={}",
    "model.lr": "optimizer.lr={}",
    "weight_decay": "optimizer.weight_decay={}",
    "momentum": "optimizer=sgd optimizer.momentum={}",
    "optim": "optimizer={}",
    "lr_scheduler": "scheduler={}",
    "lr_scheduler_type": "scheduler={}",
    "solver": "optimizer={}",
    "net": "model={}",
    "network": "model={}",
    "model_name": "model={}",
    "arch": "model=backbone model.architecture={}",
    "dataset": "data={}",
    "datamodule": "data={}",
    "data_dir": "data.path={}",
    "data.data_dir": "data.path={}",
    "callbacks": "callback={}",
    "metrics": "metric={}",
    "label_smoothing": "task.label_smoothing={}",
    "class_weight": "task.class_weight={}",
    # how long, and how much of it
    "max_epochs": "epochs={}",
    "trainer.max_epochs": "epochs={}",
    "trainer.epochs": "epochs={}",
    "num_epochs": "epochs={}",
    "num_train_epochs": "epochs={}",
    "max_iter": "epochs={}",
    "max_steps": "trainer.max_steps={}",
    "overfit_batches": "trainer.overfit_batches={}",
    "limit_train_batches": "trainer.limit_batches={}",
    "limit_val_batches": "trainer.limit_batches={}",
    "limit_test_batches": "trainer.limit_batches={}",
    "trainer.limit_train_batches": "trainer.limit_batches={}",
    "trainer.limit_val_batches": "trainer.limit_batches={}",
    "trainer.limit_test_batches": "trainer.limit_batches={}",
    "fast_dev_run": "trainer=debug",
    "trainer.fast_dev_run": "trainer=debug",
    "debug": "trainer=debug",
    "data.batch_size": "batch_size={}",
    "per_device_train_batch_size": "batch_size={}",
    "trainer.gradient_clip_val": "gradient_clip_val={}",
    "max_grad_norm": "gradient_clip_val={}",
    "clipnorm": "gradient_clip_val={}",
    "trainer.accumulate_grad_batches": "accumulate_grad_batches={}",
    "gradient_accumulation_steps": "accumulate_grad_batches={}",
    "val_check_interval": BY_STEPS,
    "trainer.val_check_interval": BY_STEPS,
    "eval_steps": BY_STEPS,
    "check_val_every_n_epoch": "validate_every={}",
    "trainer.check_val_every_n_epoch": "validate_every={}",
    "validation_freq": "validate_every={}",
    "trainer.log_every_n_steps": "log_every_n_steps={}",
    "logging_steps": "log_every_n_steps={}",
    "patience": f"{EARLY}patience={{}}",
    "callbacks.early_stopping.patience": f"{EARLY}patience={{}}",
    "random_state": "seed={}",
    "random_seed": "seed={}",
    # the machine
    "num_workers": "trainer.num_workers={}",
    "data.num_workers": "trainer.num_workers={}",
    "dataloader_num_workers": "trainer.num_workers={}",
    "n_jobs": "trainer.num_threads={}",
    "device": "trainer.accelerator={}",
    "accelerator": "trainer.accelerator={}",
    "devices": "trainer.devices={}",
    "gpus": "trainer=gpu trainer.devices={}",
    "strategy": "trainer.strategy={}",
    "precision": "trainer.precision={}",
    "deterministic": "trainer.deterministic={}",
    "detect_anomaly": "trainer.detect_anomaly={}",
    "fp16": "trainer=gpu trainer.precision=16-mixed",
    "bf16": "trainer.precision=bf16-mixed",
    "torch_compile": "compile={}",
    # what is kept, and where
    "ckpt_path": "resume={}",
    "resume_from_checkpoint": "resume={}",
    "save_top_k": "checkpoint.top_k={}",
    "save_total_limit": "checkpoint.max_to_keep={}",
    "logger": "tracking={}",
    "report_to": "tracking={}",
    "task_name": "run_name={}",
    "output_dir": "runs={}",
    "log_dir": "runs={}",
    "default_root_dir": "runs={}",
    "trainer.default_root_dir": "runs={}",
    "hydra.run.dir": "runs={}",
    "hydra.sweep.dir": "runs={}",
    "hydra/launcher": "sweep workers=2",
    "hydra/sweeper": "sweep sampler=tpe",
    "hydra.sweeper.n_trials": "sweep trials={}",
    "n_trials": "sweep trials={}",
    "hparams_search": "sweep",
}
"""Key -> what to type instead; a command comes first."""

VALUES = {
    "trainer.accelerator": {"cuda": "gpu", "mps": "gpu"},
    "trainer.precision": {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true", "fp16": "16-mixed"},
    "trainer.strategy": {"ddp_spawn": "ddp", "ddp_find_unused_parameters_true": "ddp"},
    "scheduler": {"cosine": "warmup_cosine", "linear": "one_cycle", "StepLR": "step", "OneCycleLR": "one_cycle"},
    "tracking": {"wandb": "mlflow", "tensorboard": "mlflow", "csv": "mlflow", "true": "mlflow", "false": "none"},
    "trainer": {"cuda": "gpu", "default": "cpu", "fast_dev_run": "debug"},
    "task": {"asr": "speech_recognition", "stt": "speech_recognition", "object-detection": "object_detection"},
    "data": {
        **dict.fromkeys(
            ("coco", "voc", "pascal_voc", "yolo", "kitti", "bdd", "bdd100k"), f"detection_folder {OF_BOXES} {PATH}"
        ),
        **dict.fromkeys(("librispeech", "common_voice", "nemo", "audio_folder"), f"speech_manifest {OF_SPEECH} {PATH}"),
    },
    "model": {
        **{
            name: f"torchvision_detector {OF_BOXES} model.architecture={ours}"
            for name, ours in (
                ("fcos", "fcos"),
                ("retinanet", "retinanet"),
                ("faster_rcnn", "faster_rcnn"),
                ("fasterrcnn", "faster_rcnn"),
                ("ssd", "ssdlite"),
                ("ssdlite", "ssdlite"),
            )
        },
        **dict.fromkeys(("yolo", "centernet"), f"center_detector {OF_BOXES}"),
        "deepspeech2": f"deep_speech {OF_SPEECH}",
    },
}
"""Key -> a value -> ours, and what else it takes unless it is typed already."""

COMMANDS = {
    "fit": "train",
    "eval": "test",
    "evaluate": "test",
    "validate": "test",
    "tune": "sweep",
    "optimize": "sweep",
    "infer": "predict",
}
"""Command -> ours."""


FLAGS = {
    "--info": "list",
    "--hydra-help": "--help",
    "--shell-completion": "completion bash",
    "-sc": "completion bash",
    "--experimental-rerun": "reproduce RUN",
    "--package": "config package=optimizer",
    "-p": "config package=optimizer",
    "-c": "config",
    "--config-name": "experiment={}",
    "-cn": "experiment={}",
    "--config-dir": "experiment={}/FILE.yaml",
    "-cd": "experiment={}/FILE.yaml",
    "--config-path": "experiment={}/FILE.yaml",
    "-cp": "experiment={}/FILE.yaml",
    "--run": "train",
    "-r": "train",
}
"""Flag of Hydra's -> our command; `{}` stands for the value of the flag."""


def flag(place: int, arguments: Sequence[str]) -> str:
    """Return what to say of a flag of Hydra's, or of its deletion of a key; empty for another word.

    Args:
        place: Where the word is.
        arguments: The command line; the word after it may be its value.
    """
    word, following = arguments[place], arguments[place + 1 :]
    name, equals, value = word.partition("=")
    if word.startswith("~") and not word.startswith("~/"):
        key = name[1:]
        group = key.split(".")[0]
        if group in LISTS:
            return (
                f"~{key}: a list is set, not deleted from. Try: {command_line(*arguments[:place], f'{group}=[]', *following)}"
            )
        if group in GROUPS or group in OPTIONS:
            return f"~{key}: a run has one of each group. Leave it out for the default. See: {command_line('list', group)}"
        return ""
    if name not in FLAGS:
        return ""
    if not equals and following:
        value = following[0]
    said = FLAGS[name].replace("{}", value or "NAME")
    why = " ./conf of the current folder is read, and any file by its path." if "FILE" in said else ""
    return f"{name}: is a flag of Hydra's.{why} Try: {command_line(*said.split())}"


def meant(key: str, arguments: Sequence[str]) -> str:
    """Return the command that was meant where another program has a word for it; empty where there is no such word.

    Args:
        key: What is wrong: the key of an option, or the name of a command.
        arguments: The command line.
    """
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.lstrip("+~") == key and (
            words := _replaced(key, value, arguments) if equals else COMMANDS.get(key, "").split()
        ):
            rest = [*arguments[:place], *arguments[place + 1 :]]
            typed = [word.partition("=")[0] for word in rest if "=" in word]
            words = [word for word in words if word.partition("=")[0] not in typed]
            command = [word for word in words if "=" not in word]
            if command:
                rest = [word for word in rest if word not in ("-m", "--multirun", "train")]
            elif rest and "=" not in rest[0]:
                command = [rest.pop(0)]
            return command_line(*command, *rest, *(word for word in words if "=" in word))
    return ""


def _replaced(key: str, value: str, arguments: Sequence[str]) -> list[str]:
    """Return what to type instead of a key with a value; empty where it is no habit."""
    if template := KEYS.get(key) or _option(key, arguments):
        target = template.rpartition(" ")[2].partition("=")[0]
        ours = VALUES.get(target, {}).get(value, value)
        if target == "trainer.limit_batches" and not value.isdecimal():
            ours = "10"  # a part of the batches elsewhere, a number of them here
        if template == BY_STEPS and not value.isdecimal():
            ours = "100"  # a part of an epoch elsewhere
        return [word.replace("{}", ours) for word in template.split()]
    if value in (known := VALUES.get(key, {})):
        return f"{key}={known[value]}".split()
    if key in GROUPS and re.fullmatch(r"[\w-]+", value) and (name := _spelled(key, value)):
        return [f"{key}={name}"]
    is_network = key == "model" and re.fullmatch(
        r"(resnet|vgg|densenet|mobilenet|efficientnet|vit|convnext|regnet|swin)\w*\d\w*", value
    )
    return ["model=backbone", f"model.architecture={value}"] if is_network else []


def _option(key: str, arguments: Sequence[str]) -> str:
    """Return the option of this name in the one group that has it: the model's first, else empty where several have."""
    plugins.discover()  # the key may be told before they are needed
    typed = {key: value for key, _, value in (word.partition("=") for word in arguments)}
    owners = {
        group: [entry.name for entry in registry if key in entry.parameters]
        for group, registry in GROUPS.items()
        if group not in LISTS
    }
    found = [group for group, entries in owners.items() if (typed[group] in entries if group in typed else entries)]
    if "model" in found:
        is_here = "model" in typed or "cnn" in owners["model"]
        return f"model.{key}={{}}" if is_here else f"model={owners['model'][0]} model.{key}={{}}"
    return f"{found[0]}.{key}={{}}" if len(found) == 1 else ""


def _spelled(group: str, value: str) -> str:
    """Return the component whose name is the same letters: adamw for AdamW."""
    letters = "".join(filter(str.isalnum, value)).lower()
    return next((entry.name for entry in GROUPS[group] if entry.name.replace("_", "") == letters and entry.name != value), "")
