"""The cache of one stage on one worker: filled view by view, read batch by batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from snowmelt_trainer.backbones import Cut
from snowmelt_trainer.contract.progress import CachePlace
from snowmelt_trainer.data.batches import Ids, parts
from snowmelt_trainer.data.loading import Batch, EvaluationLoader, TrainingLoader
from snowmelt_trainer.data.rows import MemoryRows
from snowmelt_trainer.training.activations import keys
from snowmelt_trainer.training.activations.account import Account
from snowmelt_trainer.training.activations.computing import Prefix, View, spot_check
from snowmelt_trainer.training.activations.resources import memory_for
from snowmelt_trainer.training.activations.rows import FileRows, Rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a stage's cache consists of on this worker."""

    cut: Cut
    prefix: Prefix
    made_by: keys.Prefix
    origin: int
    """The stage, counted from 0, whose variations of the images these are."""
    train: tuple[View, ...]
    """By number: epoch e sees view e modulo their count."""
    validation: View
    place: CachePlace
    directory: Path | None
    """Where files go; None without any."""
    like: Tensor
    """One row, (1, …)."""
    pass_seconds: float
    """What decoding, augmenting and the prefix take for this worker's training images, as measured; the validation
    images are in proportion."""

    @property
    def row_bytes(self) -> int:
        """What one row takes."""
        return self.like.numel() * self.like.element_size()


