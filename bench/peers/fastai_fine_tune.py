"""fastai's `vision_learner` and `Learner.fine_tune`, with their defaults (Howard and Gugger 2020, arXiv 2002.04688)."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import Learner  # it is this import that gives Learner its fine_tune
from fastai.data.transforms import Normalize, get_image_files, parent_label
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import params, set_seed
from fastai.vision.augment import Resize
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import model_meta, vision_learner
from fastcore.foundation import L
from torch import nn
from torchvision.models import get_model_builder

from bench.peers.ingredients import arranged, autocast, head_of, network
from bench.peers.protocol import Setting, Trial
from bench.peers.record import Record
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING


def fit(trial: Trial, record: Record) -> nn.Module:
    """`vision_learner(dls, arch).fine_tune(epochs)`; ViT, which its body-and-head surgery cannot cut, as a plain
    `Learner` with our split of body and head."""
    set_seed(trial.seed)
    dls = loaders(trial)
    learner = _learner(trial, dls)
    if trial.setting.channels_last:
        learner.model.to(memory_format=torch.channels_last)
    record.start()
    watching = _Watch(record, trial.setting)
    with learner.no_bar(), learner.no_logging():
        learner.add_cb(watching)
        learner.fine_tune(trial.budget.epochs)
        learner.remove_cb(watching)
    record.look(learner.model)
    record.finish()
    model: nn.Module = learner.model
    return model


def loaders(trial: Trial) -> Any:
    """Training images alone: whoever looks at the validation data is the record. fastai's own loaders decode them in
    every epoch, in processes of their own, in both columns."""
    task = trial.task
    root = task.root / "train"
    mean, std = IMAGENET_PREPROCESSING.mean, IMAGENET_PREPROCESSING.std
    return ImageDataLoaders.from_path_func(
        root,
        get_image_files(root),
        parent_label,
        valid_pct=0.0,
        seed=trial.seed,
        item_tfms=Resize(task.image_size),
        batch_tfms=[Normalize.from_stats(mean, std)],
        device=trial.setting.device,
    )


def _learner(trial: Trial, dls: Any) -> Any:
    pretrained = network(trial)
    architecture = trial.task.architecture
    if architecture.startswith("vit"):
        return Learner(dls, pretrained, loss_func=CrossEntropyLossFlat(), splitter=_body_and_head)

    def arch(**_: Any) -> nn.Module:
        """What vision_learner calls for a pretrained network: ours has its weights already."""
        return pretrained

    known = model_meta.get(get_model_builder(architecture))
    if known is not None:
        model_meta[arch] = {name: value for name, value in known.items() if name in ("cut", "split")}
    return vision_learner(dls, arch, normalize=False)


def _body_and_head(model: nn.Module) -> Any:
    head = {id(parameter) for parameter in head_of(model).parameters()}
    body = [parameter for parameter in model.parameters() if id(parameter) not in head]
    return L(L(body), params(head_of(model)))


class _Watch(Callback):
    """Tells the record of each step; sets precision and memory format around the forward pass."""

    def __init__(self, record: Record, setting: Setting) -> None:
        self.record, self.setting = record, setting

    def before_batch(self) -> None:
        self.learn.xb = tuple(arranged(batch, self.setting) for batch in self.learn.xb)
        self.autocast = autocast(self.setting)
        self.autocast.__enter__()

    def after_pred(self) -> None:
        self.autocast.__exit__(None, None, None)
        if self.setting.bfloat16:
            self.learn.pred = self.learn.pred.float()

    def after_batch(self) -> None:
        if self.learn.training and not self.record.step(self.learn.model, len(self.learn.yb[0])):
            raise CancelFitException

    def before_fit(self) -> None:
        if self.record.spent:  # fine_tune fits twice
            raise CancelFitException
