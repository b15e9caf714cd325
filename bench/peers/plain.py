"""A plain PyTorch loop: everything is trained, AdamW under one cycle. What the marks are taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bench.peers.ingredients import (
    WEIGHT_DECAY,
    arranged,
    autocast,
    network,
    rate_of,
    training_loader,
)
from bench.peers.protocol import Trial
from bench.peers.record import Record


def fit(trial: Trial, record: Record) -> nn.Module:
    """Full fine-tuning."""
    torch.manual_seed(trial.seed)
    model = network(trial)
    groups = [{"params": list(model.parameters()), "lr": rate_of(trial.task.architecture)}]
    train(model, groups, training_loader(trial), trial, record)
    return model


def train(
    model: nn.Module,
    groups: Sequence[dict[str, Any]],
    loader: Any,
    trial: Trial,
    record: Record,
    *,
    after_epoch: Callable[[dict[str, float]], None] = lambda _: None,
) -> None:
    """The loop, over parameter groups with their own peak `lr`; `after_epoch` hears of each epoch's last loss."""
    setting = trial.setting
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=trial.budget.epochs * len(loader)
    )
    record.start()
    for epoch in range(trial.budget.epochs):
        model.train()
        for images, labels in loader:
            targets = labels.to(setting.device, non_blocking=True)
            with autocast(setting):
                loss = functional.cross_entropy(model(arranged(images, setting)), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if not record.step(model, len(labels)):
                record.finish()
                return
        after_epoch({"loss": loss.item(), "epoch": epoch})
    record.look(model)
    record.finish()