@dataclass
class ActivationCache:
    """Features instead of images. A row that is not there is computed on the spot, from the same variation of its
    image, so training goes on the same where a cache fails; `failure` then says why, and must be shown.

    Views are filled when the first epoch needs them, so a stage that ends early computes no more than it would have
    without a cache.
    """

    plan: Plan
    loader: TrainingLoader
    evaluation: EvaluationLoader
    tick: Callable[[], None] = lambda: None
    """Called now and then while it is filled."""
    previous: ActivationCache | None = None
    """The stage's before, as long as rows can be computed from its rows."""
    bridge: fx.GraphModule | None = None
    """From the previous cache's features to this one's."""
    clock: Callable[[], float] = time.perf_counter
    building: float = 0.0
    saved: float = 0.0
    bytes: int = 0
    """What it cost and saved, as in Account."""
    failure: str = ""
    notes: list[str] = field(default_factory=list)
    """What a person should know though the cache goes on."""
    _rows: dict[str, Rows] = field(default_factory=dict)
    """By name of the view."""
    _ready: set[str] = field(default_factory=set)

    def epoch(self, stage: int, epoch: int, *, start_step: int, at_least: int) -> Iterator[Batch]:
        """The features, labels and ids of this worker's share of each step, which is at least `at_least` samples.

        Raises:
            RunError: as the loader does, where rows have to be computed.
        """
        shares = self.loader.owned(stage, epoch, start_step=start_step, at_least=at_least)
        view = self.plan.train[epoch % len(self.plan.train)]
        return self._read(view, shares, self.loader.dataset.labels, len(shares) / self.loader.steps)

    def validation(self) -> Iterator[Batch]:
        """The features, labels and ids of this worker's validation images, each once. Raises as `epoch` does."""
        view = self.plan.validation
        share = len(view.ids) / max(1, len(self.plan.train[0].ids))
        return self._read(view, list(view.chunks), self.evaluation.dataset.labels, share)

    def whole(self) -> Iterator[Batch]:
        """The features, labels and ids of all training images that this worker owns, in the first view. Raises as
        `epoch` does."""
        view = self.plan.train[0]
        return self._read(view, list(view.chunks), self.loader.dataset.labels, 1.0)

    def again(self, most: int) -> Iterator[Batch]:
        """What `whole` gave, in parts of `most` at most. Saves nothing that was not saved then. Raises as `epoch`
        does."""
        view = self.plan.train[0]
        return self._read(view, list(parts(view.ids, most)), self.loader.dataset.labels, 0.0)

    @property
    def owned(self) -> int:
        """How many `whole` gives."""
        return len(self.plan.train[0].ids)

    @property
    def planned_bytes(self) -> int:
        """What all rows take once they are there."""
        return self.plan.row_bytes * sum(len(view.ids) for view in (*self.plan.train, self.plan.validation))

    def told(self) -> str:
        """The account as JSON, for the other workers."""
        return Account(
            building=self.building,
            saved=self.saved,
            bytes=self.bytes,
            failure=self.failure,
            notes=tuple(self.notes),
        ).model_dump_json(by_alias=True)

    def close(self) -> None:
        """Lets go of all rows; files are removed."""
        self._let_go_of_previous()
        for name in list(self._rows):
            self._discard(name)

    def _read(self, view: View, shares: list[Ids], labels: Tensor, share: float) -> Iterator[Batch]:
        """`share` is that of the measured pass which these batches would have cost without a cache."""
        started = self.clock()
        rows = self._filled(view)
        if rows is not None:
            self.saved += share * self.plan.pass_seconds - (self.clock() - started)
        absent = [ids if rows is None else ids[~rows.has(ids)] for ids in shares]
        images = view.images([ids for ids in absent if len(ids)])
        for ids, lacking in zip(shares, absent, strict=True):
            started = self.clock()
            features = self._features(rows, ids, lacking, images)
            index = torch.from_numpy(ids)
            batch = features, labels[index], index
            if rows is not None:
                self.saved -= self.clock() - started
            yield batch

    def _features(self, rows: Rows | None, ids: Ids, lacking: Ids, images: Iterator[Tensor]) -> Tensor:
        device = self.plan.prefix.world.device
        if rows is not None and not len(lacking):
            kept = rows.take(ids)
            return kept.pin_memory() if device.type == "cuda" and kept.device.type == "cpu" else kept
        features = torch.empty((len(ids), *self.plan.like.shape[1:]), dtype=self.plan.like.dtype, device=device)
        if len(lacking):
            here = torch.from_numpy(_places(ids, lacking)).to(device)
            features[here] = self.plan.prefix(next(images))
        if rows is not None and len(lacking) < len(ids):
            there = ids[rows.has(ids)]
            features[torch.from_numpy(_places(ids, there)).to(device)] = rows.take(there).to(device)
        return features

    def _filled(self, view: View) -> Rows | None:
        """The view's rows, with all that this worker owns; None once the cache has failed."""
        if self.failure:
            return None
        if view.name not in self._ready:
            started = self.clock()
            try:
                self._fill(view)
            except OSError as error:
                where = error.filename or self.plan.directory
                self.fail(f"{where}: {error.strerror or error}: free some space, or lower cache.maxBytes")
                return None
            self.building += self.clock() - started
        return self._rows.get(view.name)

    def _fill(self, view: View) -> None:
        """Fills the view and compares a few rows with their recomputation; builds it anew, once, where they differ."""
        for attempt in (1, 2):
            rows = self._rows[view.name] = self._adopted(view) or self._opened(view)
            missing = view.missing(rows)
            for ids, values in zip(missing, self._values(view, missing), strict=True):
                rows.put(ids, values)
                self.tick()
            self.bytes = max(self.bytes, self._size())
            different = spot_check(view, rows, self.plan.prefix)
            if not different:
                self._ready.add(view.name)
                break
            self._discard(view.name)
            self.notes.append(f"cache: {different}; {'built anew' if attempt == 1 else 'it is not used'}")
            if attempt == 2:
                self.fail(different)
        if len(self._ready) == len(self.plan.train) + 1:
            self._let_go_of_previous()

    def verify(self) -> None:
        """Compares a few rows with their recomputation once more, at the end of a stage: had the prefix changed in the
        meantime, the stage would have been trained on what no longer holds, and a note says so."""
        for view in (*self.plan.train, self.plan.validation):
            if view.name in self._ready and not self.failure:
                different = spot_check(view, self._rows[view.name], self.plan.prefix)
                if different:
                    self.notes.append(f"cache: {different} after the stage, so its result is in doubt")

    def _values(self, view: View, missing: list[Ids]) -> Iterator[Tensor]:
        """The features of these chunks: from the previous cache's where it has them, else from the images."""
        earlier = self.previous.ready(view.name) if self.previous is not None else None
        if earlier is None or self.bridge is None or not all(earlier.has(ids).all() for ids in missing):
            return (self.plan.prefix(images) for images in view.images(missing))
        onwards = replace(self.plan.prefix, module=self.bridge)
        return (onwards(earlier.take(ids)) for ids in missing)

    def ready(self, name: str) -> Rows | None:
        """The rows of a view that was filled, for the next stage's cache."""
        return self._rows.get(name) if name in self._ready else None

    def _adopted(self, view: View) -> Rows | None:
        """The previous cache's own rows, where they are the same."""
        before = self.previous
        if before is None or before.ready(view.name) is None:
            return None
        if view.key not in {other.key for other in (*before.plan.train, before.plan.validation)}:
            return None
        before._ready.discard(view.name)
        return before._rows.pop(view.name)

    def _opened(self, view: View) -> Rows:
        plan, world = self.plan, self.plan.prefix.world
        with torch.inference_mode(False):  # the rows outlive the evaluation that may have asked for them
            if plan.place is CachePlace.MEMORY or plan.directory is None:
                device = memory_for(len(view.ids) * plan.row_bytes, world.device)
                return MemoryRows(plan.like, samples=view.samples, rank=world.rank, world=world.size, device=device)
            return FileRows(plan.directory, view.key, plan.like, samples=view.samples)

    def _size(self) -> int:
        views = (*self.plan.train, self.plan.validation)
        return sum(len(view.ids) * self._rows[view.name].row_bytes for view in views if view.name in self._rows)

    def _discard(self, name: str) -> None:
        self._ready.discard(name)
        rows = self._rows.pop(name, None)
        if rows is not None:
            rows.close()

    def fail(self, reason: str) -> None:
        """From here on everything is computed anew, which `failure` says; what was kept is let go."""
        self.close()
        self.failure = f"the cache was given up: {reason}"
        self.notes.append(self.failure)
        log.warning("%s", self.failure)

    def _let_go_of_previous(self) -> None:
        if self.previous is not None:
            self.previous.close()
        self.previous = self.bridge = None


def _places(ids: Ids, some: Ids) -> Ids:
    """Where each of `some` stands in `ids`."""
    position = {sample: place for place, sample in enumerate(ids.tolist())}
    return np.array([position[sample] for sample in some.tolist()], dtype=np.int64)
