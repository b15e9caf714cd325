"""Real images (scikit-learn's handwritten digits), real checkpoints on disk, a real Ray for several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hack.data.folders import write_folders
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.training import beside
from tests.trainer.training.runs import prefer_anew, run, weights

Configure = Callable[..., RunConfig]
PER_CLASS = {"train": 24, "test": 6}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Figures do not depend on how many cores this machine has."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints may cost what they cost: each epoch of a run of one's own process lies in one."""
    monkeypatch.setattr(beside, "SHARE", 1e9)


@pytest.fixture
def helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is the better for statistics that are counted anew."""
    prefer_anew(monkeypatch.setattr)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train/ and test/ with the first 24 and the next 6 images of each digit, at 8x8 pixels."""
    root = tmp_path_factory.mktemp("digits")
    images, targets = load_digits(return_X_y=True)
    for split, start in (("train", 0), ("test", PER_CLASS["train"])):
        chosen = (
            (str(digit), f"{place:03d}", Image.fromarray((images[place].reshape(8, 8) * 15.9).astype("uint8")))
            for digit in range(10)
            for place in (targets == digit).nonzero()[0][start : start + PER_CLASS[split]]
        )
        write_folders(root / split, chosen)
    return root


@pytest.fixture
def configure(digits: Path, tmp_path: Path) -> Configure:
    """A run on the digits, small enough for seconds; sections of the configuration can be replaced field by field."""

    def build(uid: str = "run", output: Path = tmp_path / "models", **sections: dict[str, Any]) -> RunConfig:
        document: dict[str, dict[str, Any]] = {
            "job": {"namespace": "tests", "name": "digits", "uid": uid},
            "backbone": {"architecture": "shufflenet_v2_x0_5", "weights": "None"},
            "data": {
                "train": {"uri": f"file://{digits}/train"},
                "validation": {"fraction": 0.25},
                "test": {"uri": f"file://{digits}/test"},
                "imageSize": 32,
            },
            "unfreezing": {"strategy": "Gradual", "maxStages": 2, "stage": {"maxEpochs": 2}},
            "optimization": {"batchSize": 45, "precision": "Float32", "headStart": "Epochs"},
            "output": {"uri": f"file://{output}"},
        }
        for section, fields in sections.items():
            document[section] = document.get(section, {}) | fields
        return RunConfig.model_validate(document)

    return build


@pytest.fixture(scope="module")
def faint(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits on light grey, at a third of their contrast."""
    root = tmp_path_factory.mktemp("faint")
    for split in ("train", "test"):
        pictures = (
            (file.parent.name, file.stem, Image.fromarray((150 + np.asarray(Image.open(file)) / 3).astype("uint8")))
            for file in sorted((digits / split).glob("*/*.png"))
        )
        write_folders(root / split, pictures)
    return root


@pytest.fixture
def pretrained(configure: Configure, tmp_path: Path) -> Callable[..., RunConfig]:
    """As `configure`, from weights that were pretrained on the digits as they are."""
    everything = {"strategy": "Full", "stage": {"maxEpochs": 4, "patience": 4}}
    config = configure(uid="pretraining", output=tmp_path / "pretraining", unfreezing=everything)
    file = tmp_path / "pretrained.safetensors"
    file.write_bytes(weights(config, run(config)))
    backbone = {"architecture": "shufflenet_v2_x0_5", "weights": None, "weightsFrom": {"uri": file.as_uri()}}

    def build(images: Path | None = None, *, output: Path, norms: str = "Auto", **sections: object) -> RunConfig:
        data = {} if images is None else {name: {"uri": f"file://{images}/{name}"} for name in ("train", "test")}
        return configure(
            output=output,
            backbone=backbone,
            data=data,
            optimization={"headStart": "Auto", "batchSize": None, "normStatistics": norms},
            **{"unfreezing": {"strategy": "HeadOnly", "stage": {"maxEpochs": 2}}} | sections,
        )

    return build


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every optimizer step from here on."""
    seen: list[float] = []
    backward = torch.autograd.backward

    def watched(loss: torch.Tensor) -> None:
        seen.append(float(loss.detach()))
        backward(loss)

    monkeypatch.setattr(torch.autograd, "backward", watched)
    return seen


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of the test's own, with more logical CPUs than this machine may have."""
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=128 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()
