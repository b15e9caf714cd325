"""Published weights, which one worker downloads for all: those of a node would fetch the same file at once, and pods
share no folder that would hold it."""

from __future__ import annotations

import json

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torchvision.models import WeightsEnum

from snowmelt_trainer.backbones import Checkpoint, Fetch, download
from snowmelt_trainer.training.distributed import World


def fetched_once(world: World) -> Fetch:
    """The leading worker downloads, and sends the others what it got; raises there as `download`."""

    def fetch(published: WeightsEnum) -> Checkpoint:
        if world.size == 1:
            return download(published)
        versions = tensors = b""
        if world.leads:
            found = download(published)
            versions = json.dumps(found.module_versions).encode()
            tensors = save_tensors({name: tensor.contiguous() for name, tensor in found.tensors.items()})
        versions, tensors = world.from_leader(versions), world.from_leader(tensors)
        return Checkpoint(repr(published), load_tensors(tensors), module_versions=json.loads(versions))

    return fetch
