"""ImageFolder: one sub-folder for each class, named after it, holding images at any depth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.data.boundary import Boundary
from snowmelt_trainer.data.samples import Listing, examples, shown
from snowmelt_trainer.errors import RunError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
"""Files with another suffix are no images; they are left out, and counted in a warning."""


def list_folder(root: Path, source: str, boundary: Boundary) -> Listing:
    """List the images below `root`, class by class, in an order that does not depend on the file system.

    Hidden files and folders (a leading dot) are ignored. `source` names the data in messages.

    Raises:
        RunError: DataNotFound, DataUnreadable, or DataEmpty when there is no class folder or one of them holds no
        image.
    """
    folders = [entry for entry in _entries(root) if entry.is_dir()]
    for entry in folders:
        boundary.check(entry.path, where=entry.path)
    classes = sorted(entry.name for entry in folders)
    if not classes:
        raise RunError(
            Reason.DATA_EMPTY,
            f"{source}: no class folder in {shown(str(root))}: put the images of each class into a "
            "sub-folder named after the class",
        )
    paths: list[str] = []
    labels: list[str] = []
    others: list[str] = []
    for name in classes:
        found = sorted(_files(str(root / name), boundary, frozenset()))
        images = [path for path in found if _is_image(path)]
        others += [path for path in found if not _is_image(path)]
        if not images:
            raise RunError(
                Reason.DATA_EMPTY,
                f"{source}: class {shown(name)!r} holds no image ({shown(str(root / name))}): "
                "add images or remove the folder",
            )
        paths += images
        labels += [name] * len(images)
    ignored = (
        (f"{source}: {len(others)} files without an image's suffix left out: {examples(iter(others))}",)
        if others
        else ()
    )
    return Listing(source, tuple(paths), tuple(labels), ignored)


def _files(folder: str, boundary: Boundary, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Every file below; `above` holds the folders on the way here, so that a symlink to one of them ends no run in a
    loop.
    """
    entry_stat = Path(folder).stat()
    here = above | {(entry_stat.st_dev, entry_stat.st_ino)}
    for entry in _entries(Path(folder)):
        if entry.is_symlink():
            boundary.check(entry.path, where=entry.path)
        if entry.is_dir():
            target = entry.stat()
            if (target.st_dev, target.st_ino) not in here:
                yield from _files(entry.path, boundary, here)
        else:
            yield entry.path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        raise RunError(Reason.DATA_NOT_FOUND, f"{shown(str(folder))}: no such folder") from None
    except OSError as error:
        raise RunError(Reason.DATA_UNREADABLE, f"{shown(str(folder))}: cannot be read: {error.strerror}") from None


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES
