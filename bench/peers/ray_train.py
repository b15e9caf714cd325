"""The plain loop inside Ray Train's TorchTrainer with one worker, as Ray's documentation has it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from torch import nn

from bench.peers import plain
from bench.peers.ingredients import network, rate_of, training_loader
from bench.peers.looking import opened, recorder
from bench.peers.protocol import Trial
from bench.peers.record import Record

OBJECT_STORE_BYTES = 128 * 2**20
MODEL, NOTES = "model.pt", "record.json"


def fit(trial: Trial, record: Record) -> nn.Module:
    """The worker has a record of its own, on its own clock, which starts with its loop: Ray's start is start-up."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # Ray's 30 s are too few on a busy machine
    ray.init(
        address="local",
        num_cpus=trial.setting.threads + 1,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
            TorchTrainer(
                worker,
                train_loop_config={"trial": trial, "folder": folder},
                scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": trial.setting.threads}),
                run_config=RunConfig(storage_path=folder, name="bench"),
            ).fit()
            record.adopt(json.loads((Path(folder) / NOTES).read_text(encoding="utf-8")))
            model = network(trial)
            model.load_state_dict(torch.load(Path(folder) / MODEL, weights_only=True))
    finally:
        ray.shutdown()
    return model


def worker(config: dict[str, Any]) -> None:
    """Ray Train's training function: the plain loop with the model and the loader prepared, and a report an epoch."""
    trial, folder = config["trial"], Path(config["folder"])
    os.environ["OMP_NUM_THREADS"] = str(trial.setting.threads)
    torch.set_num_threads(trial.setting.threads)
    torch.manual_seed(trial.seed)
    record = recorder(trial, opened(trial.task))
    model = prepare_model(network(trial))
    loader = prepare_data_loader(training_loader(trial))
    groups = [{"params": list(model.parameters()), "lr": rate_of(trial.task.architecture)}]
    plain.train(model, groups, loader, trial, record, after_epoch=train.report)
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    torch.save(bare.state_dict(), folder / MODEL)
    (folder / NOTES).write_text(json.dumps(record.result()), encoding="utf-8")
