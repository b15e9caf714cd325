"""torchvision's classifiers: ordered layer groups, a new head, pretrained weights, and the cut between frozen and
trained."""

from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING, BuiltBackbone, LayerGroup, Preprocessing

__all__ = ["IMAGENET_PREPROCESSING", "BuiltBackbone", "LayerGroup", "Preprocessing"]
