"""torchvision's classifiers: layer groups from input to output, a new head, pretrained weights, and the cut."""

from snowmelt_trainer.backbones.build import build_backbone, describe_groups
from snowmelt_trainer.backbones.checkpoint_file import Checkpoint
from snowmelt_trainer.backbones.cut import Cut, between, split_at
from snowmelt_trainer.backbones.export import load_model, model_config
from snowmelt_trainer.backbones.freeze import changing_tensors, set_stage, train_mode
from snowmelt_trainer.backbones.parameters import parameter_groups
from snowmelt_trainer.backbones.registry import ArchitectureInfo, architecture_info, architectures, weights_names
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING, BuiltBackbone, LayerGroup, Preprocessing
from snowmelt_trainer.backbones.weights import Fetch, download

__all__ = [
    "IMAGENET_PREPROCESSING",
    "ArchitectureInfo",
    "BuiltBackbone",
    "Checkpoint",
    "Cut",
    "Fetch",
    "LayerGroup",
    "Preprocessing",
    "architecture_info",
    "architectures",
    "between",
    "build_backbone",
    "changing_tensors",
    "describe_groups",
    "download",
    "load_model",
    "model_config",
    "parameter_groups",
    "set_stage",
    "split_at",
    "train_mode",
    "weights_names",
]
