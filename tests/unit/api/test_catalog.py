"""The catalog of architectures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from snowmelt_trainer.contract import catalog
from snowmelt_trainer.contract.backbone import Backbone


def test_the_nearest_names_are_offered() -> None:
    with pytest.raises(ValueError, match="did you mean resnet50"):
        catalog.known_architecture("resnet51")


def test_case_is_no_obstacle_to_a_hint() -> None:
    assert catalog.did_you_mean("VIT_B16", catalog.architectures()).startswith(" (did you mean vit_b_16")


def test_nothing_is_offered_for_what_resembles_nothing() -> None:
    assert catalog.did_you_mean("qqqqqq", catalog.architectures()) == ""


@pytest.mark.parametrize("name", list(catalog.architectures()))
def test_every_published_weights_name_fits_its_architecture_and_no_other_name_does(name: str) -> None:
    published = catalog.architectures()[name].weights
    for weights in catalog.weights_names():
        if weights in published:
            Backbone(architecture=name, weights=weights)
        else:
            with pytest.raises(ValueError, match=f"weights {weights} do not exist"):
                Backbone(architecture=name, weights=weights)


def test_the_api_types_need_no_torch() -> None:
    code = "import sys, snowmelt_operator.api.problems; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
