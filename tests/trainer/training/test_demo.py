"""The demo's own data, backbone and settings, trained in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.data import digits as digits_data
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.driver.trained import Trained
from tests.trainer.training.runs import run

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("volumes")
    shutil.copytree(EXAMPLES / "backbones", root / "backbones")
    digits_data.write(root / "digits")
    return root


def demo(volumes: Path, **unfreezing: Any) -> Trained:
    spec = yaml.safe_load((EXAMPLES / "digits.yaml").read_text())["spec"]
    uid = "-".join(["demo", *(str(value) for value in unfreezing.values())])
    config = RunConfig.model_validate(
        {
            "job": {"namespace": "demo", "name": "digits", "uid": uid},
            "volumesRoot": str(volumes),
            **{section: spec[section] for section in ("backbone", "data", "optimization")},
            "output": {"uri": f"pvc://models/{uid}"},
            "unfreezing": spec["unfreezing"] | unfreezing,
        }
    )
    return run(config)


def test_gradual_unfreezing_beats_training_the_head_alone(volumes: Path) -> None:
    head_only, gradual = demo(volumes, strategy="HeadOnly"), demo(volumes, target=None)
    assert len(gradual.state.rows) >= 2
    assert float(gradual.test["accuracy"]) >= 0.97
    assert float(gradual.test["accuracy"]) > float(head_only.test["accuracy"]) + 0.02
    assert float(gradual.validation["loss"]) < float(head_only.validation["loss"])
