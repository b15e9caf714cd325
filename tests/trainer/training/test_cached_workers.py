"""Two workers with a cache, as processes of their own that meet over gloo: together they train what one trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import CachePlace
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.driver.worker import fine_tune
from snowmelt_trainer.training.activations import resources
from snowmelt_trainer.training.distributed import World
from tests.trainer.training.runs import data_of

Configure = Callable[..., RunConfig]


def train(rank: int, size: int, config_json: str, place: CachePlace, folder: str) -> None:
    """Worker `rank` of `size`; what it returns lies in `folder`/trained-RANK.json."""
    torch.set_num_threads(1)
    if place is CachePlace.FILE:
        resources.free_memory = lambda: 0  # type: ignore[assignment]
    config = RunConfig.model_validate_json(config_json)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    trained = fine_tune(config, data_of(config), World(rank, size), lambda _: None)
    Path(folder, f"trained-{rank}.json").write_text(trained.model_dump_json(by_alias=True))
    if size > 1:
        dist.destroy_process_group()


@pytest.mark.parametrize("place", list(CachePlace))
def test_two_workers_train_on_each_sample_once_an_epoch_as_one_does(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: CachePlace
) -> None:
    """A sample that were missed, or seen twice, would change the losses: nothing else differs but the order of sums."""
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path))
    found = []
    for size in (1, 2):
        folder = tmp_path / f"{size}-workers"
        folder.mkdir()
        config = configure(
            output=folder / "models",
            uid=f"of-{size}",
            data={"augmentation": "Light"},
            unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 4, "patience": 9}},
            optimization={
                "batchSize": 45,
                "precision": "Float32",
                "learningRate": 1.0,
                "cache": {"mode": "Always", "views": 2},
                "regularization": {"dropout": 0.0},
            },
        )
        mp.spawn(train, (size, config.model_dump_json(by_alias=True), place, str(folder)), nprocs=size)
        found.append(
            [Trained.model_validate_json((folder / f"trained-{rank}.json").read_bytes()) for rank in range(size)]
        )
    (one,), (two, other) = found
    assert [epoch.train_loss for epoch in two.state.history] == pytest.approx(
        [epoch.train_loss for epoch in one.state.history], rel=1e-5
    )
    assert two.validation == other.validation == one.validation
    assert two.test == one.test
    caches = [trained.state.rows[0].cache for trained in (one, two)]
    assert [cache and (cache.views, cache.place) for cache in caches] == [(2, place), (2, place)]
    assert caches[0] is not None
    assert caches[1] is not None
    assert caches[0].bytes == caches[1].bytes
    assert list(tmp_path.glob("snowmelt-activations-*/*")) == []
