"""The target data: where images lie, splits, duplicates, what the network sees of them, and which worker computes
which.

What is imported here does not load torch: the driver opens the data, and only workers load images.
"""

from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.data.samples import SampleSet, TargetData

__all__ = ["SampleSet", "TargetData", "open_data"]
