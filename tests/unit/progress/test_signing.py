"""Where the key that signs tokens comes from, and what is said when it is not usable."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from snowmelt_operator.settings import Settings, SettingsError
from snowmelt_operator.signing import load_key
from tests.unit.progress.snapshots import NOON


class Secrets:
    """The two calls that keep a Secret."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None

    async def create(self, manifest: dict[str, Any]) -> bool:
        created = self.stored is None
        self.stored = self.stored or manifest
        return created

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.stored


def settings(**given: Any) -> Settings:
    return Settings(launcher="ray", operator_namespace="ops", token_secret="key", **given)


async def test_replicas_that_start_together_agree_on_one_key() -> None:
    store: Any = Secrets()
    first, second = await load_key(settings(), store), await load_key(settings(), store)
    token = first.issue(uid="uid-1", namespace="team", name="shoes", attempt=1, expires_at=NOON + timedelta(hours=1))
    assert second.verify(token, now=NOON).uid == "uid-1"


async def test_a_secret_without_a_key_is_named_with_the_remedy() -> None:
    store: Any = Secrets()
    store.stored = {"data": {"other": "AAAA"}}
    with pytest.raises(SettingsError, match=r"Secret ops/key .*delete it"):
        await load_key(settings(), store)


async def test_a_short_key_is_refused_with_its_length(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    store: Any = Secrets()
    with pytest.raises(SettingsError, match=r"5 bytes.*at least 32"):
        await load_key(settings(token_key_file=tmp_path / "key"), store)


async def test_a_key_file_that_is_absent_is_named(tmp_path: Path) -> None:
    store: Any = Secrets()
    with pytest.raises(SettingsError, match=r"absent\.key"):
        await load_key(settings(token_key_file=tmp_path / "absent.key"), store)
