"""The activation cache: what the frozen prefix makes of the images, computed once per sample and view.

Where the prefix is the same, and the image is seen in the same variation, its output is the same: so it is kept, and
the prefix, the augmentation and the decoder need not run again. A row is one sample's output in one view; rows are
addressed by sample id, never by rank. docs/design/20261125-activation-cache.md says why it is built the way it is.
"""

from snowmelt_trainer.training.activations.account import Account, combined
from snowmelt_trainer.training.activations.cache import ActivationCache
from snowmelt_trainer.training.activations.opening import open_cache
from snowmelt_trainer.training.activations.resources import free_memory

__all__ = ["Account", "ActivationCache", "combined", "free_memory", "open_cache"]
