"""The target data: where images lie, splits, duplicates, what the network sees of them, and which worker computes
which.
"""

from snowmelt_trainer.data.loading import Batch, EvaluationLoader, ImageDataset, TrainingLoader, loader_processes
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.data.samples import SampleSet, TargetData
from snowmelt_trainer.data.transforms import Draw, View, resolve

__all__ = [
    "Batch",
    "Draw",
    "EvaluationLoader",
    "ImageDataset",
    "SampleSet",
    "TargetData",
    "TrainingLoader",
    "View",
    "loader_processes",
    "open_data",
    "resolve",
]
