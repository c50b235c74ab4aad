"""What it takes to use them: a few lines for each."""

import numpy as np
import timm
import torch
import torchmetrics
import torchvision
from lightning.pytorch import Callback
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import CSVLogger
from sklearn.neighbors import NearestCentroid
from torch import nn, optim
from torchvision.transforms import v2

from dlframe.models.fitted_at_once import FittedAtOnce
from dlframe.readers.splits import image_spec, stratified
from dlframe.registry import augmentations, callbacks, data, metrics, models, optimizers, schedulers, tasks
from dlframe.tasks.classification import Classification
from dlframe.types import Dataset, DataSpec, Split

from . import theirs


# --- LeNet of a CIFAR repository
@models.register("their_lenet")
def their_lenet(spec: DataSpec):
    return theirs.LeNet(in_channels=spec.shape[0], num_classes=len(spec.classes))


# --- ResNet of a CIFAR repository
@models.register("their_resnet")
def their_resnet(spec: DataSpec):
    return theirs.ResNet6(in_channels=spec.shape[0], num_classes=len(spec.classes))


# --- model that returns a tuple
@models.register("their_auxiliary")
class TheirAuxiliary(theirs.WithAuxiliary):
    def __init__(self, spec: DataSpec, *, first: bool = True):
        super().__init__(spec.shape[0], len(spec.classes))
        self.register_forward_hook(lambda module, inputs, outputs: outputs[0] if first else outputs)


# --- torchvision model
@models.register("tv_shufflenet")
def tv_shufflenet(spec: DataSpec):
    net = torchvision.models.shufflenet_v2_x0_5(num_classes=len(spec.classes))
    net.conv1[0] = nn.Conv2d(spec.shape[0], 24, 3, padding=1, bias=False)
    return net


# --- timm model by class
@models.register("timm_vit")
def timm_vit(spec: DataSpec, *, depth: int = 1):
    channels, size, _ = spec.shape
    small = {"patch_size": 2, "embed_dim": 16, "num_heads": 2, "depth": depth}
    return timm.models.VisionTransformer(img_size=size, in_chans=channels, num_classes=len(spec.classes), **small)


# --- timm model by name
@models.register("timm_model")
def timm_model(spec: DataSpec, *, name_of: str = "test_resnet"):
    return timm.create_model(name_of, in_chans=spec.shape[0], num_classes=len(spec.classes))


# --- scikit-learn classifier
@models.register("sklearn_centroids", networks=())
class SklearnCentroids(FittedAtOnce):
    def fit(self, samples):
        return {"centers": NearestCentroid().fit(samples["inputs"].reshape(-1, 64), samples["targets"]).centroids_}

    def answer(self, inputs):
        return -torch.cdist(inputs.flatten(1).float(), self.learned["centers"].float())


# --- Lion
@optimizers.register("their_lion")
def their_lion(params, *, lr: float = 1e-3, weight_decay: float = 0.0):
    return theirs.Lion(params, lr=lr, weight_decay=weight_decay)


# --- schedule-free SGD
@optimizers.register("their_schedule_free")
def their_schedule_free(params, *, lr: float = 1.0):
    return theirs.SGDScheduleFree(params, lr=lr)


# --- optimizer of torch
optimizers.adopt("torch_adamax", "torch.optim:Adamax", lr=float, omit="others")


# --- optimizer of timm
optimizers.adopt("timm_adabelief", "timm.optim:AdaBelief", lr=float, omit="others")


# --- optimizer that evaluates the loss itself
@optimizers.register("torch_lbfgs")
def torch_lbfgs(params, *, lr: float = 1.0):
    return optim.LBFGS([p for group in params for p in group["params"]], lr=lr)


# --- schedule of torch
@schedulers.register("warm_restarts")
def warm_restarts(optimizer, steps, *, first: int = 10):
    return optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first)


# --- transform of torchvision
@augmentations.register("tv_rotation")
class TvRotation:
    def __init__(self, spec: DataSpec, *, degrees: float = 10.0):
        self.rotate = v2.RandomRotation(degrees)

    def __call__(self, batch, generator):
        return batch.replace(inputs=self.rotate(batch.inputs))


# --- Cutout of a CIFAR repository
@augmentations.register("their_cutout")
class TheirCutout(theirs.Cutout):
    def __init__(self, spec: DataSpec, *, length: int = 4):
        super().__init__(length)

    def __call__(self, batch, generator):
        return batch.replace(inputs=super().__call__(batch.inputs))


# --- torch Dataset
@data.register("their_digits", files=())
def their_digits():
    images, labels = map(np.stack, zip(*theirs.DigitsDataset(train=True), *theirs.DigitsDataset(train=False), strict=True))
    whole = Split({"image": images, "label": labels}, np.arange(len(labels)))
    splits = [whole.take(index) for index in stratified(labels, (0.6, 0.2, 0.2))]
    return Dataset(image_spec("their_digits", splits[0], "0123456789"), *splits, "theirs", "stratified 60/20/20")


# --- focal loss
@tasks.register("their_focal", extends="classification")
class TheirFocal(Classification):
    def supervised(self, logits, batch, total):
        return theirs.FocalLoss(reduction="sum")(logits, batch[self.target]) / total


# --- metric of torchmetrics
@metrics.register("hamming", scores=("probability", "target"), better="min")
def hamming(spec: DataSpec):
    return torchmetrics.classification.MulticlassHammingDistance(len(spec.classes))


# --- CSVLogger
@callbacks.register("csv_logger")
class CsvLogger(Callback):
    def on_fit_start(self, trainer, pl_module):
        trainer.loggers = [*trainer.loggers, CSVLogger("csv", version=0)]


# --- LearningRateMonitor
@callbacks.register("learning_rates")
def learning_rates():
    return lightning_callbacks.LearningRateMonitor()


# --- DeviceStatsMonitor
@callbacks.register("device_stats")
def device_stats():
    return lightning_callbacks.DeviceStatsMonitor(cpu_stats=True)


# --- Timer
@callbacks.register("timer")
def timer():
    return lightning_callbacks.Timer()


# --- ModelCheckpoint
@callbacks.register("model_checkpoint")
def model_checkpoint():
    return lightning_callbacks.ModelCheckpoint()


# --- StochasticWeightAveraging
@callbacks.register("averaging")
def averaging():
    return lightning_callbacks.StochasticWeightAveraging(swa_lrs=0.01)


# --- ModelSummary
@callbacks.register("model_summary")
def model_summary():
    return lightning_callbacks.ModelSummary()


# --- TQDMProgressBar
@callbacks.register("bar")
def bar():
    return lightning_callbacks.TQDMProgressBar()
