"""From a stage to its cache: measure, decide together, and lay out the views."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snowmelt_trainer.accelerator import settle
from snowmelt_trainer.backbones import Cut, between
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.contract.optimization import CacheMode
from snowmelt_trainer.contract.progress import CachePlace, CacheStatus
from snowmelt_trainer.data.batches import Ids, owners, parts
from snowmelt_trainer.data.samples import SampleSet
from snowmelt_trainer.data.transforms import Draw
from snowmelt_trainer.training.activations import keys, resources
from snowmelt_trainer.training.activations.account import MAX_REASON
from snowmelt_trainer.training.activations.cache import ActivationCache, Plan
from snowmelt_trainer.training.activations.computing import Prefix, View
from snowmelt_trainer.training.activations.payoff import Costs, Decision, Room, Transfer, Work, decide, wished_bytes
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.rig import Rig

log = logging.getLogger(__name__)

FEWEST_AT_ONCE, MOST_AT_ONCE = 32, 256
"""Images that the prefix computes at a time: a worker's share of a batch, within these."""
PROBED = 32
"""Images with which load and prefix are timed; what comes out is thrown away."""


@dataclass(frozen=True)
class Probe:
    """What was measured on this worker."""

    like: Tensor
    """One row, (1, …), on the CPU."""
    load: float
    """Seconds that an image's loading adds to the prefix's: none where it is decoded while the prefix computes."""
    prefix: float
    """Seconds an image."""
    memory: Transfer
    """Seconds a row."""


def origins(first_trained: Sequence[int]) -> tuple[int, ...]:
    """For each stage, given the index of the first layer group that it trains, the stage whose variations of the images
    it sees when they are kept.

    A stage whose frozen prefix begins with that of the stage before sees the same ones, so that its rows can be
    computed from that stage's; others see their own. A function of the plan alone, so a resumed run sees the same.
    """
    found = [0] if first_trained else []
    for stage, (before, now) in enumerate(pairwise(first_trained), start=1):
        found.append(found[-1] if 0 < before <= now else stage)
    return tuple(found)


def open_cache(
    rig: Rig,
    cut: Cut,
    stage: int,
    earlier: CacheStatus | None,
    previous: ActivationCache | None,
    *,
    plain: bool = False,
) -> tuple[ActivationCache | None, CacheStatus | None]:
    """The cache for a stage (counted from 0), and what status says of it; no cache where there is nothing to keep or
    where it would not pay. All workers decide alike.

    `earlier` is what an interrupted attempt at this stage decided, which is kept to, so that it goes on with the same
    variations. `previous` is the cache of the stage before, which becomes this one's to use and to close. `plain`
    keeps the training images as they are, without augmentation, wherever that fits.
    """
    wanted = rig.config.optimization.cache
    if wanted.mode is CacheMode.NEVER or cut.prefix is None or (earlier is not None and earlier.views == 0):
        reason = f"not built: the network cannot be cut: {cut.reason}" if cut.reason else ""
        return _without_one(previous, earlier or (CacheStatus(reason=reason[:MAX_REASON]) if reason else None))
    origin = origins([_first_trained(rig, one) for one in range(len(rig.plan))])[stage]
    previous = _usable(rig, previous, origin)
    prefix = Prefix(cut.prefix, rig.precision, rig.world, rig.preprocessing)
    probe = measure(rig, prefix, origin)
    kept_before = previous.bytes if previous is not None else 0
    decision, directory = _decided(rig, probe, stage, earlier, kept_before, plain=plain)
    log.info("stage %d: cache: %s", stage + 1, decision.reason)
    views = earlier.views if earlier is not None else decision.views
    if views == 0:
        return _without_one(previous, CacheStatus(reason=decision.reason[:MAX_REASON]))
    made_by = keys.Prefix.of(cut, rig.precision, rig.world.device)
    *training, validation = _views(rig, made_by, None if plain else origin, views)
    plan = Plan(
        cut=cut,
        prefix=prefix,
        made_by=made_by,
        origin=origin,
        train=tuple(training),
        validation=validation,
        place=decision.place or CachePlace.MEMORY,
        directory=directory,
        like=probe.like,
        pass_seconds=(probe.load + probe.prefix) * len(training[0].ids),
    )
    cache = ActivationCache(
        plan,
        rig.train,
        rig.validation,
        previous=previous,
        bridge=between(rig.model, previous.plan.cut, cut) if previous is not None else None,
    )
    _sweep(plan, previous)
    if decision.views < views:
        cache.fail(decision.reason.removeprefix("not built: "))
    return cache, earlier or CacheStatus(views=views, place=decision.place, reason=decision.reason[:MAX_REASON])


def _without_one(
    previous: ActivationCache | None, status: CacheStatus | None
) -> tuple[ActivationCache | None, CacheStatus | None]:
    """No cache for this stage, and none left of the stage before."""
    if previous is not None:
        previous.close()
    return None, status


def _sweep(plan: Plan, previous: ActivationCache | None) -> None:
    """Of the files where this stage keeps its own, leave only what it uses and what it computes it from."""
    if plan.directory is not None:
        used = [plan, previous.plan] if previous is not None else [plan]
        resources.sweep(plan.directory, {view.key for one in used for view in (*one.train, one.validation)})


def _first_trained(rig: Rig, stage: int) -> int:
    return min(i for i, group in enumerate(rig.groups) if group.name in rig.plan[stage].trainable)


def _usable(rig: Rig, previous: ActivationCache | None, origin: int) -> ActivationCache | None:
    """The previous stage's cache, where rows of this stage follow from its rows; closed where they do not."""
    if previous is None:
        return None
    before = previous.plan
    same = before.origin == origin and before.made_by == keys.Prefix.of(before.cut, rig.precision, rig.world.device)
    if previous.failure or not same:
        previous.close()
        return None
    return previous


