"""The types that the parts of this package hand to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class SampleSet:
    """Images and their classes, in parallel. A sample's id is its index."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    """Indices into `TargetData.classes`."""
    content: str = ""
    """Digest of the files' bytes, in order; empty before they were inspected."""

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, ids: list[int]) -> SampleSet:
        """The samples with these ids, in this order."""
        return SampleSet(tuple(self.paths[i] for i in ids), tuple(self.labels[i] for i in ids))


@dataclass(frozen=True)
class TargetData:
    """The target data, opened: what to train on, what decides, and what is only measured at the end."""

    classes: tuple[str, ...]
    """Class names, sorted; a label is an index into them."""
    train: SampleSet
    validation: SampleSet
    test: SampleSet | None
    duplicates_across_splits: int
    """Images of the validation or test set whose bytes are also in the training set."""
    warnings: tuple[str, ...]
    """What a person should know though the run goes on."""


@dataclass(frozen=True)
class Listing:
    """Labelled files as a folder or a manifest names them; nothing has been opened yet."""

    source: str
    """The URI they were found at, for messages."""
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self) -> Counter[str]:
        return Counter(self.labels)

    def indexed(self, classes: tuple[str, ...]) -> SampleSet:
        index = {name: i for i, name in enumerate(classes)}
        return SampleSet(self.paths, tuple(index[label] for label in self.labels))


def shown(path: str) -> str:
    """A path as text for a message: bytes that are no UTF-8 become question marks."""
    return path.encode("utf-8", "replace").decode()


def examples(names: Iterator[str], *, most: int = 3) -> str:
    """The first few names, for a warning."""
    return ", ".join(shown(name) for _, name in zip(range(most), names, strict=False))
