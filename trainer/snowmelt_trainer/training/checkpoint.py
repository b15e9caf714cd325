"""Checkpoints: written whole or not at all, found again by a new worker group and by a new attempt.

They go straight to the output's storage, not through `ray.train.report(checkpoint=…)`, because a new attempt is a new
Ray cluster that must find them by the job's uid, choose the newest sound one itself, and keep the best one however old
it is; Ray's own bookkeeping is tied to one Ray Train run (and a second run of the same name resumes from it silently),
report() stops every worker until the slowest has reported, and the upload would copy the files once more.

One checkpoint is a directory `<name>/` of `model.safetensors` (what the stage trains), `frozen.safetensors` (the rest
of the network, where there is any), `optimizer.pt` (tensors and numbers: loaded with weights_only=True; empty where the
stage has ended; one that only keeps the best weights has none), `state.json` (a RunState) and `manifest.json` (the
SHA-256 of the others). It is written beside, flushed, and renamed into place.
What is frozen is the same in all checkpoints of a stage: it is written once, and linked into those that follow, so a
checkpoint of a stage that trains the head alone costs some kilobytes. At reading, one whose files do not match its
manifest is passed over and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.packing import Frozen, joined
from snowmelt_trainer.training.state import RunState
from snowmelt_trainer.training.storage import Content, storage_errors, sync_directory, write_file

log = logging.getLogger(__name__)

KEEP = 2
"""How many of the newest checkpoints that one can go on from stay, besides the best ones that they refer to."""
MODEL, FROZEN, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "frozen.safetensors",
    "optimizer.pt",
    "state.json",
    "manifest.json",
)
_WRITING = ".writing"


def checkpoint_name(stage: int, epoch: int, step: int) -> str:
    """A name that sorts in the order of training: stage from 1, finished epochs, optimizer steps into the next."""
    return f"s{stage:03d}-e{epoch:05d}-b{step:07d}"


@dataclass(frozen=True)
class Checkpoint:
    """A sound checkpoint, read into memory."""

    name: str
    state: RunState
    model: bytes
    """The whole network, as `pack_model` packs it."""
    optimizer: bytes | None
    """None where training cannot go on from here."""


class CheckpointStore:
    """The checkpoints of one run, in one directory. Only the leading worker uses it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._frozen_at: tuple[str, Path] | None = None
        """Digest and place of the frozen tensors that were written last."""

    def write(
        self, name: str, model: Content, optimizer: Content | None, state: RunState, frozen: Frozen | None = None
    ) -> None:
        """Adds a checkpoint (replacing one of the same name, which can only be damaged or identical), and removes those
        no longer needed. `model` holds the tensors that are not in `frozen`; without an `optimizer` the checkpoint
        keeps these weights and is none to go on from.

        Raises:
            RunError: StorageFull, OutputUnwritable.
        """
        files = {} if optimizer is None else {OPTIMIZER: optimizer}  # the largest first, to be let go soon
        files |= {MODEL: model, STATE: state.model_dump_json(by_alias=True).encode()}
        digests = {} if frozen is None else {FROZEN: frozen.sha256}
        beside = self.directory / f"{_WRITING}-{name}"
        with storage_errors(self.directory):
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            if frozen is not None:
                self._put_frozen(beside / FROZEN, frozen)
            for file, content in files.items():
                digests[file] = write_file(beside / file, content)
            write_file(beside / MANIFEST, json.dumps(digests).encode())
            sync_directory(beside)
            if (self.directory / name).exists():
                shutil.rmtree(self.directory / name)
            beside.rename(self.directory / name)
            sync_directory(self.directory)
        if frozen is not None:
            self._frozen_at = frozen.sha256, self.directory / name / FROZEN
        self._prune(state)

    def _put_frozen(self, path: Path, frozen: Frozen) -> None:
        """A link to the file that was written last, where it holds the same and the storage knows links."""
        if self._frozen_at is not None and self._frozen_at[0] == frozen.sha256:
            try:
                os.link(self._frozen_at[1], path)
            except OSError as error:
                log.info("%s is written once more: %s", path.name, error)
            else:
                return
        write_file(path, frozen.pack())

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint to go on from that is sound, together with the best one it refers to; None when there
        is none."""
        for name in reversed(self._names()):
            checkpoint = self.read(name)
            if checkpoint is None or checkpoint.optimizer is None:
                continue
            best = checkpoint.state.best
            if best is None or best.checkpoint == name or self.read(best.checkpoint) is not None:
                return checkpoint
            log.warning("checkpoint %s is passed over: the best one before it, %s, is damaged", name, best.checkpoint)
        return None

    def read(self, name: str) -> Checkpoint | None:
        """A checkpoint by name; None, with a warning in the log, when it is missing or damaged."""
        files = self._sound_files(name, (MODEL, STATE), (OPTIMIZER, FROZEN))
        if files is None:
            return None
        try:
            state = RunState.model_validate_json(files[STATE])
            return Checkpoint(name, state, _whole_model(files), files.get(OPTIMIZER))
        except (ValueError, SafetensorError) as error:
            log.warning("checkpoint %s is passed over: %s", self.directory / name, error)
            return None

    def read_model(self, name: str) -> bytes | None:
        """The whole network of a checkpoint, as `pack_model` packs it, without the much larger rest; None, with a
        warning in the log, when it is missing or damaged."""
        files = self._sound_files(name, (MODEL,), (FROZEN,))
        try:
            return None if files is None else _whole_model(files)
        except SafetensorError as error:
            log.warning("checkpoint %s is passed over: %s", self.directory / name, error)
            return None

    def _sound_files(self, name: str, wanted: Sequence[str], optional: Sequence[str]) -> dict[str, bytes] | None:
        """The files wanted, and the optional ones that it has; None unless all match the manifest."""
        directory = self.directory / name
        try:
            manifest = json.loads((directory / MANIFEST).read_bytes())
            expected = [*wanted, *(file for file in optional if file in manifest)]
            files = {file: (directory / file).read_bytes() for file in expected}
            damaged = [file for file, data in files.items() if hashlib.sha256(data).hexdigest() != manifest.get(file)]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("checkpoint %s is passed over: %s", directory, error)
            return None
        if damaged:
            log.warning("checkpoint %s is passed over: %s differs from its manifest", directory, ", ".join(damaged))
            return None
        return files

    def _names(self) -> list[str]:
        with storage_errors(self.directory):
            if not self.directory.is_dir():
                return []
            return sorted(
                entry.name for entry in self.directory.iterdir() if entry.is_dir() and not entry.name.startswith(".")
            )

    def _prune(self, newest: RunState) -> None:
        names = self._names()
        resumable = [name for name in names if (self.directory / name / OPTIMIZER).exists()]
        kept = set(resumable[-KEEP:])
        for name in resumable[-KEEP:]:
            older = self.read_state(name)
            if older is not None and older.best is not None:
                kept.add(older.best.checkpoint)
        if newest.best is not None:
            kept.add(newest.best.checkpoint)
        for name in names:
            if name not in kept:
                shutil.rmtree(self.directory / name, ignore_errors=True)

    def read_state(self, name: str) -> RunState | None:
        """A checkpoint's state alone, unchecked; None when it cannot be read."""
        try:
            return RunState.model_validate_json((self.directory / name / STATE).read_bytes())
        except (OSError, ValidationError):
            return None


def _whole_model(files: Mapping[str, bytes]) -> bytes:
    return joined(files[MODEL], files[FROZEN]) if FROZEN in files else files[MODEL]


def best_is_gone(directory: Path) -> RunError:
    """What to raise when the best checkpoint cannot be read any more; a new attempt goes on from an earlier one."""
    return RunError(Reason.OUTPUT_UNWRITABLE, f"{directory}: the best checkpoint was damaged or removed during the run")