def _decided(
    rig: Rig, probe: Probe, stage: int, earlier: CacheStatus | None, kept_before: int, *, plain: bool
) -> tuple[Decision, Path | None]:
    """The leading worker's decision, within what the worker with the least room has; and where files go."""
    world, wanted = rig.world, rig.config.optimization.cache
    if earlier is not None or plain:
        views = earlier.views if earlier is not None else None
        wanted = wanted.model_copy(update={"mode": CacheMode.ALWAYS, "views": views})
    work = Work(
        epochs=rig.plan[stage].max_epochs,
        samples=-(-rig.samples // world.size),
        validation=-(-len(rig.validation.dataset) // world.size),
        augmented=rig.train.dataset.view.augmentation is not Augmentation.NONE and not plain,
    )
    row_bytes = probe.like.numel() * probe.like.element_size()
    limit = max(0, (wanted.max_bytes if wanted.max_bytes is not None else resources.UNLIMITED) - kept_before)
    neighbours = world.gather(platform.node()).count(platform.node())
    memory = min(limit, world.minimum(int(resources.free_memory() * resources.MEMORY_SHARE / neighbours)))
    disk, transfer, directory = 0, Transfer(0.0, 0.0), None
    if wished_bytes(wanted, work, row_bytes) > memory:
        directory, free, transfer = _disk(rig, row_bytes)
        disk = min(limit, world.minimum(int(free * resources.DISK_SHARE / neighbours)))
    costs = Costs(probe.load, probe.prefix, row_bytes, probe.memory, transfer)
    decision = decide(wanted, work, costs, Room(memory, disk))
    agreed = world.from_leader(json.dumps(asdict(decision)).encode())
    return Decision.parse(json.loads(agreed)), directory


def _disk(rig: Rig, row_bytes: int) -> tuple[Path | None, int, Transfer]:
    """Where files may go, the bytes that are free there, and the seconds to write and read a row; nothing is free where
    nothing can be written."""
    try:
        directory = resources.cache_directory(rig.config.job.uid)
        a_byte = resources.disk_transfer(directory)
        free = resources.free_disk(directory)
    except OSError as error:
        log.warning("no activations can be kept on disk: %s", error)
        return None, 0, Transfer(0.0, 0.0)
    return directory, free, Transfer(a_byte.write * row_bytes, a_byte.read * row_bytes)


def _views(rig: Rig, made_by: keys.Prefix, origin: int | None, number_of_views: int) -> tuple[View, ...]:
    """The training images' views in order, and the validation images' plain one; without an `origin` the training
    images are plain, too."""
    train = rig.train.dataset
    own = _own(len(train), rig.world)
    size = max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, rig.train.global_batch // rig.world.size))
    # Equally long, as a training step's are: a few images by themselves are rounded otherwise.
    chunks = parts(own, size)
    content = content_of(train.samples)

    def view(number: int) -> View:
        return View(
            name=f"view {number + 1}",
            key=keys.rows_key(made_by, train.view, content=content, origin=origin or 0, number=number),
            samples=len(train),
            chunks=chunks,
            turn=lambda sample: Draw(sample, origin or 0, number),
            load=rig.train.load,
        )

    plain = View(
        name="plain",
        key=keys.rows_key(made_by, train.view, content=content, origin=0, number=None),
        samples=len(train),
        chunks=chunks,
        turn=lambda sample: sample,
        load=rig.train.load,
    )

    held_out = rig.validation.dataset
    validation = View(
        name="validation",
        key=keys.rows_key(made_by, held_out.view, content=content_of(held_out.samples), origin=0, number=None),
        samples=len(held_out),
        chunks=tuple(np.array(batch, dtype=np.int64) for batch in rig.validation.batches),
        turn=lambda sample: sample,
        load=rig.validation.load,
    )
    training = (plain,) if origin is None else tuple(view(number) for number in range(number_of_views))
    return (*training, validation)


def _own(samples: int, world: World) -> Ids:
    ids = np.arange(samples, dtype=np.int64)
    own: Ids = ids[owners(ids, world.size) == world.rank]
    return own


def content_of(samples: SampleSet) -> str:
    """Digest of the files' bytes, or, where nobody has read them yet, of their names, sizes and times."""
    if samples.content:
        return samples.content
    sha256 = hashlib.sha256()
    for path in samples.paths:
        found = Path(path).stat()
        sha256.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return sha256.hexdigest()


def measure(rig: Rig, prefix: Prefix, origin: int) -> Probe:
    """Times a few images, the prefix's first call apart, which is slower than those that follow. They are held by then,
    so that what decoding takes of the others is added."""
    draws = [Draw(i, origin, 0) for i in range(min(PROBED, rig.samples))]
    next(rig.train.load([draws]))
    started = time.perf_counter()
    images = next(rig.train.load([draws]))[0]
    settle(rig.world.device)
    loaded = time.perf_counter()
    prefix(images)
    settle(rig.world.device)
    warm = time.perf_counter()
    features = prefix(images)
    settle(rig.world.device)
    done = time.perf_counter()
    rows = features.cpu()
    kept = rows.clone()
    written = time.perf_counter()
    kept.index_select(0, torch.arange(len(draws)))
    read = time.perf_counter()
    count = len(draws)
    forward = (done - warm) / count
    return Probe(
        like=rows[:1].clone(),
        load=(loaded - started) / count + rig.train.wait(forward),
        prefix=forward,
        memory=Transfer((written - done) / count, (read - written) / count),
    )
