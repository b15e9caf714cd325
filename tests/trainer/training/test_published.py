"""Weights by name reach every worker though only one of them downloads."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchvision.models import MNASNet0_5_Weights, get_model

from snowmelt_trainer.backbones import build_backbone
from snowmelt_trainer.contract.backbone import Backbone
from snowmelt_trainer.driver.published import fetched_once
from snowmelt_trainer.training.distributed import World, digest
from tests.trainer.backbones.networks import as_published

BY_NAME = Backbone(architecture="mnasnet0_5", weights="IMAGENET1K_V1")
"""A network that insists on the version that its weights carry."""


def build(rank: int, size: int, folder: str, url: str) -> None:
    """Worker `rank` of `size`, with a folder for downloads of its own; the digest of what it builds lies in
    `folder`/digest-RANK."""
    os.environ["TORCH_HOME"] = f"{folder}/downloads-{rank}"
    object.__setattr__(MNASNet0_5_Weights.IMAGENET1K_V1.value, "url", url)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    built = build_backbone(
        BY_NAME,
        num_classes=3,
        dropout=0.0,
        seed=0,
        volumes_root="/none",
        image_size=32,
        fetch=fetched_once(World(rank, size)),
    )
    Path(folder, f"digest-{rank}").write_text(digest(built.model))
    dist.destroy_process_group()


def test_of_two_workers_one_downloads_and_both_have_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    url = as_published(tmp_path, get_model("mnasnet0_5", weights=None).state_dict())
    mp.spawn(build, args=(2, str(tmp_path), url), nprocs=2)
    assert (tmp_path / "digest-0").read_text() == (tmp_path / "digest-1").read_text()
    assert list((tmp_path / "downloads-0").rglob("*.pth"))
    assert not (tmp_path / "downloads-1").exists()
