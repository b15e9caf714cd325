"""From `spec.data` to the samples that are trained on, decide and are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.contract.data import Data, DataFormat
from snowmelt_trainer.contract.uri import to_path
from snowmelt_trainer.data.boundary import Boundary
from snowmelt_trainer.data.folder import list_folder
from snowmelt_trainer.data.inspection import digests, duplicates
from snowmelt_trainer.data.manifest import Manifest, Split, is_manifest, read_manifest
from snowmelt_trainer.data.samples import Listing, SampleSet, TargetData, examples, shown
from snowmelt_trainer.data.splits import hold_out
from snowmelt_trainer.errors import RunError

DEFAULT_FRACTION = 0.1
"""Share of the training data held out where spec.data.validation says nothing."""


@dataclass(frozen=True)
class _Listings:
    train: Listing
    validation: Listing | None
    test: Listing | None
    warnings: tuple[str, ...] = ()


def open_data(
    data: Data,
    *,
    seed: int,
    volumes_root: str,
    seen: Callable[[int, int], None] = lambda _done, _of: None,
) -> TargetData:
    """Find, split and check the target data. The result depends on the arguments and the files alone, so every worker
    finds the same.

    Every image is decoded once and hashed. `seen` is told (images inspected, of how many) from time to time.

    Raises:
        RunError: DataNotFound, DataUnreadable, DataEmpty, SingleClass, ClassMismatch or CorruptImage; the message
        names the place and the remedy.
    """
    found = _listings(data, volumes_root)
    classes = _classes(found)
    train, validation, lonely = _with_validation(found, classes, data, seed)
    test = found.test.indexed(classes) if found.test else None
    listings = [listing for listing in (found.train, found.validation, found.test) if listing]
    warnings = found.warnings + tuple(w for listing in listings for w in listing.warnings) + lonely
    inspected = _inspect(train, validation, test, seen)
    train, validation = replace(train, content=inspected.train), replace(validation, content=inspected.validation)
    return TargetData(classes, train, validation, test, inspected.duplicates, warnings + inspected.warnings)


def target_classes(data: Data, *, volumes_root: str) -> tuple[str, ...]:
    """The classes of the training data, in order: its files are listed, and no image is opened.

    Raises:
        RunError: DataNotFound, DataUnreadable or DataEmpty.
    """
    train = _open(data.train.uri, data.format, volumes_root).rows_for(Split.TRAIN)
    return tuple(sorted(_not_empty(train, Split.TRAIN).counts()))


def _listings(data: Data, volumes_root: str) -> _Listings:
    main = _open(data.train.uri, data.format, volumes_root)
    train = main.rows_for(Split.TRAIN)
    validation = _explicit(data.validation.uri, Split.VALIDATION, data.format, volumes_root)
    test = _explicit(data.test.uri if data.test else None, Split.TEST, data.format, volumes_root)
    warnings: tuple[str, ...] = ()
    if rows := main.rows[Split.VALIDATION]:
        if validation is None and data.validation.fraction is None:
            validation = rows
        elif validation is None or validation.source != rows.source:
            warnings += (
                f"{rows.source}: {len(rows)} rows of split validation are not used: spec.data.validation is given",
            )
    if rows := main.rows[Split.TEST]:
        if test is None:
            test = rows
        elif test.source != rows.source:
            warnings += (f"{rows.source}: {len(rows)} rows of split test are not used: spec.data.test is given",)
    return _Listings(train, validation, test, warnings)


def _explicit(uri: str | None, split: Split, data_format: DataFormat, volumes_root: str) -> Listing | None:
    return None if uri is None else _not_empty(_open(uri, data_format, volumes_root).rows_for(split), split)


def _open(uri: str, data_format: DataFormat, volumes_root: str) -> Manifest:
    """What lies at the URI; a folder is read as a manifest without splits."""
    path = to_path(uri, volumes_root)
    boundary = Boundary.of(uri, volumes_root)
    boundary.check(str(path), where=uri)
    if _is_folder(path, uri, data_format):
        rows = {split: Listing(uri, (), ()) for split in Split} | {Split.TRAIN: list_folder(path, uri, boundary)}
        return Manifest(rows, has_splits=False)
    return read_manifest(path, uri, boundary, volumes_root)


def _is_folder(path: Path, uri: str, data_format: DataFormat) -> bool:
    try:
        folder = (path.stat().st_mode & 0o170000) == 0o040000
    except FileNotFoundError:
        raise RunError(
            Reason.DATA_NOT_FOUND,
            f"{uri}: nothing lies at {shown(str(path))}: check the URI and that the data is there",
        ) from None
    except OSError as error:
        raise RunError(Reason.DATA_UNREADABLE, f"{uri}: {shown(str(path))} cannot be read: {error.strerror}") from None
    if folder and data_format is DataFormat.MANIFEST:
        raise RunError(
            Reason.DATA_UNREADABLE,
            f"{uri}: is a folder, and spec.data.format Manifest needs a .csv, .jsonl or .parquet file",
        )
    if not folder and (data_format is DataFormat.IMAGE_FOLDER or not is_manifest(path)):
        raise RunError(
            Reason.DATA_UNREADABLE,
            f"{uri}: is a file; give a folder of class folders, or a .csv, .jsonl or .parquet manifest",
        )
    return folder


def _classes(found: _Listings) -> tuple[str, ...]:
    classes = tuple(sorted(_not_empty(found.train, Split.TRAIN).counts()))
    if len(classes) < 2:
        raise RunError(
            Reason.SINGLE_CLASS,
            f"{found.train.source}: has the single class {shown(classes[0])!r}: a classifier needs at least two",
        )
    for listing in (found.validation, found.test):
        strangers = sorted(set(listing.labels) - set(classes)) if listing else []
        if listing and strangers:
            raise RunError(
                Reason.CLASS_MISMATCH,
                f"{listing.source}: has classes that the training data {found.train.source} lacks: "
                f"{examples(iter(strangers))}",
            )
    return classes


def _not_empty(listing: Listing, split: Split) -> Listing:
    if not len(listing):
        raise RunError(Reason.DATA_EMPTY, f"{listing.source}: holds no image to use as {split} data")
    return listing


def _with_validation(
    found: _Listings, classes: tuple[str, ...], data: Data, seed: int
) -> tuple[SampleSet, SampleSet, tuple[str, ...]]:
    train = found.train.indexed(classes)
    if found.validation:
        return train, found.validation.indexed(classes), ()
    kept, held_out = hold_out(train.labels, data.validation.fraction or DEFAULT_FRACTION, seed)
    if not held_out:
        raise RunError(
            Reason.DATA_EMPTY,
            f"{found.train.source}: every class has a single image, so none can be held out: "
            "add images, or give spec.data.validation.uri",
        )
    lonely = [name for name, count in found.train.counts().items() if count == 1]
    warnings = (
        (f"{found.train.source}: classes with a single image have none in validation: {examples(iter(lonely))}",)
        if lonely
        else ()
    )
    return train.take(kept), train.take(held_out), warnings


@dataclass(frozen=True)
class _Inspected:
    train: str
    """Digest of the training files' bytes."""
    validation: str
    duplicates: int
    warnings: tuple[str, ...]


def _inspect(
    train: SampleSet, validation: SampleSet, test: SampleSet | None, seen: Callable[[int, int], None]
) -> _Inspected:
    named = [("validation", validation)] + ([("test", test)] if test else [])
    of = len(train) + sum(len(samples) for _, samples in named)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        seen(done, of)

    known = digests(train, count)
    found = [digests(samples, count) for _, samples in named]
    results = [duplicates(samples, own, known, name=name) for (name, samples), own in zip(named, found, strict=True)]
    return _Inspected(
        train=hashlib.sha256(known.tobytes()).hexdigest(),
        validation=hashlib.sha256(found[0].tobytes()).hexdigest(),
        duplicates=sum(number for number, _ in results),
        warnings=tuple(warning for _, warnings in results for warning in warnings),
    )
