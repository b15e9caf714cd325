"""Why a training run ended: the trainer's closed list of reasons, which become reasons of the Failed condition."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "Succeeded"
    """The model was delivered."""
    FAILED = "Failed"
    """No model was delivered."""


class Reason(StrEnum):
    """A reason that the trainer gives for the end of a run. `retryable` says whether another attempt can help."""

    TARGET_MET = "TargetMet"
    """The validation metric reached spec.unfreezing.target."""
    STAGES_COMPLETED = "StagesCompleted"
    """Every planned stage ran; no target was set, or it was not reached."""

    INVALID_CONFIG = "InvalidConfig"
    """The run's configuration cannot be carried out, for instance a custom stage names a layer that does not exist."""
    DATA_NOT_FOUND = "DataNotFound"
    """A data URI points at nothing."""
    DATA_UNREADABLE = "DataUnreadable"
    """A folder, manifest or file of the data cannot be read."""
    DATA_EMPTY = "DataEmpty"
    """A data set, or one of its classes, holds no image."""
    SINGLE_CLASS = "SingleClass"
    """The training data has fewer than two classes."""
    CORRUPT_IMAGE = "CorruptImage"
    """A file cannot be decoded as an image."""
    CLASS_MISMATCH = "ClassMismatch"
    """Validation or test data have a class that the training data lacks."""
    IMAGE_TOO_SMALL = "ImageTooSmall"
    """spec.data.imageSize is below what the architecture can process."""
    WEIGHTS_NOT_FOUND = "WeightsNotFound"
    """The pretrained weights cannot be found or downloaded."""
    WEIGHTS_MISMATCH = "WeightsMismatch"
    """The checkpoint does not fit the architecture."""
    WEIGHTS_UNSAFE = "WeightsUnsafe"
    """The checkpoint holds more than tensors, and is refused because loading it could run code."""
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    """A file's sha256 is not the one given in the spec."""
    OUTPUT_UNWRITABLE = "OutputUnwritable"
    """The output URI cannot be written to."""
    STORAGE_FULL = "StorageFull"
    """No space is left where checkpoints or the model go."""
    DIVERGED = "Diverged"
    """The loss became NaN or infinite."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The accelerator or the host ran out of memory."""
    WORKER_LOST = "WorkerLost"
    """A Ray worker died and could not be replaced within the attempt."""
    RAY_UNAVAILABLE = "RayUnavailable"
    """Ray could not be started, or not be reached, on the machine or pod that was to train."""
    INTERNAL_ERROR = "InternalError"
    """Something that Snowmelt did not foresee; the message names where it happened and the log has the trace."""

    @property
    def retryable(self) -> bool:
        """Whether the same run, started again from its last checkpoint, may end otherwise."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        Reason.STORAGE_FULL,
        Reason.OUTPUT_UNWRITABLE,
        Reason.OUT_OF_MEMORY,
        Reason.WORKER_LOST,
        Reason.RAY_UNAVAILABLE,
        Reason.INTERNAL_ERROR,
    }
)
