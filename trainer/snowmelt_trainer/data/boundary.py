"""What data on a volume may name: files of that volume and nothing else of the machine that reads it.

Whoever may write to a PersistentVolumeClaim is not thereby allowed to read the trainer's container (its tokens, its
configuration), so neither a symbolic link nor a manifest's row may lead out of the claim. Data at file:// is written
by whoever owns the machine, and is not fenced in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.contract.uri import claim_of
from snowmelt_trainer.data.samples import shown
from snowmelt_trainer.errors import RunError


@dataclass(frozen=True)
class Boundary:
    """The folder, all symbolic links resolved, that no path may leave; None where there is none."""

    root: str | None

    @classmethod
    def of(cls, uri: str, volumes_root: str) -> Boundary:
        """The claim's folder for pvc:// URIs, none for file:// ones."""
        claim = claim_of(uri)
        return cls(None if claim is None else os.path.realpath(Path(volumes_root) / claim))

    def check(self, path: str, *, where: str) -> None:
        """Refuse a path that leads out; `where` names the file (and line) that holds it.

        Raises:
            RunError: DataUnreadable.
        """
        if self.root is None:
            return
        real = os.path.realpath(path)
        if os.path.commonpath([self.root, real]) != self.root:
            raise RunError(
                Reason.DATA_UNREADABLE,
                f"{shown(where)}: leads out of its volume: data on a volume may only name files of the same volume",
            )
