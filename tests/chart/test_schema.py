"""values.schema.json refuses what the chart does not know, and says where."""

from __future__ import annotations

from typing import Any

import pytest

from hack.generate.chart import chart_values
from hack.generate.values import read_values
from hack.kube.helm import Helm, HelmError

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a group that does not exist": ({"imge": {}}, "'imge' not allowed"),
    "a key that does not exist": ({"image": {"tga": "1"}}, "'tga' not allowed"),
    "a key deep down": ({"launcher": {"ray": {"adress": "http://x"}}}, "'adress' not allowed"),
    "another case": ({"watchnamespaces": ["a"]}, "'watchnamespaces' not allowed"),
    "a number for a text": ({"image": {"tag": 1}}, "/image/tag"),
    "a text for a number": ({"replicas": "2"}, "/replicas"),
    "a text for a list": ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
    "a text for yes or no": ({"crds": {"keep": "false"}}, "/crds/keep"),
    "a launcher that does not exist": ({"launcher": {"type": "slurm"}}, "/launcher/type"),
    "a namespace that cannot exist": ({"watchNamespaces": ["Team_A"]}, "/watchNamespaces/0"),
    "a namespace twice": ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces"),
    "a port out of range": ({"progress": {"port": 70000}}, "/progress/port"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "/image/digest"),
    "an address without scheme": ({"launcher": {"ray": {"address": "ray:8265"}}}, "/launcher/ray/address"),
    "limits written as limit": ({"resources": {"limit": {}}}, "'limit' not allowed"),
    "a pull secret as text": ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
}


@pytest.mark.parametrize(("values", "says"), WRONG.values(), ids=WRONG.keys())
def test_helm_refuses(values: dict[str, Any], says: str, helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template("snowmelt", namespace="default", values=values)
    assert says in str(refused.value)


def test_the_launcher_ray_without_an_address_is_refused_with_the_remedy(helm: Helm) -> None:
    with pytest.raises(HelmError, match=r"launcher\.ray\.address: give the URL"):
        helm.template("snowmelt", namespace="default", values={"launcher": {"type": "ray"}})


def test_every_value_is_explained() -> None:
    explained = [value for top in chart_values() for value in top.walk()]
    assert len(explained) > 60
    assert [value.path for value in explained if not value.description.endswith((".", "`.", ")"))] == []


def test_a_value_without_a_comment_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"image\.tag needs a comment"):
        read_values("# The image.\nimage:\n  # Where.\n  repository: x\n\n  tag: y\n")


def test_a_default_of_no_type_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no type follows from the default None"):
        read_values("# Something.\nsomething:\n")
