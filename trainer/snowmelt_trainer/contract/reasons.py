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
    """The run's configuration cannot be carried out, for instance a custom stage names a layer that does not exist.
    Remedy: correct the field that the message names."""
    DATA_NOT_FOUND = "DataNotFound"
    """A data URI points at nothing. Remedy: correct the URI, or put the data there."""
    DATA_UNREADABLE = "DataUnreadable"
    """A folder, manifest or file of the data cannot be read. Remedy: see the mode and format of what it names."""
    DATA_EMPTY = "DataEmpty"
    """A data set, or one of its classes, holds no image. Remedy: add images, or remove the class."""
    SINGLE_CLASS = "SingleClass"
    """The training data has fewer than two classes. Remedy: name the folder that holds one folder a class."""
    CORRUPT_IMAGE = "CorruptImage"
    """A file cannot be decoded as an image. Remedy: replace or remove the file that the message names."""
    CLASS_MISMATCH = "ClassMismatch"
    """Validation or test data have a class that the training data lacks. Remedy: add it there, or remove it here."""
    IMAGE_TOO_SMALL = "ImageTooSmall"
    """spec.data.imageSize is below what the architecture can process. Remedy: raise it."""
    WEIGHTS_NOT_FOUND = "WeightsNotFound"
    """The pretrained weights cannot be found or downloaded. Remedy: see that the pods reach the weights' host, or
    name a file with spec.backbone.weightsFrom."""
    WEIGHTS_MISMATCH = "WeightsMismatch"
    """The checkpoint does not fit the architecture. Remedy: name the architecture that it was saved from."""
    WEIGHTS_UNSAFE = "WeightsUnsafe"
    """The checkpoint holds more than tensors, and is refused because loading it could run code. Remedy: save its
    state_dict, best as safetensors."""
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    """A file's sha256 is not the one given in the spec. Remedy: correct the digest, or fetch the file anew."""
    OUTPUT_UNWRITABLE = "OutputUnwritable"
    """The output URI cannot be written to. Remedy: see its owner and mode."""
    STORAGE_FULL = "StorageFull"
    """No space is left where checkpoints or the model go. Remedy: free some, or enlarge the volume."""
    DIVERGED = "Diverged"
    """The loss became NaN or infinite. Remedy: lower spec.optimization.learningRate, or leave it at Auto."""
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    """The accelerator ran out of memory. Remedy: lower spec.optimization.batchSize or spec.data.imageSize, or give each
    worker a larger accelerator."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The host ran out of memory. Remedy: lower spec.optimization.batchSize, or raise the workers' memory."""
    WORKER_LOST = "WorkerLost"
    """A Ray worker died and could not be replaced within the attempt. Remedy: see status.incidents for what its pod
    died of."""
    RAY_UNAVAILABLE = "RayUnavailable"
    """Ray could not be started, or not be reached, on the machine or pod that was to train. Remedy: see the end of its
    log in status.incidents, and what the message names."""
    INTERNAL_ERROR = "InternalError"
    """Something that Snowmelt did not foresee; the message names where it happened and the log has the trace.
    Remedy: report it with both."""

    @property
    def retryable(self) -> bool:
        """Whether the same run, started again from its last checkpoint, may end otherwise."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        Reason.STORAGE_FULL,
        Reason.OUTPUT_UNWRITABLE,
        Reason.GPU_OUT_OF_MEMORY,
        Reason.OUT_OF_MEMORY,
        Reason.WORKER_LOST,
        Reason.RAY_UNAVAILABLE,
        Reason.INTERNAL_ERROR,
    }
)
