"""The environment, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from snowmelt_operator.settings import Settings, SettingsError


def test_every_setting_has_a_variable() -> None:
    settings = Settings.from_environment(
        {
            "SNOWMELT_LAUNCHER": "ray",
            "SNOWMELT_NAMESPACES": "team-a, team-b",
            "SNOWMELT_TOKEN_KEY_FILE": "/k",
            "PATH": "/",
        }
    )
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.token_key_file == Path("/k")


def test_an_empty_variable_is_an_absent_one() -> None:
    assert Settings.from_environment({"SNOWMELT_LAUNCHER": "ray", "SNOWMELT_WORKERS": ""}).workers == 8


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"SNOWMELT_LAUNCHER": "slurm"}, "SNOWMELT_LAUNCHER"),
        ({"SNOWMELT_WORKERS": "many"}, "SNOWMELT_WORKERS"),
        ({"SNOWMELT_WORKERS": "0"}, "SNOWMELT_WORKERS"),
        ({"SNOWMELT_RAY_ADDRESS": "ray://here"}, "SNOWMELT_RAY_ADDRESS"),
        ({"SNOWMELT_NAMESPACES": "Team_A"}, "SNOWMELT_NAMESPACES"),
        ({"SNOWMELT_WROKERS": "1"}, "SNOWMELT_WROKERS: there is no such setting"),
        ({"SNOWMELT_LAUNCHER": "kuberay"}, "SNOWMELT_TRAINER_IMAGE"),
        ({"SNOWMELT_POD_DEFAULTS": "{"}, "SNOWMELT_POD_DEFAULTS: "),
        ({"SNOWMELT_POD_DEFAULTS": '{"nodeSelecter": {}}'}, "SNOWMELT_POD_DEFAULTS: nodeSelecter: "),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environment({"SNOWMELT_LAUNCHER": "ray"} | environment)


def test_every_wrong_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({"SNOWMELT_WORKERS": "x", "SNOWMELT_HEALTH_PORT": "99999", "SNOWMELT_NEW": "1"})
    assert all(name in str(refused.value) for name in ("SNOWMELT_WORKERS", "SNOWMELT_HEALTH_PORT", "SNOWMELT_NEW"))
