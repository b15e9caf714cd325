"""What each Ray Train worker runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from ray import train
from ray.train.torch import get_device

from snowmelt_trainer.backbones import BuiltBackbone, build_backbone, model_config
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.contract.progress import DataStatus, Metrics, Progress
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.data.batches import automatic_batch
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.decoding import decoding_threads
from snowmelt_trainer.data.loading import EvaluationLoader, TrainingLoader
from snowmelt_trainer.data.samples import SampleSet, TargetData
from snowmelt_trainer.data.transforms import View, resolve
from snowmelt_trainer.driver.failures import sendable_errors
from snowmelt_trainer.driver.handover import Handover
from snowmelt_trainer.driver.layout import Layout, fingerprint
from snowmelt_trainer.driver.logs import log_to_stderr_of_worker
from snowmelt_trainer.driver.published import fetched_once
from snowmelt_trainer.driver.relay import Sender
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.stages import plan_stages
from snowmelt_trainer.training.allocation import keep_freed_memory
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.precision import choose_precision, place_model
from snowmelt_trainer.training.requests import CheckpointRequests
from snowmelt_trainer.training.rig import MAX_WARNING, MAX_WARNINGS, Reporter, Rig
from snowmelt_trainer.training.state import as_metrics, deciding_metric
from snowmelt_trainer.training.walk import walk

log = logging.getLogger(__name__)

MAX_EVALUATION_BATCH, MAX_ON_A_PROCESSOR = 256, 64
"""Images of one worker. A processor evaluates 64 as fast as 256 (a ResNet-50 faster), and they take a quarter of the
memory, which at 256 was more than training takes."""
CHECKPOINT_EVERY_SECONDS = 300.0
"""Where workers come and go: the most training that a lost one costs, unless checkpointEverySteps says otherwise."""


def train_worker(payload: dict[str, Any]) -> str:
    """Ray Train's training function. `payload` has `config` (RunConfig as JSON), `data` (TargetData), `send` (a
    Sender) and `handover` (a Handover).

    Returns `Trained` as JSON, the same on every worker.

    Raises:
        RunError, UnforeseenError: and nothing else.
    """
    log_to_stderr_of_worker()
    keep_freed_memory()
    with sendable_errors():
        config = RunConfig.model_validate_json(payload["config"])
        torch.set_num_threads(max(1, int(config.workers.cpus)))
        context = train.get_context()
        world = World(context.get_world_rank(), context.get_world_size(), get_device())
        log.info("worker %d of %d is there", world.rank + 1, world.size)
        requests = _requests(config, world, payload["handover"])
        send: Sender = payload["send"]
        trained = fine_tune(config, payload["data"], world, send, requests)
        send.settle()
        return trained.model_dump_json(by_alias=True)


def fine_tune(
    config: RunConfig, data: TargetData, world: World, send: Sender, requests: CheckpointRequests | None = None
) -> Trained:
    """Builds the backbone, walks the stages, and measures the delivered model once on the test data.

    Raises:
        RunError: whatever ends the run for a reason that its owner can act on.
    """
    backbone, rig = set_up(config, data, world, send)
    walked = walk(replace(rig, requests=requests or CheckpointRequests()))
    test: Metrics = {}
    if data.test is not None:
        loader = _evaluation_loader(config, data.test, world, backbone)
        test = as_metrics(rig.evaluate(rig.model, loader).values)
    return Trained(
        reason=walked.reason,
        checkpoint=walked.best.checkpoint,
        state=walked.state,
        validation=as_metrics(walked.best.values),
        test=test,
        precision=rig.precision,
        workers=world.size,
        augmentation=resolve(config.data.augmentation, len(data.train)),
        model=model_config(
            backbone.model,
            config.backbone.architecture,
            classes=data.classes,
            preprocessing=backbone.preprocessing,
            image_size=config.data.image_size,
        ),
    )


def _requests(config: RunConfig, world: World, handover: Handover) -> CheckpointRequests:
    elastic, by_steps = config.workers.elastic is not None, config.optimization.checkpoint_every_steps
    return CheckpointRequests(
        world=world,
        asked=handover.asked,
        kept=handover.kept,
        every_seconds=CHECKPOINT_EVERY_SECONDS if by_steps is None else None,
        enabled=elastic,
    )


def set_up(
    config: RunConfig, data: TargetData, world: World, send: Callable[[Progress], None]
) -> tuple[BuiltBackbone, Rig]:
    """The network on the worker's device, and all that the stages need.

    Raises:
        RunError: the backbone cannot be built; or as `build_rig`.
    """
    backbone = build_backbone(
        config.backbone,
        num_classes=len(data.classes),
        dropout=config.optimization.regularization.dropout,
        seed=config.optimization.seed,
        volumes_root=config.volumes_root,
        image_size=config.data.image_size,
        fetch=fetched_once(world),
    )
    place_model(backbone.model, world.device)
    return backbone, build_rig(config, data, world, send, backbone)


def build_rig(
    config: RunConfig,
    data: TargetData,
    world: World,
    send: Callable[[Progress], None],
    backbone: BuiltBackbone,
) -> Rig:
    """All that the stages need, for a backbone that lies on the worker's device.

    Raises:
        RunError: InvalidConfig, when a step would leave a worker too few images.
    """
    batch = config.optimization.batch_size or automatic_batch(len(data.train), config.workers.most)
    plan = plan_stages(
        config.unfreezing,
        config.optimization.model_copy(update={"batch_size": batch}),
        backbone.groups,
    )
    train_loader = _training_loader(config, data.train, batch, world, backbone)
    reporter = Reporter(
        plan=plan,
        metric=deciding_metric(config.unfreezing.target),
        steps_per_epoch=train_loader.steps,
        data=_data_status(data),
        warnings=tuple(warning[:MAX_WARNING] for warning in data.warnings[:MAX_WARNINGS]),
        send=send,
        workers=world.size,
    )
    rig = Rig(
        config=config,
        model=backbone.model,
        groups=backbone.groups,
        plan=plan,
        classes=len(data.classes),
        samples=len(data.train),
        train=train_loader,
        validation=_evaluation_loader(config, data.validation, world, backbone),
        world=world,
        precision=choose_precision(config.optimization.precision, world, backbone.model),
        fingerprint=fingerprint(config),
        store=CheckpointStore(Layout.of(config).checkpoints),
        reporter=reporter,
    )
    _require_enough_images(rig)
    return rig


def _require_enough_images(rig: Rig) -> None:
    """Each worker needs an image in every step, and two where BatchNorm adapts its statistics to them."""
    workers = rig.config.workers.most
    fewest = min(rig.images_in(step) for step in range(rig.train.steps)) // workers
    has_batch_norm = any(group.batch_norm for group in rig.groups)
    needed = 2 if has_batch_norm and any(rig.adapts_statistics(stage) for stage in rig.plan) else 1
    if fewest < needed:
        raise RunError(
            Reason.INVALID_CONFIG,
            f"spec.optimization.batchSize {rig.train.global_batch} over {workers} workers and "
            f"{rig.samples} training images leaves a worker {fewest} images in a step, and it needs {needed}: "
            f"raise batchSize or lower spec.workers.{'elastic.max' if rig.config.workers.elastic else 'replicas'}",
        )


def _data_status(data: TargetData) -> DataStatus:
    return DataStatus(
        classes=len(data.classes),
        train=len(data.train),
        validation=len(data.validation),
        test=len(data.test) if data.test else 0,
        duplicates_across_splits=data.duplicates_across_splits,
    )


def _training_loader(
    config: RunConfig, samples: SampleSet, batch: int, world: World, backbone: BuiltBackbone
) -> TrainingLoader:
    return TrainingLoader(
        ImageDataset(samples, _view(config, backbone, resolve(config.data.augmentation, len(samples)))),
        seed=config.optimization.seed,
        global_batch=batch,
        rank=world.rank,
        world=world.size,
        threads=decoding_threads(config.workers.cpus, world.device),
        device=world.device,
    )


def _evaluation_loader(
    config: RunConfig, samples: SampleSet, world: World, backbone: BuiltBackbone
) -> EvaluationLoader:
    most = MAX_ON_A_PROCESSOR if world.device.type == "cpu" else MAX_EVALUATION_BATCH
    asked = config.optimization.batch_size
    share = most if asked is None else asked // world.size
    return EvaluationLoader(
        ImageDataset(samples, _view(config, backbone, Augmentation.NONE)),
        batch=max(1, min(share, most)),
        rank=world.rank,
        world=world.size,
        threads=decoding_threads(config.workers.cpus, world.device),
        device=world.device,
    )


def _view(config: RunConfig, backbone: BuiltBackbone, augmentation: Augmentation) -> View:
    return View(
        image_size=config.data.image_size,
        preprocessing=backbone.preprocessing,
        augmentation=augmentation,
        seed=config.optimization.seed,
    )
